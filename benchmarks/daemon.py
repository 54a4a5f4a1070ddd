"""What the daemon costs for one engine at one second, beside the script once a second: at most 0.5 % and 60 MB.

And with a metrics page of 100,000 series, read once a second: at most 5 % of a core.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import ROOT, cores_used, cpu_ms, installed, memory_mb, running
from tests.engines import Engine

SECONDS = float(os.environ.get("SECONDS", "60"))
METRICS = {"a gauge": "latency_p99", "a histogram": "order_latency_seconds"}


def environ_for(engine: Engine, folder: str) -> dict[str, str]:
    """The variables that point a daemon, and the script, at the stand-in."""
    return {
        "PATH": os.environ["PATH"],
        "SENTINEL_HEALTH_URL": engine.health_url,
        "SENTINEL_METRICS_URL": engine.metrics_url,
        "SENTINEL_PROCESS": engine.name,
        "SENTINEL_LISTEN": f"unix:{folder}/sentinel.sock",
        "HEALTH_URL": engine.health_url,
        "METRICS_URL": engine.metrics_url,
        "NAME": engine.name,
    }


def watched(sentinel: str, environ: dict[str, str]) -> tuple[float, float, float]:
    """The share of a core, and the resident memory in MB now and at most, of a daemon whose start is over."""
    with running([sentinel, "run"], environ) as daemon:
        time.sleep(5)
        return cores_used(daemon.pid, SECONDS), memory_mb(daemon.pid, "VmRSS"), memory_mb(daemon.pid)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sentinel = str(installed(Path(folder) / "venv", dependencies=True) / "sentinel")
        with Engine() as engine:
            environ = environ_for(engine, folder)
            share, now, most = watched(sentinel, environ)
            runs = max(5, int(SECONDS / 4))
            script_ms = 0.0
            for _ in range(runs):
                script_ms += cpu_ms([str(ROOT / "benchmarks/health-check.sh")], environ)[0]
                time.sleep(1)
        script = script_ms / runs / 1000
        print(f"one engine, four probes, every second, over {SECONDS:.0f} s")
        print(f"the daemon                {share:8.3%} of a core, {now:.1f} MB resident, {most:.1f} MB at most")
        print(f"the script once a second  {script:8.3%} of a core; the daemon takes {share / script:.2f} of it")
        with Engine("--series", "100000") as engine:
            for what, metric in METRICS.items():
                environ = {**environ_for(engine, folder), "SENTINEL_METRIC": metric}
                share, now, most = watched(sentinel, environ)
                print(f"100,000 series, {what:<11}{share:7.3%} of a core, {now:.1f} MB resident, {most:.1f} MB at most")


if __name__ == "__main__":
    sys.exit(main())
