"""Which processes are the engine: against `pgrep -x`, against real children, and against made trees."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sentinel.model import Process
from sentinel.proc import Clocks, Finder, ProcError, find, parse_stat, program, read, rss_bytes
from tests.tools import needs
from tests.trees import stat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MINE = f"{os.getpid():x}"  # other runs of these tests have children too
NAMED = 'printf %s "$1" > /proc/$$/comm; echo ready; read end'
RENAMING = f'{NAMED}; printf %s "$end" > /proc/$$/comm; echo renamed; read end'


def now(later_s: float = 0.0) -> Clocks:
    boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Clocks(time.monotonic() + later_s, boot + later_s, time.time() + later_s)


def until(holds: Callable[[], bool], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {within_s} s"
        time.sleep(0.01)


@contextmanager
def child(name: str, argv0: str = "sh", script: str = NAMED) -> Iterator[subprocess.Popen[str]]:
    """A shell that has given itself this name, as the kernel keeps it, until the block ends."""
    words = [argv0, "-c", script, "sh", name]
    with subprocess.Popen(
        words, executable="/bin/sh", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def pids(found: tuple[Process, ...]) -> list[int]:
    return [process.pid for process in found]


def state(pid: int) -> str:
    return parse_stat(Path(f"/proc/{pid}/stat").read_bytes())[1][0]


# --- against pgrep ----------------------------------------------------------------------------------------------------


def comms() -> set[str]:
    names = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError, UnicodeDecodeError):
                names.add((folder / "comm").read_bytes()[:-1].decode())
    return names - {""}


def pgrep(name: str) -> set[int]:
    """What `pgrep -x` finds, less the zombies."""
    done = subprocess.run(["pgrep", "-x", "--", re.escape(name)], capture_output=True, text=True, check=False)
    alive = set()
    for word in done.stdout.split():
        with contextlib.suppress(OSError):
            if state(int(word)) not in "ZX":
                alive.add(int(word))
    return alive


@needs("pgrep")
def test_every_name_on_this_machine_is_found_as_pgrep_finds_it() -> None:
    with child(f"{MINE} pgrep"), child(f"{MINE} (.*)"):
        names = comms()
        assert {f"{MINE} pgrep", f"{MINE} (.*)"} <= names
        for name in sorted(names):
            # Others come and go between the two looks; when nothing does, they must agree.
            until(lambda name=name: {*pids(find(name, now()))} == pgrep(name))  # type: ignore[misc]


# --- real children ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(f"{MINE} a b", id="with spaces"),
        pytest.param(f"{MINE}) (", id="with brackets as in the line that it is read from"),
        pytest.param(f"{MINE}) Z 1", id="as if it were a zombie"),
        pytest.param(f"{MINE}\nb", id="with a newline"),
        pytest.param(f"{MINE}\n", id="with a newline at the end"),
        pytest.param(f"{MINE}µ", id="not ASCII"),
        pytest.param(MINE.ljust(15, "x"), id="of 15 characters"),
    ],
)
def test_a_child_is_found_by_its_name(name: str) -> None:
    with child(name) as process:
        (found,) = find(name, now())
        assert (found.pid, found.name, found.threads) == (process.pid, name, 1)
        assert 100_000 < found.rss_bytes < 100_000_000
    assert find(name, now()) == ()


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(MINE + "engin", id="the beginning of it"),
        pytest.param(MINE + "engines", id="longer than it"),
        pytest.param(MINE + "ENGINE", id="in capitals"),
        pytest.param(MINE + "engin.", id="a pattern"),
        pytest.param(MINE + "engine ", id="with a space behind"),
    ],
)
def test_a_name_is_the_whole_name(other: str) -> None:
    with child(MINE + "engine"):
        assert find(other, now()) == ()


LONG = MINE.ljust(15, "x") + "-and-more"


@pytest.mark.parametrize(
    ("argv0", "is_found"),
    [
        pytest.param(LONG, True, id="the program's name says the rest"),
        pytest.param(f"/opt/engine/{LONG}", True, id="the program's path ends in the name"),
        pytest.param("sh", False, id="another program"),
        pytest.param(LONG + "s", False, id="a program with a longer name"),
        pytest.param(LONG[:15], False, id="a program whose name is what the kernel keeps"),
        pytest.param(f"{LONG}/sh", False, id="the name is a folder"),
        pytest.param(f"{LONG[:15]}: worker", False, id="a command line that it wrote itself"),
    ],
)
def test_a_name_longer_than_the_kernel_keeps_is_compared_with_the_program(argv0: str, is_found: bool) -> None:
    with child(LONG, argv0) as process:
        assert Path(f"/proc/{process.pid}/comm").read_text() == LONG[:15] + "\n"
        assert pids(find(LONG, now())) == [process.pid] * is_found
        assert pids(find(LONG[:15], now())) == [process.pid]


@pytest.mark.parametrize("first", ["#!/bin/sh", "#!/bin/sh -e"], ids=["alone", "with an option"])
def test_a_script_of_a_longer_name_is_found_behind_its_interpreter(tmp_path: Path, first: str) -> None:
    script = tmp_path / LONG
    script.write_text(f"{first}\necho up\nread end\n")
    script.chmod(0o755)
    with subprocess.Popen([script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            assert pids(find(LONG, now())) == [process.pid]
            assert find(LONG + "s", now()) == ()
        finally:
            process.kill()


@pytest.mark.parametrize("removed", [False, True], ids=["there", "replaced meanwhile"])
def test_a_program_of_a_longer_name_that_wrote_its_own_command_line_is_found_by_its_file(
    tmp_path: Path, removed: bool
) -> None:
    path = tmp_path / LONG
    shutil.copy("/bin/sleep", path)
    with subprocess.Popen([f"{LONG[:15]}: worker", "60"], executable=path) as process:
        try:
            if removed:
                path.unlink()
            until(lambda: pids(find(LONG, now())) == [process.pid])
        finally:
            process.kill()


def test_a_zombie_is_no_running_engine() -> None:
    name = MINE + "zombie"
    with child(name) as process:
        process.kill()
        until(lambda: state(process.pid) == "Z")
        assert Path(f"/proc/{process.pid}/comm").read_text() == name + "\n"
        assert find(name, now()) == ()


def test_several_are_sorted_by_age() -> None:
    name = MINE + "many"
    with child(name) as first:
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 2 / TICKS_PER_S)
        with child(name) as second:
            found = find(name, now())
    assert pids(found) == [first.pid, second.pid]
    assert found[0].started_at < found[1].started_at


def test_the_start_is_when_it_was_started_on_both_clocks() -> None:
    before = now()
    with child(MINE + "start"):
        after = now()
        (found,) = find(MINE + "start", now())
    assert before.mono - 0.1 <= found.started_at <= after.mono + 0.1
    assert before.unix - 0.1 <= found.started_at_unix_s <= after.unix + 0.1


# --- again and again --------------------------------------------------------------------------------------------------


def test_a_second_look_finds_the_same() -> None:
    finder = Finder()
    with child(MINE + "same"):
        looks = [finder.find(MINE + "same", now(later_s)) for later_s in (0, 1, 2)]
    identities = {(process.pid, process.start_ticks) for look in looks for process in look}
    assert (len(identities), [len(look) for look in looks]) == (1, [1, 1, 1])


def test_a_process_is_found_at_once_when_there_was_none() -> None:
    finder = Finder()
    assert finder.find(MINE + "new", now()) == ()
    with child(MINE + "new") as process:
        assert pids(finder.find(MINE + "new", now())) == [process.pid]


def test_a_process_that_takes_the_name_is_found_at_once_when_there_was_none() -> None:
    finder = Finder()
    with child(MINE + "before", script=RENAMING) as process:
        assert finder.find(MINE + "after", now()) == ()
        print(MINE + "after", file=process.stdin)
        assert process.stdout.readline() == "renamed\n"
        assert pids(finder.find(MINE + "after", now())) == [process.pid]


def test_a_second_process_is_found_on_the_next_look() -> None:
    finder = Finder()
    with child(MINE + "two") as first:
        assert pids(finder.find(MINE + "two", now())) == [first.pid]
        with child(MINE + "two") as second:
            assert {*pids(finder.find(MINE + "two", now()))} == {first.pid, second.pid}
        assert pids(finder.find(MINE + "two", now())) == [first.pid]


def test_a_process_that_ended_is_gone_though_the_moment_is_the_same() -> None:
    finder = Finder()
    with child(MINE + "gone") as process:
        clocks = now()
        assert pids(finder.find(MINE + "gone", clocks)) == [process.pid]
    assert finder.find(MINE + "gone", clocks) == ()
    assert finder.find(MINE + "gone", now()) == ()


def test_a_process_that_takes_the_name_beside_another_is_found_after_10_s() -> None:
    finder = Finder()
    name = MINE + "named"
    with child(name) as first, child(MINE + "before", script=RENAMING) as second:
        began = now()
        assert pids(finder.find(name, began)) == [first.pid]
        print(name, file=second.stdin)
        assert second.stdout.readline() == "renamed\n"
        assert {*pids(finder.find(name, now(10.0)))} == {first.pid, second.pid}


def test_a_process_that_gives_the_name_up_is_gone_at_once() -> None:
    finder = Finder()
    with child(MINE + "before", script=RENAMING) as process:
        assert pids(finder.find(MINE + "before", now())) == [process.pid]
        print(MINE + "after", file=process.stdin)
        assert process.stdout.readline() == "renamed\n"
        assert finder.find(MINE + "before", now()) == ()


def test_two_names_asked_in_one_moment_are_both_found() -> None:
    finder = Finder()
    with child(MINE + "left") as left, child(MINE + "right") as right:
        clocks = now()
        assert pids(finder.find(MINE + "left", clocks)) == [left.pid]
        assert pids(finder.find(MINE + "right", clocks)) == [right.pid]


def test_processes_that_come_and_go_meanwhile_raise_nothing() -> None:
    churn = 'printf %s "$1" > /proc/$$/comm; echo ready; while :; do (:) & (:) & wait; done'
    finder = Finder()
    with child(MINE + "churn", script=churn) as process:
        for later_s in range(100):
            assert process.pid in pids(finder.find(MINE + "churn", now(later_s)))
            assert process.pid in pids(find(MINE + "churn", now()))


# --- made trees -------------------------------------------------------------------------------------------------------

AT = Clocks(1000.0, 1500.0, 2_000_000_000.0)


def add(proc: Path, pid: int, comm: str = "engine", start_ticks: int = 100, **more: object) -> Path:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    (folder / "comm").write_text(comm + "\n")
    (folder / "stat").write_bytes(stat(pid, comm, start_ticks, **more))  # type: ignore[arg-type]
    return folder


def test_a_process_is_read_whole(tmp_path: Path) -> None:
    add(tmp_path, 7, start_ticks=400 * TICKS_PER_S, rss_pages=5, threads=12)
    assert find("engine", AT, str(tmp_path)) == (
        Process(7, 400 * TICKS_PER_S, -100.0, 1_999_998_900.0, "engine", 5 * PAGE_BYTES, 12),
    )


def test_what_is_no_process_is_passed_over(tmp_path: Path) -> None:
    add(tmp_path, 7)
    for name in ("self", "sys", "7a", "-7", "٣"):
        (tmp_path / name).mkdir()
    (tmp_path / "8").write_text("")
    assert pids(find("engine", AT, str(tmp_path))) == [7]


def test_the_same_age_is_sorted_by_pid(tmp_path: Path) -> None:
    for pid, start_ticks in ((30, 5), (4, 9), (200, 5), (3, 10)):
        add(tmp_path, pid, start_ticks=start_ticks)
    assert pids(find("engine", AT, str(tmp_path))) == [30, 200, 4, 3]


def test_a_pid_that_was_given_to_another_is_another_identity(tmp_path: Path) -> None:
    finder = Finder(str(tmp_path))
    add(tmp_path, 7, start_ticks=100)
    (before,) = finder.find("engine", AT)
    add(tmp_path, 7, start_ticks=200)
    (after,) = finder.find("engine", AT.replace(mono=AT.mono + 1, boot=AT.boot + 1))
    assert (before.pid, before.start_ticks, after.pid, after.start_ticks) == (7, 100, 7, 200)


def test_a_pid_that_was_given_to_the_engine_is_found_at_once_beside_another(tmp_path: Path) -> None:
    finder = Finder(str(tmp_path))
    add(tmp_path, 7)
    add(tmp_path, 8, comm="other", start_ticks=200)
    assert pids(finder.find("engine", AT)) == [7]
    (tmp_path / "later").mkdir()
    new = add(tmp_path / "later", 8, start_ticks=300)  # made before the old one goes, so its inode is another
    shutil.rmtree(tmp_path / "8")
    new.rename(tmp_path / "8")
    assert pids(finder.find("engine", AT.replace(mono=AT.mono + 1))) == [7, 8]


def test_a_pid_that_was_given_to_another_name_is_not_the_engine(tmp_path: Path) -> None:
    finder = Finder(str(tmp_path))
    add(tmp_path, 7)
    assert pids(finder.find("engine", AT)) == [7]
    add(tmp_path, 7, comm="other", start_ticks=200)
    assert finder.find("engine", AT.replace(mono=AT.mono + 1)) == ()


@pytest.mark.parametrize("letter", [*"ZXx"])
def test_the_dead_do_not_run(tmp_path: Path, letter: str) -> None:
    add(tmp_path, 7, state=letter)
    assert find("engine", AT, str(tmp_path)) == ()


@pytest.mark.parametrize("letter", [*"RSDTtI"])
def test_what_sleeps_or_is_stopped_runs(tmp_path: Path, letter: str) -> None:
    add(tmp_path, 7, state=letter)
    assert pids(find("engine", AT, str(tmp_path))) == [7]


def test_a_name_longer_than_15_that_the_kernel_keeps_whole_is_found(tmp_path: Path) -> None:
    """It does for its own threads."""
    add(tmp_path, 7, comm="pool_workqueue_release")
    assert pids(find("pool_workqueue_release", AT, str(tmp_path))) == [7]
    assert find("pool_workqueue_", AT, str(tmp_path)) == ()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("comm", None, id="before its name was read"),
        pytest.param("stat", None, id="before its line was read"),
        pytest.param("stat", b"", id="with an empty line"),
        pytest.param("stat", b"7 (engine) S 1 2\n", id="with half a line"),
    ],
)
def test_a_process_that_vanishes_while_it_is_read_is_skipped(tmp_path: Path, name: str, content: bytes | None) -> None:
    add(tmp_path, 6)
    vanishing = add(tmp_path, 7) / name
    if content is None:
        vanishing.unlink()
    else:
        vanishing.write_bytes(content)
    assert pids(find("engine", AT, str(tmp_path))) == [6]


def test_a_process_that_vanishes_before_its_program_is_read_is_skipped(tmp_path: Path) -> None:
    add(tmp_path, 6, comm="trading-engine-").joinpath("cmdline").write_bytes(b"./trading-engine-2\0-v\0")
    add(tmp_path, 7, comm="trading-engine-")
    assert pids(find("trading-engine-2", AT, str(tmp_path))) == [6]


@pytest.mark.parametrize(
    ("path", "why"),
    [
        pytest.param("none", "No such file or directory", id="not there"),
        pytest.param("file", "Not a directory", id="not a folder"),
    ],
)
def test_a_proc_that_cannot_be_read_is_one_sentence(tmp_path: Path, path: str, why: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProcError) as caught:
        find("engine", AT, f"{tmp_path}/{path}")
    assert (caught.value.reason, str(caught.value)) == ("no_access", f"cannot read {tmp_path}/{path}: {why}")


# --- lines ------------------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.integers(-(2**63), 2**64).map(str), min_size=21, max_size=60)


@given(st.integers(1, 2**22), st.binary(max_size=64), NUMBERS)
@example(1, b") R 1 (", ["0"] * 21)
@example(1, b"", ["0"] * 21)
@example(1, b"\xff\n\0", ["0"] * 21)
def test_any_name_comes_back_from_its_line(pid: int, comm: bytes, numbers: list[str]) -> None:
    fields = ["S", *numbers]
    line = b"%d (%b) %b\n" % (pid, comm, " ".join(fields).encode())
    assert parse_stat(line) == (comm, fields)


@given(st.one_of(st.binary(), st.binary().map(lambda tail: b"1 (a) S" + b" 0" * 20 + tail)))
@example(b"")
@example(b") (")
@example(b"1 (a) \xff" + b" 0" * 40)
@example(b"1 (a) S" + b" 0" * 20)
def test_junk_raises_nothing_but_a_value_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        _, fields = parse_stat(data)
        assert len(fields) >= 22


@pytest.mark.parametrize(
    ("cmdline", "name"),
    [
        pytest.param(b"/opt/bin/engine\0--port\x001\0", b"engine", id="a path and options"),
        pytest.param(b"engine\0", b"engine", id="a name alone"),
        pytest.param(b"engine", b"engine", id="no zero behind it"),
        pytest.param(b"/opt/my engine\0/x", b"my engine", id="a space in it"),
        pytest.param(b"", b"", id="a thread of the kernel"),
    ],
)
def test_the_name_of_the_program(cmdline: bytes, name: bytes) -> None:
    assert program(cmdline) == name


@pytest.mark.parametrize(
    ("cmdline", "name"),
    [
        pytest.param(b"/opt/engine-a\0--like\0/opt/engine-b\0", b"engine-a", id="the first word that fits"),
        pytest.param(b"/bin/sh\0/opt/engine-a\0", b"engine-a", id="a script"),
        pytest.param(b"/bin/sh\0-e\0/opt/engine-a\0", b"engine-a", id="a script, an option before it"),
        pytest.param(b"/bin/run\0a\0b\0/opt/engine-a\0", b"", id="a word among many is none"),
        pytest.param(b"/bin/sh\0-c\0x\0", b"", id="no word fits"),
    ],
)
def test_the_name_of_the_program_begins_as_the_kernel_keeps_it(cmdline: bytes, name: bytes) -> None:
    assert program(cmdline, b"engine-") == name


def test_a_file_of_more_than_a_page_is_read_to_its_end() -> None:
    """Procfs gives less than a page at a time, up to the end of a line."""
    with child(MINE + "pages") as process:
        path = f"/proc/{process.pid}/smaps"
        whole = Path(path).read_bytes()
        assert len(whole) > 2 * 4096
        assert read(path).count(b"VmFlags:") == whole.count(b"VmFlags:")


def test_resident_memory_is_that_of_all_together() -> None:
    one = Process(1, 1, 0.0, 0.0, "engine", 4096, 1)
    assert (rss_bytes(()), rss_bytes((one, one.replace(pid=2, rss_bytes=1)))) == (0, 4097)


# --- what is hidden ---------------------------------------------------------------------------------------------------

HIDDEN = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from sentinel.proc import Clocks, Finder, ProcError
comm = os.open("/proc/self/comm", os.O_WRONLY)  # who changed its user may not open it
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
os.write(comm, b"we are seen")
clocks = Clocks(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time())
finder = Finder()
for name in ("we are seen", sys.argv[2]):
    try:
        print([process.pid == os.getpid() for process in finder.find(name, clocks)])
    except ProcError as exc:
        print(exc.reason, exc)
os.write(comm, b"we are not")
print(finder.find("we are seen", clocks.replace(mono=clocks.mono + 1)))
"""


