"""Native (exponential) histograms: sparse buckets whose bounds are powers of one base, 2 ** (2 ** -schema).

Stands apart from `quantiles.py` because only servers that speak protobuf publish them. The facts are those of the
Prometheus client data model (io/prometheus/client/metrics.proto): bucket i holds base^(i-1) < value <= base^i, the
zero bucket what is at most `zero_threshold` from zero.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMAS = range(-4, 9)  # those of exponential buckets


class Native(Value):
    """Observations in exponential buckets: how many, by the index of the bucket. Unlike text, not cumulative.

    `since` is when the page says that counting began, or None where it does not.
    """

    schema: int
    zero_threshold: float
    zero_count: float
    positive: Mapping[int, float]
    negative: Mapping[int, float]
    since: float | None = None

    @property
    def total(self) -> float:
        return self.zero_count + sum(self.positive.values()) + sum(self.negative.values())

    def grown(self, old: Native) -> Native:
        """What was observed since `old`. A restart, seen by `since` or by a bucket that fell: all of it."""
        if None not in (self.since, old.since) and self.since != old.since:
            return self
        new, old = _alike([self, old])
        zero_count = new.zero_count - old.zero_count
        positive = _minus(new.positive, old.positive)
        negative = _minus(new.negative, old.negative)
        if min(zero_count, *positive.values(), *negative.values(), 0) < 0:
            return self
        return new.replace(zero_count=zero_count, positive=positive, negative=negative)

    @staticmethod
    def merged(parts: Sequence[Native]) -> Native:
        """All observations together, in the coarsest resolution of the parts, which is exact. One part at least."""
        alike = _alike(parts)
        positive: dict[int, float] = {}
        negative: dict[int, float] = {}
        for part in alike:
            for into, counts in ((positive, part.positive), (negative, part.negative)):
                for index, count in counts.items():
                    into[index] = into.get(index, 0) + count
        zero_count = sum(part.zero_count for part in alike)
        return alike[0].replace(zero_count=zero_count, positive=positive, negative=negative, since=None)

    def buckets(self) -> list[tuple[float, float, float]]:
        """(low, high, count) of the buckets that hold something, from the lowest."""
        zero = self.zero_threshold
        found = []
        for index in sorted(self.negative, reverse=True):
            found.append((-bound(self.schema, index), -max(zero, bound(self.schema, index - 1)), self.negative[index]))
        # without a negative bucket, be it empty, the zero bucket holds nothing negative either: Prometheus's rule
        found.append((-zero if self.negative else 0.0, zero, self.zero_count))
        for index in sorted(self.positive):
            found.append((max(zero, bound(self.schema, index - 1)), bound(self.schema, index), self.positive[index]))
        return [bucket for bucket in found if bucket[2]]

    @staticmethod
    def between(low: float, high: float, part: float) -> float:
        """The value a part (0 to 1) of the way into a bucket: exponential as the bounds are, linear around zero."""
        if low > 0:
            return low * float((high / low) ** part)
        if high < 0:
            return high * float((low / high) ** (1 - part))
        return low + (high - low) * part


def bound(schema: int, index: int) -> float:
    """The upper bound of a positive bucket. Beyond the largest double, infinity."""
    try:
        return float(2.0 ** (index * 2.0**-schema))
    except OverflowError:
        return float("inf")


def spread(spans: Sequence[tuple[int, int]], counts: Sequence[float]) -> dict[int, float]:
    """Counts by index, from (offset, length) spans and the counts in them. Raises ValueError if lengths differ."""
    if any(length < 0 for _, length in spans) or sum(length for _, length in spans) != len(counts):
        raise ValueError("spans and counts differ in length")
    placed = {}
    index = 0
    rest = iter(counts)
    for offset, length in spans:
        index += offset
        for _ in range(length):
            placed[index] = next(rest)
            index += 1
    return placed


def _minus(new: Mapping[int, float], old: Mapping[int, float]) -> dict[int, float]:
    return {index: new.get(index, 0) - old.get(index, 0) for index in (*new, *old)}


def _alike(parts: Sequence[Native]) -> list[Native]:
    """The same histograms in one schema and one zero threshold, so that their buckets are the same buckets."""
    schema = min(part.schema for part in parts)
    parts = [_lowered(part, schema) for part in parts]
    threshold = max(part.zero_threshold for part in parts)
    while True:
        wider = max(_reached(part, threshold) for part in parts)
        if wider == threshold:
            return [_widened(part, threshold) for part in parts]
        threshold = wider


def _lowered(part: Native, schema: int) -> Native:
    """In a lower schema: each step down joins the buckets 2i - 1 and 2i into bucket i."""
    down = part.schema - schema
    if not down:
        return part
    into: list[dict[int, float]] = []
    for counts in (part.positive, part.negative):
        joined: dict[int, float] = {}
        for index, count in counts.items():
            joined[-(-index >> down)] = joined.get(-(-index >> down), 0) + count
        into.append(joined)
    return part.replace(schema=schema, positive=into[0], negative=into[1])


def _reached(part: Native, threshold: float) -> float:
    """The threshold, or the end of a bucket that it would cut in two."""
    for index in (*part.positive, *part.negative):
        if bound(part.schema, index - 1) < threshold < bound(part.schema, index):
            return bound(part.schema, index)
    return threshold


def _widened(part: Native, threshold: float) -> Native:
    """With a larger zero bucket, which takes in what lies below its threshold."""
    if threshold == part.zero_threshold:
        return part
    zero_count = part.zero_count
    kept: list[dict[int, float]] = []
    for counts in (part.positive, part.negative):
        kept.append({})
        for index, count in counts.items():
            if bound(part.schema, index) <= threshold:
                zero_count += count
            kept[-1][index] = count if bound(part.schema, index) > threshold else 0
    return part.replace(zero_threshold=threshold, zero_count=zero_count, positive=kept[0], negative=kept[1])
