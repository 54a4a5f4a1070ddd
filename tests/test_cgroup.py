"""Control groups: made trees of every view that there is, and one real group on this machine."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentinel.cgroup import CgroupError, Level, memory_use, parse_mountinfo
from sentinel.fetch.local import Local
from sentinel.model import MemoryUse, ReadMemory
from tests.trees import ENGINE, MIB, NONE, PID, SYS, THROUGH_ENGINE, Machine, v1, v2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def host(tmp_path: Path) -> Machine:
    """Version 2, seen from the host: the engine is in /app.slice/engine."""
    return Machine(tmp_path, "0::/app.slice/engine\n", v2("/"))


LEAF = f"{SYS}/app.slice/engine"
PARENT = f"{SYS}/app.slice"
OF_HOST = MemoryUse(10 * MIB, 1024 * MIB, 10 * MIB, "host")


def of_leaf(used: int, limit: int) -> MemoryUse:
    return MemoryUse(used * MIB, limit * MIB, 10 * MIB, "cgroup /app.slice/engine")


def of_parent(used: int, limit: int) -> MemoryUse:
    return MemoryUse(used * MIB, limit * MIB, 10 * MIB, "cgroup /app.slice")


# --- which limit ------------------------------------------------------------------------------------------------------


def test_the_limit_of_its_own_group(host: Machine) -> None:
    assert host.group(LEAF, "64", 20).group(PARENT, "max", 30).use() == of_leaf(20, 64)


def test_the_limit_of_a_parent_alone_counts_all_that_is_in_the_parent(host: Machine) -> None:
    assert host.group(LEAF, "max", 20).group(PARENT, "100", 90).use() == of_parent(90, 100)


def test_without_a_limit_it_is_the_host_s(host: Machine) -> None:
    assert host.group(LEAF, "max", 20).group(PARENT, "max", 90).use() == OF_HOST


def test_of_several_limits_the_one_that_is_reached_first_counts(host: Machine) -> None:
    assert host.group(LEAF, "64", 20).group(PARENT, "200", 190).use() == of_parent(190, 200)
    assert host.group(LEAF, "64", 62).group(PARENT, "200", 190).use() == of_leaf(62, 64)


def test_the_host_s_limit_counts_where_it_is_reached_first(host: Machine) -> None:
    engine = ENGINE.replace(rss_bytes=900 * MIB)
    assert host.group(LEAF, "1000", 20).use(engine) == MemoryUse(900 * MIB, 1024 * MIB, 900 * MIB, "host")


def test_several_processes_are_counted_together(host: Machine) -> None:
    assert host.group(LEAF, "max", 20).use(ENGINE, ENGINE.replace(pid=8)) == MemoryUse(
        20 * MIB, 1024 * MIB, 20 * MIB, "host"
    )


def test_processes_in_several_groups_have_the_limits_of_each(host: Machine) -> None:
    host.group(LEAF, "64", 20).group(f"{PARENT}/worker", "64", 63).write("proc/8/cgroup", "0::/app.slice/worker\n")
    use = host.use(ENGINE, ENGINE.replace(pid=8))
    assert use == MemoryUse(63 * MIB, 64 * MIB, 20 * MIB, "cgroup /app.slice/worker")


def test_a_process_that_ended_meanwhile_hides_no_limit_of_the_others(host: Machine) -> None:
    host.group(LEAF, "64", 60)
    assert host.use(ENGINE.replace(pid=6, rss_bytes=0), ENGINE) == of_leaf(60, 64)


def test_no_process_uses_no_memory_that_could_be_judged(host: Machine) -> None:
    with pytest.raises(CgroupError) as caught:
        memory_use((), str(host._folder / "proc"), str(host._folder))
    assert caught.value.reason == "no_process"


def test_a_limit_of_nothing_is_one(host: Machine) -> None:
    assert host.group(LEAF, "0", 20).use() == MemoryUse(20 * MIB, 1, 10 * MIB, "cgroup /app.slice/engine")


def test_file_pages_that_the_kernel_drops_first_are_taken_off(host: Machine) -> None:
    assert host.group(LEAF, "64", 60, inactive=35).use() == of_leaf(25, 64)


def test_more_pages_to_drop_than_are_used_is_nothing_used_and_not_less(host: Machine) -> None:
    assert host.group(LEAF, "64", 5, inactive=6).use(ENGINE.replace(rss_bytes=0)).used_bytes == 0


def test_a_limit_above_the_host_s_memory_is_none(host: Machine) -> None:
    assert host.group(LEAF, "1025", 1000).use() == OF_HOST
    assert host.group(LEAF, "1024", 1000).use() == of_leaf(1000, 1024)


@pytest.mark.parametrize("name", ["memory.max", "memory.current", "memory.stat"])
def test_a_level_that_lacks_a_file_is_passed_over_and_its_parent_is_not(host: Machine, name: str) -> None:
    host.group(LEAF, "64", 63).group(PARENT, "100", 50).remove(f"{LEAF}/{name}")
    assert host.use() == of_parent(50, 100)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "64M", "½"])
def test_a_limit_that_is_no_number_is_not_guessed(host: Machine, text: str) -> None:
    assert host.group(LEAF, text, 20).use() == OF_HOST


def test_numbers_of_a_group_that_are_none_are_passed_over(host: Machine) -> None:
    host.group(LEAF, "64", 20).write(f"{LEAF}/memory.stat", "inactive_file many\n")
    assert host.use() == OF_HOST


def test_without_meminfo_the_group_s_limit_is_left(host: Machine) -> None:
    assert host.group(LEAF, "64", 20).remove("proc/meminfo").use() == of_leaf(20, 64)


@pytest.mark.parametrize(("path", "hidden"), [(f"proc/{PID}/cgroup", ""), ("proc/self/mountinfo", "/app.slice/engine")])
def test_without_what_says_the_group_it_is_the_host_s(host: Machine, path: str, hidden: str) -> None:
    host.group(LEAF, "64", 20).write(f"proc/{PID}/mountinfo", "")
    assert host.remove(path).use() == OF_HOST.replace(hidden=hidden)


@pytest.mark.parametrize("text", ["", "MemFree: 1 kB\n", "MemTotal:\n", "MemTotal: much\n", "MemTotal: 0 kB\n"])
def test_nothing_to_be_read_is_one_sentence(tmp_path: Path, host: Machine, text: str) -> None:
    host.write("proc/meminfo", text)
    with pytest.raises(CgroupError) as caught:
        host.use()
    assert caught.value.reason == "no_access"
    assert str(caught.value) == f"neither {tmp_path}/proc/meminfo nor a cgroup's limit can be read"


# --- who looks --------------------------------------------------------------------------------------------------------

VIEWS = [
    pytest.param(
        "0::/docker/abc\n",
        v2("/"),
        "",
        [(f"{SYS}/docker/abc", "/docker/abc"), (f"{SYS}/docker", "/docker"), (SYS, "/")],
        id="from the host it climbs above the container",
    ),
    pytest.param("0::/\n", v2("/"), None, [(SYS, "/")], id="inside, with a namespace of its own"),
    pytest.param(
        "0::/docker/abc\n",
        v2("/docker/abc"),
        None,
        [(SYS, "/docker/abc")],
        id="inside, with the host's namespace: the mount is the container's group",
    ),
    pytest.param(
        "0::/docker/abc/worker\n",
        v2("/docker/abc"),
        None,
        [(f"{SYS}/worker", "/docker/abc/worker"), (SYS, "/docker/abc")],
        id="inside, in a group below the container's",
    ),
    pytest.param(
        "0::/../abc\n",
        v2("/"),
        v2("/../abc"),
        [(THROUGH_ENGINE, "/../abc")],
        id="a sidecar with a namespace of its own reads through the engine's root",
    ),
    pytest.param(
        "0::/../abc/worker\n",
        v2("/"),
        v2("/../abc"),
        [(f"{THROUGH_ENGINE}/worker", "/../abc/worker"), (THROUGH_ENGINE, "/../abc")],
        id="a sidecar, and the engine in a group below its container's",
    ),
    pytest.param(
        "0::/docker/ENGINE\n",
        v2("/docker/SIDECAR"),
        v2("/docker/ENGINE"),
        [(THROUGH_ENGINE, "/docker/ENGINE")],
        id="a sidecar with the host's namespace",
    ),
    pytest.param(
        "0::/docker/abcd\n",
        v2("/docker/abc"),
        v2("/docker/abcd"),
        [(THROUGH_ENGINE, "/docker/abcd")],
        id="a group whose name only begins like ours is not below it",
    ),
    pytest.param("0::/..\n", v2("/"), "", [], id="a group above our namespace is not ours"),
    pytest.param("0::/../../abc\n", v2("/.."), "", [], id="a group above the mount is not below it"),
    pytest.param(
        "4:memory:/docker/ENGINE\n0::/docker/ENGINE\n",
        v1("/docker/SIDECAR"),
        v1("/docker/ENGINE"),
        [(f"{THROUGH_ENGINE}/memory", "/docker/ENGINE")],
        id="a sidecar on version 1, with the host's namespace",
    ),
    pytest.param(
        "5:cpu,cpuacct:/cpu\n4:memory:/docker/abc\n1:name=systemd:/memory\n",
        v1("/", "cpu") + v1("/"),
        "",
        [
            (f"{SYS}/memory/docker/abc", "/docker/abc"),
            (f"{SYS}/memory/docker", "/docker"),
            (f"{SYS}/memory", "/"),
        ],
        id="version 1 from the host, among other hierarchies",
    ),
    pytest.param(
        "4:memory:/old\n0::/new\n",
        v2("/", "/sys/fs/cgroup/unified") + v1("/"),
        "",
        [(f"{SYS}/memory/old", "/old"), (f"{SYS}/memory", "/")],
        id="a hybrid with memory in version 1",
    ),
    pytest.param(
        "5:cpu:/old\n1:name=systemd:/old\n0::/new\n",
        v1("/", "cpu") + v2("/", "/sys/fs/cgroup/unified"),
        "",
        [(f"{SYS}/unified/new", "/new"), (f"{SYS}/unified", "/")],
        id="a hybrid with memory in version 2",
    ),
    pytest.param(
        "4:cpu,memory:/abc\n",
        v1("/", "memory,cpu", "/cgroup/both"),
        "",
        [("cgroup/both/abc", "/abc"), ("cgroup/both", "/")],
        id="two controllers in one hierarchy, mounted elsewhere",
    ),
    pytest.param(
        "0::/a b\\\n",
        v2("/", "/sys/fs/my\\040c\\134g\\011\\012"),
        "",
        [("sys/fs/my c\\g\t\n/a b\\", "/a b\\"), ("sys/fs/my c\\g\t\n", "/")],
        id="space, tab, newline and backslash in a mount point are escaped, in a group they are not",
    ),
    pytest.param(
        "0::/a b/c\n",
        v2("/a\\040b"),
        "",
        [(f"{SYS}/c", "/a b/c"), (SYS, "/a b")],
        id="a space in the root of the mount",
    ),
    pytest.param(
        "0::/a\u2028b\x0cc\n",
        v2("/", "/cg\x0b\u0085roup"),
        "",
        [("cg\x0b\u0085roup/a\u2028b\x0cc", "/a\u2028b\x0cc"), ("cg\x0b\u0085roup", "/")],
        id="what Python takes for the end of a line is none",
    ),
    pytest.param(
        "0::/abc\n", v2("/other") + v2("/", "/mnt/cg"), "", [("mnt/cg/abc", "/abc"), ("mnt/cg", "/")], id="two mounts"
    ),
    pytest.param("5:cpu:/abc\n", v1("/", "cpu"), "", [], id="no memory controller at all"),
    pytest.param("0::/abc\n", v1("/"), "", [], id="version 2 is not mounted"),
    pytest.param("4:memory:/abc\n", v2("/"), "", [], id="version 1 is not mounted"),
    pytest.param("", v2("/"), "", [], id="no group"),
]


@pytest.mark.parametrize(("cgroup", "own", "engine", "expected"), VIEWS)
def test_the_groups_above_a_process_as_seen(
    tmp_path: Path, cgroup: str, own: str, engine: str | None, expected: list[tuple[str, str]]
) -> None:
    machine = Machine(tmp_path, cgroup, own, engine)
    for folder in (SYS, f"{SYS}/memory", *(folder for folder, _ in expected)):  # ours is there too, and is not it
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "sys/fs/cgroup/cpu/abc").mkdir(parents=True)
    version = 1 if "memory:/" in cgroup else 2
    assert machine.levels() == [Level(path, folder, version) for folder, path in expected]


def test_a_group_that_was_removed_has_no_levels(tmp_path: Path) -> None:
    (tmp_path / SYS).mkdir(parents=True)
    assert Machine(tmp_path, "0::/abc (deleted)\n", v2("/")).levels() == []


def test_a_sidecar_reports_the_engine_s_limit_and_not_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/../abc\n", v2("/"), v2("/../abc"))
    machine.group(SYS, "32", 31).group(THROUGH_ENGINE, "64", 20)
    assert machine.use() == MemoryUse(20 * MIB, 64 * MIB, 10 * MIB, "cgroup /../abc")


def test_a_sidecar_that_may_not_look_through_the_engine_s_root_reports_no_limit_of_its_own(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/../abc\n", v2("/"), v2("/../abc"))
    assert machine.group(SYS, "32", 31).use() == OF_HOST.replace(hidden="/../abc")


def test_the_parent_of_our_namespace_is_not_taken_for_us(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/..\n", v2("/"), "")
    assert machine.group(SYS, "32", 31).use() == OF_HOST.replace(hidden="/..")


def test_version_1_counts_its_groups_with_what_is_below_them(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/docker/abc\n", v1("/"))
    machine.old_group(f"{SYS}/memory", NONE, 900).old_group(f"{SYS}/memory/docker", NONE, 800)
    machine.old_group(f"{SYS}/memory/docker/abc", 64 * MIB, 60, inactive=35)
    assert machine.use() == MemoryUse(25 * MIB, 64 * MIB, 10 * MIB, "cgroup /docker/abc")


def test_version_1_tells_a_container_of_a_limit_above_what_it_sees(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/pod/abc\n", v1("/pod/abc"))
    machine.old_group(f"{SYS}/memory", NONE, 60, above=64 * MIB)
    assert machine.use() == MemoryUse(60 * MIB, 64 * MIB, 10 * MIB, "cgroup /pod/abc")


def test_version_1_names_the_group_whose_limit_it_is(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "4:memory:/pod/abc\n", v1("/"))
    machine.old_group(f"{SYS}/memory", NONE, 900).old_group(f"{SYS}/memory/pod", 64 * MIB, 60)
    machine.old_group(f"{SYS}/memory/pod/abc", NONE, 60, above=64 * MIB)
    assert machine.use() == MemoryUse(60 * MIB, 64 * MIB, 10 * MIB, "cgroup /pod")


@pytest.mark.parametrize("total", [pytest.param(1024, id="with meminfo"), pytest.param(0, id="without meminfo")])
def test_version_1_writes_none_as_a_number(tmp_path: Path, total: int) -> None:
    machine = Machine(tmp_path, "4:memory:/abc\n", v1("/"), total=total)
    machine.old_group(f"{SYS}/memory/abc", NONE, 60).old_group(f"{SYS}/memory", NONE, 900)
    if total:
        assert machine.use() == OF_HOST
    else:
        with pytest.raises(CgroupError):
            machine.use()


# --- lines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(v2("/"), ("/", "/sys/fs/cgroup", "cgroup2", ["rw", "nsdelegate"]), id="an optional field"),
        pytest.param(v1("/a"), ("/a", "/sys/fs/cgroup/memory", "cgroup", ["rw", "memory"]), id="no optional field"),
        pytest.param(
            "1 2 0:3 / /x rw shared:1 master:2 - cgroup2 a\\040- rw\n",
            ("/", "/x", "cgroup2", ["rw"]),
            id="two optional fields and a source that looks like the end of them",
        ),
        pytest.param(
            "1 2 0:3 / /a\\134040b rw - cgroup s o\n", ("/", "/a\\040b", "cgroup", ["o"]), id="an escaped backslash"
        ),
        pytest.param(
            "1 2 0:3 / /a\\04 rw - cgroup s o\n", ("/", "/a\\04", "cgroup", ["o"]), id="half an escape is none"
        ),
    ],
)
def test_a_line_of_mountinfo(line: str, expected: tuple[str, str, str, list[str]]) -> None:
    assert parse_mountinfo(line.encode()) == [expected]


@pytest.mark.parametrize("line", ["", "\n", "1 2 0:3 / /x rw\n", "1 2 0:3 / - t s o\n", "1 2 0:3 / /x rw - t s\n"])
def test_what_is_no_line_of_mountinfo_is_left_out(line: str) -> None:
    assert parse_mountinfo(line.encode()) == []


@given(st.binary())
def test_mountinfo_may_hold_any_bytes(data: bytes) -> None:
    for mount in parse_mountinfo(data):
        assert len(mount) == 4


PATHS = st.lists(st.sampled_from(["/", "/..", "/a", "a", "\\040", "\\000", "\\777", " ", "\0", "é"])).map("".join)
NUMBERS = st.one_of(
    st.binary(max_size=8), st.integers().map(lambda number: b"%d\n" % number), st.sampled_from([b"max", b"\xc2\xb2"])
)


@given(
    cgroup=st.one_of(st.binary(), PATHS.map(lambda path: f"0::{path}\n".encode())),
    mountinfo=st.one_of(st.binary(), st.builds(v2, PATHS, PATHS).map(str.encode)),
    limit=NUMBERS,
    used=NUMBERS,
    row=NUMBERS,
    meminfo=NUMBERS,
)
@example(b"0::/\n", v2("/", "/\\000").encode(), b"1", b"1", b"1", b"1")
@example(b"0::/\n", v2("/").encode(), b"1", b"1", b"junk", b"1")
@example(b"0::/\n", v2("/").encode(), b"0", b"0", b"0", b"0")
@example(b"0::/\n", v2("/").encode(), b"1", b"-5", b"-9", b"-1")
def test_whatever_the_files_hold_it_is_a_use_or_a_cgroup_error(
    cgroup: bytes, mountinfo: bytes, limit: bytes, used: bytes, row: bytes, meminfo: bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder), "", "")
        for path, data in {
            f"proc/{PID}/cgroup": cgroup,
            "proc/self/mountinfo": mountinfo,
            "proc/meminfo": b"MemTotal: " + meminfo,
            f"{SYS}/memory.max": limit,
            f"{SYS}/memory.current": used,
            f"{SYS}/memory.stat": b"inactive_file " + row,
        }.items():
            (Path(folder) / path).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / path).write_bytes(data)
        with contextlib.suppress(CgroupError):
            use = machine.use()
            assert use.limit_bytes > 0
            assert use.used_bytes >= 0


# --- a real group -----------------------------------------------------------------------------------------------------

NAME = f"{os.getpid():x}-held"
HOLDING = """
import pathlib, sys
pathlib.Path("/proc/self/comm").write_text(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
held = b"x" * (20 << 20)
print("holds", flush=True)
sys.stdin.readline()
"""


def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.01)


@contextmanager
def real_group(limit_bytes: int) -> Iterator[Path]:
    """A group at the top of this machine's memory hierarchy. Skips the test where none can be made."""
    top = Path("/sys/fs/cgroup")
    if (top / "memory/memory.limit_in_bytes").exists():
        folder, limit = top / "memory" / NAME, "memory.limit_in_bytes"
    elif (top / "cgroup.subtree_control").exists():
        if "memory" not in (top / "cgroup.subtree_control").read_text().split():
            pytest.skip("no group with a memory limit can be made: the controller is not given to groups of the top")
        folder, limit = top / NAME, "memory.max"
    else:
        pytest.skip("no group with a memory limit can be made: no memory hierarchy at /sys/fs/cgroup")
    try:
        folder.mkdir()
    except OSError as exc:
        pytest.skip(f"no group with a memory limit can be made: {exc.strerror}")
    try:
        (folder / limit).write_text(str(limit_bytes))
        yield folder
    finally:
        until(lambda: _removed(folder))


def _removed(folder: Path) -> bool:
    """A group stays busy for a moment after its last process."""
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def test_a_child_in_a_real_group_uses_its_20_mib_of_64() -> None:
    with real_group(64 * MIB) as folder:
        words = [sys.executable, "-c", HOLDING, NAME]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
            try:
                assert process.stdout.readline() == "ready\n"
                (folder / "cgroup.procs").write_text(str(process.pid))
                print("hold", file=process.stdin)  # after the move: what was charged before stays where it was
                assert process.stdout.readline() == "holds\n"
                answer = Local().look(ReadMemory(NAME))
            finally:
                process.kill()
    assert answer.failure is None
    use = answer.value
    assert (use.limit_bytes, use.of) == (64 * MIB, f"cgroup /{NAME}")
    assert 19 * MIB < use.used_bytes < 45 * MIB
    assert 20 * MIB < use.rss_bytes < 64 * MIB
