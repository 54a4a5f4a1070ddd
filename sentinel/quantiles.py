"""A quantile out of a gauge, a summary or the difference of two readings of a histogram, and how sure it is.

Stands apart from the reading of pages so that its truth can be tested against known observations. It must never read
a clock, and never turn a counter that fell, a series that came back or a bucket that moved into observations.

Errors: PageError, of `family`, where a page contradicts itself.
"""

from __future__ import annotations

from sentinel.family import PageError
from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any, Protocol

    from sentinel.family import Family

    Series = tuple[tuple[str, str], ...]  # labels, sorted: what makes a series the same one in two readings

    class Histogram(Protocol):
        """Observations counted in buckets: `Classic` here, `Native` in native.py. A page has one kind of a family."""

        @property
        def total(self) -> float: ...
        def grown(self, old: Any) -> Histogram: ...
        @staticmethod
        def merged(parts: Sequence[Any]) -> Histogram: ...
        def buckets(self) -> list[tuple[float, float, float]]: ...
        @staticmethod
        def between(low: float, high: float, part: float) -> float: ...


_INF = float("inf")
_START_WANDERS_S = 2.0  # clients compute it from the kernel's btime, which moves by a second with the wall clock
_FORGET_S = 3600.0  # a series that was away this long counts as new: longer than a deploy, and the memory is bounded


class Estimate(Value):
    """A quantile. The true one is above `low` and at most `high`, the bounds of the bucket that holds it."""

    value: float
    low: float
    high: float


class Classic(Value):
    """Observations in buckets: `counts[i]` of them are at most `bounds[i]` and above the bound before.

    Bounds ascend to infinity. `since` is when the page says that counting began, or None where it does not.
    """

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    since: float | None = None

    @property
    def total(self) -> float:
        return sum(self.counts)

    def grown(self, old: Classic) -> Classic:
        """What was observed since `old`. A restart, seen by `since` or by a bucket that fell: all of it.

        Where bounds changed, only those that both have are exact, and the answer has no others.
        """
        if None not in (self.since, old.since) and self.since != old.since:
            return self
        new = self
        if new.bounds != old.bounds:
            common = _common((new, old))
            new, old = new.coarser(common), old.coarser(common)
        counts = tuple(map(float.__sub__, new.counts, old.counts))
        return self if min(counts) < 0 else Classic(new.bounds, counts)

    def coarser(self, bounds: tuple[float, ...]) -> Classic:
        """The same in fewer buckets; `bounds` are some of its own, infinity among them."""
        if bounds == self.bounds:
            return self
        counts = [0.0] * len(bounds)
        into = 0
        for bound, count in zip(self.bounds, self.counts, strict=True):
            counts[into] += count
            into += bound == bounds[into]
        return Classic(bounds, tuple(counts), self.since)

    @staticmethod
    def merged(parts: Sequence[Classic]) -> Classic:
        """All observations together, in the bounds that all the parts have. One part at least."""
        common = _common(parts)
        return Classic(common, tuple(map(sum, zip(*(part.coarser(common).counts for part in parts), strict=True))))

    def buckets(self) -> list[tuple[float, float, float]]:
        """(low, high, count) of the buckets that hold something, from the lowest."""
        # Prometheus's rule: where the first bound is positive nothing is below zero, as with durations.
        low = 0.0 if self.bounds[0] > 0 else -_INF
        return [bucket for bucket in zip((low, *self.bounds), self.bounds, self.counts, strict=False) if bucket[2]]

    @staticmethod
    def between(low: float, high: float, part: float) -> float:
        """The value a part (0 to 1) of the way into a bucket: linear, as `histogram_quantile` has it."""
        return low + (high - low) * part


def _common(parts: Iterable[Classic]) -> tuple[float, ...]:
    layouts = {part.bounds for part in parts}
    if len(layouts) == 1:
        return layouts.pop()
    return tuple(sorted(set.intersection(*map(set, layouts))))


def estimate(histogram: Histogram, quantile: float) -> Estimate | None:
    """The quantile (0 to 1) of what the histogram observed; None if that is nothing.

    Above the largest finite bound the value is that bound and `high` is infinity.
    """
    buckets = histogram.buckets()
    total = sum(count for _, _, count in buckets)
    rank = quantile * total
    if abs(rank - round(rank)) < 1e-9 * total:  # 0.07 * 100 is a little more than the 7th of 100
        rank = round(rank)
    below = 0.0
    for low, high, count in buckets:
        below += count
        if below >= rank:
            if high == _INF:
                return Estimate(low, low, high)
            if low == -_INF:
                return Estimate(high, low, high)
            value = histogram.between(low, high, 1 - (below - rank) / count)
            return Estimate(min(max(value, low), high), low, high)  # rounding may lead out of the bucket
    return None


