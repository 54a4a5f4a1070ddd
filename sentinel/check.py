"""`sentinel check`: the four questions once, as a Docker HEALTHCHECK; or a running daemon's verdict.

A composition root: it reads the environment, asks, prints one line and gives the exit status. It runs every second on
hosts that count microseconds, so it imports the standard library only and little of that (tests/test_check.py lists
what), and it must end within its time budget whatever the engine does. Exit status 0 or 1, never 2: Docker reserves it.
"""

from __future__ import annotations

import posix
import time

from sentinel.board import fresh, serving, settle, step
from sentinel.fetch.blocking import fetch
from sentinel.model import TYPE_CHECKING, Get, Policy
from sentinel.probes import load
from sentinel.spec import DEFAULTS, OPTIONS, default_engine, shared
from sentinel.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from sentinel.board import EngineRecord
    from sentinel.model import EngineSpec

LINE_LIMIT = 4096  # bytes: Docker keeps no more of a check's output (moby daemon/health.go)
DEFAULT_TIMEOUT = "2.5s"  # Docker kills the check at 3 s; half a second is for starting it
DEFAULT_DAEMON = "http://127.0.0.1:9710"


class UsageError(ValueError):
    """The command line or the environment cannot be followed. One sentence."""


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Prints the line and returns the exit status."""
    if "--help" in argv or "-h" in argv:
        _write(usage())
        return 0
    try:
        code, line = run(argv, environ)
    except UsageError as exc:
        code, line = 1, f"unhealthy: usage: {exc}"
    except Exception as exc:  # noqa: BLE001  # a check that cannot check is not health, and Docker must not see status 2
        code, line = 1, f"unhealthy: sentinel: the check itself failed ({type(exc).__name__}: {exc})"
    _write(_one_line(line))
    return code


def _write(text: str) -> None:
    data = text.encode() + b"\n"
    try:
        while data:
            data = data[posix.write(1, data) :]
    except OSError:  # nobody reads: the exit status still tells
        pass


def run(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str]:
    """The exit status and the line. Raises UsageError."""
    given, skip, flags = _parse(argv)
    budget_s = _timeout(given.get("--timeout"), environ.get("SENTINEL_TIMEOUT"))
    if "--daemon" in given or "--live" in flags:
        url = given.get("--daemon") or environ.get("SENTINEL_DAEMON") or DEFAULT_DAEMON
        return _ask_daemon(url, "--live" in flags, "--json" in flags, budget_s)
    try:
        engines = _engines(given, environ, skip)
    except ValueError as exc:
        raise UsageError(str(exc)) from None
    records = tuple(_ask(engine, budget_s) for engine in engines)
    return _verdict(engines, records, "--json" in flags)


def _engines(given: Mapping[str, str], environ: Mapping[str, str], skip: set[str]) -> tuple[EngineSpec, ...]:
    """What to ask, each probe believed at its first answer: a check has no second."""
    once = Policy(fall=1, rise=1)
    config = given.get("--config") or environ.get("SENTINEL_CONFIG")
    if not config:
        sources = {**{option.env: environ.get(option.env, "") for option in OPTIONS}, **given}
        return (default_engine(sources, policy=once, start_period_s=0.0, skip=skip),)
    from sentinel.config import load_config  # YAML and pydantic: only a check with a file of its own pays

    engines = []
    for engine in load_config(config, environ, telling=False).engines:
        probes = tuple(
            probe.replace(policy=probe.policy.replace(fall=1, rise=1))
            for probe in engine.probes
            if probe.name not in skip
        )
        engines.append(engine.replace(probes=probes, start_period_s=0.0))
    return tuple(engines)


def _ask(engine: EngineSpec, budget_s: float) -> EngineRecord:
    """The engine's record after one answer to each probe."""
    asks = {probe.name: load(probe.kind).asks(probe.settings) for probe in engine.probes}
    really = shared(ask for several in asks.values() for ask in several)
    answers = fetch(really.values(), budget_s)
    now = time.monotonic()
    record = fresh(engine, now)
    for probe in engine.probes:
        brought = tuple(answers[really[ask]] for ask in asks[probe.name])
        seen, _ = load(probe.kind).read(probe.settings, brought, None)
        record = step(engine, record, probe.name, seen, now)
    return settle(engine, record, now)


def _verdict(engines: Sequence[EngineSpec], records: tuple[EngineRecord, ...], as_json: bool) -> tuple[int, str]:
    healthy = serving(records)
    rows = []
    for engine, record in zip(engines, records, strict=True):
        for name, probe in record.probes.items():
            seen = probe.last
            assert seen is not None  # every probe was asked
            row: dict[str, Any] = {"engine": engine.name, "probe": name, "state": probe.state, "reason": seen.reason}
            row |= {"sentence": seen.sentence, "value": seen.value, "limit": seen.limit, "unit": seen.unit}
            rows.append(row)
    if as_json:
        return 0 if healthy else 1, _fitted(rows, lambda rows: _json(healthy, rows))
    told = [row for row in rows if row["state"] in ("failing", "unknown")] or rows
    return 0 if healthy else 1, _fitted(told, lambda rows: _text(healthy, rows, len(engines) > 1))


