"""The board Sentinel itself: does it keep its schedule, what do its questions take, what does it cost, what fails."""

from __future__ import annotations

from dashboards.src.board import JOB, Moments, Row, board, chosen
from dashboards.src.panels import PUBLISHED, Query, Says, buckets, falling, lines, number, rising, under, words
from dashboards.src.queries import Scope, peak, quantile, rate, worst

of = Scope('job=~"$job"', 'instance=~"$instance"')
asked = Scope('job=~"$job"', 'instance=~"$instance"', 'engine=~"$engine"')
LAG = of("sentinel_schedule_lag_seconds_bucket")
TOOK = asked("sentinel_probe_duration_seconds_bucket")
ANSWERS = rate(asked("sentinel_probe_duration_seconds_count"))
FAILURES = rate(asked("sentinel_probe_failures_total"))
AGE = f"time() - {asked('sentinel_probe_last_answer_timestamp_seconds')}"
CPU = rate(of("process_cpu_seconds_total"))

NOW = [
    number(
        "Daemons",
        "short",
        under(1),
        Says("Sentinels that are scraped, by version.", "With none, nobody watches: start it.", "SentinelAbsent"),
        Query(f"count by (version) ({of('sentinel_build_info')})", "{{version}}"),
    ),
    number(
        "Configuration",
        "short",
        PUBLISHED,
        Says(
            "Whether the file last asked for is in force.",
            "The old one goes on: `sentinel config check FILE` names each fault with its line.",
            "SentinelConfigurationRefused",
        ),
        Query(f"min({of('sentinel_config_last_reload_successful')})"),
        meaning=words({0: ("refused", "red"), 1: ("in force", "green")}),
    ),
    number(
        "p99 of the schedule's lag",
        "s",
        rising(0.1, 0.5),
        Says("How late probes start.", "Sentinel lacks CPU: see its cost below, and its limits.", "SentinelLate"),
        Query(quantile(0.99, LAG)),
    ),
    number(
        "Oldest answer",
        "s",
        rising(5, 30),
        Says("Since the probe answered that has been silent longest.", "Look below which.", "SentinelLate"),
        Query(f"max({AGE})"),
    ),
    number(
        "CPU",
        "suffix: cores",
        rising(0.2, 0.8),
        Says("Cores that the busiest Sentinel uses.", "Watch less often, or share engines out.", "SentinelLate"),
        Query(f"max({CPU})"),
        decimals=3,
    ),
    number(
        "Memory",
        "bytes",
        rising(128 << 20, 256 << 20),
        Says("Memory of the largest Sentinel.", "It is not to grow: tell who develops it.", "SentinelLate"),
        Query(f"max({of('process_resident_memory_bytes')})"),
    ),
]

SCHEDULE = [
    lines(
        "Lag of the schedule",
        "s",
        rising(0.1, 0.5),
        Says(
            "How late probes start, p50 and p99 of each Sentinel.",
            "Late for all of its engines: Sentinel lacks CPU. What it then says of latency is of its own.",
            "SentinelLate",
        ),
        Query(quantile(0.5, LAG, "instance"), "{{instance}} p50"),
        Query(quantile(0.99, LAG, "instance"), "{{instance}} p99"),
    ),
    buckets(
        "Lag of the schedule, all of it",
        "s",
        Says(
            "How many probes started how late.",
            "A second band is a pause that comes again and again: garbage, a backup, a neighbour.",
            "SentinelLate",
        ),
        Query(f"sum by (le) ({rate(LAG)})", "{{le}}"),
        width=8,
    ),
    lines(
        "Age of the last answer",
        "s",
        rising(5, 30),
        Says(
            "Since each probe last answered, the worst of each engine.",
            "It saws between nothing and the interval; a line that rises is a probe that is silent.",
            "SentinelLate",
        ),
        Query(worst(AGE, "engine", "probe"), "{{engine}} {{probe}}"),
    ),
]

