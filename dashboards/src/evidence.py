"""The evidence of one engine as panels, in the order of the rules of `sentinel explain`.

Apart from the board because its order is not its own: a rule that moves there moves here.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from dashboards.src.panels import PUBLISHED, Query, Says, lines, rising, under
from dashboards.src.queries import Scope, low, peak, rate, rise, worst

if TYPE_CHECKING:
    from dashboards.src.panels import Panel

of = Scope('job=~"$job"', 'instance=~"$instance"', 'engine="$engine"')
says = partial(Says, engine="$engine")

_BUSIEST = 10  # threads: more lines are not read


def _threads(metric: str, **labels: str) -> str:
    return f"topk({_BUSIEST}, {worst(rate(of(metric, **labels)), 'thread')})"


RANKED: list[Panel] = [
    lines(
        "The process ended",
        "short",
        under(1),
        says(
            "Its processes and threads, its restarts, and how often the kernel killed one for lack of memory.",
            "No process is the cause of all else that fails. Look why it ended in its own log; after an OOM kill raise "
            "the limit or find the leak.",
            "EngineGone",
            rules=("oom_killed", "process_ended"),
        ),
        Query(f"min({low(of('sentinel_engine_processes'))})", "processes"),
        Query(f"max({peak(of('sentinel_engine_threads'))})", "threads"),
        Query(f"max({rise(of('sentinel_engine_restarts_total'))})", "restarts"),
        Query(f"max({rise(of('sentinel_engine_oom_kills_total'))})", "OOM kills"),
    ),
    lines(
        "Open files",
        "short",
        PUBLISHED,
        says(
            "File descriptors in use, and how many the process may have.",
            "At the limit nothing more is accepted or opened. Look for a leak with `ls -l /proc/PID/fd`.",
            "OpenFilesRunOut",
            rules=("files_exhausted",),
        ),
        Query(f"max({peak(of('sentinel_engine_open_files'))})", "open"),
        Query(f"min({low(of('sentinel_engine_open_files_limit'))})", "limit"),
    ),
    lines(
        "Stopped or frozen",
        "percentunit",
        rising(0.01, 0.1),
        says(
            "Share of the time in which the process stood still: SIGSTOP, a debugger, or a frozen control group.",
            "Look who stops it: a debugger, `docker pause`, a backup that freezes the container.",
            "EngineUnhealthy",
            rules=("stopped",),
        ),
        Query(f"max({rate(of('sentinel_engine_stopped_seconds_total'))})", "stopped"),
    ),
    lines(
        "Listen queue full",
        "cps",
        rising(0.1, 1),
        says(
            "Connections that the kernel turned away because the engine did not accept them in time.",
            "The accepting thread is blocked or too slow; look at its backlog and at `net.core.somaxconn`.",
            "ListenQueueOverflows",
            rules=("listen_overflow",),
        ),
        Query(f"max({rate(of('sentinel_engine_listen_overflows_total'))})", "turned away"),
    ),
    lines(
        "CPU throttled by its quota",
        "percentunit",
        rising(0.01, 0.1),
        says(
            "Share of the scheduler's periods in which the quota was used up, and the time that threads waited for it.",
            "Raise the CPU limit of the container, or take it away and bind the engine to cores of its own.",
            "CpuThrottled",
            rules=("cpu_throttled",),
        ),
        Query(
            f"max({rate(of('sentinel_engine_cpu_throttled_periods_total'))}"
            f" / {rate(of('sentinel_engine_cpu_periods_total'))})",
            "periods throttled",
        ),
        Query(f"max({rate(of('sentinel_engine_cpu_throttled_seconds_total'))})", "time throttled"),
        none="no quota, or it cannot be read",
    ),
    lines(
        "Memory reclaimed at the limit",
        "cps",
        rising(1, 10),
        says(
            "How often the control group was at its limit and the kernel had to find memory before the engine went on.",
            "Raise the memory limit, or make the engine use less; the page cache of its files counts too.",
            "MemoryNearLimit",
            rules=("memory_limit",),
        ),
        Query(f"max({rate(of('sentinel_engine_memory_limit_hits_total'))})", "limit reached"),
    ),
    lines(
        "Waiting for a core",
        "percentunit",
        rising(0.01, 0.1),
        says(
            f"Share of the time in which a thread could run and had no core, the {_BUSIEST} worst threads.",
            "Somebody shares the cores: look who runs on them, and give the engine cores of its own.",
            "LatencyOverBudget",
            rules=("run_queue",),
        ),
        Query(_threads("sentinel_engine_run_queue_seconds_total"), "{{thread}}"),
    ),
    lines(
        "Stolen by the hypervisor",
        "percentunit",
        rising(0.01, 0.1),
        says(
            "Time that the hypervisor took from the cores that the engine may run on.",
            "The host of this virtual machine has more to do than cores: move away, or pay for cores of your own.",
            "LatencyOverBudget",
            rules=("cpu_stolen",),
        ),
        Query(f"max({rate(of('sentinel_engine_cpu_steal_seconds_total'))})", "stolen"),
    ),
    lines(
        "Swapped out",
        "bytes",
        rising(1, 1 << 20),
        says(
            "Memory of the engine that lies in swap.",
            "Every touch of it is a major fault. Take swap from the container (`--memory-swap`) or add memory.",
            "MemoryNearLimit",
            rules=("swapped",),
        ),
        Query(f"max({peak(of('sentinel_engine_swap_bytes'))})", "swapped out"),
    ),
    lines(
        "Major faults",
        "cps",
        rising(1, 10),
        says(
            "Pages that had to be read from a disk while a thread waited.",
            "Lock the memory (`mlockall`), read mapped files before they are needed, take swap away.",
            "LatencyOverBudget",
            rules=("major_faults",),
        ),
        Query(f"max({rate(of('sentinel_engine_page_faults_total', kind='major'))})", "major faults"),
    ),
    lines(
        "Memory near its limit",
        "percentunit",
        rising(0.9, 0.95),
        says(
            "Memory used over the limit that is reached first.",
            "The nearer, the more the kernel takes back what the engine needs: raise the limit, or find what grows.",
            "MemoryNearLimit",
            rules=("memory_near_limit",),
        ),
        Query(f"max({peak(of('sentinel_engine_memory_used_ratio'))})", "used"),
        most=1,
    ),
    lines(
        "Pressure",
        "percentunit",
        rising(0.05, 0.2),
        says(
            "Share of the time in which some, or all (full), tasks waited for CPU, memory or disk: PSI of the engine's "
            "control group and of the host.",
            "High for the host alone: somebody else is to be moved away. High for the group: its limits are too small.",
            "LatencyOverBudget",
            rules=("memory_pressure", "io_pressure", "cpu_pressure"),
        ),
        Query(
            worst(rate(of("sentinel_engine_pressure_seconds_total")), "scope", "resource", "share"),
            "{{scope}} {{resource}} {{share}}",
        ),
    ),
    lines(
        "Sent again, or dropped",
        "cps",
        rising(1, 10),
        says(
            "TCP segments sent again, and packets that a network device dropped, in the engine's network namespace.",
            "Look at the device (`ethtool -S`), its ring sizes and interrupts, and at the path to the peer.",
            "LatencyOverBudget",
            rules=("retransmits", "network_drops"),
        ),
        Query(f"max({rate(of('sentinel_engine_tcp_retransmits_total'))})", "segments sent again"),
        Query(
            worst(rate(of("sentinel_engine_network_drops_total")), "device", "direction"),
            "{{device}} {{direction}} dropped",
        ),
    ),
    lines(
        "CPU by thread",
        "percentunit",
        rising(0.9, 0.99),
        says(
            f"Share of one core, the {_BUSIEST} busiest threads.",
            "A thread at 100 % is the one that the orders wait for, unless it polls on purpose.",
            "LatencyOverBudget",
            rules=("thread_busy",),
        ),
        Query(_threads("sentinel_engine_thread_cpu_seconds_total"), "{{thread}}"),
    ),
    lines(
        "Taken from its core",
        "cps",
        rising(100, 1000),
        says(
            "Involuntary context switches and moves to another core, by thread.",
            "Bind the hot threads to cores that nobody else uses, and look at their scheduling policy.",
            "LatencyOverBudget",
            rules=("preempted", "migrations"),
        ),
        Query(_threads("sentinel_engine_context_switches_total", kind="involuntary"), "{{thread}} switches"),
        Query(_threads("sentinel_engine_migrations_total"), "{{thread}} moves"),
    ),
]

BESIDE: list[Panel] = [
    lines(
        "CPU used",
        "suffix: cores",
        PUBLISHED,
        says(
            "Cores that the engine used, and what it may: its quota, or else the cores that it may run on.",
            "At the limit it is throttled; its panel above says how much. System time is the kernel's work.",
            "CpuThrottled",
        ),
        Query(worst(rate(of("sentinel_engine_cpu_seconds_total")), "mode"), "{{mode}}"),
        Query(f"min({of('sentinel_engine_cpu_limit_cores')} or {of('sentinel_engine_cpu_cores')})", "limit"),
    ),
    lines(
        "Use of its cores, by everyone",
        "percentunit",
        rising(0.9, 0.99),
        says(
            "How busy each core is that the engine may run on, whoever uses it.",
            "A core that is busier than the engine's own threads make it has somebody else on it.",
            "LatencyOverBudget",
        ),
        Query(worst(rate(of("sentinel_engine_cpu_busy_seconds_total")), "cpu"), "core {{cpu}}"),
    ),
    lines(
        "Memory by NUMA node",
        "bytes",
        PUBLISHED,
        says(
            "On which nodes its memory lies, and the limit of all of it.",
            "Memory on another node than the cores that use it is slower: bind both (`numactl`).",
            "LatencyOverBudget",
        ),
        Query(worst(peak(of("sentinel_engine_numa_bytes")), "node"), "node {{node}}"),
        Query(f"min({low(of('sentinel_engine_memory_limit_bytes'))})", "limit"),
    ),
    lines(
        "Minor faults",
        "cps",
        rising(10_000, 100_000),
        says(
            "Pages that the kernel gave without reading a disk: new memory, mostly.",
            "Where it rises with the latency, allocate before and keep what is allocated.",
            "LatencyOverBudget",
        ),
        Query(f"max({rate(of('sentinel_engine_page_faults_total', kind='minor'))})", "minor faults"),
        width=12,
    ),
    lines(
        "Voluntary switches",
        "cps",
        rising(10_000, 100_000),
        says(
            "How often a thread gave its core away: it waits for a lock, a message or the disk.",
            "A jump beside a rising latency points to a lock that is fought over.",
            "LatencyOverBudget",
        ),
        Query(_threads("sentinel_engine_context_switches_total", kind="voluntary"), "{{thread}}"),
        width=12,
    ),
]
