"""From a fault to the page and back, for every page whose durations are too long for a test.

The rules have all their durations a twentieth of what they are (`monitoring.scaled`); limits and the Alertmanager's
configuration are as they are shipped.

Every engine has a fault of its own, all at once under one daemon. EngineGone and SentinelAbsent are in
tests/test_alerts_unscaled.py.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from tests.cgroups import Group
from tests.daemons import Daemon, until
from tests.engines import Engine
from tests.inbox import Inbox
from tests.monitoring import alertmanager, firing, pages, prometheus, scaled
from tests.test_alert_rules import BY_NAME
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = needs("prometheus", "prometheus-alertmanager")

BY = 20
GROUP_INTERVAL_S = 5  # alerts/alertmanager.yml: what is to be told of an incident later is told within this
PROCESS = "process: {{kind: process, name: {engine.name}}}"
LATENCY = 'latency: {{kind: latency, url: "{engine.metrics_url}", max: 1ms, metric: '


class Scenario(NamedTuple):
    """What is watched of an engine, the fault, and what the page must say of it."""

    probes: str
    fault: str
    told: str
    options: tuple[str, ...] = ()
    memory_mib: int = 0  # the limit of a control group of its own


SCENARIOS = {
    "EngineUnhealthy": Scenario(
        'health: {{kind: http, url: "{engine.health_url}"}}',
        "health-500",
        r"probe health fails, http_status \d+ times in the last minute",
    ),
    "EngineUnknown": Scenario(
        LATENCY + "order_latency_summary_seconds}}", "metric-nan", r"no verdict for 15 s, the oldest answer is .+ old"
    ),
    "EngineRestarting": Scenario(
        "process: {{kind: process, name: {engine.name}, severity: warning}}",
        "restarts",
        r"restarts in a loop: [3-9] times",
    ),
    "EngineOomKilled": Scenario(
        PROCESS,
        "memory",
        r"the kernel killed 1 of its processes for lack of memory in the last 5 minutes\nlikeliest cause: oom killed\n",
        memory_mib=64,
    ),
    "LatencyBudgetBurnsFast": Scenario(
        LATENCY + "latency_p99}}",
        "slow",
        r"latency was over budget for [\d.]+% of the window, quantile 0.99 is [\d.]+ms now, budget 1ms",
    ),
    "LatencyMissing": Scenario(
        LATENCY + "latency_p99}}", "metric-missing", r"probe latency fails, metric_missing \d+ times in the last minute"
    ),
    "MemoryFillsUp": Scenario(
        PROCESS + ", memory: {{kind: memory}}",
        "memory",
        r"reaches its memory limit in [\dhms. ]+ if",
        ("--memory-cap", "480"),
        600,
    ),
    "MemoryNearLimit": Scenario(
        PROCESS + ", memory: {{kind: memory, max: 40MiB}}",
        "memory",
        r"uses [\d.]+% of its memory limit, at most [\d.]+% is allowed",
        ("--memory-cap", "64"),
    ),
}
ELSEWHERE = {"EngineGone", "SentinelAbsent"}


def test_no_page_is_forgotten() -> None:
    assert {name for name, rule in BY_NAME.items() if rule["labels"]["severity"] == "page"} == {*SCENARIOS} | ELSEWHERE


class Session:
    """Engines by name under one daemon, a Prometheus with scaled rules, an Alertmanager, a receiver."""

    def __init__(self, folder: Path, ends: ExitStack, scenarios: dict[str, Scenario]) -> None:
        self.scenarios = scenarios
        self.inbox = ends.enter_context(Inbox())
        self.alertmanager = ends.enter_context(alertmanager(folder, self.inbox))
        self.engines: dict[str, Engine] = {}
        rows = []
        for nth, (name, scenario) in enumerate(scenarios.items()):
            group = ends.enter_context(Group("memory")) if scenario.memory_mib else None
            engine = Engine(*scenario.options, name=f"a{nth}-{time.time_ns() % 10**9}")
            self.engines[name] = ends.enter_context(engine)
            if group:
                group.add(engine.pid)
                group.limit_memory(scenario.memory_mib << 20)
            probes = scenario.probes.format(engine=engine)
            rows.append(f"  - {{name: {name}, start_period: 1s, probes: {{{probes}}}}}\n")
        self.daemon = ends.enter_context(Daemon(folder, "listen: 127.0.0.1:0\nengines:\n" + "".join(rows)))
        target = self.daemon.url.removeprefix("http://")
        rules = scaled(folder / "rules", BY)
        # Alertmanager hears again of what fires each minute, unless told otherwise.
        resend = f"--rules.alert.resend-delay={60 // BY}s"
        self.prometheus = ends.enter_context(prometheus(folder, [target], self.alertmanager.where, rules, resend))
        until(lambda: {engine["state"] for engine in self.daemon.status()["engines"]} == {"healthy"})
        until(lambda: self.prometheus.api("query", query='ALERTS{alertname="Watchdog"}')["result"])
        until(lambda: not firing(self.prometheus))  # SentinelAbsent: half a second is too short for the first scrape
        assert not any(self.told().values())

    def fault(self, name: str) -> None:
        if self.scenarios[name].fault != "restarts":
            self.engines[name].fault(self.scenarios[name].fault)
            return
        for restarts in range(1, 4):
            self.engines[name].restart()
            until(lambda restarts=restarts: self.restarts(name) >= restarts)

    def restarts(self, name: str) -> float:
        return self.daemon.metric(f'sentinel_engine_restarts_total{{engine="{name}"}}') or 0.0

    def mend(self, name: str) -> None:
        if self.scenarios[name].told.startswith("the kernel killed"):
            self.engines[name].restart()
        else:
            self.engines[name].clear()

    def told(self) -> dict[str, list[tuple[str, list[str]]]]:
        """Of each engine the messages: what fires, or, of the last one, what is resolved.

        The resolved are cut to what was told as firing: with such short durations, what was held back may end in the
        same message.
        """
        told = {}
        for name in self.scenarios:
            found = pages(self.inbox, name)
            fired = {alert for page in found for alert in page.firing}
            told[name] = [
                (page.status, [*page.firing] or [alert for alert in page.resolved if alert in fired]) for page in found
            ]
        return told


def test_each_fault_is_one_page_and_its_end_one_more(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with ExitStack() as ends:
        session = Session(tmp_path, ends, SCENARIOS)
        began = {}
        for name in SCENARIOS:
            began[name] = time.time()
            session.fault(name)
        paged = {name: [("trigger", [name])] for name in SCENARIOS}
        until(lambda: all(session.told().values()), 90)
        print(session.daemon.log_path.read_text())  # shown where the test fails
        assert session.told() == paged
        for name, scenario in SCENARIOS.items():
            (page,) = pages(session.inbox, name)
            assert re.search(scenario.told, page.firing[name]), page.firing[name]
            assert page.title == page.firing[name].splitlines()[0]
            assert f"runbook alerts/runbooks/{name}.md" in page.firing[name]
            line = f"{name:<24} from the fault to the page {page.at - began[name]:5.1f} s, durations of rules 1/{BY}"
            record_property("told", line)

        for name in SCENARIOS:
            session.mend(name)
        until(lambda: all(len(told) > 1 for told in session.told().values()), 120)
        time.sleep(GROUP_INTERVAL_S)
        assert session.told() == {name: [*paged[name], ("resolve", [name])] for name in SCENARIOS}


def test_an_alertmanager_that_was_away_loses_nothing(tmp_path: Path) -> None:
    """Away for ten seconds and told again each three: a twentieth of Prometheus's minute."""
    unhealthy = SCENARIOS["EngineUnhealthy"]
    with ExitStack() as ends:
        session = Session(tmp_path, ends, {"ended": unhealthy, "began": unhealthy, "brief": unhealthy})
        session.fault("ended")
        until(lambda: session.told()["ended"])
        session.alertmanager.stop()
        session.mend("ended")
        session.fault("began")
        session.fault("brief")
        until(lambda: ("EngineUnhealthy", "brief") in firing(session.prometheus))
        session.mend("brief")
        time.sleep(10)
        assert firing(session.prometheus) == {("EngineUnhealthy", "began")}
        session.alertmanager.start()
        page, end = ("trigger", ["EngineUnhealthy"]), ("resolve", ["EngineUnhealthy"])
        # What came and went meanwhile is not told late: it is in the history, ALERTS{engine="brief"}.
        wanted = {"ended": [page, end], "began": [page], "brief": []}
        until(lambda: session.told() == wanted, 60)
        session.mend("began")
        until(lambda: len(session.told()["began"]) > 1, 60)
        assert session.told() == {**wanted, "began": [page, end]}
