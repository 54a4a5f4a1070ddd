"""The board Engine, for who is on call: what is wrong with this engine, and the evidence in the order of `explain`.

Where several Sentinels watch the engine, or one came in the place of another, the worst of what they say is drawn.
"""

from __future__ import annotations

from dashboards.src.board import JOB, Moments, Row, board, chosen, marks
from dashboards.src.evidence import BESIDE, RANKED, of, says
from dashboards.src.panels import (
    ANSWERS,
    PUBLISHED,
    RECENT,
    STATE_WORDS,
    Query,
    buckets,
    falling,
    lines,
    number,
    rising,
    timeline,
    words,
)
from dashboards.src.queries import low, peak, rate, state, total, worst

HAVE_QUANTILES = '__name__=~"sentinel_engine_latency_seconds|sentinel_probe_http_seconds"'
QUANTILE = 'quantile=~"$quantile"'
LATENCY = of("sentinel_engine_latency_seconds", QUANTILE)
BUDGET = of("sentinel_engine_latency_budget_seconds", QUANTILE)
ROUND_TRIP = of("sentinel_probe_http_seconds", QUANTILE, phase="total")
SINCE = of("sentinel_engine_state_since_timestamp_seconds")
ALLOWED = of("sentinel_engine_memory_max_ratio")

VARIABLES = [
    JOB,
    chosen("engine", "Engine", 'label_values(sentinel_engine_state{job=~"$job"}, engine)', several=False),
    chosen("instance", "Instance", 'label_values(sentinel_engine_state{job=~"$job",engine="$engine"}, instance)'),
    chosen(
        "quantile",
        "Quantile",
        f"label_values({of('', HAVE_QUANTILES)}, quantile)",
    ),
    # Sentinel's own, and the engine's where its scrape job (so not $job) gives it the label `engine`.
    chosen(
        "histogram",
        "Histogram",
        'label_values({engine="$engine",le!=""}, __name__)',
        several=False,
        regex="/^(.+)_bucket$/",
    ),
]

ANNOTATIONS = [
    Moments("Starts of the engine", "orange", of("sentinel_engine_start_time_seconds"), "The oldest process began."),
    Moments(
        "Changes of state",
        "purple",
        f"{SINCE} * on (job, instance, engine) group_right () ({of('sentinel_engine_state')} == 1)",
        "{{state}}",
    ),
    marks("Deploys", "blue", ["deploy", "$engine"]),
]

NOW = [
    number(
        "State",
        "short",
        PUBLISHED,
        says("The state of the engine.", "Look below which probe fails, and since when.", "EngineUnhealthy"),
        Query(f"max({state(of, 'instance')})"),
        meaning=STATE_WORDS,
    ),
    number(
        "In this state for",
        "s",
        RECENT,
        says(
            "How long it has been so.", "Blue is news of the last five minutes: look what changed.", "EngineUnhealthy"
        ),
        Query(f"time() - max({SINCE})"),
    ),
    number(
        "Latency, of its budget",
        "percentunit",
        rising(0.8, 1),
        says("The quantile that is nearest to its budget.", "Over 100 % look at the evidence.", "LatencyOverBudget"),
        Query(f"max({LATENCY} / {BUDGET})"),
    ),
    number(
        "Memory, of what it may use",
        "percentunit",
        rising(0.9, 1),
        says(
            "Memory used over what the probe allows of the limit.",
            "At 100 % the probe fails, a little later the kernel kills the engine.",
            "MemoryNearLimit",
        ),
        Query(f"max({of('sentinel_engine_memory_used_ratio')} / {ALLOWED})"),
    ),
    number(
        "Memory lasts for",
        "s",
        falling(600, 3600),
        says(
            "Until the limit is reached, as memory grows now.",
            "Restart the engine at a time of your choice before it is killed at another.",
            "MemoryFillsUp",
        ),
        Query(f"min({of('sentinel_engine_memory_seconds_to_limit')})"),
        none="does not grow",
    ),
    number(
        "Restarts",
        "short",
        rising(1, 3),
        says("How often it began anew in the time shown.", "Several are a loop: look why it ends.", "EngineRestarting"),
        Query(f"round(max({total(of('sentinel_engine_restarts_total'))}))"),
    ),
    timeline(
        "State",
        says(
            "The state of the engine, as each Sentinel sees it.",
            "Where two disagree, one of them cannot reach the engine.",
            "EngineUnhealthy",
        ),
        Query(state(of, "instance", over=True), "{{instance}}"),
    ),
    timeline(
        "Probes",
        says(
            "Each probe's answers. One that waits for another has none.",
            "Begin with the one that failed first, and with the process where it fails too.",
            "EngineUnhealthy",
        ),
        Query(f"min by (probe) ({low(of('sentinel_probe_success'))})", "{{probe}}"),
        meaning=ANSWERS,
        height=6,
    ),
    timeline(
        "Likeliest cause",
        says(
            "What `explain` ranks first, while there is trouble.",
            "Below, under Evidence, is a panel of its figures. Its remedy stands there.",
            "EngineUnhealthy",
        ),
        Query(worst(peak(of("sentinel_engine_cause")), "rule"), "{{rule}}"),
        meaning=words({1: ("likeliest cause", "orange")}),
        height=4,
        none="no trouble, or none that what was measured explains",
    ),
]

