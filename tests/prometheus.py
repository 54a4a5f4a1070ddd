"""Debian's Prometheus as a process of its own, for the tests that ask a real one."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from tests.capture_pages import free_port
from tests.daemons import until

if TYPE_CHECKING:
    from pathlib import Path


class Prometheus:
    """`with Prometheus(folder, config) as prometheus:` runs one that is ready; in the config `SELF` is its address.

    `options` are further ones of its command line.
    """

    def __init__(self, folder: Path, config: str, *options: str) -> None:
        at = f"127.0.0.1:{free_port()}"
        self.url = f"http://{at}"
        self._folder = folder
        (folder / "prometheus.yml").write_text(config.replace("SELF", at))
        self._words = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        self._words += [f"--web.listen-address={at}", *options]

    def __enter__(self) -> Self:
        with (self._folder / "prometheus.log").open("wb") as log:
            self.process = subprocess.Popen(self._words, stdout=log, stderr=log)
        until(self._ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(10)

    def _ready(self) -> bool:
        assert self.process.poll() is None, (self._folder / "prometheus.log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def api(self, path: str, **parameters: object) -> Any:
        """The `data` of an answer of `/api/v1/`; a query that it refuses fails with its sentence."""
        asked = urlencode({name.replace("match", "match[]"): value for name, value in parameters.items()})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{asked}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as exc:
            with exc:
                raise AssertionError(f"{path} {parameters}: {exc.read().decode()}") from None
