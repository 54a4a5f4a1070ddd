"""The process probe: from what was found to an observation and to what it remembers."""

from __future__ import annotations

import pytest

from sentinel.model import Answer, CountOomKills, Failure, FindProcesses, LearnEnd, Observation, Process, Reading
from sentinel.probes import process
from sentinel.probes.process import Seen, Settings
from sentinel.proc import Who

SETTINGS = Settings(Who("engine"))


def one(pid: int = 7, start_ticks: int = 100, started_at: float = 40.0, name: str = "engine") -> Process:
    return Process(pid, start_ticks, started_at, 1_700_000_000.0 + started_at, name, 4096, 1)


def answer(*found: Process, at: float = 100.0) -> Answer:
    return Answer(at, 0.002, found)


def learned(status: int | None = None) -> Answer:
    return Answer(100.0, 0.0, status)


def kills(count: int | None = None) -> Answer:
    return Answer(100.0, 0.0, count)


def play(*answers: Answer) -> tuple[list[Observation], list[Seen | None]]:
    """What is observed and remembered after each answer."""
    memory = None
    observations, memories = [], []
    for given in answers:
        observation, memory = process.read(SETTINGS, (given, kills(), learned()), memory)
        observations.append(observation)
        memories.append(memory)
    return observations, memories


def published(observation: Observation) -> dict[str, float]:
    return {
        reading.metric.removeprefix("sentinel_engine_"): reading.value
        for reading in observation.readings
        if reading.labels == ()
    }


def test_it_asks_for_the_processes_and_for_those_that_the_kernel_killed() -> None:
    assert process.asks(SETTINGS) == (FindProcesses("engine"), CountOomKills("engine"), LearnEnd("engine"))


# --- one answer -------------------------------------------------------------------------------------------------------


def test_one_process_is_a_pass() -> None:
    observation, memory = process.read(SETTINGS, (answer(one()), kills(), learned()), None)
    assert observation == Observation(
        100.0,
        0.002,
        True,
        "engine runs as pid 7, up 60 s",
        readings=(
            Reading("sentinel_engine_processes", 1),
            Reading("sentinel_engine_start_time_seconds", 1_700_000_040.0),
            Reading("sentinel_engine_restarts", 0),
            Reading("sentinel_engine_oom_kills", 0),
        ),
        began_at=40.0,
        details=(("pids", [7]),),
    )
    assert memory == Seen(7, 100)


def test_of_several_the_oldest_is_the_engine() -> None:
    found = (one(9, 100, 40.0), one(7, 200, 41.0), one(8, 300, 42.0))
    observation, memory = process.read(SETTINGS, (answer(*found), kills(), learned()), None)
    assert observation == Observation(
        100.0,
        0.002,
        True,
        "3 processes named 'engine', the oldest pid 9, up 60 s",
        readings=(
            Reading("sentinel_engine_processes", 3),
            Reading("sentinel_engine_start_time_seconds", 1_700_000_040.0),
            Reading("sentinel_engine_restarts", 0),
            Reading("sentinel_engine_oom_kills", 0),
        ),
        began_at=40.0,
        details=(("pids", [9, 7, 8]),),
    )
    assert memory == Seen(9, 100)


def test_none_that_ever_came_fails_and_may_yet_come() -> None:
    observation, memory = process.read(SETTINGS, (answer(), kills(), learned()), None)
    assert observation == Observation(
        100.0,
        0.002,
        False,
        "no process named 'engine'",
        "no_process",
        readings=(Reading("sentinel_engine_processes", 0),),
    )
    assert memory is None


def test_one_that_ended_is_believed_at_once() -> None:
    observation, memory = process.read(SETTINGS, (answer(), kills(), learned()), Seen(7, 100, 3))
    assert observation == Observation(
        100.0,
        0.002,
        False,
        "no process named 'engine', pid 7 ended",
        "no_process",
        readings=(
            Reading("sentinel_engine_processes", 0),
            Reading("sentinel_engine_restarts", 3),
            Reading("sentinel_engine_oom_kills", 0),
        ),
        conclusive=True,
    )
    assert memory == Seen(7, 100, 3, gone_at=100.0)


@pytest.mark.parametrize("memory", [None, Seen(7, 100, 3, 90.0, 5.0)], ids=["at first", "later"])
def test_an_answer_that_failed_is_a_failure_that_changes_nothing(memory: Seen | None) -> None:
    failed = Answer(100.0, 0.002, failure=Failure("no_access", "cannot read /proc: Permission denied"))
    assert process.read(SETTINGS, (failed, kills(), learned()), memory) == (
        Observation(100.0, 0.002, False, "cannot read /proc: Permission denied", "no_access"),
        memory,
    )


