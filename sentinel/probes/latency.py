"""Kind `latency`: quantiles of a latency that the engine publishes stay within their budgets.

From histograms the quantile is of what was observed between two readings, so a spike shows at once and fades when it
is over. It must never guess: a unit that nothing names is assumed and says so, and an answer that the width of a
bucket decides says that too.
"""

from __future__ import annotations

from sentinel.address import Headers, Url
from sentinel.exposition import ACCEPT, read_family
from sentinel.family import PageError
from sentinel.model import TYPE_CHECKING, Get, Metric, Observation, Reading, Value, unanswered
from sentinel.quantiles import Estimate, Window, estimate, gauges, histograms, shown, summaries
from sentinel.selector import Selector
from sentinel.units import Bytes, Seconds, duration

if TYPE_CHECKING:
    from typing import Any

    from sentinel.family import Family
    from sentinel.model import Answer, Ask, Response

_LABELS = ("probe", "quantile")
METRICS = (
    Metric("sentinel_engine_latency_seconds", "A quantile of the engine's latency.", _LABELS),
    Metric("sentinel_engine_latency_low_seconds", "The true quantile is above this.", _LABELS),
    Metric("sentinel_engine_latency_high_seconds", "The true quantile is at most this.", _LABELS),
    Metric("sentinel_engine_latency_budget_seconds", "What the quantile may be at most.", _LABELS),
)
NEEDS = "process"

_START = Selector("process_start_time_seconds")  # what client libraries publish; a restart shows in it
_PER_SECOND = {
    1: ("s", "second", "seconds"),
    10**3: ("ms", "milliseconds", "millis", "msec"),
    10**6: ("us", "µs", "μs", "microseconds", "micros", "usec"),
    10**9: ("ns", "nanoseconds", "nanos", "nsec"),
}
_UNITS = {word: per_second for per_second, words in _PER_SECOND.items() for word in words}
_BEHIND = frozenset(("max", "worst", "quantile", "percentile"))  # what may follow the unit in a name, with p99


class Quantile(float):
    """A quantile, 0 to 1, both included."""

    FORM = "a number from 0 to 1, such as 0.99"

    @classmethod
    def parse(cls, text: str) -> Quantile:
        try:
            quantile = cls(text)
        except ValueError:
            quantile = cls("nan")
        if not 0 <= quantile <= 1:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return quantile

    def text(self) -> str:
        """As the configuration and the label `quantile` write it."""
        return f"{self:.12g}"


class Quantiles(tuple[tuple[Quantile, "Seconds | None"], ...]):
    """Several quantiles, each with its own budget or None for the probe's."""

    __slots__ = ()
    FORM = "a list such as [0.5, 0.99], or a map with a budget for each such as {0.5: 200us, 0.99: 1ms}"
    PLAIN = True  # takes what YAML has, not only text

    @classmethod
    def parse(cls, plain: object) -> Quantiles:
        pairs: list[tuple[Quantile, Seconds | None]]
        if isinstance(plain, dict):
            pairs = [(Quantile.parse(str(key)), Seconds.parse(str(value))) for key, value in plain.items()]
        elif isinstance(plain, list | tuple):
            pairs = [(Quantile.parse(str(key)), None) for key in plain]
        else:
            raise ValueError(f"want {cls.FORM}")
        if not pairs:
            raise ValueError(f"want {cls.FORM}")
        if len({quantile for quantile, _ in pairs}) < len(pairs):
            raise ValueError("a quantile stands there twice")
        return cls(pairs)

    def plain(self) -> list[str] | dict[str, str]:
        """As the configuration writes it."""
        if any(limit is None for _, limit in self):
            return [quantile.text() for quantile, _ in self]
        return {quantile.text(): limit.text() for quantile, limit in self if limit is not None}


class Unit(str):
    """The unit of the metric's values, where its name does not say it; empty leaves it to the name."""

    __slots__ = ()
    FORM = "one of s, ms, us, ns"

    @classmethod
    def parse(cls, text: str) -> Unit:
        if text and text not in _UNITS:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return cls(text)


class WhenIdle(str):
    """What it means that nothing was observed."""

    __slots__ = ()
    FORM = "one of ok, unknown, fail"

    @classmethod
    def parse(cls, text: str) -> WhenIdle:
        if text not in ("ok", "unknown", "fail"):
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return cls(text)

    @property
    def verdict(self) -> bool | None:
        return {"ok": True, "fail": False}.get(self)


class Settings(Value):
    """The settings of a probe of kind `latency`."""

    url: Url
    metric: Selector
    max: Seconds = Seconds(0.001)
    quantile: Quantile = Quantile(0.99)
    quantiles: Quantiles = Quantiles()
    unit: Unit = Unit("")
    window: Seconds = Seconds(10)
    when_idle: WhenIdle = WhenIdle("unknown")
    max_body: Bytes = Bytes(16 << 20)  # a page of 100,000 series has 8 MB
    headers: Headers = Headers()

    def budgets(self) -> tuple[tuple[Quantile, Seconds], ...]:
        """Each quantile with what it may be at most."""
        several = self.quantiles or ((self.quantile, None),)
        return tuple((quantile, self.max if limit is None else limit) for quantile, limit in several)


