"""The end of a process as an event: a pidfd on the loop (pidfd_open(2)), so that nobody waits for the next poll.

It must never report the end of another process that was given the same pid: the start time is looked at again after
the pidfd is held, and from then on the kernel keeps the two apart.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from sentinel.proc import parse_stat, read

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from sentinel.model import Process


class Ends:
    """Calls `ended(key)` when a process that was held for this key ends. Needs a running loop."""

    def __init__(self, ended: Callable[[Any], None], proc: str = "/proc") -> None:
        self._ended = ended
        self._proc = proc
        self._held: dict[tuple[Hashable, int, int], int] = {}

    def hold(self, key: Hashable, processes: Iterable[Process]) -> None:
        """Waits for the ends of these, and no longer of others of this key. Held already is held once."""
        wanted = {(key, process.pid, process.start_ticks) for process in processes}
        for gone in [known for known in self._held if known[0] == key and known not in wanted]:
            self._drop(gone)
        for new in wanted - self._held.keys():
            self._take(new)

    def close(self) -> None:
        for known in [*self._held]:
            self._drop(known)

    def _take(self, new: tuple[Hashable, int, int]) -> None:
        _, pid, start_ticks = new
        try:
            handle = os.pidfd_open(pid)
        except OSError:  # it ended already, or the kernel is older than 5.3: the next poll tells
            return
        try:
            same = int(parse_stat(read(f"{self._proc}/{pid}/stat"))[1][19]) == start_ticks
        except (OSError, ValueError):
            same = False
        if not same:
            os.close(handle)
            return
        self._held[new] = handle
        asyncio.get_running_loop().add_reader(handle, self._readable, new)

    def _readable(self, known: tuple[Hashable, int, int]) -> None:
        self._drop(known)
        self._ended(known[0])

    def _drop(self, known: tuple[Hashable, int, int]) -> None:
        handle = self._held.pop(known)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
