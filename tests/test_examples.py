"""The examples: each is a good file, and a server that nobody here wrote is watched end to end."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel.config import load_config
from tests.daemons import Daemon, until
from tests.prometheus import Prometheus
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_an_example_is_a_good_file(path: Path) -> None:
    assert load_config(str(path), {}).engines


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Prometheus]:
    """One that scrapes itself."""
    config = (
        "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: self, static_configs: [{targets: ['SELF']}]}]\n"
    )
    with Prometheus(tmp_path, config) as running:
        yield running


@needs("prometheus")
def test_a_real_prometheus_is_watched_and_the_reason_is_right(tmp_path: Path, prometheus: Prometheus) -> None:
    process = prometheus.process
    text = (EXAMPLES / "prometheus.yaml").read_text()
    environ = {"PROMETHEUS": prometheus.url, "INTERVAL": "250ms", "SENTINEL_LISTEN": "127.0.0.1:0"}
    # By its port: other tests run a Prometheus too.
    with Daemon(tmp_path, text, **environ, PROCESS=f"port:{prometheus.url.rpartition(':')[2]}") as daemon:
        until(lambda: daemon.state() == "healthy", 30)
        p99 = daemon.metric('sentinel_engine_latency_seconds{engine="prometheus",probe="latency",quantile="0.99"}')
        assert 0 < p99 < 0.5

        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: daemon.state() == "unhealthy")
        until(lambda: daemon.probes()["latency"] == ("failing", "timeout"))
        until(lambda: daemon.probes()["health"] == ("failing", "timeout"))
        assert daemon.probes()["process"] == ("passing", "")

        os.kill(process.pid, signal.SIGCONT)
        until(lambda: daemon.state() == "healthy", 30)

        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
        until(lambda: daemon.probes()["process"] == ("failing", "no_process"))
        until(lambda: daemon.probes()["health"] == ("failing", "connect_refused"))
        assert daemon.get("/health/prometheus", "text/plain")[1].startswith("unhealthy: prometheus is unhealthy (")
