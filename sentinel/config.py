"""The configuration file as values: YAML in, a frozen `Config` out, or every fault with its line.

Nothing starts half-configured: all faults are found before anything runs, and an unknown word is a fault. Only the
daemon and `--config` come here, as pydantic and YAML cost more than a whole check. It must never print a secret.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema, create_model

from sentinel import receivers
from sentinel.address import Control, Listen
from sentinel.maintenance import Cron, Reason, While, Zone, never_over
from sentinel.model import EngineSpec, Policy, ProbeSpec, Value, Window
from sentinel.probes import kinds
from sentinel.receivers import Receiver
from sentinel.spec import OPTIONS, default_engine, joined
from sentinel.units import Seconds
from sentinel.yaml_source import ConfigError, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sentinel.yaml_source import Where

DEFAULT_LISTEN = "127.0.0.1:9710"
_POLICY = Policy()  # the defaults
_START_PERIOD = Seconds(30)  # as in the HEALTHCHECK that engines come with
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")  # stands in a path of /health and in labels


class Config(Value):
    """A whole configuration. `secrets` are the values that came from `file:`, to be masked wherever text is shown.

    `control` is the socket on which commands are taken; without one none are.
    """

    listen: Listen
    engines: tuple[EngineSpec, ...]
    secrets: tuple[str, ...] = ()
    control: Control | None = None
    notify: tuple[Receiver, ...] = ()


def load_config(path: str | None, environ: Mapping[str, str], *, telling: bool = True) -> Config:
    """The configuration of a file, or the four defaults as the environment changes them. Raises ConfigError.

    Who tells nobody leaves `telling` out, and what it takes to know whether a receiver can be told.
    """
    listen = environ.get("SENTINEL_LISTEN") or DEFAULT_LISTEN
    control = environ.get("SENTINEL_CONTROL") or None
    if path is None:
        try:
            given = {option.env: environ.get(option.env, "") for option in OPTIONS}
            engine = default_engine(given, policy=_POLICY, start_period_s=_START_PERIOD)
        except ValueError as exc:
            raise ConfigError([str(exc)]) from exc
        return Config(_variable(Listen, "SENTINEL_LISTEN", listen), (engine,), (), _control(control))
    source = Source(path, environ)
    plain = source.read()
    try:
        file = _file_model()(**plain)
    except ValidationError as exc:
        raise source.failed(_faults(exc)) from exc
    faults: list[tuple[Where, str]] = []
    engines = tuple(_engines(file, faults))
    if telling:
        for name, each in file.notify.items():
            if each.kind == "apprise" and (fault := each.url.fault()):
                faults.append((("notify", name, "url"), fault))
    if file.control is not None and file.control == file.listen:
        faults.append((("control",), "is what listen: says; commands need a socket of their own"))
    if faults:
        raise source.failed(faults)
    if not engines:
        engines = load_config(None, {**environ, "SENTINEL_LISTEN": "", "SENTINEL_CONTROL": ""}).engines
    return Config(
        file.listen or _variable(Listen, "SENTINEL_LISTEN", listen),
        engines,
        tuple(source.secrets),
        file.control or _control(control),
        tuple(
            Receiver(name, each.kind, _settings(receivers.KINDS[each.kind], each)) for name, each in file.notify.items()
        ),
    )


def _variable(type_: Any, name: str, text: str) -> Any:
    try:
        return type_.parse(text)
    except ValueError as exc:
        raise ConfigError([f"{name}: {exc}"]) from exc


def _control(text: str | None) -> Control | None:
    return None if text is None else _variable(Control, "SENTINEL_CONTROL", text)


def schema() -> dict[str, Any]:
    """The JSON Schema of the file (draft 2020-12)."""
    shape: dict[str, Any] = _file_model().model_json_schema()
    return shape


# --- from plain values to types -------------------------------------------------------------------------------------


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


def _through(type_: Any) -> tuple[PlainValidator, WithJsonSchema]:
    """What makes a field's text go through the type's own `parse`, and says so in the schema."""

    def parse(value: object) -> object:
        if not isinstance(value, str) and not getattr(type_, "PLAIN", False):
            raise ValueError(f"want {type_.FORM}")
        return type_.parse(value)

    shape: dict[str, Any] = {"description": type_.FORM}
    if not getattr(type_, "PLAIN", False):
        shape["type"] = "string"
    return PlainValidator(parse), WithJsonSchema(shape)


def _parsed(type_: Any) -> Any:
    validator, shape = _through(type_)
    return Annotated[Any, validator, shape]


def _name(text: object) -> str:
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise ValueError(f"{text!r}: want a name of letters, digits, dots, dashes and underscores, at most 63")
    return text


_PARSE_DURATION, _DURATION_SHAPE = _through(Seconds)
_Name = Annotated[str, PlainValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})]
_Count = Annotated[int, Field(ge=1, le=1000)]


class _Timing(_Strict):
    interval: Annotated[Any, _PARSE_DURATION, _DURATION_SHAPE] = Field(None, description="how often it is asked")
    timeout: Annotated[Any, _PARSE_DURATION, _DURATION_SHAPE] = Field(
        None, description="how long an answer may take; 80 % of the interval"
    )
    fall: _Count | None = Field(None, description="failures in a row that make it failing; 3")
    rise: _Count | None = Field(None, description="passes in a row that bring it back; 2")


class _Probe(_Timing):
    severity: Literal["critical", "warning"] = "critical"
    needs: list[str] | None = Field(None, description="probes without which this one says nothing new")


class _Window(_Strict, title="window"):
    """A maintenance that comes again."""

    cron: Annotated[Any, *_through(Cron)]
    zone: Annotated[Any, *_through(Zone)] = Field(Zone("UTC"), description=Zone.FORM)
    lasts: Annotated[Any, *_through(While)] = Field(alias="for")
    reason: Annotated[Any, *_through(Reason)] = Field(Reason(""), description=Reason.FORM)


def _probe_models() -> Iterator[type[BaseModel]]:
    for kind, module in kinds().items():
        yield _model(f"{kind}_probe", _Probe, kind, module.Settings, vars(module))


def _receiver_models() -> Iterator[type[BaseModel]]:
    for kind, settings in receivers.KINDS.items():
        yield _model(f"{kind}_receiver", _Strict, kind, settings, vars(receivers))


def _model(title: str, base: type[BaseModel], kind: str, settings: Any, names: dict[str, Any]) -> type[BaseModel]:
    """A kind's settings as pydantic sees them; `names` are what their types are called where they are written."""
    written = {name: settings.__annotations__[name] for name in settings._fields}
    fields: dict[str, Any] = {"kind": (Literal[kind], ...)}
    for name, hint in get_type_hints(type(kind, (), {"__annotations__": written}), names).items():
        default = settings._defaults.get(name, ...)
        fields[name] = (_parsed(hint) if hasattr(hint, "parse") else hint, _field(default))
    return create_model(title, __base__=base, __doc__=settings.__doc__, **fields)