def _text(healthy: bool, rows: list[dict[str, Any]], several: bool) -> str:
    word = "healthy" if healthy else "unhealthy"
    parts = [f"{row['engine'] + '/' if several else ''}{row['probe']}: {row['sentence']}" for row in rows]
    return f"{word}: {'; '.join(parts) or 'no probes are left to ask'}"


def _json(healthy: bool, rows: list[dict[str, Any]]) -> str:
    import json  # 8 ms: only who asks for it pays

    finite = [{key: value if value == value else None for key, value in row.items()} for row in rows]  # noqa: PLR0124  # NaN
    return json.dumps({"healthy": healthy, "probes": finite}, ensure_ascii=False)


def _fitted(rows: list[dict[str, Any]], render: Callable[[list[dict[str, Any]]], str]) -> str:
    """The line within its limit: every probe is named, long sentences lose their ends, all to the same length."""
    keep = LINE_LIMIT
    while True:
        cut = [{**row, "sentence": _shortened(row["sentence"], keep)} for row in rows]
        line = _one_line(render(cut))
        if len(line.encode()) < LINE_LIMIT or keep == 0:
            return line
        keep = keep * 3 // 4


def _shortened(text: str, keep: int) -> str:
    return text if len(text) <= keep else text[:keep] + "…"


def _one_line(text: str) -> str:
    """Printable and within the limit, the newline included; whatever a server said cannot break the line."""
    clean = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return clean.encode("utf-8", "replace")[: LINE_LIMIT - 1].decode("utf-8", "ignore")


def _ask_daemon(url: str, live: bool, as_json: bool, budget_s: float) -> tuple[int, str]:
    path = "/livez" if live else "/health"
    get = Get(
        f"{url}:{path}" if url.startswith("unix:") else url.rstrip("/") + path, LINE_LIMIT * 4, accept="text/plain"
    )
    try:
        answer = fetch([get], budget_s)[get]
    except ValueError as exc:
        raise UsageError(f"--daemon: {exc}") from None
    if answer.failure is not None:
        healthy, line = False, f"unhealthy: daemon: {answer.failure.sentence}"
    else:
        line = answer.value.body.decode("utf-8", "replace").strip()
        healthy = answer.value.status == 200 and line.startswith("healthy:")
        if not healthy and not line.startswith("unhealthy:"):
            line = f"unhealthy: daemon: what answers at {url} is not Sentinel (status {answer.value.status})"
    if as_json:
        line = _json(healthy, [{"sentence": line.partition(": ")[2]}])
    return 0 if healthy else 1, line


def _timeout(flag: str | None, env: str | None) -> float:
    source, text = ("--timeout", flag) if flag else ("SENTINEL_TIMEOUT", env) if env else ("", DEFAULT_TIMEOUT)
    try:
        seconds = Seconds.parse(text)
    except ValueError as exc:
        raise UsageError(f"{source}: {exc}") from None
    if seconds <= 0:
        raise UsageError(f"{source}: {text!r}, want more than 0 s")
    return float(seconds)


def _parse(argv: Sequence[str]) -> tuple[dict[str, str], set[str], set[str]]:
    """Values by flag, the probes to skip, and the flags without a value. `argparse` costs 8 ms."""
    valued = {option.flag for option in OPTIONS} | {"--timeout", "--config", "--skip"}
    bare = {"--json", "--live"}
    probes = [name for name, _, _ in DEFAULTS]
    given: dict[str, str] = {}
    skip: set[str] = set()
    flags: set[str] = set()
    rest = list(argv)
    while rest:
        flag, has_value, value = rest.pop(0).partition("=")
        if flag in bare and not has_value:
            flags.add(flag)
        elif flag == "--daemon":
            given[flag] = value if has_value else rest.pop(0) if rest and not rest[0].startswith("-") else ""
        elif flag in valued:
            if not has_value and not rest:
                raise UsageError(f"{flag}: no value behind it; see sentinel check --help")
            value = value if has_value else rest.pop(0)
            if flag == "--skip":
                skip.add(value)
            else:
                given[flag] = value
        else:
            raise UsageError(f"unknown option {flag!r}; see sentinel check --help")
    if (unknown := skip.difference(probes)) and "--config" not in given:
        raise UsageError(f"--skip: no probe {min(unknown)!r}, want one of {', '.join(probes)}")
    return given, skip, flags


def usage() -> str:
    """What --help prints, one option a line."""
    lines = [f"  {f'{option.flag} {option.form}':<22} {option.help} ({option.env})" for option in OPTIONS]
    return "\n".join(
        [
            "usage: sentinel check [OPTION ...]",
            "Asks the engine's health once and prints one line. Exit status 0: healthy, 1: not.",
            "",
            *lines,
            f"  {'--timeout TIME':<22} for the whole command, {DEFAULT_TIMEOUT} if not given (SENTINEL_TIMEOUT)",
            f"  {'--skip PROBE':<22} leave out health, process, memory or latency; may be repeated",
            f"  {'--config FILE':<22} ask what this file configures instead (SENTINEL_CONFIG)",
            f"  {'--daemon [URL]':<22} ask a running daemon; {DEFAULT_DAEMON} or unix:PATH (SENTINEL_DAEMON)",
            f"  {'--live':<22} ask only whether the daemon itself runs and its schedule is fresh",
            f"  {'--json':<22} print JSON",
        ]
    )
