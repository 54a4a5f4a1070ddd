"""What is published of one picture: whole pages and documents compared, as dashboards lean on every name."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from sentinel.board import EngineRecord, Snapshot, fresh, step
from sentinel.history import History
from sentinel.model import Delivery, EngineSpec, Observation, Policy, ProbeSpec, Reading, Tally
from sentinel.publish import picture as shapes
from sentinel.publish.metrics import exposition

if TYPE_CHECKING:
    from pathlib import Path

SPEC = EngineSpec(
    "engine",
    (ProbeSpec("process", "process", None, Policy()), ProbeSpec("p99", "latency", None, Policy(severity="warning"))),
    0.0,
)


def picture(*answers: tuple[str, Observation], at: float = 10.0) -> Snapshot:
    record: EngineRecord = fresh(SPEC, 0.0)
    for name, seen in answers:
        record = step(SPEC, record, name, seen, seen.at)
    return Snapshot(at, 1_700_000_000.0, "1.2.3", ((SPEC, record),), Tally().add(0.002), True)


def well(at: float = 9.0) -> tuple[str, Observation]:
    readings = (Reading("sentinel_engine_processes", 2), Reading("sentinel_engine_restarts", 1))
    return "process", Observation(at, 0.001, True, "2 processes", readings=readings)


def slow(at: float = 9.5) -> tuple[str, Observation]:
    readings = (
        Reading("sentinel_engine_latency_seconds", 0.002, ("0.99",)),
        Reading("sentinel_engine_latency_budget_seconds", 0.001, ("0.99",)),
    )
    sentence = "p99 is 2 ms, limit 1 ms"
    return "p99", Observation(at, 0.003, False, sentence, "over_budget", 0.002, 0.001, "seconds", readings)


def test_the_past_is_aligned_and_named_as_on_the_metrics_page() -> None:
    history = History()
    for at, (name, seen) in enumerate((well(8.0), well(9.0), slow(9.5))):
        readings = seen.readings[1:] if at == 1 else seen.readings
        history.add(("engine", name), seen.replace(readings=readings))
    assert shapes.past(picture(well(), slow()), SPEC, history) == {
        "engine": "engine",
        "time": "2023-11-14T22:13:20.000Z",
        "probes": {
            "process": {
                "times": [1_699_999_998.0, 1_699_999_999.0],
                "series": {"sentinel_engine_processes": [2.0, None], "sentinel_engine_restarts": [1.0, 1.0]},
            },
            "p99": {
                "times": [1_699_999_999.5],
                "series": {
                    'sentinel_engine_latency_seconds{quantile="0.99"}': [0.002],
                    'sentinel_engine_latency_budget_seconds{quantile="0.99"}': [0.001],
                },
            },
        },
    }


def samples(now: Snapshot) -> list[str]:
    """The page without its comments, its histograms and what the daemon's own process uses at the moment."""
    body, _ = exposition(lambda: now)("")
    others = ("#", "sentinel_probe_duration_seconds", "sentinel_schedule_lag_seconds", "process_")
    return [line for line in body.decode().splitlines() if not line.startswith(others)]


def test_the_whole_page_of_one_engine() -> None:
    assert samples(picture(well(), slow())) == [
        'sentinel_engine_state{engine="engine",state="starting"} 0.0',
        'sentinel_engine_state{engine="engine",state="healthy"} 0.0',
        'sentinel_engine_state{engine="engine",state="degraded"} 1.0',
        'sentinel_engine_state{engine="engine",state="unhealthy"} 0.0',
        'sentinel_engine_state{engine="engine",state="unknown"} 0.0',
        'sentinel_engine_state{engine="engine",state="maintenance"} 0.0',
        'sentinel_engine_healthy{engine="engine"} 1.0',
        'sentinel_engine_state_changes_total{engine="engine",state="starting"} 1.0',
        'sentinel_engine_state_changes_total{engine="engine",state="healthy"} 0.0',
        'sentinel_engine_state_changes_total{engine="engine",state="degraded"} 1.0',
        'sentinel_engine_state_changes_total{engine="engine",state="unhealthy"} 0.0',
        'sentinel_engine_state_changes_total{engine="engine",state="unknown"} 0.0',
        'sentinel_engine_state_changes_total{engine="engine",state="maintenance"} 0.0',
        'sentinel_engine_state_since_timestamp_seconds{engine="engine"} 1.699999999e+09',
        'sentinel_probe_success{engine="engine",kind="process",probe="process"} 1.0',
        'sentinel_probe_success{engine="engine",kind="latency",probe="p99"} 0.0',
        'sentinel_probe_failing{engine="engine",kind="process",probe="process",severity="critical"} 0.0',
        'sentinel_probe_failing{engine="engine",kind="latency",probe="p99",severity="warning"} 1.0',
        'sentinel_probe_failures_total{engine="engine",kind="latency",probe="p99",reason="over_budget"} 1.0',
        'sentinel_probe_last_answer_timestamp_seconds{engine="engine",kind="process",probe="process"} 1.699999999e+09',
        'sentinel_probe_last_answer_timestamp_seconds{engine="engine",kind="latency",probe="p99"} 1.6999999995e+09',
        'sentinel_engine_processes{engine="engine"} 2.0',
        'sentinel_engine_restarts_total{engine="engine"} 1.0',
        'sentinel_engine_latency_seconds{engine="engine",probe="p99",quantile="0.99"} 0.002',
        'sentinel_engine_latency_budget_seconds{engine="engine",probe="p99",quantile="0.99"} 0.001',
        'sentinel_build_info{version="1.2.3"} 1.0',
        "sentinel_config_last_reload_successful 1.0",
    ]


