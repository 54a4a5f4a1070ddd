"""Finding the engine by pid file, control group and port, with real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel.fetch.local import Local
from sentinel.model import FindProcesses
from sentinel.proc import Clocks, ProcError, find
from sentinel.search import Search
from tests.daemons import until

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVER = """
import os, socket, sys, time
server = socket.create_server(("127.0.0.1", 0))
for _ in range(int(sys.argv[1])):
    if not os.fork():
        break
else:
    print(server.getsockname()[1], flush=True)
time.sleep(60)
"""


def now(later_s: float = 0.0) -> Clocks:
    mono = time.monotonic() + later_s
    return Clocks(mono, time.clock_gettime(time.CLOCK_BOOTTIME) + later_s, time.time() + later_s)


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        yield sleeper
        sleeper.kill()


def pids(who: str, search: Search | None = None, later_s: float = 0.0) -> list[int]:
    return [found.pid for found in (search or Search()).find(who, now(later_s))]


# --- pid file ---------------------------------------------------------------------------------------------------------


def test_a_pid_file_names_the_process(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "engine.pid"
    path.write_text(f"{process.pid}\n")
    (found,) = Search().find(f"pid-file:{path}", now())
    assert found.replace(rss_bytes=0, started_at=0, started_at_unix_s=0) == next(
        one.replace(rss_bytes=0, started_at=0, started_at_unix_s=0)
        for one in find(found.name, now())
        if one.pid == process.pid
    )


def test_a_pid_file_older_than_the_process_is_of_another_one(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "engine.pid"
    path.write_text(str(process.pid))
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert pids(f"pid-file:{path}") == []


def test_a_step_of_the_wall_clock_loses_nobody(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "engine.pid"
    path.write_text(str(process.pid))
    search = Search()
    assert pids(f"pid-file:{path}", search) == [process.pid]
    stepped = now().replace(unix=time.time() + 3600)
    assert [found.pid for found in search.find(f"pid-file:{path}", stepped)] == [process.pid]


def test_no_pid_file_and_an_ended_process_are_no_process(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "engine.pid"
    assert pids(f"pid-file:{path}") == []
    path.write_text(str(process.pid))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert pids(f"pid-file:{path}") == []
    process.wait()
    assert pids(f"pid-file:{path}") == []


@pytest.mark.parametrize("text", ["", "\n", "engine", "-1", "12x"], ids=repr)
def test_a_pid_file_that_holds_no_pid_is_said_so(tmp_path: Path, text: str) -> None:
    path = tmp_path / "engine.pid"
    path.write_text(text)
    with pytest.raises(ProcError) as caught:
        Search().find(f"pid-file:{path}", now())
    assert (caught.value.reason, str(caught.value)) == (
        "bad_pid_file",
        f"the pid file {path} holds {text.encode()!r}, want the number of a process",
    )


# --- port -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], int]]:
    words = [sys.executable, "-c", SERVER, str(getattr(request, "param", 0))]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        yield process, int(process.stdout.readline())
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_port_is_served_by_the_process_that_holds_its_socket(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    search = Search()
    assert [pids(f"port:{port}", search) for _ in range(2)] == [[process.pid]] * 2
    process.kill()
    until(lambda: pids(f"port:{port}", search) == [])


@pytest.mark.parametrize("server", [3], indirect=True)
def test_all_who_share_the_socket_serve_it_and_the_parent_is_the_oldest(
    server: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = server
    found = until(lambda: (several := pids(f"port:{port}")) and len(several) == 4 and several)
    assert found[0] == process.pid


def test_another_who_takes_the_port_over_is_found_at_once(server: tuple[subprocess.Popen[str], int]) -> None:
    process, port = server
    search = Search()
    assert pids(f"port:{port}", search) == [process.pid]
    process.kill()
    process.wait()
    with socket.create_server(("127.0.0.1", port)):
        assert pids(f"port:{port}", search) == [os.getpid()]


def test_a_connection_does_not_serve_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as here, socket.create_connection(here.getsockname()) as there:
        assert pids(f"port:{there.getsockname()[1]}") == []


def test_ipv6_counts() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as here:
        assert pids(f"port:{here.getsockname()[1]}") == [os.getpid()]


def test_whose_port_it_is_that_cannot_be_seen_is_said(tmp_path: Path) -> None:
    (tmp_path / "self/net").mkdir(parents=True)
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1\n"
    (tmp_path / "self/net/tcp").write_text(head + row)
    with pytest.raises(ProcError) as caught:
        Search(str(tmp_path)).find("port:8080", now())
    assert (caught.value.reason, str(caught.value)) == (
        "no_access",
        "whose port 8080 is cannot be seen: run Sentinel as the engine's user, beside it",
    )


# --- control group ----------------------------------------------------------------------------------------------------


def tree(folder: Path, groups: dict[int, str]) -> str:
    """A /proc of these processes, each in this group; the younger has the higher pid."""
    for pid, group in groups.items():
        (folder / str(pid)).mkdir()
        (folder / f"{pid}/cgroup").write_text(f"3:cpu,cpuacct:/\n0::{group}\n")
        (folder / f"{pid}/stat").write_text(f"{pid} (e) S {' '.join(['0'] * 18)} {pid} 0 0 {' '.join(['0'] * 28)}\n")
    return str(folder)


@pytest.mark.parametrize(
    ("who", "found"),
    [
        pytest.param("/system.slice/engine.service", [1, 2], id="itself and below"),
        pytest.param("engine.service", [1, 2, 5], id="anywhere in the path"),
        pytest.param("engine", [], id="a part of a name is none"),
        pytest.param("/system.slice/", [1, 2, 3], id="a slash at the end says nothing"),
        pytest.param("engine.service/worker", [2], id="two names in a row"),
    ],
)
def test_a_control_group_holds_its_processes_and_those_below(tmp_path: Path, who: str, found: list[int]) -> None:
    groups = {
        1: "/system.slice/engine.service",
        2: "/system.slice/engine.service/worker",
        3: "/system.slice/engine.service2",
        4: "/",
        5: "/user.slice/engine.service",
    }
    assert pids(f"cgroup:{who}", Search(tree(tmp_path, groups))) == found


def test_one_that_moved_is_found_within_ten_seconds(tmp_path: Path) -> None:
    search = Search(tree(tmp_path, {1: "/a", 2: "/b"}))
    assert pids("cgroup:/b", search) == [2]
    (tmp_path / "1/cgroup").write_text("0::/b\n")
    assert pids("cgroup:/b", search, 10.0) == [1, 2]


# --- through the ring -------------------------------------------------------------------------------------------------


def test_the_ring_finds_by_all_of_them(tmp_path: Path, process: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "engine.pid"
    path.write_text(str(process.pid))
    local = Local()
    assert [found.pid for found in local.look(FindProcesses(f"pid-file:{path}")).value] == [process.pid]
    assert local.look(FindProcesses("port:1")).value == ()
