"""What one `sentinel check` costs beside the script that asks the same four questions. Bar: 0.5 of it, aim 0.35."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from benchmarks.daemon import environ_for
from benchmarks.processes import ROOT, in_turns, installed, running, table
from tests.engines import Engine

RUNS = int(os.environ.get("RUNS", "60"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Engine() as engine:
        check = str(installed(Path(folder) / "venv") / "sentinel")
        environ = environ_for(engine, folder)
        python = str(Path(sys._base_executable).resolve())  # type: ignore[attr-defined]  # the one below the environment
        with running([sys.executable, "-m", "sentinel", "run"], environ) as daemon:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            unix = f"unix:{folder}/sentinel.sock"
            script = "the script, four checks"
            commands = {
                script: [str(ROOT / "benchmarks/health-check.sh")],
                "sentinel check, four checks": [check, "check"],
                "sentinel check --daemon": [check, "check", "--daemon", unix],
                "sentinel check --live": [check, "check", "--live", "--daemon", unix],
                "curl, one check of the four": ["curl", "-fs", engine.health_url],
                "an empty isolated Python": [python, "-I", "-S", "-c", "pass"],
            }
            taken = in_turns(commands, environ, RUNS)
    print(f"CPU of the whole process, {RUNS} runs of each in turns")
    table(taken, script)


if __name__ == "__main__":
    main()
