"""The daemon's HTTP side: health, liveness, metrics, status and events, each read from the snapshot.

It must never wait for a probe or hold a lock: who asks for health gets what is known now.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sentinel.board import serving
from sentinel.publish import picture as shapes
from sentinel.publish.metrics import exposition

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.board import EngineRecord, Snapshot
    from sentinel.history import History
    from sentinel.model import EngineSpec

_KEEP_ALIVE_S = 15.0  # proxies close an idle stream after 30 to 60 s
_BACKLOG = 256  # changes that a slow reader may fall behind before it is let go; it comes back and reads the status


class Events:
    """Changes of state, handed to every reader of `/api/v1/events`."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[str | None]] = set()
        self._number = 0

    def tell(self, change: dict[str, Any]) -> None:
        self._number += 1
        self._put(f"id: {self._number}\nevent: change\ndata: {json.dumps(change, ensure_ascii=False)}\n\n")

    def close(self) -> None:
        """Ends every stream."""
        self._put(None)

    def _put(self, message: str | None) -> None:
        for queue in [*self._readers]:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self._readers.discard(queue)
                queue.get_nowait()
                queue.put_nowait(None)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events (WHATWG HTML §9.2) until the reader goes or `close`."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(_BACKLOG)
        self._readers.add(queue)
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        try:
            with suppress(ConnectionError):
                await response.prepare(request)
                await response.write(b"retry: 2000\n\n")
                while (message := await _next(queue)) is not None:
                    await response.write(message.encode())
        finally:
            self._readers.discard(queue)
        return response


async def _next(queue: asyncio.Queue[str | None]) -> str | None:
    try:
        async with asyncio.timeout(_KEEP_ALIVE_S):
            return await queue.get()
    except TimeoutError:
        return ": still here\n\n"


def application(picture: Callable[[], Snapshot], events: Events, history: History) -> web.Application:
    """The routes of the contract. `picture` gives the snapshot of now."""
    metrics = exposition(picture)

    async def health(request: web.Request) -> web.Response:
        now = picture()
        engines = _asked_for(request, now)
        code = 200 if serving(record for _, record in engines) else 503
        if "text/plain" in request.headers.get("Accept", ""):
            return _text(shapes.line(now, engines), code)
        return _json(shapes.health(now, engines), code, "application/health+json")

    async def livez(_request: web.Request) -> web.Response:
        late = picture().late
        return (
            _text(f"unhealthy: {late}", 503)
            if late
            else _text("healthy: the daemon runs and its schedule is fresh", 200)
        )

    async def readyz(_request: web.Request) -> web.Response:
        now = picture()
        missing = [
            f"{spec.name}/{name}"
            for spec, record in now.engines
            for name, probe in record.probes.items()
            if not probe.answered
        ]
        if missing or now.late:
            return _text(f"unhealthy: {now.late or 'no answer yet from ' + ', '.join(missing)}", 503)
        return _text("healthy: every probe has answered", 200)

    async def metrics_page(request: web.Request) -> web.Response:
        body, content_type = metrics(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def status(_request: web.Request) -> web.Response:
        return _json(shapes.status(picture()), 200, "application/json")

    async def past(request: web.Request) -> web.Response:
        now = picture()
        ((spec, _),) = _asked_for(request, now)
        return _json(shapes.past(now, spec, history), 200, "application/json")

    async def explain(request: web.Request) -> web.Response:
        now = picture()
        ((spec, record),) = _asked_for(request, now)
        return _json(shapes.explained(now, spec, record), 200, "application/json")

    async def page(_request: web.Request) -> web.Response:
        return _text(shapes.page(picture()), 200)

    app = web.Application(middlewares=[_plain_errors])
    app.router.add_get("/health", health)
    app.router.add_get("/health/{engine}", health)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_page)
    app.router.add_get("/api/v1/status", status)
    app.router.add_get("/api/v1/history/{engine}", past)
    app.router.add_get("/api/v1/explain/{engine}", explain)
    app.router.add_get("/api/v1/events", events.stream, allow_head=False)
    app.router.add_get("/", page)
    return app


class _NoEngineError(Exception):
    """A path names an engine that is not watched. One sentence."""


def _asked_for(request: web.Request, now: Snapshot) -> list[tuple[EngineSpec, EngineRecord]]:
    """The engine that the path names, or all of them. Raises _NoEngineError."""
    name = request.match_info.get("engine")
    engines = [pair for pair in now.engines if name in (None, pair[0].name)]
    if name is not None and not engines:
        known = ", ".join(spec.name for spec, _ in now.engines)
        raise _NoEngineError(f"no engine {name!r}, want one of {known}")
    return engines


@web.middleware
async def _plain_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """A path or method that is not there gets one sentence."""
    try:
        response: web.StreamResponse = await handler(request)
    except _NoEngineError as exc:
        return _text(str(exc), 404)
    except web.HTTPNotFound:
        return _text(f"no page {request.path}; there are /health /livez /readyz /metrics /api/v1/status", 404)
    except web.HTTPMethodNotAllowed as exc:
        allowed = ", ".join(sorted(exc.allowed_methods))
        return web.Response(text=f"{request.path} takes {allowed}\n", status=405, headers={"Allow": allowed})
    return response


def _text(line: str, code: int) -> web.Response:
    return web.Response(text=line.rstrip("\n") + "\n", status=code, headers={"Cache-Control": "no-store"})


def _json(document: dict[str, Any], code: int, content_type: str) -> web.Response:
    return web.Response(
        body=json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        status=code,
        headers={"Content-Type": content_type, "Cache-Control": "no-store"},
    )
