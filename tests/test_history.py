"""The history: rows of readings in rings that do not grow."""

from __future__ import annotations

import math

from sentinel.history import History, Ring
from sentinel.model import Observation, Reading

P99 = ("latency_seconds", ("0.99",))
USED = ("used_bytes", ())


def seen(at: float, **values: float) -> Observation:
    labels = {"latency_seconds": ("0.99",)}
    readings = tuple(Reading(name, value, labels.get(name, ())) for name, value in values.items())
    return Observation(at, 0.001, True, "seen", readings=readings)


def shown(ring: Ring, moment: float = 0.0) -> object:
    """NaN as None, so that it can be compared."""
    times, columns = ring.since(moment)
    return times, {key: [None if math.isnan(v) else v for v in column] for key, column in columns.items()}


def test_a_value_that_is_missing_is_a_gap() -> None:
    ring = Ring()
    for row in (seen(1.0, used_bytes=5), seen(2.0), seen(3.0, used_bytes=7, latency_seconds=0.1)):
        ring.add(row)
    assert shown(ring) == ([1.0, 2.0, 3.0], {USED: [5, None, 7], P99: [None, None, 0.1]})


def test_only_what_is_asked_for_and_known_is_given() -> None:
    ring = Ring()
    for row in (seen(1.0, used_bytes=5), seen(2.0, latency_seconds=0.1), seen(3.0)):
        ring.add(row)
    assert shown(ring, 2.0) == ([2.0, 3.0], {P99: [0.1, None]})


def test_the_last_of_those_within_half_a_second_counts() -> None:
    ring = Ring()
    for row in (seen(1.0, used_bytes=5, latency_seconds=0.1), seen(1.4, used_bytes=6), seen(1.6, used_bytes=7)):
        ring.add(row)
    assert shown(ring) == ([1.4, 1.6], {USED: [6, 7]})


def test_after_ten_minutes_the_oldest_goes() -> None:
    ring = Ring()
    for second in range(1000):
        ring.add(seen(float(second), used_bytes=second))
    times, columns = ring.since(0.0)
    assert times == [float(second) for second in range(400, 1000)]
    assert columns == {USED: times}


def test_a_series_that_comes_late_has_gaps_before() -> None:
    ring = Ring()
    for second in range(700):
        ring.add(seen(float(second), **({"used_bytes": 1} if second == 650 else {})))
    times, columns = ring.since(0.0)
    assert [time for time, used in zip(times, columns[USED], strict=True) if used == 1] == [650.0]


def test_each_probe_has_its_own_and_those_that_are_gone_are_forgotten() -> None:
    history = History()
    history.add(("a", "memory"), seen(1.0, used_bytes=1))
    history.add(("b", "memory"), seen(2.0, used_bytes=2))
    history.keep([("b", "memory")])
    assert history.since(("a", "memory"), 0.0) == ([], {})
    assert history.since(("b", "memory"), 0.0) == ([2.0], {USED: [2]})
