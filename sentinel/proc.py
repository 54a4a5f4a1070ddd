"""`/proc` as plain values: which processes are the engine. proc(5) is the source of every field here.

The root folder is a parameter, clocks come from the caller. It must never take a zombie for a running engine, nor a
process that was given an old pid for the old one: (pid, start time) is the identity.

    ProcError                  reason and one sentence: /proc cannot be read, or hides what was looked for
"""

from __future__ import annotations

import posix

from sentinel.model import TYPE_CHECKING, Process, Value

if TYPE_CHECKING:
    from collections.abc import Iterable

TICKS_PER_S = posix.sysconf("SC_CLK_TCK")
PAGE_BYTES = posix.sysconf("SC_PAGE_SIZE")
RECORD_BYTES = 1 << 14  # more than any file of one thread
_COMM_LENGTH = 15  # TASK_COMM_LEN is 16 with the closing zero; the kernel cuts what is longer
_DEAD = frozenset("ZXx")
_RESCAN_S = 10.0  # a known process may rename itself; this is how long that may go unseen


class ProcError(Exception):
    """/proc cannot be read, or hides processes."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Who(str):
    """How the engine's processes are found: by exact name, or by `pid-file:`, `cgroup:` or `port:` and what it is.

    A group that begins with a slash is a whole path, the same or above; another may stand anywhere in the path.
    """

    __slots__ = ()
    FORM = (
        "the name of a process, such as trading-engine, or pid-file:/run/engine.pid, cgroup:engine.service, port:8080"
    )

    @classmethod
    def parse(cls, text: str) -> Who:
        how, colon, what = text.partition(":")
        if not colon or how not in _SAID:
            good = bool(text) and "\0" not in text and "/" not in text
        elif how == "port":
            good = what.isascii() and what.isdecimal() and 0 < int(what) < 1 << 16
        else:
            good = bool(what.strip("/")) and "\0" not in what and (how != "pid-file" or what.startswith("/"))
        if not good:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return cls(text)

    @property
    def named(self) -> bool:
        """Found by the name, and not in another way."""
        return self.partition(":")[0] not in _SAID or ":" not in self

    def said(self) -> str:
        """Behind "no process" or "2 processes"."""
        if self.named:
            return f"named {str(self)!r}"
        how, _, what = self.partition(":")
        return f"{_SAID[how]} {what}"


_SAID = {"pid-file": "of pid file", "cgroup": "in control group", "port": "serving port"}


class Clocks(Value):
    """One moment on three clocks, in seconds: CLOCK_MONOTONIC, CLOCK_BOOTTIME and the wall clock since 1970."""

    mono: float
    boot: float
    unix: float


def read(path: str, limit: int = 1 << 16) -> bytes:
    """The whole of a small file. Raises OSError."""
    handle = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = []
        while part := posix.read(handle, limit):  # a short one is not the last: procfs ends each at a whole line
            parts.append(part)
        return b"".join(parts)
    finally:
        posix.close(handle)


def read_record(path: str) -> bytes:
    """A file that procfs gives in one piece, as those of one process or thread: without asking for more behind it.

    Raises OSError.
    """
    handle = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(handle, RECORD_BYTES)
    finally:
        posix.close(handle)


def find(name: str, clocks: Clocks, proc: str = "/proc") -> tuple[Process, ...]:
    """The running processes of exactly this name, the oldest first, as `pgrep -x` finds them less the zombies.

    A name of over 15 bytes is compared with what the kernel keeps of it, and then with the program's name: in the
    command line, or of the file that it runs. Raises ProcError.
    """
    return Finder(proc).find(name, clocks)


class Finder:
    """`find` again and again: only new processes are looked at, all of them every 10 s and while nothing matches."""

    def __init__(self, proc: str = "/proc") -> None:
        self._proc = proc
        # By pid and inode: a pid that is given away gets a new inode, and the listing tells it at no cost.
        self._names: dict[tuple[int, int], bytes] = {}
        self._met: set[bytes] = set()
        self._refused = False
        self._scanned = self._scanned_whole = float("-inf")

    def find(self, name: str, clocks: Clocks) -> tuple[Process, ...]:
        """As the function of this name; `clocks` must not go back."""
        wanted = name.encode("utf-8", "surrogateescape")
        found = self._matching(wanted, clocks, clocks.mono - self._scanned_whole >= _RESCAN_S)
        if not found and self._scanned_whole < clocks.mono:
            found = self._matching(wanted, clocks, True)
        if found:
            self._met.add(wanted)
        elif wanted not in self._met and self._hides():  # of one that was seen it is known that it ended
            raise ProcError("no_access", f"no process named {name!r} is seen, but {self._proc} hides other users'")
        return tuple(sorted(found, key=lambda process: (process.start_ticks, process.pid)))

    def _matching(self, wanted: bytes, clocks: Clocks, whole: bool) -> list[Process]:
        if whole or self._scanned < clocks.mono:
            self._scan(clocks.mono, whole)
        names = (wanted, wanted[:_COMM_LENGTH])  # of its own threads the kernel keeps a longer name too
        found = (self._process(pid, wanted, clocks) for (pid, _), comm in self._names.items() if comm in names)
        return [process for process in found if process is not None]

    def _scan(self, now: float, whole: bool) -> None:
        try:
            with posix.scandir(self._proc) as entries:
                keys = [(int(entry.name), entry.inode()) for entry in entries if entry.name.isdecimal()]
        except OSError as exc:
            raise ProcError("no_access", f"cannot read {self._proc}: {exc.strerror}") from exc
        known = self._names
        if whole:
            known, self._refused = {}, False
        self._names = {key: known[key] if key in known else self._comm(key[0]) for key in keys}
        self._scanned = now
        if whole:
            self._scanned_whole = now

    def _comm(self, pid: int) -> bytes:
        try:
            return read(f"{self._proc}/{pid}/comm")[:-1]
        except OSError as exc:  # it ended meanwhile, or is hidden
            self._refused = self._refused or isinstance(exc, PermissionError)
            return b""

    def _hides(self) -> bool:
        """Whether there may be more than is seen: hidepid=1 refuses the files of others, 2 their folders (proc(5))."""
        if self._refused:
            return True
        if any(pid == 1 for pid, _ in self._names):  # it is there in every namespace
            return False
        try:
            return b"hidepid=" in read(f"{self._proc}/self/mountinfo")
        except OSError:
            return False

    def _process(self, pid: int, wanted: bytes, clocks: Clocks) -> Process | None:
        """The process, unless it ended, is a zombie, or is another one by now."""
        try:
            comm, fields = parse_stat(read(f"{self._proc}/{pid}/stat"))
            if comm != wanted and not (comm == wanted[:_COMM_LENGTH] and self._runs(pid, wanted, comm)):
                return None
        except (OSError, ValueError):  # it ended meanwhile
            return None
        return process(pid, wanted, fields, clocks)

    def _runs(self, pid: int, wanted: bytes, comm: bytes) -> bool:
        """Whether its program has this name. A process may write another command line, but not another file."""
        folder = f"{self._proc}/{pid}"
        if program(read(f"{folder}/cmdline"), comm) == wanted:
            return True
        return posix.readlink(f"{folder}/exe".encode()).removesuffix(b" (deleted)").rpartition(b"/")[2] == wanted


def process(pid: int, name: bytes, fields: list[str], clocks: Clocks) -> Process | None:
    """A process out of the fields of `parse_stat`; None for a zombie."""
    if fields[0] in _DEAD:
        return None
    start_ticks = int(fields[19])
    age_s = clocks.boot - start_ticks / TICKS_PER_S
    return Process(
        pid,
        start_ticks,
        clocks.mono - age_s,
        clocks.unix - age_s,
        name.decode("utf-8", "surrogateescape"),
        int(fields[21]) * PAGE_BYTES,
        int(fields[17]),
    )


def parse_stat(data: bytes) -> tuple[bytes, list[str]]:
    """The name in a line of /proc/PID/stat and the fields behind it, from field 3, the state, on.

    The name may hold anything, brackets and newlines too: it ends at the last bracket. Raises ValueError.
    """
    begin, end = data.find(b"("), data.rfind(b")")
    fields = data[end + 1 :].decode("ascii").split()
    if begin < 0 or end < begin or len(fields) < 22:
        raise ValueError(f"not a line of /proc/PID/stat: {data[:80]!r}")
    return data[begin + 1 : end], fields


def program(cmdline: bytes, comm: bytes = b"") -> bytes:
    """The program's name in /proc/PID/cmdline: what stands behind the last slash of the word that `comm` comes from.

    That is one of the first three: before a script stand its interpreter and at most one option (execve(2)).
    """
    names = (word.rpartition(b"/")[2] for word in cmdline.split(b"\0", 3)[:3])
    return next((name for name in names if name.startswith(comm)), b"")


def rss_bytes(processes: Iterable[Process]) -> int:
    """Resident memory of them together; pages that they share count for each."""
    return sum(process.rss_bytes for process in processes)
