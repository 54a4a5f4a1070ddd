"""The words of Sentinel as frozen values: asks, answers, observations, states and the picture that everyone reads.

Everything above imports this and this imports nothing, so that a one-shot check stays as cheap as an empty Python.
Nothing here may read a clock, a file or a socket, and no probe is known here by its name.
"""

from __future__ import annotations

TYPE_CHECKING = False  # spelled out: importing `typing` costs 11 ms, more than a whole check may
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar, Literal, Self, dataclass_transform

    Severity = Literal["critical", "warning"]
    ProbeState = Literal["passing", "failing", "waiting", "unknown"]
    EngineState = Literal["starting", "healthy", "degraded", "unhealthy", "unknown", "maintenance"]
else:

    def dataclass_transform(**_: object) -> object:
        return lambda cls: cls


PROBE_STATES = ("passing", "failing", "waiting", "unknown")
ENGINE_STATES = ("starting", "healthy", "degraded", "unhealthy", "unknown", "maintenance")
SERVING = ("healthy", "degraded", "starting", "maintenance")  # what /health answers 200 for


class _ValueType(type):
    """Turns the annotations of a class body into slots, in their order; assigned names become defaults."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> type:
        own = tuple(field for field in body.get("__annotations__", ()) if not field.startswith("_"))
        defaults = {field: body.pop(field) for field in own if field in body}
        body["__slots__"] = own
        cls: Any = super().__new__(mcs, name, bases, body)
        cls._fields = (*getattr(bases[0], "_fields", ()), *own) if bases else own
        cls._defaults = {**getattr(bases[0], "_defaults", {}), **defaults} if bases else defaults
        return cls  # type: ignore[no-any-return]  # built through Any: the two attributes above are made here


@dataclass_transform(frozen_default=True)
class Value(metaclass=_ValueType):
    """A frozen, slotted value with the constructor, equality, hash and repr of a dataclass.

    `dataclasses` costs 10 ms to import, as much as the whole Python start; see docs/decisions/0001.
    """

    _fields: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[Mapping[str, object]]

    def __init__(self, *args: object, **kwargs: object) -> None:
        fields = self._fields
        if len(args) > len(fields):
            raise TypeError(f"{type(self).__name__} takes {len(fields)} values, got {len(args)}")
        put = object.__setattr__
        for field, value in zip(fields, args, strict=False):
            put(self, field, value)
        for field in fields[len(args) :]:
            if field in kwargs:
                put(self, field, kwargs.pop(field))
            elif field in self._defaults:
                put(self, field, self._defaults[field])
            else:
                raise TypeError(f"{type(self).__name__} lacks {field!r}")
        if kwargs:
            raise TypeError(f"{type(self).__name__} has no free place for {', '.join(kwargs)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in self._fields)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, field) for field in self._fields)))

    def __repr__(self) -> str:
        inside = ", ".join(f"{field}={getattr(self, field)!r}" for field in self._fields)
        return f"{type(self).__name__}({inside})"

    def replace(self, **changes: object) -> Self:
        """The same value with some fields changed; an unknown field is a TypeError."""
        other = object.__new__(type(self))  # not through __init__: a daemon replaces a dozen values with each answer
        put = object.__setattr__
        for field in self._fields:
            put(other, field, changes.pop(field) if field in changes else getattr(self, field))
        if changes:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(changes)}")
        return other


# --- asks: what a probe wants to know -------------------------------------------------------------------------------


class Get(Value):
    """One HTTP GET. Redirects are not followed: the status that came first is the answer.

    `families` names the metric families whose lines are kept of the body (the rest is dropped while it streams);
    empty keeps the whole body. `max_bytes` bounds the body before that, decompressed.
    """

    url: str
    max_bytes: int
    fresh: bool = True  # a new connection: keep-alive hides a full accept queue
    accept: str = "*/*"
    headers: tuple[tuple[str, str], ...] = ()
    families: tuple[str, ...] = ()


class FindProcesses(Value):
    """The processes that are the engine, zombies left out. `name` is a `proc.Who`, as in the asks below."""

    name: str


class CountOomKills(Value):
    """How often the kernel killed for lack of memory where these processes run, or ran last.

    Only who asks again and again learns something from it: a one-shot check is answered None.
    """

    name: str


class LearnEnd(Value):
    """The wait status (wait(2)) of the one of these processes that ended last, once none of them runs.

    None where the kernel does not tell it: before Linux 6.15, or to who did not hold the process.
    """

    name: str


class ReadMemory(Value):
    """What these processes use, and every limit above them."""

    name: str


class ReadCounters(Value):
    """The kernel's own counters of these processes. A one-shot check is answered None, as they tell by differences."""

    name: str


if TYPE_CHECKING:
    Ask = Get | FindProcesses | CountOomKills | LearnEnd | ReadMemory | ReadCounters
    Series = tuple[str, tuple[str, ...]]  # a metric, and the values of its labels


# --- answers: what the ring of I/O brings back ----------------------------------------------------------------------


class Failure(Value):
    """Why there is no value: a short fixed word, and one sentence for a person (circumstance, got, want)."""

    reason: str
    sentence: str


class Answer(Value):
    """What one ask brought: `value` or `failure`, never both.

    `at` is when it was complete, in seconds on the monotonic clock; `took_s` how long it took. `waited_s` is how late
    it was asked: an entry for each time that it should have been asked and that this answer stands for. A one-shot
    check has none.
    """

    at: float
    took_s: float
    value: Any = (
        # Get: Response. FindProcesses: tuple[Process, ...]. CountOomKills, LearnEnd: int | None. ReadMemory: MemoryUse.
        # ReadCounters: Counters | None.
        None
    )
    failure: Failure | None = None
    waited_s: tuple[float, ...] = ()


