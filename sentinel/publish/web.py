"""The daemon's HTTP side: health, liveness, metrics, status and events, each read from the snapshot.

It must never wait for a probe or hold a lock: who asks for health gets what is known now.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from sentinel.board import serving
from sentinel.publish import picture as shapes
from sentinel.publish.metrics import exposition
from sentinel.publish.static import Files

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.board import EngineRecord, Snapshot
    from sentinel.history import History
    from sentinel.model import EngineSpec
    from sentinel.publish.events import Events


def application(picture: Callable[[], Snapshot], events: Events, history: History) -> web.Application:
    """The routes of the contract. `picture` gives the snapshot of now."""
    metrics = exposition(picture)
    files = Files()

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
        wanted = tuple(request.query.getall("metric", ()))
        return _packed(_json(shapes.past(now, spec, history, metrics=wanted), 200, "application/json"))

    async def explain(request: web.Request) -> web.Response:
        now = picture()
        ((spec, record),) = _asked_for(request, now)
        return _json(shapes.explained(now, spec, record), 200, "application/json")

    async def changes(request: web.Request) -> web.Response:
        told = events.past(request.query.get("engine"))
        return _packed(_json({"changes": told}, 200, "application/json"))

    async def page(request: web.Request) -> web.Response:
        if "text/html" in request.headers.get("Accept", ""):
            return files.answer(request, "index.html")
        answer = _text(shapes.page(picture()), 200)
        answer.headers["Vary"] = "Accept"
        return answer

    async def page_file(request: web.Request) -> web.Response:
        return files.answer(request, request.match_info["name"])

    app = web.Application(middlewares=[_plain_errors])
    app.router.add_get("/health", health)
    app.router.add_get("/health/{engine}", health)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_page)
    app.router.add_get("/api/v1/status", status)
    app.router.add_get("/api/v1/history/{engine}", past)
    app.router.add_get("/api/v1/explain/{engine}", explain)
    app.router.add_get("/api/v1/changes", changes)
    app.router.add_get("/api/v1/events", events.stream, allow_head=False)
    app.router.add_get("/", page)
    app.router.add_get("/page/{name}", page_file)
    app.on_response_prepare.append(_as_it_says)
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


async def _as_it_says(_request: web.Request, response: web.StreamResponse) -> None:
    """No browser is to take an answer for anything but what its Content-Type says."""
    response.headers["X-Content-Type-Options"] = "nosniff"


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


def _packed(answer: web.Response) -> web.Response:
    """Compressed for who takes it: a list of readings or changes is ten times smaller then."""
    answer.enable_compression()
    return answer


def _json(document: dict[str, Any], code: int, content_type: str) -> web.Response:
    return web.Response(
        body=json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n",
        status=code,
        headers={"Content-Type": content_type, "Cache-Control": "no-store"},
    )
