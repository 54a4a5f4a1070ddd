"""Who is told of an alert, and which alert holds back which: every pair, in a real Alertmanager with our file."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemons import until
from tests.inbox import Inbox
from tests.monitoring import alertmanager, held
from tests.test_alert_rules import BY_NAME
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = needs("prometheus-alertmanager")

OF_SENTINEL = {"SentinelAbsent", "SentinelLate", "SentinelConfigurationRefused", "Watchdog"}
OF_AN_ENGINE = {*BY_NAME} - OF_SENTINEL
LATENCY = {name for name in BY_NAME if name.startswith("Latency")}
MEMORY = {"MemoryFillsUp", "MemoryNearLimit"}
HOLDS_BACK = {
    "EngineInMaintenance": OF_AN_ENGINE - {"EngineInMaintenance"},
    "SentinelAbsent": OF_AN_ENGINE,
    "EngineOomKilled": {"EngineGone", "EngineRestarting"} | MEMORY,
    "EngineRestarting": {"EngineGone"},
    "EngineGone": OF_AN_ENGINE - {"EngineGone", "EngineOomKilled", "EngineRestarting", "EngineInMaintenance"},
    "EngineUnknown": {"EngineDegraded"} | LATENCY | MEMORY,
    "EngineUnhealthy": {"EngineDegraded", "LatencyMissing"},
    "LatencyBudgetBurnsFast": {"LatencyBudgetBurnsSlowly", "LatencyOverBudget"},
    "MemoryNearLimit": {"MemoryFillsUp"},
}
RECEIVERS = {"page": "page", "ticket": "ticket", "info": "nobody"}


def alert(name: str, engine: str, instance: str) -> dict[str, Any]:
    labels = {"alertname": name, "job": "sentinel", "instance": instance, **BY_NAME[name]["labels"]}
    if name not in OF_SENTINEL:
        labels |= {"engine": engine, "probe": "p"}
    return {"labels": labels, "annotations": {"summary": name}}


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[dict[str, Any]]]:
    """What Alertmanager says of every alert beside every other, each pair of an engine of its own.

    Those of Sentinel itself have no engine: an instance stands for each of them.
    """
    posted = [
        one
        for holder in BY_NAME
        for beside in OF_AN_ENGINE - {holder}
        for one in (alert(holder, f"{holder}/{beside}", holder), alert(beside, f"{holder}/{beside}", holder))
    ]
    with Inbox() as inbox, alertmanager(tmp_path_factory.mktemp("routes"), inbox) as manager:
        request = urllib.request.Request(
            f"{manager.url}/api/v2/alerts", json.dumps(posted).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()
        count = len({json.dumps(one["labels"], sort_keys=True) for one in posted})
        yield until(lambda: len(found := held(manager)) == count and found)


def test_every_pair(alerts: list[dict[str, Any]]) -> None:
    held_back: dict[str, set[str]] = {}
    for one in alerts:
        holder, _, beside = one["labels"].get("engine", "").partition("/")
        if one["status"]["inhibitedBy"] and one["labels"]["alertname"] == beside:
            held_back.setdefault(holder, set()).add(beside)
    # Beside SentinelAbsent each has its instance, and there all are held back.
    assert held_back == HOLDS_BACK


def test_no_two_hold_back_each_other() -> None:
    """Both would be silent."""
    pairs = {(holder, held) for holder, several in HOLDS_BACK.items() for held in several}
    assert {pair for pair in pairs if pair[::-1] in pairs} == set()


def test_each_severity_has_its_receiver(alerts: list[dict[str, Any]]) -> None:
    told = {one["labels"]["alertname"]: [receiver["name"] for receiver in one["receivers"]] for one in alerts}
    wanted = {name: [RECEIVERS[rule["labels"]["severity"]]] for name, rule in BY_NAME.items()}
    assert told == wanted | {"Watchdog": ["dead-mans-switch"]}
