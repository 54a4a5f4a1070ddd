"""The memory probe: from a use and its limit to an observation."""

from __future__ import annotations

import math

import pytest

from sentinel.model import Answer, Failure, MemoryUse, Missing, Observation, Reading, ReadMemory
from sentinel.probes import memory
from sentinel.probes.memory import Settings
from sentinel.proc import Who
from sentinel.units import Share

MIB = 1 << 20


def observe(most: str, used: int, limit: int, of: str = "host", rss: int = 0) -> Observation:
    answer = Answer(100.0, 0.002, MemoryUse(used, limit, rss, of))
    return memory.read(Settings(Share.parse(most), Who("engine")), (answer,), None)[0]


def test_it_asks_for_the_memory_of_the_engine_s_processes() -> None:
    assert memory.asks(Settings(Share.parse("90%"), Who("engine"))) == (ReadMemory("engine"),)


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
            Reading("sentinel_engine_memory_max_ratio", 0.9),
        ),
        details=(("of", "cgroup /docker/abc"), ("rss_bytes", 20 * MIB)),
    )


def test_a_limit_that_is_not_seen_is_said_and_not_passed_over() -> None:
    use = MemoryUse(16 * MIB, 1024 * MIB, 16 * MIB, "host", "/docker/abc")
    seen, _ = memory.read(Settings(), (Answer(100.0, 0.002, use),), None)
    assert seen.sentence == (
        "memory 16 MiB is 1.56 % of 1 GiB (host; that of cgroup /docker/abc is not seen), limit 90 %"
    )
    assert dict(seen.details)["unreadable"] == Missing(
        "the engine's memory limit",
        "cgroup /docker/abc: not seen from here",
        "run with the engine's uid and gid, or mount the host's cgroups",
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
            Reading("sentinel_engine_memory_max_ratio", 0.25),
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
    assert memory.read(Settings(Share.parse("90%"), Who("engine")), (failed,), None) == (
        Observation(100.0, 0.002, False, sentence, reason),
        None,
    )


# --- growth -----------------------------------------------------------------------------------------------------------


def grown(uses: list[tuple[float, float]], limit: int = 1000, of: str = "cgroup /e") -> Observation:
    """What is observed last of uses in MiB at these moments."""
    settings, kept, seen = Settings(Share.parse("90%"), Who("engine")), None, None
    for at, used in uses:
        answer = Answer(at, 0.0, MemoryUse(int(used * MIB), limit * MIB, 0, of))
        seen, kept = memory.read(settings, (answer,), kept)
    assert seen is not None
    return seen


def left_s(seen: Observation) -> float | None:
    found = [reading.value for reading in seen.readings if reading.metric.endswith("_seconds_to_limit")]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("uses", "seconds"),
    [
        pytest.param([(at, 100 + 10 * at) for at in range(31)], 60.0, id="a line"),
        pytest.param([(at, 100 + 10 * at + at % 2) for at in range(31)], 60.0, id="a line with noise on it"),
        pytest.param([(at, 900 - 10 * at) for at in range(31)], None, id="it shrinks"),
        pytest.param([(at, 500.0) for at in range(31)], None, id="it stays"),
        pytest.param([(at, 500 + 50 * (at % 2)) for at in range(61)], None, id="it goes up and down"),
        pytest.param([(at, 500 + at / 100) for at in range(61)], None, id="less than a MiB is nothing"),
        pytest.param([(at, 100 + 10 * at) for at in range(10)], None, id="nine seconds are too few"),
        pytest.param([(0, 100), (30, 400)], None, id="two are no line"),
        pytest.param([(at, 1000 + 10 * at) for at in range(31)], 0.0, id="it is there"),
        pytest.param(
            [*((at, 900.0) for at in range(100)), *((100 + at, 10.0 * at) for at in range(80))], 21.0, id="of the last"
        ),
    ],
)
def test_the_time_to_the_limit_is_that_of_the_last_minute_s_line(
    uses: list[tuple[float, float]], seconds: float | None
) -> None:
    found = left_s(grown(uses))
    assert found == (None if seconds is None else pytest.approx(seconds, abs=1.0))


def test_the_sentence_says_when_it_is_full() -> None:
    seen = grown([(at, 100 + 10 * at) for at in range(31)])
    assert seen.sentence == "memory 400 MiB is 40 % of 0.977 GiB (cgroup /e), limit 90 %; as it grows, full in 60 s"


def test_another_limit_and_another_process_begin_a_line_of_their_own() -> None:
    settings, kept = Settings(Share.parse("90%"), Who("engine")), None
    for at in range(31):
        answer = Answer(at, 0.0, MemoryUse((100 + 10 * at) * MIB, 1000 * MIB, 0, "cgroup /e" if at < 29 else "host"))
        seen, kept = memory.read(settings, (answer,), kept)
    assert left_s(seen) is None
    gone = Answer(31, 0.0, failure=Failure("no_process", "no process named 'engine'"))
    assert memory.read(settings, (gone,), kept)[1] is None


def test_all_that_is_published_is_declared() -> None:
    seen = grown([(at, 100 + 10 * at) for at in range(31)])
    assert [reading.metric for reading in seen.readings] == [metric.name for metric in memory.METRICS]
    assert all(metric.labels == () for metric in memory.METRICS)


def test_it_waits_for_the_process() -> None:
    assert memory.NEEDS == "process"
