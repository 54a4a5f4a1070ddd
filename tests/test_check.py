"""`sentinel check`: what it prints, what it exits with, what it imports, and that it ends in time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentinel import check
from tests import servers
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = b"# HELP latency_p99 p99 in us, latency_p99\n# TYPE latency_p99 gauge\nlatency_p99 412\n"
# What no check may import for plain HTTP: each costs as much as a third of the whole check, or more.
HEAVY = {"asyncio", "http.client", "dataclasses", "enum", "re", "socket", "ssl", "typing", "json", "argparse", "urllib"}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(name=f"checked-{os.getpid()}") as running:
        yield running


@pytest.fixture
def environ(engine: Engine) -> Iterator[dict[str, str]]:
    """The variables that point a check at the stand-in, which is well before and after."""
    yield {
        "SENTINEL_HEALTH_URL": engine.health_url,
        "SENTINEL_METRICS_URL": engine.metrics_url,
        "SENTINEL_PROCESS": engine.name,
    }
    engine.mend()


def verdict(environ: dict[str, str], *argv: str) -> tuple[int, str]:
    return check.run(argv, environ)


def test_a_well_engine_is_healthy_and_every_answer_is_told(environ: dict[str, str], engine: Engine) -> None:
    code, line = verdict(environ)
    assert code == 0
    assert line.startswith(f"healthy: health: GET {engine.health_url}: status 200 in ")
    for part in (f"; process: {engine.name} runs as pid ", "; memory: memory ", "; latency: p99 of latency_p99 is "):
        assert part in line


@pytest.mark.parametrize(
    ("fault", "probe", "sentence"),
    [
        ("health-500", "health", "GET {health}: status 500, want 2xx"),
        ("health-hang", "health", "GET {health}: connected but no answer within 500 ms"),
        ("metric-missing", "latency", "GET {metrics}: no metric latency_p99"),
        ("metric-nan", "latency", "latency_p99 is NaN, no latency"),
        ("metrics-cut", "latency", "GET {metrics}: the connection closed before the answer was complete"),
        ("metrics-500", "latency", "GET {metrics}: status 500, want 2xx"),
        ("metrics-hang", "latency", "GET {metrics}: connected but no answer within 500 ms"),
        ("endless", "latency", "GET {metrics}: the body is larger than 16 MiB, the limit (max_body)"),
    ],
)
def test_each_fault_is_told_in_one_sentence(
    environ: dict[str, str], engine: Engine, fault: str, probe: str, sentence: str
) -> None:
    engine.fault(fault)
    told = sentence.format(health=engine.health_url, metrics=engine.metrics_url)
    wanted = (1, f"unhealthy: {probe}: {told}")
    deadline = time.monotonic() + 5
    while (got := verdict(environ, "--timeout", "500ms")) != wanted and time.monotonic() < deadline:
        pass
    assert got == wanted


def test_every_probe_that_failed_is_named_and_not_only_the_first(environ: dict[str, str]) -> None:
    code, line = verdict(
        {**environ, "SENTINEL_MAX_P99": "1us", "SENTINEL_MAX_MEMORY": "1MiB"}, "--health-url", "http://[::1]:1/"
    )
    assert code == 1
    assert [part.split(":")[0] for part in line.removeprefix("unhealthy: ").split("; ")] == [
        "health",
        "memory",
        "latency",
    ]


def test_without_a_process_what_needs_it_is_no_second_symptom(environ: dict[str, str]) -> None:
    assert verdict({**environ, "SENTINEL_PROCESS": "no-such-engine"}) == (
        1,
        "unhealthy: process: no process named 'no-such-engine'",
    )


def test_a_flag_wins_over_its_variable(environ: dict[str, str]) -> None:
    assert verdict({**environ, "SENTINEL_MAX_P99": "1us"}, "--max-p99", "1s")[0] == 0
    assert verdict({**environ, "SENTINEL_MAX_P99": "1us"}, "--max-p99=1s")[0] == 0
    assert verdict({**environ, "SENTINEL_MAX_P99": ""})[0] == 0


def test_a_probe_can_be_left_out_and_all_of_them_are_not_health(environ: dict[str, str]) -> None:
    assert verdict({**environ, "SENTINEL_MAX_P99": "1us"}, "--skip", "latency")[0] == 0
    every = [word for probe in ("health", "process", "memory", "latency") for word in ("--skip", probe)]
    assert verdict(environ, *every) == (1, "unhealthy: no probes are left to ask")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--wat"], "unknown option '--wat'; see sentinel check --help"),
        (["extra"], "unknown option 'extra'; see sentinel check --help"),
        (["--max-p99"], "--max-p99: no value behind it; see sentinel check --help"),
        (["--skip", "cpu"], "--skip: no probe 'cpu', want one of health, process, memory, latency"),
        (["--timeout", "0s"], "--timeout: '0s', want more than 0 s"),
        (["--timeout", "3"], "--timeout: '3': no unit, want a duration such as"),
        (["--max-p99", "1000parsecs"], "--max-p99: '1000parsecs': unknown unit 'parsecs', want a duration such as"),
        (["--max-memory", "lots"], "--max-memory: 'lots': want a share such as 90%, or a size such as 6GiB"),
        (["--metric", "a{b"], "--metric: 'a{b': "),
        (["--daemon", "ftp://x"], "--daemon: 'ftp://x/health': want a URL such as"),
        (["--config", "/no/such.yaml"], "/no/such.yaml: cannot read: No such file or directory"),
    ],
)
def test_a_usage_error_is_one_sentence_and_exit_1(argv: list[str], message: str) -> None:
    with pytest.raises(check.UsageError) as caught:
        check.run(argv, {})
    assert str(caught.value).startswith(message)


def test_json_is_for_programs(environ: dict[str, str]) -> None:
    code, line = verdict({**environ, "SENTINEL_MAX_P99": "1us"}, "--json")
    document = json.loads(line)
    assert (code, document["healthy"]) == (1, False)
    states = {probe["probe"]: (probe["state"], probe["reason"]) for probe in document["probes"]}
    assert states["latency"] == ("failing", "over_budget")
    assert states["health"] == ("passing", "")


def test_a_file_can_be_asked_with_several_engines(environ: dict[str, str], engine: Engine, tmp_path: Path) -> None:
    path = tmp_path / "sentinel.yaml"
    path.write_text(
        f"engines:\n- name: a\n  probes: {{h: {{kind: http, url: '{engine.health_url}'}}}}\n"
        f"- name: b\n  probes: {{h: {{kind: http, url: 'http://127.0.0.1:1/'}}}}\n"
    )
    code, line = verdict(environ, "--config", str(path))
    told = "b/h: GET http://127.0.0.1:1/: connection refused, nothing listens there"
    assert (code, line) == (1, f"unhealthy: {told}")


@given(st.lists(st.text(max_size=3000), min_size=1, max_size=20))
def test_the_line_fits_docker_and_names_every_probe(sentences: list[str]) -> None:
    rows = [{"engine": "e", "probe": f"p{n}", "sentence": text} for n, text in enumerate(sentences)]
    line = check._fitted(rows, lambda rows: check._text(False, rows, False))
    assert len(line.encode()) < check.LINE_LIMIT
    assert line.isprintable()
    assert all(f"p{n}: " in line for n in range(len(sentences)))


def test_what_a_server_says_cannot_break_the_line(environ: dict[str, str]) -> None:
    evil = b"HTTP/1.1 302 X\r\nLocation: /\x1b[31m\xffhealthy: \x07\r\nContent-Length: 0\r\n\r\n"
    with servers.serving(servers.says(evil)) as url:
        code, line = verdict(environ, "--health-url", url, "--skip", "latency")
    assert code == 1
    assert check._one_line(line).isprintable()


# --- the whole process ----------------------------------------------------------------------------------------------


def run_check(environ: dict[str, str], *argv: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *flags, "-m", "sentinel", "check", *argv]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(words, env={**path, **environ}, capture_output=True, text=True, timeout=20, check=False)


def test_the_process_prints_one_line_and_exits_0_or_1(environ: dict[str, str]) -> None:
    good = run_check(environ)
    assert (good.returncode, good.stderr, good.stdout.count("\n")) == (0, "", 1)
    bad = run_check({**environ, "SENTINEL_MAX_P99": "1us"})
    assert (bad.returncode, bad.stderr, bad.stdout[:20]) == (1, "", "unhealthy: latency: ")
    usage = run_check(environ, "--wat")
    assert (usage.returncode, usage.stderr) == (1, "")
    assert usage.stdout == "unhealthy: usage: unknown option '--wat'; see sentinel check --help\n"
    told = run_check(environ, "--help")
    assert (told.returncode, told.stdout[:20]) == (0, "usage: sentinel chec")


@pytest.mark.parametrize("mode", ["direct", "daemon"])
def test_plain_http_imports_no_third_party_and_nothing_heavy(environ: dict[str, str], mode: str) -> None:
    """The list of a real check, asked of the process itself at its end."""
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1)); from sentinel.check import run\n"
        "import posix; env = {k.decode(): v.decode() for k, v in posix.environ.items()}\n"
        "print(run(sys.argv[1:], env)); print(*sorted(sys.modules))"
    )
    root = str(Path(check.__file__).parent.parent)
    argv = ["--daemon", "http://127.0.0.1:1"] if mode == "daemon" else []
    words = [sys.executable, "-I", "-S", "-c", program, root, *argv]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=20, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("(0, 'healthy: " if mode == "direct" else "(1, 'unhealthy: daemon: ")
    modules = set(second.split())
    assert modules & HEAVY == set()
    others = {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"sentinel", "__main__"}
    assert others == set()


def test_one_budget_covers_a_server_that_hangs_and_one_that_never_ends(environ: dict[str, str]) -> None:
    with servers.serving(servers.silent) as hung, servers.serving(servers.dripping) as endless:
        began = time.monotonic()
        code, line = verdict(
            {**environ, "SENTINEL_HEALTH_URL": hung, "SENTINEL_METRICS_URL": endless, "SENTINEL_TIMEOUT": "400ms"}
        )
        took_s = time.monotonic() - began
    assert code == 1
    assert line == (
        f"unhealthy: health: GET {hung}: connected but no answer within 400 ms; "
        f"latency: GET {endless}: answer not complete within 400 ms"
    )
    assert took_s < 1.0


def test_a_closed_standard_output_still_gives_the_status(environ: dict[str, str]) -> None:
    words = [sys.executable, "-m", "sentinel", "check"]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *words], env=environ, capture_output=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


# --- asking a daemon ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "code", "line"),
    [
        ("200 OK", b"healthy: e is healthy\n", 0, "healthy: e is healthy"),
        ("503 X", b"unhealthy: e is unhealthy (x)\n", 1, "unhealthy: e is unhealthy (x)"),
        ("503 X", b"healthy: but not\n", 1, "unhealthy: daemon: what answers at {url} is not Sentinel (status 503)"),
        ("200 OK", b"<html>", 1, "unhealthy: daemon: what answers at {url} is not Sentinel (status 200)"),
        ("404 X", b"", 1, "unhealthy: daemon: what answers at {url} is not Sentinel (status 404)"),
    ],
)
def test_the_verdict_of_a_daemon(status: str, body: bytes, code: int, line: str) -> None:
    with servers.serving(servers.answers(body, status)) as url:
        assert verdict({}, "--daemon", url) == (code, line.format(url=url))
        assert verdict({"SENTINEL_DAEMON": url}, "--daemon") == (code, line.format(url=url))


def test_a_daemon_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        refused = "connection refused, nothing listens there"
        assert verdict({}, "--daemon", url) == (1, f"unhealthy: daemon: GET {url}/health: {refused}")
        assert verdict({}, "--live", "--daemon", url) == (1, f"unhealthy: daemon: GET {url}/livez: {refused}")
    path = "/no/such.sock"
    assert verdict({}, "--daemon", f"unix:{path}") == (1, f"unhealthy: daemon: GET unix:{path}:/health: no such socket")
