"""Causes: each is named where its counter changed, not where it almost did, and ranked by what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sentinel import causes as c
from sentinel.causes import RULES
from sentinel.explain import Cause, Explanation, Figure, explain
from sentinel.sight import Sight, Trouble

if TYPE_CHECKING:
    from sentinel.model import Series
    from sentinel.sight import Columns

NAN = float("nan")
BEGAN, TROUBLE, NOW = 0, 100, 112  # healthy from 0 on, a cause from 98 on, a trouble from 100 on
HEALTHY = (float(BEGAN), 95.0)
LATENCY = Trouble("latency", "latency", float(TROUBLE), "over_budget", "p99 is 9 ms, limit 1 ms")


def clock(moment: float) -> str:
    return f"t{moment:g}"


def total(metric: str, before: float, after: float, *labels: str) -> dict[Series, tuple[list[float], list[float]]]:
    """A total that rises so much a second, before 98 and after."""
    times = [float(at) for at in range(BEGAN, NOW + 1)]
    values = [before * min(at, 98) + after * max(0, at - 98) for at in times]
    return {(metric, labels): (times, values)}


def level(metric: str, before: float, after: float) -> dict[Series, tuple[list[float], list[float]]]:
    times = [float(at) for at in range(BEGAN, NOW + 1)]
    return {(metric, ()): (times, [before if at < 98 else after for at in times])}


def told(columns: Columns, *troubles: Trouble, healthy: tuple[float, float] = HEALTHY) -> Explanation:
    sources = {metric: f"/proc/{metric.removeprefix('sentinel_engine_')}" for metric, _ in columns}
    return explain(columns, troubles or (LATENCY,), healthy, float(NOW), clock, sources)


def of_reason(reason: str) -> tuple[Trouble, ...]:
    return (Trouble("process", "process", 100.0, reason, f"it ended ({reason})"),)


# Where another trouble than a p99 that is over is needed.
TROUBLES = {"listen_overflow": Trouble("health", "http", float(TROUBLE), "timeout", "no connection within 400 ms")}
FULL = {
    **level(c.FILES, 10, 1000),
    **level(c.FILES_LIMIT, 1000, 1000),
}
# By rule: what makes it hold, what is a little less than that, and its sentence.
CASES: dict[str, tuple[Columns, Columns, str]] = {
    "files_exhausted": (
        FULL,
        {**FULL, **level(c.FILES, 10, 979)},
        "file descriptors used up: 100 % of 1000, before 1 %, since t98; latency followed 2 s later",
    ),
    "stopped": (
        total(c.STOPPED, 0, 0.02),
        total(c.STOPPED, 0, 0.009),
        "the process stood still for 280 ms (SIGSTOP, a debugger, a freeze), before 0/s, since t98; "
        "latency followed 2 s later",
    ),
    "listen_overflow": (
        total(c.OVERFLOWS, 0, 2),
        total(c.OVERFLOWS, 0, 0.14),
        "a listen queue is full: 28 connections refused, before 0/s, since t98; health followed 2 s later",
    ),
    "cpu_throttled": (
        {
            **total(c.THROTTLED, 0.02, 0.34),
            **total(c.PERIODS, 10, 10),
            **total(c.THROTTLED_PERIODS, 0, 4),
            **level(c.CPU_LIMIT, 4, 4),
        },
        total(c.THROTTLED, 0.2, 0.34),
        "CPU throttled 56 of 140 periods (limit 4 CPUs), before 20 ms/s, since t98; latency followed 2 s later",
    ),
    "memory_limit": (
        {
            **total(c.LIMIT_HITS, 0, 300),
            **level(c.MEMORY, 1 << 20, 60 << 20),
            **level(c.MEMORY_LIMIT, 1 << 30, 64 << 20),
        },
        total(c.LIMIT_HITS, 0, 0.9),
        "memory at its limit (60 MiB of 64 MiB), reclaimed 300 times a second, before 0/s, since t98; "
        "latency followed 2 s later",
    ),
    "run_queue": (
        {
            **total(c.RUN_QUEUE, 0.001, 0.4, "feed"),
            **total(c.RUN_QUEUE, 0.001, 0.1, "log"),
            **total(c.CORES_BUSY, 0.4, 1, "3"),
        },
        total(c.RUN_QUEUE, 0.21, 0.4, "feed"),
        "thread feed waited 400 ms of each second for a CPU; core 3 is 100 % busy, before 1 ms/s, since t98; "
        "latency followed 2 s later",
    ),
    "cpu_stolen": (
        {**total(c.STOLEN, 0, 1), **level(c.CORES, 4, 4)},
        {**total(c.STOLEN, 0, 0.039), **level(c.CORES, 4, 4)},
        "the hypervisor took 25 % of its cores' time, before 0/s, since t98; latency followed 2 s later",
    ),
    "swapped": (
        level(c.SWAP, 0, 8 << 20),
        level(c.SWAP, 0, (1 << 20) - 1),
        "8 MiB more of its memory is swapped out, before 0 B, since t98; latency followed 2 s later",
    ),
    "major_faults": (
        total(c.FAULTS, 3, 512, "major"),
        total(c.FAULTS, 0, 512, "minor"),
        "512 major page faults a second: it waits for pages from the disk, before 3/s, since t98; "
        "latency followed 2 s later",
    ),
    "memory_near_limit": (
        {**level(c.MEMORY, 10 << 20, 62 << 20), **level(c.MEMORY_LIMIT, 64 << 20, 64 << 20)},
        {**level(c.MEMORY, 10 << 20, 60 << 20), **level(c.MEMORY_LIMIT, 64 << 20, 64 << 20)},
        "memory is at 96.9 % of 64 MiB, before 15.6 %, since t98; latency followed 2 s later",
    ),
    "memory_pressure": (
        total(c.PRESSURE, 0, 0.1, "memory", "some", "cgroup"),
        total(c.PRESSURE, 0, 0.1, "memory", "some", "host"),
        "its tasks waited 100 ms of each second for memory, before 0/s, since t98; latency followed 2 s later",
    ),
    "io_pressure": (
        total(c.PRESSURE, 0, 0.1, "io", "some", "cgroup"),
        total(c.PRESSURE, 0, 0.1, "io", "some", "host"),
        "its tasks waited 100 ms of each second for a disk, before 0/s, since t98; latency followed 2 s later",
    ),
    "cpu_pressure": (
        total(c.PRESSURE, 0, 0.1, "cpu", "some", "cgroup"),
        total(c.PRESSURE, 0, 0.1, "cpu", "some", "host"),
        "its tasks waited 100 ms of each second for a CPU, before 0/s, since t98; latency followed 2 s later",
    ),
    "retransmits": (
        total(c.RETRANSMITS, 0, 5),
        total(c.RETRANSMITS, 3, 5),
        "5 TCP segments a second were sent again, before 0/s, since t98; latency followed 2 s later",
    ),
    "network_drops": (
        total(c.DROPS, 0, 5, "eth1", "receive"),
        total(c.DROPS, 0, 0.9, "eth1", "receive"),
        "eth1 dropped 5 packets a second, before 0/s, since t98; latency followed 2 s later",
    ),
    "thread_busy": (
        total(c.THREAD_CPU, 0.3, 0.99, "feed"),
        total(c.THREAD_CPU, 0.99, 0.99, "feed"),
        "thread feed uses 99 % of a core, before 300 ms/s, since t98; latency followed 2 s later",
    ),
    "preempted": (
        total(c.SWITCHES, 10, 2000, "feed", "involuntary"),
        total(c.SWITCHES, 10, 2000, "feed", "voluntary"),
        "thread feed was taken off its CPU 2000 times a second, before 10/s, since t98; latency followed 2 s later",
    ),
    "migrations": (
        total(c.MIGRATIONS, 10, 600, "feed"),
        total(c.MIGRATIONS, 10, 499, "feed"),
        "thread feed moved to another CPU 600 times a second, before 10/s, since t98; latency followed 2 s later",
    ),
}
FACTS = {
    "oom_killed": (c.OOM_KILLS, 1.0, 0.0),
    "process_ended": (c.PROCESSES, 0.0, 1.0),
}


def test_each_rule_has_its_case() -> None:
    assert {rule.word for rule in RULES} == {*CASES, *FACTS}


def test_what_a_rule_explains_is_a_rule() -> None:
    assert {word for rule in RULES for word in rule.explains} <= {rule.word for rule in RULES}


@pytest.mark.parametrize("word", CASES)
def test_a_cause_is_named_where_its_counter_changed(word: str) -> None:
    columns, _, sentence = CASES[word]
    explanation = told(columns, TROUBLES.get(word, LATENCY))
    assert [(cause.rule, cause.sentence) for cause in explanation.causes] == [(word, sentence)]
    assert explanation.sentence == f"likely cause: {sentence}"


@pytest.mark.parametrize("word", CASES)
def test_a_little_less_is_no_cause(word: str) -> None:
    explanation = told(CASES[word][1], TROUBLES.get(word, LATENCY))
    assert explanation.causes == ()
    assert explanation.sentence == (
        "no cause found: nothing that the kernel counts of the engine changed, so look into the engine itself"
    )


@pytest.mark.parametrize("word", CASES)
def test_as_it_was_in_the_healthy_time_is_no_cause(word: str) -> None:
    """The same readings, but as bad all the time."""
    columns = {
        series: (times, [values[-1] - (values[-1] - values[-2]) * (times[-1] - at) for at in times])
        for series, (times, values) in CASES[word][0].items()
    }
    assert told(columns, TROUBLES.get(word, LATENCY)).causes == ()


@pytest.mark.parametrize(("word", "reason"), [("oom_killed", "oom_killed"), ("process_ended", "no_process")])
def test_what_a_probe_knows_for_good_is_a_cause_by_itself(word: str, reason: str) -> None:
    metric, now, before = FACTS[word]
    columns = {**total(c.RUN_QUEUE, 0.001, 0.9, "feed"), (metric, ()): ([], [])}
    first, *_ = told(columns, *of_reason(reason)).causes
    figure = Figure("processes" if now == 0 else "OOM kills", now, "", before, f"/proc/{metric[16:]}")
    assert first.replace(figures=first.figures[:1]) == Cause(word, f"it ended ({reason})", 100.0, (figure,)) or (
        word == "oom_killed" and first.sentence.startswith(f"it ended ({reason}); run-queue delay")
    )


def test_a_full_listen_queue_of_others_explains_no_p99() -> None:
    assert told(CASES["listen_overflow"][0]).causes == ()


@pytest.mark.parametrize(("since", "rules"), [(95.9, []), (96.1, ["run_queue"])])
def test_what_began_after_the_trouble_is_not_its_cause(since: float, rules: list[str]) -> None:
    trouble = LATENCY.replace(since=since)  # the run queue fills from 98 on, readings are a second apart
    explanation = told(CASES["run_queue"][0], trouble, healthy=(0.0, 90.0))
    assert [cause.rule for cause in explanation.causes] == rules


def test_no_reason_is_no_end() -> None:
    assert told({}, *of_reason("http_status")).causes == ()


def test_the_dearer_cause_is_first() -> None:
    columns = {**total(c.RUN_QUEUE, 0, 0.05, "feed"), **total(c.FAULTS, 0, 400, "major")}
    assert [cause.rule for cause in told(columns).causes] == ["major_faults", "run_queue"]
    columns = {**total(c.RUN_QUEUE, 0, 0.5, "feed"), **total(c.FAULTS, 0, 400, "major")}
    assert [cause.rule for cause in told(columns).causes] == ["run_queue", "major_faults"]


def test_a_consequence_is_told_with_its_cause_and_not_beside_it() -> None:
    columns = {
        **CASES["cpu_throttled"][0],
        **total(c.RUN_QUEUE, 0.0002, 0.041, "feed"),
        **total(c.SWITCHES, 10, 2000, "feed", "involuntary"),
        **total(c.MIGRATIONS, 10, 600, "feed"),
    }
    (cause,) = told(columns).causes
    assert cause.sentence == (
        "CPU throttled 56 of 140 periods (limit 4 CPUs), before 20 ms/s, since t98; run-queue delay 41 ms/s, "
        "before 200 µs/s; involuntary switches 2000/s, before 10/s; latency followed 2 s later"
    )
    assert [(figure.name, round(figure.value, 9), figure.unit, figure.source) for figure in cause.figures] == [
        ("throttled", 0.34, "s/s", "/proc/cpu_throttled_seconds"),
        ("run-queue delay", 0.041, "s/s", "/proc/run_queue_seconds"),
        ("involuntary switches", 2000.0, "/s", "/proc/context_switches"),
        ("migrations", 600.0, "/s", "/proc/migrations"),
    ]


def test_a_short_stop_is_not_thinned_out_by_a_long_trouble() -> None:
    times = [float(at) for at in range(500)]
    columns = {(c.STOPPED, ()): (times, [0.3 if at >= 100 else 0.0 for at in times])}
    explanation = explain(columns, (LATENCY,), HEALTHY, 499.0, clock, {})
    assert [cause.rule for cause in explanation.causes] == ["stopped"]
    assert "stood still for 300 ms" in explanation.sentence


def test_an_outlier_before_is_not_taken_for_health() -> None:
    """What happened once in the healthy time, and harmed nobody, explains nothing."""
    times = [float(at) for at in range(NOW + 1)]
    columns = {(c.RUN_QUEUE, ("feed",)): (times, [0.4 * (at > 50) + 0.4 * (at > 99) for at in times])}
    assert told(columns).causes == ()


@pytest.mark.parametrize("word", ["stopped", "cpu_throttled", "listen_overflow", "memory_limit"])
def test_time_that_was_lost_counts_without_a_healthy_time(word: str) -> None:
    explanation = told(CASES[word][0], TROUBLES.get(word, LATENCY), healthy=(95.0, 95.0))
    assert explanation.causes[0].rule == word
    assert explanation.causes[0].figures[0].before is None
    assert ", before" not in explanation.causes[0].sentence


@pytest.mark.parametrize("word", ["run_queue", "major_faults", "preempted", "swapped", "thread_busy"])
def test_what_is_only_more_than_before_needs_a_before(word: str) -> None:
    explanation = told(CASES[word][0], healthy=(95.0, 95.0))
    assert explanation.causes == ()
    assert explanation.sentence == "no cause found: there is no healthy time before to compare with"


def test_without_readings_it_says_so() -> None:
    assert told({}).sentence == "no cause found: the kernel's counters of the engine's process were not read"


def test_a_gap_is_not_a_zero() -> None:
    times = [float(at) for at in range(NOW + 1)]
    values = [NAN if at % 3 == 0 else 100.0 + 0.001 * at for at in times]
    assert told({(c.RUN_QUEUE, ("feed",)): (times, values)}).causes == ()


def test_a_thread_that_began_in_the_trouble_was_nothing_before() -> None:
    late = [float(at) for at in range(99, NOW + 1)]
    columns = {
        **total(c.RUN_QUEUE, 0, 0, "feed"),
        (c.RUN_QUEUE, ("new",)): (late, [0.2 * (at - 99) for at in late]),
    }
    (cause,) = told(columns).causes
    assert (cause.rule, cause.figures[0].before) == ("run_queue", 0.0)
    assert cause.sentence.startswith("thread new waited 200 ms of each second")


def test_a_rate_is_of_the_worst_seconds_and_since_is_when_it_began() -> None:
    moved = Sight(total("m", 1, 5), (), HEALTHY, 95.0, 112.0).rate("m", least=2)
    assert moved is not None
    assert (moved.now, moved.before, moved.since, moved.amount) == (5.0, 1.0, 98.0, 70.0)