def _by_kind(models: Iterator[type[BaseModel]]) -> Any:
    union: Any = None
    for model in models:
        union = model if union is None else union | model
    return Annotated[union, Field(discriminator="kind")]


def _settings(type_: Any, given: Any) -> Any:
    return type_(**{field: getattr(given, field) for field in type_._fields})


def _field(default: Any, description: str | None = None) -> Any:
    """A default is shown as the file writes it."""
    if hasattr(default, "text"):
        shown = {"default": default.text()}
        return Field(default_factory=lambda: default, description=description, json_schema_extra=shown)
    return Field(default, description=description)


def _file_model() -> type[Any]:
    """The file as pydantic sees it: made once from the kinds of probe that there are."""
    probe: Any = _by_kind(_probe_models())
    receiver: Any = _by_kind(_receiver_models())
    engine = create_model(
        "engine",
        __base__=_Timing,
        name=(_Name, ...),
        start_period=(
            _parsed(Seconds),
            _field(_START_PERIOD, "failures this soon after a start do not count"),
        ),
        probes=(dict[_Name, probe], ...),
        maintenance=(list[_Window], Field(default_factory=list)),
    )
    return create_model(
        "sentinel_yaml",
        __base__=_Strict,
        listen=(_parsed(Listen) | None, None),
        control=(_parsed(Control) | None, None),
        notify=(dict[_Name, receiver], Field(default_factory=dict)),
        engines=(list[engine], Field(default_factory=list)),  # type: ignore[valid-type]  # made above
    )


# --- faults in people's words ---------------------------------------------------------------------------------------


def _faults(exc: ValidationError) -> list[tuple[Where, str]]:
    return [(_where(fault["loc"]), _sentence(fault)) for fault in exc.errors()]


def _where(loc: tuple[int | str, ...]) -> Where:
    """The place in the file: pydantic puts the kind of a probe, and `[key]`, among the keys."""
    place = [part for part in loc if part != "[key]"]
    if len(place) > 4 and place[0] == "engines" and place[2] == "probes":
        del place[4]
    if len(place) > 2 and place[0] == "notify":
        del place[2]
    return tuple(place)


