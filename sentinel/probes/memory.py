"""Kind `memory`: what the engine uses of the memory limit that it would reach first. That limit is what kills it."""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Metric, Missing, Observation, Reading, ReadMemory, Value, unanswered
from sentinel.proc import Who
from sentinel.units import Share, duration, percent, size

if TYPE_CHECKING:
    from sentinel.model import Answer, Ask, MemoryUse

METRICS = (
    Metric("sentinel_engine_memory_used_bytes", "Memory used of the limit that is reached first."),
    Metric("sentinel_engine_memory_limit_bytes", "The memory limit that is reached first: the host's or a cgroup's."),
    Metric("sentinel_engine_memory_used_ratio", "Used memory over its limit."),
    Metric("sentinel_engine_memory_max_ratio", "The most that the probe lets it be; used_ratio above it is a failure."),
    Metric("sentinel_engine_memory_seconds_to_limit", "Until the limit is reached, if memory grows on as it does."),
)
NEEDS = "process"

_SLOPE_S = 60.0  # long enough to be more than one allocation, short enough to tell of a leak that began just now
_SLOPE_LEAST_S = 10.0
_SLOPE_LEAST_BYTES = 1 << 20  # what comes and goes with every page of metrics that is written
_HORIZON_S = 86_400.0  # a minute's slope says nothing of next week


class Settings(Value):
    """The settings of a probe of kind `memory`."""

    max: Share = Share(ratio=0.9)
    process: Who = Who("")  # the engine's, where the configuration does not say


class Growth(Value):
    """What was used when, over the last minute: seconds on the monotonic clock, and bytes. Of one limit only."""

    of: str
    limit_bytes: int
    uses: tuple[tuple[float, int], ...] = ()

    def with_use(self, at: float, use: MemoryUse) -> Growth:
        if (use.of, use.limit_bytes) != (self.of, self.limit_bytes):
            return Growth(use.of, use.limit_bytes, ((at, use.used_bytes),))
        kept = tuple(pair for pair in self.uses if pair[0] >= at - _SLOPE_S)
        return self.replace(uses=(*kept, (at, use.used_bytes)))

    def seconds_to_limit(self) -> float | None:
        """Until used is the limit, along the line through the last minute. None where there is no such line.

        There is one if it rises by more than the uses lie apart from it: by three times their standard deviation.
        """
        if len(self.uses) < 3 or self.uses[-1][0] - self.uses[0][0] < _SLOPE_LEAST_S:
            return None
        import statistics  # 12 ms, which a one-shot check never comes to pay

        times, used = zip(*self.uses, strict=True)
        if max(used) - min(used) < _SLOPE_LEAST_BYTES:
            return None
        slope, start = statistics.linear_regression(times, used)
        spread = statistics.pstdev(there - (start + slope * at) for at, there in self.uses)
        rise = slope * (times[-1] - times[0])
        if rise < _SLOPE_LEAST_BYTES or rise <= 3 * spread:
            return None
        left_s = max(0, self.limit_bytes - used[-1]) / slope
        return left_s if left_s <= _HORIZON_S else None


def asks(settings: Settings) -> tuple[Ask, ...]:
    """The memory of the engine's processes."""
    return (ReadMemory(settings.process),)


def read(settings: Settings, answers: tuple[Answer, ...], memory: Growth | None) -> tuple[Observation, Growth | None]:
    """At the limit exactly is a pass: the limit is the most that may be."""
    (answer,) = answers
    if answer.failure is not None:
        return unanswered(answer), None  # the next one that runs begins with other memory
    use: MemoryUse = answer.value
    grown = (memory or Growth(use.of, use.limit_bytes)).with_use(answer.at, use)
    left_s = grown.seconds_to_limit()
    ratio = use.used_bytes / use.limit_bytes
    most = settings.max
    if most.ratio is not None:
        value, limit, unit = ratio, most.ratio, "ratio"
    else:
        value, limit, unit = float(use.used_bytes), float(most.size_bytes or 0), "bytes"
    ok = value <= limit
    of = f"{use.of}; that of cgroup {use.hidden} is not seen" if use.hidden else use.of
    sentence = f"memory {size(use.used_bytes)} is {percent(ratio)} of {size(use.limit_bytes)} ({of}), limit {most}"
    readings = [
        Reading("sentinel_engine_memory_used_bytes", use.used_bytes),
        Reading("sentinel_engine_memory_limit_bytes", use.limit_bytes),
        Reading("sentinel_engine_memory_used_ratio", ratio),
        Reading("sentinel_engine_memory_max_ratio", limit if unit == "ratio" else limit / use.limit_bytes),
    ]
    if left_s is not None:
        sentence += f"; as it grows, full in {duration(left_s)}"
        readings.append(Reading("sentinel_engine_memory_seconds_to_limit", left_s))
    return Observation(
        answer.at,
        answer.took_s,
        ok,
        sentence,
        "" if ok else "over_budget",
        value,
        limit,
        unit,
        tuple(readings),
        details=(("of", use.of), ("rss_bytes", use.rss_bytes), *(_unreadable(use.hidden) if use.hidden else ())),
    ), grown


def _unreadable(path: str) -> tuple[tuple[str, Missing]]:
    remedy = "run with the engine's uid and gid, or mount the host's cgroups"
    return (("unreadable", Missing("the engine's memory limit", f"cgroup {path}: not seen from here", remedy)),)
