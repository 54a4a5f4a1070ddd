"""The kernel's counters: made trees seen from everywhere, what cannot be read, and real processes on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from sentinel.counters import Counting
from sentinel.counters.kept import Kept
from sentinel.model import Counted, Counters, Missing, Process
from sentinel.proc import PAGE_BYTES, TICKS_PER_S
from tests.cgroups import Group, mounted
from tests.daemons import until
from tests.trees import ENGINE, MIB, PID, SYS, THROUGH_ENGINE, Machine, stat, v1, v2

if TYPE_CHECKING:
    from collections.abc import Iterator

E = "sentinel_engine_"
ME = os.getpid()  # the number of a thread in the trees, so that the kernel tells the cores of a thread: ours
CORES = frozenset(os.sched_getaffinity(0))
ONLINE = Path("/sys/devices/system/node/online")
ONE_NODE = not ONLINE.exists() or ONLINE.read_text().strip().isdigit()
SCHED = """{name} ({tid}, #threads: 2)
-------------------------------------------------------------------
se.exec_start                                :       6850832.335529
se.nr_migrations                             :                    {moves}
nr_switches                                  :                    {all}
nr_voluntary_switches                        :                    {own}
nr_involuntary_switches                      :                    {forced}
policy                                       :                    0
"""
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max processes             127238               127238               processes
Max open files            {most}                 1048576              files
"""
SNMP = "Ip: Forwarding DefaultTTL\nIp: 1 64\nTcp: RtoAlgorithm ActiveOpens RetransSegs InErrs\nTcp: 1 9 17 0\n"
NETSTAT = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 4 5\nIpExt: InNoRoutes\nIpExt: 0\n"
DEV = """Inter-|   Receive                  |  Transmit
 face |bytes packets errs drop … |bytes packets errs drop …
    lo: 1 1 0 8 0 0 0 0 1 1 0 9 0 0 0 0
  eth0: 1 1 0 3 0 0 0 0 1 1 0 2 0 0 0 0
"""
PRESSURE = "some avg10=0.00 avg60=0.00 avg300=0.00 total={some}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total={full}\n"


def process_stat(pid: int, minor: int = 0, major: int = 0, user: int = 0, system: int = 0, threads: int = 1) -> str:
    fields = stat(pid, "engine", 100, threads=threads).decode().split()
    fields[9], fields[11], fields[13], fields[14] = str(minor), str(major), str(user), str(system)
    return " ".join(fields) + "\n"


def tree(machine: Machine) -> Machine:
    """What /proc tells of the engine and of the machine, its control groups left out."""
    at = f"proc/{PID}"
    machine.write(f"{at}/stat", process_stat(PID, 500, 6, 3 * TICKS_PER_S, 2 * TICKS_PER_S, 2))
    machine.write(f"{at}/status", "Name:\tengine\nVmRSS:\t 10240 kB\nVmSwap:\t     12 kB\nThreads:\t2\n")
    machine.write(f"{at}/limits", LIMITS.format(most=1024))
    for number in range(5):
        machine.write(f"{at}/fd/{number}", "")
    thread(machine, PID, "engine", 10**9, 2 * 10**8, 70, 30, 4)
    thread(machine, ME, "md feed (1)", 3 * 10**9, 5 * 10**8, 7, 3, 9)
    for file, text in {"snmp": SNMP, "netstat": NETSTAT, "dev": DEV}.items():
        machine.write(f"{at}/net/{file}", text)
    rows = "".join(f"cpu{core} {100 + core} 1 10 9999 8888 2 3 5 77 0\n" for core in range(max(CORES) + 2))
    machine.write("proc/stat", f"cpu  1 1 1 1 1 1 1 1 1 1\n{rows}intr 12 0\n")
    for resource in ("cpu", "memory", "io"):
        machine.write(f"proc/pressure/{resource}", PRESSURE.format(some=9_000_000, full=8_000_000))
    return machine


def thread(machine: Machine, tid: int, name: str, ran: int, waited: int, own: int, forced: int, moves: int) -> None:
    at = f"proc/{PID}/task/{tid}"
    machine.write(f"{at}/schedstat", f"{ran} {waited} 100\n")
    machine.write(
        f"{at}/sched", SCHED.format(name=name, tid=tid, all=own + forced, own=own, forced=forced, moves=moves)
    )
    switches = f"voluntary_ctxt_switches:\t{own}\nnonvoluntary_ctxt_switches:\t{forced}\n"
    machine.write(f"{at}/status", f"Name:\t{name}\nState:\tS (sleeping)\n{switches}")
    machine.write(f"{at}/comm", f"{name}\n")
    machine.write(f"{at}/stat", stat(tid, name, 100).decode())


def group(
    machine: Machine, folder: str, quota: str = "max", limit: str = "max", hits: int = 0, frozen: int = 0
) -> None:
    """A whole group of version 2, as a container host has it."""
    machine.group(folder, limit, 20)
    machine.write(f"{folder}/cgroup.controllers", "cpuset cpu io memory pids\n")
    machine.write(f"{folder}/cgroup.events", f"populated 1\nfrozen {frozen}\n")
    machine.write(f"{folder}/cpu.max", f"{quota} 100000\n")
    usage = "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\ncore_sched.force_idle_usec 0\n"
    throttling = "nr_periods 100\nnr_throttled 34\nthrottled_usec 2500000\nnr_bursts 0\nburst_usec 0\n"
    machine.write(f"{folder}/cpu.stat", usage + throttling)
    machine.write(f"{folder}/memory.events", f"low 0\nhigh 0\nmax {hits}\noom 0\noom_kill 0\noom_group_kill 0\n")
    machine.write(f"{folder}/memory.numa_stat", "anon N0=100 N1=20\nfile N0=3 N1=4\nkernel_stack N0=7 N1=7\n")
    for number, resource in enumerate(("cpu", "memory", "io"), 1):
        machine.write(f"{folder}/{resource}.pressure", PRESSURE.format(some=number * 10**6, full=number * 10**5))


def old_group(
    machine: Machine, controllers: str, path: str, quota: int = -1, hits: int = 0, frozen: str = "THAWED"
) -> None:
    """What version 1 tells of one group, in the hierarchy of each controller."""
    if "cpu" in controllers:
        folder = f"{SYS}/cpu{path}"
        machine.write(f"{folder}/cpu.cfs_quota_us", f"{quota}\n")
        machine.write(f"{folder}/cpu.cfs_period_us", "100000\n")
        machine.write(f"{folder}/cpu.stat", "nr_periods 100\nnr_throttled 34\nthrottled_time 2500000000\n")
    if "memory" in controllers:
        machine.old_group(f"{SYS}/memory{path}", 64 * MIB, 20)
        machine.write(f"{SYS}/memory{path}/memory.failcnt", f"{hits}\n")
        text = "total=10 N0=7 N1=3\nfile=1 N0=1 N1=0\nhierarchical_total=99 N0=90 N1=9\n"
        machine.write(f"{SYS}/memory{path}/memory.numa_stat", text)
    if "freezer" in controllers:
        machine.write(f"{SYS}/freezer{path}/freezer.state", f"{frozen}\n")


def counting(machine: Machine) -> Counting:
    return Counting(f"{machine._folder}/proc", str(machine._folder))


def look(machine: Machine) -> Counters:
    """One look, with the paths as from the made root."""
    return shown(counting(machine).look((ENGINE,), 1000.0), machine)


def shown(seen: Counters, machine: Machine) -> Counters:
    def cut(text: object) -> object:
        return text.replace(f"{machine._folder}/", "") if isinstance(text, str) else text

    return Counters(
        tuple(Counted(tuple(map(cut, one.of)), one.totals) for one in seen.counted),
        seen.levels,
        {metric: str(cut(path)) for metric, path in seen.sources.items()},
        tuple(Missing(one.source, str(cut(one.why)), one.remedy) for one in seen.missing),
    )


def of_thread(tid: int, name: str, ran_s: float, waited_s: float, own: int, forced: int, moves: int) -> Counted:
    totals = {
        (f"{E}thread_cpu_seconds", (name,)): ran_s,
        (f"{E}run_queue_seconds", (name,)): waited_s,
        (f"{E}context_switches", (name, "voluntary")): own,
        (f"{E}context_switches", (name, "involuntary")): forced,
        (f"{E}migrations", (name,)): moves,
    }
    return Counted(("thread", PID, str(tid)), totals)


def of_group(cpu: str, memory: tuple[str, ...], hits: int, pressure: str, scope: str) -> tuple[Counted, ...]:
    host = scope == "host"
    totals = {}
    for number, resource in enumerate(("cpu", "memory", "io"), 1):
        totals[f"{E}pressure_seconds", (resource, "some", scope)] = 9.0 if host else number * 1.0
        totals[f"{E}pressure_seconds", (resource, "full", scope)] = 8.0 if host else number / 10
    throttling = {
        (f"{E}cpu_periods", ()): 100,
        (f"{E}cpu_throttled_periods", ()): 34,
        (f"{E}cpu_throttled_seconds", ()): 2.5,
    }
    return (
        Counted(("cpu", cpu), throttling),
        Counted(("memory", *memory), {(f"{E}memory_limit_hits", ()): hits}),
        Counted(("pressure", pressure), totals),
    )


def whole(groups: tuple[Counted, ...], cores: float | None, sources: dict[str, str]) -> Counters:
    """All that the tree tells, with these groups."""
    at = f"proc/{PID}"
    busy = {
        (f"{E}cpu_busy_seconds", (str(core),)): (100 + core + 1 + 10 + 2 + 3 + 5) / TICKS_PER_S
        for core in sorted(CORES)
    }
    levels: dict[tuple[str, tuple[str, ...]], float] = {
        (f"{E}threads", ()): 2,
        (f"{E}swap_bytes", ()): 12 * 1024,
        (f"{E}open_files", ()): 5,
        (f"{E}open_files_limit", ()): 1024,
        (f"{E}cpu_cores", ()): len(CORES),
        (f"{E}numa_bytes", ("0",)): 10 * MIB,
    }
    if cores is not None:
        levels[f"{E}cpu_limit_cores", ()] = cores
    counted = (
        Counted(
            ("process", PID, 100),
            {
                (f"{E}page_faults", ("minor",)): 500,
                (f"{E}page_faults", ("major",)): 6,
                (f"{E}cpu_seconds", ("user",)): 3.0,
                (f"{E}cpu_seconds", ("system",)): 2.0,
            },
        ),
        of_thread(PID, "engine", 1.0, 0.2, 70, 30, 4),
        of_thread(ME, "md feed (1)", 3.0, 0.5, 7, 3, 9),
        Counted(("cores", CORES), {**busy, (f"{E}cpu_steal_seconds", ()): 5 * len(CORES) / TICKS_PER_S}),
        Counted(
            ("network", PID, 100),
            {
                (f"{E}tcp_retransmits", ()): 17,
                (f"{E}listen_overflows", ()): 4,
                (f"{E}network_drops", ("eth0", "receive")): 3,
                (f"{E}network_drops", ("eth0", "transmit")): 2,
            },
        ),
        *groups,
        Counted(("stops", PID, 100), {(f"{E}stopped_seconds", ()): 0.0}),
    )
    files = {
        f"{at}/stat": ("page_faults", "cpu_seconds", "threads", "stopped_seconds"),
        at: ("processes",),
        f"{at}/status": ("swap_bytes",),
        f"{at}/fd": ("open_files",),
        f"{at}/limits": ("open_files_limit",),
        f"{at}/task/*/schedstat": ("run_queue_seconds", "thread_cpu_seconds"),
        f"{at}/task/*/sched": ("context_switches", "migrations"),
        "proc/stat": ("cpu_busy_seconds", "cpu_steal_seconds"),
        "sched_getaffinity(2)": ("cpu_cores",),
        f"{at}/net/snmp": ("tcp_retransmits",),
        f"{at}/net/netstat": ("listen_overflows",),
        f"{at}/net/dev": ("network_drops",),
        str(ONLINE): ("numa_bytes",),
    }
    told = {E + name: path for path, names in files.items() for name in names}
    return Counters(counted, levels, told | {E + name: path for name, path in sources.items()}, ())


def same(seen: Counters, expected: Counters) -> None:
    """Threads in any order, as a folder lists them."""
    assert sorted(seen.counted, key=repr) == sorted(expected.counted, key=repr)
    assert (seen.levels, seen.sources, seen.missing) == (expected.levels, expected.sources, expected.missing)


def sources(cpu: str, quota: str, hits: str, kills: str, pressure: str) -> dict[str, str]:
    throttling = dict.fromkeys(("cpu_periods", "cpu_throttled_periods", "cpu_throttled_seconds"), f"{cpu}/cpu.stat")
    limit = {"cpu_limit_cores": f"{cpu}/{quota}"} if quota else {}
    return {**throttling, **limit, "memory_limit_hits": hits, "oom_kills": kills, "pressure_seconds": pressure}


# --- who looks --------------------------------------------------------------------------------------------------------

VIEWS = [
    pytest.param("0::/docker/abc\n", v2("/"), "", f"{SYS}/docker/abc", id="from the host"),
    pytest.param("0::/docker/abc\n", v2("/docker/abc"), None, SYS, id="inside, with the host's namespace"),
    pytest.param("0::/../abc\n", v2("/"), v2("/../abc"), THROUGH_ENGINE, id="a sidecar with a namespace of its own"),
    pytest.param(
        "0::/docker/abc\n", v2("/docker/side"), v2("/docker/abc"), THROUGH_ENGINE, id="a sidecar with the host's"
    ),
]
one_node = pytest.mark.skipif(not ONE_NODE, reason="needs a machine of one NUMA node, as the file is not below /proc")


@one_node
@pytest.mark.parametrize(("cgroup", "own", "engine", "folder"), VIEWS)
def test_all_of_version_2(tmp_path: Path, cgroup: str, own: str, engine: str | None, folder: str) -> None:
    machine = tree(Machine(tmp_path, cgroup, own, engine))
    group(machine, SYS)
    group(machine, folder, "150000", "64", 812)
    of = of_group(folder, (folder,), 812, f"{folder}/%s.pressure", "cgroup")
    events = f"{folder}/memory.events"
    told = sources(folder, "cpu.max", events, events, f"{folder}/*.pressure")
    same(look(machine), whole(of, 1.5, told))


@one_node
def test_inside_a_namespace_of_its_own_the_pressure_is_the_host_s(tmp_path: Path) -> None:
    """Its path is `/` as that of the top is, which has no pressure of its own: the host's is not called the group's."""
    machine = tree(Machine(tmp_path, "0::/\n", v2("/")))
    group(machine, SYS, "150000", "64", 812)
    of = of_group(SYS, (SYS,), 812, "proc/pressure/%s", "host")
    events = f"{SYS}/memory.events"
    same(look(machine), whole(of, 1.5, sources(SYS, "cpu.max", events, events, "proc/pressure/*")))


@one_node
def test_the_level_with_the_smallest_quota_counts_and_every_memory_limit(tmp_path: Path) -> None:
    machine = tree(Machine(tmp_path, "0::/pod/abc\n", v2("/"), ""))
    pod, leaf = f"{SYS}/pod", f"{SYS}/pod/abc"
    group(machine, SYS)
    group(machine, pod, "50000", "128", 5)
    group(machine, leaf, "400000", "64", 7)
    of = of_group(pod, (leaf, pod), 12, f"{leaf}/%s.pressure", "cgroup")
    events = f"{pod}/memory.events"
    same(look(machine), whole(of, 0.5, sources(pod, "cpu.max", events, events, f"{leaf}/*.pressure")))


@one_node
def test_all_of_version_1(tmp_path: Path) -> None:
    groups = "".join(f"{number}:{name}:/docker/abc\n" for number, name in enumerate(("cpu", "memory", "freezer"), 1))
    own = "".join(v1("/", name) for name in ("cpu", "memory", "freezer"))
    machine = tree(Machine(tmp_path, groups, own, ""))
    old_group(machine, "cpu memory freezer", "/docker/abc", 150_000, 812)
    cpu, memory = f"{SYS}/cpu/docker/abc", f"{SYS}/memory/docker/abc"
    of = of_group(cpu, (memory,), 812, "proc/pressure/%s", "host")
    hits, kills = f"{memory}/memory.failcnt", f"{memory}/memory.oom_control"
    same(look(machine), whole(of, 1.5, sources(cpu, "cpu.cfs_quota_us", hits, kills, "proc/pressure/*")))


@pytest.mark.parametrize("version", [1, 2])
def test_a_frozen_group_stands_still(tmp_path: Path, version: int) -> None:
    """As `docker pause` makes it; no thread is in the state of a stopped one meanwhile."""
    old = "1:cpu:/e\n2:memory:/e\n3:freezer:/e\n"
    own = v1("/", "cpu") + v1("/") + v1("/", "freezer") if version == 1 else v2("/")
    machine = tree(Machine(tmp_path, old if version == 1 else "0::/e\n", own, ""))

    def freeze(frozen: bool) -> None:
        if version == 1:
            old_group(machine, "cpu memory freezer", "/e", frozen="FROZEN" if frozen else "THAWED")
        else:
            group(machine, f"{SYS}/e", frozen=int(frozen))

    counts, stopped = counting(machine), []
    for now, frozen in enumerate((False, True, True, False, False)):
        freeze(frozen)
        stopped.append(stopped_s(counts.look((ENGINE,), 1000.0 + now)))
    assert stopped == [0.0, 1.0, 2.0, 2.0, 2.0]


def stopped_s(seen: Counters) -> float:
    return total(seen, "stopped_seconds")


def total(seen: Counters, name: str, *labels: str) -> float:
    """Of all things together, the series with these label values."""
    return sum(
        value
        for one in seen.counted
        for (metric, values), value in one.totals.items()
        if metric == E + name and {*labels} <= {*values}
    )


def test_several_processes_are_added_and_the_one_nearest_to_its_file_limit_is_told(tmp_path: Path) -> None:
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e")
    other = ENGINE.replace(pid=PID + 1, start_ticks=200)
    at = f"proc/{other.pid}"
    machine.write(f"{at}/stat", process_stat(other.pid, 40, 2, threads=3))
    machine.write(f"{at}/status", "VmSwap:\t 8 kB\n")
    machine.write(f"{at}/limits", LIMITS.format(most=4))
    machine.write(f"{at}/fd/0", "")
    seen = counting(machine).look((ENGINE, other), 1000.0)
    levels = {metric.removeprefix(E): value for (metric, labels), value in seen.levels.items() if not labels}
    expected = {"threads": 5, "swap_bytes": 20 * 1024, "open_files": 1, "open_files_limit": 4, "cpu_cores": len(CORES)}
    assert levels == expected
    assert total(seen, "page_faults", "minor") == 540


# --- what cannot be read ----------------------------------------------------------------------------------------------

AS_IT = "run Sentinel with the engine's uid and gid, beside it"
SHARE = "share the engine's PID namespace and run with its uid and gid, or mount the host's cgroups"
PSI = "a kernel with CONFIG_PSI, started with psi=1, has it"
TASK = f"proc/{PID}/task"
GONE = "no such file or directory"

MISSING = [
    pytest.param(
        [f"{TASK}/{PID}/sched", f"{TASK}/{ME}/sched"],
        Missing("migrations", f"{TASK}/*/sched: no such file", "a kernel with CONFIG_SCHED_DEBUG has it"),
        id="no sched file",
    ),
    pytest.param(
        [f"{TASK}/{PID}/schedstat", f"{TASK}/{ME}/schedstat"],
        Missing("run-queue delay", f"{TASK}/*/schedstat: no such file", "a kernel with CONFIG_SCHED_INFO has it"),
        id="no schedstat",
    ),
    pytest.param(
        [f"{SYS}/e/{resource}.pressure" for resource in ("cpu", "memory", "io")],
        Missing("pressure", f"{SYS}/e/io.pressure: {GONE}", PSI),
        id="no PSI",
    ),
    pytest.param(
        [f"{SYS}/e/cpu.stat"], Missing("CPU throttling", f"{SYS}/e/cpu.stat: {GONE}", SHARE), id="no cpu controller"
    ),
    pytest.param(
        [f"{SYS}/e/memory.events"],
        Missing("reclaim at the memory limit", "memory.events: not seen", SHARE),
        id="no memory events",
    ),
    pytest.param(
        [f"proc/{PID}/limits"], Missing("open files", f"proc/{PID}/fd: {GONE}", AS_IT), id="no limit of open files"
    ),
    pytest.param(
        [f"proc/{PID}/net/dev"], Missing("network", f"proc/{PID}/net/dev: {GONE}", AS_IT), id="no table of devices"
    ),
    pytest.param(
        ["proc/stat"], Missing("use of each core", f"proc/stat: {GONE}", "mount the host's /proc"), id="no use of cores"
    ),
]


@pytest.mark.parametrize(("removed", "expected"), MISSING)
def test_what_cannot_be_read_is_named(tmp_path: Path, removed: list[str], expected: Missing) -> None:
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e")
    for path in removed:
        machine.remove(path)
    counts = counting(machine)
    for now in (1000.0, 1001.0):  # and said the same again
        assert shown(counts.look((ENGINE,), now), machine).missing == (expected,)


def test_without_the_sched_file_switches_come_from_status_and_no_migrations_are_told(tmp_path: Path) -> None:
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e")
    machine.remove(f"{TASK}/{PID}/sched").remove(f"{TASK}/{ME}/sched")
    seen = look(machine)
    assert [total(seen, "context_switches", kind) for kind in ("voluntary", "involuntary")] == [77, 33]
    assert f"{E}migrations" not in {metric for one in seen.counted for metric, _ in one.totals}
    assert f"{E}migrations" not in seen.sources


def test_a_folder_of_files_that_may_not_be_listed_is_named(tmp_path: Path) -> None:
    """A link that leads to itself is refused to root as well."""
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e")
    folder = tmp_path / f"proc/{PID}/fd"
    folder.rename(folder.with_name("old"))
    folder.symlink_to("fd")
    assert look(machine).missing == (Missing("open files", f"proc/{PID}/fd: too many levels of symbolic links", AS_IT),)


def test_without_any_group_that_is_seen_all_of_them_are_named(tmp_path: Path) -> None:
    seen = look(tree(Machine(tmp_path, "0::/../abc\n", v2("/"), v2("/../abc"))))
    assert seen.missing == (
        Missing("CPU throttling", "cpu.stat: no control group with cpu is seen", SHARE),
        Missing("reclaim at the memory limit", "memory.events: not seen", SHARE),
    )


def test_of_very_many_threads_the_first_are_looked_at(tmp_path: Path) -> None:
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e")
    for number in range(1, 200):
        thread(machine, PID + number, "pool", 1, 1, 1, 1, 1)
    seen = look(machine)
    why = "only the first 128 are looked at"
    assert seen.missing == (Missing("some threads", f"{TASK}: {why}", "their CPU time is in that of the process"),)
    assert len([one for one in seen.counted if one.of[0] == "thread"]) == 128


NODES = [
    pytest.param(2, "/e", {"0": 103.0, "1": 24.0}, id="version 2, in bytes"),
    pytest.param(1, "/e", {"0": 7.0 * PAGE_BYTES, "1": 3.0 * PAGE_BYTES}, id="version 1, in pages"),
    pytest.param(2, "/", {}, id="no group of its own"),
]


@pytest.mark.parametrize(("version", "path", "expected"), NODES)
def test_memory_of_several_nodes_is_that_of_the_group(
    tmp_path: Path, version: int, path: str, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sentinel import counters  # beside the one use

    really = counters.read
    # No machine of several nodes is at hand, and the file is not below /proc.
    monkeypatch.setattr(counters, "read", lambda path: b"0-1\n" if path == str(ONLINE) else really(path))
    machine = tree(Machine(tmp_path, f"1:memory:{path}\n" if version == 1 else f"0::{path}\n", v1("/") + v2("/"), ""))
    group(machine, f"{SYS}{path.rstrip('/')}")
    if version == 1:
        old_group(machine, "memory", path)
    seen = look(machine)
    told = {labels[0]: value for (metric, labels), value in seen.levels.items() if metric == f"{E}numa_bytes"}
    missing = [one for one in seen.missing if one.source == "memory by NUMA node"]
    remedy = "give the engine a control group of its own"
    without = [Missing("memory by NUMA node", "memory.numa_stat: no group of its own", remedy)]
    assert (told, missing) == (expected, [] if expected else without)


def test_a_thread_that_ends_while_it_is_read_hides_no_other(tmp_path: Path) -> None:
    """Of all but one of these numbers the kernel knows no thread, as of one that ended: the cores of that one count."""
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e")
    machine.write(f"{TASK}/{PID + 1}/gone", "")
    seen = look(machine)
    assert seen.levels[f"{E}cpu_cores", ()] == len(CORES)
    assert {one.of[2] for one in seen.counted if one.of[0] == "thread"} == {str(PID), str(ME)}
    assert seen.missing == ()


FILES = [
    f"proc/{PID}/stat",
    f"proc/{PID}/status",
    f"proc/{PID}/limits",
    f"proc/{PID}/cgroup",
    f"{TASK}/{ME}/schedstat",
    f"{TASK}/{ME}/sched",
    f"{TASK}/{ME}/status",
    f"proc/{PID}/net/snmp",
    f"proc/{PID}/net/netstat",
    f"proc/{PID}/net/dev",
    "proc/stat",
    f"{SYS}/e/cpu.stat",
    f"{SYS}/e/cpu.max",
    f"{SYS}/e/memory.events",
    f"{SYS}/e/cpu.pressure",
    f"{SYS}/e/cgroup.events",
]


@pytest.mark.parametrize("content", [None, "", "\n", "junk\n", "a b c d\n", "Tcp: 1\nTcpExt: 2\ncpu0 x\n"])
@pytest.mark.parametrize("path", FILES, ids=[path.replace(str(ME), "TID") for path in FILES])
def test_whatever_a_file_holds_or_lacks_a_look_raises_nothing(tmp_path: Path, path: str, content: str | None) -> None:
    """As where a process, a thread or a group ends in the middle of it."""
    machine = tree(Machine(tmp_path, "0::/e\n", v2("/"), ""))
    group(machine, f"{SYS}/e", "50000", "64")
    counts = counting(machine)
    counts.look((ENGINE,), 1000.0)
    if content is None:
        machine.remove(path)
    else:
        machine.write(path, content)
    counts.pulse(1000.5)
    counts.look((ENGINE,), 1011.0)
    counting(machine).look((ENGINE,), 1000.0)


def test_of_a_process_that_ended_there_is_nothing_and_nothing_is_raised() -> None:
    counts = Counting()
    with subprocess.Popen(["sleep", "60"]) as process:
        one = of(process.pid)
        counts.look((one,), 1.0)
        process.kill()
    counts.pulse(1.1)
    seen = counts.look((one,), 2.0)
    assert [kind for kind in ("process", "thread") if kind in {part.of[0] for part in seen.counted}] == []


# --- real processes ---------------------------------------------------------------------------------------------------

BUSY = """
import sys, threading, time
def work():
    while True:
        time.sleep(0.001)
threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
for thread in threads:
    thread.start()
files = [open("/dev/null") for _ in range(20)]
print("ready", flush=True)
for line in sys.stdin:
    block = bytearray(8 << 20)
    block[::4096] = b"x" * len(range(0, len(block), 4096))
    print("touched", flush=True)
"""


def of(pid: int) -> Process:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Process(pid, int(fields[19]), 0.0, 0.0, "busy", psutil.Process(pid).memory_info().rss, int(fields[17]))


@contextmanager
def busy() -> Iterator[subprocess.Popen[str]]:
    """Four threads, of which three wake a thousand times a second; each line that it reads makes it touch 8 MiB."""
    words = [sys.executable, "-c", BUSY]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_real_process_is_counted_as_psutil_counts_it() -> None:
    with busy() as process:
        oracle, counts, one = psutil.Process(process.pid), Counting(), of(process.pid)

        def told() -> tuple[float, float, float, float]:
            seen = counts.look((one,), time.monotonic())
            by = [total(seen, "context_switches", kind) for kind in ("voluntary", "involuntary")]
            cpu = [total(seen, "cpu_seconds", mode) for mode in ("user", "system")]
            return by[0], cpu[0], cpu[1], total(seen, "page_faults", "minor")

        def known() -> tuple[float, float, float, float]:
            tasks = [Path(f"/proc/{process.pid}/task/{task.id}/status").read_text() for task in oracle.threads()]
            switches = sum(int(text.partition("\nvoluntary_ctxt_switches:")[2].split()[0]) for text in tasks)
            times = oracle.cpu_times()
            faults = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[7])
            return switches, times.user, times.system, faults

        for _ in range(3):  # it goes on meanwhile: between two tellings of the other
            below, mine, above = known(), told(), known()
            assert all(low <= value <= high for low, value, high in zip(below, mine, above, strict=True))
        seen = counts.look((one,), time.monotonic())
        assert seen.levels[f"{E}open_files", ()] == oracle.num_fds() == len(os.listdir(f"/proc/{process.pid}/fd"))  # noqa: PTH208  # the fact itself
        assert seen.levels[f"{E}open_files_limit", ()] == oracle.rlimit(psutil.RLIMIT_NOFILE)[0]
        assert seen.levels[f"{E}threads", ()] == oracle.num_threads() == 4
        assert seen.levels[f"{E}cpu_cores", ()] == len(oracle.cpu_affinity())
        assert seen.missing == ()


def test_the_counters_of_a_real_process_rise_as_it_works() -> None:
    with busy() as process:
        counts, one = Counting(), of(process.pid)
        before = counts.look((one,), time.monotonic())

        def risen(name: str, *labels: str) -> float:
            return total(counts.look((one,), time.monotonic()), name, *labels) - total(before, name, *labels)

        until(lambda: risen("context_switches", "voluntary") > 300)
        assert risen("thread_cpu_seconds") > 0
        assert risen("run_queue_seconds") > 0
        faults = risen("page_faults", "minor")
        print("touch", file=process.stdin)
        assert process.stdout is not None
        assert process.stdout.readline() == "touched\n"
        assert risen("page_faults", "minor") - faults >= (8 << 20) / PAGE_BYTES / 512  # in huge pages at the least


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_the_cores_are_those_that_its_threads_may_run_on() -> None:
    core = min(CORES)
    with busy() as process:
        for tid in os.listdir(f"/proc/{process.pid}/task"):  # noqa: PTH208  # numbers, not paths
            os.sched_setaffinity(int(tid), {core})
        seen = Counting().look((of(process.pid),), 1.0)
    told = {labels for one in seen.counted for metric, labels in one.totals if metric == f"{E}cpu_busy_seconds"}
    assert (told, seen.levels[f"{E}cpu_cores", ()]) == ({(str(core),)}, 1)


@pytest.mark.alone
def test_a_stop_of_300_ms_is_seen_by_the_pulse() -> None:
    with busy() as process:
        counts, one = Counting(), of(process.pid)
        began = time.monotonic()
        counts.look((one,), began)
        stopped = False
        while (passed_s := time.monotonic() - began) < 0.8:
            if stopped != (wanted := 0.2 <= passed_s < 0.5):
                process.send_signal(signal.SIGSTOP if wanted else signal.SIGCONT)
                stopped = wanted
            counts.pulse(time.monotonic())
            time.sleep(0.02)
        assert 0.2 <= stopped_s(counts.look((one,), time.monotonic())) <= 0.5


def test_a_listen_queue_that_overflows_is_counted() -> None:
    one, counts = of(os.getpid()), Counting()
    before = total(counts.look((one,), 1.0), "listen_overflows")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        callers = []
        for _ in range(8):
            caller = socket.socket()
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
            callers.append(caller)
        until(lambda: total(counts.look((one,), 2.0), "listen_overflows") > before)
        for caller in callers:
            caller.close()


@pytest.mark.alone
@pytest.mark.skipif(mounted("cpu") is None, reason="needs a cpu cgroup that can be written, as root")
def test_a_real_quota_throttles_and_is_counted() -> None:
    with Group("cpu") as real:
        real.limit_cpu(0.1)
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
            try:
                real.add(process.pid)
                one, counts = of(process.pid), Counting()
                before = counts.look((one,), 1.0)
                until(lambda: total(counts.look((one,), 2.0), "cpu_throttled_periods") > 5)
                seen = counts.look((one,), 3.0)
            finally:
                process.kill()
    names = ("cpu_periods", "cpu_throttled_periods", "cpu_throttled_seconds")
    periods, throttled, seconds = (total(seen, name) - total(before, name) for name in names)
    assert seen.levels[f"{E}cpu_limit_cores", ()] == 0.1
    assert 0 < throttled <= periods
    assert 0.01 * throttled < seconds < 0.2 * throttled


# --- files that are kept open ---------------------------------------------------------------------------------------


def held(folder: Path) -> list[str]:
    """The files below this folder that this process has open."""
    links = [path for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return sorted(name for name in map(os.readlink, links) if name.startswith(str(folder)))


def test_what_is_read_again_is_kept_open_and_no_more_than_allowed(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text("1")
    kept = Kept(2)
    for text in ("1", "2"):
        for path in paths:
            path.write_text(text)
            assert kept.read(str(path)) == text.encode()
    assert held(tmp_path) == [str(paths[0]), str(paths[1])]
    kept.sweep()
    kept.read(str(paths[1]))
    kept.sweep()
    assert held(tmp_path) == [str(paths[1])]
    kept.close()
    assert held(tmp_path) == []


def test_a_thread_that_ended_is_let_go_and_who_gets_its_number_is_read() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        kept, path = Kept(1), f"/proc/{process.pid}/schedstat"
        kept.read(path)
        process.kill()
        process.wait()
        with pytest.raises(OSError, match="No such process"):
            kept.read(path)
    assert held(Path(f"/proc/{process.pid}")) == []
    with pytest.raises(FileNotFoundError):
        kept.read(path)
