"""The kernel's own counters of the engine's processes and threads, as plain values: the evidence for a cause.

Cheap enough for every second beside an engine that counts microseconds: it must never read a file that takes the
engine's memory lock (smaps, numa_maps), nor raise for what a process does meanwhile. What cannot be read is named.
Sources: proc(5), sched_getaffinity(2), the kernel's sched-stats.rst and sched-debug.
"""

from __future__ import annotations

import posix

from sentinel.counters.group import GroupCounters
from sentinel.counters.kept import Kept
from sentinel.counters.look import Look
from sentinel.model import TYPE_CHECKING, Counted, Counters
from sentinel.proc import TICKS_PER_S, parse_stat, read, read_record, rss_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sentinel.model import Process, Series

_MOST_PROCESSES = 16  # of one engine; the oldest
_MOST_THREADS = 128  # of a process; the oldest
_MOST_KEPT = 48  # two of each of 16 threads, as an engine has, and some more
_MOST_DEVICES = 32  # on a host with a device for every container
_REFRESH_S = 10.0  # how long a thread may be bound to other cores before that is seen
_LONGEST_PULSE_S = 0.5  # after a pulse that came late nobody knows when the process stopped
_NODES = "/sys/devices/system/node/online"
_AS_THE_ENGINE = "run Sentinel with the engine's uid and gid, beside it"


