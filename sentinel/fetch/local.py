"""The asks that this machine answers by itself, out of /proc and the cgroups; the same for the check and the daemon.

It reads the clocks here, so that `proc` and `cgroup` need none. It must not raise for what a process does meanwhile.
"""

from __future__ import annotations

import time

from sentinel.cgroup import CgroupError, memory_use
from sentinel.model import TYPE_CHECKING, Answer, CountOomKills, Failure, FindProcesses, LearnEnd, ReadCounters
from sentinel.proc import Clocks, Finder, ProcError, Who

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sentinel.counters import Counting
    from sentinel.fetch.kills import OomKills
    from sentinel.model import Process, ReadMemory
    from sentinel.search import Search

    Ask = FindProcesses | CountOomKills | LearnEnd | ReadMemory | ReadCounters

_SAME_MOMENT_S = 0.02  # asks of one engine come together; they need not scan /proc once each
_KEEPING = 8  # engines whose files are kept open: some hundred, of the thousand that a process may open as a rule
_FORGET_S = 60.0  # nobody asks for these counters any more: a reload took the engine away


class Local:
    """Answers again and again, cheaper than the first time.

    `kills`, `counting` and `status` (the wait status of a process that ended) are for who asks again and again only:
    what they tell is a difference between two answers.
    """

    def __init__(
        self,
        kills: OomKills | None = None,
        counting: type[Counting] | None = None,
        status: Callable[[Process], int | None] | None = None,
    ) -> None:
        self._finder = Finder()
        self._search: Search | None = None
        self._kills = kills
        self._new_counting = counting
        self._counting: dict[str, tuple[Counting, float]] = {}
        self._status = status
        self._oldest: dict[str, Process] = {}
        self._clocks = Clocks(float("-inf"), 0.0, 0.0)

    def pulse(self) -> None:
        """To be called some five times a second between the looks at counters."""
        now = time.monotonic()
        for name, (counting, looked) in [*self._counting.items()]:
            if now - looked > _FORGET_S:
                self._counting.pop(name)[0].close()
            else:
                counting.pulse(now)

    def close(self) -> None:
        """Nothing is asked any more."""
        for counting, _ in self._counting.values():
            counting.close()
        self._counting.clear()

    def look(self, ask: Ask) -> Answer:
        """The answer, or why there is none."""
        began = time.monotonic()
        try:
            value = self._value(ask, began)
        except (ProcError, CgroupError) as exc:
            return _answer(began, failure=Failure(exc.reason, str(exc)))
        except LookupError:
            return _answer(began, failure=Failure("no_process", f"no process {Who(ask.name).said()}"))
        return _answer(began, value=value)

    def _value(self, ask: Ask, now: float) -> Any:
        if self._kills is None and isinstance(ask, (CountOomKills, LearnEnd, ReadCounters)):
            return None
        if now - self._clocks.mono > _SAME_MOMENT_S:
            self._clocks = Clocks(now, time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
        processes = self._find(ask.name)
        if isinstance(ask, FindProcesses):
            return processes
        if isinstance(ask, CountOomKills):
            return self._kills.count(ask.name, processes) if self._kills else None
        if isinstance(ask, LearnEnd):
            return self._learn(ask.name, processes)
        if not processes:
            raise LookupError
        if isinstance(ask, ReadCounters):
            return self._count(ask.name, processes, now)
        use = memory_use(processes)
        if not self._find(ask.name):
            raise LookupError  # it ended meanwhile: without its cgroup the host's limit looked like its own
        return use

    def _learn(self, name: str, processes: tuple[Process, ...]) -> int | None:
        if processes:
            self._oldest[name] = processes[0]
            return None
        last = self._oldest.get(name)
        return self._status(last) if self._status and last else None

    def _count(self, name: str, processes: tuple[Process, ...], now: float) -> Any:
        if self._new_counting is None:
            return None
        counting = (
            self._counting[name][0]
            if name in self._counting
            else self._new_counting(keeps=len(self._counting) < _KEEPING)
        )
        self._counting[name] = (counting, now)
        return counting.look(processes, now)

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
