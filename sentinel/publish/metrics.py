"""The snapshot as Prometheus metrics, collected when somebody scrapes.

One collector in a registry of our own: no gauge is set from afar, so none can stay behind. What is not known is
absent: a stale probe has no value here, never its last one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder

from sentinel.model import ENGINE_STATES, Tally
from sentinel.probes import load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric as Family

    from sentinel.board import EngineRecord, ProbeRecord, Snapshot
    from sentinel.model import EngineSpec, Metric, Observation, ProbeSpec

    Row = tuple[EngineSpec, EngineRecord, ProbeSpec, ProbeRecord]


def exposition(picture: Callable[[], Snapshot]) -> Callable[[str], tuple[bytes, str]]:
    """A function from an Accept header to the page and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(picture))
    ProcessCollector(registry=registry)  # the daemon's own CPU, memory and open files, under the names of all clients

    def page(accept: str) -> tuple[bytes, str]:
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    return page


class _Collector:
    def __init__(self, picture: Callable[[], Snapshot]) -> None:
        self._picture = picture

    def describe(self) -> Iterable[Family]:
        return ()

    def collect(self) -> Iterator[Family]:
        picture = self._picture()
        rows = [
            (spec, record, probe, record.probes[probe.name])
            for spec, record in picture.engines
            for probe in spec.probes
        ]
        yield from _engines(picture)
        yield from _probes(picture, rows)
        yield from _readings(picture, rows)
        yield from _deliveries(picture)
        lag = HistogramMetricFamily("sentinel_schedule_lag_seconds", "How late a probe started.")
        lag.add_metric((), *_buckets(picture.lag))
        yield lag
        build = GaugeMetricFamily(
            "sentinel_build_info", "Always 1; the version of Sentinel is a label.", labels=["version"]
        )
        build.add_metric((picture.version,), 1)
        yield build
        yield GaugeMetricFamily(
            "sentinel_config_last_reload_successful",
            "1 while the configuration in force is the one last asked for; 0 after a reload was refused.",
            picture.reloaded,
        )


def _engines(picture: Snapshot) -> Iterator[Family]:
    state = GaugeMetricFamily(
        "sentinel_engine_state", "1 on the state that the engine is in.", labels=["engine", "state"]
    )
    healthy = GaugeMetricFamily(
        "sentinel_engine_healthy", "1 while the engine is healthy or degraded.", labels=["engine"]
    )
    changes = CounterMetricFamily(
        "sentinel_engine_state_changes", "Changes of the engine's state, by the new one.", labels=["engine", "state"]
    )
    since = GaugeMetricFamily(
        "sentinel_engine_state_since_timestamp_seconds",
        "When the engine came into the state that it is in, in seconds since 1970.",
        labels=["engine"],
    )
    cause = GaugeMetricFamily(
        "sentinel_engine_cause",
        "1 on the likeliest cause of the engine's trouble, while one is known.",
        labels=["engine", "rule"],
    )
    maintained = GaugeMetricFamily(
        "sentinel_engine_maintenance_end_timestamp_seconds",
        "When the maintenance that the engine is in will end, in seconds since 1970; absent where it is in none.",
        labels=["engine"],
    )
    for spec, record in picture.engines:
        since.add_metric((spec.name,), picture.unix(record.since))
        explanation = picture.explained.get(spec.name, (None, None))[0]
        if explanation and explanation.rule:
            cause.add_metric((spec.name, explanation.rule), 1)
        if record.maintenance is not None:
            maintained.add_metric((spec.name,), picture.unix(record.maintenance.until))
        healthy.add_metric((spec.name,), record.state in ("healthy", "degraded"))
        for name in ENGINE_STATES:
            state.add_metric((spec.name, name), record.state == name)
            changes.add_metric((spec.name, name), record.changes.get(name, 0))
    yield from (state, healthy, changes, since, cause, maintained)


