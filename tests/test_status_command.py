"""`sentinel status` against a real daemon: in a pipe, in a terminal, and when there is no daemon any more."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING, Self

import pytest

from sentinel.status_command import plain, sparkline, verdict
from tests.browser import watched
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WORDS = [sys.executable, "-m", "sentinel", "status"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(name=f"asked-{os.getpid()}") as running:
        yield running


@pytest.fixture
def daemon(engine: Engine, tmp_path: Path) -> Iterator[Daemon]:
    engine.clear()
    with Daemon(tmp_path, f"listen: 127.0.0.1:0\nengines:\n{watched('e', engine, start_period='0s')}") as running:
        until(lambda: running.state() == "healthy")
        yield running


def status(*options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    path = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run([*WORDS, *options], env=path, capture_output=True, text=True, timeout=20, check=False)


def test_a_pipe_gets_plain_text_and_the_exit_status(daemon: Daemon, engine: Engine) -> None:
    done = status("--daemon", daemon.url, FORCE_COLOR="1")
    first, *probes = done.stdout.splitlines()
    assert (done.returncode, done.stderr, first.startswith("e: healthy for ")) == (0, "", True)
    assert [line.split()[:2] for line in probes][:3] == [
        ["health", "passing"],
        ["process", "passing"],
        ["memory", "passing"],
    ]
    assert "\x1b" not in done.stdout
    engine.fault("health-500")
    until(lambda: daemon.state() == "unhealthy")
    done = status(SENTINEL_DAEMON=daemon.url)
    assert (done.returncode, done.stdout.startswith("e: unhealthy for ")) == (1, True)
    assert "status 500, want 2xx" in done.stdout


def test_the_document_is_the_daemons_own(daemon: Daemon) -> None:
    done = status("--json", "--daemon", daemon.url)
    assert done.returncode == 0
    assert json.loads(done.stdout)["engines"][0]["name"] == "e"


@pytest.mark.parametrize(
    ("states", "code"),
    [
        pytest.param(["healthy", "degraded"], 0, id="degraded is still served"),
        pytest.param(["healthy", "starting"], 1, id="starting is not yet health"),
        pytest.param(["unknown"], 1, id="silence is not health"),
        pytest.param([], 1, id="no engine is not health"),
    ],
)
def test_the_exit_status(states: list[str], code: int) -> None:
    assert verdict({"engines": [{"state": state} for state in states]}) == code
    assert verdict(None) == 1


def test_a_unix_socket_and_no_daemon(engine: Engine, tmp_path: Path) -> None:
    path = f"unix:{tmp_path}/s.sock"
    done = status("--daemon", path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("sentinel status: ")
    config = tmp_path / "sentinel.yaml"
    config.write_text(f"listen: {path}\nengines:\n{watched('e', engine)}")
    with subprocess.Popen([*WORDS[:3], "run", "--config", str(config)], stdout=subprocess.DEVNULL) as running:
        until(lambda: status("--daemon", path).stdout.startswith("e: healthy for "))
        running.terminate()


def test_words_of_an_engine_cannot_move_the_cursor() -> None:
    last = {"sentence": "status 302 to /\x1b[2J\x1b[Hhealthy\nall is well", "age_s": 0.1}
    probe = {"name": "health", "state": "failing", "last": last}
    engine = {"name": "e", "state": "unhealthy", "since": "2026-01-01T00:00:00Z", "probes": [probe], "causes": ["a\rb"]}
    text = plain({"time": "2026-01-01T00:01:40Z", "engines": [engine]})
    assert text.splitlines() == [
        "e: unhealthy for 100 s",
        "  health       failing  status 302 to / [2J [Hhealthy all is well",
        "  1. a b",
    ]


def test_a_line_of_the_past_rises_to_the_limit_and_shows_gaps() -> None:
    def cells(pairs: list[tuple[float, float | None]], limit: float | None) -> str:
        times, values = [at for at, _ in pairs], [value for _, value in pairs]
        return sparkline(times, values, 600.0, limit)

    assert cells([(590.0, 1.0)], 1.0) == " " * 29 + "█"
    assert cells([(550.0, 0.5), (570.0, None), (590.0, 0.0)], 1.0) == " " * 27 + "▅ ▁"
    assert cells([(591.0, 0.1), (595.0, 0.4), (599.0, 0.2)], 0.4) == " " * 29 + "█"
    assert cells([(570.0, 2.0), (590.0, 1.0)], 1.0) == " " * 28 + "█▅"
    assert cells([], None) == " " * 30
    assert cells([(-10.0, 1.0), (600.1, 1.0)], None).strip() == ""


# --- --watch ---------------------------------------------------------------------------------------------------------


class Terminal:
    """A command on a terminal of its own, and what it wrote there so far."""

    def __init__(self, words: list[str], rows: int = 30, columns: int = 100, **environ: str) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(rows, columns)
        env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environ}
        self.process = subprocess.Popen(words, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self.written = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            os.close(self._ours)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> str:
        """Everything so far, without waiting."""
        with contextlib.suppress(OSError):  # EIO: it has ended
            while select.select([self._ours], [], [], 0.05)[0]:
                self.written += os.read(self._ours, 65536).decode("utf-8", "replace")
        return self.written

    def shown(self) -> str:
        """The last whole screen, less its colours."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.read().rpartition("\x1b[H")[2] or self.read())

    def end(self, number: int = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        self.read()
        os.close(self._ours)
        return code


def test_a_terminal_shows_tables_lines_and_is_left_as_it_was(daemon: Daemon, engine: Engine) -> None:
    with Terminal([*WORDS, "--watch", "--daemon", daemon.url]) as terminal:
        until(lambda: "✔ healthy e" in terminal.shown())
        until(lambda: re.search("[▁▂▃▄▅▆▇█]", terminal.shown()))
        assert "\x1b[32m" in terminal.read()
        terminal.resize(12, 44)
        engine.fault("health-500")
        until(lambda: "✖ unhealthy e" in terminal.shown())
        until(lambda: "✖ failing  health" in terminal.shown() and "2xx" in terminal.shown())
        assert max(len(line) for line in terminal.shown().splitlines()) <= 44
        assert terminal.end() == 1
    assert terminal.written.endswith("\x1b[?25h\x1b[?1049l")  # the cursor is back, and the screen of before
    assert "Traceback" not in terminal.written


def test_a_daemon_that_is_gone_is_not_live_and_comes_back(daemon: Daemon, engine: Engine, tmp_path: Path) -> None:
    port = daemon.url.rpartition(":")[2]
    with Terminal([*WORDS, "--watch", "--daemon", daemon.url], NO_COLOR="1") as terminal:
        until(lambda: "✔ healthy e" in terminal.shown())
        daemon.end()
        until(lambda: "NOT LIVE, the last news is" in terminal.shown())
        assert "? was healthy e" in terminal.shown()
        assert "✔" not in terminal.shown()
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", terminal.read())  # no-color.org
        second = tmp_path / "second"
        second.mkdir()
        with Daemon(second, f"listen: 127.0.0.1:{port}\nengines:\n{watched('e', engine)}"):
            until(lambda: "✔ healthy e" in terminal.shown())
            assert terminal.end(signal.SIGTERM) == 0


def test_a_pipe_gets_a_picture_with_each_change_of_state(daemon: Daemon, engine: Engine) -> None:
    words = [*WORDS, "--watch", "--daemon", daemon.url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline().startswith("e: healthy for ")
        time.sleep(2)  # two more pictures, in which nothing changed
        engine.fault("health-500")
        heads = []
        while len(heads) < 1 or "unhealthy" not in heads[-1]:
            heads.append(running.stdout.readline())
        assert [line for line in heads if line.startswith("e: healthy")] in ([], heads[-2:-1])
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 1


def test_a_document_a_line(daemon: Daemon) -> None:
    words = [*WORDS, "--watch", "--json", "--daemon", daemon.url]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert [json.loads(running.stdout.readline())["engines"][0]["state"] for _ in range(2)] == ["healthy"] * 2
        running.stdout.close()  # as `| head` does
        assert (running.wait(10), running.stderr.read()) == (1, "")
