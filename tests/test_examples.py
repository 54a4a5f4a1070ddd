"""The examples: each is a good file, and a server that nobody here wrote is watched end to end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel.config import load_config
from tests.daemons import Daemon, until

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_a_good_file(path: Path) -> None:
    assert load_config(str(path), {}).engines


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Debian's Prometheus, scraping itself; the process and its address."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    at = f"127.0.0.1:{free_port()}"
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: self, static_configs: [{{targets: ['{at}']}}]}}]\n"
    )
    words = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    words += [f"--web.listen-address={at}"]
    with (tmp_path / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        yield process, f"http://{at}"
    finally:
        process.kill()
        process.wait(10)


def test_a_real_prometheus_is_watched_and_the_reason_is_right(
    tmp_path: Path, prometheus: tuple[subprocess.Popen[bytes], str]
) -> None:
    process, url = prometheus
    text = (EXAMPLES / "prometheus.yaml").read_text()
    environ = {"PROMETHEUS": url, "INTERVAL": "250ms", "SENTINEL_LISTEN": "127.0.0.1:0"}
    # By its port: other tests run a Prometheus too.
    with Daemon(tmp_path, text, **environ, PROCESS=f"port:{url.rpartition(':')[2]}") as daemon:
        until(lambda: daemon.state() == "healthy", 30)
        p99 = daemon.metric('sentinel_engine_latency_seconds{engine="prometheus",probe="latency",quantile="0.99"}')
        assert 0 < p99 < 0.5

        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: daemon.state() == "unhealthy")
        until(lambda: daemon.probes()["latency"] == ("failing", "timeout"))
        probes = daemon.probes()
        assert probes["health"] == ("failing", "timeout")
        assert probes["process"] == ("passing", "")

        os.kill(process.pid, signal.SIGCONT)
        until(lambda: daemon.state() == "healthy", 30)

        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        until(lambda: daemon.probes()["process"] == ("failing", "no_process"))
        until(lambda: daemon.probes()["health"] == ("failing", "connect_refused"))
        assert daemon.get("/health/prometheus", "text/plain")[1].startswith("unhealthy: prometheus is unhealthy (")