def _probes(picture: Snapshot, rows: list[Row]) -> Iterator[Family]:
    labels = ["engine", "probe", "kind"]
    success = GaugeMetricFamily(
        "sentinel_probe_success", "1 if the last answer was good, 0 if it was not.", labels=labels
    )
    failing = GaugeMetricFamily(
        "sentinel_probe_failing",
        "1 while the probe is failing, as fall and rise have it, 0 while it is passing.",
        labels=[*labels, "severity"],
    )
    failures = CounterMetricFamily("sentinel_probe_failures", "Answers that were not good.", labels=[*labels, "reason"])
    took = HistogramMetricFamily("sentinel_probe_duration_seconds", "How long an answer took.", labels=labels)
    answered = GaugeMetricFamily(
        "sentinel_probe_last_answer_timestamp_seconds",
        "When the last answer came, in seconds since 1970.",
        labels=labels,
    )
    for spec, _, probe, record in rows:
        at = (spec.name, probe.name, probe.kind)
        for reason, count in record.failures.items():
            failures.add_metric((*at, reason), count)
        if record.state in ("passing", "failing"):
            failing.add_metric((*at, probe.policy.severity), record.state == "failing")
        if record.last is None:
            continue
        took.add_metric(at, *_buckets(record.durations))
        answered.add_metric(at, picture.unix(record.last.at))
        if _known(picture, probe, record) and record.last.ok is not None:
            success.add_metric(at, record.last.ok)
    yield from (success, failing, failures, took, answered)


def _readings(picture: Snapshot, rows: list[Row]) -> Iterator[Family]:
    """The metrics that the kinds of probe declare, from their last answers."""
    families: dict[str, tuple[Metric, GaugeMetricFamily | CounterMetricFamily]] = {}
    for spec, _, probe, record in rows:
        for metric in load(probe.kind).METRICS:
            if metric.name not in families:
                family = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
                families[metric.name] = (metric, family(metric.name, metric.help, labels=["engine", *metric.labels]))
        last = _known(picture, probe, record)
        for reading in last.readings if last else ():
            metric, into = families[reading.metric]
            given = iter(reading.labels)
            values = [probe.name if label == "probe" else next(given) for label in metric.labels]
            into.add_metric((spec.name, *values), reading.value)
    yield from (family for _, family in families.values())


def _deliveries(picture: Snapshot) -> Iterator[Family]:
    attempts = CounterMetricFamily(
        "sentinel_notifications",
        "Messages to a receiver, by what became of them: sent, or failed and to be tried again.",
        labels=["receiver", "result"],
    )
    dropped = CounterMetricFamily(
        "sentinel_notifications_dropped", "Changes of state that a receiver was never told.", labels=["receiver"]
    )
    pending = GaugeMetricFamily(
        "sentinel_notifications_pending", "Changes of state that a receiver is still to be told.", labels=["receiver"]
    )
    arrived = GaugeMetricFamily(
        "sentinel_notifications_last_sent_timestamp_seconds",
        "When the last message reached a receiver, in seconds since 1970.",
        labels=["receiver"],
    )
    for each in picture.deliveries:
        attempts.add_metric((each.receiver, "sent"), each.sent)
        attempts.add_metric((each.receiver, "failed"), each.failed)
        dropped.add_metric((each.receiver,), each.dropped)
        pending.add_metric((each.receiver,), each.pending)
        if each.arrived_at is not None:
            arrived.add_metric((each.receiver,), picture.unix(each.arrived_at))
    yield from (attempts, dropped, pending, arrived)


def _known(picture: Snapshot, probe: ProbeSpec, record: ProbeRecord) -> Observation | None:
    last = record.last
    return last if last is not None and picture.at - last.at <= probe.policy.stale_after_s else None


def _buckets(tally: Tally) -> tuple[list[tuple[str, float]], float]:
    bounds = [*map(str, Tally.BOUNDS), "+Inf"]
    return [(bound, float(count)) for bound, count in zip(bounds, tally.counts, strict=True)], tally.sum_s
