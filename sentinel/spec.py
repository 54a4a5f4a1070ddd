"""From settings as text to what is watched: the four defaults, their environment variables, and what a probe takes
from its neighbours.

Shared by the one-shot check and by the configuration of the daemon, so that both ask the same four questions.
It must not read the environment or a file itself, and raises ValueError with one sentence that names the source.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, EngineSpec, Policy, ProbeSpec, Value
from sentinel.probes import load
from sentinel.proc import Who

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

DEFAULT_NAME = "trading-engine"
# What the engine's health-check script asks: probe, kind, settings.
DEFAULTS: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("health", "http", {"url": "http://localhost:8080/health"}),
    ("process", "process", {"name": DEFAULT_NAME}),
    ("memory", "memory", {"max": "90%"}),
    ("latency", "latency", {"url": "http://localhost:9090/metrics", "metric": "latency_p99", "max": "1000us"}),
)


class Option(Value):
    """One setting of the four defaults, as an option of `check` and as an environment variable."""

    flag: str
    env: str
    probe: str
    field: str
    form: str
    help: str


OPTIONS = (
    Option("--health-url", "SENTINEL_HEALTH_URL", "health", "url", "URL", "must answer 2xx"),
    Option(
        "--process",
        "SENTINEL_PROCESS",
        "process",
        "name",
        "NAME",
        "must run; or pid-file:PATH, cgroup:PATH, port:N",
    ),
    Option("--max-memory", "SENTINEL_MAX_MEMORY", "memory", "max", "LIMIT", "most memory used: 90%, 6GiB"),
    Option("--metrics-url", "SENTINEL_METRICS_URL", "latency", "url", "URL", "the page that holds the latency"),
    Option("--metric", "SENTINEL_METRIC", "latency", "metric", "METRIC", "the latency on that page"),
    Option("--max-p99", "SENTINEL_MAX_P99", "latency", "max", "TIME", "most p99 latency: 1000us, 1ms"),
)


def setting(kind: str, field: str, text: str) -> Any:
    """The text as the kind's settings want it: by the `parse` of the field's type, or as it is."""
    module = load(kind)
    type_: Any = getattr(module, module.Settings.__annotations__[field], str)
    return type_.parse(text) if hasattr(type_, "parse") else text


def default_engine(
    given: Mapping[str, str], *, policy: Policy, start_period_s: float, skip: Collection[str] = ()
) -> EngineSpec:
    """The four defaults, changed by what is given: flags or names of environment variables of OPTIONS, flags first."""
    probes = []
    who = given.get("--process") or given.get("SENTINEL_PROCESS") or DEFAULT_NAME
    for probe, kind, defaults in DEFAULTS:
        if probe in skip:
            continue
        settings = {field: setting(kind, field, text) for field, text in defaults.items()}
        for option in OPTIONS:
            source = next((key for key in (option.flag, option.env) if given.get(key)), None)
            if option.probe == probe and source is not None:
                try:
                    settings[option.field] = setting(kind, option.field, given[source])
                except ValueError as exc:
                    raise ValueError(f"{source}: {exc}") from None
        probes.append(ProbeSpec(probe, kind, load(kind).Settings(**settings), policy))
    name = who if Who(who).named else DEFAULT_NAME
    return joined(EngineSpec(name, tuple(probes), start_period_s), process=who)


def joined(engine: EngineSpec, process: str = "", stated: Collection[str] = ()) -> EngineSpec:
    """The engine with what its probes take from each other filled in.

    A kind that has NEEDS depends on the engine's probes of that kind, but for the probes in `stated`, whose `needs`
    the configuration states. A kind with a setting `process` watches the process that the engine's process probe
    finds, or `process`, or one that is named like the engine.
    """
    by_kind: dict[str, list[ProbeSpec]] = {}
    for probe in engine.probes:
        by_kind.setdefault(probe.kind, []).append(probe)
    named = next((probe.settings.name for probe in by_kind.get("process", ())), "") or process or engine.name
    probes = []
    for probe in engine.probes:
        settings, policy = probe.settings, probe.policy
        if "process" in settings._fields and not settings.process:
            settings = settings.replace(process=Who(named))
        if probe.name not in stated:
            policy = policy.replace(needs=tuple(other.name for other in by_kind.get(load(probe.kind).NEEDS, ())))
        probes.append(probe.replace(settings=settings, policy=policy))
    return engine.replace(probes=tuple(probes))


EVIDENCE = "evidence"


def with_evidence(engine: EngineSpec) -> EngineSpec:
    """The engine as a daemon watches it: what the kernel counts of it is looked at too, if its process is watched.

    Unless the configuration does so itself, or has another probe of that name.
    """
    found = [probe for probe in engine.probes if probe.kind == "process"]
    if not found or any(EVIDENCE in (probe.kind, probe.name) for probe in engine.probes):
        return engine
    policy = Policy(severity="warning", needs=tuple(probe.name for probe in found))
    settings = load(EVIDENCE).Settings(process=found[0].settings.name)
    return engine.replace(probes=(*engine.probes, ProbeSpec(EVIDENCE, EVIDENCE, settings, policy)))


def shared(asks: Iterable[Any]) -> dict[Any, Any]:
    """For each ask the ask that is really made: GETs that differ in the wanted families alone become one GET."""
    asks = tuple(asks)
    wanted: dict[Any, dict[str, None]] = {}
    for ask in asks:
        if getattr(ask, "families", ()):
            wanted.setdefault(ask.replace(families=()), {}).update(dict.fromkeys(ask.families))
    return {
        ask: ask.replace(families=tuple(wanted[ask.replace(families=())])) if getattr(ask, "families", ()) else ask
        for ask in asks
    }
