"""What is remembered for explanations: since when an engine is well, its trouble now, and the one that ended last.

Beside `explain`, which is pure and forgets. It must never compare with a time that was not healthy, and does nothing
while an engine is well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentinel.explain import LEAD_S, explain
from sentinel.history import SPAN_S
from sentinel.sight import Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sentinel.board import EngineRecord
    from sentinel.explain import Explanation
    from sentinel.history import History
    from sentinel.model import EngineSpec

_KINDS = ("evidence", "memory")  # whose readings are compared
_SELDOM_AFTER_S, _SELDOM_S = 60.0, 10.0  # a look at ten minutes of readings costs some milliseconds
_KEPT_AFTER_S = SPAN_S / 2  # later the healthy time before leaves the history: what was found by then stays
_RECOVERY_S = 10.0  # how long a window of latencies still holds what is over
_HEALTHY_S = 4.0  # of a shorter time there is nothing to compare with but chance


class _Memory:
    """Of one engine."""

    def __init__(self, now: float) -> None:
        self.quiet = now  # since when nothing is wrong
        self.healthy = (now, now)  # the last time of some length in which nothing was
        self.current: Explanation | None = None
        self.past: Explanation | None = None
        self.looked = self.read = float("-inf")  # when, and at readings until when
        self.sources: dict[str, str] = {}


class Explainer:
    """Explanations by engine. `clock` writes a moment of the monotonic clock for people."""

    def __init__(self, history: History, clock: Callable[[float], str]) -> None:
        self._history = history
        self._clock = clock
        self._engines: dict[str, _Memory] = {}

    def keep(self, names: Iterable[str]) -> None:
        """Forgets engines that are watched no more."""
        for gone in self._engines.keys() - {*names}:
            del self._engines[gone]

    def of(self, name: str) -> tuple[Explanation | None, Explanation | None]:
        """What explains the trouble that an engine is in, and the one that ended last."""
        memory = self._engines.get(name)
        return (memory.current, memory.past) if memory else (None, None)

    def update(self, spec: EngineSpec, record: EngineRecord, now: float) -> None:
        """Looks again, after an answer or a change."""
        memory = self._engines.setdefault(spec.name, _Memory(now))
        read = memory.read
        for probe in spec.probes:
            last = record.probes[probe.name].last
            if probe.kind in _KINDS and last is not None:
                read = max(read, last.at)
                sources = dict(last.details).get("sources")
                memory.sources.update(sources if isinstance(sources, dict) else {})
        before = memory.current
        found = troubles(spec, record, before.troubles if before else ())
        if not found:
            if before is not None:
                memory.current, memory.quiet = None, now + _RECOVERY_S
                if before.believed or memory.past is None or not memory.past.believed:
                    memory.past = before.replace(until=now)
            return
        believed = record.state not in ("healthy", "starting") or (before is not None and before.believed)
        if before is None or not _still_stands(memory, before, found, read, now):
            memory.looked, memory.read = now, read
            before = self._explained(spec, memory, found, now)
        memory.current = before.replace(troubles=found, believed=believed)

    def _explained(self, spec: EngineSpec, memory: _Memory, found: Sequence[Trouble], now: float) -> Explanation:
        until = min(trouble.since for trouble in found) - LEAD_S
        if until - memory.quiet >= _HEALTHY_S:
            memory.healthy = (memory.quiet, until)
        columns = {}
        for probe in spec.probes:
            if probe.kind in _KINDS:
                times, read = self._history.since((spec.name, probe.name), memory.healthy[0])
                columns.update({series: (times, values) for series, values in read.items()})
        return explain(columns, found, memory.healthy, now, self._clock, memory.sources)


def _still_stands(memory: _Memory, before: Explanation, found: Sequence[Trouble], read: float, now: float) -> bool:
    """Whether another look would find nothing new, or may wait."""
    if [one.probe for one in found] != [one.probe for one in before.troubles]:
        return False
    age_s = now - before.since
    seldom = age_s > _SELDOM_AFTER_S and now - memory.looked < _SELDOM_S
    return read == memory.read or seldom or age_s > _KEPT_AFTER_S


def troubles(spec: EngineSpec, record: EngineRecord, before: Sequence[Trouble] = ()) -> tuple[Trouble, ...]:
    """The probes that do not pass, what waits for another left out: it has no trouble of its own.

    One that answers well again, but is not believed yet, is told as `before`.
    """
    known = {trouble.probe: trouble for trouble in before}
    found = []
    for probe in spec.probes:
        shown = record.probes[probe.name]
        last = shown.last
        if last is None or shown.state == "waiting" or (shown.state == "passing" and shown.missed_since is None):
            continue
        since = shown.since if shown.missed_since is None else shown.missed_since
        trouble = Trouble(probe.name, probe.kind, since, last.reason, last.sentence)
        found.append(known.get(probe.name, trouble) if last.ok else trouble)
    return tuple(found)
