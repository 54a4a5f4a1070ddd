"""Recorded hours replayed through promtool: a quiet one wakes nobody, and the pages of a bad day are counted.

tests/record_alerts.py made the recordings. The bad day is arranged of them: at the end of each of the first hours one
of the recorded faults, and the quiet hour in between and for the rest. Counters go on across the joints.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from tests.monitoring import ALERTS
from tests.record_alerts import EPISODES, RECORDINGS, STEP_S
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    Value = float | None

DAY_S = 24 * 3600
PAGING = 'ALERTS{severity="page",alertstate="firing"}'
# What fires of each recorded fault and would page; what one fault brings is one incident, and so one page.
PAGED = {
    "slow": {"LatencyBudgetBurnsFast"},
    "health-500": {"EngineUnhealthy"},
    "metric-missing": {"LatencyMissing"},
    "restart": set(),  # once, and too short for two looks
    "memory": {"MemoryFillsUp"},
    "blip": set(),  # two slow seconds
    "gone": {"EngineGone", "EngineUnhealthy"},
    "throttled": set(),  # in 8 % of the periods, and p99 held
    "deaf": {"EngineUnhealthy"},
    "oom": {"EngineGone", "EngineOomKilled"},
    "loop": {"EngineRestarting"},
}
COUNTERS = ("_total", "_count", "_bucket")


class Stretch(NamedTuple):
    """A piece of a recording: each series with a value a step, all of one length."""

    steps: int
    series: dict[str, list[Value]]

    def cut(self, begin_s: float, end_s: float) -> Stretch:
        first, end = int(begin_s / STEP_S), int(end_s / STEP_S)
        return Stretch(end - first, {name: values[first:end] for name, values in self.series.items()})


def recording(name: str) -> tuple[Stretch, dict[str, tuple[float, float]]]:
    """The whole of it, and from when to when each of its marks lasts."""
    document = json.loads(gzip.decompress((RECORDINGS / f"{name}.json.gz").read_bytes()))
    series = document["series"]
    marks = {mark["name"]: (mark["at"], mark["until"]) for mark in document["marks"]}
    return Stretch(len(next(iter(series.values()))), series), marks


def joined(stretches: Sequence[Stretch]) -> Stretch:
    """One after the other. A counter goes on from where it stood, by what it counted in the stretch."""
    names = sorted({name for stretch in stretches for name in stretch.series})
    series: dict[str, list[Value]] = {}
    for name in names:
        values: list[Value] = []
        counts = name.partition("{")[0].endswith(COUNTERS)
        stood = 0.0
        for stretch in stretches:
            part = stretch.series.get(name, [None] * stretch.steps)
            first = next((value for value in part if value is not None), 0.0)
            offset = stood - first if counts else 0.0
            moved = [None if value is None else value + offset for value in part]
            values += moved
            stood = next((value for value in reversed(moved) if value is not None), stood)
        series[name] = values
    return Stretch(sum(stretch.steps for stretch in stretches), series)


def notation(values: Sequence[Value]) -> str:
    """promtool's: a value that stays is written once, and where it ends it is stale and not looked back for."""
    words: list[str] = []
    before: Value = None
    runs: list[tuple[Value, int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    for value, times in runs:
        if value is None:
            words += ["stale"] * (before is not None)
            left = times - (before is not None)
            words += [f"_x{left}"] * (left > 0)
        else:
            words.append(f"{value:.9f}".rstrip("0").rstrip(".") + f"+0x{times - 1}")
        before = value
    return " ".join(words)


def asked(folder: Path, stretch: Stretch, *queries: str) -> list[dict[str, float]]:
    """What each query gives at the end of the stretch, by the value of its one label.

    promtool says what it got where it is not what was expected, so nothing is expected.
    """
    document = {
        "rule_files": [f"{ALERTS}/rules/*.yml"],
        "evaluation_interval": f"{STEP_S}s",
        "group_eval_order": ["limits", "latency", "resources", "engine-at-once", "engine", "sentinel"],
        "tests": [
            {
                "interval": f"{STEP_S}s",
                "input_series": [
                    {"series": name, "values": notation(values)} for name, values in stretch.series.items()
                ],
                "promql_expr_test": [
                    {"expr": query, "eval_time": f"{(stretch.steps - 1) * STEP_S}s"} for query in queries
                ],
            }
        ],
    }
    path = folder / "recording.yml"
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper))
    words = ["promtool", "test", "rules", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    got = re.findall(r"^ +got: (.*)$", done.stdout + done.stderr, re.MULTILINE)
    assert len(got) == len(queries), done.stdout + done.stderr
    return [{name: float(value) for name, value in re.findall(r'\{\w+="([^"]*)"\} ([\d.E+]+)', line)} for line in got]


@needs("promtool")
def test_a_quiet_hour_wakes_nobody(tmp_path: Path) -> None:
    quiet, _ = recording("quiet")
    assert (quiet.steps - 1) * STEP_S >= 3600
    (fired,) = asked(tmp_path, quiet, 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[2h]))')
    assert fired == {"Watchdog": 1}


@needs("promtool")
def test_the_pages_of_a_bad_day(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    quiet, _ = recording("quiet")
    bad, marks = recording("bad")
    assert marks.keys() == EPISODES.keys() == PAGED.keys()
    parts = []
    for begin_s, end_s in marks.values():
        parts += [quiet, bad.cut(begin_s, end_s)]
    while sum(part.steps for part in parts) * STEP_S < DAY_S:
        parts.append(quiet)
    day = joined(parts).cut(0, DAY_S + STEP_S)
    began = f"{PAGING} unless {PAGING} offset {STEP_S}s"
    engine = f"count by (engine) ({PAGING}) unless count by (engine) ({PAGING} offset {STEP_S}s)"
    pages, incidents = asked(
        tmp_path,
        day,
        f"sum by (alertname) (count_over_time(({began})[1d:{STEP_S}s]))",
        f"sum by (engine) (count_over_time(({engine})[1d:{STEP_S}s]))",
    )
    told = ", ".join(f"{alert} {times:.0f}" for alert, times in sorted(pages.items()))
    record_property("told", f"a bad day of {len(marks)} faults: {incidents['trading-engine']:.0f} pages ({told})")
    assert pages == Counter(alert for alerts in PAGED.values() for alert in alerts)
    assert incidents == {"trading-engine": sum(map(bool, PAGED.values()))}


def test_a_counter_goes_on_across_the_joint_and_a_gauge_does_not() -> None:
    one = Stretch(3, {"a_total{}": [5.0, 6.0, None], "b{}": [1.0, None, 2.0]})
    assert joined([one, one]).series == {"a_total{}": [0, 1, None, 1, 2, None], "b{}": [1, None, 2, 1, None, 2]}


@pytest.mark.parametrize(
    ("values", "written"),
    [
        pytest.param([1.0, 1.0, 2.5], "1+0x1 2.5+0x0", id="runs"),
        pytest.param([1.0, None, None, None, 2.0], "1+0x0 stale _x2 2+0x0", id="an end is marked"),
        pytest.param([None, None, 1.0], "_x2 1+0x0", id="what was not there has no end"),
    ],
)
def test_values_are_written_as_promtool_reads_them(values: list[Value], written: str) -> None:
    assert notation(values) == written
