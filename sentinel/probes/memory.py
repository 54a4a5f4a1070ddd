"""Kind `memory`: what the engine uses of the memory limit that it would reach first. That limit is what kills it."""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Metric, Observation, Reading, ReadMemory, Value, unanswered
from sentinel.units import Share, percent, size

if TYPE_CHECKING:
    from sentinel.model import Answer, Ask, MemoryUse

METRICS = (
    Metric("sentinel_engine_memory_used_bytes", "Memory used of the limit that is reached first."),
    Metric("sentinel_engine_memory_limit_bytes", "The memory limit that is reached first: the host's or a cgroup's."),
    Metric("sentinel_engine_memory_used_ratio", "Used memory over its limit."),
)
NEEDS = "process"


class Settings(Value):
    """The settings of a probe of kind `memory`."""

    max: Share
    process: str = ""  # the engine's, where the configuration does not say


def asks(settings: Settings) -> tuple[Ask, ...]:
    """The memory of the engine's processes."""
    return (ReadMemory(settings.process),)


def read(settings: Settings, answers: tuple[Answer, ...], memory: None) -> tuple[Observation, None]:
    """At the limit exactly is a pass: the limit is the most that may be."""
    (answer,) = answers
    if answer.failure is not None:
        return unanswered(answer), memory
    use: MemoryUse = answer.value
    ratio = use.used_bytes / use.limit_bytes
    most = settings.max
    if most.ratio is not None:
        value, limit, unit = ratio, most.ratio, "ratio"
    else:
        value, limit, unit = float(use.used_bytes), float(most.size_bytes or 0), "bytes"
    ok = value <= limit
    sentence = f"memory {size(use.used_bytes)} is {percent(ratio)} of {size(use.limit_bytes)} ({use.of}), limit {most}"
    readings = (
        Reading("sentinel_engine_memory_used_bytes", use.used_bytes),
        Reading("sentinel_engine_memory_limit_bytes", use.limit_bytes),
        Reading("sentinel_engine_memory_used_ratio", ratio),
    )
    return Observation(
        answer.at,
        answer.took_s,
        ok,
        sentence,
        "" if ok else "over_budget",
        value,
        limit,
        unit,
        readings,
        details=(("of", use.of), ("rss_bytes", use.rss_bytes)),
    ), memory
