"""The commands that a daemon takes: maintenance, begun and ended. On a Unix socket of its own, never over TCP.

An application apart from that of `web.py`, so that no path there can change anything, whatever listens where. Who may
write to the socket's file may give commands; nothing else is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from sentinel.maintenance import Reason, While
from sentinel.publish.picture import engine_line, maintenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentinel.board import Snapshot

_MAX_BODY = 4 << 10  # bytes: a duration and a reason


def commands(picture: Callable[[], Snapshot], order: Callable[[str, While | None, str], None]) -> web.Application:
    """`order` begins an engine's maintenance for that long, or ends it where that is None."""

    async def begin(request: web.Request) -> web.Response:
        try:
            lasts, reason = _read(await request.json())
        except ValueError as exc:
            return web.Response(text=f"{exc}\n", status=400)
        return ordered(request, lasts, reason)

    async def end(request: web.Request) -> web.Response:
        return ordered(request, None, "")

    def ordered(request: web.Request, lasts: While | None, reason: str) -> web.Response:
        name = request.match_info["engine"]
        known = [spec.name for spec, _ in picture().engines]
        if name not in known:
            return web.Response(text=f"no engine {name!r}, want one of {', '.join(known)}\n", status=404)
        order(name, lasts, reason)
        now = picture()
        ((spec, record),) = (pair for pair in now.engines if pair[0].name == name)
        answer = {"engine": name, "state": record.state, "sentence": engine_line(spec, record, None)}
        return web.json_response({**answer, "maintenance": maintenance(now, record)})

    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post("/api/v1/maintenance/{engine}", begin)
    app.router.add_delete("/api/v1/maintenance/{engine}", end)
    return app


def _read(body: Any) -> tuple[While, Reason]:
    """Raises ValueError with one sentence."""
    if not isinstance(body, dict) or not all(isinstance(body.get(key, ""), str) for key in ("for", "reason")):
        raise ValueError('want an object such as {"for": "10m", "reason": "deploy"}')
    if unknown := body.keys() - {"for", "reason"}:
        raise ValueError(f"unknown key {min(unknown)!r}")
    return While.parse(body.get("for", "")), Reason.parse(body.get("reason", ""))
