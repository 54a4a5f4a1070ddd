"""`make bench`: every benchmark in turn, or those named on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = {"__init__", "processes", "run", "soak"}


def main() -> int:
    """0 if all of them ran."""
    found = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in PARTS)
    failed = 0
    for name in sys.argv[1:] or found:
        print(f"\n== {name}", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], cwd=HERE.parent, check=False).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
