"""The board: what is believed of each engine, from the answers so far. Rise, fall, start period, needs, staleness.

Pure: no clock, no I/O, no log; `now` is the monotonic clock in seconds, given by the caller. It knows no probe by name.
An answer comes in by `step`; `settle` looks again at what time alone changes (silence, the end of a start period).
"""

from __future__ import annotations

from sentinel.model import SERVING, TYPE_CHECKING, Tally, Value
from sentinel.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from sentinel.explain import Explanation
    from sentinel.model import (
        Delivery,
        EngineSpec,
        EngineState,
        Maintenance,
        Observation,
        Policy,
        ProbeSpec,
        ProbeState,
    )

# Starts are read in clock ticks of 10 ms (proc(5)) and carried between two clocks; a restart is never this quick.
_SAME_START_S = 0.05


class ProbeRecord(Value):
    """What is remembered of one probe.

    `state` is what is shown, needs and staleness included, since `since`; `level` is what its own answers settled.
    `passes`, `misses` and `blanks` count answers in a row: good, not good, and (of those) without a verdict.
    `missed_since` is when the first of the answers came that were not good, until it is settled that they are again.
    """

    since: float
    state: ProbeState = "unknown"
    level: ProbeState = "unknown"
    settled: bool = False
    passes: int = 0
    misses: int = 0
    blanks: int = 0
    missed_since: float | None = None
    last: Observation | None = None
    failures: Mapping[str, int] = {}
    durations: Tally = Tally()
    memory: Any = None  # the kind's own

    @property
    def answered(self) -> bool:
        """Once at least, if not since the engine's last start."""
        return bool(self.durations.counts[-1])


class Change(Value):
    """A change of what is shown: of a probe, or of the engine itself where `probe` is empty."""

    engine: str
    probe: str
    before: str
    after: str
    why: str
    last: Observation | None = None


class EngineRecord(Value):
    """What is remembered of one engine. `why` has a line a probe that keeps it from being healthy, worst first.

    While `maintenance` lasts it is the state, and `why` begins with it; the probes show what they always do.
    `asked_since` is when its probes were first asked, or anew after a restart: until they could have answered, that
    they did not is no silence.
    """

    since: float
    asked_since: float
    began_at: float  # when its process began, or when Sentinel first looked if that is not known
    began_known: bool = False
    started: bool = False  # healthy or degraded at least once since it began: ends the start period, as in Docker
    state: EngineState = "unknown"
    why: tuple[str, ...] = ()
    changes: Mapping[str, int] = {}
    probes: Mapping[str, ProbeRecord] = {}
    maintenance: Maintenance | None = None


class Snapshot(Value):
    """The one picture that everyone reads. `at` on the monotonic clock, `at_unix` the same moment on the wall clock.

    `late` says which probe did not start for how long, or is empty while the schedule is fresh. `explained` has by
    engine what explains the trouble that it is in, and the one that ended last.
    """

    at: float
    at_unix: float
    version: str
    engines: tuple[tuple[EngineSpec, EngineRecord], ...]
    lag: Tally
    reloaded: bool
    late: str = ""
    explained: Mapping[str, tuple[Explanation | None, Explanation | None]] = {}
    deliveries: tuple[Delivery, ...] = ()

    def unix(self, moment: float) -> float:
        """A moment of the monotonic clock on the wall clock as it goes now."""
        return self.at_unix - (self.at - moment)


def fresh(spec: EngineSpec, now: float, old: EngineRecord | None = None, kept: tuple[str, ...] = ()) -> EngineRecord:
    """A record for a spec. After a reload, the `kept` probes of the old record keep their states and counters."""
    probes = {probe.name: ProbeRecord(now) for probe in spec.probes}
    if old is None:
        return settle(spec, EngineRecord(now, now, now, probes=probes), now)
    probes.update({name: old.probes[name] for name in kept})
    return settle(spec, old.replace(probes=probes), now)


