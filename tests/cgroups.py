"""Control groups that a test makes and removes, v1 or v2, whichever the machine mounts."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

from sentinel.cgroup import parse_mountinfo
from tests.daemons import until


def mounted(controller: str) -> tuple[Path, int] | None:
    """Where groups of this controller are made, and the version; None where there is no place."""
    for _, point, kind, options in parse_mountinfo(Path("/proc/self/mountinfo").read_bytes()):
        folder = Path(point)
        if not os.access(folder / "cgroup.procs", os.W_OK):
            continue
        if kind == "cgroup" and controller in options:
            return folder, 1
        if kind == "cgroup2" and controller in (folder / "cgroup.controllers").read_text().split():
            return folder, 2
    return None


class Group:
    """`with Group("memory") as group:` one group of its own; what is left in it is killed at the end."""

    def __init__(self, controller: str) -> None:
        found = mounted(controller)
        assert found is not None, f"no cgroup with {controller} can be made here"
        self.top, self.version = found
        self.controller = controller
        self.folder = self.top / f"sentinel-{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> Self:
        if self.version == 2:
            (self.top / "cgroup.subtree_control").write_text(f"+{self.controller}")
        self.folder.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        def removed() -> bool:
            for pid in (self.folder / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            with suppress(OSError):
                self.folder.rmdir()
            return not self.folder.exists()

        until(removed)

    def add(self, pid: int) -> None:
        (self.folder / "cgroup.procs").write_text(str(pid))

    def limit_memory(self, size_bytes: int) -> None:
        self._write({1: "memory.limit_in_bytes", 2: "memory.max"}, str(size_bytes))

    def limit_cpu(self, cores: float, period_us: int = 100_000) -> None:
        """So much of one core, by the quota of each period."""
        quota = int(cores * period_us)
        if self.version == 2:
            (self.folder / "cpu.max").write_text(f"{quota} {period_us}")
        else:
            (self.folder / "cpu.cfs_period_us").write_text(str(period_us))
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota))

    def give_way(self) -> None:
        """Gets of a core what others leave over."""
        self._write({1: "cpu.shares", 2: "cpu.weight"}, {1: "2", 2: "1"}[self.version])

    def _write(self, names: dict[int, str], text: str) -> None:
        (self.folder / names[self.version]).write_text(text)
