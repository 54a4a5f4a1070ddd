"""The end of a process as an event: a pidfd on the loop (pidfd_open(2)), so that nobody waits for the next poll.

And how it ended: the kernel tells the holder of a pidfd, child or not, once the parent has waited for it (Linux 6.15,
PIDFD_GET_INFO in linux/pidfd.h).

It must never report the end of another process that was given the same pid: the start time is looked at again after
the pidfd is held, and from then on the kernel keeps the two apart.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
from typing import TYPE_CHECKING, Any

from sentinel.proc import parse_stat, read

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from sentinel.model import Process


_GET_INFO = 3 << 30 | 64 << 16 | 0xFF << 8 | 11  # _IOWR(0xFF, 11, struct pidfd_info), of 64 bytes
_MASK, _CODE = struct.Struct("=Q"), struct.Struct("=i")  # at its beginning, and at its end
_CODE_AT = 60
_INFO_EXIT = 1 << 3
_LEARN_S = (0.001, 0.002, 0.004)  # a parent waits for its child at once or never; the end itself is news


class Ends:
    """Calls `ended(key)` when a process that was held for this key ends. Needs a running loop."""

    def __init__(self, ended: Callable[[Any], None], proc: str = "/proc") -> None:
        self._ended = ended
        self._proc = proc
        self._held: dict[tuple[Hashable, int, int], int] = {}
        self._statuses: dict[Hashable, tuple[int, int, int]] = {}

    def hold(self, key: Hashable, processes: Iterable[Process]) -> None:
        """Waits for the ends of these, and no longer of others of this key. Held already is held once."""
        wanted = {(key, process.pid, process.start_ticks) for process in processes}
        for gone in [known for known in self._held if known[0] == key and known not in wanted]:
            self._drop(gone)
        for new in wanted - self._held.keys():
            self._take(new)

    def status(self, process: Process) -> int | None:
        """The wait status of a process that was held and ended; None where the kernel did not tell it."""
        found = (row[2] for row in self._statuses.values() if row[:2] == (process.pid, process.start_ticks))
        return next(found, None)

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
        asyncio.get_running_loop().remove_reader(self._held[known])
        self._learn(known, _LEARN_S)

    def _learn(self, known: tuple[Hashable, int, int], pauses: tuple[float, ...]) -> None:
        if known not in self._held:  # nobody wants to know any more
            return
        info = bytearray(_MASK.pack(_INFO_EXIT) + bytes(64 - _MASK.size))
        try:
            fcntl.ioctl(self._held[known], _GET_INFO, info)
        except OSError:  # an older kernel
            pauses = ()
        if _MASK.unpack_from(info)[0] & _INFO_EXIT and any(info[_MASK.size :]):
            self._statuses[known[0]] = (*known[1:], *_CODE.unpack_from(info, _CODE_AT))
        elif pauses:
            asyncio.get_running_loop().call_later(pauses[0], self._learn, known, pauses[1:])
            return
        self._drop(known)
        self._ended(known[0])

    def _drop(self, known: tuple[Hashable, int, int]) -> None:
        handle = self._held.pop(known)
        asyncio.get_running_loop().remove_reader(handle)
        os.close(handle)
