"""From a `kill -9` to the engine's state saying `no_process`, with a probe that is asked every 10 s: bar 50 ms."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.daemons import Daemon, until

ROUNDS = int(os.environ.get("ROUNDS", "20"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        name = f"ends-{os.getpid()}"
        program = shutil.copy(shutil.which("sleep") or "/bin/sleep", f"{folder}/{name}")
        probe = f"process: {{kind: process, name: {name}, interval: 10s}}"
        text = f"listen: 127.0.0.1:0\nengines: [{{name: e, start_period: 0s, probes: {{{probe}}}}}]\n"
        took_ms = []
        for _ in range(ROUNDS):
            engine = subprocess.Popen([program, "60"])
            with Daemon(Path(folder), text) as daemon:
                until(lambda daemon=daemon: daemon.state() == "healthy")
                began = time.monotonic()
                engine.kill()
                while daemon.probes()["process"] != ("failing", "no_process"):
                    pass
                took_ms.append((time.monotonic() - began) * 1000)
            engine.wait()
    print(f"from kill -9 to no_process as a client of /api/v1/status sees it, {ROUNDS} times, the request included")
    print(f"median {statistics.median(took_ms):.1f} ms, min {min(took_ms):.1f}, max {max(took_ms):.1f}")


if __name__ == "__main__":
    main()
