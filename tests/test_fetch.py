"""One contract over both implementations of the fetch port, against real servers that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import http.client
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.fetch.blocking import fetch as fetch_blocking
from sentinel.fetch.loop import Fetcher
from sentinel.model import Answer, Get
from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Fetch = Callable[..., Answer]


def _blocking(get: Get, budget_s: float = 2.0) -> Answer:
    return fetch_blocking([get], budget_s)[get]


def _loop(get: Get, budget_s: float = 2.0) -> Answer:
    async def run() -> Answer:
        async with Fetcher() as fetch:
            return await fetch(get, budget_s)

    return asyncio.run(run())


@pytest.fixture(params=[_blocking, _loop], ids=["blocking", "loop"])
def fetch(request: pytest.FixtureRequest) -> Fetch:
    return request.param


def get(url: str, **given: object) -> Get:
    return Get(url, **{"max_bytes": 1 << 20, **given})


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n"

GOOD = [
    pytest.param(servers.answers(b"hello!"), 200, b"hello!", id="a body with its length"),
    pytest.param(servers.says(CHUNKED), 200, b"hello!", id="a body in chunks, with an extension and a trailer"),
    pytest.param(servers.says(b"HTTP/1.0 200 OK\r\n\r\nhello!"), 200, b"hello!", id="a body to the end of the stream"),
    pytest.param(servers.says(b"HTTP/1.1 204 No Content\r\n\r\n"), 204, b"", id="no body"),
    pytest.param(
        servers.says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"),
        200,
        b"x",
        id="an early answer before the real one",
    ),
    pytest.param(servers.answers(b"sick", "503 Service Unavailable"), 503, b"sick", id="an answer that is not 2xx"),
]


@pytest.mark.parametrize(("behave", "status", "body"), GOOD)
def test_a_good_answer(fetch: Fetch, behave: Callable[..., None], status: int, body: bytes) -> None:
    with servers.serving(behave) as url:
        answer = fetch(get(f"{url}/health?x=%20"))
    assert answer.failure is None
    response = answer.value
    assert (response.status, response.body) == (status, body)
    assert 0 < response.connect_s <= response.first_byte_s <= response.total_s <= answer.took_s


BAD = [
    pytest.param(servers.resetting, "answer_cut", "connection reset by the server", id="a reset"),
    pytest.param(servers.says(b""), "answer_cut", "the connection closed before the answer was complete", id="a close"),
    pytest.param(
        servers.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        "answer_cut",
        "the connection closed before the answer was complete",
        id="a body cut in the middle",
    ),
    pytest.param(
        servers.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal"),
        "answer_cut",
        "the connection closed before the answer was complete",
        id="a chunk cut in the middle",
    ),
    pytest.param(servers.silent, "timeout", "connected but no answer within 300 ms", id="accepts and says nothing"),
    pytest.param(servers.dripping, "timeout", "answer not complete within 300 ms", id="a body that drips for ever"),
    pytest.param(
        servers.endless,
        "body_too_large",
        "the body is larger than 1 MiB, the limit (max_body)",
        id="a body without end",
    ),
    pytest.param(
        servers.large(100_000_000), "body_too_large", "the body is larger than 1 MiB, the limit (max_body)", id="100 MB"
    ),
    pytest.param(
        servers.says(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n"),
        "header_too_large",
        "the headers are larger than 64 KiB, the limit",
        id="a header of 1 MB",
    ),
]


@pytest.mark.parametrize(("behave", "reason", "detail"), BAD)
def test_a_bad_answer_gets_one_sentence(fetch: Fetch, behave: Callable[..., None], reason: str, detail: str) -> None:
    began = time.monotonic()
    with servers.serving(behave) as url:
        answer = fetch(get(url + "/x"), 0.3)
    assert answer.failure is not None
    assert (answer.failure.reason, answer.failure.sentence) == (reason, f"GET {url}/x: {detail}")
    assert answer.value is None
    assert time.monotonic() - began < 2


def test_a_hundred_small_headers_are_no_fault_and_ten_thousand_are(fetch: Fetch) -> None:
    def with_headers(count: int) -> Callable[..., None]:
        lines = b"".join(b"X-%d: y\r\n" % number for number in range(count))
        return servers.says(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n")

    with servers.serving(with_headers(100)) as url:
        assert fetch(get(url)).failure is None
    with servers.serving(with_headers(10_000)) as url:
        assert fetch(get(url)).failure.reason in ("header_too_large", "not_http")


@pytest.mark.parametrize("junk", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00\xff\xfe\r\n\r\n" * 9])
def test_what_is_not_http_is_said_to_be_none(fetch: Fetch, junk: bytes) -> None:
    with servers.serving(servers.says(junk)) as url:
        answer = fetch(get(url))
    assert answer.failure.reason == "not_http"
    assert answer.failure.sentence.startswith(f"GET {url}: the answer is not HTTP (")
    assert "\n" not in answer.failure.sentence


def test_nobody_listens(fetch: Fetch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://localhost:{taken.getsockname()[1]}/health"
        answer = fetch(get(url))
    assert answer.failure.reason == "connect_refused"
    assert answer.failure.sentence == f"GET {url}: connection refused, nothing listens there"


def test_a_full_accept_queue_is_no_connection(fetch: Fetch) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(full.getsockname())
            waiting.append(client)
        time.sleep(0.05)  # the handshakes are the kernel's; nothing tells when they are done
        answer = fetch(get(f"http://127.0.0.1:{full.getsockname()[1]}/"), 0.3)
        for client in waiting:
            client.close()
    assert answer.failure.reason == "timeout"
    assert answer.failure.sentence.endswith(": no connection within 300 ms")


def test_a_redirect_is_the_answer_and_is_not_followed(fetch: Fetch) -> None:
    asked = []

    def redirect(connection: socket.socket, head: bytes) -> None:
        asked.append(head)
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /loop\r\nContent-Length: 0\r\n\r\n")

    with servers.serving(redirect) as url:
        answer = fetch(get(url + "/loop"))
    assert (answer.value.status, answer.value.location, len(asked)) == (302, "/loop", 1)


def test_localhost_is_found_on_ipv6_too(fetch: Fetch) -> None:
    with servers.serving(servers.answers(b""), socket.AF_INET6) as url:
        port = url.rpartition(":")[2]
        assert fetch(get(f"http://localhost:{port}/")).value.status == 200
        assert fetch(get(f"{url}/")).value.status == 200


def test_a_name_that_nobody_knows(fetch: Fetch) -> None:
    answer = fetch(get("http://no-such-host.invalid/"), 5.0)
    assert answer.failure.reason in ("dns_failed", "timeout")
    assert "'no-such-host.invalid'" in answer.failure.sentence or answer.failure.reason == "timeout"


def test_the_request_is_what_was_asked_for(fetch: Fetch) -> None:
    heads = []

    def record(connection: socket.socket, head: bytes) -> None:
        heads.append(head.decode())
        servers.answers(b"")(connection, head)

    with servers.serving(record) as url:
        at = url.removeprefix("http://")
        fetch(get(f"http://me:p%40ss@{at}/a%20b/?q=%7B#f", headers=(("X-Token", "t"),), accept="text/plain"))
        fetch(get(f"http://{at}?q"))
    first, *lines = heads[0].split("\r\n")
    assert first == "GET /a%20b/?q=%7B HTTP/1.1"
    fields = {line.partition(": ")[0].lower(): line.partition(": ")[2] for line in lines if line}
    assert fields["host"] == at
    assert fields["authorization"] == "Basic bWU6cEBzcw=="  # me:p@ss
    assert (fields["x-token"], fields["accept"]) == ("t", "text/plain")
    assert heads[1].startswith("GET /?q HTTP/1.1\r\n")


def test_only_the_wanted_families_are_kept(fetch: Fetch) -> None:
    page = b"# TYPE a gauge\na 1\n" + b"other 2\n" * 50_000 + b'a{x="1"} 3\nab 4\n'
    with servers.serving(servers.answers(page)) as url:
        body = fetch(get(url, families=("a",))).value.body
    assert (b"a 1\n" in body, b'a{x="1"} 3\n' in body, b"other" in body) == (True, True, False)


def test_many_at_once_take_as_long_as_the_slowest() -> None:
    with servers.serving(servers.silent) as hung, servers.serving(servers.answers(b"ok")) as good:
        asks = [get(f"{hung}/{n}") for n in range(3)] + [get(good)]
        began = time.monotonic()
        answers = fetch_blocking(asks, 0.4)
        took_s = time.monotonic() - began
    assert [answers[ask].failure is None for ask in asks] == [False, False, False, True]
    assert took_s < 1.0


async def test_who_asks_for_what_is_under_way_gets_the_same_answer() -> None:
    asked = []

    def record(connection: socket.socket, head: bytes) -> None:
        asked.append(head)
        servers.answers(b"x")(connection, head)

    with servers.serving(record) as url:
        async with Fetcher() as fetch:
            ask = get(url)
            answers = await asyncio.gather(*(fetch(ask, 2.0) for _ in range(3)))
    assert len(asked) == 1
    assert answers[0] is answers[1] is answers[2]


async def test_a_compressed_page_is_bounded_by_what_it_becomes() -> None:
    page = gzip.compress(b"a 1\n" + b"b 2\n" * 1_000_000)
    behave = servers.answers(page, headers="Content-Encoding: gzip\r\n")
    with servers.serving(behave) as url:
        async with Fetcher() as fetch:
            assert (await fetch(get(url, max_bytes=1 << 20), 5.0)).failure.reason == "body_too_large"
            whole = await fetch(get(url, max_bytes=16 << 20, families=("a",)), 5.0)
    assert whole.value.body == b"a 1\n"


async def test_a_kept_connection_is_used_again_and_a_fresh_one_is_not() -> None:
    connections = []

    def keep(connection: socket.socket, head: bytes) -> None:
        connections.append(connection)
        while head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            head = connection.recv(65536)

    with servers.serving(keep) as url:
        async with Fetcher() as fetch:
            for _ in range(3):
                await fetch(get(url, fresh=False), 2.0)
            assert len(connections) == 1
            for _ in range(3):
                await fetch(get(url), 2.0)
            assert len(connections) == 4


@contextmanager
def tls_server(folder: Path) -> Iterator[str]:
    """An https server with a certificate that nobody signed but itself."""
    words = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost"
    subprocess.run(words.split(), cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
                with context.wrap_socket(plain, server_side=True) as connection:
                    servers.answers(b"")(connection, connection.recv(65536))
            except ssl.SSLError:
                continue
            except OSError:
                return

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def test_a_certificate_that_nobody_vouches_for_is_refused(fetch: Fetch, tmp_path: Path) -> None:
    with tls_server(tmp_path) as url:
        answer = fetch(get(url))
    assert answer.failure.reason == "tls_failed"
    assert "self-signed" in answer.failure.sentence


def test_a_trusted_certificate_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tls_server(tmp_path) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert _blocking(get(url)).value.status == http.client.OK


PIECES = [
    b"HTTP/1.1 ",
    b"200 OK",
    b"\r\n",
    b"\r\n\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked",
    b"3",
    b"-1",
    b"x",
]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12).map(b"".join))
def test_whatever_a_server_says_is_an_answer_or_a_reason(data: bytes) -> None:
    """Both implementations, on the same bytes: neither raises, hangs, or takes for whole what was cut."""
    with servers.serving(servers.says(data)) as url:
        for fetch in (_blocking, _loop):
            answer = fetch(get(url), 1.0)
            assert (answer.value is None) == (answer.failure is not None)
            if answer.failure is not None:
                assert answer.failure.sentence.startswith(f"GET {url}: ")
                assert "\n" not in answer.failure.sentence
