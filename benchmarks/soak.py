"""`make soak`: the daemon for a long time beside an engine that breaks again and again; nothing may leak or stay wrong.

It fails if a fault is not seen, if the way back is not, if memory grows or if file descriptors are left open.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import memory_mb
from tests.daemons import Daemon, until
from tests.engines import Engine

SECONDS = float(os.environ.get("SECONDS", "1800"))
FAULTS = (
    "health-500",
    "health-hang",
    "slow",
    "metric-missing",
    "metric-nan",
    "metrics-cut",
    "metrics-hang",
    "endless",
    "kill",
)
_SETTLED = 10  # rounds until every path was taken once or so and caches are warm
_GROWTH_MB = 3.0  # the allocator's own noise over hours; a leak of one page an hour is more

CONFIG = """\
listen: 127.0.0.1:0
engines:
  - name: e
    interval: 200ms
    start_period: 5s
    probes:
      health: {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory: {{kind: memory, max: 90%}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: latency_p99, max: 1000us}}
      orders: {{kind: latency, url: "{engine.metrics_url}", metric: order_latency_seconds, max: 1000us, window: 2s}}
"""


def main() -> int:
    choose = random.Random(int(os.environ.get("SEED", "1")))
    name = f"soak-{os.getpid()}"
    with (
        tempfile.TemporaryDirectory() as folder,
        Engine(name=name) as engine,
        Daemon(Path(folder), CONFIG.format(engine=engine)) as daemon,
    ):
        until(lambda: daemon.state() == "healthy")
        began, rounds, settled = time.monotonic(), 0, (0.0, 0)
        while time.monotonic() - began < SECONDS:
            fault = choose.choice(FAULTS)
            engine.fault(fault)
            until(lambda: daemon.state() == "unhealthy", 20)
            if fault == "kill":
                engine.restart()
            engine.mend()
            until(lambda: daemon.state() == "healthy", 30)
            daemon.get("/metrics")
            rounds += 1
            open_files = len([*Path(f"/proc/{daemon.process.pid}/fd").iterdir()])
            used = memory_mb(daemon.process.pid, "VmRSS"), open_files
            if rounds == _SETTLED:
                settled = used
        code, took_s = daemon.end()
        broken = [row["message"] for row in daemon.log() if "exception" in row]
    print(f"{rounds} faults in {SECONDS:.0f} s, each seen and mended; it ended with {code} in {took_s:.2f} s")
    print(f"after {_SETTLED} rounds {settled[0]:.1f} MB and {settled[1]} descriptors")
    print(f"at the end      {used[0]:.1f} MB and {used[1]} descriptors")
    if rounds <= _SETTLED:
        print("too short to tell")
        return 1
    good = not code and not broken and used[0] - settled[0] < _GROWTH_MB and used[1] - settled[1] <= 2
    print("good" if good else f"not good: {broken}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