def test_the_page_says_what_the_daemon_itself_costs(tmp_path: Path) -> None:
    def own() -> dict[str, float]:
        rows = (line.split() for line in exposition(picture)("")[0].decode().splitlines())
        return {row[0]: float(row[1]) for row in rows if row[0].startswith("process_")}

    before = own()
    with (tmp_path / "one more").open("w"):
        after = own()
    assert after["process_open_fds"] == before["process_open_fds"] + 1
    assert 0 < before["process_cpu_seconds_total"] <= after["process_cpu_seconds_total"] <= time.process_time() + 1
    assert {"process_resident_memory_bytes", "process_start_time_seconds"} <= before.keys()


def test_what_is_stale_is_absent_and_not_its_last_value() -> None:
    page = samples(picture(well(), slow(), at=100.0))
    left = {line.partition("{")[0] for line in page}
    assert not left & {"sentinel_engine_processes", "sentinel_engine_latency_seconds", "sentinel_probe_success"}
    assert "sentinel_probe_last_answer_timestamp_seconds" in left


def test_a_histogram_is_cumulative_and_whole() -> None:
    body, content_type = exposition(lambda: picture(well()))("application/openmetrics-text")
    rows = [line for line in body.decode().splitlines() if line.startswith("sentinel_schedule_lag_seconds")]
    assert content_type.startswith("application/openmetrics-text")
    assert [row.rpartition(" ")[2] for row in rows] == ["0.0", "0.0", *["1.0"] * 13, "0.002"]
    assert body.endswith(b"# EOF\n")


def test_health_json_is_as_the_draft_has_it() -> None:
    now = picture(well(), slow())
    assert shapes.health(now, now.engines) == {
        "status": "warn",
        "version": "1.2.3",
        "serviceId": "sentinel",
        "description": "health of engine",
        "output": "healthy: engine is degraded (p99: p99 is 2 ms, limit 1 ms)",
        "checks": {
            "engine:process": [{"componentType": "process", "status": "pass", "time": "2023-11-14T22:13:19.000Z"}],
            "engine:p99": [
                {
                    "componentType": "latency",
                    "status": "warn",
                    "time": "2023-11-14T22:13:19.500Z",
                    "observedValue": 0.002,
                    "observedUnit": "seconds",
                    "output": "p99 is 2 ms, limit 1 ms",
                }
            ],
        },
    }


def test_what_became_of_notifications_is_on_the_page() -> None:
    told = Delivery("chat", sent=3, failed=2, dropped=1, pending=4, arrived_at=8.0)
    page = samples(picture(well(), slow()).replace(deliveries=(told, Delivery("new"))))
    assert [line for line in page if "notifications" in line] == [
        'sentinel_notifications_total{receiver="chat",result="sent"} 3.0',
        'sentinel_notifications_total{receiver="chat",result="failed"} 2.0',
        'sentinel_notifications_total{receiver="new",result="sent"} 0.0',
        'sentinel_notifications_total{receiver="new",result="failed"} 0.0',
        'sentinel_notifications_dropped_total{receiver="chat"} 1.0',
        'sentinel_notifications_dropped_total{receiver="new"} 0.0',
        'sentinel_notifications_pending{receiver="chat"} 4.0',
        'sentinel_notifications_pending{receiver="new"} 0.0',
        'sentinel_notifications_last_sent_timestamp_seconds{receiver="chat"} 1.699999998e+09',
    ]


def test_no_answer_and_no_engine_are_not_health() -> None:
    now = picture(("process", Observation(9.0, 0.0, None, "cannot tell")))
    document = shapes.health(now, now.engines)
    assert (document["status"], document["checks"]["engine:p99"][0]["output"]) == ("fail", "no answer yet")
    assert shapes.line(now, ()) == "unhealthy: no engines are configured"


def test_infinity_is_not_json() -> None:
    seen = Observation(9.0, 0.001, False, "above 1 s", "over_budget", float("inf"), 0.001, "seconds")
    document = shapes.status(picture(well(), ("p99", seen)))
    assert document["engines"][0]["probes"][1]["last"]["value"] is None


_LOG_A_CHANGE = """
import logging
from sentinel.board import Change
from sentinel.model import Observation
from sentinel.publish.log import log_change, start_log
start_log()
seen = Observation(0.0, 0.1, False, "p99 is 2 ms, limit 1 ms", "over_budget", 0.002, 0.001, "seconds")
log_change(Change("e", "p99", "passing", "failing", seen.sentence, seen))
logging.getLogger("apscheduler").warning("from %s {braces}", "below")
"""


def test_a_terminal_gets_text_and_the_libraries_end_in_the_same_place(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    script = tmp_path / "log.py"
    script.write_text(_LOG_A_CHANGE)
    read = b""
    with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123  # a descriptor, no path
        process = subprocess.Popen([sys.executable, str(script)], stdout=theirs, stderr=theirs)
        process.wait(20)
        while read.count(b"\n") < 2:
            read += terminal.read(4096)
    os.close(theirs)
    first, second = read.decode().splitlines()[:2]
    assert "e/p99 passing -> failing: p99 is 2 ms, limit 1 ms" in first
    assert first.endswith("reason=over_budget value=0.002 max=0.001")
    assert "from below {braces}" in second


def test_otherwise_each_line_is_json(tmp_path: Path) -> None:
    script = tmp_path / "log.py"
    script.write_text(_LOG_A_CHANGE)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["level"], first["probe"], first["reason"], first["value"]) == ("warning", "p99", "over_budget", 0.002)
    assert (second["message"], second["logger"]) == ("from below {braces}", "apscheduler")
