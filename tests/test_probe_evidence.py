"""Kind `evidence`: totals that only rise, whatever comes and goes, and never a failure."""

from __future__ import annotations

import pytest

from sentinel.model import Answer, Counted, Counters, Failure, Missing, Observation, ReadCounters, Reading
from sentinel.probes import evidence
from sentinel.proc import Who

SETTINGS = evidence.Settings(Who("engine"))
FAULTS = ("sentinel_engine_page_faults", ("major",))


def process(pid: int, faults: float) -> Counted:
    return Counted(("process", pid, 1), {FAULTS: faults})


def thread(tid: str, name: str, seconds: float) -> Counted:
    series = {
        ("sentinel_engine_thread_cpu_seconds", (name,)): seconds,
        ("sentinel_engine_context_switches", (name, "voluntary")): 10 * seconds,
    }
    return Counted(("thread", 7, tid), series)


def play(*looks: list[Counted]) -> dict[tuple[str, tuple[str, ...]], float]:
    """The totals after these looks."""
    memory = None
    for counted in looks:
        memory = evidence.added(Counters(tuple(counted), {}, {}, ()), memory)
    assert memory is not None
    return dict(memory.totals)


def test_it_asks_for_the_counters_of_the_engine_s_processes() -> None:
    assert evidence.asks(SETTINGS) == (ReadCounters("engine"),)


def test_totals_levels_and_what_is_missing_are_told() -> None:
    missing = Missing("open files", "/proc/7/fd: permission denied", "run as the engine's user")
    levels = {("sentinel_engine_threads", ()): 3.0}
    sources = {"sentinel_engine_threads": "/proc/7/stat"}
    answer = Answer(5.0, 0.002, Counters((process(7, 4.0),), levels, sources, (missing,)))
    observation, memory = evidence.read(SETTINGS, (answer,), None)
    assert observation == Observation(
        5.0,
        0.002,
        True,
        "2 of the kernel's counters of processes named 'engine'; 1 cannot be read",
        readings=(
            Reading("sentinel_engine_page_faults", 0.0, ("major",)),
            Reading("sentinel_engine_threads", 3.0),
        ),
        details=(("sources", sources), ("unreadable", missing)),
    )
    assert memory == evidence.Sums({FAULTS: 0.0}, {("process", 7, 1): {FAULTS: 4.0}})


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        pytest.param(
            Answer(5.0, 0.0, failure=Failure("no_process", "no process named 'engine'")),
            "nothing to look at: no process named 'engine'",
            id="no process",
        ),
        pytest.param(Answer(5.0, 0.0), "looked at over time, by the daemon", id="a one-shot check"),
    ],
)
def test_without_counters_it_passes_all_the_same(answer: Answer, sentence: str) -> None:
    memory = evidence.Sums({FAULTS: 1.0}, {})
    assert evidence.read(SETTINGS, (answer,), memory) == (Observation(5.0, 0.0, True, sentence), memory)


@pytest.mark.parametrize(
    ("looks", "faults"),
    [
        pytest.param([[process(7, 100.0)]], 0.0, id="the first look is where counting begins"),
        pytest.param([[process(7, 100.0)], [process(7, 130.0)]], 30.0, id="the difference"),
        pytest.param([[process(7, 100.0)], [], [process(8, 5.0)]], 5.0, id="a restart counts from nothing"),
        pytest.param([[process(7, 100.0)], [process(7, 3.0)]], 3.0, id="less is another one"),
        pytest.param([[process(7, 9.0), process(8, 9.0)], [process(8, 10.0)]], 1.0, id="one of two ended"),
        pytest.param([[process(7, 9.0)], [process(7, 9.0), process(8, 2.0)]], 2.0, id="a second one began"),
    ],
)
def test_totals_only_rise(looks: list[list[Counted]], faults: float) -> None:
    assert play(*looks)[FAULTS] == faults


@pytest.mark.parametrize("what", ["cores", "cpu", "memory", "pressure", "network"])
def test_what_was_there_for_others_adds_nothing_when_the_engine_comes_to_it(what: str) -> None:
    """Another core, a new container's group, or the network that a restarted engine is in: they counted long before."""
    looks = [[Counted((what, name), {FAULTS: total})] for name, total in (("a", 9.0), ("b", 5000.0), ("b", 5002.0))]
    assert play(*looks)[FAULTS] == 2.0


def test_threads_are_counted_by_name() -> None:
    totals = play(
        [thread("1", "feed", 1.0), thread("2", "feed", 5.0), thread("3", "orders", 1.0)],
        [thread("1", "feed", 1.5), thread("2", "feed", 5.25), thread("3", "orders", 1.0)],
    )
    assert totals["sentinel_engine_thread_cpu_seconds", ("feed",)] == 0.75
    assert totals["sentinel_engine_context_switches", ("feed", "voluntary")] == 7.5
    assert totals["sentinel_engine_thread_cpu_seconds", ("orders",)] == 0.0


def test_an_engine_that_names_each_thread_anew_makes_no_series_of_each() -> None:
    looks = [[thread(str(number), f"worker-{number}", 1.0)] for number in range(200)]
    totals = play([], *looks)
    names = [labels[0] for metric, labels in totals if metric == "sentinel_engine_thread_cpu_seconds"]
    assert len(names) == 65
    assert totals["sentinel_engine_thread_cpu_seconds", ("other",)] == 136.0
    assert totals["sentinel_engine_context_switches", ("other", "voluntary")] == 1360.0
