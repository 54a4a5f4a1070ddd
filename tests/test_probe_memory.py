"""The memory probe: from a use and its limit to an observation."""

from __future__ import annotations

import math

import pytest

from sentinel.model import Answer, Failure, MemoryUse, Observation, Reading, ReadMemory
from sentinel.probes import memory
from sentinel.probes.memory import Settings
from sentinel.units import Share

MIB = 1 << 20


def observe(most: str, used: int, limit: int, of: str = "host", rss: int = 0) -> Observation:
    answer = Answer(100.0, 0.002, MemoryUse(used, limit, rss, of))
    return memory.read(Settings(Share.parse(most), "engine"), (answer,), None)[0]


def test_it_asks_for_the_memory_of_the_engine_s_processes() -> None:
    assert memory.asks(Settings(Share.parse("90%"), "engine")) == (ReadMemory("engine"),)


def test_below_a_ratio_is_a_pass() -> None:
    assert observe("90%", 16 * MIB, 64 * MIB, "cgroup /docker/abc", 20 * MIB) == Observation(
        100.0,
        0.002,
        True,
        "memory 16 MiB is 25 % of 64 MiB (cgroup /docker/abc), limit 90 %",
        "",
        0.25,
        0.9,
        "ratio",
        (
            Reading("sentinel_engine_memory_used_bytes", 16 * MIB),
            Reading("sentinel_engine_memory_limit_bytes", 64 * MIB),
            Reading("sentinel_engine_memory_used_ratio", 0.25),
        ),
        details=(("of", "cgroup /docker/abc"), ("rss_bytes", 20 * MIB)),
    )


def test_above_a_size_is_a_failure() -> None:
    assert observe("16MiB", 24 * MIB, 64 * MIB, rss=24 * MIB) == Observation(
        100.0,
        0.002,
        False,
        "memory 24 MiB is 37.5 % of 64 MiB (host), limit 16 MiB",
        "over_budget",
        float(24 * MIB),
        float(16 * MIB),
        "bytes",
        (
            Reading("sentinel_engine_memory_used_bytes", 24 * MIB),
            Reading("sentinel_engine_memory_limit_bytes", 64 * MIB),
            Reading("sentinel_engine_memory_used_ratio", 0.375),
        ),
        details=(("of", "host"), ("rss_bytes", 24 * MIB)),
    )


@pytest.mark.parametrize(
    ("most", "used", "limit", "ok", "sentence"),
    [
        pytest.param(
            "90%", 900, 1000, True, "memory 900 B is 90 % of 0.977 KiB (host), limit 90 %", id="on a ratio exactly"
        ),
        pytest.param(
            "90%", 901, 1000, False, "memory 901 B is 90.1 % of 0.977 KiB (host), limit 90 %", id="a byte above a ratio"
        ),
        pytest.param("16MiB", 16 * MIB, 64 * MIB, True, "memory 16 MiB is 25 % of 64 MiB (host), limit 16 MiB", id="="),
        pytest.param(
            "16MiB",
            16 * MIB + 1,
            64 * MIB,
            False,
            "memory 16 MiB is 25 % of 64 MiB (host), limit 16 MiB",
            id="a byte above a size",
        ),
        pytest.param(
            "100%", 64 * MIB, 64 * MIB, True, "memory 64 MiB is 100 % of 64 MiB (host), limit 100 %", id="all of it"
        ),
        pytest.param(
            "100%",
            65 * MIB,
            64 * MIB,
            False,
            "memory 65 MiB is 102 % of 64 MiB (host), limit 100 %",
            id="more than all, as shared pages count for each process",
        ),
        pytest.param(
            "6GiB",
            3 << 30,
            4 << 30,
            True,
            "memory 3 GiB is 75 % of 4 GiB (host), limit 6 GiB",
            id="a size above the limit that kills",
        ),
        pytest.param("0.5%", 0, 64 * MIB, True, "memory 0 B is 0 % of 64 MiB (host), limit 0.5 %", id="nothing used"),
    ],
)
def test_on_the_limit_is_a_pass_and_above_it_is_none(most: str, used: int, limit: int, ok: bool, sentence: str) -> None:
    observation = observe(most, used, limit)
    assert (observation.ok, observation.reason, observation.sentence) == (ok, "" if ok else "over_budget", sentence)


@pytest.mark.parametrize("percent", range(1, 101))
def test_a_ratio_written_in_percent_is_reached_exactly(percent: int) -> None:
    assert observe(f"{percent}%", percent, 100).ok is True
    assert observe(f"{percent}%", percent + 1, 100).ok is False


def test_the_value_is_in_the_unit_of_the_limit() -> None:
    of_ratio, of_size = observe("50%", 1, 4), observe("2B", 1, 4)
    assert (of_ratio.value, of_ratio.limit, of_ratio.unit) == (0.25, 0.5, "ratio")
    assert (of_size.value, of_size.limit, of_size.unit) == (1.0, 2.0, "bytes")
    assert all(isinstance(value, float) and math.isfinite(value) for value in (of_size.value, of_size.limit))


def test_a_size_of_zero_is_a_limit_and_not_none() -> None:
    assert [observe("0B", used, 100).ok for used in (0, 1)] == [True, False]


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("no_process", "no process named 'engine'"),
        ("no_access", "neither /proc/meminfo nor a cgroup's limit can be read"),
    ],
)
def test_an_answer_that_failed_is_a_failure(reason: str, sentence: str) -> None:
    failed = Answer(100.0, 0.002, failure=Failure(reason, sentence))
    assert memory.read(Settings(Share.parse("90%"), "engine"), (failed,), None) == (
        Observation(100.0, 0.002, False, sentence, reason),
        None,
    )


def test_all_that_is_published_is_declared() -> None:
    assert [reading.metric for reading in observe("90%", 1, 2).readings] == [metric.name for metric in memory.METRICS]
    assert all(metric.labels == () for metric in memory.METRICS)


def test_it_waits_for_the_process() -> None:
    assert memory.NEEDS == "process"
