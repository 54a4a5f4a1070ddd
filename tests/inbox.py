"""An HTTP server that keeps what it is sent, for the tests: a receiver of notifications, or an engine's health."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import Any, Self


class Inbox:
    """`with Inbox() as inbox:` answers every request with `status`, which may be set, and keeps it in `requests`."""

    def __init__(self) -> None:
        self.status = 200
        self.requests: list[tuple[str, str, str]] = []  # method, path, body
        self.arrived: list[tuple[float, str]] = []  # of each of them when, in seconds since 1970, and its Authorization

    def __enter__(self) -> Self:
        inbox = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                inbox.arrived.append((time.time(), self.headers.get("Authorization", "")))
                inbox.requests.append((self.command, self.path, body))
                self.send_response(inbox.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET  # noqa: N815  # http.server's name

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.where = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.where}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def bodies(self) -> list[Any]:
        """The JSON documents that came."""
        return [json.loads(body) for _, _, body in self.requests if body]
