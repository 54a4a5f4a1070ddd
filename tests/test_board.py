"""The board, by histories: a letter an answer, a letter the state after it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel.board import EngineRecord, changes, fresh, serving, settle, step
from sentinel.model import EngineSpec, Observation, Policy, ProbeSpec

# P pass, F fail, N no verdict; a capital of the state: Healthy, Degraded, Unhealthy, Starting, ? unknown
_OK = {"P": True, "F": False, "N": None}
_LETTER = {"healthy": "H", "degraded": "D", "unhealthy": "U", "starting": "S", "unknown": "?"}


def spec(*probes: ProbeSpec, start_period_s: float = 0.0) -> EngineSpec:
    return EngineSpec("engine", probes or (probe(),), start_period_s)


def probe(name: str = "health", **policy: object) -> ProbeSpec:
    return ProbeSpec(name, "http", None, Policy(**policy))


def seen(letter: str, at: float, began_at: float | None = None) -> Observation:
    reason = "timeout" if letter == "F" else ""
    return Observation(at, 0.001, _OK[letter], f"said {letter}", reason, began_at=began_at)


def play(engine: EngineSpec, history: str, name: str = "health", began_at: float | None = None) -> str:
    """The states after each answer, one a second."""
    record = fresh(engine, 0.0)
    states = ""
    for at, letter in enumerate(history):
        record = step(engine, record, name, seen(letter, at, began_at), at)
        states += _LETTER[record.state]
    return states


@pytest.mark.parametrize(
    ("history", "states"),
    [
        pytest.param("P", "H", id="the first answer settles at once, good"),
        pytest.param("F", "U", id="the first answer settles at once, bad"),
        pytest.param("N", "?", id="the first answer settles at once, without a verdict"),
        pytest.param("PFFF", "HHHU", id="three failures in a row make it unhealthy"),
        pytest.param("PFFPFF", "HHHHHH", id="a pass in between starts the count anew"),
        pytest.param("PFFFPP", "HHHUUH", id="two passes in a row bring it back"),
        pytest.param("PFFFPFPP", "HHHUUUUH", id="a failure in between starts the count of passes anew"),
        pytest.param("PFNF", "HHHU", id="an answer without a verdict counts on the bad side"),
        pytest.param("PNNN", "HHH?", id="three answers without a verdict are unknown"),
        pytest.param("PNNF", "HHHU", id="the last of three bad answers says how bad"),
        pytest.param("FNN", "UUU", id="two blanks do not hide a failure"),
        pytest.param("FNNN", "UUU?", id="three blanks in a row are unknown"),
        pytest.param("FNNFNN", "UUUUUU", id="a failure in between starts the count of blanks anew"),
        pytest.param("NF", "?U", id="unknown turns bad at once: it was not good before"),
    ],
)
def test_history(history: str, states: str) -> None:
    assert play(spec(probe(fall=3, rise=2)), history) == states


@pytest.mark.parametrize(
    ("history", "since"),
    [
        pytest.param("PP", None, id="good answers"),
        pytest.param("PPF", 2.0, id="the first that is not good, before it is believed"),
        pytest.param("PPNFFF", 2.0, id="one without a verdict too"),
        pytest.param("PFP", None, id="a good one ends what was not believed"),
        pytest.param("PFFFP", 1.0, id="one good answer does not end what was believed"),
        pytest.param("PFFFPF", 1.0, id="and bad again it is the same trouble"),
        pytest.param("PFFFPP", None, id="settled as good again"),
    ],
)
def test_when_a_trouble_began(history: str, since: float | None) -> None:
    engine = spec(probe(fall=3, rise=2))
    record = fresh(engine, 0.0)
    for at, letter in enumerate(history):
        record = step(engine, record, "health", seen(letter, at), at)
    assert record.probes["health"].missed_since == since


@pytest.mark.parametrize(
    ("history", "states"),
    [
        pytest.param(
            "FFFFFF", "SSSSSU", id="failures inside the start period do not count, the first after it settles"
        ),
        pytest.param("FFPFFF", "SSHHHU", id="a pass ends the start period, as in Docker"),
        pytest.param("NNNNNN", "SSSSS?", id="blanks do not count either"),
    ],
)
def test_history_of_a_starting_engine(history: str, states: str) -> None:
    assert play(spec(probe(fall=3), start_period_s=5.0), history) == states


def test_an_engine_that_began_long_ago_has_no_start_period() -> None:
    assert play(spec(start_period_s=30.0), "F", began_at=-100.0) == "U"


def test_a_restart_settles_anew_and_has_its_start_period() -> None:
    engine = spec(probe("process"), probe("health"), start_period_s=10.0)
    record = fresh(engine, 0.0)
    for name in ("process", "health"):
        record = step(engine, record, name, seen("P", 0.0, -50.0 if name == "process" else None), 0.0)
    assert record.state == "healthy"
    record = step(engine, record, "process", seen("P", 5.0, 4.5), 5.0)
    assert (record.state, record.probes["health"].state) == ("starting", "unknown")
    record = step(engine, record, "health", seen("F", 5.0), 5.0)
    assert record.state == "starting"
    record = step(engine, record, "health", seen("P", 5.1), 5.1)
    assert record.state == "healthy"


def test_an_engine_that_began_long_ago_is_starting_until_its_probes_could_have_answered() -> None:
    engine = spec(probe("process"), probe("health", interval_s=1.0, timeout_s=0.5), start_period_s=30.0)
    record = step(engine, fresh(engine, 0.0), "process", seen("P", 0.0, -500.0), 0.0)
    assert record.state == "starting"
    record = step(engine, record, "process", seen("P", 2.6, -500.0), 2.6)
    assert (record.state, record.why) == ("unknown", ("health: no answer yet",))


def test_the_same_start_read_twice_is_no_restart() -> None:
    """Clock ticks and two clocks leave some jitter; a suspended machine moves the start back."""
    engine = spec(probe(fall=1))
    record = fresh(engine, 0.0)
    for at, began_at in ((0.0, -50.0), (1.0, -49.99), (2.0, -60.0)):
        record = step(engine, record, "health", seen("P", at, began_at), at)
    assert (record.began_at, record.state) == (-50.0, "healthy")


@pytest.mark.parametrize(
    ("letters", "state"),
    [
        pytest.param("PP", "healthy", id="all pass"),
        pytest.param("FP", "unhealthy", id="a critical failure"),
        pytest.param("PF", "degraded", id="a warning failure"),
        pytest.param("FF", "unhealthy", id="the worst counts"),
        pytest.param("NP", "unknown", id="a critical one without a verdict"),
        pytest.param("PN", "degraded", id="a warning one without a verdict is not health either"),
    ],
)
def test_worst_of_its_probes_is_the_engine(letters: str, state: str) -> None:
    engine = spec(probe("critical"), probe("warning", severity="warning"))
    record = fresh(engine, 0.0)
    for name, letter in zip(("critical", "warning"), letters, strict=True):
        record = step(engine, record, name, seen(letter, 0.0), 0.0)
    assert record.state == state


def test_no_probes_is_not_health() -> None:
    record = fresh(EngineSpec("engine", (), 0.0), 0.0)
    assert (record.state, serving([record]), serving([])) == ("unknown", False, False)


def test_silence_becomes_unknown_when_somebody_reads() -> None:
    engine = spec(probe(interval_s=1.0, timeout_s=0.5))
    record = step(engine, fresh(engine, 0.0), "health", seen("P", 0.0), 0.0)
    assert settle(engine, record, 2.5).state == "healthy"
    late = settle(engine, record, 2.6)
    assert (late.state, late.why) == ("unknown", ("health: no answer for 2.6 s, the last was: said P",))


def test_what_needs_a_failing_probe_waits_and_is_not_a_second_symptom() -> None:
    engine = spec(probe("process"), probe("latency", needs=("process",)))
    record = fresh(engine, 0.0)
    for name in ("process", "latency"):
        record = step(engine, record, name, seen("P", 0.0), 0.0)
    before = record
    for at in (1.0, 2.0, 3.0):
        for name in ("process", "latency"):
            record = step(engine, record, name, seen("F", at), at)
    states = {name: now.state for name, now in record.probes.items()}
    assert (states, record.why) == ({"process": "failing", "latency": "waiting"}, ("process: said F",))
    told = {change.probe: change.why for change in changes(engine, before, record)}
    assert told == {"process": "said F", "latency": "waits for process", "": "process: said F"}
    for at in (4.0, 5.0):
        for name in ("process", "latency"):
            record = step(engine, record, name, seen("P", at), at)
    assert record.state == "healthy"


def test_a_critical_probe_that_waits_for_a_warning_one_is_unknown_and_not_health() -> None:
    engine = spec(probe("process", severity="warning"), probe("latency", needs=("process",)))
    record = fresh(engine, 0.0)
    for name, letter in (("process", "F"), ("latency", "P")):
        record = step(engine, record, name, seen(letter, 0.0), 0.0)
    assert record.state == "unknown"


def test_a_reload_keeps_what_did_not_change() -> None:
    before = spec(probe("health"), probe("latency"))
    record = fresh(before, 0.0)
    for name in ("health", "latency"):
        record = step(before, record, name, seen("F", 0.0), 0.0)
    after = spec(probe("health"), probe("latency", fall=5), probe("memory"))
    kept = fresh(after, 1.0, record, kept=("health",))
    assert kept.probes["health"] == record.probes["health"]
    assert (kept.probes["latency"].last, [*kept.probes]) == (None, ["health", "latency", "memory"])
    assert kept.changes == record.changes


def test_changes_tell_each_edge_once() -> None:
    engine = spec(probe(fall=1, rise=1))
    before = fresh(engine, 0.0)
    after = step(engine, before, "health", seen("P", 0.0), 0.0)
    assert [(c.probe, c.before, c.after) for c in changes(engine, before, after)] == [
        ("health", "unknown", "passing"),
        ("", "starting", "healthy"),
    ]
    assert changes(engine, after, step(engine, after, "health", seen("P", 1.0), 1.0)) == []


@given(st.text("PFN", max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_the_engine_is_healthy_only_after_passes_and_bad_only_after_misses(text: str, fall: int, rise: int) -> None:
    """Against the definition, for any history."""
    engine = spec(probe(fall=fall, rise=rise))
    record = fresh(engine, 0.0)
    for at, letter in enumerate(text):
        before = record.probes["health"].level
        record = step(engine, record, "health", seen(letter, at), at)
        after = record.probes["health"].level
        if at and before != "passing" and after == "passing":
            assert text[: at + 1].endswith("P" * rise)
        if at and before == "passing" and after != "passing":
            assert "P" not in text[at + 1 - fall : at + 1]


def test_what_is_conclusive_is_believed_at_once() -> None:
    engine = spec(probe(fall=3))
    record = step(engine, fresh(engine, 0.0), "health", seen("P", 0.0), 0.0)
    assert step(engine, record, "health", seen("F", 1.0).replace(conclusive=True), 1.0).state == "unhealthy"


def test_every_failure_is_counted_by_its_reason_inside_the_start_period_too() -> None:
    engine = spec(start_period_s=10.0)
    record: EngineRecord = fresh(engine, 0.0)
    for at in range(3):
        record = step(engine, record, "health", seen("F", at), at)
    assert (record.state, dict(record.probes["health"].failures)) == ("starting", {"timeout": 3})
