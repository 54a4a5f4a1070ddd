"""Control groups, v1 and v2, as plain values: what a process uses of every memory limit above it.

Sources: cgroups(7), the kernel's cgroup-v2.rst and cgroup-v1/memory.rst, mountinfo in proc(5). Folders are parameters.
Seen from the host, from inside the container and from a sidecar that shares the process namespace only: the paths of
`/proc/PID/cgroup` and of mountinfo are both relative to who reads, so their difference is right in all three.
It must never report a limit that it could not read.

    CgroupError                reason and one sentence: no limit at all could be read
"""

from __future__ import annotations

import posix

from sentinel.model import TYPE_CHECKING, MemoryUse, Value
from sentinel.proc import read, rss_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sentinel.model import Process

_NO_LIMIT = 1 << 62  # v1 writes "none" as the largest multiple of a page below 2^63
# The files of the limit and of what is charged, and in memory.stat what is dropped first and the smallest limit above.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", b"total_inactive_file ", b"hierarchical_memory_limit ")
_V2 = ("memory.max", "memory.current", b"inactive_file ", b"")


class CgroupError(Exception):
    """No limit could be read."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Level(Value):
    """One control group above a process: its path as /proc/PID/cgroup says it, and the folder where it is read."""

    path: str
    folder: str
    version: int


def memory_use(processes: Sequence[Process], proc: str = "/proc", root: str = "") -> MemoryUse:
    """What the engine uses of the limit that it reaches first. Raises CgroupError.

    Of the host the processes' resident memory counts, as page cache can be dropped for them. Of a control group its
    working set counts: all it is charged with, less the file pages that the kernel drops first (as the kubelet counts).
    The limit with the largest used/limit kills first; one above the host's memory never does.
    `root` stands in front of our own mount points, for tests.
    """
    if not processes:
        raise CgroupError("no_process", "no process whose memory could be read")
    rss = rss_bytes(processes)
    total = _host_total(proc)
    uses = [MemoryUse(rss, total, rss, "host")] if total else []
    seen, hidden = _levels_of_all(processes, proc, root)
    # From the top: where a group only repeats the limit above it, the one above is used as much at least and is named.
    for level in sorted(seen, key=lambda level: len(level.path)):
        use = use_of(level)
        if use is not None and (not total or use[1] <= total):
            uses.append(MemoryUse(*use, rss, f"cgroup {level.path}"))
    if not uses:
        raise CgroupError("no_access", f"neither {proc}/meminfo nor a cgroup's limit can be read")
    return max(uses, key=lambda use: use.used_bytes / use.limit_bytes).replace(hidden=hidden)


def _levels_of_all(processes: Sequence[Process], proc: str, root: str) -> tuple[Iterable[Level], str]:
    """Each level once, and the path of a group of which nothing is seen.

    Processes of one group, the common case, are looked up once.
    """
    groups: dict[bytes, int] = {}
    for process in processes:
        try:
            groups.setdefault(read(f"{proc}/{process.pid}/cgroup"), process.pid)
        except OSError:  # it ended meanwhile
            continue
    seen: dict[Level, None] = {}
    hidden = ""
    for told, pid in groups.items():
        found = levels(pid, "memory", proc, root)
        seen |= dict.fromkeys(found)
        if not found:
            try:  # noqa: SIM105  # contextlib is 5 ms of a check
                hidden = _path(told, "memory")[0]
            except ValueError:  # a kernel without this controller hides no limit
                pass
    return seen, hidden


def levels(pid: int, controller: str, proc: str = "/proc", root: str = "") -> tuple[Level, ...]:
    """The control groups of a process that has this controller, from its own up to the top that can be seen.

    First through our own mounts, which on the host reach above the container; where the process is not below them (a
    sidecar has mounts of its own), through its own root folder. Empty if neither can be read.
    """
    try:
        path, version = _path(read(f"{proc}/{pid}/cgroup"), controller)
    except (OSError, ValueError):
        return ()
    for mountinfo, front in ((f"{proc}/self/mountinfo", root), (f"{proc}/{pid}/mountinfo", f"{proc}/{pid}/root")):
        try:
            mounts = parse_mountinfo(read(mountinfo))
        except OSError:
            continue
        for mount_root, mount_point, kind, options in mounts:
            if (kind, version) != ("cgroup2", 2) and not (kind == "cgroup" and version == 1 and controller in options):
                continue
            below = _below(path, mount_root)
            if below is not None and _is_there(f"{front}{mount_point}{below}"):
                return tuple(_upwards(path, f"{front}{mount_point}", below, version))
    return ()


def parse_mountinfo(data: bytes) -> list[tuple[str, str, str, list[str]]]:
    """Root, mount point, filesystem type and super options of each cgroup line (proc(5)); others are left out.

    A host has a mount for every container, and this is read every second.
    """
    mounts = []
    lines = b"\n".join(line for line in data.split(b"\n") if b" - cgroup" in line)
    for line in lines.decode("utf-8", "surrogateescape").split("\n"):  # splitlines ends one at U+2028 too
        front, found, back = line.partition(" - ")
        fields, kinds = front.split(" "), back.split(" ")
        if found and len(fields) >= 6 and len(kinds) >= 3:
            mounts.append((_unescaped(fields[3]), _unescaped(fields[4]), kinds[0], kinds[2].split(",")))
    return mounts


def _path(data: bytes, controller: str) -> tuple[str, int]:
    """The path of the group and 1 or 2: a controller that has a v1 hierarchy is not in v2's. Raises ValueError."""
    unified = ""
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path, 1
        if number == "0" and not controllers:
            unified = path
    if not unified:
        raise ValueError(f"no control group with {controller}")
    return unified, 2