@needs("unshare")
@pytest.mark.parametrize("how", ["noaccess", "invisible"])
def test_a_name_that_proc_may_hide_is_not_said_to_be_gone(how: str) -> None:
    """With a /proc that was mounted with `hidepid`, as an unprivileged user sees it."""
    mounted = ["unshare", "-m", "sh", "-c", f'mount -t proc -o hidepid={how} proc /proc && exec "$@"', "sh"]
    if subprocess.run([*mounted, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no /proc that hides processes can be mounted: it takes root, and Linux 5.8")
    with child(MINE + "hidden"):
        words = [*mounted, sys.executable, "-c", HIDDEN, str(Path(__file__).parents[1]), MINE + "hidden"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines(), done.stderr) == (
        [
            "[True]",
            f"no_access no process named '{MINE}hidden' is seen, but /proc hides other users'",
            "()",  # it was seen, so it would be seen
        ],
        "",
    )


# --- privileges -------------------------------------------------------------------------------------------------------

UNPRIVILEGED = """
import json, os, sys, time
from sentinel.cgroup import memory_use
from sentinel.proc import Clocks, find
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
found = find(sys.argv[1], Clocks(time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.time()))
use = memory_use(found)
print(json.dumps([int(status["CapEff"], 16), [process.pid for process in found], use.rss_bytes, use.limit_bytes]))
"""


def test_no_privilege_is_needed() -> None:
    with child(MINE + "nobody") as process:
        words = [sys.executable, "-W", "ignore", "-c", UNPRIVILEGED, MINE + "nobody"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
        assert done.stderr == ""
        capabilities, found, rss, limit = json.loads(done.stdout)
        assert (capabilities, found) == (0, [process.pid])
        assert 0 < rss < limit
