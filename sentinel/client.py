"""A running daemon's JSON, for the commands that show it to a person.

Apart from `check`, which asks for a verdict only and pays for no parser. It must not guess at what is not answered.

    NoAnswerError              the daemon did not answer, or not as a daemon does; one sentence
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from sentinel.check import DEFAULT_DAEMON
from sentinel.fetch.blocking import fetch
from sentinel.model import Get

if TYPE_CHECKING:
    import argparse

TIMEOUT_S = 2.5  # as a check has: a daemon that takes longer is not fit to be asked
_MAX_BYTES = 16 << 20  # a thousand engines with all that is known of them


class NoAnswerError(Exception):
    """The daemon did not answer, or not as a daemon does. One sentence."""


def add_daemon_option(parser: argparse.ArgumentParser) -> None:
    """`--daemon URL`, the same for every command that asks a daemon."""
    parser.add_argument(
        "--daemon",
        metavar="URL",
        default=os.environ.get("SENTINEL_DAEMON") or DEFAULT_DAEMON,
        help=f"{DEFAULT_DAEMON} or unix:PATH (SENTINEL_DAEMON)",
    )


def ask(daemon: str, path: str, timeout_s: float = TIMEOUT_S) -> Any:
    """The document at this path of the daemon. Raises NoAnswerError."""
    get = Get(f"{daemon}:{path}" if daemon.startswith("unix:") else daemon.rstrip("/") + path, _MAX_BYTES)
    try:
        answer = fetch([get], timeout_s)[get]
    except ValueError as exc:
        raise NoAnswerError(f"--daemon: {exc}") from exc
    if answer.failure is not None:
        raise NoAnswerError(f"{answer.failure.sentence}; is `sentinel run` running there?")
    body = answer.value.body.decode("utf-8", "replace")
    try:
        if answer.value.status != 200:
            raise ValueError
        return json.loads(body)
    except ValueError as exc:
        first = body.splitlines()[0] if body.strip() else f"status {answer.value.status}"
        raise NoAnswerError(f"GET {get.url}: {first}") from exc
