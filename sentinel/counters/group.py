"""What the control groups of the engine count: throttling, reclaim at the limit, pressure, freezing, memory by node.

v1 and v2, of the level whose limit counts: the smallest. It must not raise for what the engine does meanwhile, nor
take the host's numbers for those of a group.
Sources: cgroup-v2.rst, cgroup-v1/*.rst, sched-bwc.rst and psi.rst of the kernel.
"""

from __future__ import annotations

from sentinel.cgroup import levels, use_of
from sentinel.model import TYPE_CHECKING, Counted
from sentinel.proc import PAGE_BYTES, read

if TYPE_CHECKING:
    from sentinel.cgroup import Level
    from sentinel.counters.look import Look
    from sentinel.model import Process, Series

_REFRESH_S = 10.0  # how long a process may have moved, or a quota have been set, before it is seen
_SHARE_PID_NAMESPACE = "share the engine's PID namespace and run with its uid and gid, or mount the host's cgroups"
_US_PER_S, _NS_PER_S = 1e6, 1e9


class GroupCounters:
    """Of one engine, again and again. `frozen` says whether it was so at the last count."""

    def __init__(self, proc: str, root: str) -> None:
        self._proc = proc
        self._root = root
        self._of: tuple[int, int] = (0, 0)
        self._refreshed = float("-inf")
        self._cpu: Level | None = None
        self._cores: float | None = None
        self._memory: tuple[Level, ...] = ()
        self._unified: Level | None = None
        self._freezer: Level | None = None
        self.frozen = False

    def count(self, process: Process, now: float, look: Look) -> None:
        """Writes what the groups of this process count into the look."""
        if (process.pid, process.start_ticks) != self._of or now - self._refreshed >= _REFRESH_S:
            self._refresh(process.pid)
            self._of, self._refreshed = (process.pid, process.start_ticks), now
        self._count_cpu(look)
        self._count_memory(look)
        self._count_pressure(look)
        self.frozen = self._is_frozen()

    def _refresh(self, pid: int) -> None:
        above = levels(pid, "cpu", self._proc, self._root)
        limited = [(cores, level) for level in above if (cores := quota_cores(level)) is not None]
        self._cores, self._cpu = min(limited, key=lambda pair: pair[0]) if limited else (None, next(iter(above), None))
        above = levels(pid, "memory", self._proc, self._root)
        self._memory = tuple(level for level in above if use_of(level) is not None) or above[:1]
        # No controller of v1 is called so: the group of v2, which has pressure and freezing without any controller.
        self._unified = next(iter(levels(pid, "unified", self._proc, self._root)), None)
        self._freezer = next(iter(levels(pid, "freezer", self._proc, self._root)), None)

    def _count_cpu(self, look: Look) -> None:
        level = self._cpu
        if level is None:
            look.miss("CPU throttling", "cpu.stat", "no control group with cpu is seen", _SHARE_PID_NAMESPACE)
            return
        path = f"{level.folder}/cpu.stat"
        try:
            stat = pairs(read(path))
        except (OSError, ValueError) as exc:
            look.miss("CPU throttling", path, exc, _SHARE_PID_NAMESPACE)
            return
        throttled_s = stat.get(b"throttled_usec", 0) / _US_PER_S + stat.get(b"throttled_time", 0) / _NS_PER_S
        totals: dict[Series, float] = {
            ("sentinel_engine_cpu_periods", ()): stat.get(b"nr_periods", 0),
            ("sentinel_engine_cpu_throttled_periods", ()): stat.get(b"nr_throttled", 0),
            ("sentinel_engine_cpu_throttled_seconds", ()): throttled_s,
        }
        look.counted.append(Counted(("cpu", level.folder), totals))
        look.source(path, *(metric for metric, _ in totals))
        if self._cores is not None:
            look.levels["sentinel_engine_cpu_limit_cores", ()] = self._cores
            file = "cpu.max" if level.version == 2 else "cpu.cfs_quota_us"
            look.source(f"{level.folder}/{file}", "sentinel_engine_cpu_limit_cores")

    def _count_memory(self, look: Look) -> None:
        metric = "sentinel_engine_memory_limit_hits"
        hits = 0.0
        for level in self._memory:
            path = f"{level.folder}/{'memory.events' if level.version == 2 else 'memory.failcnt'}"
            try:
                data = read(path)
                hits += pairs(data).get(b"max", 0) if level.version == 2 else int(data)
            except (OSError, ValueError):
                continue
            look.source(path, metric)
            kills = "memory.events" if level.version == 2 else "memory.oom_control"
            look.source(f"{level.folder}/{kills}", "sentinel_engine_oom_kills")
        if metric not in look.sources:
            look.miss("reclaim at the memory limit", "memory.events", "not seen", _SHARE_PID_NAMESPACE)
            return
        of = ("memory", *(level.folder for level in self._memory))
        look.counted.append(Counted(of, {(metric, ()): hits}))

    def count_nodes(self, look: Look) -> None:
        """Of the process's own group: numa_maps would tell of the process, under the engine's memory lock."""
        level = next(iter(self._memory), None)
        if level is None or level.path == "/":  # that at the top is of the whole machine
            remedy = "give the engine a control group of its own"
            look.miss("memory by NUMA node", "memory.numa_stat", "no group of its own", remedy)
            return
        path = f"{level.folder}/memory.numa_stat"
        nodes: dict[str, float] = {}
        try:
            for line in read(path).splitlines():
                name, *numbers = line.replace(b"=", b" ").split()
                if name in (b"anon", b"file") if level.version == 2 else name == b"total":
                    by_node = numbers if level.version == 2 else numbers[1:]
                    for word, number in zip(by_node[::2], by_node[1::2], strict=True):
                        node = word[1:].decode()
                        nodes[node] = nodes.get(node, 0.0) + int(number) * (1 if level.version == 2 else PAGE_BYTES)
        except (OSError, ValueError) as exc:
            look.miss("memory by NUMA node", path, exc, _SHARE_PID_NAMESPACE)
            return
        look.levels.update({("sentinel_engine_numa_bytes", (node,)): size for node, size in nodes.items()})
        look.source(path, "sentinel_engine_numa_bytes")

    def _count_pressure(self, look: Look) -> None:
        """Of the group where v2 has one, else of the host; in microseconds (psi.rst)."""
        level = self._unified if self._unified is not None and self._unified.path != "/" else None
        path = f"{self._proc}/pressure/%s" if level is None else f"{level.folder}/%s.pressure"
        totals: dict[Series, float] = {}
        for resource in ("cpu", "memory", "io"):
            try:
                for line in read(path % resource).splitlines():
                    share, *rest = line.split()
                    at = (resource, share.decode(), "cgroup" if level else "host")
                    totals["sentinel_engine_pressure_seconds", at] = int(rest[-1].removeprefix(b"total=")) / _US_PER_S
            except (OSError, ValueError, IndexError) as exc:
                look.miss("pressure", path % resource, exc, "a kernel with CONFIG_PSI, started with psi=1, has it")
        look.source(path % "*", "sentinel_engine_pressure_seconds")
        look.counted.append(Counted(("pressure", path), totals))

    def _is_frozen(self) -> bool:
        try:
            if self._freezer is not None and self._freezer.version == 1:
                return read(f"{self._freezer.folder}/freezer.state").strip() == b"FROZEN"
            if self._unified is not None:
                return pairs(read(f"{self._unified.folder}/cgroup.events")).get(b"frozen") == 1
        except (OSError, ValueError):  # the group at the top has neither file
            pass
        return False


def quota_cores(level: Level) -> float | None:
    """The CPU limit of a level in cores; None where there is none, or it cannot be read."""
    try:
        if level.version == 2:
            quota, period = read(f"{level.folder}/cpu.max").split()
        else:
            quota, period = (read(f"{level.folder}/cpu.cfs_{what}_us").strip() for what in ("quota", "period"))
        return int(quota) / int(period) if quota.isdigit() and int(period) > 0 else None
    except (OSError, ValueError):
        return None


def pairs(data: bytes) -> dict[bytes, int]:
    """The lines `word number` of a flat keyed file. Raises ValueError."""
    return {word: int(number) for word, _, number in (line.partition(b" ") for line in data.splitlines())}
