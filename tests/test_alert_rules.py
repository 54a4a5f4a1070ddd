"""The rules themselves: promtool's verdict, three tests a rule, a runbook a rule, no metric that nobody publishes."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.cgroups import Group
from tests.daemons import Daemon, until
from tests.engines import Engine
from tests.monitoring import ALERTS
from tests.tools import needs

if TYPE_CHECKING:
    from pathlib import Path

RULES = sorted((ALERTS / "rules").glob("*.yml"))
EVERY_RULE = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
BY_NAME: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in EVERY_RULE if "alert" in rule}
TESTS = sorted((ALERTS / "tests").glob("*.yml"))
RUNBOOKS = sorted((ALERTS / "runbooks").glob("*.md"))
HEADINGS = [
    "What it means",
    "What users of the engine feel",
    "Tell at once",
    "Likely causes, in order",
    "What to do",
    "When to wake whom",
    "How to silence it",
]
NUMBERS = r"(?<![\w.:])\d+(?:\.\d+)?(?![\w:.])"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, check=False)


def passes(*words: object) -> None:
    done = run(*words)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the tools' own verdict -----------------------------------------------------------------------------------------


@needs("promtool")
def test_promtool_finds_no_fault() -> None:
    passes("promtool", "check", "rules", "--lint-fatal", *RULES)
    passes("promtool", "check", "config", ALERTS / "prometheus.yml")


@needs("amtool")
def test_amtool_finds_no_fault() -> None:
    passes("amtool", "check-config", ALERTS / "alertmanager.yml")


@needs("promtool")
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path) -> None:
    passes("promtool", "test", "rules", path)


# --- three tests a rule ---------------------------------------------------------------------------------------------


def asked(test: dict[str, Any], alert: str) -> list[bool]:
    """Of each look at the alert whether it is to fire then, in order of time."""
    looks = [look for look in test.get("alert_rule_test", ()) if look["alertname"] == alert]
    return [bool(look["exp_alerts"]) for look in sorted(looks, key=lambda look: seconds(look["eval_time"]))]


def seconds(duration: str) -> int:
    parts = re.findall(r"(\d+)([hms])", duration)
    return sum(int(number) * {"h": 3600, "m": 60, "s": 1}[unit] for number, unit in parts)


def missing(alert: str, tests: dict[str, dict[str, Any]]) -> list[str]:
    """Which of its three tests a rule lacks, or has by name only."""
    wanted = {"fires": [True], "just does not fire": [False], "resolves": [True, False]}
    return [what for what, looks in wanted.items() if asked(tests.get(f"{alert} {what}", {}), alert) != looks]


def test_each_rule_has_a_test_in_which_it_fires_just_does_not_and_resolves() -> None:
    tests = {test["name"]: test for path in TESTS for test in yaml.safe_load(path.read_text())["tests"]}
    assert {alert: lacks for alert in BY_NAME if (lacks := missing(alert, tests))} == {}
    assert missing("Forgotten", tests) == ["fires", "just does not fire", "resolves"]


@needs("promtool")
@pytest.mark.parametrize("alert", BY_NAME)
def test_the_tests_of_a_rule_notice_if_it_fires_never_or_always(alert: str, tmp_path: Path) -> None:
    """Each rule is broken in both ways, and its tests must fail."""
    for folder in ("rules", "tests"):
        (tmp_path / folder).mkdir()
    (tests,) = (path for path in TESTS if f"name: {alert} fires\n" in path.read_text())
    document = yaml.safe_load(tests.read_text())
    document["tests"] = [test for test in document["tests"] if test["name"].partition(" ")[0] == alert]
    (tmp_path / "tests" / tests.name).write_text(yaml.safe_dump(document))
    for expression, complaint in (("vector(1) < 0", "fires"), ("vector(1)", "just does not fire")):
        for path in RULES:
            broken = yaml.safe_load(path.read_text())
            for rule in [rule for group in broken["groups"] for rule in group["rules"] if rule.get("alert") == alert]:
                rule["expr"] = expression
            (tmp_path / "rules" / path.name).write_text(yaml.safe_dump(broken))
        done = run("promtool", "test", "rules", tmp_path / "tests" / tests.name)
        assert done.returncode != 0
        assert f"name: {alert} {complaint}," in done.stdout + done.stderr


# --- their form -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", BY_NAME)
def test_an_alert_has_what_who_is_woken_needs(alert: str) -> None:
    rule = BY_NAME[alert]
    assert rule["labels"].keys() == {"severity", "team"}
    assert rule["labels"]["severity"] in ("page", "ticket", "info")
    assert rule["annotations"].keys() - {"cause"} == {"summary", "description", "runbook_url", "dashboard_url"}
    assert "$value" in rule["annotations"]["summary"] or "| query" in rule["annotations"]["summary"]
    assert rule["annotations"]["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{alert}.md"
    assert re.search(r"&from=.*&to=|\?from=.*&to=", rule["annotations"]["dashboard_url"], re.DOTALL)


def test_recording_rules_are_named_level_metric_operations() -> None:
    names = [rule["record"] for rule in EVERY_RULE if "record" in rule]
    assert [name for name in names if not re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", name)] == []


def test_no_alert_has_a_limit_of_its_own() -> None:
    """0 and 1 are facts, not limits; what else there is stands in recording.yml or is published by the daemon."""
    bare = {alert: re.sub(r'"[^"]*"|\[.*?\]', "", rule["expr"]) for alert, rule in BY_NAME.items()}
    assert {
        alert: limits for alert, text in bare.items() if (limits := {*re.findall(NUMBERS, text)} - {"0", "1"})
    } == {}


# --- runbooks -------------------------------------------------------------------------------------------------------


def test_each_alert_has_its_runbook_and_no_runbook_is_left_over() -> None:
    assert [path.stem for path in RUNBOOKS] == sorted(BY_NAME)
    boards = (ALERTS.parent / "dashboards").glob("*.json")
    named = {name for board in boards for name in re.findall(r"alerts/runbooks/(\w+)\.md", board.read_text())}
    assert named - {*BY_NAME} == set()


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_has_every_heading_and_links_to_what_exists(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.stem}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    for name in re.findall(r"\]\(([^)#]+)\)", text):
        assert (path.parent / name).is_file(), name


def promql(path: Path) -> list[str]:
    return re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)


@needs("promtool")
def test_the_queries_of_the_runbooks_are_promql(tmp_path: Path) -> None:
    queries = [query.strip() for path in RUNBOOKS for query in promql(path)]
    assert len(queries) >= len(RUNBOOKS) - 1
    rules = [{"record": f"runbook:query:{nth}", "expr": query} for nth, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    passes("promtool", "check", "rules", path)


# --- what is published ----------------------------------------------------------------------------------------------


def names(text: str) -> set[str]:
    return set(re.findall(r"\bsentinel_[a-z_]+\b", text))


def test_every_metric_in_a_rule_or_a_runbook_is_published(tmp_path: Path) -> None:
    """By a daemon that watches an engine in a memory limit and a CPU quota: it grows, is slow, ends, is worked on.

    The addresses that the runbooks ask are asked of the same daemon.
    """
    texts = [path.read_text() for path in (*RULES, *RUNBOOKS)]
    with ExitStack() as ends:
        groups = [ends.enter_context(Group(controller)) for controller in ("memory", "cpu")]
        engine = ends.enter_context(Engine(name=f"all-{time.time_ns() % 10**9}"))
        for group in groups:
            group.add(engine.pid)
        groups[0].limit_memory(512 << 20)
        groups[1].limit_cpu(0.5)
        text = f"""\