def step(
    spec: EngineSpec, record: EngineRecord, name: str, seen: Observation, now: float, memory: Any = None
) -> EngineRecord:
    """The record after one answer of one probe. An answer to a probe the spec does not have is a KeyError."""
    record = _with_start(record, seen, now)
    probe = next(probe for probe in spec.probes if probe.name == name)
    was = record.probes[name]
    became = was.replace(last=seen, memory=memory, durations=was.durations.add(seen.took_s))
    if seen.ok is False:
        became = became.replace(failures={**was.failures, seen.reason: was.failures.get(seen.reason, 0) + 1})
    if not _held(spec, record, probe, seen, now):
        became = _judge(probe.policy, became, seen)
    return settle(spec, record.replace(probes={**record.probes, name: became}), now)


def settle(spec: EngineSpec, record: EngineRecord, now: float) -> EngineRecord:
    """The record as it is to be shown now: stale and waiting probes, and the engine's own state."""
    states: dict[str, ProbeState] = {}
    for probe in _needed_first(spec):
        states[probe.name] = _shown(probe, record.probes[probe.name], states, now)
    turned = {
        name: was.replace(state=states[name], since=now)
        for name, was in record.probes.items()
        if was.state != states[name]
    }
    if turned:
        record = record.replace(probes={**record.probes, **turned})
    state, why = _roll_up(spec, record, now)
    if state in ("healthy", "degraded") and not record.started:
        record = record.replace(started=True)
    if record.maintenance is not None:
        if now < record.maintenance.until:
            state, why = "maintenance", (record.maintenance.told, *why)
        else:
            record = record.replace(maintenance=None)
    if state != record.state:
        changes = {**record.changes, state: record.changes.get(state, 0) + 1}
        record = record.replace(state=state, since=now, changes=changes)
    return record if why == record.why else record.replace(why=why)


def changes(spec: EngineSpec, before: EngineRecord, after: EngineRecord) -> list[Change]:
    """What became different, causes first: the probes and then the engine."""
    found = []
    for probe in spec.probes:
        was, now = before.probes.get(probe.name), after.probes[probe.name]
        if was is None or was.state == now.state:
            continue
        if now.state == "waiting":
            why = f"waits for {', '.join(need for need in probe.policy.needs if after.probes[need].state != 'passing')}"
            found.append(Change(spec.name, probe.name, was.state, now.state, why))
        else:
            why = now.last.sentence if now.last else "not asked since the engine began"
            found.append(Change(spec.name, probe.name, was.state, now.state, why, now.last))
    if before.state != after.state:
        found.append(Change(spec.name, "", before.state, after.state, "; ".join(after.why)))
    return found


def serving(records: Iterable[EngineRecord]) -> bool:
    """What /health answers 200 for. No engines is not health."""
    states = [record.state for record in records]
    return bool(states) and all(state in SERVING for state in states)


def in_start_period(spec: EngineSpec, record: EngineRecord, now: float) -> bool:
    """Failures do not count yet: the engine began less than its start period ago and was not well since."""
    return not record.started and now < record.began_at + spec.start_period_s


def _with_start(record: EngineRecord, seen: Observation, now: float) -> EngineRecord:
    """A first start time replaces the guess; a later one is a restart: what was said of the old process is gone."""
    if seen.began_at is None:
        return record
    if not record.began_known:
        return record.replace(began_at=seen.began_at, began_known=True)
    if seen.began_at <= record.began_at + _SAME_START_S:
        return record
    anew = {
        name: was.replace(level="unknown", settled=False, passes=0, misses=0, blanks=0, missed_since=None, last=None)
        for name, was in record.probes.items()
    }
    return record.replace(began_at=seen.began_at, asked_since=now, started=False, probes=anew)


def _held(spec: EngineSpec, record: EngineRecord, probe: ProbeSpec, seen: Observation, now: float) -> bool:
    """An answer that is shown but not counted: it only repeats what a needed probe says, or the engine is starting."""
    if seen.ok is True:
        return False
    for need in probe.policy.needs:
        needed = record.probes[need].last
        if needed is not None and needed.ok is False:
            return True
    return in_start_period(spec, record, now)


