"""When each probe runs: APScheduler with safe settings, spread over the interval, its lateness measured.

It runs what it is given and knows nothing of engines. APScheduler 3 reads the wall clock, so a step of that clock
would silence every probe for as long as the step is: `keep_time` sees the step and starts the jobs anew.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Key = tuple[str, str]  # engine, probe

_STEP_S = 0.5  # a wall clock that moved this much against the monotonic one was set, not slewed (adjtime(3) slews less)
_FIRST_WITHIN_S = 5.0  # a probe of a long interval answers this soon after the start


class _Executor(AsyncIOExecutor):  # type: ignore[misc]  # APScheduler 3 has no types
    """Keeps when each job was due: APScheduler tells it to its executor alone."""

    def __init__(self) -> None:
        super().__init__()
        self.due: dict[str, datetime] = {}

    def _do_submit_job(self, job: Any, run_times: list[datetime]) -> None:
        self.due[job.id] = run_times[-1]
        super()._do_submit_job(job, run_times)


class Schedule:
    """Calls `run(key, waited_s)` for every key at its interval: never two of one key at once, late ones not piled up.

    `waited_s` has an entry for each run that this one stands for, how late it starts for each, the longest first: one
    of nearly 0 as a rule, more where runs were missed.
    """

    def __init__(self, run: Callable[[Key, tuple[float, ...]], Awaitable[None]]) -> None:
        self._run = run
        self._executor = _Executor()
        # The defaults drop a run that is over one second late, with a log line only (misfire_grace_time=1).
        self._scheduler = AsyncIOScheduler(
            timezone=UTC,
            executors={"default": self._executor},
            job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1},
        )
        self._intervals: dict[Key, float] = {}
        self._dues: dict[Key, datetime] = {}
        self._began: dict[Key, float] = {}

    def start(self) -> None:
        """Needs a running loop."""
        self._scheduler.start()

    def stop(self) -> None:
        """No job starts after this; those that run are cancelled."""
        self._scheduler.shutdown(wait=False)

    def set(self, intervals: Mapping[Key, float]) -> None:
        """Runs exactly these keys from now on. A key that stays with its interval keeps its beat."""
        for key in [*self._intervals]:
            if intervals.get(key) != self._intervals[key]:
                self._scheduler.remove_job(_id(key))
                del self._intervals[key]
                self._dues.pop(key, None)
        for key, interval_s in intervals.items():
            if key not in self._intervals:
                self._add(key, interval_s)

    def silent_s(self, key: Key, now: float) -> float:
        """Seconds since this key was last started, or since it was added."""
        return now - self._began[key]

    async def keep_time(self, tick: Callable[[], None], every_s: float = 1.0) -> None:
        """Calls `tick` on the monotonic clock for ever, and mends the schedule after a step of the wall clock."""
        offset_s = time.time() - time.monotonic()
        while True:
            await asyncio.sleep(every_s)
            stepped_s = time.time() - time.monotonic() - offset_s
            if abs(stepped_s) > _STEP_S:
                intervals = dict(self._intervals)
                self.set({})
                self.set(intervals)
            offset_s += stepped_s
            tick()

    def _add(self, key: Key, interval_s: float) -> None:
        # The probes of one engine share their beat, and with it their fetches; engines are spread.
        part = zlib.crc32(key[0].encode()) / (1 << 32)
        first = datetime.now(UTC) + timedelta(seconds=part * min(interval_s, _FIRST_WITHIN_S))
        self._intervals[key] = interval_s
        self._began[key] = time.monotonic()
        trigger = IntervalTrigger(seconds=interval_s, timezone=UTC)
        self._scheduler.add_job(self._start, trigger, args=(key,), id=_id(key), next_run_time=first)

    async def _start(self, key: Key) -> None:
        self._began[key] = time.monotonic()
        due, interval = self._executor.due[_id(key)], timedelta(seconds=self._intervals[key])
        last = self._dues.get(key, due - interval)
        self._dues[key] = due
        # Of several missed runs only the last comes here. Half an interval: timers and floats are not exact.
        owed = due
        while owed - last > interval * 1.5:
            owed -= interval
        now = datetime.now(UTC)
        waited_s = []
        while owed <= due:
            waited_s.append(max(0.0, (now - owed).total_seconds()))
            owed += interval
        await self._run(key, tuple(waited_s))


def _id(key: Key) -> str:
    return "/".join(key)
