"""Maintenance: the calendar as histories, and the command against a real daemon over its socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from datetime import datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel import cli
from sentinel.board import changes, fresh, settle, step
from sentinel.maintenance import Calendar, Window, never_over
from sentinel.model import EngineSpec, Maintenance, Observation, Policy, ProbeSpec
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Command = Callable[..., tuple[int, str, str]]

PROBE = ProbeSpec("health", "http", None, Policy(interval_s=10.0, fall=1, rise=1))


def unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def told(cron: str, zone: str, lasts_s: float, *moments: str) -> str:
    """M or - for each moment, asked in this order of one calendar whose wall clock runs with the monotonic one."""
    calendar, spec = Calendar(), EngineSpec("e", (PROBE,), windows=(Window(cron, zone, lasts_s),))
    return "".join("M" if calendar.of(spec, unix(moment), unix(moment)) else "-" for moment in moments)


@pytest.mark.parametrize(
    ("cron", "zone", "lasts_s", "moments", "states"),
    [
        pytest.param(
            "0 22 * * sun",
            "UTC",
            7200,
            ["2026-11-22T21:59:59Z", "2026-11-22T22:00:00Z", "2026-11-22T23:59:59Z", "2026-11-23T00:00:00Z"],
            "-MM-",
            id="from its first second to before its last",
        ),
        pytest.param(
            "0 22 * * 0",
            "Europe/Paris",
            3600,
            ["2026-07-05T20:30:00Z", "2026-07-05T21:30:00Z", "2026-12-06T20:30:00Z", "2026-12-06T21:30:00Z"],
            "M--M",
            id="on the clock of its zone, and 0 is Sunday as cron has it",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Paris",
            1800,
            ["2026-03-29T00:59:00Z", "2026-03-29T01:05:00Z", "2026-03-30T00:35:00Z"],
            "-MM",
            id="a moment that summer time skips comes right after",
        ),
        pytest.param(
            "30 2 * * *",
            "Europe/Paris",
            1800,
            ["2026-10-25T00:35:00Z", "2026-10-25T01:35:00Z"],
            "M-",
            id="a moment that winter time repeats comes once",
        ),
        pytest.param(
            "0 23 * * fri",
            "UTC",
            2 * 86400,
            ["2026-11-20T23:00:00Z", "2026-11-22T12:00:00Z", "2026-11-22T23:00:01Z"],
            "MM-",
            id="over days",
        ),
        pytest.param(
            "0 * * * *",
            "UTC",
            600,
            ["2026-11-20T10:05:00Z", "2026-11-20T10:30:00Z", "2026-11-20T10:05:00Z", "2026-11-20T11:05:00Z"],
            "M-MM",
            id="a wall clock that was set back finds its window again",
        ),
    ],
)
def test_a_window(cron: str, zone: str, lasts_s: float, moments: list[str], states: str) -> None:
    assert told(cron, zone, lasts_s, *moments) == states


@given(st.integers(0, 86400 * 400), st.integers(1, 3 * 3600))
def test_a_window_by_its_definition(second: int, lasts_s: int) -> None:
    """Open when one of the starts was no longer ago than it lasts, for any moment."""
    moment = unix("2026-01-01T00:00:00Z") + second
    since_s = second % 86400 - 6 * 3600
    calendar, spec = Calendar(), EngineSpec("e", (PROBE,), windows=(Window("0 6 * * *", "UTC", lasts_s),))
    assert (calendar.of(spec, 0.0, moment) is not None) == (0 <= since_s < lasts_s)


@pytest.mark.parametrize(
    ("cron", "lasts_s", "never"),
    [
        pytest.param("0 22 * * *", 7200.0, False, id="two hours a day"),
        pytest.param("* * * * *", 60.0, True, id="a minute every minute"),
        pytest.param("* 0-22 * * *", 1800.0, False, id="a pause of half an hour a day"),
        pytest.param("0 0 * * *", 86400.0, True, id="a day every day"),
    ],
)
def test_a_window_that_never_ends_is_known(cron: str, lasts_s: float, never: bool) -> None:
    assert never_over(Window(cron, "UTC", lasts_s)) is never


def test_a_command_lasts_by_the_monotonic_clock_and_the_longest_counts() -> None:
    calendar, noon = Calendar(), unix("2026-11-24T12:00:00Z")
    spec = EngineSpec("e", (PROBE,), windows=(Window("5 12 * * *", "UTC", 600.0, "weekly"),))
    calendar.start("e", 60.0, "deploy", 0.0, noon)
    deploy = Maintenance(60.0, "deploy", "until 2026-11-24T12:01:00Z: deploy")
    assert calendar.of(spec, 59.0, noon + 59) == deploy
    assert calendar.of(spec, 59.5, noon - 86400) == deploy  # the wall clock was set
    assert calendar.of(spec, 60.0, noon + 60) is None
    calendar.start("e", 1800.0, "", 300.0, noon + 300)
    assert calendar.of(spec, 301.0, noon + 301) == Maintenance(2100.0, "", "until 2026-11-24T12:35:00Z")
    calendar.start("e", 1.0, "", 302.0, noon + 302)
    assert calendar.of(spec, 400.0, noon + 400) == Maintenance(900.0, "weekly", "until 2026-11-24T12:15:00Z: weekly")
    calendar.end("e", noon + 401)
    assert calendar.of(spec, 402.0, noon + 402) is None
    assert calendar.of(spec, 300.0 + 86400, noon + 300 + 86400) is not None  # the next one begins as ever


def test_an_engine_that_is_watched_no_more_is_forgotten() -> None:
    calendar = Calendar()
    for name in "ef":
        calendar.start(name, 60.0, "", 0.0, 0.0)
    calendar.keep(["e"])
    assert [calendar.of(EngineSpec(name, ()), 1.0, 1.0) is not None for name in "ef"] == [True, False]


def test_maintenance_is_the_state_while_it_lasts_and_the_probes_show_theirs() -> None:
    spec = EngineSpec("e", (PROBE,), 0.0)
    record = fresh(spec, 0.0).replace(maintenance=Maintenance(10.0, "deploy", "until 12:00: deploy"))
    record = step(spec, record, "health", Observation(1.0, 0.0, True, "well"), 1.0)
    assert (record.state, record.why, record.started) == ("maintenance", ("until 12:00: deploy",), True)
    record = step(spec, record, "health", Observation(2.0, 0.0, False, "refused", "connect_refused"), 2.0)
    assert (record.state, record.probes["health"].state) == ("maintenance", "failing")
    assert record.why == ("until 12:00: deploy", "health: refused")
    last = record
    record = settle(spec, last, 10.0)
    assert (record.state, record.since, record.maintenance) == ("unhealthy", 10.0, None)
    assert [(change.before, change.after, change.why) for change in changes(spec, last, record)] == [
        ("maintenance", "unhealthy", "health: refused")
    ]


# --- the command, a real daemon, a real engine ----------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(name=f"kept-{os.getpid()}") as running:
        yield running


def config(engine: Engine, folder: Path, more: str = "") -> str:
    return f"""\
