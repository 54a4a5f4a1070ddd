"""What a Docker HEALTHCHECK every second costs: the check, the script, `true`, none, and a sidecar that asks instead.

In turns, by control groups: the CPU of the whole engine's container, at most 0.5 with the check of what it is with the
script; of the sidecar's; and of what Docker spends to start a check (dockerd, containerd, shim and runc, all in one
group). What `true` takes in the engine's container is runc's own. Root only: it starts a Docker Engine.
"""

from __future__ import annotations

import os
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from sentinel.cgroup import levels
from tests.cgroups import Group, mounted
from tests.container.docker import LOCKED, SENTINEL, STAND_IN, Docker, healthcheck
from tests.daemons import until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECONDS = float(os.environ.get("SECONDS", "60"))  # of each of the five, in all; 600 for the figures in docs/docker.md
TURN_S = min(120.0, SECONDS)
SETTLE_S = 5.0  # until what starting costs is over
RETRIES = 3

NONE, NOTHING, CHECK, SCRIPT = "no HEALTHCHECK", "true", "sentinel check", "the script"
SIDECAR = "the sidecar asks"
ROOT = Path(__file__).parent.parent
ENGINE = ("--memory", "256m", "--volume", f"{ROOT}/benchmarks/health-check.sh:/health-check.sh:ro")
WAYS = {
    NONE: ("--no-healthcheck",),
    NOTHING: healthcheck(1.0, RETRIES, "true"),
    CHECK: healthcheck(1.0, RETRIES, "sentinel check"),
    SCRIPT: healthcheck(1.0, RETRIES, "/health-check.sh"),
    SIDECAR: ("--no-healthcheck",),
}
ACCOUNT = "cpuacct" if mounted("cpuacct") else "cpu"


def used_s(folder: Path) -> float:
    """CPU seconds of a control group so far, of version 1 or 2."""
    if (folder / "cpuacct.usage").exists():
        return int((folder / "cpuacct.usage").read_text()) / 1e9
    return int((folder / "cpu.stat").read_text().split()[1]) / 1e6


def turn(docker: Docker, way: str, group: Path) -> tuple[float, float, float]:
    """CPU milliseconds a second of the engine's container, of the sidecar's and of Docker."""
    with ExitStack() as stack:
        engine = stack.enter_context(docker.run(*LOCKED, *ENGINE, *WAYS[way], SENTINEL, *STAND_IN, "--rate", "10"))
        folders = [_folder(docker, engine)]
        if way == SIDECAR:
            joined = (
                "--network",
                f"container:{engine}",
                "--pid",
                f"container:{engine}",
                *LOCKED[2:],
                "--no-healthcheck",
            )
            folders.append(_folder(docker, stack.enter_context(docker.run(*joined, SENTINEL))))
        time.sleep(SETTLE_S)
        folders.append(group)
        began, before = time.monotonic(), [used_s(folder) for folder in folders]
        time.sleep(TURN_S)
        after, took_s = [used_s(folder) for folder in folders], time.monotonic() - began
        if way in (NOTHING, CHECK, SCRIPT):
            until(lambda: docker.health(engine) == "healthy")
    spent = [(b - a) / took_s * 1000 for a, b in zip(before, after, strict=True)]
    return spent[0], spent[1] if way == SIDECAR else 0.0, spent[-1]


def _folder(docker: Docker, name: str) -> Path:
    return Path(levels(docker.inspect(name)["State"]["Pid"], ACCOUNT)[0].folder)


def main() -> None:
    turns: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with Group(ACCOUNT) as group, Docker(under=group.folder) as docker:
        docker.load()
        for _ in range(max(1, round(SECONDS / TURN_S))):
            for way, rows in turns.items():
                rows.append(turn(docker, way, group.folder))
                print(f"  {way:<18}" + "".join(f"{ms:8.2f}" for ms in rows[-1]), flush=True)
    report(turns)


def report(turns: dict[str, list[tuple[float, float, float]]]) -> None:
    print(f"CPU in milliseconds a second, {SECONDS:.0f} s of each in turns of {TURN_S:.0f} s: median (least to most)")
    print(f"{'':<18}{'engine container':>24}{'sidecar':>24}{'Docker itself':>24}{'all':>10}")
    for way, rows in turns.items():
        columns = "".join(f"{_spread(column):>24}" for column in zip(*rows, strict=True))
        print(f"{way:<18}{columns}{statistics.median(map(sum, rows)):>10.1f}")
    whole = _ratio(turns, lambda row, _: row)
    above = _ratio(turns, lambda row, nothing: row - nothing)
    print(f"CPU of the engine's container, check / script                    {whole:.2f} (bar: 0.5)")
    print(f"the same above a HEALTHCHECK of `true`: what the commands cost   {above:.2f}")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _ratio(turns: dict[str, list[tuple[float, float, float]]], of: Callable[[float, float], float]) -> float:
    """The median of check / script, turn by turn, both as `of` sees them beside `true`."""
    rows = zip(turns[CHECK], turns[SCRIPT], turns[NOTHING], strict=True)
    return statistics.median(of(a[0], nothing[0]) / of(b[0], nothing[0]) for a, b, nothing in rows)


if __name__ == "__main__":
    main()