listen: 127.0.0.1:0
control: unix:{tmp_path}/control.sock
engines:
  - name: trading-engine
    start_period: 1s
    probes:
      health:  {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory:  {{kind: memory}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: latency_p99}}
"""
        daemon = ends.enter_context(Daemon(tmp_path, text))
        published: set[str] = set()

        def sees(name: str) -> bool:
            published.update(names(daemon.get("/metrics")[1]))
            return name in published

        until(lambda: daemon.state() == "healthy")
        engine.fault("slow")
        engine.fault("memory")
        until(lambda: sees("sentinel_engine_memory_seconds_to_limit"))
        engine.restart()
        until(lambda: sees("sentinel_engine_down_seconds"))
        words = [
            "start",
            "trading-engine",
            "--for",
            "1m",
            "--reason",
            "a test",
            "--control",
            f"unix:{tmp_path}/control.sock",
        ]
        passes(sys.executable, "-m", "sentinel", "maintenance", *words)
        until(lambda: sees("sentinel_engine_maintenance_end_timestamp_seconds"))
        paths = {path for text in texts for path in re.findall(r"localhost:9710(/[\w/$]+)", text)}
        assert {path for path in paths if daemon.get(path.replace("$ENGINE", "trading-engine"))[0] == 404} == set()
        assert "/livez" in paths
    assert set().union(*map(names, texts)) - published == set()
