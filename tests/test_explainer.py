"""What is remembered for explanations: no bad time is ever taken for a good one."""

from __future__ import annotations

import pytest

from sentinel import causes
from sentinel.board import EngineRecord, fresh, step
from sentinel.explainer import Explainer, troubles
from sentinel.history import History
from sentinel.model import EngineSpec, Observation, Policy, ProbeSpec, Reading

POLICY = Policy(fall=3, rise=2)
SPEC = EngineSpec(
    "e",
    (
        ProbeSpec("process", "process", None, POLICY),
        ProbeSpec("latency", "latency", None, POLICY.replace(needs=("process",))),
        ProbeSpec("evidence", "evidence", None, POLICY.replace(severity="warning", needs=("process",))),
    ),
    start_period_s=0.0,
)


class Watch:
    """An engine that is watched at one answer a second: `P` its p99 is good, `F` it is not, `D` its process is gone.

    `loses` is how much of each second its process stands still while its p99 is not good.
    """

    def __init__(self, loses: float = 0.0) -> None:
        self.history = History()
        self.explainer = Explainer(self.history, lambda moment: f"t{moment:g}")
        self.record: EngineRecord = fresh(SPEC, 0.0)
        self.now = 0.0
        self.loses = loses
        self.stopped = 0.0

    def play(self, answers: str) -> None:
        for answer in answers:
            self.now += 1
            self.stopped += self.loses * (answer == "F")
            reason = {"P": "", "F": "over_budget", "D": "no_process"}[answer]
            gone = answer == "D"
            self.put("process", Observation(self.now, 0.0, not gone, "pid 7", reason * gone, conclusive=gone))
            if not gone:
                self.put("latency", Observation(self.now, 0.0, answer == "P", f"p99 {answer}", reason))
                readings = (Reading(causes.STOPPED, self.stopped),)
                details = (("sources", {causes.STOPPED: "/proc/7/stat"}),)
                self.put("evidence", Observation(self.now, 0.0, True, "", readings=readings, details=details))

    def put(self, probe: str, seen: Observation) -> None:
        self.history.add(("e", probe), seen)
        self.record = step(SPEC, self.record, probe, seen, self.now)
        self.explainer.update(SPEC, self.record, self.now)


@pytest.mark.parametrize(
    ("answers", "probes"),
    [
        pytest.param("P" * 3, [], id="well"),
        pytest.param("PF", ["latency"], id="the first answer that is not good is trouble already"),
        pytest.param("PFFF", ["latency"], id="failing"),
        pytest.param("PFFFP", ["latency"], id="not yet believed that it is well"),
        pytest.param("PFFFPP", [], id="well again"),
        pytest.param("PPD", ["process"], id="what waits for another has no trouble of its own"),
    ],
)
def test_who_is_in_trouble(answers: str, probes: list[str]) -> None:
    watch = Watch()
    watch.play(answers)
    assert [trouble.probe for trouble in troubles(SPEC, watch.record)] == probes


def test_a_trouble_is_explained_while_it_lasts_and_remembered_when_it_is_over() -> None:
    watch = Watch(loses=0.3)
    watch.play("P" * 20)
    assert watch.explainer.of("e") == (None, None)

    watch.play("FFF")
    now, past = watch.explainer.of("e")
    assert now is not None
    assert past is None
    assert (now.since, now.believed, now.until) == (21.0, True, None)
    assert now.sentence == (
        "likely cause: the process stood still for 900 ms (SIGSTOP, a debugger, a freeze), before 0/s, since t20; "
        "latency followed 1 s later"
    )
    assert now.causes[0].figures[0].source == "/proc/7/stat"

    watch.play("PP")
    still, past = watch.explainer.of("e")
    assert still is None
    assert past == now.replace(until=25.0)  # and still says what was wrong, not that it is well


def test_one_bad_answer_that_changed_nothing_does_not_hide_the_outage_before_it() -> None:
    watch = Watch(loses=0.3)
    watch.play("P" * 20 + "FFFPP" + "P" * 20 + "FP")
    _, past = watch.explainer.of("e")
    assert past is not None
    assert (past.since, past.until) == (21.0, 25.0)


def test_where_nothing_else_happened_one_bad_answer_is_remembered() -> None:
    watch = Watch(loses=0.3)
    watch.play("P" * 20 + "FP")
    _, past = watch.explainer.of("e")
    assert past is not None
    assert (past.since, past.until, past.believed) == (21.0, 22.0, False)


def test_the_next_trouble_is_held_against_the_last_time_that_was_really_healthy() -> None:
    watch = Watch()
    watch.play("P" * 20 + "FFFPP")
    watch.loses = 0.3
    watch.play("FFF")  # no time to be well in between
    now, _ = watch.explainer.of("e")
    assert now is not None
    assert (now.causes[0].rule, now.causes[0].figures[0].before) == ("stopped", 0.0)


def test_what_was_found_outlives_the_readings_that_it_was_held_against() -> None:
    watch = Watch(loses=0.3)
    watch.play("P" * 20 + "F" * 900)
    now, _ = watch.explainer.of("e")
    assert now is not None
    assert (now.causes[0].rule, now.causes[0].figures[0].before) == ("stopped", 0.0)


def test_an_end_is_explained_at_once_and_a_restart_is_a_new_life() -> None:
    watch = Watch()
    watch.play("P" * 20 + "D")
    now, _ = watch.explainer.of("e")
    assert now is not None
    assert [cause.rule for cause in now.causes] == ["process_ended"]
    watch.play("PPP")
    assert watch.explainer.of("e")[0] is None


def test_engines_that_are_watched_no_more_are_forgotten() -> None:
    watch = Watch()
    watch.play("PF")
    watch.explainer.keep([])
    assert watch.explainer.of("e") == (None, None)
