"""Records what a daemon publishes, for the tests of the alerts: `python -m tests.record_alerts quiet|bad`.

A real stand-in in control groups of its own, a real daemon and a real Prometheus that scrapes it every second. Of each
series that the rules could read, a value every 15 s is kept, so an hour is some 20 kB. tests/test_alert_recordings.py
replays them through promtool. Some counters are of the network namespace: on a machine that does other things, begin
with `unshare --net sh -c 'ip link set lo up && …'`.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.cgroups import Group
from tests.daemons import Daemon, until
from tests.engines import Engine
from tests.monitoring import prometheus
from tests.prometheus import Prometheus

RECORDINGS = Path(__file__).parent / "data" / "recordings"
STEP_S = 15
_LEFT_OUT = "|".join(
    (
        "sentinel_probe_duration_seconds_(bucket|sum)",
        "sentinel_schedule_lag_seconds_sum",
        "sentinel_engine_(thread_cpu|run_queue|pressure|cpu_busy|cpu_steal)_seconds_total",
        "sentinel_engine_(context_switches|migrations|network_drops)_total",
        "sentinel_engine_numa_bytes",
        "(scrape|process|ALERTS)_?.*",
        ".+:.+",  # what the rules themselves made of it
    )
)
_MEMORY_BYTES = 2 << 30
_CAP_MIB = 1700  # what grows for the leak stays below 90 % of the limit
_CORES = 0.5
QUIET_S = 3600
_WELL_S = 90  # before each fault and after it: more than the rules' short windows need to see the end of one
_WARM_S = 60

# The faults of the bad day, in order, and for how many seconds, or how many times.
EPISODES = {
    "slow": 120,
    "health-500": 60,
    "metric-missing": 90,
    "restart": 1,
    "memory": 100,
    "blip": 2,
    "gone": 60,
    "throttled": 240,
    "deaf": 30,
    "oom": 1,
    "loop": 4,
}


def main(which: str) -> None:
    """Writes one file."""
    name = "trading-engine"
    with (
        tempfile.TemporaryDirectory() as temporary,
        Group("memory") as memory,
        Group("cpu") as cpu,
        Engine("--memory-cap", str(_CAP_MIB), name=f"recorded-{which}") as engine,
    ):
        memory.limit_memory(_MEMORY_BYTES)
        cpu.limit_cpu(_CORES)
        folder = Path(temporary)

        def enclose() -> None:
            for group in (memory, cpu):
                group.add(engine.pid)

        enclose()
        with (
            Daemon(folder, CONFIG.format(name=name, engine=engine)) as daemon,
            prometheus(folder, [daemon.url.removeprefix("http://")]) as server,
        ):
            until(lambda: daemon.state() == "healthy", 60)
            time.sleep(_WARM_S)
            began, marks = time.time(), []
            if which == "quiet":
                time.sleep(QUIET_S)
                marks.append({"name": "quiet", "at": 0.0, "until": float(QUIET_S)})
            else:
                for fault, amount in EPISODES.items():
                    at = time.time() - began
                    time.sleep(_WELL_S)
                    suffer(fault, amount, engine, memory, cpu)
                    enclose()
                    until(lambda: daemon.state() == "healthy", 120)
                    time.sleep(_WELL_S)
                    marks.append({"name": fault, "at": at, "until": time.time() - began})
                    print(marks[-1], flush=True)
            document = {"step_s": STEP_S, "marks": marks, "series": recorded(server, began, time.time())}
    RECORDINGS.mkdir(parents=True, exist_ok=True)
    path = RECORDINGS / f"{which}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(document, separators=(",", ":")).encode(), mtime=0))
    print(f"{path.name}: {path.stat().st_size} bytes, {len(document['series'])} series", flush=True)


def suffer(fault: str, amount: float, engine: Engine, memory: Group, cpu: Group) -> None:
    """The fault, for so many seconds or times; the engine runs again after it."""
    if fault in ("restart", "loop"):
        for _ in range(int(amount)):
            engine.restart()
            time.sleep(20)
    elif fault == "gone":
        engine.kill()
        time.sleep(amount)
        engine.start()
    elif fault == "oom":
        memory.limit_memory(64 << 20)
        engine.fault("memory")
        engine.process.wait(60)
        time.sleep(5)
        memory.limit_memory(_MEMORY_BYTES)
        engine.restart()
    elif fault == "throttled":
        cpu.limit_cpu(0.012)
        time.sleep(amount)
        cpu.limit_cpu(_CORES)
    else:
        engine.fault("slow" if fault == "blip" else fault, amount)
        time.sleep(amount)


CONFIG = """\
listen: 127.0.0.1:0
engines:
  - name: {name}
    start_period: 5s
    probes:
      health:  {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory:  {{kind: memory, max: 90%}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: latency_p99, max: 1000us}}
      orders:
        {{kind: latency, url: "{engine.metrics_url}", metric: order_latency_seconds, max: 2ms, severity: warning}}
"""


def recorded(server: Prometheus, began: float, ended: float) -> dict[str, list[float | None]]:
    """Series as the rules would select them, each with a value for every step; None where there was none."""
    steps = int((ended - began) / STEP_S)
    found = server.api(
        "query_range",
        query=f'{{job="sentinel",__name__!~"{_LEFT_OUT}"}}',
        start=began,
        end=began + steps * STEP_S,
        step=STEP_S,
    )
    series = {}
    for one in found["result"]:
        at: dict[int, float] = {round((moment - began) / STEP_S): float(value) for moment, value in one["values"]}
        series[written(one["metric"])] = [_number(at.get(step)) for step in range(steps + 1)]
    return dict(sorted(series.items()))


def written(metric: dict[str, Any]) -> str:
    """A series as PromQL writes it, at the address of an example."""
    labels = {**metric, "instance": "sentinel:9710"}
    name = labels.pop("__name__")
    return f"{name}{{{','.join(f'{key}={json.dumps(value)}' for key, value in sorted(labels.items()))}}}"


def _number(value: float | None) -> float | None:
    """Seven digits are more than any rule looks at; moments in seconds since 1970 keep their milliseconds."""
    if value is None:
        return None
    short = float(f"{value:.7g}")
    return round(value, 3) if abs(value) > 1e9 else int(short) if short.is_integer() else short


if __name__ == "__main__":
    main(sys.argv[1])
