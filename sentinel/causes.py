"""The table of causes: what must have changed for each, what it costs the engine, and how it is told.

Pure. It must never hold a rule that names a cause without a measured change behind it; each has its test.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value
from sentinel.sight import TIMES, Moved
from sentinel.units import duration, number, percent, size

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.sight import Sight

FACT = 1e9  # the weight of what needs no weighing
_LOST = 0.01  # seconds a second: a p99 moves when a hundredth of the time is lost

PROCESSES, OOM_KILLS = "sentinel_engine_processes", "sentinel_engine_oom_kills"
STOPPED = "sentinel_engine_stopped_seconds"
FILES, FILES_LIMIT = "sentinel_engine_open_files", "sentinel_engine_open_files_limit"
OVERFLOWS = "sentinel_engine_listen_overflows"
THROTTLED = "sentinel_engine_cpu_throttled_seconds"
PERIODS, THROTTLED_PERIODS = "sentinel_engine_cpu_periods", "sentinel_engine_cpu_throttled_periods"
CPU_LIMIT = "sentinel_engine_cpu_limit_cores"
LIMIT_HITS = "sentinel_engine_memory_limit_hits"
MEMORY, MEMORY_LIMIT = "sentinel_engine_memory_used_bytes", "sentinel_engine_memory_limit_bytes"
SWAP = "sentinel_engine_swap_bytes"
FAULTS = "sentinel_engine_page_faults"
RUN_QUEUE = "sentinel_engine_run_queue_seconds"
CORES = "sentinel_engine_cpu_cores"
CORES_BUSY, STOLEN = "sentinel_engine_cpu_busy_seconds", "sentinel_engine_cpu_steal_seconds"
THREAD_CPU = "sentinel_engine_thread_cpu_seconds"
SWITCHES = "sentinel_engine_context_switches"
MIGRATIONS = "sentinel_engine_migrations"
PRESSURE = "sentinel_engine_pressure_seconds"
RETRANSMITS = "sentinel_engine_tcp_retransmits"
DROPS = "sentinel_engine_network_drops"


class Rule(Value):
    """One cause that there is.

    `measure` gives what changed, or None; `cost` weighs it against others: seconds that the engine loses by one of its
    unit. `says` is for a person. What it `explains` is told as its consequence and not as a cause beside it.
    """

    word: str
    figure: str
    unit: str
    measure: Callable[[Sight], Moved | None]
    cost: float
    says: Callable[[Moved, Sight], str]
    explains: tuple[str, ...] = ()


def _fact(reason: str, metric: str, now: float) -> Callable[[Sight], Moved | None]:
    """A probe says it itself, for good: what was 1 is 0, or the other way."""

    def measure(sight: Sight) -> Moved | None:
        since = [trouble.since for trouble in sight.troubles if trouble.reason == reason]
        return Moved(now, 1.0 - now, min(since), 1.0, metric) if since else None

    return measure


def _faster(metric: str, *where: str, least: float, alone: bool = False) -> Callable[[Sight], Moved | None]:
    """A total rises by `least` a second and twice as fast as ever before. `alone`: that says enough with no before."""

    def measure(sight: Sight) -> Moved | None:
        moved = sight.rate(metric, *where, least=least)
        if moved is None or moved.now < least:
            return None
        if moved.before is None:
            return moved if alone else None
        return moved if moved.now >= TIMES * moved.before else None

    return measure


def _refused(sight: Sight) -> Moved | None:
    """Only where a probe got no connection either: the count is of the whole network namespace."""
    unanswered = any(trouble.reason in ("timeout", "connect_refused", "unreachable") for trouble in sight.troubles)
    return _faster(OVERFLOWS, least=0.15, alone=True)(sight) if unanswered else None


def _stolen(sight: Sight) -> Moved | None:
    """Of each core, as one that another guest takes is not all of them."""
    moved, cores = _faster(STOLEN, least=_LOST)(sight), sight.latest(CORES)
    if moved is None or not cores or moved.now < _LOST * cores:
        return None
    return moved.replace(now=moved.now / cores, before=None if moved.before is None else moved.before / cores)


def _share(metric: str, of: str, least: float) -> Callable[[Sight], Moved | None]:
    """A level is at least this share of its limit, and was not before."""

    def measure(sight: Sight) -> Moved | None:
        moved = sight.level(metric, of)
        if moved is None or moved.now < least or (moved.before is not None and moved.before >= least):
            return None
        return moved.replace(amount=sight.latest(of) or 0.0)

    return measure


def _risen(metric: str, least: float) -> Callable[[Sight], Moved | None]:
    """A level is higher than ever before, by at least this much."""

    def measure(sight: Sight) -> Moved | None:
        moved = sight.level(metric)
        return moved if moved and moved.before is not None and moved.amount >= least else None

    return measure


def _first_sentence(reason: str) -> Callable[[Moved, Sight], str]:
    return lambda _, sight: next(trouble.sentence for trouble in sight.troubles if trouble.reason == reason)


def _says_throttled(moved: Moved, sight: Sight) -> str:
    limit = sight.latest(CPU_LIMIT)
    cores = f" (limit {limit:g} CPU{'' if limit == 1 else 's'})" if limit else ""
    of = sight.amount(PERIODS, moved.since)
    return f"CPU throttled {sight.amount(THROTTLED_PERIODS, moved.since):.0f} of {of:.0f} periods{cores}"


def _says_at_the_limit(moved: Moved, sight: Sight) -> str:
    used, limit = sight.latest(MEMORY), sight.latest(MEMORY_LIMIT)
    of = f" ({size(used)} of {size(limit)})" if used and limit else ""
    return f"memory at its limit{of}, reclaimed {number(moved.now)} times a second"


def _says_waited(moved: Moved, sight: Sight) -> str:
    busy = sight.rate(CORES_BUSY)
    core = f"; core {busy.labels[0]} is {percent(min(1.0, busy.now))} busy" if busy else ""
    those = "thread" if moved.now <= 1 else "threads named"
    return f"{those} {moved.labels[0]} waited {duration(moved.now)} of each second for a CPU{core}"


# Costs: what waits for a CPU loses what it waits; a major fault waits half a millisecond for a disk, reclaim a tenth of
# one; a segment is sent again after 200 ms at the soonest and a connection after 1 s (RFC 6298); a switch with cold
# caches is some 10 µs. Symptoms stand behind what brings them, whatever they cost.
RULES = (
    Rule(
        "oom_killed", "OOM kills", "", _fact("oom_killed", OOM_KILLS, 1.0), FACT, _first_sentence("oom_killed"),
        ("memory_limit", "memory_near_limit", "major_faults", "swapped", "memory_pressure", "io_pressure", "run_queue"),
    ),
    Rule("process_ended", "processes", "", _fact("no_process", PROCESSES, 0.0), FACT, _first_sentence("no_process")),
    Rule(
        "files_exhausted", "open files of their limit", "ratio", _share(FILES, FILES_LIMIT, 0.98), 10.0,
        lambda moved, _: f"file descriptors used up: {percent(moved.now)} of {moved.amount:.0f}",
        ("listen_overflow", "retransmits"),
    ),
    Rule(
        "stopped", "stopped", "s/s", _faster(STOPPED, least=_LOST, alone=True), 2.0,
        lambda moved, _: f"the process stood still for {duration(moved.amount)} (SIGSTOP, a debugger, a freeze)",
        ("listen_overflow", "retransmits"),
    ),
    Rule(
        "listen_overflow", "connections refused", "/s", _refused, 1.0,
        lambda moved, _: f"a listen queue is full: {moved.amount:.0f} connections refused",
        ("retransmits",),
    ),
    Rule(
        "cpu_throttled", "throttled", "s/s", _faster(THROTTLED, least=_LOST, alone=True), 1.0, _says_throttled,
        ("run_queue", "cpu_pressure", "preempted", "migrations", "listen_overflow"),
    ),
    Rule(
        "memory_limit", "reclaims at the limit", "/s", _faster(LIMIT_HITS, least=1.0, alone=True), 0.001,
        _says_at_the_limit, ("memory_near_limit", "major_faults", "memory_pressure", "io_pressure", "swapped"),
    ),
    Rule(
        "run_queue", "run-queue delay", "s/s", _faster(RUN_QUEUE, least=_LOST), 1.0, _says_waited,
        ("cpu_pressure", "preempted", "migrations"),
    ),
    Rule(
        "cpu_stolen", "stolen by the hypervisor", "s/s", _stolen, 0.5,
        lambda moved, _: f"the hypervisor took {percent(moved.now)} of its cores' time",
        ("preempted", "migrations"),
    ),
    Rule(
        "swapped", "swapped out", "bytes", _risen(SWAP, 1 << 20), 1e-9,
        lambda moved, _: f"{size(moved.amount)} more of its memory is swapped out",
        ("major_faults", "memory_pressure", "io_pressure"),
    ),
    Rule(
        "major_faults", "major page faults", "/s", _faster(FAULTS, "major", least=20.0), 0.0005,
        lambda moved, _: f"{number(moved.now)} major page faults a second: it waits for pages from the disk",
        ("memory_pressure", "io_pressure"),
    ),
    Rule(
        "memory_near_limit", "memory of its limit", "ratio", _share(MEMORY, MEMORY_LIMIT, 0.95), 0.005,
        lambda moved, _: f"memory is at {percent(moved.now)} of {size(moved.amount)}",
    ),
    Rule(
        "memory_pressure", "memory pressure", "s/s", _faster(PRESSURE, "memory", "some", "cgroup", least=_LOST), 0.5,
        lambda moved, _: f"its tasks waited {duration(moved.now)} of each second for memory",
    ),
    Rule(
        "io_pressure", "I/O pressure", "s/s", _faster(PRESSURE, "io", "some", "cgroup", least=_LOST), 0.5,
        lambda moved, _: f"its tasks waited {duration(moved.now)} of each second for a disk",
    ),
    Rule(
        "cpu_pressure", "CPU pressure", "s/s", _faster(PRESSURE, "cpu", "some", "cgroup", least=_LOST), 0.2,
        lambda moved, _: f"its tasks waited {duration(moved.now)} of each second for a CPU",
    ),
    Rule(
        "retransmits", "TCP retransmits", "/s", _faster(RETRANSMITS, least=1.0), 0.2,
        lambda moved, _: f"{number(moved.now)} TCP segments a second were sent again",
    ),
    Rule(
        "network_drops", "packets dropped", "/s", _faster(DROPS, least=1.0), 0.2,
        lambda moved, _: f"{moved.labels[0]} dropped {number(moved.now)} packets a second",
    ),
    Rule(
        "thread_busy", "CPU of one thread", "s/s", _faster(THREAD_CPU, least=0.9), 0.01,
        lambda moved, _: f"thread {moved.labels[0]} uses {percent(min(1.0, moved.now))} of a core",
    ),
    Rule(
        "preempted", "involuntary switches", "/s", _faster(SWITCHES, "involuntary", least=500.0), 1e-5,
        lambda moved, _: f"thread {moved.labels[0]} was taken off its CPU {number(moved.now)} times a second",
        ("migrations",),
    ),
    Rule(
        "migrations", "migrations", "/s", _faster(MIGRATIONS, least=500.0), 1e-5,
        lambda moved, _: f"thread {moved.labels[0]} moved to another CPU {number(moved.now)} times a second",
    ),
)  # fmt: skip