SLOW = [
    lines(
        "Latency against its budget",
        "s",
        PUBLISHED,
        says(
            "The engine's own quantiles, dashed what each may be at most.",
            "Compare with the round trip beside it: if both rise, it is the host or the network; if not, the engine.",
            "LatencyOverBudget",
        ),
        Query(worst(peak(LATENCY), "quantile"), "{{quantile}}"),
        Query(f"min by (quantile) ({low(BUDGET)})", "{{quantile}} budget"),
    ),
    lines(
        "Own round trip",
        "s",
        rising(0.1, 0.5),
        says(
            "What Sentinel's own GET took in total, corrected for requests that a hung one held up.",
            "It rises alone where the health port is starved, and with the latency where everything is slow.",
            "LatencyOverBudget",
        ),
        Query(worst(peak(ROUND_TRIP), "quantile"), "{{quantile}}"),
    ),
    lines(
        "Latency, of its budget",
        "percentunit",
        rising(0.8, 1),
        says(
            "Each quantile over its budget.",
            "A quantile that creeps up for days is a ticket; one that jumps is a cause of minutes ago.",
            "LatencyOverBudget",
        ),
        Query(worst(f"{peak(LATENCY)} / {BUDGET}", "quantile"), "{{quantile}}"),
    ),
    buckets(
        "Histogram",
        "s",
        says(
            "How many took how long, of the histogram that is chosen above.",
            "Two bands are two kinds of order: a few slow ones make the p99, and the median hides them.",
            "LatencyOverBudget",
        ),
        Query('sum by (le) (rate(${histogram}_bucket{engine="$engine"}[$__rate_interval]))', "{{le}}"),
        width=16,
    ),
    lines(
        "Where the round trip goes",
        "s",
        rising(0.1, 0.5),
        says(
            "p99 of the GET until it was connected, until its first byte, and in total.",
            "A slow connect is a full listen queue or a lost packet; a slow first byte is the engine itself.",
            "ListenQueueOverflows",
        ),
        Query(worst(peak(of("sentinel_probe_http_seconds", quantile="0.99")), "phase"), "{{phase}}"),
    ),
]

MEMORY = [
    lines(
        "Memory against its limit",
        "bytes",
        PUBLISHED,
        says(
            "What is used of the limit that is reached first, and dashed that limit and what the probe allows of it.",
            "A line that rises and never falls is a leak.",
            "MemoryNearLimit",
        ),
        Query(f"max({peak(of('sentinel_engine_memory_used_bytes'))})", "used"),
        Query(f"min({low(of('sentinel_engine_memory_limit_bytes'))})", "limit"),
        Query(f"min({of('sentinel_engine_memory_limit_bytes')} * {ALLOWED})", "probe's limit"),
        width=12,
    ),
    lines(
        "Time left until the limit",
        "s",
        falling(600, 3600),
        says(
            "Until the limit is reached at the slope of the last minute; nothing while memory does not grow.",
            "Restart the engine at a time of your choice before it is killed at another.",
            "MemoryFillsUp",
        ),
        Query(f"min({low(of('sentinel_engine_memory_seconds_to_limit'))})", "left"),
        width=12,
        none="does not grow",
    ),
]

FAILURES = [
    lines(
        "Answers that were not good",
        "cps",
        rising(0.1, 1),
        says(
            "Answers a second that were not good, by probe and reason.",
            "`timeout` is hung, `connect_refused` gone, `over_budget` slow or full, `no_process` ended.",
            "EngineUnhealthy",
        ),
        Query(worst(rate(of("sentinel_probe_failures_total")), "probe", "reason"), "{{probe}} {{reason}}"),
        width=12,
        bars=True,
        none="all were good",
    ),
    lines(
        "Away, the last time",
        "s",
        rising(10, 60),
        says(
            "How long there was no process before the one that runs.",
            "Compare with what its restart policy promises.",
            "EngineRestarting",
        ),
        Query(f"max({of('sentinel_engine_down_seconds')})", "away"),
        width=12,
        none="never",
    ),
]

BOARD = board(
    "sentinel-engine",
    "One engine for who is on call: what is wrong, since when, and the evidence for why.",
    VARIABLES,
    ANNOTATIONS,
    [
        Row("Now", NOW),
        Row("Latency", SLOW),
        Row("Memory", MEMORY),
        Row("Evidence, the likeliest cause first", RANKED),
        Row("Failures", FAILURES),
        Row("Threads, cores and nodes", BESIDE, folded=True),
    ],
)
