"""`sentinel maintenance start|end ENGINE`: tells a running daemon, over its control socket, and prints what it says.

It decides nothing: the daemon knows the engines and the time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import aiohttp
from yarl import URL

from sentinel.address import Control, parse_unix
from sentinel.client import TIMEOUT_S
from sentinel.maintenance import Reason, While

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_CONTROL = "unix:/run/sentinel/control.sock"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence; argparse would print the usage before it."""
        self.exit(1, f"sentinel maintenance: {message}; see sentinel maintenance --help\n")


def main(argv: Sequence[str]) -> int:
    """0 once the daemon did as it was told, or there was nothing to end; else 1."""
    parser = _Parser(
        prog="sentinel maintenance",
        description="An engine in maintenance is watched as ever, and nobody is told of what is wrong with it.",
    )
    parser.add_argument("what", choices=("start", "end"))
    parser.add_argument("engine", metavar="ENGINE")
    parser.add_argument("--for", dest="lasts", metavar="TIME", type=_typed(While), help=f"for start: {While.FORM}")
    parser.add_argument("--reason", type=_typed(Reason), help="for start: what is shown beside the state")
    parser.add_argument(
        "--control",
        metavar="unix:PATH",
        type=_typed(Control),
        default=os.environ.get("SENTINEL_CONTROL") or DEFAULT_CONTROL,
        help=f"the daemon's control socket; {DEFAULT_CONTROL} (SENTINEL_CONTROL)",
    )
    args = parser.parse_args(argv)
    if args.what == "start" and args.lasts is None:
        parser.error("start: --for is missing, how long at most")
    if args.what == "end" and (args.lasts, args.reason) != (None, None):
        parser.error("end: takes neither --for nor --reason")
    body = {"for": args.lasts.text(), "reason": args.reason or ""} if args.what == "start" else None
    try:
        told = asyncio.run(_order(parse_unix(args.control).unix, args.engine, body))
    except _RefusedError as exc:
        sys.stderr.write(f"sentinel maintenance: {exc}\n")
        return 1
    sys.stdout.write(f"{told['sentence']}\n")
    return 0


def _typed(type_: Any) -> Any:
    def parse(text: str) -> Any:
        try:
            return type_.parse(text)
        except ValueError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return parse


class _RefusedError(Exception):
    """The daemon did not do it. One sentence."""


async def _order(path: str, engine: str, body: dict[str, str] | None) -> Any:
    """The daemon's answer. Raises _RefusedError."""
    url = URL(f"http://localhost/api/v1/maintenance/{quote(engine, safe='')}", encoded=True)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(path), timeout=timeout) as session,
            session.request("DELETE" if body is None else "POST", url, json=body) as answer,
        ):
            if answer.status == 200:
                return await answer.json()
            raise _RefusedError((await answer.text()).strip())
    except TimeoutError as exc:
        raise _RefusedError(f"{path}: no answer within {TIMEOUT_S} s") from exc
    except (OSError, aiohttp.ClientError, ValueError) as exc:
        why = os.strerror(exc.errno).lower() if isinstance(exc, OSError) and exc.errno else str(exc)
        raise _RefusedError(f"{path}: {why}; does `sentinel run` run there, with control: set?") from exc
