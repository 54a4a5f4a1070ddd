"""Server-sent events: each change of state and, for those who ask for it, the picture once a second.

Apart from the rest of the HTTP side because a stream has readers that stay. What they read is written once for all of
them, and a reader that does not read must never hold up the others nor grow: it is let go, or passed over.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sentinel.publish import picture as shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sentinel.board import Snapshot
    from sentinel.history import History

    Drawn = tuple[str, tuple[str, ...]]  # an engine, and the metrics of it that a reader draws

_KEEP_ALIVE_S = 15.0  # proxies close an idle stream after 30 to 60 s
_BACKLOG = 256  # changes that a slow reader may fall behind before it is let go; it comes back and reads the status
_KEPT = 1000  # changes that are remembered: at four a fault and its end, a night of them
_RECENT_S = 2.5  # of readings go with each picture: a tick that came late leaves no gap


class Events:
    """What happened, for the readers of `/api/v1/events`, and the last of it for who asks later."""

    def __init__(self, picture: Callable[[], Snapshot], history: History) -> None:
        self._picture = picture
        self._history = history
        self._shown: tuple[Snapshot | None, bytes] = (None, b"")
        self._readers: set[_Reader] = set()
        self._kept: deque[tuple[int, dict[str, Any]]] = deque(maxlen=_KEPT)
        self._number = 0
        self._began = f"{time.time_ns() // 10**6:x}"  # tells the changes of one daemon from those of the one before

    def tell(self, change: dict[str, Any]) -> None:
        """One change of state."""
        self._number += 1
        self._kept.append((self._number, change))
        self._put(self._change(self._number, change))

    def show(self, now: Snapshot) -> None:
        """The picture of now, to those who watch; each part of it is written once. Called once a second."""
        watching = [reader for reader in self._readers if reader.live]
        written = {drawn: self._written(now, drawn) for drawn in {reader.drawn for reader in watching}}
        for reader in watching:
            reader.show(written[reader.drawn])

    def past(self, engine: str | None) -> list[dict[str, Any]]:
        """The changes that are remembered, the oldest first: of one engine, or of all."""
        told = ({"id": self._id(number), **change} for number, change in self._kept)
        return [change for change in told if engine in (None, change["engine"])]

    def close(self) -> None:
        """Ends every stream."""
        self._put(None)

    def _put(self, message: bytes | None) -> None:
        for reader in [*self._readers]:
            if not reader.tell(message):
                self._readers.discard(reader)

    def _written(self, now: Snapshot, drawn: Drawn) -> bytes:
        if now is not self._shown[0]:
            self._shown = (now, _message("picture", shapes.live(now)))
        engine, metrics = drawn
        spec = next((spec for spec, _ in now.engines if spec.name == engine), None)
        if spec is None:
            return self._shown[1]
        return self._shown[1] + _message("past", shapes.past(now, spec, self._history, _RECENT_S, metrics))

    def _id(self, number: int) -> str:
        return f"{self._began}-{number}"

    def _change(self, number: int, change: dict[str, Any]) -> bytes:
        return f"id: {self._id(number)}\n".encode() + _message("change", change)

    def _missed(self, last_id: str) -> Iterator[bytes]:
        """What came after the event that a returning reader saw last; all, if another daemon told it that one."""
        began, _, number = last_id.rpartition("-")
        seen = int(number) if began == self._began and number.isdecimal() else 0
        return (self._change(number, change) for number, change in self._kept if number > seen)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events (WHATWG HTML §9.2) until the reader goes or `close`.

        `?live` adds the picture once a second, `?live=ENGINE&metric=NAME…` also the newest readings of these metrics.
        """
        query = request.query
        reader = _Reader("live" in query, (query.get("live", ""), tuple(query.getall("metric", ()))))
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        last_id = request.headers.get("Last-Event-ID")
        first = [b"retry: 2000\n\n", *(self._missed(last_id) if last_id is not None else ())]
        if reader.live:
            first.append(self._written(self._picture(), reader.drawn))
        self._readers.add(reader)
        try:
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write(b"".join(first))
                while (message := await reader.next()) is not None:
                    await response.write(message)
        finally:
            self._readers.discard(reader)
        return response


class _Reader:
    """One stream: the changes that it has not got yet, and the newest picture: an older one is worth nothing."""

    def __init__(self, live: bool, drawn: Drawn) -> None:
        self.live = live
        self.drawn = drawn
        self._changes: deque[bytes | None] = deque()
        self._picture = b""
        self._news = asyncio.Event()

    def tell(self, message: bytes | None) -> bool:
        """False if it has fallen too far behind: its stream ends then."""
        behind = len(self._changes) >= _BACKLOG
        if behind:
            self._changes.clear()
        self._changes.append(None if behind else message)
        self._news.set()
        return not behind

    def show(self, picture: bytes) -> None:
        self._picture = picture
        self._news.set()

    async def next(self) -> bytes | None:
        """What is to be sent next, or None at the end."""
        try:
            async with asyncio.timeout(_KEEP_ALIVE_S):
                await self._news.wait()
        except TimeoutError:
            return b": still here\n\n"
        if self._changes:
            message = self._changes.popleft()
        else:
            message, self._picture = self._picture, b""
        if not self._changes and not self._picture:
            self._news.clear()
        return message


def _message(event: str, document: dict[str, Any]) -> bytes:
    data = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {event}\ndata: {data}\n\n".encode()
