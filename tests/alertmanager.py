"""Debian's Alertmanager as a process of its own, for the tests that tell a real one."""

from __future__ import annotations

import contextlib
import subprocess
import urllib.request
from typing import TYPE_CHECKING, Self

from tests.capture_pages import free_port
from tests.daemons import until

if TYPE_CHECKING:
    from pathlib import Path


class Alertmanager:
    """`with Alertmanager(folder, config) as alertmanager:` runs one that is ready.

    After `stop`, `start` brings it back on the same port and with what it remembered.
    """

    def __init__(self, folder: Path, config: str) -> None:
        self._folder = folder
        (folder / "alertmanager.yml").write_text(config)
        self.where = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self.where}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        words = ["prometheus-alertmanager", f"--config.file={self._folder}/alertmanager.yml"]
        words += [f"--storage.path={self._folder}/alertmanager", f"--web.listen-address={self.where}"]
        with (self._folder / "alertmanager.log").open("ab") as log:
            self._process = subprocess.Popen([*words, "--cluster.listen-address="], stdout=log, stderr=log)
        until(self._ready)

    def stop(self) -> None:
        """SIGTERM, and its end."""
        self._process.terminate()
        self._process.wait(20)

    def _ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "alertmanager.log").read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
        return False
