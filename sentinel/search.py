"""Which processes are the engine where a name cannot tell: by pid file, by control group, by the port that they serve.

Apart from `proc`, as the one-shot check mostly asks by name and then need not load this. It must never take a process
for the engine that was given an old pid, nor one that it only guesses to hold a socket.
Sources: proc(5), cgroups(7), and net/ipv4/tcp_ipv4.c of the kernel for /proc/PID/net/tcp.
"""

from __future__ import annotations

import posix
from typing import TYPE_CHECKING

from sentinel.proc import ProcError, parse_stat, process, read

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sentinel.model import Process
    from sentinel.proc import Clocks

_LISTEN = "0A"  # TCP_LISTEN in net/tcp_states.h
_RESCAN_S = 10.0  # a process may be moved to another group, or get a socket from its parent; how long that goes unseen
_WRITTEN_S = 2.0  # a pid file is written after its process began: as much later may mtime and start be apart


class Search:
    """The processes of `pid-file:PATH`, `cgroup:PATH` and `port:NUMBER`, again and again."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        self._groups: dict[tuple[int, int], frozenset[str]] = {}  # by pid and inode, as in proc.Finder
        self._regrouped = float("-inf")
        self._holders: dict[int, list[str]] = {}  # of a port: the descriptors under /proc that hold it
        self._searched: dict[int, tuple[float, frozenset[str]]] = {}  # when, and for which sockets
        self._accepted: dict[str, tuple[int, int]] = {}  # of a pid file: the process that it was found to mean

    def find(self, who: str, clocks: Clocks) -> tuple[Process, ...]:
        """The running processes, the oldest first. Raises ProcError."""
        how, _, what = who.partition(":")
        if how == "pid-file":
            pids = self._by_pid_file(what, clocks)
        elif how == "cgroup":
            pids = self._by_cgroup(what, clocks.mono)
        else:
            pids = self._by_port(int(what), clocks.mono)
        found = (self._process(pid, clocks) for pid in pids)
        return tuple(sorted((one for one in found if one), key=lambda one: (one.start_ticks, one.pid)))

    def _by_pid_file(self, path: str, clocks: Clocks) -> list[int]:
        try:
            text = read(path)
            written_unix_s = posix.stat(path).st_mtime
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise ProcError("no_access", f"cannot read the pid file {path}: {exc.strerror}") from exc
        word = text.split()[0] if text.split() else b""
        if not word.isdigit():
            raise ProcError("bad_pid_file", f"the pid file {path} holds {text[:20]!r}, want the number of a process")
        found = self._process(int(word), clocks)
        if found is None:
            return []
        one = (found.pid, found.start_ticks)
        # What was accepted stays so: a step of the wall clock moves the start time that is reckoned on it.
        if self._accepted.get(path) != one and found.started_at_unix_s > written_unix_s + _WRITTEN_S:
            return []  # the file is of one that ended, and its pid was given to another since
        self._accepted[path] = one
        return [found.pid]

    def _by_cgroup(self, group: str, now: float) -> list[int]:
        wanted = group.rstrip("/")
        known = self._groups
        if now - self._regrouped >= _RESCAN_S:
            known, self._regrouped = {}, now
        self._groups = {
            key: known[key] if key in known else _groups_of(f"{self._proc}/{key[0]}") for key in self._pids()
        }
        return [pid for (pid, _), groups in self._groups.items() if any(_is_in(path, wanted) for path in groups)]

    def _by_port(self, port: int, now: float) -> list[int]:
        sockets = self._listening(port)
        if not sockets:
            return []
        before = self._holders.get(port, [])
        holders = [where for where in before if self._holds(where, sockets)]
        searched_at, searched_for = self._searched.get(port, (float("-inf"), frozenset[str]()))
        if now - searched_at >= _RESCAN_S or searched_for != sockets:
            holders = [*self._search(sockets)]
            self._searched[port] = (now, sockets)
        self._holders[port] = holders
        if not holders and not before:  # of one that ends the socket goes a moment after the process
            sentence = f"whose port {port} is cannot be seen: run Sentinel as the engine's user, beside it"
            raise ProcError("no_access", sentence)
        return [*dict.fromkeys(int(where.split("/", 1)[0]) for where in holders)]

    def _listening(self, port: int) -> frozenset[str]:
        """The sockets that listen on this TCP port in our network namespace, as descriptors name them."""
        found = set()
        for table in ("tcp", "tcp6"):
            try:
                rows = read(f"{self._proc}/self/net/{table}").decode("ascii", "replace").splitlines()[1:]
            except OSError:  # a kernel without IPv6
                continue
            for row in rows:
                fields = row.split()
                if len(fields) > 9 and fields[3] == _LISTEN and fields[1].endswith(f":{port:04X}"):
                    found.add(f"socket:[{fields[9]}]")
        return frozenset(found)

    def _search(self, sockets: frozenset[str]) -> Iterator[str]:
        for pid, _ in self._pids():
            try:
                names = posix.listdir(f"{self._proc}/{pid}/fd")
            except OSError:  # another user's, or it ended
                continue
            yield from (where for where in (f"{pid}/fd/{name}" for name in names) if self._holds(where, sockets))

    def _holds(self, where: str, sockets: frozenset[str]) -> bool:
        try:
            return posix.readlink(f"{self._proc}/{where}") in sockets
        except OSError:
            return False

    def _pids(self) -> list[tuple[int, int]]:
        try:
            with posix.scandir(self._proc) as entries:
                return [(int(entry.name), entry.inode()) for entry in entries if entry.name.isdecimal()]
        except OSError as exc:
            raise ProcError("no_access", f"cannot read {self._proc}: {exc.strerror}") from exc

    def _process(self, pid: int, clocks: Clocks) -> Process | None:
        try:
            comm, fields = parse_stat(read(f"{self._proc}/{pid}/stat"))
            return process(pid, comm, fields, clocks)
        except (OSError, ValueError):  # it ended
            return None


def _groups_of(folder: str) -> frozenset[str]:
    """The paths of a process's control groups, in every hierarchy."""
    try:
        lines = read(f"{folder}/cgroup").decode("utf-8", "surrogateescape").split("\n")
    except OSError:
        return frozenset()
    return frozenset(line.split(":", 2)[2] for line in lines if line.count(":") >= 2)


def _is_in(path: str, wanted: str) -> bool:
    """Whether a group is this one or below it. One that does not begin with a slash may stand anywhere in the path."""
    if wanted.startswith("/"):
        return f"{path}/".startswith(f"{wanted}/")
    return f"/{wanted}/" in f"{path}/"