PROBES = [
    lines(
        "What answers take",
        "s",
        rising(0.1, 0.5),
        Says(
            "p50 and p99 of each kind of probe.",
            "Near the probe's timeout answers get lost: see which engine is slow.",
            "EngineUnhealthy",
        ),
        Query(quantile(0.5, TOOK, "kind"), "{{kind}} p50"),
        Query(quantile(0.99, TOOK, "kind"), "{{kind}} p99"),
    ),
    buckets(
        "What answers take, all of it",
        "s",
        Says("How many answers took how long.", "A far band is the timeout: these got none.", "EngineUnhealthy"),
        Query(f"sum by (le) ({rate(TOOK)})", "{{le}}"),
        width=8,
    ),
    lines(
        "Answers",
        "cps",
        falling(0.1, 0.5),
        Says(
            "Answers a second by kind: the number of probes over their intervals.",
            "A dip is a Sentinel that stood still; look at the lag.",
            "SentinelLate",
        ),
        Query(f"sum by (kind) ({ANSWERS})", "{{kind}}"),
    ),
]

FAILED = [
    lines(
        "Failures by reason",
        "cps",
        rising(0.1, 1),
        Says(
            "Answers a second that were not good, by kind and reason.",
            "`probe_error` is a fault of Sentinel itself: its log has the trace. All else is of the engines.",
            "EngineUnhealthy",
        ),
        Query(f"sum by (kind, reason) ({FAILURES})", "{{kind}} {{reason}}"),
        bars=True,
        none="all were good",
        width=12,
    ),
    lines(
        "Share of answers that were not good",
        "percentunit",
        rising(0.01, 0.5),
        Says("Of each engine.", "Open the board of the engine that stands out.", "EngineUnhealthy"),
        Query(f"sum by (engine) ({FAILURES}) / sum by (engine) ({ANSWERS})", "{{engine}}"),
        width=12,
        most=1,
        none="all were good",
    ),
]

COST = [
    lines(
        "CPU of each Sentinel",
        "suffix: cores",
        rising(0.2, 0.8),
        Says(
            "Cores that it uses itself, scrapes and readers of its page included.",
            "Watch less often, or let two Sentinels share the engines.",
            "SentinelLate",
        ),
        Query(worst(CPU, "instance"), "{{instance}}"),
        width=6,
    ),
    lines(
        "CPU for each answer",
        "s",
        rising(0.002, 0.01),
        Says(
            "CPU time over the number of answers.",
            "It rises with the size of the pages that are read: see `max_body` and what the engine publishes.",
            "SentinelLate",
        ),
        Query(
            f"sum by (instance) ({CPU}) / sum by (instance) ({rate(of('sentinel_probe_duration_seconds_count'))})",
            "{{instance}}",
        ),
        width=6,
    ),
    lines(
        "Memory of each Sentinel",
        "bytes",
        rising(128 << 20, 256 << 20),
        Says(
            "Resident memory.",
            "It has a start and then stays; a line that rises for hours is a leak of ours.",
            "SentinelLate",
        ),
        Query(worst(peak(of("process_resident_memory_bytes")), "instance"), "{{instance}}"),
        width=6,
    ),
    lines(
        "Open files of each Sentinel",
        "short",
        PUBLISHED,
        Says(
            "File descriptors in use, and how many it may have.",
            "Each engine takes a few, each open page one: raise `ulimit -n` before it is reached.",
            "SentinelLate",
        ),
        Query(worst(peak(of("process_open_fds")), "instance"), "{{instance}}"),
        Query(f"min({of('process_max_fds')})", "limit"),
        width=6,
    ),
]

BOARD = board(
    "sentinel-self",
    "Sentinel itself: whether it keeps its schedule, what its questions take, what it costs and what fails.",
    [
        JOB,
        chosen("instance", "Instance", 'label_values(sentinel_build_info{job=~"$job"}, instance)'),
        chosen("engine", "Engine", 'label_values(sentinel_engine_state{job=~"$job",instance=~"$instance"}, engine)'),
    ],
    [Moments("Starts of Sentinel", "orange", of("process_start_time_seconds"), "{{instance}} began.")],
    [
        Row("Now", NOW),
        Row("Schedule", SCHEDULE),
        Row("Probes", PROBES),
        Row("Failures", FAILED),
        Row("Cost", COST),
    ],
)
