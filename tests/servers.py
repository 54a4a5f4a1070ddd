"""Real servers on loopback that misbehave, each in one way, for both implementations of the fetch port."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Behaviour = "Callable[[socket.socket, bytes], None]"


@contextlib.contextmanager
def serving(behave: Callable[[socket.socket, bytes], None], family: int = socket.AF_INET) -> Iterator[str]:
    """A server that reads a request's head and then behaves; yields its `http://HOST:PORT`."""
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    listener.listen(16)
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                part = connection.recv(65536)
                if not part:
                    return
                head += part
            behave(connection, head)

    def accept() -> None:
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    host, port = listener.getsockname()[:2]
    try:
        yield f"http://[{host}]:{port}" if family == socket.AF_INET6 else f"http://{host}:{port}"
    finally:
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def says(data: bytes) -> Callable[[socket.socket, bytes], None]:
    """Sends these bytes and closes."""
    return lambda connection, _: connection.sendall(data)


def answers(
    body: bytes, status: str = "200 OK", headers: str = "Content-Type: text/plain\r\n"
) -> Callable[[socket.socket, bytes], None]:
    """A whole and right HTTP answer."""
    return says(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def silent(connection: socket.socket, _: bytes) -> None:
    """Accepts and says nothing, until the other side goes."""
    connection.recv(1)


def endless(connection: socket.socket, _: bytes) -> None:
    """A body that never ends, as fast as it is read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def dripping(connection: socket.socket, _: bytes) -> None:
    """A body that never ends, a byte at a time."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    connection.settimeout(0.02)
    while True:
        connection.sendall(b"x")
        with contextlib.suppress(TimeoutError):
            if not connection.recv(1):
                return


def large(size: int) -> Callable[[socket.socket, bytes], None]:
    """A body of this size, announced."""

    def behave(connection: socket.socket, _: bytes) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        line = b"some_series 1\n" * 4096
        sent = 0
        while sent < size:
            part = line[: size - sent]
            connection.sendall(part)
            sent += len(part)

    return behave


def resetting(connection: socket.socket, _: bytes) -> None:
    """Resets the connection instead of an answer."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
