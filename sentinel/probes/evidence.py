"""Kind `evidence`: what the kernel counts of the engine, every second. No question of health: what explains one.

It must never fail for what it cannot read: that is said by name. Totals are since Sentinel began to watch, so they only
rise, whichever thread, process or control group comes and goes.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Metric, Observation, ReadCounters, Reading, Value
from sentinel.proc import Who

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sentinel.model import Answer, Ask, Counters, Series

NEEDS = "process"


def _total(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"sentinel_engine_{name}", help_, labels, "counter")


def _level(name: str, help_: str, *labels: str) -> Metric:
    return Metric(f"sentinel_engine_{name}", help_, labels)


METRICS = (
    _total("cpu_seconds", "CPU time that the engine's processes used.", "mode"),
    _total("cpu_periods", "Periods in which the CPU quota was enforced."),
    _total("cpu_throttled_periods", "Periods in which the CPU quota was used up."),
    _total("cpu_throttled_seconds", "Time for which the control group was throttled, of all its CPUs together."),
    _total("thread_cpu_seconds", "CPU time that the threads of this name used.", "thread"),
    _total("run_queue_seconds", "Time for which the threads of this name were ready and waited for a CPU.", "thread"),
    _total("context_switches", "Switches away from the threads of this name.", "thread", "kind"),
    _total("migrations", "Moves of the threads of this name to another CPU.", "thread"),
    _total("page_faults", "Page faults: major ones waited for the disk.", "kind"),
    _total("memory_limit_hits", "How often the memory limit was hit and pages were reclaimed."),
    _total(
        "pressure_seconds",
        "Time that some or all tasks waited for it (PSI).",
        "resource",
        "share",
        "scope",
    ),
    _total("tcp_retransmits", "TCP segments sent again in the engine's network namespace."),
    _total("listen_overflows", "Connections refused as a listen queue was full, in the engine's network namespace."),
    _total("network_drops", "Packets that a network device dropped.", "device", "direction"),
    _total("stopped_seconds", "Time for which the engine was stopped (SIGSTOP, a debugger) or frozen (docker pause)."),
    _total("cpu_busy_seconds", "Time for which a core that the engine may run on ran anything.", "cpu"),
    _total("cpu_steal_seconds", "Time that the hypervisor took from these cores."),
    _level("cpu_cores", "Cores that the engine's threads may run on."),
    _level("cpu_limit_cores", "The smallest CPU quota above the engine, in cores."),
    _level("swap_bytes", "Memory of the engine that is swapped out."),
    _level("open_files", "Open files of the process that is nearest to its limit."),
    _level("open_files_limit", "The limit of open files of that process."),
    _level("threads", "Threads of the engine's processes."),
    _level("numa_bytes", "Memory of the engine by NUMA node.", "node"),
)

_MOST_NAMES = 64  # of threads; an engine that names each thread anew must not make a series of each
_OTHERS = "other"
_BORN = ("process", "thread", "stops")  # what counts from its own beginning, and that is the engine's


class Settings(Value):
    """The settings of a probe of kind `evidence`."""

    process: Who = Who("")  # the engine's, where the configuration does not say


class Sums(Value):
    """The totals since the watch began, and what each of the counting things said last."""

    totals: Mapping[Series, float]
    said: Mapping[tuple[object, ...], Mapping[Series, float]]


def asks(settings: Settings) -> tuple[Ask, ...]:
    """The counters of the engine's processes."""
    return (ReadCounters(settings.process),)


def read(settings: Settings, answers: tuple[Answer, ...], memory: Sums | None) -> tuple[Observation, Sums | None]:
    """Always a pass. Without an answer there are no readings."""
    (answer,) = answers
    if answer.failure is not None:
        return Observation(answer.at, answer.took_s, True, f"nothing to look at: {answer.failure.sentence}"), memory
    if answer.value is None:
        return Observation(answer.at, answer.took_s, True, "looked at over time, by the daemon"), memory
    counters: Counters = answer.value
    sums = added(counters, memory)
    values = {**sums.totals, **counters.levels}
    readings = [Reading(metric, value, labels) for (metric, labels), value in values.items()]
    sentence = f"{len(readings)} of the kernel's counters of processes {settings.process.said()}"
    if counters.missing:
        sentence += f"; {len(counters.missing)} cannot be read"
    details = (("sources", counters.sources), *(("unreadable", missing) for missing in counters.missing))
    return Observation(answer.at, answer.took_s, True, sentence, readings=tuple(readings), details=details), sums


def added(counters: Counters, before: Sums | None) -> Sums:
    """The totals with what was counted since the last look.

    A process or thread that was not there at the last look began since, and adds all that it counted. A core, a group
    or a network that is new was there before, for others: it adds nothing yet. What counts less than before is another
    one of the same name.
    """
    totals = dict(before.totals) if before else {}
    names = {labels[0] for (metric, labels) in totals if metric == "sentinel_engine_thread_cpu_seconds"}
    said = {}
    for counted in counters.counted:
        said[counted.of] = counted.totals
        last = before.said.get(counted.of) if before else counted.totals
        if last is None and counted.of[0] not in _BORN:
            last = counted.totals
        thread = counted.of[0] == "thread"
        for series, value in counted.totals.items():
            old = last.get(series, 0.0) if last else 0.0
            more = value - old if value >= old else value
            at = series
            if thread:
                name = series[1][0]
                if name not in names and len(names) >= _MOST_NAMES:
                    at = (series[0], (_OTHERS, *series[1][1:]))
                names.add(name if at is series else _OTHERS)
            totals[at] = totals.get(at, 0.0) + more
    return Sums(totals, said)
