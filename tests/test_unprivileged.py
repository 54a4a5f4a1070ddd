"""The daemon as an ordinary user without any capability: beside an engine of the same user, and of another one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel.counters import Counting
from sentinel.probes.evidence import METRICS
from sentinel.proc import Clocks, find
from tests.daemons import Daemon, until
from tests.engines import Engine
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

BIND = 'mount --bind "$1" "$4/python" && mount --bind "$2" "$4/packages" && mount --bind "$3" "$4/code" && shift 4'
NO_GROUPS = "umount --lazy --recursive /sys/fs/cgroup"
ROOT_ONLY = os.getuid() != 0 or bool(subprocess.run(["unshare", "-m", "true"], check=False).returncode)
pytestmark = [
    needs("unshare", "setpriv"),
    pytest.mark.skipif(ROOT_ONLY, reason="needs root, to become other users, and mounts of its own"),
]
CONFIG = """\
listen: 127.0.0.1:0
engines:
  - name: e
    probes:
      health: {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory: {{kind: memory, max: 99%}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: latency_p99, max: 10s}}
"""
PASSES = ("passing", "")


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder that every user may read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for place in (path, *(path / name for name in ("python", "packages", "code"))):
            place.mkdir(exist_ok=True)
            place.chmod(0o755)
        yield path


def python_as(uid: int, home: Path, before: str = "true") -> tuple[str, ...]:
    """The command that runs this Python, these packages and this code as a user without any capability.

    They may lie below a folder that is root's alone: in mounts of its own the process has them in `home`.
    """
    base = Path(sys.base_prefix)
    program = home / "python" / Path(sys.executable).resolve().relative_to(base.resolve())
    code = Path(__file__).parents[1]
    return (
        *("unshare", "--mount", "sh", "-c", f'{before} && {BIND} && exec "$@"', "sh"),
        *(str(base), sysconfig.get_path("purelib"), str(code), str(home)),
        *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"),
        *(
            "--no-new-privs",
            "env",
            f"PYTHONPATH={home}/packages:{home}/code",
            "PYTHONDONTWRITEBYTECODE=1",
            f"LD_LIBRARY_PATH={home}/python/lib",  # where Python is linked with a library of its own
            str(program),
        ),
    )


def told_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def assert_without_privileges(daemon: Daemon, uid: int) -> None:
    told = told_of(daemon.process.pid)
    assert told["Uid"].split() == [str(uid)] * 4
    assert told["Gid"].split() == [str(uid)] * 4
    assert (told["Groups"].strip(), told["NoNewPrivs"]) == ("", "1")
    assert {int(told[f"Cap{which}"], 16) for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {0}


def all_pass(daemon: Daemon) -> bool:
    return set(daemon.probes().values()) == {PASSES}


@pytest.mark.parametrize("before", ["true", NO_GROUPS], ids=["with our mounts", "through the engine's root"])
def test_beside_an_engine_of_the_same_user_nothing_is_missing(home: Path, before: str) -> None:
    """But for what this machine lacks to root as well."""
    name = f"own-{os.getpid()}"
    with Engine(name=name, python=python_as(1000, home)) as engine:
        python = python_as(1000, home, before)
        with Daemon(home, CONFIG.format(engine=engine), python) as daemon:
            until(lambda: all_pass(daemon))
            assert_without_privileges(daemon, 1000)
            clocks = Clocks(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
            known = Counting().look(find(name, clocks), clocks.mono)  # as root
            names = {metric for metric, _ in known.levels} | {at[0] for one in known.counted for at in one.totals}
            status = daemon.status()["engines"][0]
            page = daemon.get("/metrics")[1]
            log = daemon.log()
    shown = {metric.name for metric in METRICS if f"\n{metric.name}{'_total' * (metric.type == 'counter')}{{" in page}
    assert shown == names
    lacks = {one.source for one in known.missing}
    assert {one["source"] for one in status["unreadable"]} == lacks
    assert len([row for row in log if " unreadable: " in row["message"]]) == len(lacks)


def test_beside_an_engine_of_another_user_what_is_missing_is_named_once(home: Path) -> None:
    """Without the host's control groups, those of the engine are seen through its root only, which is refused."""
    with Engine(name=f"other-{os.getpid()}", python=python_as(1001, home)) as engine:
        with Daemon(home, CONFIG.format(engine=engine), python_as(1000, home, NO_GROUPS)) as daemon:
            until(lambda: all_pass(daemon))
            assert_without_privileges(daemon, 1000)
            at = 'sentinel_probe_last_answer_timestamp_seconds{engine="e",kind="evidence",probe="evidence"}'
            looked = daemon.metric(at) or 0.0
            until(lambda: (daemon.metric(at) or 0.0) > looked + 2)  # and more than one look says no more than one
            assert {"health", "process", "memory", "latency"} <= daemon.probes().keys()
            assert all_pass(daemon)
            unreadable = daemon.status()["engines"][0]["unreadable"]
            log = [row["message"] for row in daemon.log()]
    names = [one["source"] for one in unreadable]
    assert {"CPU throttling", "reclaim at the memory limit"} <= {*names}
    assert all(one["why"] and one["remedy"] for one in unreadable)
    told = Counter(row.partition(" unreadable: ")[2].partition(":")[0] for row in log if " unreadable: " in row)
    assert told == dict.fromkeys(names, 1)