listen: 127.0.0.1:0
control: unix:{folder}/control.sock
engines:
  - name: e
    interval: 100ms
    probes:
      health: {{kind: http, url: "{engine.health_url}"}}
{more}"""


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Exit status and both outputs of `sentinel maintenance WORDS`."""

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.main(["maintenance", *words, "--control", f"unix:{tmp_path}/control.sock"])
        return code, *capsys.readouterr()

    return run


def test_it_is_shown_everywhere_and_ends_by_command_and_by_itself(
    engine: Engine, command: Command, tmp_path: Path
) -> None:
    with Daemon(tmp_path, config(engine, tmp_path)) as daemon:
        until(lambda: daemon.state() == "healthy")
        assert (tmp_path / "control.sock").stat().st_mode & 0o777 == 0o660
        code, out, err = command("start", "e", "--for", "10m", "--reason", "deploy of 1.2")
        assert (code, err) == (0, "")
        assert out.startswith("e is in maintenance (until 20")
        assert out.endswith("Z: deploy of 1.2)\n")
        status = daemon.status()["engines"][0]
        assert (status["state"], status["maintenance"]["reason"]) == ("maintenance", "deploy of 1.2")
        engine.fault("health-500")
        until(lambda: daemon.probes()["health"] == ("failing", "http_status"))
        code, text = daemon.get("/health", "text/plain")
        assert code == 200
        assert text.startswith("healthy: e is in maintenance (until 20")
        assert json.loads(daemon.get("/health")[1])["status"] == "warn"
        assert "status 500, want 2xx" in text
        assert daemon.metric('sentinel_engine_state{engine="e",state="maintenance"}') == 1
        end = daemon.metric('sentinel_engine_maintenance_end_timestamp_seconds{engine="e"}')
        assert end is not None
        assert abs(end - unix(status["maintenance"]["until"])) < 1

        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: [row for row in daemon.log() if row["message"] == "reloaded, watching e"])
        assert daemon.state() == "maintenance"

        code, out, err = command("end", "e")
        assert (code, err) == (0, "")
        assert out.startswith("e is unhealthy (health: ")
        assert daemon.metric('sentinel_engine_maintenance_end_timestamp_seconds{engine="e"}') is None
        assert command("start", "e", "--for", "1s")[0] == 0
        until(lambda: daemon.state() == "unhealthy")
        moves = [row["message"].partition(":")[0] for row in daemon.log() if row["message"].startswith("e ")]
        assert moves == [
            "e starting -> healthy",
            "e maintenance begun for 10 min by command",
            "e healthy -> maintenance",
            "e maintenance ended by command",
            "e maintenance -> unhealthy",
            "e maintenance begun for 1 s by command",
            "e unhealthy -> maintenance",
            "e maintenance -> unhealthy",
        ]


