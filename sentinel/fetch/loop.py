"""The ring of I/O for the daemon: answers on the event loop, each within one time budget for the whole exchange.

aiohttp and not httpx: a third of the CPU for the same request, docs/decisions/0002. One client for life.
It must never raise for what an engine does: that is an answer with a failure in it. Only cancellation passes through.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from yarl import URL

from sentinel.address import parse_url
from sentinel.counters import Counting
from sentinel.exposition import Sieve
from sentinel.fetch import (
    HEAD_LIMIT,
    FetchError,
    body_too_large,
    cut,
    from_os_error,
    head_too_large,
    not_http,
    request_headers,
    tls_failed,
    too_slow,
    unresolved,
)
from sentinel.fetch.kills import OomKills
from sentinel.fetch.local import Local
from sentinel.model import Answer, Get, Response

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import SimpleNamespace, TracebackType

    from sentinel.model import Ask, Process

_CHUNK = 64 << 10
_PULSE_S = 0.2  # a stop of 0.3 s, long enough to lose every order meanwhile, is always seen; each waking costs


class Fetcher:
    """`async with Fetcher() as fetch:` and then `await fetch(ask, budget_s)`. `status`: as of Local."""

    def __init__(self, status: Callable[[Process], int | None] | None = None) -> None:
        self._local = Local(OomKills(), Counting, status)
        self._flying: dict[Ask, asyncio.Task[Answer]] = {}

    async def __aenter__(self) -> Self:
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(_connected)
        trace.on_connection_reuseconn.append(_connected)
        settings: dict[str, Any] = {
            "cookie_jar": aiohttp.DummyCookieJar(),
            "timeout": aiohttp.ClientTimeout(total=None),  # ours covers the whole exchange
            "trace_configs": [trace],
            "max_line_size": HEAD_LIMIT,
            "max_field_size": HEAD_LIMIT,
            "read_bufsize": _CHUNK,
            "trust_env": False,  # a proxy would answer for the engine
            "auto_decompress": True,
        }
        # limit=0: a hung engine must not keep another one's probe waiting for a free connection
        fresh = aiohttp.TCPConnector(limit=0, resolver=_Resolver(), force_close=True)
        kept = aiohttp.TCPConnector(limit=0, resolver=_Resolver())
        self._fresh = aiohttp.ClientSession(connector=fresh, **settings)
        self._kept = aiohttp.ClientSession(connector=kept, **settings)
        self._pulse()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._beat.cancel()
        self._local.close()
        for task in self._flying.values():
            task.cancel()
        await self._fresh.close()
        await self._kept.close()

    def _pulse(self) -> None:
        self._local.pulse()
        self._beat = asyncio.get_running_loop().call_later(_PULSE_S, self._pulse)

    async def __call__(self, ask: Ask, budget_s: float) -> Answer:
        """The answer. Who asks for what is already under way gets the same answer."""
        if not isinstance(ask, Get):
            return self._local.look(ask)
        task = self._flying.get(ask)
        if task is None:
            task = asyncio.create_task(self._get(ask, budget_s))
            self._flying[ask] = task
            task.add_done_callback(lambda _: self._flying.pop(ask, None))
        return await asyncio.shield(task)

    async def _get(self, get: Get, budget_s: float) -> Answer:
        progress = _Progress()
        try:
            async with asyncio.timeout(budget_s):
                response = await self._exchange(get, progress)
        except FetchError as exc:
            return progress.answer(failure=exc.of(get))
        except TimeoutError:
            return progress.answer(failure=too_slow(progress.phase, budget_s).of(get))
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return progress.answer(failure=_translated(exc, get).of(get))
        return progress.answer(value=response)

    async def _exchange(self, get: Get, progress: _Progress) -> Response:
        session = self._fresh if get.fresh else self._kept
        address = parse_url(get.url)
        async with session.get(
            URL(_without_userinfo(get.url), encoded=True),
            headers=request_headers(get, address),
            allow_redirects=False,
            trace_request_ctx=progress,
        ) as response:
            progress.phase, progress.first_byte_s = "answering", progress.passed_s()
            body = await _read(response, get)
            return Response(
                response.status,
                response.headers.get("Content-Type", ""),
                response.headers.get("Location", ""),
                body,
                progress.connect_s,
                progress.first_byte_s,
                progress.passed_s(),
            )


class _Resolver(aiohttp.ThreadedResolver):
    """`localhost` is loopback, both of them (RFC 6761 §6.3), without a thread for every fresh connection."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        if host.lower() != "localhost":
            return await super().resolve(host, port, family)
        return [
            {"hostname": host, "host": at, "port": port, "family": kind, "proto": 0, "flags": socket.AI_NUMERICHOST}
            for at, kind in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6))
            if family in (kind, socket.AF_UNSPEC)
        ]


class _Progress:
    """How far one exchange came."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.phase = "connecting"
        self.connect_s = self.first_byte_s = 0.0

    def passed_s(self) -> float:
        return time.monotonic() - self.began

    def answer(self, **what: Any) -> Answer:
        return Answer(self.began + self.passed_s(), self.passed_s(), **what)


async def _connected(_session: object, context: SimpleNamespace, _params: object) -> None:
    progress: _Progress = context.trace_request_ctx
    progress.phase, progress.connect_s = "connected", progress.passed_s()


async def _read(response: aiohttp.ClientResponse, get: Get) -> bytes:
    """The body to its end; of a page with wanted families, only their lines. At most max_bytes, decompressed."""
    if (response.content_length or 0) > get.max_bytes:
        raise body_too_large(get.max_bytes)
    wanted = get.families if 200 <= response.status < 300 else ()
    sieve = Sieve(wanted, response.headers.get("Content-Type", "")) if wanted else None
    whole = bytearray()
    read = 0
    async for part in response.content.iter_any():
        read += len(part)
        if read > get.max_bytes:
            raise body_too_large(get.max_bytes)
        if sieve is None:
            whole += part
        else:
            sieve.feed(part)
    return bytes(whole) if sieve is None else sieve.close()


def _without_userinfo(url: str) -> str:
    """The credentials go into a header by themselves; aiohttp refuses to be given them twice."""
    scheme, _, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{tail}"


def _translated(exc: Exception, get: Get) -> FetchError:  # noqa: PLR0911  # one line a fault
    """aiohttp's exceptions in our words, most specific first."""
    if isinstance(exc, aiohttp.ClientConnectorDNSError):
        return unresolved(parse_url(get.url).host, exc.os_error.strerror or str(exc.os_error))
    if isinstance(exc, (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError, ssl.SSLError)):
        inner = getattr(exc, "certificate_error", exc)
        return tls_failed(getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or str(inner))
    if isinstance(exc, aiohttp.ClientConnectorError):
        return from_os_error(exc.os_error)
    if isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)):
        return cut()
    if isinstance(exc, aiohttp.ClientResponseError):
        if "more than" in exc.message:
            return head_too_large()
        return not_http(exc.message.strip().splitlines()[0].rstrip(":") if exc.message.strip() else type(exc).__name__)
    if isinstance(exc, OSError):
        return from_os_error(exc)
    return not_http(str(exc) or type(exc).__name__)
