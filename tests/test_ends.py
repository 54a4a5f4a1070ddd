"""The end of a process as an event, and every restart seen exactly once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from sentinel.fetch.ends import Ends
from sentinel.fetch.local import Local
from sentinel.model import Answer, CountOomKills, FindProcesses, LearnEnd, Process
from sentinel.probes import process as kind
from sentinel.proc import Who
from tests.daemons import Daemon, until

ROUNDS = 200
KERNEL_TELLS = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 15)  # how a process ended that is no child


@pytest.fixture
def sleeper(tmp_path: Path) -> str:
    """A program of a name that nobody else has, that starts in a millisecond."""
    name = f"end-{os.getpid()}"
    found = shutil.which("sleep")
    assert found is not None
    shutil.copy(found, tmp_path / name)
    return str(tmp_path / name)


def begin(program: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([program, "60"])


def running(program: str) -> tuple[Process, ...]:
    """Its processes, once there is one."""
    found: tuple[Process, ...] = until(lambda: Local().look(FindProcesses(Path(program).name)).value)
    return found


@pytest.fixture
def reuse() -> object:
    """A function that makes the kernel give this pid next (proc(5), ns_last_pid); None where that is not allowed."""
    path = Path("/proc/sys/kernel/ns_last_pid")

    def give(pid: int) -> None:
        path.write_text(str(pid - 1))

    return give if os.access(path, os.W_OK) else None


def observed(local: Local, name: str, memory: kind.Seen | None) -> tuple[kind.Seen | None, bool, Answer]:
    answer = local.look(FindProcesses(name))
    seen, memory = kind.read(
        kind.Settings(Who(name)), (answer, *(local.look(ask(name)) for ask in (CountOomKills, LearnEnd))), memory
    )
    return memory, seen.ok is True, answer


@pytest.mark.alone  # it gives pids away: whatever begins beside it may get the one that was meant
async def test_each_end_and_each_start_is_seen_exactly_once(sleeper: str, reuse: object) -> None:
    """Two hundred rounds; in every second one the kernel gives the new process the old pid, where that is allowed."""
    name = Path(sleeper).name
    local, memory = Local(), None
    ended: asyncio.Queue[object] = asyncio.Queue()
    ends = Ends(ended.put_nowait)
    process, reused, told = begin(sleeper), 0, 0
    for number in range(ROUNDS):
        while True:  # between fork and exec it still has our name
            memory, ok, answer = observed(local, name, memory)
            if ok:
                break
        assert memory is not None
        assert memory.restarts == number
        ends.hold(name, answer.value)
        process.kill()
        process.wait()
        async with asyncio.timeout(5):
            await ended.get()
        told += 1
        memory, ok, _ = observed(local, name, memory)
        assert not ok
        old = process.pid
        if reuse is not None and number % 2:
            reuse(old)  # type: ignore[operator]
        process = begin(sleeper)
        reused += process.pid == old
    process.kill()
    process.wait()
    ends.close()
    assert (told, ended.empty()) == (ROUNDS, True)
    assert reuse is None or reused > ROUNDS / 10


async def test_a_pid_that_was_given_away_meanwhile_is_not_held(sleeper: str) -> None:
    ended: list[object] = []
    ends = Ends(ended.append)
    process = begin(sleeper)
    ends.hold("k", [Process(process.pid, 1, 0.0, 0.0, "old", 0, 1)])  # the start time of another one
    process.kill()
    process.wait()
    await asyncio.sleep(0.05)
    ends.close()
    assert ended == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, 9), (signal.SIGTERM, 15)])
async def test_how_it_ended_is_known_once_its_parent_knows(sleeper: str, number: int, status: int) -> None:
    ended: asyncio.Queue[object] = asyncio.Queue()
    ends = Ends(ended.put_nowait)
    process = begin(sleeper)
    (found,) = running(sleeper)
    ends.hold("k", [found])
    assert ends.status(found) is None
    process.send_signal(number)
    process.wait()
    await asyncio.wait_for(ended.get(), 5)
    assert ends.status(found) == (status if KERNEL_TELLS else None)
    assert ends.status(found.replace(start_ticks=1)) is None
    ends.close()


async def test_an_end_whose_parent_does_not_look_is_told_all_the_same(sleeper: str) -> None:
    ended: asyncio.Queue[object] = asyncio.Queue()
    ends = Ends(ended.put_nowait)
    process = begin(sleeper)
    (found,) = running(sleeper)
    ends.hold("k", [found])
    process.kill()  # it stays a zombie: nobody waits for it
    await asyncio.wait_for(ended.get(), 5)
    assert ends.status(found) is None
    process.wait()
    ends.close()


async def test_what_is_no_longer_held_is_not_told(sleeper: str) -> None:
    ended: list[object] = []
    ends = Ends(ended.append)
    process = begin(sleeper)
    ends.hold("k", running(sleeper))
    ends.hold("k", [])
    process.kill()
    process.wait()
    await asyncio.sleep(0.05)
    ends.close()
    assert ended == []


def test_the_daemon_says_so_at_once_and_not_at_its_next_beat(sleeper: str, tmp_path: Path) -> None:
    """The probe is asked every five seconds; the end of the process is told in a fraction of one."""
    name = Path(sleeper).name
    text = f"engines: [{{name: e, interval: 5s, probes: {{process: {{kind: process, name: {name}}}}}}}]\n"
    process = begin(sleeper)
    took = []
    with Daemon(tmp_path, "listen: 127.0.0.1:0\n" + text) as daemon:
        until(lambda: daemon.state() == "healthy")
        process.kill()
        began = time.monotonic()
        process.wait()
        until(lambda: daemon.state() == "unhealthy", 2)
        took.append(time.monotonic() - began)
        assert daemon.probes()["process"] == ("failing", "no_process")
        told = daemon.log()[-1]["message"]
    how = ": killed by SIGKILL" if KERNEL_TELLS else ""
    assert told == f"e healthy -> unhealthy: process: no process named '{name}', pid {process.pid} ended{how}"
    assert statistics.median(took) < 2