def asks(settings: Settings) -> tuple[Ask, ...]:
    """One GET on a kept connection, of which only the metric and the start of the process are read."""
    families = (settings.metric.name, _START.name)
    return (Get(settings.url, settings.max_body, False, ACCEPT, settings.headers, families),)


def read(settings: Settings, answers: tuple[Answer, ...], memory: Window | None) -> tuple[Observation, Window | None]:
    """Every quantile against its budget. The memory is the window over the readings of a histogram."""
    (answer,) = answers
    if answer.failure is not None:
        return unanswered(answer), memory
    response: Response = answer.value
    look = _Look(settings, answer)
    try:
        if not 200 <= response.status < 300:
            raise _NoQuantileError("http_status", f"GET {settings.url}: status {response.status}, want 2xx")
        family = read_family(response.body, settings.metric, response.content_type)
        return look.at_family(family, memory)
    except _NoQuantileError as exc:
        return look.observation(exc.ok, str(exc), exc.reason), memory
    except PageError as exc:
        return look.observation(False, f"GET {settings.url}: {exc}", exc.reason), memory


class _NoQuantileError(Exception):
    """There is no quantile to judge, and why."""

    def __init__(self, reason: str, sentence: str, ok: bool | None = False) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.ok = ok


class _Look:
    """One reading of one page: the way from a family to an observation."""

    def __init__(self, settings: Settings, answer: Answer) -> None:
        self.settings = settings
        self.answer = answer
        self.details: list[tuple[str, object]] = []
        self.over = ""  # what the quantiles are over: a window, a lifetime, the worst of several series

    def observation(self, ok: bool | None, sentence: str, reason: str = "", **known: Any) -> Observation:
        budgets = tuple(
            Reading("sentinel_engine_latency_budget_seconds", float(limit), (quantile.text(),))
            for quantile, limit in self.settings.budgets()
        )
        readings = (*known.pop("readings", ()), *budgets)
        at, took_s = self.answer.at, self.answer.took_s
        return Observation(
            at, took_s, ok, sentence, reason, unit="seconds", readings=readings, details=tuple(self.details), **known
        )

    def at_family(self, family: Family, memory: Window | None) -> tuple[Observation, Window | None]:
        if not family.samples and not family.natives:
            raise self._missing(family)
        per_second = self._per_second(family)
        if family.natives or any(name == family.name + "_bucket" for name, _, _ in family.samples):
            memory = self._window(family, memory)
            try:
                return self._judged(self._of_window(memory), per_second), memory
            except _NoQuantileError as exc:
                return self.observation(exc.ok, str(exc), exc.reason), memory
        if family.type in ("counter", "gaugehistogram", "info", "stateset", "histogram"):
            what = "no buckets" if family.type == "histogram" else f"the type {family.type}"
            sentence = f"{family.name} has {what}, want a gauge, a summary or a histogram"
            raise _NoQuantileError("wrong_type", sentence)
        by_quantile = summaries(family)
        if by_quantile or family.type == "summary":
            return self._judged(self._of_summary(by_quantile), per_second), memory
        return self._judged(self._of_gauge(gauges(family)), per_second), memory

    def _missing(self, family: Family) -> _NoQuantileError:
        metric, url = self.settings.metric, self.settings.url
        if family.unmatched:
            return _NoQuantileError("metric_missing", f"GET {url}: {metric.name} is there, but no series of {metric}")
        return _NoQuantileError("metric_missing", f"GET {url}: no metric {metric.name}")

    def _per_second(self, family: Family) -> int:
        """How many of the metric's unit are a second."""
        unit = self.settings.unit or family.unit or unit_of(family.name)
        if unit in _UNITS:
            return _UNITS[unit]
        if unit:
            raise _NoQuantileError("bad_page", f"{family.name} has the unit {unit!r}, want one of s, ms, us, ns")
        self.details.append(("assumed", f"µs, as the name {family.name} does not say its unit"))
        return 10**6  # as in the script that engines come with

    # --- what each quantile is --------------------------------------------------------------------------------------

    def _window(self, family: Family, memory: Window | None) -> Window:
        began = None
        start = read_family(self.answer.value.body, _START, self.answer.value.content_type)
        if len(start.samples) == 1:
            began = start.samples[0][2]
        window = memory or Window(float(self.settings.window))
        return window.read(self.answer.at, histograms(family), began)

    def _of_window(self, window: Window) -> list[tuple[Quantile, Estimate]]:
        self.over = " since the engine's start" if window.lifetime else f" over the last {duration(window.covers_s)}"
        self.details.append(("window", "lifetime" if window.lifetime else duration(window.covers_s)))
        observed = window.observed()
        found = [(quantile, estimate(observed, quantile)) for quantile, _ in self.settings.budgets()]
        if any(each is None for _, each in found):
            sentence = f"nothing was observed in {self.settings.metric}{self.over}"
            raise _NoQuantileError("no_samples", sentence, self.settings.when_idle.verdict)
        return [(quantile, each) for quantile, each in found if each is not None]

    def _of_summary(self, by_quantile: dict[float, dict[Any, float]]) -> list[tuple[Quantile, Estimate]]:
        found = []
        for quantile, _ in self.settings.budgets():
            if quantile not in by_quantile:
                there = ", ".join(f"{other:.12g}" for other in sorted(by_quantile)) or "none"
                sentence = f"{self.settings.metric} has no quantile {quantile.text()}, only {there}"
                raise _NoQuantileError("metric_missing", sentence)
            values = {series: value for series, value in by_quantile[quantile].items() if not _nan(value)}
            if not values:
                sentence = f"{_p(quantile)} of {self.settings.metric} is NaN: nothing was observed"
                raise _NoQuantileError("no_samples", sentence, self.settings.when_idle.verdict)
            found.append((quantile, self._worst(values)))
        return found

    def _of_gauge(self, values: dict[Any, float]) -> list[tuple[Quantile, Estimate]]:
        """A gauge is one number: the first of the quantiles, whichever it was made for."""
        for series, value in values.items():
            if _nan(value):
                raise _NoQuantileError("not_a_number", f"{self.settings.metric.name}{shown(series)} is NaN, no latency")
        return [(self.settings.budgets()[0][0], self._worst(values))]

    def _worst(self, values: dict[Any, float]) -> Estimate:
        """Of several series, as numbers cannot be merged."""
        worst = max(values, key=lambda series: values[series])
        least = min(values.values())
        if least < 0:
            raise _NoQuantileError("negative", f"{self.settings.metric} is {least:g}, no latency")
        if len(values) > 1:
            self.over = f" in the worst of {len(values)} series, {shown(worst)}"
        return Estimate(values[worst], values[worst], values[worst])

    # --- the verdict ------------------------------------------------------------------------------------------------

    def _judged(self, found: list[tuple[Quantile, Estimate]], per_second: int) -> Observation:
        budgets = dict(self.settings.budgets())
        readings: list[Reading] = []
        verdicts: list[tuple[bool | None, float, Estimate, Seconds, str]] = []
        for quantile, raw in found:
            each = Estimate(raw.value / per_second, raw.low / per_second, raw.high / per_second)
            limit = budgets[quantile]
            labels = (quantile.text(),)
            readings.append(Reading("sentinel_engine_latency_seconds", each.value, labels))
            if each.low != each.high:
                readings.append(Reading("sentinel_engine_latency_low_seconds", each.low, labels))
                readings.append(Reading("sentinel_engine_latency_high_seconds", each.high, labels))
            ok, sentence = self._verdict(quantile, each, limit)
            verdicts.append((ok, each.value / limit if limit else float("inf"), each, limit, sentence))
        told = [one for one in verdicts if one[0] is False] or [one for one in verdicts if one[0] is None] or verdicts
        ok, _, worst, limit, _ = max(told, key=lambda one: one[1])
        reason = {True: "", False: "over_budget", None: "bucket_too_wide"}[ok]
        sentence = "; ".join(one[4] for one in told)
        return self.observation(ok, sentence, reason, value=worst.value, limit=float(limit), readings=readings)

    def _verdict(self, quantile: Quantile, each: Estimate, limit: Seconds) -> tuple[bool | None, str]:
        """Whether it is within its budget, or None where the last bucket is too wide to tell."""
        what = f"{_p(quantile)} of {self.settings.metric} is "
        tail = f"{self.over}, limit {duration(limit)}"
        if each.high == float("inf") and each.low != each.high:
            sentence = f"{what}above {duration(each.low)} (the largest bucket){tail}"
            return (False, sentence) if each.low >= limit else (None, f"{sentence}: no bucket reaches the limit")
        between = f" (between {_bound(each.low)} and {_bound(each.high)})" if each.low != each.high else ""
        unsure = ": the bucket is too wide to be sure" if each.low < limit < each.high else ""
        return each.value <= limit, f"{what}{_bound(each.value)}{between}{tail}{unsure}"


def unit_of(name: str) -> str:
    """The unit that a metric's name ends in, before what says which quantile it is; empty if it names none."""
    words = name.split("_")
    while len(words) > 1 and (words[-1] in _BEHIND or words[-1].lstrip("pq").isdecimal()):
        words.pop()
    return words[-1] if len(words) > 1 and words[-1] in _UNITS else ""


def _p(quantile: Quantile) -> str:
    return f"p{quantile * 100:.10g}"


def _bound(seconds: float) -> str:
    return duration(seconds) if abs(seconds) != float("inf") else "infinite" if seconds > 0 else "-infinite"


def _nan(value: float) -> bool:
    return value != value  # noqa: PLR0124
