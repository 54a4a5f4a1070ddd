"""Kind `process`: the engine's process runs. Zombies do not count; a restart is seen by its start time.

It must never say that a process was killed for lack of memory because it is gone: the kernel's own count must have
risen while it was last seen.
"""

from __future__ import annotations

from sentinel.model import (
    TYPE_CHECKING,
    CountOomKills,
    FindProcesses,
    LearnEnd,
    Metric,
    Observation,
    Reading,
    Value,
    unanswered,
)
from sentinel.proc import Who
from sentinel.units import duration

if TYPE_CHECKING:
    from sentinel.model import Answer, Ask, Process

METRICS = (
    Metric("sentinel_engine_processes", "Processes of the engine's name."),
    Metric("sentinel_engine_start_time_seconds", "When the oldest of them began, in seconds since 1970."),
    Metric(
        "sentinel_engine_restarts", "How often another process was found in the place of the oldest.", (), "counter"
    ),
    Metric("sentinel_engine_oom_kills", "How often the kernel killed it for lack of memory.", (), "counter"),
    Metric("sentinel_engine_down_seconds", "How long there was no process before the one that runs, the last time."),
)
NEEDS = ""


class Settings(Value):
    """The settings of a probe of kind `process`."""

    name: Who


class Seen(Value):
    """The oldest process found last, and how often it was another one than before.

    `gone_at` is when it was first missed (monotonic clock), and `down_s` how long the one before it was missed.
    `oom_kills` is the kernel's count while it ran, `oom_killed` whether that rose until it was missed, and `oom_ends`
    how often it did. `oom_rose` is whether it rose at the last look: who is being killed is still there for a while.
    `wait_status` is how it ended (wait(2)), where the kernel tells.
    """

    pid: int
    start_ticks: int
    restarts: int = 0
    gone_at: float | None = None
    down_s: float | None = None
    oom_kills: int | None = None
    oom_rose: bool = False
    oom_killed: bool = False
    oom_ends: int = 0
    wait_status: int | None = None


def asks(settings: Settings) -> tuple[Ask, ...]:
    """The engine's processes, the kernel's count of those that it killed, and how the last one ended."""
    return (FindProcesses(settings.name), CountOomKills(settings.name), LearnEnd(settings.name))


def read(settings: Settings, answers: tuple[Answer, ...], memory: Seen | None) -> tuple[Observation, Seen | None]:
    """At least one is a pass. The oldest is the engine: a fork of it, or a helper, is younger."""
    answer, counted, learned = answers
    if answer.failure is not None:
        return unanswered(answer), memory
    found: tuple[Process, ...] = answer.value
    count = Reading("sentinel_engine_processes", len(found))
    if not found:
        # That a process which was there is gone is a fact; that one never came may be a name that is misspelt.
        if memory is None:
            sentence = f"no process {settings.name.said()}"
            return Observation(answer.at, answer.took_s, False, sentence, "no_process", readings=(count,)), None
        if memory.gone_at is None:
            killed = memory.oom_rose or _rose(memory, counted.value)
            memory = memory.replace(gone_at=answer.at, oom_killed=killed, oom_ends=memory.oom_ends + killed)
        if memory.wait_status is None:
            memory = memory.replace(wait_status=learned.value)
        sentence = f"no process {settings.name.said()}, pid {memory.pid} ended"
        if memory.oom_killed:
            sentence += ": killed by the kernel for lack of memory"
        elif memory.wait_status is not None:
            sentence += f": {how_ended(memory.wait_status)}"
        # The counts are known meanwhile too: of a series that stops and comes back, increase() may miss the step.
        counts = (count, *_counts(memory))
        reason = "oom_killed" if memory.oom_killed else "no_process"
        gone = Observation(answer.at, answer.took_s, False, sentence, reason, readings=counts, conclusive=True)
        return gone, memory
    oldest = found[0]
    seen = _seen(oldest, memory)
    seen = seen.replace(oom_rose=_rose(seen, counted.value), oom_kills=counted.value)
    up = f"up {duration(max(0.0, answer.at - oldest.started_at))}"
    sentence = f"{oldest.name} runs as pid {oldest.pid}, {up}"
    if len(found) > 1:
        sentence = f"{len(found)} processes {settings.name.said()}, the oldest pid {oldest.pid}, {up}"
    readings = (
        count,
        Reading("sentinel_engine_start_time_seconds", oldest.started_at_unix_s),
        *_counts(seen),
        *(() if seen.down_s is None else (Reading("sentinel_engine_down_seconds", seen.down_s),)),
    )
    details = (("pids", [process.pid for process in found]),)
    return Observation(
        answer.at, answer.took_s, True, sentence, readings=readings, began_at=oldest.started_at, details=details
    ), seen


def _seen(oldest: Process, before: Seen | None) -> Seen:
    if before is None:
        return Seen(oldest.pid, oldest.start_ticks)
    if (before.pid, before.start_ticks) == (oldest.pid, oldest.start_ticks):
        return before.replace(gone_at=None, wait_status=None)
    # It may have been missed by nobody: ended and begun again between two looks.
    down_s = 0.0 if before.gone_at is None else max(0.0, oldest.started_at - before.gone_at)
    restarts = before.restarts + 1
    return Seen(oldest.pid, oldest.start_ticks, restarts, None, down_s, oom_ends=before.oom_ends)


def how_ended(status: int) -> str:
    """A wait status (wait(2)) in words: its low seven bits are a signal, the eighth says that core was dumped."""
    number = status & 0x7F
    if not number:
        return f"exit status {status >> 8 & 0xFF}"
    import signal  # a one-shot check never comes here

    known = {one.value: one.name for one in signal.Signals}
    return f"killed by {known.get(number, f'signal {number}')}{', core dumped' if status & 0x80 else ''}"


def _rose(seen: Seen, kills: int | None) -> bool:
    return seen.oom_kills is not None and (kills or 0) > seen.oom_kills


def _counts(seen: Seen) -> tuple[Reading, ...]:
    return (
        Reading("sentinel_engine_restarts", seen.restarts),
        Reading("sentinel_engine_oom_kills", seen.oom_ends),
    )
