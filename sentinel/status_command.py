"""`sentinel status [--watch] [--json]`: a running daemon's picture in a terminal, once or every second.

A composition root: it asks, prints and gives the exit status. What the daemon says no more is never shown as if it
still held, and nothing that an engine said reaches the terminal as a control sequence.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sentinel.client import NoAnswerError, add_daemon_option, ask
from sentinel.units import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType
    from rich.text import Text

_EVERY_S = 1.0
_HISTORIES_A_TICK = 4  # with more engines than this each line of the past is drawn anew only every few seconds
_SPARKS, _SPARK_CELLS = "▁▂▃▄▅▆▇█", 30  # of ten minutes, so 20 s a cell
_WITH_SPARKS_COLUMNS = 90  # in less than this the sentences are worth more than the past
_DRAWN = {  # by the unit of a probe's value, the metric whose past is drawn beside it
    "seconds": "sentinel_engine_latency_seconds",
    "ratio": "sentinel_engine_memory_used_ratio",
    "bytes": "sentinel_engine_memory_used_bytes",
}
_WORST = ("unhealthy", "unknown", "starting", "degraded", "maintenance", "healthy")
_LOOKS = {  # state: a sign and a colour; the word stands beside them
    "healthy": ("✔", "green"),
    "degraded": ("▲", "yellow"),
    "unhealthy": ("✖", "bold red"),
    "unknown": ("?", "bold magenta"),
    "starting": ("▷", "blue"),
    "maintenance": ("▬", "blue"),
    "passing": ("✔", "green"),
    "failing": ("✖", "bold red"),
    "waiting": ("▷", "blue"),
}


def main(argv: Sequence[str]) -> int:
    """0 if every engine is healthy or degraded, 1 otherwise; with --watch, as it was at the end."""
    parser = argparse.ArgumentParser(prog="sentinel status", description="The daemon's current picture.")
    parser.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print the document; with --watch one a line")
    add_daemon_option(parser)
    args = parser.parse_args(argv)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without UTF-8 gets ? for a sign
    screen = sys.stdout.isatty() and os.environ.get("TERM") != "dumb" and not args.json
    try:
        if args.watch:
            return _watch(args.daemon, screen, args.json)
        picture = ask(args.daemon, "/api/v1/status")
        if screen:
            _show_once(args.daemon, picture)
        else:
            _write(json.dumps(picture, ensure_ascii=False, indent=2) if args.json else plain(picture))
    except NoAnswerError as exc:
        sys.stderr.write(f"sentinel status: {exc}\n")
        return 1
    except BrokenPipeError:  # who read has gone; what is left in the buffer must not fail once more at the exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return verdict(picture)


def verdict(picture: dict[str, Any] | None) -> int:
    """The exit status. No picture and no engine are not health."""
    states = [engine["state"] for engine in picture["engines"]] if picture else []
    return 0 if states and all(state in ("healthy", "degraded") for state in states) else 1


def _watch(daemon: str, screen: bool, as_json: bool) -> int:
    watch = _Watch(daemon)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is left as it was then too
    try:
        if screen:
            from rich.console import Console
            from rich.live import Live

            with Live(console=Console(), screen=True, auto_refresh=False) as live:
                for _ in watch.ticks():
                    live.update(_whole(watch, live.console.width), refresh=True)
        else:
            told: Any = None
            for _ in watch.ticks():
                if as_json or watch.states() != told:
                    _write(watch.document() if as_json else watch.text())
                told = watch.states()
    except KeyboardInterrupt:
        pass
    return verdict(None if watch.lost else watch.picture)


class _Watch:
    """What the daemon said last, when, and why it says no more."""

    def __init__(self, daemon: str) -> None:
        self._daemon = daemon
        self.picture: dict[str, Any] | None = None
        self.lost = ""
        self.past: dict[str, Any] = {}
        self._heard_at = 0.0
        self._drawn_at: dict[str, float] = {}

    def ticks(self) -> Iterator[None]:
        """Once a second, after the daemon was asked."""
        while True:
            began = time.monotonic()
            self.ask()
            yield
            time.sleep(max(0.0, _EVERY_S - (time.monotonic() - began)))

    def ask(self) -> None:
        try:
            self.picture = ask(self._daemon, "/api/v1/status")
            self._heard_at, self.lost = time.monotonic(), ""
            names = [engine["name"] for engine in self.picture["engines"]]
            for name in sorted(names, key=lambda name: self._drawn_at.get(name, 0.0))[:_HISTORIES_A_TICK]:
                self._drawn_at[name] = time.monotonic()
                self.past[name] = history(self._daemon, name)
        except NoAnswerError as exc:
            self.lost = str(exc)

    def silence(self) -> str:
        """Empty while the daemon answers."""
        if not self.lost:
            return ""
        old = "no news yet" if self.picture is None else f"the last news is {duration(round(self._age()))} old"
        return f"NOT LIVE, {old}: {self.lost}"

    def _age(self) -> float:
        return time.monotonic() - self._heard_at

    def states(self) -> object:
        """What a line of plain text is worth: the numbers change with every answer."""
        engines = self.picture["engines"] if self.picture and not self.lost else []
        probes = [[(probe["name"], probe["state"]) for probe in engine["probes"]] for engine in engines]
        return bool(self.lost), [(engine["name"], engine["state"]) for engine in engines], probes

    def text(self) -> str:
        return f"{_clean(self.silence())}\n" if self.lost or not self.picture else plain(self.picture)

    def document(self) -> str:
        return json.dumps({"lost": self.lost} if self.lost else self.picture, ensure_ascii=False)


# --- plain text ------------------------------------------------------------------------------------------------------


def plain(picture: dict[str, Any]) -> str:
    """For a file, a pipe or a terminal that can do no more."""
    rows = []
    for engine in worst_first(picture):
        rows.append(f"{engine['name']}: {engine['state']} for {_lasted(picture, engine)}")
        for probe in engine["probes"]:
            rows.append(f"  {probe['name']:<12} {probe['state']:<8} {_sentence(probe)}")
        rows += [f"  {number}. {_clean(cause)}" for number, cause in enumerate(engine.get("causes", ()), 1)]
    return "\n".join(rows or ["no engines are watched"]) + "\n"


def worst_first(picture: dict[str, Any]) -> list[dict[str, Any]]:
    """The engines, those that need somebody on top."""
    return sorted(picture["engines"], key=lambda engine: _WORST.index(engine["state"]))


def _sentence(probe: dict[str, Any]) -> str:
    last = probe["last"]
    if last is None:
        return "no answer yet"
    old = f", {duration(round(last['age_s']))} ago" if last["age_s"] > 5 else ""
    return _clean(last["sentence"]) + old


def _lasted(picture: dict[str, Any], what: dict[str, Any]) -> str:
    seconds = (datetime.fromisoformat(picture["time"]) - datetime.fromisoformat(what["since"])).total_seconds()
    return duration(max(0, round(seconds)))


def _clean(text: str) -> str:
    """One line without control characters: an engine's words are not to move the cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def _write(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