@pytest.mark.parametrize(
    ("name", "started_at", "sentence"),
    [
        pytest.param("engine", 99.5, "engine runs as pid 7, up 500 ms", id="new"),
        pytest.param("engine", 100.004, "engine runs as pid 7, up 0 ns", id="a tick ahead is not less than nothing"),
        pytest.param("engine", -7500.0, "engine runs as pid 7, up 2 h 7 min", id="older than the clock"),
        pytest.param("a b", 40.0, "a b runs as pid 7, up 60 s", id="a name with a space"),
    ],
)
def test_the_sentence_says_how_long_it_runs(name: str, started_at: float, sentence: str) -> None:
    observation, _ = process.read(
        Settings(Who(name)), (answer(one(started_at=started_at, name=name)), kills(), learned()), None
    )
    assert (observation.sentence, observation.began_at) == (sentence, started_at)


def test_the_name_that_is_missed_is_quoted() -> None:
    observation, _ = process.read(Settings(Who("a b ")), (answer(), kills(), learned()), None)
    assert observation.sentence == "no process named 'a b '"


# --- one after the other ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "restarts"),
    [
        pytest.param([answer(one())] * 3, [0, 0, 0], id="the same process is none"),
        pytest.param([answer(one()), answer(one(8, 200))], [0, 1], id="another one that nobody missed is one"),
        pytest.param([answer(one()), answer(one(7, 200))], [0, 1], id="the same pid with another start is one"),
        pytest.param([answer(one()), answer(one(8, 100))], [0, 1], id="another pid of the same moment is one"),
        pytest.param([answer(one()), answer(), answer(one(8, 200))], [0, 0, 1], id="gone in between is one"),
        pytest.param([answer(one()), answer(), answer(one())], [0, 0, 0], id="the same again is none"),
        pytest.param([answer(), answer(one())], [None, 0], id="the first that comes is none"),
        pytest.param(
            [answer(one()), answer(), answer(), answer(one(8, 200)), answer(one(9, 300))],
            [0, 0, 0, 1, 2],
            id="each is counted",
        ),
        pytest.param(
            [answer(one()), answer(one(), one(8, 200)), answer(one())], [0, 0, 0], id="a younger beside it is none"
        ),
        pytest.param(
            [answer(one(), one(8, 200)), answer(one(8, 200))], [0, 1], id="a younger in its place, as it ended, is one"
        ),
        pytest.param(
            [
                answer(one()),
                Answer(100.0, 0.0, failure=Failure("no_access", "cannot")),
                answer(one(8, 200)),
            ],
            [0, None, 1],
            id="an answer that failed in between hides none",
        ),
    ],
)
def test_restarts_are_counted(answers: list[Answer], restarts: list[int | None]) -> None:
    observations, _ = play(*answers)
    assert [published(observation).get("restarts") for observation in observations] == restarts


@pytest.mark.parametrize(
    ("counts", "reason", "end"),
    [
        pytest.param([0, 1], "oom_killed", "pid 7 ended: killed by the kernel for lack of memory", id="it rose"),
        pytest.param([3, 3], "no_process", "pid 7 ended", id="one before it is not this one"),
        pytest.param([3, 3, 4], "no_process", "pid 7 ended", id="one after it is not this one"),
        pytest.param([0, 1, 1], "oom_killed", "pid 7 ended: killed by the kernel for lack of memory", id="it stays so"),
        pytest.param([None, 1], "no_process", "pid 7 ended", id="not known before"),
        pytest.param([1, None], "no_process", "pid 7 ended", id="not known after"),
    ],
)
def test_a_kill_for_lack_of_memory_is_told_by_the_kernel_s_count(
    counts: list[int | None], reason: str, end: str
) -> None:
    observation, memory = process.read(SETTINGS, (answer(one()), kills(counts[0]), learned()), None)
    for count in counts[1:]:
        observation, memory = process.read(SETTINGS, (answer(), kills(count), learned()), memory)
    assert (observation.reason, observation.sentence) == (reason, f"no process named 'engine', {end}")
    assert published(observation)["oom_kills"] == (reason == "oom_killed")


def test_a_process_that_is_being_killed_is_still_there_for_a_while() -> None:
    """On a loaded machine one of a few kills was seen so: counted already, and the process not yet gone."""
    reasons = []
    for looks in ([0, 1, None], [0, 1, 1, None]):
        memory = None
        for count in looks:
            found = answer() if count is None else answer(one())
            counted = kills(1 if count is None else count)
            observation, memory = process.read(SETTINGS, (found, counted, learned()), memory)
        reasons.append(observation.reason)
    assert reasons == ["oom_killed", "no_process"], "one that lived on was not what was killed"


def test_the_next_end_is_looked_at_anew() -> None:
    memory = None
    for found, count in (([one()], 0), ([], 1), ([one(8, 200)], 1)):
        _, memory = process.read(SETTINGS, (answer(*found), kills(count), learned()), memory)
    observation, _ = process.read(SETTINGS, (answer(), kills(1), learned()), memory)
    assert observation.reason == "no_process"
    assert published(observation)["oom_kills"] == 1


