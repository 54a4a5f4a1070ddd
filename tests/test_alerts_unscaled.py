"""From a fault to the page with the rules and the Alertmanager's configuration as they are shipped.

One session: an engine is killed, and the Sentinel of another engine. tests/test_alerts_scaled.py has the alerts whose
durations are too long for a test.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.capture_pages import free_port
from tests.daemons import Daemon, until
from tests.engines import Engine
from tests.inbox import Inbox
from tests.monitoring import alertmanager, firing, inhibited, pages, prometheus, to
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [needs("prometheus", "prometheus-alertmanager"), pytest.mark.alone]

# Nothing waits for the process here, so that all that can fail does.
GONE = """\
listen: {listen}
engines:
  - name: gone
    start_period: 1s
    probes:
      health:  {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory:  {{kind: memory, needs: []}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: latency_p99, needs: []}}
      orders:  {{kind: latency, url: "{engine.metrics_url}", metric: order_latency_seconds, needs: []}}
"""
KEPT = """\
listen: {listen}
engines: [{{name: kept, start_period: 0s, probes: {{health: {{kind: http, url: "{engine.health_url}"}}}}}}]
"""


class Session:
    """Two engines, each with a Sentinel of its own; one Prometheus, one Alertmanager, one receiver."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self.inbox = ends.enter_context(Inbox())
        self.alertmanager = ends.enter_context(alertmanager(folder, self.inbox))
        self.engines, self.daemons, targets = {}, {}, []
        for name, config in {"gone": GONE, "kept": KEPT}.items():
            self.engines[name] = engine = ends.enter_context(Engine(name=f"{name}-{time.time_ns() % 10**9}"))
            (folder / name).mkdir()
            targets.append(f"127.0.0.1:{free_port()}")
            text = config.format(listen=targets[-1], engine=engine)
            self.daemons[name] = ends.enter_context(Daemon(folder / name, text))
        self.prometheus = ends.enter_context(prometheus(folder, targets, self.alertmanager.where))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    with ExitStack() as ends:
        yield Session(tmp_path_factory.mktemp("alerts"), ends)


def test_from_the_fault_to_the_page(session: Session, record_property: Callable[[str, object], None]) -> None:
    """A kill is one page and not five, in under 5 s; where Sentinel is gone nothing is told as resolved."""
    inbox, gone, kept = session.inbox, session.engines["gone"], session.engines["kept"]
    until(lambda: all(daemon.state() == "healthy" for daemon in session.daemons.values()))
    until(lambda: session.prometheus.api("query", query='ALERTS{alertname="Watchdog"}')["result"])
    assert firing(session.prometheus) == set()
    assert to(inbox, "/page") == []

    since = time.time()
    kept.fault("health-500")
    gone.kill()
    (page,) = until(lambda: pages(inbox, "gone"))
    took_s = page.at - since
    tell(record_property, "EngineGone", took_s)
    assert took_s < 5.0
    assert (page.status, list(page.firing), page.resolved) == ("trigger", ["EngineGone"], {})
    assert page.title == "gone is gone: 0 processes of it run"
    assert "runbook alerts/runbooks/EngineGone.md" in page.firing["EngineGone"]

    (unhealthy,) = until(lambda: pages(inbox, "kept"))
    tell(record_property, "EngineUnhealthy", unhealthy.at - since)
    since = time.time()
    session.daemons["kept"].__exit__()  # SIGKILL
    (absent,) = until(lambda: pages(inbox, ""))
    tell(record_property, "SentinelAbsent", absent.at - since)
    assert list(absent.firing) == ["SentinelAbsent"]
    assert "1 engines that it watched in the last 10 minutes are not watched" in absent.title

    # One page and not five: all that a killed engine cannot answer fires by now, and nobody was told.
    held_back = [("EngineUnhealthy", "health"), ("EngineUnhealthy", "memory")]
    held_back += [("LatencyMissing", "latency"), ("LatencyMissing", "orders")]
    until(lambda: inhibited(session.alertmanager, "gone") == held_back, 60)
    assert pages(inbox, "gone") == [page]
    gone.start()
    # Kept firing for a while without a Sentinel, then gone from Prometheus, and held back by SentinelAbsent meanwhile.
    until(lambda: ("EngineUnhealthy", "kept") not in firing(session.prometheus), 60)
    assert pages(inbox, "kept") == [unhealthy], "resolved was told of an engine that nobody watches"
    with session.daemons["kept"]:
        for engine, alert in (("", "SentinelAbsent"), ("gone", "EngineGone")):
            _, end = until(lambda engine=engine: pages(inbox, engine)[1:] and pages(inbox, engine), 90)
            assert (end.status, end.firing, list(end.resolved)) == ("resolve", {}, [alert])

    assert [len(pages(inbox, engine)) for engine in ("gone", "kept", "")] == [2, 1, 2]
    assert len(to(inbox, "/chat")) == 5
    assert to(inbox, "/ticket") == []
    assert {authorization for _, authorization, _ in to(inbox, "/watchdog")} == {"Bearer token-of-the-test"}


def tell(record_property: Callable[[str, object], None], alert: str, took_s: float) -> None:
    """A line at the end of the run: conftest.py."""
    record_property("told", f"{alert:<24} from the fault to the page {took_s:5.1f} s, rules as shipped")
