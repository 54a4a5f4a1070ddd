"""How often the kernel killed for lack of memory where the engine runs: the count of its control group, or the host's.

The file is held open, as a process that was killed takes its group, and a sidecar's way into it, along with it. It must
not raise for what a process does meanwhile; what cannot be read is None.
Sources: cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control), vmstat in proc(5).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from sentinel.cgroup import levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sentinel.model import Process

_LOOK_AGAIN = 10  # answers, after which a process may have been moved to another group


class OomKills:
    """Counts again and again, by the name that was asked for."""

    def __init__(self, proc: str = "/proc", root: str = "") -> None:
        self._proc = proc
        self._root = root
        self._held: dict[str, _Count] = {}

    def count(self, name: str, processes: Sequence[Process]) -> int | None:
        """The count where these run; where they ran last, if there are none by now."""
        held = self._held.get(name)
        if processes:
            oldest = (processes[0].pid, processes[0].start_ticks)
            if held is None or held.of != oldest or held.answers >= _LOOK_AGAIN:
                if held is not None:
                    held.close()
                held = self._held[name] = self._open(oldest)
            held.answers += 1
        return None if held is None else held.read()

    def _open(self, oldest: tuple[int, int]) -> _Count:
        for level in levels(oldest[0], "memory", self._proc, self._root)[:1]:  # its own group's: hierarchical in v2
            counts = _Count(oldest, f"{level.folder}/{'memory.events' if level.version == 2 else 'memory.oom_control'}")
            if counts.read() is not None:
                return counts
            counts.close()
        return _Count(oldest, f"{self._proc}/vmstat")


class _Count:
    """A file that is held open."""

    def __init__(self, of: tuple[int, int], path: str) -> None:
        self.of = of
        self.path = path
        self.answers = 0
        self._handle: int | None = None
        with suppress(OSError):
            self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self) -> int | None:
        if self._handle is None:
            return None
        with suppress(OSError, ValueError):  # the group is gone: ENODEV
            for line in os.pread(self._handle, 1 << 16, 0).splitlines():
                word, _, number = line.partition(b" ")
                if word == b"oom_kill":
                    return int(number)
        return None

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
