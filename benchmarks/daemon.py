"""What the daemon costs for one engine at one second, beside the script once a second: at most 0.5 % and 60 MB."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.processes import ROOT, cores_used, cpu_ms, installed, memory_mb, running
from tests.engines import Engine

SECONDS = float(os.environ.get("SECONDS", "60"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Engine() as engine:
        sentinel = str(installed(Path(folder) / "venv", dependencies=True) / "sentinel")
        environ = {
            "PATH": os.environ["PATH"],
            "SENTINEL_HEALTH_URL": engine.health_url,
            "SENTINEL_METRICS_URL": engine.metrics_url,
            "SENTINEL_PROCESS": engine.name,
            "SENTINEL_LISTEN": f"unix:{folder}/sentinel.sock",
            "HEALTH_URL": engine.health_url,
            "METRICS_URL": engine.metrics_url,
            "NAME": engine.name,
        }
        with running([sentinel, "run"], environ) as daemon:
            time.sleep(5)  # the start is over
            share = cores_used(daemon.pid, SECONDS)
            now, most = memory_mb(daemon.pid, "VmRSS"), memory_mb(daemon.pid)
        script_ms = 0.0
        runs = max(5, int(SECONDS / 4))
        for _ in range(runs):
            script_ms += cpu_ms([str(ROOT / "benchmarks/health-check.sh")], environ)[0]
            time.sleep(1)
    script = script_ms / runs / 1000
    print(f"one engine, four probes, every second, over {SECONDS:.0f} s")
    print(f"the daemon                {share:8.3%} of a core, {now:.1f} MB resident, {most:.1f} MB at most")
    print(f"the script once a second  {script:8.3%} of a core; the daemon takes {share / script:.2f} of it")


if __name__ == "__main__":
    sys.exit(main())