# --- the past as a line ----------------------------------------------------------------------------------------------


def history(daemon: str, engine: str) -> dict[str, Any]:
    """The readings of the last ten minutes that are drawn."""
    query = "&".join(f"metric={metric}" for metric in _DRAWN.values())
    told: dict[str, Any] = ask(daemon, f"/api/v1/history/{quote(engine, safe='')}?{query}")
    return told


def sparkline(times: Sequence[float], values: Sequence[float | None], now: float, limit: float | None) -> str:
    """The largest value of each cell, from 0 up to the limit or beyond it; a space where nothing was read."""
    cells: list[float | None] = [None] * _SPARK_CELLS
    for at, value in zip(times, values, strict=True):
        cell = math.ceil((at - now) / 600 * _SPARK_CELLS) - 1 + _SPARK_CELLS
        if value is not None and 0 <= cell < _SPARK_CELLS:
            cells[cell] = max(value, cells[cell] or 0.0)
    top = max([limit or 0.0, *(value for value in cells if value is not None)])
    steps = [None if value is None else round(value / top * 7) if top else 0 for value in cells]
    return "".join(" " if step is None else _SPARKS[max(0, step)] for step in steps)


def _spark(past: dict[str, Any], picture: dict[str, Any], probe: dict[str, Any]) -> str:
    last, drawn = probe["last"], past.get("probes", {}).get(probe["name"])
    if not last or not drawn or last["limit"] is None:
        return ""
    metric = _DRAWN.get(last["unit"], "")
    named = {name: values for name, values in drawn["series"].items() if metric and name.startswith(metric)}
    values = next((named[name] for name in named if '"0.99"' in name), next(iter(named.values()), None))
    if values is None:
        return ""
    now = datetime.fromisoformat(picture["time"]).timestamp()
    return sparkline(drawn["times"], values, now, last["limit"])


# --- a terminal ------------------------------------------------------------------------------------------------------


def _show_once(daemon: str, picture: dict[str, Any]) -> None:
    from rich.console import Console, Group

    past = {engine["name"]: history(daemon, engine["name"]) for engine in picture["engines"]}
    console = Console()
    console.print(Group(*(_engine(picture, engine, past, "", console.width) for engine in worst_first(picture))))


def _whole(watch: _Watch, width: int) -> RenderableType:
    """The screen: whether it is live, and the engines, the worst on top, as far as they fit."""
    from rich.console import Group
    from rich.text import Text

    silence = watch.silence()
    parts: list[RenderableType] = [Text(_clean(silence), style="bold reverse")] if silence else []
    if watch.picture:
        shown = worst_first(watch.picture)
        parts += [_engine(watch.picture, engine, watch.past, silence, width) for engine in shown]
    return Group(*parts)


def _engine(
    picture: dict[str, Any], engine: dict[str, Any], past: dict[str, Any], silence: str, width: int
) -> RenderableType:
    """A heading, a table of the probes where something is wrong or few are watched, and the causes."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    heading = Text.assemble(_state(engine["state"], silence), " ", (engine["name"], "bold"))
    heading.append(f"  for {_lasted(picture, engine)}")
    if engine["state"] == "healthy" and len(picture["engines"]) > 3:
        return heading
    table = Table(box=None, padding=(0, 1), show_header=False, expand=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for probe in engine["probes"]:
        cells = [_state(probe["state"], silence), Text(probe["name"]), Text(_sentence(probe))]
        if width >= _WITH_SPARKS_COLUMNS:
            spark = _spark(past.get(engine["name"], {}), picture, probe)
            cells.append(Text(spark, style="dim" if silence else "cyan"))
        table.add_row(*cells)
    causes = [
        Text(f"  {number}. {_clean(cause)}", style="bold") for number, cause in enumerate(engine.get("causes", ()), 1)
    ]
    return Group(heading, *causes, table)


def _state(state: str, silence: str) -> Text:
    """A sign and the word; what is not known to hold any more is called what it was."""
    from rich.text import Text

    if silence:
        return Text(f"? was {state}", style="dim")
    sign, style = _LOOKS[state]
    return Text(f"{sign} {state}", style=style)