class Window(Value):
    """What histograms observed lately, from one reading to the next. Frozen: `read` gives the next window.

    The first reading has nothing before it: until the second, the window is all that was ever counted. After that
    a new series is one whose first observation was since the last reading, and all of it counts. A series that is
    missing from a reading and comes back goes on where it stood; a missed reading makes the next step longer.
    """

    span_s: float
    at: float | None = None  # of the last reading, on the monotonic clock
    began: float | None = None  # when the engine's process began, in seconds since 1970
    last: Mapping[Series, tuple[float, Histogram]] = {}
    steps: tuple[tuple[float, float, Histogram], ...] = ()  # (began, ended, what was observed between)

    def read(self, at: float, series: Mapping[Series, Histogram], began: float | None = None) -> Window:
        """With one more reading, which is not empty. One that is not newer than the last changes nothing.

        If the process began anew by `began`, or publishes another kind of histogram, this is a first reading.
        """
        seen: dict[Series, tuple[float, Histogram]] = {key: (at, histogram) for key, histogram in series.items()}
        if self.at is not None and at <= self.at:
            return self
        if self.at is None or self._another_engine(series, began):
            return Window(self.span_s, at, began, seen)
        grown = [
            histogram.grown(self.last[key][1]) if key in self.last else histogram for key, histogram in series.items()
        ]
        steps = [step for step in self.steps if step[0] >= at - self.span_s]
        last = {key: away for key, away in self.last.items() if away[0] >= at - _FORGET_S} | seen
        return Window(self.span_s, at, began or self.began, last, (*steps, (self.at, at, merge(grown))))

    def _another_engine(self, series: Mapping[Series, Histogram], began: float | None) -> bool:
        if began is not None and self.began is not None and abs(began - self.began) > _START_WANDERS_S:
            return True
        kinds = {type(histogram) for _, histogram in self.last.values()}
        return not kinds.issuperset(map(type, series.values()))

    @property
    def lifetime(self) -> bool:
        """Whether there was only one reading, so that `observed` is of the engine's whole life."""
        return not self.steps

    @property
    def covers_s(self) -> float:
        """How long the window really is: at most `span_s`, or the time since the last reading if that is longer."""
        return self.steps[-1][1] - self.steps[0][0] if self.steps else 0.0

    def observed(self) -> Histogram:
        """All that was observed in the window, as one histogram. There must have been a reading."""
        return merge([step[2] for step in self.steps] or [histogram for _, histogram in self.last.values()])


def merge(parts: Sequence[Histogram]) -> Histogram:
    """All observations together. Parts without any do not coarsen the others. One part at least."""
    counting = [part for part in parts if part.total] or parts[:1]
    kinds = {type(part) for part in counting}
    if len(kinds) > 1:
        raise PageError("bad_page", "classic and native histograms are mixed in one family")
    return kinds.pop().merged(counting)


# --- from samples to series -----------------------------------------------------------------------------------------


def histograms(family: Family) -> dict[Series, Histogram]:
    """The histograms of a family by their labels. Raises PageError for one that contradicts itself."""
    created = {_key(labels): value for _, labels, value in family.created}
    series: dict[Series, Histogram] = {}
    for labels, native in family.natives:
        _put(series, _key(labels), native, family.name)
    cumulative: dict[Series, list[tuple[float, float]]] = {}
    for name, labels, value in family.samples:
        if name == family.name + "_bucket":
            rest = dict(labels)
            bound = _number(rest.pop("le", ""), f"a bucket of {family.name} has no le that is a number")
            cumulative.setdefault(_key(rest), []).append((bound, value))
    for key, pairs in cumulative.items():
        _put(series, key, _classic(family.name, sorted(pairs), created.get(key)), family.name)
    return series


def _classic(name: str, pairs: list[tuple[float, float]], since: float | None) -> Classic:
    """A classic histogram of ascending (bound, cumulative count)."""
    counts = []
    below = 0.0
    bound_below = None
    for bound, count in pairs:
        if bound == bound_below:
            raise PageError("bad_page", f"{name} has the bucket le={bound:g} twice in one series")
        if not below <= count < _INF:  # NaN included
            raise PageError("bad_page", f"{name} counts {count:g} up to le={bound:g}, fewer than the {below:g} below")
        counts.append(count - below)
        below, bound_below = count, bound
    if bound_below != _INF:
        raise PageError("bad_page", f"{name} has no bucket le=+Inf: the page was cut, or the histogram is broken")
    return Classic(tuple(bound for bound, _ in pairs), tuple(counts), since)


def gauges(family: Family) -> dict[Series, float]:
    """The values of a family that is a number a series. Raises PageError for a series that stands there twice."""
    series: dict[Series, float] = {}
    for name, labels, value in family.samples:
        if name == family.name:
            _put(series, _key(labels), value, family.name)
    return series


def summaries(family: Family) -> dict[float, dict[Series, float]]:
    """The values of a family that publishes quantiles, by quantile and then by the other labels. Raises PageError."""
    found: dict[float, dict[Series, float]] = {}
    for name, labels, value in family.samples:
        if name == family.name and "quantile" in labels:
            rest = dict(labels)
            quantile = _number(rest.pop("quantile"), f"a quantile label of {family.name} is not a number")
            _put(found.setdefault(quantile, {}), _key(rest), value, family.name)
    return found


def _key(labels: Mapping[str, str]) -> Series:
    return tuple(sorted(labels.items()))


def _put(series: dict[Series, Any], key: Series, value: object, name: str) -> None:
    if key in series:
        raise PageError("bad_page", f"{name}{shown(key)} stands on the page twice")
    series[key] = value


def _number(text: str, fault: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise PageError("bad_page", f"{fault}: {text!r}") from None
    if number != number:  # noqa: PLR0124  # NaN
        raise PageError("bad_page", f"{fault}: {text!r}")
    return number


def shown(series: Series) -> str:
    """The labels as PromQL writes them, for a sentence; empty without labels."""
    return "{" + ",".join(f'{label}="{value}"' for label, value in series) + "}" if series else ""
