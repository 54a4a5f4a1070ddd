"""The kernel's count of processes killed for lack of memory, and what the process probe says of such an end."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from sentinel.fetch.kills import OomKills
from sentinel.model import Process
from tests.cgroups import Group, mounted
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from pathlib import Path

needs_group = pytest.mark.skipif(mounted("memory") is None, reason="needs a memory cgroup that can be written, as root")

EATER = """
import sys
print(flush=True)
sys.stdin.readline()
kept = bytearray(256 << 20)
kept[::4096] = b"x" * len(range(0, len(kept), 4096))
sys.stdin.readline()
"""


def one(pid: int) -> Process:
    return Process(pid, 1, 0.0, 0.0, "e", 0, 1)


@needs_group
def test_the_count_of_the_group_rises_and_stays_known_when_the_process_is_gone() -> None:
    kills = OomKills()
    with Group("memory") as group:
        group.limit_memory(64 << 20)
        with subprocess.Popen([sys.executable, "-c", EATER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as eater:
            assert eater.stdin is not None and eater.stdout is not None  # noqa: PT018  # for the type checker
            eater.stdout.readline()
            group.add(eater.pid)
            before = kills.count("e", [one(eater.pid)])
            eater.stdin.write(b"\n")
            eater.stdin.flush()
            assert eater.wait(30) == -9
        assert before is not None
        assert kills.count("e", []) == before + 1
    assert kills.count("e", []) is None, "the group is gone"


@pytest.mark.parametrize(
    ("version", "text", "count"),
    [
        pytest.param(2, "low 0\nhigh 3\nmax 812\noom 2\noom_kill 1\noom_group_kill 0\n", 1, id="v2"),
        pytest.param(1, "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7, id="v1"),
        pytest.param(1, "oom_kill_disable 0\nunder_oom 0\n", None, id="v1 of a kernel before 4.13"),
    ],
)
def test_both_versions_are_read(tmp_path: Path, version: int, text: str, count: int | None) -> None:
    proc, group = tmp_path / "proc", tmp_path / "sys/fs/cgroup/e"
    for folder in (proc / "self", proc / "7", group):
        folder.mkdir(parents=True)
    kind, options, name = (
        ("cgroup2", "rw", "memory.events") if version == 2 else ("cgroup", "rw,memory", "memory.oom_control")
    )
    (proc / "self/mountinfo").write_text(f"30 20 0:26 / /sys/fs/cgroup rw - {kind} cgroup {options}\n")
    (proc / "7/cgroup").write_text("0::/e\n" if version == 2 else "4:memory:/e\n")
    (group / name).write_text(text)
    kills = OomKills(str(proc), str(tmp_path))
    assert kills.count("e", [one(7)]) == count
    assert kills.count("e", []) == count


def test_without_a_group_the_host_s_count_is_taken(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text("0::/\n")
    (tmp_path / "vmstat").write_text("pgfault 12\noom_kill 3\n")
    assert OomKills(str(tmp_path)).count("e", [one(7)]) == 3


def test_of_one_that_never_ran_nothing_is_known() -> None:
    assert OomKills().count("e", []) is None


@needs_group
def test_the_daemon_says_that_the_engine_was_killed_for_lack_of_memory(tmp_path: Path) -> None:
    """The stand-in grows over the limit of its group by 16 MiB a second."""
    with Group("memory") as group, Engine(name=f"oom-{time.time_ns() % 10**9}") as engine:
        group.add(engine.pid)
        group.limit_memory(64 << 20)
        text = f"engines: [{{name: e, probes: {{process: {{kind: process, name: {engine.name}}}}}}}]\n"
        with Daemon(tmp_path, "listen: 127.0.0.1:0\n" + text) as daemon:
            until(lambda: daemon.state() == "healthy")
            engine.fault("memory")
            until(lambda: daemon.state() == "unhealthy")
            assert daemon.probes()["process"] == ("failing", "oom_killed")
            told = daemon.log()[-1]["message"]
    assert told == (
        f"e healthy -> unhealthy: process: no process named '{engine.name}', pid {engine.pid} ended: "
        "killed by the kernel for lack of memory"
    )
