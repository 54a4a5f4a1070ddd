"""The asks that this machine answers by itself, out of /proc and the cgroups; the same for the check and the daemon.

It reads the clocks here, so that `proc` and `cgroup` need none. It must not raise for what a process does meanwhile.
"""

from __future__ import annotations

import time

from sentinel.cgroup import CgroupError, memory_use
from sentinel.model import TYPE_CHECKING, Answer, CountOomKills, Failure, FindProcesses, ReadMemory
from sentinel.proc import Clocks, Finder, ProcError, Who

if TYPE_CHECKING:
    from typing import Any

    from sentinel.fetch.kills import OomKills
    from sentinel.model import Process
    from sentinel.search import Search

_SAME_MOMENT_S = 0.02  # asks of one engine come together; they need not scan /proc once each


class Local:
    """Answers again and again, cheaper than the first time. `kills` is for who asks again and again only."""

    def __init__(self, kills: OomKills | None = None) -> None:
        self._finder = Finder()
        self._search: Search | None = None
        self._kills = kills
        self._clocks = Clocks(float("-inf"), 0.0, 0.0)

    def look(self, ask: FindProcesses | CountOomKills | ReadMemory) -> Answer:
        """The answer, or why there is none."""
        began = time.monotonic()
        try:
            value = self._value(ask, began)
        except (ProcError, CgroupError) as exc:
            return _answer(began, failure=Failure(exc.reason, str(exc)))
        except LookupError:
            return _answer(began, failure=Failure("no_process", f"no process {Who(ask.name).said()}"))
        return _answer(began, value=value)

    def _value(self, ask: FindProcesses | CountOomKills | ReadMemory, now: float) -> Any:
        if isinstance(ask, CountOomKills) and self._kills is None:
            return None
        if now - self._clocks.mono > _SAME_MOMENT_S:
            self._clocks = Clocks(now, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
        processes = self._find(ask.name)
        if isinstance(ask, FindProcesses):
            return processes
        if isinstance(ask, CountOomKills):
            return self._kills.count(ask.name, processes) if self._kills else None
        if not processes:
            raise LookupError
        use = memory_use(processes)
        if not self._find(ask.name):
            raise LookupError  # it ended meanwhile: without its cgroup the host's limit looked like its own
        return use

    def _find(self, name: str) -> tuple[Process, ...]:
        if Who(name).named:
            return self._finder.find(name, self._clocks)
        if self._search is None:
            from sentinel.search import Search  # a check by name need not load it

            self._search = Search()
        return self._search.find(name, self._clocks)


def _answer(began: float, **what: Any) -> Answer:
    now = time.monotonic()
    return Answer(now, now - began, **what)
