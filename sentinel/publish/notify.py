"""Tells people by itself: each receiver has its box (outbox.py) and its loop, which sends what is due.

The loop of the daemon decides and a thread sends (carriers.py): a receiver that hangs costs itself a message later, and
no probe a millisecond. Nothing is lost silently: what is given up is counted and said.
"""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from sentinel.model import Delivery
from sentinel.outbox import Manner, Outbox, hear, sent, take
from sentinel.publish.carriers import UndeliveredError, beat, by_apprise, to_alertmanager

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from sentinel.receivers import Receiver

    Say = Callable[[str, str, str], None]  # level, receiver, sentence

_LOOK_S = 1.0  # how often a box is looked at while nothing is heard
_BUDGET_S = 30.0  # for one attempt; its thread may take longer, and then the next one waits for it
_MAX_PAUSE_S = 60.0  # between two beats that failed


class Notifier:
    """The receivers. `describe` says what an engine is now and why; `late` says that the schedule is, or nothing."""

    def __init__(self, describe: Callable[[str], str], late: Callable[[], str], say: Say) -> None:
        self._describe = describe
        self._late = late
        self._say = say
        self._posts: dict[str, _Post] = {}

    def set(self, receivers: Iterable[Receiver], states: Mapping[str, str]) -> None:
        """Exactly these receivers from now on, and these engines in their states. Needs a running loop."""
        before, self._posts = self._posts, {}
        for receiver in receivers:
            kept = before.pop(receiver.name, None)
            if kept is None or kept.receiver != receiver:
                if kept is not None:
                    kept.close()
                count = Delivery(receiver.name) if kept is None else kept.count
                kept = _POSTS[receiver.kind](receiver, count, self._describe, self._late, self._say)
                kept.begin()
            self._posts[receiver.name] = kept
        for gone in before.values():
            gone.close()
        for post in self._posts.values():
            post.forget(states)
            for engine, state in states.items():
                post.hear(engine, state, self._describe(engine))

    def hear(self, engine: str, state: str) -> None:
        """A change of an engine's state."""
        for post in self._posts.values():
            post.hear(engine, state, self._describe(engine))

    def deliveries(self) -> tuple[Delivery, ...]:
        """What became of it all, by receiver."""
        return tuple(post.count for post in self._posts.values())

    def close(self) -> None:
        """Sends no more; says what was not told."""
        for post in self._posts.values():
            post.close()


class _Post:
    """One receiver: `_run` until it is closed."""

    def __init__(
        self, receiver: Receiver, count: Delivery, describe: Callable[[str], str], late: Callable[[], str], say: Say
    ) -> None:
        self.receiver = receiver
        self.count = count
        self._describe = describe
        self._late = late
        self._say = say
        self._failing = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    def close(self) -> None:
        self._task.cancel()

    def hear(self, engine: str, state: str, text: str) -> None:
        """Nothing, unless it tells of engines."""

    def forget(self, engines: Collection[str]) -> None:
        """Nothing, unless it tells of engines."""

    async def _run(self) -> None:
        raise NotImplementedError

    async def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether it arrived, counted; what changes is said."""
        try:
            await self._in_a_thread(work)
        except UndeliveredError as exc:
            self.count = self.count.replace(failed=self.count.failed + 1)
            if not self._failing:
                self._say("WARNING", self.receiver.name, f"not told, and tried again: {exc}")
            self._failing = True
            return False
        self.count = self.count.replace(sent=self.count.sent + 1, arrived_at=time.monotonic())
        if self._failing:
            self._say("INFO", self.receiver.name, "told again")
        self._failing = False
        return True

    async def _in_a_thread(self, work: Callable[[], None]) -> None:
        """Never two at once, and no pool: its threads would be waited for at the end. Raises UndeliveredError."""
        if self._thread is not None and self._thread.is_alive():
            raise UndeliveredError("the attempt before still hangs")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def settle(failure: UndeliveredError | None) -> None:
            if done.done():
                return
            if failure is None:
                done.set_result(None)
            else:
                done.set_exception(failure)

        def run() -> None:
            failure: UndeliveredError | None = None
            try:
                work()
            except UndeliveredError as exc:
                failure = exc
            except Exception as exc:  # noqa: BLE001  # a bug in what sends must not end the telling
                failure = UndeliveredError(f"what sends has failed ({type(exc).__name__}), please report this")
            with suppress(RuntimeError):  # the daemon has ended meanwhile
                loop.call_soon_threadsafe(settle, failure)

        self._thread = threading.Thread(target=run, name=f"notify-{self.receiver.name}", daemon=True)
        self._thread.start()
        try:
            async with asyncio.timeout(_BUDGET_S):
                await done
        except TimeoutError:
            raise UndeliveredError(f"no answer within {_BUDGET_S:.0f} s") from None


class _Box(_Post):
    """A receiver that is told of changes."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._manner, self._carry = _manner(self.receiver)
        self._box = Outbox(dropped=self.count.dropped)
        self._heard = asyncio.Event()

    def hear(self, engine: str, state: str, text: str) -> None:
        self._keep(hear(self._box, self._manner, engine, state, text, time.monotonic(), time.time()))
        self._heard.set()

    def forget(self, engines: Collection[str]) -> None:
        for engine in self._box.lasting.keys() - set(engines):
            self.hear(engine, "forgotten", f"{engine} is watched no more")

    def close(self) -> None:
        super().close()
        if left := len(self._box.pending):
            self._say("WARNING", self.receiver.name, f"ended with changes that were not told: {left}")
            self._keep(self._box.replace(pending=(), dropped=self._box.dropped + left))

    async def _run(self) -> None:
        while True:
            self._heard.clear()
            box, batch = take(self._box, self._manner, time.monotonic(), time.time(), self._describe)
            self._keep(box)
            if batch:
                arrived = await self._attempt(partial(self._carry, self.receiver.settings, batch, time.time()))
                self._keep(sent(self._box, self._manner, batch, arrived, time.monotonic()))
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._heard.wait()

    def _keep(self, box: Outbox) -> None:
        if lost := box.dropped - self._box.dropped:
            self._say("ERROR", self.receiver.name, f"changes that were never told: {lost}")
        self._box = box
        self.count = self.count.replace(pending=len(box.pending), dropped=box.dropped)


class _Beat(_Post):
    """A dead man's switch. Its first beat comes after one interval: what ends before that is not alive."""

    async def _run(self) -> None:
        settings = self.receiver.settings
        pause_s, failed = float(settings.every), 0
        while True:
            await asyncio.sleep(pause_s)
            late = self._late()
            if late and not settings.fail:
                continue
            failed = 0 if await self._attempt(partial(beat, settings, late)) else failed + 1
            pause_s = min(settings.every, _MAX_PAUSE_S, 2.0**failed) if failed else float(settings.every)


_POSTS: dict[str, type[_Post]] = {"alertmanager": _Box, "apprise": _Box, "heartbeat": _Beat}


def _manner(receiver: Receiver) -> tuple[Manner, Callable[..., None]]:
    settings = receiver.settings
    if receiver.kind == "alertmanager":
        # At once: Alertmanager gathers by itself. An end that comes with its beginning would be told to nobody.
        return Manner(settings.states, 0.0, settings.resend, 0, settings.resend), to_alertmanager
    return Manner(settings.states, 1.0, settings.reminder, settings.per_hour), by_apprise