def test_a_reload_moves_the_control_socket_and_a_bad_one_changes_nothing(engine: Engine, tmp_path: Path) -> None:
    old, new = tmp_path / "control.sock", tmp_path / "new.sock"
    with Daemon(tmp_path, config(engine, tmp_path)) as daemon:
        text = daemon.config_path.read_text()
        daemon.config_path.write_text(text.replace(f"unix:{old}", f"unix:{tmp_path}/none/c.sock"))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: daemon.metric("sentinel_config_last_reload_successful") == 0)
        why = f"cannot listen on unix:{tmp_path}/none/c.sock: no such file or directory"
        assert daemon.log()[-1]["message"] == f"not reloaded, the old configuration goes on: {why}"
        assert old.is_socket()
        daemon.config_path.write_text(text.replace(str(old), str(new)))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: new.is_socket() and not old.exists())
        daemon.config_path.write_text(text.replace(f"control: unix:{old}\n", ""))
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: not new.exists())
        daemon.config_path.write_text(text)
        daemon.process.send_signal(signal.SIGHUP)
        until(old.is_socket)
        assert daemon.end()[0] == 0
        assert not old.exists()


def test_nothing_that_changes_state_is_there_over_tcp(engine: Engine, tmp_path: Path) -> None:
    with Daemon(tmp_path, config(engine, tmp_path)) as daemon:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            for path in ("/api/v1/maintenance/e", "/", "/health", "/api/v1/status"):
                words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "-d", '{"for": "10m"}']
                done = subprocess.run([*words, daemon.url + path], capture_output=True, text=True, check=True)
                assert done.stdout in ("404", "405"), (method, path)
        assert daemon.state() != "maintenance"


def test_a_window_of_the_configuration(engine: Engine, tmp_path: Path) -> None:
    window = '    maintenance: [{cron: "* * * * *", for: 59s, reason: always}]\n'
    with Daemon(tmp_path, config(engine, tmp_path, window)) as daemon:
        until(lambda: daemon.state() == "maintenance", 5)  # a minute has one second outside it


def test_what_cannot_be_done_gets_one_sentence(engine: Engine, command: Command, tmp_path: Path) -> None:
    with Daemon(tmp_path, config(engine, tmp_path)):
        for name in ("f", "a/b", "../e"):
            told = f"sentinel maintenance: no engine {name!r}, want one of e\n"
            assert command("start", name, "--for", "10m") == (1, "", told)
        code, out, err = command("end", "e")  # nothing to end is what was wanted
        assert (code, err) == (0, "")
        refused = subprocess.run(
            [
                "curl",
                "-s",
                "--unix-socket",
                f"{tmp_path}/control.sock",
                "-d",
                "{}",
                "http://localhost/api/v1/maintenance/e",
            ],
            capture_output=True,
            text=True,
            check=True,
        )
        units = "(units: ns, us, µs, μs, ms, s, m, h, d)"
        assert refused.stdout == f"'': no number in front, want a duration such as 10m, at most 7d {units}\n"
    for words, message in (
        (["start", "e", "--for", "8d"], "argument --for: '8d': want a duration such as 10m, at most 7d"),
        (["start", "e"], "start: --for is missing, how long at most"),
        (["end", "e", "--for", "1m"], "end: takes neither --for nor --reason"),
        (["pause", "e"], "argument what: invalid choice: 'pause' (choose from 'start', 'end')"),
    ):
        code, out, err = command(*words)
        assert (code, out, err) == (1, "", f"sentinel maintenance: {message}; see sentinel maintenance --help\n")
    code, out, err = command("end", "e")
    assert (code, out) == (1, "")
    assert err.endswith("; does `sentinel run` run there, with control: set?\n")
    assert err.count("\n") == 1