def _below(path: str, mount_root: str) -> str | None:
    """The part of the path below the mount's root: empty for the root itself, None where it is not below it."""
    mount_root = mount_root.rstrip("/")
    if path.rstrip("/") == mount_root:
        return ""
    if path.startswith(mount_root + "/") and not f"{path[len(mount_root) :]}/".startswith("/../"):
        return path[len(mount_root) :].rstrip("/")
    return None


def _upwards(path: str, top: str, below: str, version: int) -> Iterator[Level]:
    path = path.rstrip("/")
    while True:
        yield Level(path or "/", top + below, version)
        if not below:
            return
        below, path = below.rpartition("/")[0], path.rpartition("/")[0]


def _is_there(folder: str) -> bool:
    try:
        posix.stat(folder)
    except (OSError, ValueError):  # a path with a zero in it is a ValueError
        return False
    return True


def use_of(level: Level) -> tuple[int, int] | None:
    """Working set and limit in bytes, or None where there is no limit or not all of it can be read.

    v1 tells of the smallest limit above a group too, which may lie above what a container sees.
    """
    limit, current, dropped, above = _V2 if level.version == 2 else _V1
    try:
        limits = [read(f"{level.folder}/{limit}").strip()]
        used = int(read(f"{level.folder}/{current}"))
        for row in read(f"{level.folder}/memory.stat").splitlines():
            if row.startswith(dropped):
                used -= int(row[len(dropped) :])
            elif above and row.startswith(above):
                limits.append(row[len(above) :])
    except (OSError, ValueError):
        return None
    known = [int(text) for text in limits if text.isdigit() and int(text) < _NO_LIMIT]
    return (max(0, used), max(1, min(known))) if known else None  # of 0 bytes there is no share


def _host_total(proc: str) -> int:
    """MemTotal in bytes, or 0 if it cannot be read."""
    try:
        for line in read(f"{proc}/meminfo").splitlines():
            if line.startswith(b"MemTotal:"):
                return max(0, int(line.split()[1])) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0


def _unescaped(text: str) -> str:
    r"""Space, tab, newline and backslash are written \040, \011, \012, \134."""
    head, *parts = text.split("\\")
    return head + "".join(
        chr(int(part[:3], 8)) + part[3:] if len(part) >= 3 and set(part[:3]) <= set("01234567") else "\\" + part
        for part in parts
    )
