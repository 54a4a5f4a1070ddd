"""The daemon as a process of its own, for the tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


class Daemon:
    """`with Daemon(folder, config) as daemon:` runs `sentinel run` on a free port, its log in the folder.

    `python` is the command that runs Python.
    """

    def __init__(
        self, folder: Path, config: str = "", python: Sequence[str] = (sys.executable,), **environ: str
    ) -> None:
        self.log_path = folder / "daemon.log"
        self._words = [*python, "-m", "sentinel", "run"]
        self.config_path = folder / "sentinel.yaml"
        if config:
            self.config_path.write_text(config)
            self._words += ["--config", str(self.config_path)]
        self._environ = {"PATH": os.environ["PATH"], "SENTINEL_LISTEN": "127.0.0.1:0", **environ}

    def __enter__(self) -> Self:
        with self.log_path.open("w") as log:
            self.process = subprocess.Popen(self._words, env=self._environ, stdout=log, stderr=subprocess.STDOUT)
        watching = until(lambda: next((row for row in self.log() if row["message"].startswith("watching")), None))
        self.url = str(watching["message"]).rpartition(" ")[2]
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    def log(self) -> list[dict[str, Any]]:
        """Every whole line of the log so far; each must be JSON."""
        text = self.log_path.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def get(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        """Status and body."""
        request = urllib.request.Request(self.url + path, headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()

    def state(self, engine: int = 0) -> str:
        """The state of an engine."""
        return str(self.status()["engines"][engine]["state"])

    def probes(self, engine: int = 0) -> dict[str, tuple[str, str]]:
        """State and last reason of each probe."""
        return {
            probe["name"]: (probe["state"], (probe["last"] or {}).get("reason", ""))
            for probe in self.status()["engines"][engine]["probes"]
        }

    def status(self) -> Any:
        return json.loads(self.get("/api/v1/status")[1])

    def metric(self, name: str) -> float | None:
        """The value of a sample, written as on the page; None if it is not there."""
        code, page = self.get("/metrics")
        assert code == 200
        for line in page.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return None

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """The exit status after a signal, and how many seconds it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        return self.process.wait(10), time.monotonic() - began


def until(wanted: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `wanted` gives once it is true; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        found = wanted()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
