"""The board Fleet: which engine, how bad, since when. From here one goes to the engine's own board."""

from __future__ import annotations

from dashboards.src.board import JOB, Row, board, chosen
from dashboards.src.panels import (
    ANSWERS,
    STATE_WORDS,
    Column,
    Query,
    Says,
    lines,
    number,
    over,
    rising,
    rows,
    timeline,
    under,
)
from dashboards.src.queries import STATES, Scope, peak, rate, rise, state, total, worst

of = Scope('job=~"$job"', 'instance=~"$instance"', 'engine=~"$engine"')
EACH = ("engine", "instance")
NAME = "{{engine}} ({{instance}})"
QUANTILE = 'quantile=~"$quantile"'
LATENCY = of("sentinel_engine_latency_seconds", QUANTILE)
BUDGET = of("sentinel_engine_latency_budget_seconds", QUANTILE)
ROUND_TRIP = of("sentinel_probe_http_seconds", QUANTILE, phase="total")
SINCE = of("sentinel_engine_state_since_timestamp_seconds")
MEMORY = of("sentinel_engine_memory_used_ratio")
ALLOWED = of("sentinel_engine_memory_max_ratio")
SUCCESS = of("sentinel_probe_success")

# How many engines in a state are too many, and what to do then.
_COUNTS = {
    "unhealthy": (over(1), "A critical probe fails: open the engine below and look which.", "EngineUnhealthy"),
    "unknown": (over(1), "Nothing fresh is known of it: look whether Sentinel can reach it.", "EngineUnknown"),
    "starting": (rising(1, 100), "It is right after a start, and not for long.", "EngineRestarting"),
    "degraded": (rising(1, 100), "A warning probe fails: it can wait for the morning.", "EngineDegraded"),
    "maintenance": (rising(1, 100), "Nobody is told of these: look if the work goes on.", "EngineInMaintenance"),
    "healthy": (under(1), "With none at all, look whether Sentinel itself is well.", "SentinelAbsent"),
}

COUNTS = [
    number(
        name.capitalize(),
        "short",
        _COUNTS[name][0],
        Says(f"How many engines are {name}.", *_COUNTS[name][1:]),
        Query(f"sum({of('sentinel_engine_state', state=name)})"),
    )
    for name in reversed(STATES)
]

_OPEN = {
    "title": "Open the engine's board",
    "url": "/d/sentinel-engine?${datasource:queryparam}&${job:queryparam}&${__url_time_range}"
    "&var-engine=${__data.fields.Engine}&var-instance=${__data.fields.Instance}",
}
WHICH = (Column("Engine", label="engine", look={"links": [_OPEN]}), Column("Instance", label="instance"))

NOW = [
    *COUNTS,
    rows(
        "Engines, the worst first",
        Says("Each engine, as each Sentinel sees it.", "Begin with the first row: click its name.", "EngineUnhealthy"),
        [
            *WHICH,
            Column(
                "State",
                state(of, *EACH),
                look={"mappings": STATE_WORDS, "custom.cellOptions": {"type": "color-background"}},
            ),
            Column("Likeliest cause", worst(f"{of('sentinel_engine_cause')} == 1", *EACH, "rule"), label="rule"),
            Column("Since", f"1000 * {worst(SINCE, *EACH)}", "dateTimeFromNow"),
            Column("Failing", f"sum by (engine, instance) ({SUCCESS} == bool 0)", "short", rising(1, 2)),
            Column("Latency", worst(f"{LATENCY} / {BUDGET}", *EACH), "percentunit", rising(0.8, 1)),
            Column("Memory", worst(f"{MEMORY} / {ALLOWED}", *EACH), "percentunit", rising(0.9, 1)),
            Column(
                "Restarts",
                f"round({worst(total(of('sentinel_engine_restarts_total')), *EACH)})",
                "short",
                rising(1, 3),
            ),
        ],
        width=16,
        sort="State",
    ),
    rows(
        "What fails now",
        Says(
            "The probes whose last answer was not good.",
            "Where the process fails too, begin with it: the others wait for it.",
            "EngineUnhealthy",
        ),
        [
            *WHICH,
            Column("Probe", label="probe"),
            Column("Kind", label="kind"),
            Column(
                "Answer",
                f"max by (engine, instance, probe, kind) ({SUCCESS} == 0)",
                look={"mappings": ANSWERS},
            ),
        ],
        width=8,
        none="nothing",
    ),
]