class Response(Value):
    """An HTTP response whose body was read to its end. Durations in seconds, from the start of the exchange."""

    status: int
    content_type: str
    location: str
    body: bytes
    connect_s: float
    first_byte_s: float
    total_s: float


class Process(Value):
    """One process. (pid, start_ticks) is its identity: a pid alone is given to another process in time (proc(5))."""

    pid: int
    start_ticks: int  # since boot, in clock ticks: field 22 of /proc/PID/stat
    started_at: float  # the same on the monotonic clock, in seconds; negative if it started before that clock
    started_at_unix_s: float  # the same on the wall clock, in seconds since 1970
    name: str
    rss_bytes: int
    threads: int


class MemoryUse(Value):
    """Memory used against the limit that would be hit first: of all above, the one with the largest used/limit."""

    used_bytes: int
    limit_bytes: int
    rss_bytes: int  # of the engine's processes together
    of: str  # which limit: "host" or the path of the cgroup
    hidden: str = ""  # the path of a cgroup of the engine's that is not seen from here: its limit may be smaller


class Missing(Value):
    """What cannot be read here: what it is, why not, and what would give it."""

    source: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.source}: {self.why}; {self.remedy}"


class Counted(Value):
    """What the kernel counted of one thing for as long as that lives: a thread, a process, a control group."""

    of: tuple[object, ...]  # which one: another one begins at nothing
    totals: Mapping[Series, float]


class Counters(Value):
    """One look at the kernel's counters: totals by what they are of, levels that go up and down, and by metric the
    file that they come from."""

    counted: tuple[Counted, ...]
    levels: Mapping[Series, float]
    sources: Mapping[str, str]
    missing: tuple[Missing, ...]


# --- observations: what a probe makes of the answers ----------------------------------------------------------------


class Metric(Value):
    """A metric that a kind of probe publishes. `labels` come beside `engine`; `probe` is filled in by the publisher."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    type: Literal["gauge", "counter"] = "gauge"


class Reading(Value):
    """One sample of a kind's Metric; label values in the order of the metric's labels, without `probe`."""

    metric: str
    value: float
    labels: tuple[str, ...] = ()


class Observation(Value):
    """One answer to a probe's question. `ok` is None when the question could not be answered either way.

    `value` and `limit` are in `unit` (seconds, bytes, ratio or empty). `sentence` is for a person and always there.
    `began_at` is when the engine's process began (monotonic clock), where the probe can know it. `conclusive` is a fact
    that no second answer can change, as the end of a process: it is believed at once.
    `details` are further facts, for the status page and the log.
    """

    at: float
    took_s: float
    ok: bool | None
    sentence: str
    reason: str = ""
    value: float | None = None
    limit: float | None = None
    unit: str = ""
    readings: tuple[Reading, ...] = ()
    began_at: float | None = None
    conclusive: bool = False
    details: tuple[tuple[str, object], ...] = ()


def unanswered(answer: Answer) -> Observation:
    """What any kind of probe observes when its ask failed: a failure with the reason the ring of I/O gave."""
    assert answer.failure is not None
    return Observation(answer.at, answer.took_s, False, answer.failure.sentence, answer.failure.reason)


class Tally(Value):
    """A cumulative histogram of durations in seconds: `counts[i]` of at most `BOUNDS[i]`, the last of all."""

    # Twice and two and a half times apart, around the 1 ms to 1 s that an answer takes.
    BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    sum_s: float = 0.0

    def add(self, took_s: float) -> Tally:
        """One more duration."""
        fits = [*(took_s <= bound for bound in self.BOUNDS), True]
        return Tally(tuple(map(int.__add__, self.counts, fits)), self.sum_s + took_s)


# --- what is watched ------------------------------------------------------------------------------------------------


class Policy(Value):
    """When a probe is asked and when its answers are believed. Durations in seconds."""

    interval_s: float = 1.0
    timeout_s: float = 0.8  # 80 % of the interval: a run ends before the next begins
    fall: int = 3
    rise: int = 2
    severity: Severity = "critical"
    needs: tuple[str, ...] = ()

    @property
    def stale_after_s(self) -> float:
        """How old the last answer may be: two intervals and a timeout, so one lost run is not silence yet."""
        return 2 * self.interval_s + self.timeout_s


class ProbeSpec(Value):
    """One probe of one engine: a kind, the kind's own settings, and the policy."""

    name: str
    kind: str
    settings: Any
    policy: Policy = Policy()


class Window(Value):
    """A maintenance that comes again: `lasts_s` seconds from each moment that `cron` names on the clock of `zone`."""

    cron: str
    zone: str
    lasts_s: float
    reason: str = ""


class EngineSpec(Value):
    """One engine to watch. `start_period_s`: how long after its start failures do not count."""

    name: str
    probes: tuple[ProbeSpec, ...]
    start_period_s: float = 30.0
    windows: tuple[Window, ...] = ()


class Delivery(Value):
    """What became of what one receiver was to be told: messages that arrived, attempts that failed, changes given up
    and changes that wait. `arrived_at` is when the last message did, on the monotonic clock.
    """

    receiver: str
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    pending: int = 0
    arrived_at: float | None = None


class Maintenance(Value):
    """What is wrong is expected, until a moment of the monotonic clock: it is shown, and nobody is told.

    `told` says until when and why, for a person.
    """

    until: float
    reason: str
    told: str
