"""The asks that this machine answers by itself, out of /proc and the cgroups; the same for the check and the daemon.

It reads the clocks here, so that `proc` and `cgroup` need none. It must not raise for what a process does meanwhile.
"""

from __future__ import annotations

import time

from sentinel.cgroup import CgroupError, memory_use
from sentinel.model import TYPE_CHECKING, Answer, Failure, FindProcesses, ReadMemory
from sentinel.proc import Clocks, Finder, ProcError

if TYPE_CHECKING:
    from typing import Any

_SAME_MOMENT_S = 0.02  # asks of one engine come together; they need not scan /proc once each


class Local:
    """Answers again and again, cheaper than the first time."""

    def __init__(self) -> None:
        self._finder = Finder()
        self._clocks = Clocks(float("-inf"), 0.0, 0.0)

    def look(self, ask: FindProcesses | ReadMemory) -> Answer:
        """The answer, or why there is none."""
        began = time.monotonic()
        try:
            value = self._value(ask, began)
        except (ProcError, CgroupError) as exc:
            return _answer(began, failure=Failure(exc.reason, str(exc)))
        except LookupError:
            return _answer(began, failure=Failure("no_process", f"no process named {ask.name!r}"))
        return _answer(began, value=value)

    def _value(self, ask: FindProcesses | ReadMemory, now: float) -> Any:
        if now - self._clocks.mono > _SAME_MOMENT_S:
            self._clocks = Clocks(now, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
        processes = self._finder.find(ask.name, self._clocks)
        if isinstance(ask, FindProcesses):
            return processes
        if not processes:
            raise LookupError
        use = memory_use(processes)
        if not self._finder.find(ask.name, self._clocks):
            raise LookupError  # it ended meanwhile: without its cgroup the host's limit looked like its own
        return use


def _answer(began: float, **what: Any) -> Answer:
    now = time.monotonic()
    return Answer(now, now - began, **what)
