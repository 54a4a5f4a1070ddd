"""Picks the subcommand and imports only that branch: a check must not pay for the daemon."""

from __future__ import annotations

import sys

from sentinel.model import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_USAGE = """usage: sentinel COMMAND [OPTION ...]

  check    ask the engine's health once, as a Docker HEALTHCHECK
  run      the daemon: watch engines and publish their health
  status   the daemon's current picture, once or again every second
  explain  why an engine is not healthy: what the kernel counted of it, ranked
  config   check, schema or show: the configuration file
  maintenance  start or end: an engine is watched as ever, and nobody is told
  demo     a stand-in engine with faults to switch on, watched by a daemon

sentinel COMMAND --help tells more. Exit status: 0 well, 1 not.
"""

_COMMANDS = {
    "run": "sentinel.daemon",
    "status": "sentinel.status_command",
    "explain": "sentinel.explain_command",
    "config": "sentinel.config_command",
    "maintenance": "sentinel.maintenance_command",
    "demo": "sentinel.demo.command",
}


def main(argv: Sequence[str]) -> int:
    """The exit status of `sentinel ARGV`; 1 for a command that is not there, as Docker reserves 2."""
    command, rest = (argv[0], argv[1:]) if argv else ("", ())
    if command == "check":
        import gc
        import posix

        gc.disable()  # nothing lives long enough here to be collected
        from sentinel.check import main as check

        pairs = (
            (name.decode("utf-8", "replace"), text.decode("utf-8", "replace")) for name, text in posix.environ.items()
        )
        posix._exit(check(rest, dict(pairs)))  # taking the interpreter down in order costs 2 ms of a check's 15
    if sys.flags.no_site:  # started by the script without `site`, which knows where other packages are
        import site

        site.main()
    if command in _COMMANDS:
        try:
            code: int = __import__(_COMMANDS[command], fromlist=("main",)).main(rest)
        except SystemExit as exc:  # argparse leaves with 2 for a word that it does not know
            return 1 if exc.code else 0
        return code
    if command in ("--help", "-h", "help"):
        sys.stdout.write(_USAGE)
        return 0
    if command == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"sentinel {version('sentinel-engine-monitor')}\n")
        return 0
    sys.stderr.write(f"sentinel: {f'no command {command!r}' if command else 'no command given'}; see sentinel --help\n")
    return 1
