"""The daemon end to end: a real process watches a real stand-in whose faults are switched on and off."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests import servers
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVAL_S, FALL, RISE = 0.2, 3, 2


def config(engine: Engine, metric: str = "latency_p99", **more: str) -> str:
    """The four probes on a stand-in, five times as fast as the default so that seconds are not waited for."""
    return f"""\
listen: 127.0.0.1:0
engines:
  - name: e
    interval: {more.get("interval", "200ms")}
    fall: {FALL}
    rise: {RISE}
    start_period: 10s
    probes:
      health: {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory: {{kind: memory, max: {more.get("memory", "90%")}}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: {metric}, max: 1000us, window: 2s}}
"""


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine("--memory-cap", "64", name=f"watched-{os.getpid()}") as running:
        yield running


@pytest.fixture
def daemon(engine: Engine, tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, config(engine)) as running:
        until(lambda: running.state() == "healthy")
        yield running


FAULTS = [
    pytest.param("health-500", "health", "http_status", id="health answers 500"),
    pytest.param("health-hang", "health", "timeout", id="health hangs"),
    pytest.param("metric-missing", "latency", "metric_missing", id="the metric vanishes"),
    pytest.param("metric-nan", "latency", "not_a_number", id="the metric is NaN"),
    pytest.param("metrics-cut", "latency", "answer_cut", id="the page is cut in the middle"),
    pytest.param("metrics-hang", "latency", "timeout", id="the page hangs"),
    pytest.param("endless", "latency", "body_too_large", id="the page never ends"),
]


@pytest.mark.parametrize(("fault", "probe", "reason"), FAULTS)
def test_each_fault_turns_the_right_probe_and_back(
    daemon: Daemon, engine: Engine, fault: str, probe: str, reason: str
) -> None:
    """Within `fall` intervals, and back within `rise`; one interval more, as a fault falls between two answers."""
    slack_s = 2.0  # two processes on a loaded machine; the board's histories count the answers exactly
    began = time.monotonic()
    engine.fault(fault)
    until(lambda: daemon.state() == "unhealthy")
    assert time.monotonic() - began < (FALL + 1) * INTERVAL_S + slack_s
    probes = daemon.probes()
    assert probes.pop(probe) == ("failing", reason)
    assert {state for state, _ in probes.values()} == {"passing"}
    code, text = daemon.get("/health")
    document = json.loads(text)
    assert (code, document["status"]) == (503, "fail")
    assert document["checks"][f"e:{probe}"][0]["status"] == "fail"
    began = time.monotonic()
    engine.mend()
    until(lambda: daemon.state() == "healthy")
    assert time.monotonic() - began < (RISE + 1) * INTERVAL_S + slack_s
    assert json.loads(daemon.get("/health")[1])["status"] == "pass"
    assert daemon.metric(
        f'sentinel_probe_failures_total{{engine="e",kind="{daemon_kind(probe)}",probe="{probe}",reason="{reason}"}}'
    )


def daemon_kind(probe: str) -> str:
    return {"health": "http"}.get(probe, probe)


def test_a_slow_engine_is_seen_by_its_gauge_and_by_its_histogram(engine: Engine, tmp_path: Path) -> None:
    for metric in ("latency_p99", "order_latency_seconds"):
        folder = tmp_path / metric
        folder.mkdir()
        with Daemon(folder, config(engine, metric)) as daemon:
            until(lambda daemon=daemon: daemon.state() == "healthy")
            engine.fault("slow")
            until(lambda daemon=daemon: daemon.probes()["latency"] == ("failing", "over_budget"))
            assert daemon.metric('sentinel_engine_latency_seconds{engine="e",probe="latency",quantile="0.99"}') > 0.001
            engine.mend()
            until(lambda daemon=daemon: daemon.state() == "healthy", 20)


def test_growing_memory_is_seen(engine: Engine, tmp_path: Path) -> None:
    with Daemon(tmp_path, config(engine, memory="50MiB")) as daemon:
        until(lambda: daemon.state() == "healthy")
        engine.fault("memory")
        until(lambda: daemon.probes()["memory"] == ("failing", "over_budget"))
        assert daemon.metric('sentinel_engine_memory_used_bytes{engine="e"}') > 50 << 20


def test_a_killed_engine_and_its_return(daemon: Daemon, engine: Engine) -> None:
    engine.fault("kill")
    engine.process.wait(5)
    until(lambda: daemon.state() == "unhealthy")
    until(lambda: daemon.probes()["health"] == ("failing", "connect_refused"))
    probes = daemon.probes()
    assert probes["process"] == ("failing", "no_process")
    assert [probes[name][0] for name in ("memory", "latency")] == ["waiting", "waiting"]
    assert daemon.metric('sentinel_engine_processes{engine="e"}') == 0
    assert daemon.metric('sentinel_engine_memory_used_bytes{engine="e"}') is None
    engine.process.stdout.close()
    engine.start()
    until(lambda: daemon.state() == "healthy")
    assert daemon.metric('sentinel_engine_restarts_total{engine="e"}') == 1
    assert daemon.metric('sentinel_engine_state_changes_total{engine="e",state="unhealthy"}') == 1


def test_an_engine_that_exits_by_itself(daemon: Daemon, engine: Engine) -> None:
    engine.fault("exit")
    until(lambda: daemon.probes()["process"] == ("failing", "no_process"))


def test_the_log_has_a_line_for_each_change_and_none_else(daemon: Daemon, engine: Engine) -> None:
    before = len(daemon.log())
    time.sleep(1.0)  # five rounds of answers in which nothing changes
    assert len(daemon.log()) == before
    engine.fault("health-500")
    until(lambda: daemon.state() == "unhealthy")
    probe, engine_line = daemon.log()[before:]
    sentence = f"GET {engine.health_url}: status 500, want 2xx"
    assert probe["message"] == f"e/health passing -> failing: {sentence}"
    assert (probe["level"], probe["reason"]) == ("warning", "http_status")
    assert engine_line["message"] == f"e healthy -> unhealthy: health: {sentence}"
    assert (engine_line["level"], engine_line["state"]) == ("error", "unhealthy")


def test_an_assumed_unit_is_said_once(daemon: Daemon) -> None:
    told = [row["message"] for row in daemon.log() if "assumed" in row["message"]]
    assert told == ["e/latency assumed: µs, as the name latency_p99 does not say its unit"]


def test_the_paths_of_the_contract(daemon: Daemon) -> None:
    until(lambda: daemon.get("/readyz")[0] == 200)
    assert daemon.get("/livez") == (200, "healthy: the daemon runs and its schedule is fresh\n")
    assert daemon.get("/health/e", "text/plain") == (200, "healthy: e is healthy\n")
    assert daemon.get("/health/f") == (404, "no engine 'f', want one of e\n")
    assert daemon.get("/nope")[0] == 404
    assert daemon.get("/")[0] == 200
    status = daemon.status()
    assert [probe["name"] for probe in status["engines"][0]["probes"]] == [
        "health",
        "process",
        "memory",
        "latency",
        "evidence",
    ]
    text = {family.name for family in parse_text(daemon.get("/metrics")[1])}
    openmetrics = {
        family.name for family in parse_openmetrics(daemon.get("/metrics", "application/openmetrics-text")[1])
    }
    assert text == openmetrics


CONTRACT = [
    "sentinel_engine_state",
    "sentinel_engine_healthy",
    "sentinel_engine_state_changes_total",
    "sentinel_probe_success",
    "sentinel_probe_failures_total",
    "sentinel_probe_duration_seconds",
    "sentinel_probe_last_answer_timestamp_seconds",
    "sentinel_engine_latency_seconds",
    "sentinel_engine_latency_budget_seconds",
    "sentinel_engine_memory_used_bytes",
    "sentinel_engine_memory_limit_bytes",
    "sentinel_engine_memory_used_ratio",
    "sentinel_engine_processes",
    "sentinel_engine_start_time_seconds",
    "sentinel_engine_restarts_total",
    "sentinel_schedule_lag_seconds",
    "sentinel_build_info",
    "sentinel_config_last_reload_successful",
]


def test_the_past_of_an_engine_is_kept(daemon: Daemon) -> None:
    def past() -> Any:
        code, body = daemon.get("/api/v1/history/e")
        assert code == 200
        memory = json.loads(body)["probes"]["memory"]
        return len(memory["times"]) >= 3 and memory

    memory = until(past)
    used = memory["series"]["sentinel_engine_memory_used_bytes"]
    assert len(used) == len(memory["times"])
    assert all(value > 1 << 20 for value in used)
    assert memory["times"] == sorted(memory["times"])
    assert daemon.get("/api/v1/history/other") == (404, "no engine 'other', want one of e\n")


def test_every_metric_of_the_contract_is_published(daemon: Daemon) -> None:
    page = daemon.get("/metrics")[1]
    assert [name for name in CONTRACT if f"# TYPE {name} " not in page] == []


def test_events_tell_each_change_and_end_with_the_daemon(daemon: Daemon, engine: Engine) -> None:
    with subprocess.Popen(["curl", "-sN", daemon.url + "/api/v1/events"], stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        assert stream.stdout.readline() == "retry: 2000\n"
        engine.fault("health-500")
        seen = []
        while len(seen) < 2:
            line = stream.stdout.readline()
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
        assert [(one.get("probe"), one["before"], one["state"]) for one in seen] == [
            ("health", "passing", "failing"),
            (None, "healthy", "unhealthy"),
        ]
        code, took_s = daemon.end()
        assert (code, took_s < 2) == (0, True)
        assert stream.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_time_with_probes_under_way(daemon: Daemon, engine: Engine, number: int) -> None:
    engine.fault("health-hang")
    engine.fault("metrics-hang")
    until(lambda: daemon.state() == "unhealthy")
    code, took_s = daemon.end(number)
    assert (code, took_s < 2) == (0, True)
    assert daemon.log()[-1]["message"] == "stopped"
    assert not [row for row in daemon.log() if "exception" in row]


def test_a_reload_keeps_what_did_not_change(daemon: Daemon, engine: Engine) -> None:
    def changes() -> float | None:
        return daemon.metric('sentinel_probe_duration_seconds_count{engine="e",kind="http",probe="health"}')

    until(lambda: (changes() or 0) > 3)
    before, since = changes(), daemon.status()["engines"][0]["since"]
    daemon.config_path.write_text(config(engine).replace("90%", "80%") + "      extra: {kind: process, name: sh}\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: "extra" in daemon.probes())
    assert changes() >= before
    assert daemon.status()["engines"][0]["probes"][0]["since"] <= since
    assert daemon.metric("sentinel_config_last_reload_successful") == 1


def test_a_bad_reload_leaves_the_old_configuration_running(daemon: Daemon) -> None:
    good = daemon.config_path.read_text()
    daemon.config_path.write_text(good + "      extra: {kind: htpp}\n")
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.metric("sentinel_config_last_reload_successful") == 0)
    told = [row["message"] for row in daemon.log() if "not reloaded" in row["message"]]
    kinds = "'evidence', 'http', 'latency', 'memory', 'process'"
    fault = f"{daemon.config_path}:13: engines[0].probes.extra: no kind 'htpp', want one of {kinds}"
    assert told == [f"not reloaded, the old configuration goes on: {fault}"]
    assert daemon.state() == "healthy"
    daemon.config_path.write_text(good)
    daemon.process.send_signal(signal.SIGHUP)
    until(lambda: daemon.metric("sentinel_config_last_reload_successful") == 1)


def test_a_reload_moves_to_another_address(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    daemon.config_path.write_text(daemon.config_path.read_text().replace("127.0.0.1:0", f"unix:{path}"))
    daemon.process.send_signal(signal.SIGHUP)
    words = ["curl", "-s", "--unix-socket", str(path), "http://localhost/livez"]
    until(lambda: subprocess.run(words, capture_output=True, text=True, check=False).stdout.startswith("healthy:"))
    daemon.end()
    assert not path.exists()


def start(*argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "sentinel", "run", *argv]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(words, env={**path, **environ}, capture_output=True, text=True, timeout=20, check=False)


def test_what_cannot_start_says_why_and_exits_with_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = start(SENTINEL_LISTEN=listen)
    hint = "is another sentinel running? Set listen: or SENTINEL_LISTEN"
    assert (done.returncode, done.stderr) == (
        1,
        f"sentinel: cannot listen on {listen}: address already in use; {hint}\n",
    )
    done = start(SENTINEL_MAX_P99="1000parsecs")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("sentinel: SENTINEL_MAX_P99: '1000parsecs': unknown unit 'parsecs'")
    path = tmp_path / "bad.yaml"
    path.write_text("listn: x\n")
    done = start("--config", str(path))
    assert (done.returncode, done.stderr) == (1, f"sentinel: {path}:1: listn: unknown key, did you mean 'listen'?\n")
    assert start("--wat").returncode == 1


def test_a_full_disk_under_the_log_ends_nothing(engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(config(engine).replace("127.0.0.1:0", f"unix:{tmp_path}/s.sock"))
    words = [sys.executable, "-m", "sentinel", "run", "--config", str(path)]

    def line() -> str:
        ask = [
            "curl",
            "-s",
            "--unix-socket",
            f"{tmp_path}/s.sock",
            "-H",
            "Accept: text/plain",
            "http://localhost/health",
        ]
        return subprocess.run(ask, capture_output=True, text=True, check=False).stdout

    with (
        Path("/dev/full").open("w") as full,
        subprocess.Popen(words, stdout=full, stderr=subprocess.PIPE, text=True) as daemon,
    ):
        until(lambda: line() == "healthy: e is healthy\n")
        engine.fault("health-500")
        until(lambda: "unhealthy" in line())
        daemon.terminate()
        assert daemon.stderr is not None
        assert (daemon.wait(10), daemon.stderr.read()) == (0, "")


def test_a_socket_left_behind_is_taken_over_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    words = [sys.executable, "-m", "sentinel", "run"]
    environ = {"PATH": os.environ["PATH"], "SENTINEL_LISTEN": f"unix:{path}"}
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert f"listening on unix:{path}" in first.stdout.readline()
        second = start(SENTINEL_LISTEN=f"unix:{path}")
        assert (second.returncode, "address already in use" in second.stderr) == (1, True)
        first.terminate()


def test_an_engine_that_never_was_is_starting_and_then_unhealthy(tmp_path: Path) -> None:
    with servers.serving(servers.silent) as url:
        text = f"""\
listen: 127.0.0.1:0
engines:
  - name: e
    interval: 100ms
    start_period: 1s
    probes:
      health: {{kind: http, url: "{url}"}}
"""
        with Daemon(tmp_path, text) as daemon:
            assert (daemon.state(), daemon.get("/health")[0]) == ("starting", 200)
            until(lambda: daemon.state() == "unhealthy")
            assert daemon.get("/health")[0] == 503
