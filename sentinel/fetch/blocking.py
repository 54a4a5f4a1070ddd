"""The ring of I/O for the one-shot check: several GETs at once over raw sockets, within one time budget.

Standard library only and little of it: `_socket` and `select` cost 0.5 ms to import where `socket` costs 8 and
`http.client` 27. It must never wait past its deadline, not for a name server either, and never read without a bound.
HTTP/1.1 by RFC 9112, one request on a connection.
"""

from __future__ import annotations

import _socket
import posix
import select
import time

from sentinel.address import parse_unix, parse_url
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
from sentinel.fetch.local import Local
from sentinel.model import TYPE_CHECKING, Answer, Get, Response

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from typing import Any

    from sentinel.address import Address
    from sentinel.model import Ask

    Steps = Generator["tuple[Any, int]", None, Any]  # yields (socket, poll events) that it must wait for

_CHUNK = 64 << 10
_EINPROGRESS = 115  # errno(3); `errno` is one import more


def fetch(asks: Iterable[Ask], budget_s: float) -> dict[Ask, Answer]:
    """An answer to every ask, at the latest `budget_s` seconds from now. Each distinct ask is asked once."""
    began = time.monotonic()
    answers: dict[Ask, Answer] = {}
    exchanges: dict[Ask, _Exchange] = {}
    local = Local()
    for ask in asks:
        if isinstance(ask, Get):
            exchanges[ask] = _Exchange(ask, began, budget_s)
        elif ask not in answers:
            answers[ask] = local.look(ask)
    return answers | _race(list(exchanges.values()), began + budget_s)


def _race(exchanges: list[_Exchange], deadline: float) -> dict[Ask, Answer]:
    answers: dict[Ask, Answer] = {}
    poll = select.poll()
    waiting: dict[int, _Exchange] = {}
    ready = exchanges
    while True:
        for one in ready:
            answer = one.go_on()
            if answer is not None:
                answers[one.get] = answer
                continue
            waiting[one.fileno] = one
            poll.register(one.fileno, one.events)
        left_s = deadline - time.monotonic()
        if not waiting or left_s <= 0:
            break
        ready = []
        for fileno, _ in poll.poll(left_s * 1000):
            poll.unregister(fileno)
            ready.append(waiting.pop(fileno))
    for one in waiting.values():
        answers[one.get] = one.give_up()
    return answers


