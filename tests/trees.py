"""Made trees of /proc and /sys/fs/cgroup, as a machine has them that the tests do not run on."""

from __future__ import annotations

from pathlib import Path

from sentinel.cgroup import Level, levels, memory_use
from sentinel.model import MemoryUse, Process

MIB = 1 << 20
PID = (1 << 22) + 7  # above all that the kernel gives: nothing that is asked by number meets another process
ENGINE = Process(PID, 100, 0.0, 0.0, "engine", 10 * MIB, 1)
NONE = 9223372036854771712  # what v1 writes for no limit
SYS = "sys/fs/cgroup"
THROUGH_ENGINE = f"proc/{PID}/root/sys/fs/cgroup"


def v2(root: str, point: str = "/sys/fs/cgroup") -> str:
    return f"30 23 0:26 {root} {point} rw,nosuid shared:4 - cgroup2 cgroup rw,nsdelegate\n"


def v1(root: str, controller: str = "memory", point: str = "") -> str:
    return f"31 23 0:28 {root} {point or f'/sys/fs/cgroup/{controller}'} rw - cgroup cgroup rw,{controller}\n"


class Machine:
    """A made /proc and /sys/fs/cgroup: of us, and of the engine where it has mounts of its own."""

    def __init__(self, folder: Path, cgroup: str, own: str, engine: str | None = None, total: int = 1024) -> None:
        self._folder = folder
        self.write("proc/meminfo", f"MemTotal:       {total * 1024} kB\nMemFree:        1 kB\n")
        self.write(f"proc/{PID}/cgroup", cgroup)
        self.write("proc/self/mountinfo", f"22 27 0:21 / /proc rw,relatime - proc proc rw\n{own}")
        self.write(f"proc/{PID}/mountinfo", own if engine is None else engine)

    def write(self, path: str, text: str) -> None:
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group(self, folder: str, limit: str, used: int, inactive: int = 0) -> Machine:
        """A group of version 2; sizes in MiB, the limit too if it is a number."""
        text = str(int(limit) * MIB) if limit.isdigit() else limit
        self.write(f"{folder}/memory.max", f"{text}\n")
        self.write(f"{folder}/memory.current", f"{used * MIB}\n")
        self.write(f"{folder}/memory.stat", f"anon 1\nfile 2\nactive_file 3\ninactive_file {inactive * MIB}\n")
        return self

    def old_group(self, folder: str, limit_bytes: int, used: int, inactive: int = 0, above: int = NONE) -> Machine:
        """A group of version 1; sizes in MiB but for the limits. `above` is the smallest of the groups above it."""
        self.write(f"{folder}/memory.limit_in_bytes", f"{limit_bytes}\n")
        self.write(f"{folder}/memory.usage_in_bytes", f"{used * MIB}\n")
        stat = f"inactive_file {999 * MIB}\nhierarchical_memory_limit {min(limit_bytes, above)}\n"
        self.write(f"{folder}/memory.stat", f"{stat}total_inactive_file {inactive * MIB}\n")
        return self

    def remove(self, path: str) -> Machine:
        (self._folder / path).unlink()
        return self

    def use(self, *processes: Process) -> MemoryUse:
        return memory_use(processes or (ENGINE,), f"{self._folder}/proc", str(self._folder))

    def levels(self) -> list[Level]:
        """With the folder as seen from the made root."""
        found = levels(PID, "memory", f"{self._folder}/proc", str(self._folder))
        return [level.replace(folder=str(Path(level.folder).relative_to(self._folder))) for level in found]


def stat(pid: int, comm: str, start_ticks: int, state: str = "S", rss_pages: int = 3, threads: int = 1) -> bytes:
    fields = [state, *["0"] * 16, str(threads), "0", str(start_ticks), "4096", str(rss_pages), *["0"] * 28]
    return f"{pid} ({comm}) {' '.join(fields)}\n".encode()
