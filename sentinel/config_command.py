"""`sentinel config check|schema|show`: what a configuration means, before and while it is in force.

It must never print a secret: what came from `file:`, credentials in a URL and the values of headers are masked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import yaml

from sentinel.address import masked
from sentinel.config import load_config, schema
from sentinel.spec import with_evidence
from sentinel.units import Seconds
from sentinel.yaml_source import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentinel.config import Config
    from sentinel.model import EngineSpec, ProbeSpec, Window

_HIDDEN = "***"


def main(argv: Sequence[str]) -> int:
    """0, or 1 with file, line and path of each fault on standard error."""
    parser = argparse.ArgumentParser(prog="sentinel config", description="Look at a configuration.")
    parser.add_argument(
        "what", choices=("check", "schema", "show"), help="check a file, print its JSON Schema, or show"
    )
    parser.add_argument("file", nargs="?", help="the file; without one the four defaults and the environment")
    parser.add_argument("--config", metavar="FILE", help="the same")
    args = parser.parse_args(argv)
    if args.what == "schema":
        sys.stdout.write(json.dumps(schema(), indent=2, ensure_ascii=False) + "\n")
        return 0
    path = args.file or args.config or os.environ.get("SENTINEL_CONFIG") or None
    try:
        config = load_config(path, os.environ)
    except ConfigError as exc:
        for fault in exc.faults:
            sys.stderr.write(f"sentinel: {fault}\n")
        return 1
    if args.what == "show":
        sys.stdout.write(yaml.safe_dump(shown(config), sort_keys=False, allow_unicode=True, width=120))
        return 0
    engines, probes = len(config.engines), sum(len(engine.probes) for engine in config.engines)
    sys.stdout.write(f"{path or 'the defaults'}: good; {_count(engines, 'engine')}, {_count(probes, 'probe')}\n")
    return 0


def shown(config: Config) -> dict[str, Any]:
    """What is in force, defaults included, as the file would say it; secrets masked."""
    plain: dict[str, Any] = {"listen": str(config.listen)}
    if config.control is not None:
        plain["control"] = str(config.control)
    if config.notify:
        plain["notify"] = {each.name: {"kind": each.kind, **_set(each.settings)} for each in config.notify}
    plain["engines"] = [_engine(with_evidence(engine)) for engine in config.engines]
    hidden: dict[str, Any] = _hide(plain, config.secrets)
    return hidden


def _engine(engine: EngineSpec) -> dict[str, Any]:
    plain = {
        "name": engine.name,
        "start_period": Seconds(engine.start_period_s).text(),
        "probes": {probe.name: _probe(probe) for probe in engine.probes},
    }
    return plain | ({"maintenance": [_window(window) for window in engine.windows]} if engine.windows else {})


def _window(window: Window) -> dict[str, str]:
    plain = {"cron": str(window.cron), "zone": str(window.zone), "for": Seconds(window.lasts_s).text()}
    return plain | ({"reason": str(window.reason)} if window.reason else {})


def _probe(probe: ProbeSpec) -> dict[str, Any]:
    policy = probe.policy
    return {
        "kind": probe.kind,
        **_set(probe.settings),
        "interval": Seconds(policy.interval_s).text(),
        "timeout": Seconds(policy.timeout_s).text(),
        "fall": policy.fall,
        "rise": policy.rise,
        "severity": policy.severity,
        "needs": list(policy.needs),
    }


def _set(settings: Any) -> dict[str, Any]:
    """The settings of a kind that are not empty."""
    plain = {field: _plain(getattr(settings, field)) for field in settings._fields}
    return {field: value for field, value in plain.items() if value not in (None, "", {}, [])}


def _plain(value: Any) -> Any:
    for shown in ("plain", "text"):
        if hasattr(value, shown):
            return getattr(value, shown)()
    return masked(str(value)) if isinstance(value, str) else value


def _hide(plain: Any, secrets: Sequence[str]) -> Any:
    if isinstance(plain, dict):
        return {key: _hide(value, secrets) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_hide(value, secrets) for value in plain]
    if isinstance(plain, str):
        for secret in secrets:
            plain = plain.replace(secret, _HIDDEN) if secret else plain
    return plain


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
