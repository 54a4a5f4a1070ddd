"""Durations over a sliding window: three significant digits, and nothing older than the window."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.hdr import Durations, _key, _seconds
from sentinel.model import Answer, Failure, Response
from sentinel.probes import http


@given(st.floats(1e-6, 1e5))
def test_three_significant_digits_are_right(seconds: float) -> None:
    assert _seconds(_key(seconds)) == pytest.approx(seconds, rel=1e-3)
    assert _seconds(_key(seconds)) >= seconds - 1e-9


@given(st.lists(st.floats(1e-6, 100), min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_the_one_of_exactly_what_was_seen(seen: list[float], quantile: float) -> None:
    durations = Durations().add(0.0, seen)
    true = sorted(seen)[max(0, math.ceil(quantile * len(seen)) - 1)]
    assert durations.quantiles([quantile]) == [pytest.approx(true, rel=1e-3)]


def test_what_is_older_than_the_window_is_gone() -> None:
    durations = Durations(10.0).add(0.0, [5.0]).add(5.0, [1.0])
    assert durations.quantiles([1.0]) == [pytest.approx(5.0, rel=1e-3)]
    assert durations.add(10.5, []).quantiles([1.0]) == [pytest.approx(1.0, rel=1e-3)]
    assert durations.add(99.0, []).quantiles([0.5, 1.0]) == []


def answer(at: float, waited_s: tuple[float, ...], **what: object) -> Answer:
    return Answer(at, 0.004, waited_s=waited_s, **what)


SETTINGS = http.Settings(http.Url("http://e/health"))
RESPONSE = Response(200, "", "", b"", 0.001, 0.003, 0.004)


def p100(memory: http.Measured | None, phase: str) -> float:
    assert memory is not None
    return float(f"{getattr(memory, phase).quantiles([1.0])[0]:.3g}")


def test_connect_first_byte_and_total_are_measured_apart() -> None:
    seen, memory = http.read(SETTINGS, (answer(0.0, (0.0,), value=RESPONSE),), None)
    assert [p100(memory, phase) for phase in ("connect", "first_byte", "total")] == [0.001, 0.003, 0.004]
    labels = {reading.labels for reading in seen.readings}
    assert labels == {(p, q) for p in ("connect", "first_byte", "total") for q in ("0.5", "0.99", "0.999")}


def test_runs_that_could_not_start_count_their_waiting() -> None:
    """Three runs were due while the one before hung: each would have waited, the first the longest."""
    _, memory = http.read(SETTINGS, (answer(3.0, (2.0, 1.0, 0.0), value=RESPONSE),), None)
    assert memory is not None
    assert memory.total.quantiles([0.3, 0.6, 1.0]) == pytest.approx([0.004, 1.004, 2.004], rel=1e-3)


def test_an_answer_that_did_not_come_counts_its_whole_time() -> None:
    _, memory = http.read(SETTINGS, (answer(1.0, (0.0,), failure=Failure("timeout", "…")).replace(took_s=0.8),), None)
    assert (p100(memory, "total"), memory.connect.quantiles([1.0])) == (0.8, [])


def test_a_one_shot_check_measures_nothing_over_time() -> None:
    seen, memory = http.read(SETTINGS, (answer(0.0, (), value=RESPONSE),), None)
    assert (seen.readings, memory) == ((), None)
