"""What the evidence costs for one engine of 16 threads, every second: at most 0.3 % of a core, and less than others.

The daemon with the evidence less the daemon without it, beside Debian's prometheus-process-exporter scraped once a
second, as it is and without smaps. All watch the same process over the same seconds, so that drift hits all of them.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import installed, memory_mb, running, used_s
from tests.daemons import until

SECONDS = float(os.environ.get("SECONDS", "120"))
THREADS = 16
_SETTLE_S = 15.0  # the daemon's first looks at everything, and what aiohttp and the exporter load with a first request
_EXPORTER = "prometheus-process-exporter"

# Threads with names of their own, as those of an engine have; each works for 50 µs two hundred times a second.
ENGINE = f"""
import pathlib, sys, threading, time

def work(name):
    pathlib.Path(f"/proc/self/task/{{threading.get_native_id()}}/comm").write_text(name)
    while True:
        end = time.thread_time() + 50e-6
        while time.thread_time() < end:
            pass
        time.sleep(0.005)

for number in range(1, {THREADS}):
    threading.Thread(target=work, args=(f"worker-{{number}}",), daemon=True).start()
work(sys.argv[1])  # the first thread's name is that of the process
"""
# With a probe of that name the daemon looks at no evidence by itself.
WITHOUT = "evidence: {{kind: process, name: {name}, interval: 1h}}"
CONFIG = """\
listen: unix:{folder}/{what}.sock
engines: [{{name: e, probes: {{process: {{kind: process, name: {name}}}, {more}}}}}]
"""
GROUPS = "process_names: [{{name: e, comm: ['{name}']}}]\n"


def daemon_words(sentinel: Path, folder: str, what: str, name: str, more: str = "") -> list[str]:
    """The command of a daemon with a process probe, and more."""
    path = Path(folder) / f"{what}.yaml"
    path.write_text(CONFIG.format(folder=folder, what=what, name=name, more=more.format(name=name)))
    return [str(sentinel), "run", "--config", str(path)]


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


class Scraped:
    """An exporter on a port of its own, asked over one connection."""

    def __init__(self, stack: contextlib.ExitStack, folder: str, name: str, *options: str) -> None:
        port = free_port()
        path = Path(folder) / "exporter.yaml"
        path.write_text(GROUPS.format(name=name))
        words = [_EXPORTER, "-config.path", str(path), "-web.listen-address", f"127.0.0.1:{port}", *options]
        self.pid = stack.enter_context(running(words, stderr=subprocess.DEVNULL)).pid
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        until(self._answers)
        if b'namedprocess_namegroup_thread_count{groupname="e"' not in self.scrape():
            raise SystemExit(f"{_EXPORTER} does not see the threads of {name}")

    def scrape(self) -> bytes:
        self._connection.request("GET", "/metrics")
        return self._connection.getresponse().read()

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.scrape())
        self._connection.close()
        return False


def main() -> None:
    if shutil.which(_EXPORTER) is None:
        raise SystemExit(f"nothing to compare with: run tests/install-tools {_EXPORTER}")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        sentinel = installed(Path(folder) / "venv", dependencies=True) / "sentinel"
        name = f"evi-{os.getpid()}"
        engine = stack.enter_context(running([sys.executable, "-c", ENGINE, name])).pid
        until(lambda: len([*Path(f"/proc/{engine}/task").iterdir()]) == THREADS)
        with_it = stack.enter_context(running(daemon_words(sentinel, folder, "with", name))).pid
        without = stack.enter_context(running(daemon_words(sentinel, folder, "without", name, WITHOUT))).pid
        plain, frugal = Scraped(stack, folder, name), Scraped(stack, folder, name, "-gather-smaps=false")
        pids = (with_it, without, plain.pid, frugal.pid)

        def for_seconds(seconds: float) -> list[float]:
            """The share of a core that each took meanwhile, both exporters scraped once a second."""
            before, began = [used_s(pid) for pid in pids], time.monotonic()
            for second in range(int(seconds)):
                plain.scrape()
                frugal.scrape()
                time.sleep(max(0.0, began + second + 1 - time.monotonic()))
            return [(used_s(pid) - then) / (time.monotonic() - began) for pid, then in zip(pids, before, strict=True)]

        for_seconds(_SETTLE_S)
        of_with, of_without, of_plain, of_frugal = for_seconds(SECONDS)
        evidence = of_with - of_without
        print(f"one process of {THREADS} threads, every second, over {SECONDS:.0f} s")
        print(
            f"the daemon with the evidence    {of_with:8.3%} of a core, {memory_mb(with_it, 'VmRSS'):.1f} MB resident"
        )
        print(f"the daemon without it           {of_without:8.3%} of a core, {memory_mb(without, 'VmRSS'):.1f} MB")
        print(f"so the evidence                 {evidence:8.3%} of a core, bar 0.3 %")
        for what, share in (("as Debian starts it", of_plain), ("without smaps", of_frugal)):
            print(
                f"process-exporter, {what:<20}{share:6.3%} of a core; the evidence takes {evidence / share:.2f} of it,",
                end="",
            )
            print(f" the whole daemon {of_with / share:.2f}")


if __name__ == "__main__":
    sys.exit(main())
