"""The readings of the last ten minutes, in memory: what the explanation compares and what the page draws.

Numbers only, a row at most twice a second, in rings of a fixed size: it must never grow with time, nor with how often a
probe is asked. A row that a series has no value in is NaN there: a gap, and not the last value.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from sentinel.model import Observation, Series

    Key = tuple[str, str]  # engine and probe

SPAN_S = 600.0
_ROWS = 600  # one a second, as probes are asked where nothing else is said
_NAN = float("nan")


class Ring:
    """The readings of one probe: times on the monotonic clock, and a column for each series beside them."""

    def __init__(self) -> None:
        self._times = array("d", [_NAN]) * _ROWS
        self._columns: dict[Series, array[float]] = {}
        self._count = 0
        self._row_began = _NAN

    def add(self, seen: Observation) -> None:
        """One more row; what comes within half a second of a row's first takes its place."""
        if not seen.at - self._row_began < 0.5:
            self._count += 1
            self._row_began = seen.at
        row = (self._count - 1) % _ROWS
        for column in self._columns.values():
            column[row] = _NAN
        self._times[row] = seen.at
        for reading in seen.readings:
            series = (reading.metric, reading.labels)
            if series not in self._columns:
                self._columns[series] = array("d", [_NAN]) * _ROWS
            self._columns[series][row] = reading.value

    def since(self, moment: float, metrics: Collection[str] = ()) -> tuple[list[float], dict[Series, list[float]]]:
        """The times from this moment on, the oldest first, and the columns aligned to them; empty ones are left out.

        With `metrics` only the columns of these.
        """
        rows: list[int] = []
        for number in range(self._count - 1, max(0, self._count - _ROWS) - 1, -1):  # from the newest: few are wanted
            if self._times[number % _ROWS] < moment:
                break
            rows.append(number % _ROWS)
        rows.reverse()
        columns = {
            series: [column[row] for row in rows]
            for series, column in self._columns.items()
            if not metrics or series[0] in metrics
        }
        known = {series: column for series, column in columns.items() if any(value == value for value in column)}  # noqa: PLR0124  # NaN
        return [self._times[row] for row in rows], known


class History:
    """The ring of every probe."""

    def __init__(self) -> None:
        self._rings: dict[Key, Ring] = {}

    def add(self, key: Key, seen: Observation) -> None:
        """One more answer of a probe."""
        self._rings.setdefault(key, Ring()).add(seen)

    def keep(self, keys: Iterable[Key]) -> None:
        """Forgets what is watched no more."""
        wanted = {*keys}
        for gone in self._rings.keys() - wanted:
            del self._rings[gone]

    def since(
        self, key: Key, moment: float, metrics: Collection[str] = ()
    ) -> tuple[list[float], dict[Series, list[float]]]:
        """As of a ring; nothing of a probe that did not answer yet."""
        ring = self._rings.get(key)
        return ring.since(moment, metrics) if ring else ([], {})