def _sentence(fault: Any) -> str:
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    sentences: dict[str, Callable[[], str]] = {
        "extra_forbidden": lambda: f"unknown key{_meant(str(fault['loc'][-1]))}",
        "missing": lambda: "is missing",
        "value_error": lambda: str(context["error"]),
        "union_tag_invalid": lambda: f"no kind {context['tag']!r}, want one of {context['expected_tags']}",
        "union_tag_not_found": lambda: f"kind is missing, want one of {', '.join(sorted(_kinds_at(fault['loc'])))}",
        "literal_error": lambda: f"{given!r}, want {context['expected']}",
        "dict_type": lambda: "want a map of keys and values",
        "model_attributes_type": lambda: "want a map of keys and values",
        "model_type": lambda: "want a map of keys and values",
        "list_type": lambda: "want a list",
    }
    if kind in sentences:
        return sentences[kind]()
    return f"{given!r}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"


def _kinds_at(loc: tuple[int | str, ...]) -> Iterable[str]:
    return receivers.KINDS if loc[0] == "notify" else kinds()


def _meant(key: str) -> str:
    known = {name for model in (*_probe_models(), *_receiver_models()) for name in model.model_fields}
    known |= {
        "listen",
        "notify",
        "control",
        "engines",
        "name",
        "start_period",
        "probes",
        "maintenance",
        "cron",
        "zone",
        "for",
        "reason",
    }
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


# --- from types to what is watched ----------------------------------------------------------------------------------


def _engines(file: Any, faults: list[tuple[Where, str]]) -> Iterator[EngineSpec]:
    names: set[str] = set()
    for at, engine in enumerate(file.engines):
        where = ("engines", at)
        if engine.name in names:
            faults.append(((*where, "name"), f"a second engine named {engine.name!r}"))
        names.add(engine.name)
        if not engine.probes:
            faults.append(((*where, "probes"), "no probes: an engine without questions is never healthy"))
        probes = tuple(
            _spec(name, probe, engine, (*where, "probes", name), faults) for name, probe in engine.probes.items()
        )
        stated = {name for name, probe in engine.probes.items() if probe.needs is not None}
        windows = tuple(
            Window(window.cron, window.zone, float(window.lasts), window.reason) for window in engine.maintenance
        )
        for number, window in enumerate(windows):
            if never_over(window):
                sentence = f"never ends: it begins again before its {Seconds(window.lasts_s).text()} are over"
                faults.append(((*where, "maintenance", number, "for"), sentence))
        spec = joined(EngineSpec(engine.name, probes, float(engine.start_period), windows), stated=stated)
        for probe in spec.probes:
            if probe.name in _above(spec, probe):
                faults.append(((*where, "probes", probe.name, "needs"), "goes in a circle"))
        yield spec


def _spec(name: str, probe: Any, engine: Any, where: Where, faults: list[tuple[Where, str]]) -> ProbeSpec:
    interval = float(probe.interval or engine.interval or _POLICY.interval_s)
    timeout = float(probe.timeout or engine.timeout or 0.8 * interval)
    if interval < 0.01:
        faults.append(((*where, "interval"), f"{Seconds(interval).text()} is too often, want at least 10ms"))
    if timeout > interval:
        sentence = f"{Seconds(timeout).text()} is longer than the interval, {Seconds(interval).text()}"
        faults.append(((*where, "timeout"), sentence))
    for need in probe.needs or ():
        if need not in engine.probes:
            faults.append(((*where, "needs"), f"no probe {need!r}, want one of {', '.join(engine.probes)}"))
    policy = Policy(
        interval,
        timeout,
        probe.fall or engine.fall or _POLICY.fall,
        probe.rise or engine.rise or _POLICY.rise,
        probe.severity,
        tuple(need for need in probe.needs or () if need in engine.probes),
    )
    return ProbeSpec(name, probe.kind, _settings(kinds()[probe.kind].Settings, probe), policy)


def _above(spec: EngineSpec, probe: ProbeSpec) -> set[str]:
    """All that a probe needs, and what that needs."""
    by_name = {other.name: other for other in spec.probes}
    found: set[str] = set()
    todo = list(probe.policy.needs)
    while todo:
        need = todo.pop()
        if need not in found:
            found.add(need)
            todo += by_name[need].policy.needs
    return found