class _Exchange:
    """One GET on its way. `phase` says how far it came, for the sentence when time runs out."""

    def __init__(self, get: Get, began: float, budget_s: float) -> None:
        self.get = get
        self.began = began
        self.budget_s = budget_s
        self.phase = "connecting"
        self.connect_s = self.first_byte_s = 0.0
        self.fileno = -1
        self.events = 0
        self._sock: Any = None
        self._buffer = bytearray()
        self._steps = self._run()

    def go_on(self) -> Answer | None:
        """Works until it must wait (None) or is done."""
        try:
            sock, self.events = next(self._steps)
            self.fileno = sock.fileno()
        except StopIteration as done:
            return self._answer(value=done.value)
        except FetchError as exc:
            return self._answer(failure=exc.of(self.get))
        except OSError as exc:
            return self._answer(failure=from_os_error(exc).of(self.get))
        return None

    def give_up(self) -> Answer:
        return self._answer(failure=too_slow(self.phase, self.budget_s).of(self.get))

    def _answer(self, **what: Any) -> Answer:
        if self._sock is not None:
            self._sock.close()
        now = time.monotonic()
        return Answer(now, now - self.began, **what)

    def _run(self) -> Steps:
        url = self.get.url
        address = parse_unix(url) if url.startswith("unix:") else parse_url(url)
        yield from self._connect(address)
        head = [f"GET {address.target} HTTP/1.1", f"Host: {address.authority}", "Connection: close"]
        head += [f"{name}: {value}" for name, value in request_headers(self.get, address)]
        yield from self._write("\r\n".join([*head, "", ""]).encode("latin-1"))
        status, headers = yield from self._read_head()
        body = yield from self._read_body(status, headers)
        return Response(
            status,
            headers.get("content-type", ""),
            headers.get("location", ""),
            body,
            self.connect_s,
            self.first_byte_s,
            time.monotonic() - self.began,
        )

    def _connect(self, address: Address) -> Steps:
        code = 111  # ECONNREFUSED, if there is no place at all
        for family, where in _places(address, self.began, self.budget_s):
            sock: Any = _socket.socket(family, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
            self._sock = sock
            sock.setblocking(False)
            code = sock.connect_ex(where)
            if code == _EINPROGRESS:
                yield sock, select.POLLOUT
                code = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
            if code == 0:
                break
            sock.close()
        if code:
            raise OSError(code, posix.strerror(code))
        if address.tls:
            yield from self._encrypt(address)
        self.phase = "connected"
        self.connect_s = time.monotonic() - self.began

    def _encrypt(self, address: Address) -> Steps:
        import socket  # `ssl` wants the full one; only https pays for both
        import ssl

        plain = socket.socket(fileno=self._sock.detach())
        context = ssl.create_default_context()
        self._sock = context.wrap_socket(plain, do_handshake_on_connect=False, server_hostname=address.host)
        try:
            yield from self._when_ready(self._sock.do_handshake, select.POLLIN)
        except ssl.SSLError as exc:
            raise tls_failed(getattr(exc, "verify_message", "") or exc.reason or str(exc)) from exc

    def _when_ready(self, verb: Callable[..., Any], events: int, *args: Any) -> Steps:
        """What `verb` gives once the socket is ready for it."""
        while True:
            try:
                return verb(*args)
            except OSError as exc:
                blocked = {
                    "BlockingIOError": events,
                    "SSLWantReadError": select.POLLIN,
                    "SSLWantWriteError": select.POLLOUT,
                }
                if type(exc).__name__ not in blocked:
                    raise
                yield self._sock, blocked[type(exc).__name__]

    def _write(self, request: bytes) -> Steps:
        while request:
            sent = yield from self._when_ready(self._sock.send, select.POLLOUT, request)
            request = request[sent:]

    def _read_more(self) -> Steps:
        """Reads once into the buffer. Raises at the end of the stream, and when the time is over."""
        got = yield from self._when_ready(self._sock.recv, select.POLLIN, _CHUNK)
        if not got:
            raise cut()
        if self.phase == "connected":
            self.phase = "answering"
            self.first_byte_s = time.monotonic() - self.began
        elif time.monotonic() > self.began + self.budget_s:  # a stream that is always ready never comes back to poll
            raise too_slow(self.phase, self.budget_s)
        self._buffer += got

    def _read_to(self, mark: bytes, limit: int = HEAD_LIMIT) -> Steps:
        """What stands before the mark; both leave the buffer."""
        while (end := self._buffer.find(mark)) < 0:
            if len(self._buffer) > limit:
                raise head_too_large()
            yield from self._read_more()
        if end > limit:
            raise head_too_large()
        found = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return found

    def _read_head(self) -> Steps:
        """Status and headers, names in lower case; 1xx answers are passed over (RFC 9110 §15.2)."""
        status = 100
        while status < 200:
            while len(self._buffer) < len(b"HTTP/"):
                yield from self._read_more()
            if not self._buffer.startswith(b"HTTP/"):
                raise not_http(f"it begins with {bytes(self._buffer[:20])!r}")
            head = yield from self._read_to(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            code = lines[0].split(" ", 2)[1:2]
            if not code or len(code[0]) != 3 or not code[0].isdecimal():
                raise not_http(f"its status line is {lines[0][:40]!r}")
            status = int(code[0])
        fields = (line.partition(":") for line in lines[1:])
        return status, {name.lower(): value.strip() for name, _, value in fields}

    def _read_body(self, status: int, headers: dict[str, str]) -> Steps:
        """The body to its end (RFC 9112 §6.3); of a page with wanted families, only their lines."""
        wanted = self.get.families if 200 <= status < 300 else ()
        sieve = Sieve(wanted, headers.get("content-type", "")) if wanted else None
        whole = bytearray()
        room = self.get.max_bytes

        def take(part: bytes) -> None:
            nonlocal room
            room -= len(part)
            if room < 0:
                raise body_too_large(self.get.max_bytes)
            if sieve is None:
                whole.extend(part)
            else:
                sieve.feed(part)

        if status not in (204, 304):
            yield from self._read_parts(headers, take)
        return bytes(whole) if sieve is None else sieve.close()

    def _read_parts(self, headers: dict[str, str], take: Callable[[bytes], None]) -> Steps:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while count := _hex((yield from self._read_to(b"\r\n"))):
                yield from self._read_exactly(count, take)
                yield from self._read_to(b"\r\n", limit=0)
            return
        length = headers.get("content-length", "")
        if length:
            if not length.isdecimal() or not length.isascii():
                raise not_http(f"its Content-Length is {length[:40]!r}")
            if int(length) > self.get.max_bytes:
                raise body_too_large(self.get.max_bytes)
            yield from self._read_exactly(int(length), take)
            return
        try:
            while True:
                yield from self._read_exactly(len(self._buffer), take)
                yield from self._read_more()
        except FetchError as exc:
            if exc.reason != "answer_cut":  # without a length the end of the stream is the end of the body
                raise

    def _read_exactly(self, count: int, take: Callable[[bytes], None]) -> Steps:
        while count:
            if not self._buffer:
                yield from self._read_more()
            part = bytes(self._buffer[:count])
            del self._buffer[:count]
            take(part)
            count -= len(part)


def _hex(line: bytes) -> int:
    """The size of a chunk; what follows a semicolon is an extension (RFC 9112 §7.1.1)."""
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise not_http(f"a chunk's size is {line[:20]!r}") from None


def _places(address: Address, began: float, budget_s: float) -> list[tuple[int, Any]]:
    """Where to connect, in order. A name that only a name server knows is looked up in a thread: it may hang."""
    if address.unix:
        return [(_socket.AF_UNIX, address.unix)]
    v4, v6 = _socket.AF_INET, _socket.AF_INET6
    if address.host.lower() == "localhost":  # always loopback (RFC 6761 §6.3); no look-up, which costs 1 ms
        return [(v4, ("127.0.0.1", address.port)), (v6, ("::1", address.port))]
    for family in (v4, v6):
        try:
            _socket.inet_pton(family, address.host)
        except OSError:
            continue
        return [(family, (address.host, address.port))]
    import _thread

    found: list[Any] = []
    done = _thread.allocate_lock()
    done.acquire()

    def resolve() -> None:
        try:
            found.extend(_socket.getaddrinfo(address.host.encode(), address.port, type=_socket.SOCK_STREAM))
        except OSError as exc:
            found.append(exc.strerror or str(exc))
        done.release()

    _thread.start_new_thread(resolve, ())
    if not done.acquire(timeout=max(0.0, began + budget_s - time.monotonic())):
        raise unresolved(address.host, "no answer from the name server in time")
    if isinstance(found[0], str):
        raise unresolved(address.host, found[0])
    return [(family, where) for family, _, _, _, where in found]
