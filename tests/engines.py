"""The stand-in engine as a process of its own, for the tests and the benchmarks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence


class Engine:
    """`with Engine() as engine:` runs one on free ports; `options` are those of its command line.

    `python` is the command that runs Python.
    """

    def __init__(self, *options: str, name: str = "trading-engine", python: Sequence[str] = (sys.executable,)) -> None:
        self._python = python
        self._options = ["--name", name, *options]
        self._ports = ["--health-port", "0", "--metrics-port", "0"]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it, again on the same ports if it ran before."""
        words = [*self._python, "-m", "sentinel.demo.engine", *self._ports, *self._options]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.kill()
            raise RuntimeError(f"{' '.join(words)}: ended with status {self.process.returncode}")
        told = json.loads(line)
        self.name, self.pid = told["name"], told["pid"]
        self.health_url, self.metrics_url, self.control_url = (
            told["health_url"],
            told["metrics_url"],
            told["control_url"],
        )
        ports = [url.rpartition(":")[2].partition("/")[0] for url in (self.health_url, self.metrics_url)]
        self._ports = ["--health-port", ports[0], "--metrics-port", ports[1]]

    def restart(self) -> None:
        """SIGKILL, and a new process on the same ports."""
        self.kill()
        self.start()

    def fault(self, name: str, seconds: float | None = None) -> None:
        """Switches a fault on, for a while if `seconds` are given."""
        self._control("POST", f"/faults/{name}" + ("" if seconds is None else f"?seconds={seconds}"))

    def clear(self) -> None:
        """Switches every fault off."""
        self._control("DELETE", "/faults")

    mend = clear  # the name that the tests of the daemon and of the check use

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def kill(self) -> None:
        """SIGKILL, and the zombie is reaped; nothing if it has ended."""
        self.process.kill()
        self._reap()

    def _reap(self) -> int:
        status = self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def _control(self, method: str, path: str) -> None:
        request = urllib.request.Request(self.control_url + path, method=method)
        with urllib.request.urlopen(request, timeout=5) as answer:
            answer.read()