class Counting:
    """Looks again and again at one engine. It keeps some files open if it may: `keeps`.

    `root` stands in front of our own mount points, for tests.
    """

    def __init__(self, proc: str = "/proc", root: str = "", keeps: bool = True) -> None:
        self._proc = proc
        self._groups = GroupCounters(proc, root)
        # A filesystem without blocks is the real one, which tells the number of open files (since Linux 6.2).
        self._real = posix.statvfs(proc).f_blocks == 0
        self._has_sched = True
        try:
            self._nodes = read(_NODES).strip()
        except OSError:  # a kernel without NUMA
            self._nodes = b"0"
        self._cores: frozenset[int] = frozenset()
        self._refreshed = float("-inf")
        self._stopped: dict[tuple[object, ...], float] = {}
        self._kept = Kept(_MOST_KEPT if keeps and self._real else 0)
        self._watched: dict[tuple[object, ...], str] = {}
        self._pulsed = self._looked = float("-inf")

    def look(self, processes: Sequence[Process], now: float) -> Counters:
        """What they count now; `now` is the monotonic clock and must not go back."""
        look = Look()
        chosen = processes[:_MOST_PROCESSES]
        for process in chosen:
            self._count_process(process, look)
            self._count_threads(process, look)
        if chosen:
            self._count_cores(chosen, now, look)
            self._count_network(chosen[0], look)
            self._groups.count(chosen[0], now, look)
            self._count_nodes(chosen, look)
            self._count_stops(chosen, now, look)
        self._kept.sweep()
        return Counters(tuple(look.counted), look.levels, look.sources, tuple(look.missing.values()))

    def pulse(self, now: float) -> None:
        """Between two looks, some five times a second: who stands still now did so since the pulse before.

        No counter of the kernel tells of a SIGSTOP; only the state does, while it lasts.
        """
        for of, path in self._watched.items():
            try:
                data = self._kept.read(path)
                stopped = data[data.rfind(b")") + 2 : data.rfind(b")") + 3] in (b"T", b"t")
            except OSError:  # it ended
                continue
            if stopped and now > self._pulsed > float("-inf"):
                self._stopped[of] = self._stopped.get(of, 0.0) + min(now - self._pulsed, _LONGEST_PULSE_S)
        self._pulsed = now

    # --- of each process --------------------------------------------------------------------------------------------

    def _count_process(self, process: Process, look: Look) -> None:
        folder = f"{self._proc}/{process.pid}"
        try:
            fields = parse_stat(read_record(f"{folder}/stat"))[1]
        except (OSError, ValueError):  # it ended
            return
        totals: dict[Series, float] = {
            ("sentinel_engine_page_faults", ("minor",)): int(fields[7]),
            ("sentinel_engine_page_faults", ("major",)): int(fields[9]),
            ("sentinel_engine_cpu_seconds", ("user",)): int(fields[11]) / TICKS_PER_S,
            ("sentinel_engine_cpu_seconds", ("system",)): int(fields[12]) / TICKS_PER_S,
        }
        look.counted.append(Counted(("process", process.pid, process.start_ticks), totals))
        look.source(f"{folder}/stat", "sentinel_engine_page_faults", "sentinel_engine_cpu_seconds")
        look.source(folder, "sentinel_engine_processes")
        look.add("sentinel_engine_threads", int(fields[17]), f"{folder}/stat")
        try:
            for line in read_record(f"{folder}/status").splitlines():
                if line.startswith(b"VmSwap:"):
                    look.add("sentinel_engine_swap_bytes", int(line.split()[1]) * 1024, f"{folder}/status")
        except OSError:
            return
        self._count_files(folder, look)

    def _count_files(self, folder: str, look: Look) -> None:
        """Those of the process that is nearest to its own limit."""
        try:
            limit = next(
                line for line in read_record(f"{folder}/limits").splitlines() if line.startswith(b"Max open files")
            )
            most = limit.split()[3]
            opened = posix.stat(f"{folder}/fd").st_size if self._real else 0
            opened = opened or len(posix.listdir(f"{folder}/fd"))
        except (OSError, StopIteration) as exc:
            look.miss("open files", f"{folder}/fd", exc, _AS_THE_ENGINE)
            return
        known = look.levels
        before = known.get(("sentinel_engine_open_files", ())), known.get(("sentinel_engine_open_files_limit", ()))
        if not most.isdigit() or (before[0] and before[1] and before[0] / before[1] >= opened / int(most)):
            return
        known["sentinel_engine_open_files", ()] = opened
        known["sentinel_engine_open_files_limit", ()] = int(most)
        look.source(f"{folder}/fd", "sentinel_engine_open_files")
        look.source(f"{folder}/limits", "sentinel_engine_open_files_limit")

    # --- of each thread ---------------------------------------------------------------------------------------------

    def _count_threads(self, process: Process, look: Look) -> None:
        folder = f"{self._proc}/{process.pid}/task"
        tids = _listed(folder)
        if not tids:
            return
        if len(tids) > _MOST_THREADS:
            why = f"only the first {_MOST_THREADS} are looked at"
            look.miss("some threads", folder, why, "their CPU time is in that of the process")
        for tid in tids[:_MOST_THREADS]:
            try:
                ran, waited = map(int, self._kept.read(f"{folder}/{tid}/schedstat").split()[:2])
                name, switches = self._switches(f"{folder}/{tid}")
            except FileNotFoundError:
                self._miss_schedstat(folder, tid, look)
                continue
            except (OSError, ValueError):  # it ended
                continue
            totals: dict[Series, float] = {
                ("sentinel_engine_thread_cpu_seconds", (name,)): ran / 1e9,
                ("sentinel_engine_run_queue_seconds", (name,)): waited / 1e9,
                ("sentinel_engine_context_switches", (name, "voluntary")): switches[0],
                ("sentinel_engine_context_switches", (name, "involuntary")): switches[1],
            }
            if self._has_sched:
                totals["sentinel_engine_migrations", (name,)] = switches[2]
            look.counted.append(Counted(("thread", process.pid, tid), totals))
        pattern = f"{folder}/*"
        look.source(f"{pattern}/schedstat", "sentinel_engine_run_queue_seconds", "sentinel_engine_thread_cpu_seconds")
        look.source(f"{pattern}/{'sched' if self._has_sched else 'status'}", "sentinel_engine_context_switches")
        if self._has_sched:
            look.source(f"{pattern}/sched", "sentinel_engine_migrations")
        else:
            look.miss("migrations", f"{pattern}/sched", "no such file", "a kernel with CONFIG_SCHED_DEBUG has it")

    def _switches(self, folder: str) -> tuple[str, tuple[int, int, int]]:
        """The name of a thread, and its voluntary and involuntary switches and migrations."""
        if self._has_sched:
            try:
                data = self._kept.read(f"{folder}/sched")
            except FileNotFoundError:
                read_record(f"{folder}/status")  # is it the file that is not there, or the thread?
                self._has_sched = False
            else:
                name = data[: data.index(b"\n")].rpartition(b" (")[0]
                keys = (b"\nnr_voluntary_switches", b"\nnr_involuntary_switches", b"\nse.nr_migrations")
                return _text(name), (_number(data, keys[0]), _number(data, keys[1]), _number(data, keys[2]))
        data = self._kept.read(f"{folder}/status")
        name = data[len(b"Name:\t") : data.index(b"\n")]
        voluntary = _number(data, b"\nvoluntary_ctxt_switches")
        return _text(name), (voluntary, _number(data, b"\nnonvoluntary_ctxt_switches"), 0)

    def _miss_schedstat(self, folder: str, tid: str, look: Look) -> None:
        try:
            read_record(f"{folder}/{tid}/comm")
        except OSError:
            return
        why = "no such file"
        look.miss("run-queue delay", f"{folder}/*/schedstat", why, "a kernel with CONFIG_SCHED_INFO has it")

    # --- of what they stand on --------------------------------------------------------------------------------------

    def _count_cores(self, processes: Sequence[Process], now: float, look: Look) -> None:
        """How busy each core was that a thread may run on, with whatever it ran; and what the hypervisor took."""
        if now - self._refreshed >= _REFRESH_S:
            self._cores, self._refreshed = frozenset(self._bound_to(processes)), now
        path = f"{self._proc}/stat"
        totals: dict[Series, float] = {}
        stolen = 0
        try:
            for line in read(path).splitlines():
                word, *numbers = line.split(maxsplit=9)
                number = word[3:]
                if not word.startswith(b"cpu"):
                    break
                if number.isdigit() and int(number) in self._cores and len(numbers) >= 8:
                    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, numbers[:8])
                    busy = user + nice + system + irq + softirq + steal
                    totals["sentinel_engine_cpu_busy_seconds", (number.decode(),)] = busy / TICKS_PER_S
                    stolen += steal
        except (OSError, ValueError) as exc:
            look.miss("use of each core", path, exc, "mount the host's /proc")
            return
        totals["sentinel_engine_cpu_steal_seconds", ()] = stolen / TICKS_PER_S
        look.counted.append(Counted(("cores", self._cores), totals))
        look.levels["sentinel_engine_cpu_cores", ()] = len(self._cores)
        look.source(path, "sentinel_engine_cpu_busy_seconds", "sentinel_engine_cpu_steal_seconds")
        look.source("sched_getaffinity(2)", "sentinel_engine_cpu_cores")

    def _bound_to(self, processes: Iterable[Process]) -> Iterator[int]:
        for process in processes:
            for tid in _listed(f"{self._proc}/{process.pid}/task")[:_MOST_THREADS]:
                try:
                    yield from posix.sched_getaffinity(int(tid))
                except OSError:  # it ended
                    continue

    def _count_network(self, process: Process, look: Look) -> None:
        folder = f"{self._proc}/{process.pid}/net"
        totals: dict[Series, float] = {}

        def table(file: str, word: bytes, name: bytes, metric: str) -> None:
            rows = [line.split() for line in read(f"{folder}/{file}").splitlines() if line.startswith(word)]
            totals[metric, ()] = int(rows[1][rows[0].index(name)])
            look.source(f"{folder}/{file}", metric)

        def devices() -> None:
            rows = (line.partition(b":") for line in read(f"{folder}/dev").splitlines()[2:])
            named = sorted((name.strip(), rest.split()) for name, _, rest in rows)
            for name, numbers in [row for row in named if row[0] != b"lo"][:_MOST_DEVICES]:
                totals["sentinel_engine_network_drops", (_text(name), "receive")] = int(numbers[3])
                totals["sentinel_engine_network_drops", (_text(name), "transmit")] = int(numbers[11])
            look.source(f"{folder}/dev", "sentinel_engine_network_drops")

        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("snmp", lambda: table("snmp", b"Tcp:", b"RetransSegs", "sentinel_engine_tcp_retransmits")),
            ("netstat", lambda: table("netstat", b"TcpExt:", b"ListenOverflows", "sentinel_engine_listen_overflows")),
            ("dev", devices),
        )
        for file, part in parts:
            try:
                part()
            except (OSError, ValueError, IndexError) as exc:
                look.miss("network", f"{folder}/{file}", exc, _AS_THE_ENGINE)
        look.counted.append(Counted(("network", process.pid, process.start_ticks), totals))

    def _count_nodes(self, processes: Sequence[Process], look: Look) -> None:
        """On a machine of one NUMA node all memory is there; on others the control group tells of which it has."""
        if not self._nodes.isdigit():
            self._groups.count_nodes(look)
            return
        look.levels["sentinel_engine_numa_bytes", (self._nodes.decode(),)] = rss_bytes(processes)
        look.source(_NODES, "sentinel_engine_numa_bytes")

    def _count_stops(self, processes: Sequence[Process], now: float, look: Look) -> None:
        frozen_s = now - self._looked if self._groups.frozen and self._looked > float("-inf") else 0.0
        self._looked = now
        self._watched = {  # the main thread's: the file of the process adds up all its threads
            ("stops", process.pid, process.start_ticks): f"{self._proc}/{process.pid}/task/{process.pid}/stat"
            for process in processes
        }
        self._stopped = {of: self._stopped.get(of, 0.0) for of in self._watched}
        self._stopped[next(iter(self._watched))] += frozen_s
        metric = "sentinel_engine_stopped_seconds"
        look.counted += [Counted(of, {(metric, ()): stopped_s}) for of, stopped_s in self._stopped.items()]
        look.source(f"{self._proc}/{processes[0].pid}/stat", metric)

    def close(self) -> None:
        """It may not be used any more."""
        self._kept.close()


def _listed(folder: str) -> list[str]:
    try:
        return posix.listdir(folder)
    except OSError:  # it ended
        return []


def _number(data: bytes, key: bytes) -> int:
    """The number behind the colon of the line that begins with this key. Raises ValueError."""
    begin = data.index(b":", data.index(key)) + 1
    return int(data[begin : data.index(b"\n", begin)])


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
