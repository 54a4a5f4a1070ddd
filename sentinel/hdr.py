"""Durations to three significant digits over a sliding window, for quantiles of what was measured here.

After HdrHistogram (Tene): the error is a share of the value, never of the range. Kept sparse, as one probe measures
once a second and a thousand engines are watched: 600 numbers where a dense one has 40,000.
Pure: values in, values out; the moment of each is given.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SLOTS = 10  # the window moves on in tenths
_STEPS = 10_000  # four digits are kept: steps of at most 0.1 %, so three digits are always right


class Durations(Value):
    """How often each duration was seen in the last `window_s` seconds. Immutable; `add` gives another one."""

    window_s: float = 600.0
    slots: tuple[tuple[int, Mapping[int, int]], ...] = ()  # number of the tenth, counts by key; the newest last

    def add(self, at: float, durations_s: Iterable[float]) -> Durations:
        """With these, seen at `at` (monotonic seconds, never less than before), and without what is too old."""
        now = int(at / self.window_s * _SLOTS)
        slots = [slot for slot in self.slots if slot[0] > now - _SLOTS]
        counts = dict(slots.pop()[1]) if slots and slots[-1][0] == now else {}
        for seconds in durations_s:
            key = _key(seconds)
            counts[key] = counts.get(key, 0) + 1
        return Durations(self.window_s, (*slots, (now, counts)))

    def quantiles(self, wanted: Iterable[float]) -> list[float]:
        """The smallest duration that at least this share of all is not above, in seconds; empty if there are none."""
        merged: dict[int, int] = {}
        for _, counts in self.slots:
            for key, count in counts.items():
                merged[key] = merged.get(key, 0) + count
        total = sum(merged.values())
        if not total:
            return []
        found: dict[float, float] = {}
        todo = sorted(wanted)
        below = 0
        for key in sorted(merged):
            below += merged[key]
            while len(found) < len(todo) and below >= todo[len(found)] * total:
                found[todo[len(found)]] = _seconds(key)
        return [found[quantile] for quantile in wanted]


def _key(seconds: float) -> int:
    """An order-keeping number: how many digits were cut, and the digits that are left. Nanoseconds below."""
    left = max(0, round(seconds * 1e9))
    cut = 0
    while left >= _STEPS:
        left //= 10
        cut += 1
    return cut * _STEPS + left


def _seconds(key: int) -> float:
    """The largest duration that has this key."""
    cut, left = divmod(key, _STEPS)
    return float(f"{left + 1}e{cut - 9}") - 1e-9
