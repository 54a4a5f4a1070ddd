"""The readings of a time of trouble beside those of a healthy time: what rose, how fast, since when.

Pure arithmetic over times and values, which knows no counter by its name. A gap is a gap, and never a zero.
"""

from __future__ import annotations

import itertools

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sentinel.model import Series

    Columns = Mapping[Series, tuple[Sequence[float], Sequence[float]]]  # times and values, a gap is NaN
    Row = tuple[float, float]

_SPAN_S = 5.5  # rates are means over this long: of one second they are mostly chance
_LEAST_SPAN_S = 3.0
TIMES = 2.0  # as much as at its worst before is no change yet


class Trouble(Value):
    """A probe that does not pass: since when (monotonic clock, its first answer that was not good), and why."""

    probe: str
    kind: str
    since: float
    reason: str
    sentence: str


class Moved(Value):
    """What a rule measured: the worst now, the worst before, since when, and how much it came to in all."""

    now: float
    before: float | None
    since: float
    amount: float
    metric: str
    labels: tuple[str, ...] = ()


class Sight:
    """The readings of a time of trouble, from `begin` to `end`, and of a healthy time before, from when to when."""

    def __init__(
        self, columns: Columns, troubles: Sequence[Trouble], healthy: tuple[float, float], begin: float, end: float
    ) -> None:
        self.columns = columns
        self.troubles = troubles
        self.healthy = healthy
        self.begin, self.end = begin, end

    def among(self, metric: str, *where: str) -> list[Series]:
        """The series of a metric that have all of these label values."""
        return [series for series in self.columns if series[0] == metric and {*where} <= {*series[1]}]

    def rate(self, metric: str, *where: str, least: float = 0.0) -> Moved | None:
        """Of a total, a second: of the series that rose fastest. None if there is none."""
        found = (self._rate(series, least) for series in self.among(metric, *where))
        return max((moved for moved in found if moved), key=lambda moved: moved.now, default=None)

    def _rate(self, series: Series, least: float) -> Moved | None:
        rows = self._rows(series, self.begin, self.end)
        if len(rows) < 2:
            return None
        now, began = _fastest(rows)
        before = self._before(series, lambda rows: _fastest(rows)[0] if len(rows) > 1 else None)
        needed = max(least, TIMES * (before or 0.0))
        since = next(
            (t0 for (t0, v0), (t1, v1) in itertools.pairwise(rows) if v1 - v0 >= needed * (t1 - t0) > 0),
            began,
        )
        amount = rows[-1][1] - next(value for at, value in rows if at >= since)
        return Moved(now, before, since, amount, *series)

    def level(self, metric: str, of: str = "") -> Moved | None:
        """Of what goes up and down, or of its share of another: the highest."""
        for series in self.among(metric):
            rows = self._rows(series, self.begin, self.end, of)
            if rows:
                at, most = max(rows, key=lambda row: row[1])
                before = self._before(series, lambda rows: max(value for _, value in rows), of)
                return Moved(most, before, at, most - (before or 0.0), *series)
        return None

    def latest(self, metric: str) -> float | None:
        """Of a level: what it was last."""
        rows = [row for series in self.among(metric) for row in self._rows(series, self.begin, self.end)[-1:]]
        return rows[-1][1] if rows else None

    def amount(self, metric: str, since: float) -> float:
        """By how much all series of a total rose together since then."""
        rows = (self._rows(series, since, self.end) for series in self.among(metric))
        return sum(found[-1][1] - found[0][1] for found in rows if found)

    def _before(self, series: Series, worst: Callable[[list[Row]], float | None], of: str = "") -> float | None:
        if not self.looked_before():
            return None
        rows = self._rows(series, *self.healthy, of)
        # A series that began in the trouble, as that of a thread, was nothing before, if others were looked at then.
        return worst(rows) if rows else 0.0

    def looked_before(self) -> bool:
        """Whether there are readings of a healthy time."""
        begin, end = self.healthy
        return any(len(times) > 1 and times[0] >= begin and times[1] <= end for times, _ in self.columns.values())

    def _rows(self, series: Series, begin: float, end: float, of: str = "") -> list[Row]:
        """Times and values without the gaps; with `of`, the values over those of another metric of the same probe."""
        times, values = self.columns[series]
        if of:
            _, whole = self.columns.get((of, ()), (times, [float("nan")] * len(times)))
            values = [part / one if one else float("nan") for part, one in zip(values, whole, strict=True)]
        return [
            (at, value)
            for at, value in zip(times, values, strict=True)
            if begin <= at <= end and value == value  # noqa: PLR0124  # NaN
        ]


def _fastest(rows: Sequence[Row]) -> tuple[float, float]:
    """The largest mean rise a second over a span, and when that span began. At least two rows."""
    best, began = 0.0, rows[0][0]
    first = 0
    for at, value in rows[1:]:
        while at - rows[first][0] > _SPAN_S:
            first += 1
        rise = (value - rows[first][1]) / max(at - rows[first][0], _LEAST_SPAN_S)
        if rise > best:
            best, began = rise, rows[first][0]
    return best, began