def _judge(policy: Policy, was: ProbeRecord, seen: Observation) -> ProbeRecord:
    """Counts sides, not levels: a blank among failures does not start the count anew."""
    if seen.ok is True:
        now = was.replace(passes=was.passes + 1, misses=0, blanks=0)
        turned = now.passes >= policy.rise or not was.settled or was.level == "passing"
        return now.replace(level="passing", settled=True, missed_since=None) if turned else now
    level: ProbeState = "failing" if seen.ok is False else "unknown"
    since = seen.at if was.missed_since is None else was.missed_since
    now = was.replace(
        passes=0, misses=was.misses + 1, blanks=was.blanks + 1 if seen.ok is None else 0, missed_since=since
    )
    if not was.settled:
        return now.replace(level=level, settled=True)
    if was.level == "passing" and now.misses < policy.fall and not seen.conclusive:
        return now
    if was.level == "failing" and now.blanks < policy.fall:
        return now
    return now.replace(level=level)


def _needed_first(spec: EngineSpec) -> Sequence[ProbeSpec]:
    """The probes, each after those that it needs. The configuration has refused circles and unknown names."""
    placed: set[str] = set()
    for probe in spec.probes:
        if not placed.issuperset(probe.policy.needs):
            break
        placed.add(probe.name)
    else:
        return spec.probes  # as they mostly stand in the file
    ordered: list[ProbeSpec] = []
    waiting = list(spec.probes)
    while waiting:
        placed = {probe.name for probe in ordered}
        ready = [probe for probe in waiting if placed.issuperset(probe.policy.needs)]
        if not ready:
            raise ValueError(f"engine {spec.name}: needs: go in a circle: {', '.join(p.name for p in waiting)}")
        ordered += ready
        waiting = [probe for probe in waiting if probe not in ready]
    return ordered


def _shown(probe: ProbeSpec, was: ProbeRecord, states: Mapping[str, ProbeState], now: float) -> ProbeState:
    if was.last is None or now - was.last.at > probe.policy.stale_after_s:
        return "unknown"
    if any(states[need] in ("failing", "waiting") for need in probe.policy.needs):
        return "waiting"
    return was.level


def _roll_up(spec: EngineSpec, record: EngineRecord, now: float) -> tuple[EngineState, tuple[str, ...]]:
    """Worst of its probes is the engine. No probes is unknown: an empty set of questions is not health."""
    critical = {probe.name for probe in spec.probes if probe.policy.severity == "critical"}
    failing: list[str] = []
    unknown: list[str] = []
    warned: list[str] = []
    for probe in spec.probes:
        shown = record.probes[probe.name]
        if shown.state in ("passing", "waiting"):  # what waits has a cause, and the cause has a line of its own
            continue
        line = f"{probe.name}: {_sentence(probe, shown, now)}"
        (warned if probe.name not in critical else failing if shown.state == "failing" else unknown).append(line)
    why = (*failing, *unknown, *warned)
    masked = any(record.probes[name].state == "waiting" for name in critical)
    early = any(
        record.probes[probe.name].last is None and now - record.asked_since <= probe.policy.stale_after_s
        for probe in spec.probes
    )
    if not spec.probes:
        return "unknown", ("no probes are configured",)
    if in_start_period(spec, record, now) and (failing or unknown or masked):
        return "starting", why
    if failing:
        return "unhealthy", why
    if early:
        return "starting", why
    if unknown or masked:
        return "unknown", why
    return ("degraded" if warned else "healthy"), why


def _sentence(probe: ProbeSpec, was: ProbeRecord, now: float) -> str:
    """Why this probe is not passing, for a person."""
    if was.last is None:
        return "no answer yet"
    age = now - was.last.at
    if age > probe.policy.stale_after_s:
        return f"no answer for {duration(age)}, the last was: {was.last.sentence}"
    return was.last.sentence
