"""The files of the status page as they are sent: compressed where the browser takes it, and asked for again by ETag.

Read once, at the start, from the folder beside this file. They must never lead a browser anywhere else: the policy
sent with them forbids every other origin, inline code and the parsing of text as HTML.
"""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from aiohttp import web

_FOLDER = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Content Security Policy Level 3. Trusted Types: assigning text to innerHTML throws, so nothing that an engine says
# can become markup. uPlot sets styles through the CSSOM, which `style-src` allows.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept, Accept-Encoding",
    "Cache-Control": "no-cache",  # kept, but asked for again: after an update no old script meets a new daemon
}


class Files:
    """Every file of the page, in memory."""

    def __init__(self) -> None:
        self._files = {path.name: _File(path) for path in _FOLDER.iterdir() if path.suffix in _TYPES}

    def answer(self, request: web.Request, name: str) -> web.Response:
        """The file of this name. Raises HTTPNotFound."""
        if name not in self._files:
            raise web.HTTPNotFound
        return self._files[name].answer(request)


class _File:
    def __init__(self, path: Path) -> None:
        body = path.read_bytes()
        self._bodies = {"": body, "gzip": gzip.compress(body, mtime=0)}
        self._tag = hashlib.sha256(body).hexdigest()[:16]
        self._type = _TYPES[path.suffix]

    def answer(self, request: web.Request) -> web.Response:
        coding = "gzip" if "gzip" in request.headers.get("Accept-Encoding", "") else ""
        tag = f'"{self._tag}{coding}"'  # RFC 9110 §8.8.3.3: another coding is another representation
        headers = {**_HEADERS, "ETag": tag}
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = self._type
        if coding:
            headers["Content-Encoding"] = coding
        return web.Response(body=self._bodies[coding], headers=headers)
