"""`sentinel explain [ENGINE]`: why the engine is not healthy, or why its p99 is high, in words, from a running daemon.

A composition root: it asks, prints and gives the exit status. It must say no more than the daemon measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sentinel.client import NoAnswerError, add_daemon_option, ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def main(argv: Sequence[str]) -> int:
    """0, also where the engine is not well; 1 if the daemon could not be asked."""
    parser = argparse.ArgumentParser(prog="sentinel explain", description="Why an engine is not healthy.")
    parser.add_argument("engine", nargs="?", metavar="ENGINE", help="all of them if not given")
    add_daemon_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    try:
        names = [args.engine] if args.engine else [one["name"] for one in ask(args.daemon, "/api/v1/status")["engines"]]
        told = [ask(args.daemon, f"/api/v1/explain/{quote(name, safe='')}") for name in names]
    except NoAnswerError as exc:
        sys.stderr.write(f"sentinel explain: {exc}\n")
        return 1
    if args.json:
        sys.stdout.write(json.dumps(told[0] if args.engine else told, ensure_ascii=False, indent=2) + "\n")
    else:
        sys.stdout.write("\n".join("\n".join(lines(one)) + "\n" for one in told))
    return 0


def lines(told: dict[str, Any]) -> Iterator[str]:
    """What a person reads: the verdict, what is wrong, the causes from the likeliest on with their figures."""
    yield f"{told['engine']} is {told['state']}: {told['sentence']}"
    for trouble in told["troubles"]:
        yield f"  {trouble['probe']}: {trouble['sentence']}, since {_clock(trouble['since'])}"
    for number, cause in enumerate(told["causes"], 1):
        yield f"  {number}. {cause['sentence']}"
        for figure in cause["figures"]:
            yield f"       {_figure(figure)}"
    past = told["past"]
    if past:
        yield f"  before, {_clock(past['from'])} to {_clock(past['until'])}: {past['sentence']}"
    for missing in told["unreadable"]:
        yield f"  not read: {missing['source']}: {missing['why']}; {missing['remedy']}"


def _figure(figure: dict[str, Any]) -> str:
    before = "" if figure["before"] is None else f", before {figure['before']:.4g}"
    unit = f" {figure['unit']}" if figure["unit"] else ""
    source = f"   {figure['source']}" if figure["source"] else ""
    return f"{figure['name']} {figure['value']:.4g}{unit}{before}{source}"


def _clock(moment: str) -> str:
    """The time of day in UTC."""
    return moment.partition("T")[2].partition(".")[0] + "Z"