@pytest.mark.parametrize(
    ("answers", "down_s"),
    [
        pytest.param([answer(one())], None, id="not known at first"),
        pytest.param([answer(one()), answer(one(8, 200, 50.0))], 0.0, id="nothing where nobody missed it"),
        pytest.param(
            [answer(one(), at=100.0), answer(at=101.0), answer(one(8, 200, 103.5), at=104.0)],
            2.5,
            id="from the first miss to the next start",
        ),
        pytest.param(
            [answer(one(), at=100.0), answer(at=101.0), answer(at=102.0), answer(one(8, 200, 103.5), at=104.0)],
            2.5,
            id="the second miss does not count anew",
        ),
        pytest.param(
            [answer(one(), at=100.0), answer(at=101.0), answer(one(8, 200, 100.99), at=104.0)],
            0.0,
            id="never less than nothing",
        ),
        pytest.param(
            [answer(one(), at=100.0), answer(at=101.0), answer(one(), at=102.0), answer(one(8, 200, 110.0), at=111.0)],
            0.0,
            id="a miss that was none is forgotten",
        ),
        pytest.param(
            [
                answer(one(), at=100.0),
                answer(at=101.0),
                answer(one(8, 200, 103.0), at=104.0),
                answer(one(8, 200, 103.0), at=105.0),
            ],
            2.0,
            id="it stays until the next restart",
        ),
    ],
)
def test_how_long_it_was_down(answers: list[Answer], down_s: float | None) -> None:
    observations, _ = play(*answers)
    assert published(observations[-1]).get("down_seconds") == down_s


def test_a_restart_is_remembered_whole() -> None:
    _, memories = play(answer(one()), answer(at=101.0), answer(at=102.0), answer(one(8, 200, 103.5), at=104.0))
    assert memories == [Seen(7, 100), Seen(7, 100, 0, 101.0), Seen(7, 100, 0, 101.0), Seen(8, 200, 1, None, 2.5)]


def test_all_that_is_published_is_declared() -> None:
    observations, _ = play(answer(one()), answer(), answer(one(8, 200)))
    declared = [metric.name for metric in process.METRICS]
    assert [reading.metric for reading in observations[-1].readings] == declared
    assert all(metric.labels == () for metric in process.METRICS)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["engine", "a b", ") (", "trading-engine-simulator", "µ", "-x", "a\nb"])
def test_a_name_may_be_anything_that_the_kernel_takes(text: str) -> None:
    assert Who.parse(text) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine", "named 'engine'"),
        ("a:b", "named 'a:b'"),
        ("pid-file:/run/engine.pid", "of pid file /run/engine.pid"),
        ("cgroup:/docker/abc", "in control group /docker/abc"),
        ("cgroup:engine.service", "in control group engine.service"),
        ("port:8080", "serving port 8080"),
    ],
)
def test_an_engine_is_found_by_name_or_otherwise(text: str, said: str) -> None:
    assert Who.parse(text).said() == said


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "/usr/bin/engine",
        "a\0b",
        "port:",
        "port:0",
        "port:65536",
        "port:http",
        "pid-file:engine.pid",
        "cgroup:/",
    ],
)
def test_what_can_be_no_engine_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^.*$") as caught:
        Who.parse(text)
    assert str(caught.value) == (
        f"{text!r}: want the name of a process, such as trading-engine, "
        "or pid-file:/run/engine.pid, cgroup:engine.service, port:8080"
    )


@pytest.mark.parametrize(
    ("status", "end"),
    [
        pytest.param(None, "", id="not known"),
        pytest.param(0, ": exit status 0", id="it left by itself"),
        pytest.param(1 << 8, ": exit status 1", id="an error"),
        pytest.param(9, ": killed by SIGKILL", id="kill -9"),
        pytest.param(11 | 0x80, ": killed by SIGSEGV, core dumped", id="a crash"),
        pytest.param(64, ": killed by SIGRTMAX", id="a real-time signal"),
        pytest.param(40, ": killed by signal 40", id="one without a name"),
    ],
)
def test_how_it_ended_is_told_where_the_kernel_does(status: int | None, end: str) -> None:
    seen, memory = process.read(SETTINGS, (answer(), kills(), learned(status)), Seen(7, 100))
    assert seen.sentence == f"no process named 'engine', pid 7 ended{end}"
    seen, _ = process.read(SETTINGS, (answer(), kills(), learned()), memory)
    assert seen.sentence == f"no process named 'engine', pid 7 ended{end}"


def test_the_kernel_s_kill_for_lack_of_memory_says_more_than_its_signal() -> None:
    seen, _ = process.read(SETTINGS, (answer(), kills(1), learned(9)), Seen(7, 100, oom_kills=0))
    assert seen.sentence == "no process named 'engine', pid 7 ended: killed by the kernel for lack of memory"
