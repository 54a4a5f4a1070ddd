"""Faults of the kernel's making, made on this machine against the stand-in: explain names the true cause first.

What the machine itself does meanwhile is real too: on a shared one a time that nothing happened in may need a second
try, never a fault that was made.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from sentinel.explain_command import main as explain_command
from tests.cgroups import Group, mounted
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Make = Callable[[Engine, Group, ExitStack], None]

pytestmark = pytest.mark.alone

CONFIG = """
listen: 127.0.0.1:0
engines:
  - name: e
    start_period: 0s
    interval: 500ms
    probes:
      health: {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory: {{kind: memory, max: 90%}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: latency_p99, max: 50ms}}
      evidence: {{kind: evidence, interval: 500ms}}
"""
QUIET_S = 10.0  # the lead before a trouble, and a healthy time before that
RECOVERY_S = 10.0  # after a trouble of the machine's own, before a healthy time begins
TRIES = 3


class Watched:
    """An engine and the daemon that watches it."""

    def __init__(self, engine: Engine, daemon: Daemon) -> None:
        self.engine = engine
        self.daemon = daemon

    def explained(self) -> Any:
        return json.loads(self.daemon.get("/api/v1/explain/e")[1])

    def rest(self) -> None:
        """Until nothing was wrong for a while."""
        since = time.monotonic()

        def quiet() -> bool:
            nonlocal since
            if self.explained()["troubles"] or self.daemon.state() != "healthy":
                since = time.monotonic() + RECOVERY_S
            return time.monotonic() - since > QUIET_S

        until(quiet, 90)


@contextmanager
def watched(folder: Path, work: str) -> Iterator[Watched]:
    with Engine("--work", work, name=f"cause-{os.getpid()}") as engine:
        with Daemon(folder, CONFIG.format(engine=engine)) as daemon:
            yield Watched(engine, daemon)


def throttled(engine: Engine, group: Group, _: ExitStack) -> None:
    group.limit_cpu(0.02)


def with_a_neighbour(engine: Engine, group: Group, undo: ExitStack) -> None:
    group.give_way()  # with one of the same weight it only takes turns, and loses little by that
    os.sched_setaffinity(engine.pid, {0})
    for _ in range(3):
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        undo.callback(busy.wait)
        undo.callback(busy.kill)
        os.sched_setaffinity(busy.pid, {0})


def at_its_memory_limit(engine: Engine, group: Group, _: ExitStack) -> None:
    group.limit_memory(48 << 20)
    engine.fault("reread")


def killed_for_memory(engine: Engine, group: Group, _: ExitStack) -> None:
    group.limit_memory(64 << 20)
    engine.fault("memory")


def stopped(engine: Engine, _: Group, __: ExitStack) -> None:
    os.kill(engine.pid, signal.SIGSTOP)
    time.sleep(0.3)
    os.kill(engine.pid, signal.SIGCONT)


def switched_on(fault: str) -> Make:
    return lambda engine, *_: engine.fault(fault, 40)


# How it is made, how long an order works, the cause, and the controller of the group that the engine runs in.
FAULTS: dict[str, tuple[Make, str, str, str]] = {
    "a CPU quota that is too small": (throttled, "200us", "cpu_throttled", "cpu"),
    "a busy neighbour on the same core": (with_a_neighbour, "2ms", "run_queue", "cpu"),
    "a memory limit that is nearly reached": (at_its_memory_limit, "200us", "memory_limit", "memory"),
    "a large cold mapping": (switched_on("cold-map"), "200us", "major_faults", "memory"),
    "SIGSTOP for 300 ms": (stopped, "200us", "stopped", "cpu"),
    "no more file descriptors": (switched_on("files"), "200us", "files_exhausted", "cpu"),
    "a full listen queue": (switched_on("deaf"), "200us", "listen_overflow", "cpu"),
    "kill -9": (lambda engine, *_: os.kill(engine.pid, signal.SIGKILL), "200us", "process_ended", "memory"),
    "killed for lack of memory in a small group": (killed_for_memory, "200us", "oom_killed", "memory"),
}
GROUPS = {"cpu": mounted("cpu"), "memory": mounted("memory")}


@pytest.mark.skipif(None in GROUPS.values(), reason="needs cgroups that can be written, as root")
@pytest.mark.parametrize("fault", FAULTS)
def test_the_true_cause_is_first(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, work, rule, controller = FAULTS[fault]
    with watched(tmp_path, work) as it, Group(controller) as group, ExitStack() as undo:
        group.add(it.engine.pid)
        it.rest()
        make(it.engine, group, undo)

        def named() -> Any:
            told = it.explained()
            return told if [cause["rule"] for cause in told["causes"][:1]] == [rule] else None

        told = until(named, 40)
        first = told["causes"][0]
        assert first["figures"][0]["source"].startswith(("/proc/", "/sys/fs/cgroup"))
        assert it.daemon.metric(f'sentinel_engine_cause{{engine="e",rule="{rule}"}}') == 1
        assert explain_command(["e", "--daemon", it.daemon.url]) == 0
    print(capsys.readouterr().out)


def test_a_quiet_run_has_no_cause_and_an_engine_that_is_slow_by_itself_is_told_to_be(tmp_path: Path) -> None:
    """It sleeps in the path of its orders: nothing that the kernel counts against it moves."""
    for attempt in range(TRIES):
        with watched(tmp_path, "1ms") as it:
            it.rest()
            quiet = it.explained()
            assert (quiet["causes"], quiet["sentence"][:31]) == ([], "nothing to explain: healthy for")
            it.engine.fault("slow")
            until(lambda: it.daemon.state() == "unhealthy")
            time.sleep(3)  # for all that may yet be counted
            told = it.explained()
        if not told["causes"] or attempt == TRIES - 1:
            break
    assert told["causes"] == []
    assert told["sentence"] == (
        "no cause found: nothing that the kernel counts of the engine changed, so look into the engine itself"
    )
    assert [trouble["probe"] for trouble in told["troubles"]] == ["latency"]
