"""The log: for a person on a terminal, JSON lines otherwise; one line per change, none while nothing changes.

The loggers of the standard library, which the dependencies use, end in the same place.
Nothing here decides what is worth a line; the composition root does.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from loguru import logger

from sentinel.publish.picture import rfc3339

if TYPE_CHECKING:
    from loguru import Message

    from sentinel.board import Change

_FOR_PEOPLE = "<dim>{time:HH:mm:ss.SSS}</dim> <level>{level: <7}</level> {message}{extra[shown]}"
_LEVELS = {"failing": "WARNING", "waiting": "INFO", "unknown": "WARNING", "passing": "INFO"}
_ENGINE_LEVELS = {"unhealthy": "ERROR", "unknown": "ERROR", "degraded": "WARNING"}


def start_log(level: str = "INFO") -> None:
    """Sends everything to standard output: text if that is a terminal, else JSON lines."""
    logger.remove()
    if sys.stdout.isatty():
        logger.configure(patcher=lambda record: record["extra"].update(shown=_pairs(record["extra"])))
        logger.add(_write, level=level, format=_FOR_PEOPLE, colorize=True, backtrace=False, diagnose=False)
    else:
        logger.add(_write_json, level=level, format="{message}", backtrace=False, diagnose=False)
    logging.basicConfig(handlers=[_ToLoguru()], level=logging.WARNING, force=True)


def log_change(change: Change) -> None:
    """One line: `latency passing -> failing: p99 is …` with the values beside it."""
    if not change.probe:
        level = _ENGINE_LEVELS.get(change.after, "INFO")
        logger.bind(engine=change.engine, state=change.after, why=change.why).log(
            level, f"{change.engine} {change.before} -> {change.after}{f': {change.why}' if change.why else ''}"
        )
        return
    values: dict[str, Any] = {"engine": change.engine, "probe": change.probe, "state": change.after}
    if change.last is not None:
        given = {
            "reason": change.last.reason,
            "value": change.last.value,
            "max": change.last.limit,
            "unit": change.last.unit,
        }
        values |= {key: value for key, value in given.items() if value not in ("", None)}
    fresh = change.after == "unknown" and change.last is None  # a new process that was not asked yet
    level = "DEBUG" if fresh else _LEVELS[change.after]
    logger.bind(**values).log(level, f"{change.engine}/{change.probe} {change.before} -> {change.after}: {change.why}")


def _write_json(message: Message) -> None:
    record = message.record
    line: dict[str, Any] = {"time": rfc3339(record["time"].timestamp()), "level": record["level"].name.lower()}
    line |= {"message": record["message"], **record["extra"]}
    if record["exception"] is not None:
        line["exception"] = str(message).removeprefix(record["message"]).strip()
    _write(json.dumps(line, ensure_ascii=False, default=str) + "\n")


def _write(text: str) -> None:
    """A full disk or a reader that went away costs log lines, never the watch."""
    with suppress(OSError):
        sys.stdout.write(text)
        sys.stdout.flush()


def _pairs(extra: dict[str, Any]) -> str:
    """What a person needs beside the sentence; the sentence has the rest already."""
    told = {key: value for key, value in extra.items() if key in ("reason", "value", "max")}
    return "".join(
        f" {key}={value:.4g}" if isinstance(value, float) else f" {key}={value}" for key, value in told.items()
    )


class _ToLoguru(logging.Handler):
    """Hands a record of the standard library's logging to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError):
            return  # APScheduler reports as an error what we cancelled at the end
        known = record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
        level = record.levelname if known else record.levelno
        logger.bind(logger=record.name).opt(exception=record.exc_info).log(level, "{}", record.getMessage())
