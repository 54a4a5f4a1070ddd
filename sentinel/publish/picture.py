"""The snapshot in the shapes that people and programs read: one line, health+json, the status document.

Pure, so that `/health`, the page and the log cannot disagree. It must never say more than the snapshot knows.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sentinel.board import serving
from sentinel.history import SPAN_S
from sentinel.model import Missing
from sentinel.probes import load
from sentinel.units import duration

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sentinel.board import Change, EngineRecord, ProbeRecord, Snapshot
    from sentinel.explain import Cause, Explanation
    from sentinel.history import History
    from sentinel.model import EngineSpec, ProbeSpec

    Engines = Sequence[tuple[EngineSpec, EngineRecord]]

# draft-inadarei-api-health-check-06 §3.1: pass and warn go with 2xx, fail with 4xx or 5xx
_STATUS = {"healthy": "pass", "degraded": "warn", "starting": "warn", "maintenance": "warn"}
_PROBE_STATUS = {"passing": "pass", "failing": "fail", "waiting": "warn", "unknown": "fail"}
_WORST = ("unhealthy", "unknown", "starting", "degraded", "maintenance", "healthy")


def line(picture: Snapshot, engines: Engines) -> str:
    """One line: `healthy: …` or `unhealthy: …`, as `sentinel check` prints it, and the likeliest cause."""
    word = "healthy" if serving(record for _, record in engines) else "unhealthy"
    rows = sorted(engines, key=lambda pair: _WORST.index(pair[1].state))
    told = [pair for pair in rows if pair[1].state != "healthy"] or rows
    lines = [engine_line(spec, record, _explained(picture, spec)[0]) for spec, record in told]
    return f"{word}: {'; '.join(lines) or 'no engines are configured'}"


def engine_line(spec: EngineSpec, record: EngineRecord, explanation: Explanation | None) -> str:
    """`trading-engine is unhealthy (why; likeliest cause)`."""
    why = with_cause(", ".join(record.why), explanation)
    state = "in maintenance" if record.state == "maintenance" else record.state
    return f"{spec.name} is {state}{f' ({why})' if why else ''}"


def with_cause(why: str, explanation: Explanation | None) -> str:
    """What is wrong, and behind it what it comes from, where a cause was found that says more."""
    cause = explanation.causes[0] if why and explanation and explanation.causes else None
    return f"{why}; {explanation.sentence}" if explanation and cause and cause.sentence not in why else why


def _explained(picture: Snapshot, spec: EngineSpec) -> tuple[Explanation | None, Explanation | None]:
    return picture.explained.get(spec.name, (None, None))


def health(picture: Snapshot, engines: Engines) -> dict[str, Any]:
    """`application/health+json`: draft-inadarei-api-health-check-06."""
    ok = serving(record for _, record in engines)
    statuses = {_STATUS.get(record.state, "fail") for _, record in engines}
    document: dict[str, Any] = {
        "status": "fail" if not ok else "warn" if "warn" in statuses else "pass",
        "version": picture.version,
        "serviceId": "sentinel",
        "description": f"health of {', '.join(spec.name for spec, _ in engines)}",
    }
    if not ok or "warn" in statuses:
        document["output"] = line(picture, engines)
    document["checks"] = {
        f"{spec.name}:{probe.name}": [_check(picture, probe, record.probes[probe.name])]
        for spec, record in engines
        for probe in spec.probes
    }
    return document


def _check(picture: Snapshot, probe: ProbeSpec, record: ProbeRecord) -> dict[str, Any]:
    warns = probe.policy.severity == "warning"
    check: dict[str, Any] = {"componentType": probe.kind, "status": _PROBE_STATUS[record.state]}
    if warns and check["status"] == "fail":
        check["status"] = "warn"
    last = record.last
    if last is None:
        return {**check, "output": "no answer yet"}
    check["time"] = rfc3339(picture.unix(last.at))
    if last.value is not None and math.isfinite(last.value):
        check |= {"observedValue": last.value, "observedUnit": last.unit}
    if check["status"] != "pass":
        check["output"] = last.sentence
    return check


def status(picture: Snapshot) -> dict[str, Any]:
    """`/api/v1/status`: everything that is known."""
    return {
        "version": picture.version,
        "time": rfc3339(picture.at_unix),
        "engines": [
            {
                "name": spec.name,
                "state": record.state,
                "since": rfc3339(picture.unix(record.since)),
                "why": list(record.why),
                "causes": [cause.sentence for cause in _causes(_explained(picture, spec)[0])],
                "unreadable": unreadable(record),
                "maintenance": maintenance(picture, record),
                "probes": [_probe(picture, probe, record.probes[probe.name]) for probe in spec.probes],
            }
            for spec, record in picture.engines
        ],
    }


def unreadable(record: EngineRecord) -> list[dict[str, str]]:
    """What cannot be read of the engine, why not, and what would give it."""
    told = (told for probe in record.probes.values() if probe.last for told in probe.last.details)
    missing = [value for what, value in told if what == "unreadable"]
    return [{name: getattr(one, name) for name in Missing._fields} for one in missing if isinstance(one, Missing)]


def maintenance(picture: Snapshot, record: EngineRecord) -> dict[str, Any] | None:
    """What the engine is in, or None."""
    now = record.maintenance
    return None if now is None else {"until": rfc3339(picture.unix(now.until)), "reason": now.reason}


def _probe(picture: Snapshot, probe: ProbeSpec, record: ProbeRecord) -> dict[str, Any]:
    seen = record.last
    last = seen and {
        "time": rfc3339(picture.unix(seen.at)),
        "age_s": round(picture.at - seen.at, 3),
        "took_s": round(seen.took_s, 6),
        "ok": seen.ok,
        "reason": seen.reason,
        "sentence": seen.sentence,
        "value": _finite(seen.value),
        "limit": _finite(seen.limit),
        "unit": seen.unit,
        "details": {what: told for what, told in seen.details if what not in ("sources", "unreadable")},
    }
    return {
        "name": probe.name,
        "kind": probe.kind,
        "state": record.state,
        "severity": probe.policy.severity,
        "since": rfc3339(picture.unix(record.since)),
        "needs": list(probe.policy.needs),
        "last": last,
    }


def live(picture: Snapshot) -> dict[str, Any]:
    """The event `picture`: all that changes of the status, once a second, so as small as that can be.

    Times are in seconds since 1970. `at` is on the daemon's monotonic clock: between two of them no clock was set. The
    sentence of an answer that is well and has its limit beside it is left out, as the two numbers say the same.
    """
    return {
        "at": round(picture.at, 3),
        "time": round(picture.at_unix, 3),
        "version": picture.version,
        "late": picture.late,
        "engines": [
            {
                "name": spec.name,
                "state": record.state,
                "since": round(picture.unix(record.since), 3),
                "why": record.why,
                "causes": [cause.sentence for cause in _causes(_explained(picture, spec)[0])],
                "maintenance": maintenance(picture, record),
                "probes": [_live_probe(picture, probe, record.probes[probe.name]) for probe in spec.probes],
            }
            for spec, record in picture.engines
        ],
    }


def _live_probe(picture: Snapshot, probe: ProbeSpec, record: ProbeRecord) -> dict[str, Any]:
    told: dict[str, Any] = {"name": probe.name, "state": record.state, "since": round(picture.unix(record.since), 3)}
    if probe.policy.severity != "critical":
        told["severity"] = probe.policy.severity
    seen = record.last
    if seen is None:
        return told
    told["time"] = round(picture.unix(seen.at), 3)
    value, limit = _finite(seen.value), _finite(seen.limit)
    if value is not None and limit is not None:
        told |= {"value": float(f"{value:.6g}"), "limit": limit, "unit": seen.unit}
    if "value" not in told or record.state != "passing" or not seen.ok:
        told["sentence"] = seen.sentence
    return told


def past(
    picture: Snapshot, spec: EngineSpec, history: History, span_s: float = SPAN_S, metrics: Collection[str] = ()
) -> dict[str, Any]:
    """`/api/v1/history/ENGINE`: the readings of the last ten minutes, one list of times a probe, in seconds since 1970.

    The names of the series are those of `/metrics`, less the label `engine`. With `metrics` only those of them are
    there, and only the probes that have some.
    """
    probes = {}
    for probe in spec.probes:
        labels = {
            metric.name: [name for name in metric.labels if name != "probe"]
            for metric in load(probe.kind).METRICS
            if not metrics or metric.name in metrics
        }
        if metrics and not labels:
            continue
        times, columns = history.since((spec.name, probe.name), picture.at - span_s, metrics and labels)
        probes[probe.name] = {
            "times": [round(picture.unix(at), 3) for at in times],
            "series": {
                _series(name, labels[name], values): [_finite(value) for value in column]
                for (name, values), column in columns.items()
            },
        }
    return {"engine": spec.name, "time": rfc3339(picture.at_unix), "probes": probes}


def explained(picture: Snapshot, spec: EngineSpec, record: EngineRecord) -> dict[str, Any]:
    """`/api/v1/explain/ENGINE`: what is wrong and what that comes from, the likeliest cause first."""
    now, past = _explained(picture, spec)
    return {
        "engine": spec.name,
        "state": record.state,
        "time": rfc3339(picture.at_unix),
        "sentence": now.sentence if now else f"nothing to explain: {record.state} for {_age(picture, record.since)}",
        "troubles": [
            {"probe": one.probe, "since": rfc3339(picture.unix(one.since)), "sentence": one.sentence}
            for one in (now.troubles if now else ())
        ],
        "causes": [_cause(picture, cause) for cause in _causes(now)],
        "unreadable": unreadable(record),
        "past": past
        and {
            "from": rfc3339(picture.unix(past.since)),
            "until": rfc3339(picture.unix(past.until or picture.at)),
            "sentence": "; ".join(f"{one.probe}: {one.sentence}" for one in past.troubles) + f"; {past.sentence}",
            "causes": [_cause(picture, cause) for cause in past.causes],
        },
    }


def _causes(explanation: Explanation | None) -> tuple[Cause, ...]:
    return explanation.causes if explanation else ()


def _cause(picture: Snapshot, cause: Cause) -> dict[str, Any]:
    figures = [{field: getattr(figure, field) for field in figure._fields} for figure in cause.figures]
    since = rfc3339(picture.unix(cause.since))
    return {"rule": cause.rule, "sentence": cause.sentence, "since": since, "figures": figures}


def _age(picture: Snapshot, since: float) -> str:
    return duration(round(picture.at - since, 1))


def _series(name: str, labels: Sequence[str], values: Sequence[str]) -> str:
    pairs = ",".join(f'{label}="{value}"' for label, value in zip(labels, values, strict=True))
    return f"{name}{{{pairs}}}" if pairs else name


def change(event: Change, at_unix: float) -> dict[str, Any]:
    """A change of state as `/api/v1/events` tells it; `probe` is absent where the engine itself changed."""
    told: dict[str, Any] = {"time": rfc3339(at_unix), "engine": event.engine}
    if event.probe:
        told["probe"] = event.probe
    return {**told, "before": event.before, "state": event.after, "why": event.why}


def page(picture: Snapshot) -> str:
    """Plain text for a person with a browser or curl."""
    rows = [line(picture, picture.engines), ""]
    for spec, record in picture.engines:
        rows.append(f"{spec.name}: {record.state} for {_age(picture, record.since)}")
        for name, probe in record.probes.items():
            rows.append(f"  {name:<12} {probe.state:<8} {probe.last.sentence if probe.last else 'no answer yet'}")
        rows += [
            f"  {number}. {cause.sentence}" for number, cause in enumerate(_causes(_explained(picture, spec)[0]), 1)
        ]
    return "\n".join([*rows, "", "/health /livez /readyz /metrics /api/v1/status /api/v1/events", ""])


def _finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity (RFC 8259 §6)."""
    return value if value is not None and math.isfinite(value) else None


def rfc3339(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
