"""What one receiver is to be told and when: changes of state in, batches of lines out, and nothing lost in between.

Pure: a box is a frozen value, and both clocks come in; what carries a batch says afterwards whether it arrived. Apart
from what sends, so that an outage of an hour is a row of a test. A line leaves the box told, or counted as dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sentinel.model import Value
from sentinel.units import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GIVE_UP_S = 3600.0  # a line that could not be told for so long is old news
_MAX_LINES = 1000  # in one box; a thousand engines that change once
_MAX_PAUSE_S = 60.0  # between two attempts: how much later than the receiver's return it may be told
_HOUR_S = 3600.0
_PROMPT_S = 5.0  # a beginning that was told sooner than this was told in time


class Manner(Value):
    """How a receiver wants it.

    `states` are the ones that it hears of. What comes within `gather_s` goes together. `remind_s`: how often again
    while it lasts, 0 for never. `per_hour`: most messages in any hour, 0 for any number; what is over that goes
    together in the next. `hold_s` is for a receiver that hears beginnings and ends apart and makes nothing of an end
    that comes at once: the end of what it heard of late is told this much after the beginning.
    """

    states: tuple[str, ...]
    gather_s: float = 1.0
    remind_s: float = 0.0
    per_hour: int = 0
    hold_s: float = 0.0


class Spell(Value):
    """An engine in one bad state, from its beginning on both clocks. (`sight.Trouble` is of a probe.)"""

    engine: str
    state: str
    since: float
    since_unix: float


class Line(Value):
    """A change: a spell that began, one that ended, or one that became another; `again` where it only reminds."""

    at: float
    at_unix: float
    text: str
    began: Spell | None = None
    ended: Spell | None = None
    again: bool = False


class Outbox(Value):
    """What one receiver was told and is to be told. `lasting` by engine; `told` is when a spell was told last."""

    pending: tuple[Line, ...] = ()
    lasting: Mapping[str, Spell] = {}
    told: Mapping[Spell, float] = {}
    held: Mapping[Spell, float] = {}  # whose end is not to be told before this moment
    sent: tuple[float, ...] = ()  # messages of the last hour, where they are limited
    failed: int = 0  # attempts in a row
    not_before: float = float("-inf")
    dropped: int = 0


def hear(box: Outbox, manner: Manner, engine: str, state: str, text: str, now: float, unix: float) -> Outbox:
    """The box after a change of an engine's state. `text` says what the engine is now, and why.

    `starting` is no news: what was told still holds until the engine has settled.
    """
    before = box.lasting.get(engine)
    after = Spell(engine, state, now, unix) if state in manner.states else None
    if state == "starting" or (before is None and after is None) or (before and after and before.state == after.state):
        return box
    lasting = {name: spell for name, spell in box.lasting.items() if name != engine}
    if after is not None:
        lasting[engine] = after
    was = f"{text}, was {before.state} for {duration(now - before.since)}" if before else text
    lines = [Line(now, unix, was, after, before)]
    if before and after and manner.hold_s:
        lines = [Line(now, unix, was, ended=before), Line(now, unix, text, began=after)]
    return _bounded(box.replace(lasting=lasting, pending=(*box.pending, *lines)), now)


def take(
    box: Outbox, manner: Manner, now: float, unix: float, describe: Callable[[str], str]
) -> tuple[Outbox, tuple[Line, ...]]:
    """What is to be sent now, nothing if it is not time. `describe` says what an engine is now, and why."""
    box = _bounded(box, now)
    sent = tuple(at for at in box.sent if now - at < _HOUR_S)
    if now < box.not_before or (manner.per_hour and len(sent) >= manner.per_hour):
        return box, ()
    beginnings = {line.began for line in box.pending} if manner.hold_s else set()
    ready = tuple(
        line
        for line in box.pending
        if line.ended is None or (line.ended not in beginnings and now >= box.held.get(line.ended, now))
    )
    if ready and now - ready[0].at < manner.gather_s:
        return box, ()
    reminders = tuple(
        Line(now, unix, f"{describe(spell.engine)}, for {duration(now - spell.since)} now", spell, again=True)
        for spell in box.lasting.values()
        if manner.remind_s and now - box.told.get(spell, now) >= manner.remind_s
    )
    return box.replace(sent=sent), ready + reminders


def sent(box: Outbox, manner: Manner, batch: tuple[Line, ...], arrived: bool, now: float) -> Outbox:
    """The box after an attempt to send this batch; the first attempt after a failure comes a second later."""
    if not arrived:
        pause_s = min(_MAX_PAUSE_S, 2.0 ** min(box.failed, 10))
        return box.replace(failed=box.failed + 1, not_before=now + pause_s)
    begun = [line.began for line in batch if line.began is not None]
    late = [each for each in begun if manner.hold_s and each not in box.told and now - each.since > _PROMPT_S]
    box = box.replace(
        told={**box.told, **dict.fromkeys(begun, now)},
        held={**box.held, **dict.fromkeys(late, now + manner.hold_s)},
        sent=(*box.sent, now) if manner.per_hour else (),
        failed=0,
        not_before=now,
    )
    return _without(box, batch)


def _bounded(box: Outbox, now: float) -> Outbox:
    """Without what is too old and what is too much, counted. What of that still lasts is told again by its reminder."""
    kept = tuple(line for line in box.pending[-_MAX_LINES:] if now - line.at < GIVE_UP_S)
    gone = box.pending[: len(box.pending) - len(kept)]
    if not gone:
        return box
    lasting = [line.began for line in gone if line.began in box.lasting.values()]
    told = {**box.told, **dict.fromkeys((each for each in lasting if each is not None), now)}
    return _without(box.replace(dropped=box.dropped + len(gone), told=told), gone)


def _without(box: Outbox, lines: tuple[Line, ...]) -> Outbox:
    """These lines are done with, and so are the spells that ended in them."""
    over = {line.ended for line in lines}
    return box.replace(
        pending=tuple(line for line in box.pending if line not in lines),
        told={spell: at for spell, at in box.told.items() if spell not in over},
        held={spell: at for spell, at in box.held.items() if spell not in over},
    )
