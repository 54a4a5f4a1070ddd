"""Kind `process`: a process of this exact name runs. Zombies do not count; a restart is seen by its start time."""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, FindProcesses, Metric, Observation, Reading, Value, unanswered
from sentinel.units import duration

if TYPE_CHECKING:
    from sentinel.model import Answer, Ask, Process

METRICS = (
    Metric("sentinel_engine_processes", "Processes of the engine's name."),
    Metric("sentinel_engine_start_time_seconds", "When the oldest of them began, in seconds since 1970."),
    Metric(
        "sentinel_engine_restarts", "How often another process was found in the place of the oldest.", (), "counter"
    ),
)
NEEDS = ""


class Name(str):
    """The name of a process."""

    __slots__ = ()
    FORM = "the name of a process, such as trading-engine"

    @classmethod
    def parse(cls, text: str) -> Name:
        if not text or "\0" in text or "/" in text:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return cls(text)


class Settings(Value):
    """The settings of a probe of kind `process`."""

    name: Name


class Seen(Value):
    """The oldest process found last, and how often it was another one than before."""

    pid: int
    start_ticks: int
    restarts: int = 0


def asks(settings: Settings) -> tuple[Ask, ...]:
    """The processes of the name."""
    return (FindProcesses(settings.name),)


def read(settings: Settings, answers: tuple[Answer, ...], memory: Seen | None) -> tuple[Observation, Seen | None]:
    """At least one is a pass. The oldest is the engine: a fork of it, or a helper, is younger."""
    (answer,) = answers
    if answer.failure is not None:
        return unanswered(answer), memory
    found: tuple[Process, ...] = answer.value
    counted = Reading("sentinel_engine_processes", len(found))
    if not found:
        sentence = f"no process named {str(settings.name)!r}"
        return Observation(answer.at, answer.took_s, False, sentence, "no_process", readings=(counted,)), memory
    oldest = found[0]
    seen = Seen(oldest.pid, oldest.start_ticks)
    if memory is not None:
        again = (memory.pid, memory.start_ticks) != (oldest.pid, oldest.start_ticks)
        seen = seen.replace(restarts=memory.restarts + again)
    up = f"up {duration(max(0.0, answer.at - oldest.started_at))}"
    sentence = f"{settings.name} runs as pid {oldest.pid}, {up}"
    if len(found) > 1:
        sentence = f"{len(found)} processes named {settings.name}, the oldest pid {oldest.pid}, {up}"
    readings = (
        counted,
        Reading("sentinel_engine_start_time_seconds", oldest.started_at_unix_s),
        Reading("sentinel_engine_restarts", seen.restarts),
    )
    details = (("pids", [process.pid for process in found]),)
    return Observation(
        answer.at, answer.took_s, True, sentence, readings=readings, began_at=oldest.started_at, details=details
    ), seen