OVER_TIME = [
    timeline(
        "States",
        Says(
            "The worst state of each engine.",
            "Several that fall at once have something in common: a host, a switch, a deploy.",
            "EngineUnhealthy",
        ),
        Query(state(of, *EACH, over=True), NAME),
        height=8,
    ),
    lines(
        "Latency, of its budget",
        "percentunit",
        rising(0.8, 1),
        Says(
            "The chosen quantiles of each engine over their budgets, the worst of them.",
            "Over 100 % the budget is left: open the engine's board.",
            "LatencyOverBudget",
        ),
        Query(worst(f"{peak(LATENCY)} / {BUDGET}", *EACH), NAME),
    ),
    lines(
        "Memory, of what it may use",
        "percentunit",
        rising(0.9, 1),
        Says(
            "Memory used over what the probe allows of the limit that is reached first.",
            "At 100 % the probe fails, a little later the kernel kills the engine: its board says how long it has.",
            "MemoryNearLimit",
        ),
        Query(worst(f"{peak(MEMORY)} / {ALLOWED}", *EACH), NAME),
    ),
    lines(
        "Own round trip",
        "s",
        rising(0.1, 0.5),
        Says(
            "What a GET to the engine's health port took, the chosen quantiles, the worst of them.",
            "If the latency rises with it, the host or the network is slow.",
            "LatencyOverBudget",
        ),
        Query(worst(peak(ROUND_TRIP), *EACH), NAME),
    ),
]

HAPPENED = [
    lines(
        "Answers that were not good",
        "cps",
        rising(0.1, 1),
        Says(
            "Answers a second that were not good, by engine and reason.",
            "`timeout` is hung, `connect_refused` gone, `over_budget` slow or full, `no_process` ended.",
            "EngineUnhealthy",
        ),
        Query(f"sum by (engine, reason) ({rate(of('sentinel_probe_failures_total'))})", "{{engine}} {{reason}}"),
        bars=True,
        none="all were good",
    ),
    lines(
        "Restarts and kills",
        "short",
        rising(1, 3),
        Says(
            "Processes that came in the place of another, and those that the kernel killed for lack of memory.",
            "One is a deploy or an accident, several are a loop.",
            "EngineRestarting",
        ),
        Query(worst(rise(of("sentinel_engine_restarts_total")), *EACH), f"{NAME} restarts"),
        Query(worst(rise(of("sentinel_engine_oom_kills_total")), *EACH), f"{NAME} OOM kills"),
        bars=True,
    ),
    lines(
        "Changes of state",
        "short",
        rising(3, 10),
        Says(
            "How often engines came into each state.",
            "One that comes and goes is flapping: look at the `fall` and `rise` of its probes.",
            "EngineUnhealthy",
        ),
        Query(f"sum by (engine, state) ({rise(of('sentinel_engine_state_changes_total'))})", "{{engine}} {{state}}"),
        bars=True,
    ),
]

BOARD = board(
    "sentinel-fleet",
    "Which engine, how bad, since when.",
    [
        JOB,
        chosen("instance", "Instance", 'label_values(sentinel_build_info{job=~"$job"}, instance)'),
        chosen("engine", "Engine", 'label_values(sentinel_engine_state{job=~"$job",instance=~"$instance"}, engine)'),
        chosen("quantile", "Quantile", f"label_values({of('sentinel_engine_latency_seconds')}, quantile)"),
    ],
    [],
    [Row("Now", NOW), Row("Over time", OVER_TIME), Row("What happened", HAPPENED)],
)
