"""The stand-in engine: a process named `trading-engine` with /health, /metrics and faults to switch on while it runs.

For the demo, the tests and the benchmarks; it must never be watched less honestly than a real engine: its latencies
are observations, its memory is touched pages, its end is a real end. Standard library only, and our units.
Faults: `POST /faults/NAME` on the health port switches one on (`?seconds=5` for a while), DELETE off; GET lists them.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # asyncio does without TLS, and its libraries are 4.6 MB of the 23 that this was
    sys.modules["ssl"] = None  # type: ignore[assignment]  # None stops the import: docs.python.org, sys.modules

import argparse
import asyncio
import errno
import json
import mmap
import os
import random
import resource
import signal
import socket
import tempfile
import time
from bisect import bisect_left
from collections import deque
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from sentinel.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAULTS = {
    "health-500": "GET /health answers 500",
    "health-hang": "GET /health is accepted and never answered",
    "slow": "orders take ten times as long, so p99 does",
    "memory": "memory grows by 16 MiB a second, up to --memory-cap",
    "cold-map": "orders wait for pages of a mapped file that are read from the disk each time",
    "reread": "a mapped file of 128 MiB is read again and again: within a smaller memory limit it never stays",
    "files": "file descriptors are used up, for 15 s if not told how long: meanwhile nothing can be switched",
    "deaf": "the health port accepts nothing and its listen queue is full, for 15 s if not told how long",
    "metric-missing": "latency_p99, the histogram and the summary are not on the page",
    "metric-nan": "latency_p99 and the summary are NaN",
    "metrics-500": "GET /metrics answers 500",
    "metrics-cut": "GET /metrics closes in the middle of its body",
    "metrics-hang": "GET /metrics is accepted and never answered",
    "endless": "GET /metrics has a body without end",
    "freeze": "the whole process stands still for 300 ms, once for each POST",
    "exit": "the process exits with status 1",
    "kill": "the process kills itself with SIGKILL",
}

# Seconds. 1-2.5-5 between 10 µs and 1 s, closer around the budget of 1 ms, where the verdict is made.
BOUNDS = (
    *(0.00001, 0.000025, 0.00005, 0.0001, 0.00015, 0.0002, 0.00025, 0.0003, 0.0004, 0.0005, 0.0006, 0.0008, 0.001),
    *(0.0012, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
)
QUANTILES = (0.5, 0.9, 0.99, 0.999)
VENUES = ("X", "Y")
PADDING = {
    "venue_book_depth_levels": "Price levels in the book.",
    "venue_feed_sequence_gaps": "Sequence numbers that the feed left out.",
    "venue_orders_resting": "Orders that rest in the book.",
    "strategy_position_lots": "Lots held.",
}
_BATCH_S = 0.1
_GROWTH_BYTES = int((16 << 20) * _BATCH_S)  # a batch
_WINDOW_S = 5.0  # the gauge and the summary are of the last orders, so a fault fades from them in seconds
_MEDIAN_S, _SPREAD = 0.0003, 0.3  # log-normal: p99 is about 600 µs
_SLOWER = 10  # times, with the fault
_UNREACHABLE_S = {"files": 15.0, "deaf": 15.0}  # nobody can switch off what keeps everybody out: it ends by itself
_SPARE_FILES = 64  # what the limit is lowered to above those in use, so that they are used up at once
_FILE_BYTES = 128 << 20
_COLD_PAGES, _REREAD_PAGES = 2048, 1024  # a batch
_BACKLOG = 32


class Engine:
    """What the stand-in knows of itself."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.on: set[str] = set()
        self.counts = {venue: [0] * (len(BOUNDS) + 1) for venue in VENUES}
        self.sums = dict.fromkeys(VENUES, 0.0)
        self.total = 0
        self.recent: deque[tuple[float, float]] = deque()  # when, how long
        self.began_unix_s = time.time()
        self.ballast: list[mmap.mmap] = []
        self.listener: Listener | None = None
        self._files: list[int] = []
        self._mapped: asyncio.Future[MappedFile] | None = None
        self._random = random.Random(options.seed)  # noqa: S311  # no secret is made of it
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.padding = _padding(options.series)

    async def trade(self) -> None:
        """Handles orders for ever: simulated ones in batches, or with --work each when it is due."""
        due = batch_due = time.monotonic()
        work_s = self.options.work if self.options.rate else 0.0
        step_s = 1 / self.options.rate if work_s else _BATCH_S
        owed = 0.0
        while True:
            due += step_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if due >= batch_due:
                batch_due += _BATCH_S
                self._batch()
            now = time.monotonic()
            if work_s:
                self._work(due, work_s)
            else:
                owed += self.options.rate * _BATCH_S
                factor = _SLOWER if "slow" in self.on else 1
                for _ in range(int(owed)):
                    self.order(now, self._random.lognormvariate(0, _SPREAD) * _MEDIAN_S * factor)
                owed -= int(owed)
                due = max(due, now)  # simulated orders do not queue
            while self.recent and self.recent[0][0] < now - _WINDOW_S:
                self.recent.popleft()

    def _work(self, due: float, work_s: float) -> None:
        """One order that was due then: it took from then on, whatever kept this process from it."""
        began = time.thread_time()
        while time.thread_time() - began < work_s:
            pass
        if "slow" in self.on:
            time.sleep(_SLOWER * work_s)
        now = time.monotonic()
        self.order(now, now - due)

    def _batch(self) -> None:
        """What happens ten times a second, on the path of the orders."""
        self._grow()
        if "files" in self.on:
            self._use_up_files()  # those that were closed meanwhile too
        if self._mapped is not None and self._mapped.done():
            if "cold-map" in self.on:
                self._mapped.result().touch_cold(_COLD_PAGES)
            if "reread" in self.on:
                self._mapped.result().touch_next(_REREAD_PAGES)

    def order(self, now: float, took_s: float) -> None:
        """One order, on the two venues in turn."""
        venue = VENUES[self.total % len(VENUES)]
        self.counts[venue][bisect_left(BOUNDS, took_s)] += 1
        self.sums[venue] += took_s
        self.total += 1
        self.recent.append((now, took_s))

    def _grow(self) -> None:
        if "memory" not in self.on:
            while self.ballast:
                self.ballast.pop().close()
        elif (len(self.ballast) + 1) * _GROWTH_BYTES <= self.options.memory_cap << 20:
            pages = mmap.mmap(-1, _GROWTH_BYTES)  # not a bytearray: malloc keeps what is freed
            pages[:: mmap.PAGESIZE] = b"x" * len(range(0, _GROWTH_BYTES, mmap.PAGESIZE))  # touched: resident
            self.ballast.append(pages)

    def switch(self, name: str, on: bool, seconds: float | None = None) -> None:
        """Switches a fault; those that end the process or freeze it act at once."""
        if timer := self._timers.pop(name, None):
            timer.cancel()
        if not on:
            self.on.discard(name)
        elif name == "freeze":
            time.sleep(0.3)  # on the loop: nothing is answered meanwhile
        elif name == "exit":
            os._exit(1)
        elif name == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            self.on.add(name)
            seconds = _UNREACHABLE_S.get(name) if seconds is None else seconds
            if seconds is not None:
                self._timers[name] = asyncio.get_running_loop().call_later(seconds, self.switch, name, False)
        self._follow()

    def _follow(self) -> None:
        """Makes so what the faults that hold something say."""
        if "files" in self.on:
            self._use_up_files()
        elif self._files:
            while self._files:
                os.close(self._files.pop())
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if self.listener is not None:
            self.listener.be_deaf("deaf" in self.on)
        if {"cold-map", "reread"} & self.on and self._mapped is None:
            # Not on the loop: to write it takes longer than what is to be shown.
            self._mapped = asyncio.get_running_loop().run_in_executor(None, MappedFile, _FILE_BYTES)

    def _use_up_files(self) -> None:
        if not self._files:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            most = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + _SPARE_FILES
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, hard), hard))
        with suppress(OSError):  # EMFILE is the end of it
            while True:
                self._files.append(os.open("/dev/null", os.O_RDONLY))

    def page(self, openmetrics: bool) -> tuple[bytes, ...]:
        """The metrics page in parts, in Prometheus text 0.0.4 or OpenMetrics 1.0."""
        recent = sorted(took_s for _, took_s in self.recent)
        at = {q: recent[min(len(recent) - 1, int(q * len(recent)))] if recent else float("nan") for q in QUANTILES}
        if "metric-nan" in self.on:
            at = dict.fromkeys(at, float("nan"))
        total = "" if openmetrics else "_total"
        rows = [f"# HELP orders{total} Orders handled.", f"# TYPE orders{total} counter", f"orders_total {self.total}"]
        if "metric-missing" not in self.on:
            rows += ["# HELP latency_p99 The p99 latency of the last orders, latency_p99 in microseconds."]
            rows += ["# TYPE latency_p99 gauge", f"latency_p99 {_number(at[0.99] * 1e6)}", *self._histogram()]
            rows += ["# HELP order_latency_summary_seconds Latency of an order, the last ones."]
            rows += ["# TYPE order_latency_summary_seconds summary"]
            rows += [f'order_latency_summary_seconds{{quantile="{q}"}} {_number(value)}' for q, value in at.items()]
            rows += [f"order_latency_summary_seconds_sum {sum(self.sums.values()):.9f}"]
            rows += [f"order_latency_summary_seconds_count {self.total}"]
        rows += ["# HELP process_resident_memory_bytes Resident memory in bytes."]
        rows += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {_resident_bytes()}"]
        rows += ["# HELP process_start_time_seconds When the process began, in seconds since 1970."]
        rows += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {self.began_unix_s:.3f}", ""]
        return "\n".join(rows).encode(), self.padding, b"# EOF\n" if openmetrics else b""

    def _histogram(self) -> list[str]:
        rows = ["# HELP order_latency_seconds Latency of an order.", "# TYPE order_latency_seconds histogram"]
        for venue, counts in self.counts.items():
            below = 0
            for bound, count in zip((*BOUNDS, float("inf")), counts, strict=True):
                below += count
                le = "+Inf" if bound == float("inf") else f"{bound:.6f}".rstrip("0").rstrip(".")
                le = "1.0" if le == "1" else le
                rows.append(f'order_latency_seconds_bucket{{venue="{venue}",le="{le}"}} {below}')
            rows.append(f'order_latency_seconds_sum{{venue="{venue}"}} {self.sums[venue]:.9f}')
            rows.append(f'order_latency_seconds_count{{venue="{venue}"}} {below}')
        return rows


class MappedFile:
    """A file of real blocks on the disk that nobody else sees, read through a mapping a page at a time."""

    def __init__(self, size_bytes: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # kept for as long as the process lives
        block = os.urandom(1 << 20)
        for _ in range(size_bytes >> 20):
            self._file.write(block)
        self._file.flush()
        os.fsync(self._file.fileno())  # pages that are not written yet cannot be dropped
        self._pages = size_bytes // mmap.PAGESIZE
        self._next = 0
        self._map: mmap.mmap | None = None
        self._drop()

    def touch_cold(self, pages: int) -> None:
        """Reads this many pages from the disk, wherever they lie."""
        self._drop()
        self._touch([random.randrange(self._pages) for _ in range(pages)])  # noqa: S311  # no secret is made of it

    def touch_next(self, pages: int) -> None:
        """Reads the next so many pages; from the disk those that did not stay since the round before."""
        self._touch([(self._next + nth) % self._pages for nth in range(pages)])
        self._next = (self._next + pages) % self._pages

    def _touch(self, pages: Sequence[int]) -> None:
        if self._map is None:
            self._map = mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ)
            self._map.madvise(mmap.MADV_RANDOM)  # else the kernel reads ahead
        for page in pages:
            self._map[page * mmap.PAGESIZE]

    def _drop(self) -> None:
        if self._map is not None:
            self._map.close()  # mapped pages are not dropped
            self._map = None
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _padding(series: int) -> bytes:
    """This many further series of several families, made once so that serving them costs a copy."""
    page = bytearray()
    for nth, (name, told) in enumerate(PADDING.items()):
        page += f"# HELP {name} {told}\n# TYPE {name} gauge\n".encode() if nth < series else b""
        for number in range(len(range(nth, series, len(PADDING)))):
            labels = f'venue="V{number % 7}",symbol="S{number // 2:05d}",side="{("sell", "buy")[number % 2]}"'
            page += f"{name}{{{labels}}} {number % 50}\n".encode()
    return bytes(page)


def _number(value: float) -> str:
    return "NaN" if value != value else f"{value:.9g}"  # noqa: PLR0124


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- HTTP -----------------------------------------------------------------------------------------------------------


_MOST_BYTES = 65536  # of a request's head, and of its body
_CLOSE = "Connection: close\r\n"


class _Request(NamedTuple):
    """A request, its body already skipped."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    close: bool

    @classmethod
    def take(cls, buffer: bytes) -> tuple[_Request | None, bytes]:
        """The first request, None if it is not whole yet, and what is left. ValueError says what is wrong with it."""
        head, found, rest = buffer.partition(b"\r\n\r\n")
        if len(head) > _MOST_BYTES:
            raise ValueError(f"a head of more than {_MOST_BYTES} bytes")
        if not found:
            return None, buffer
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or words[2] not in ("HTTP/1.0", "HTTP/1.1") or not words[1].startswith("/"):
            raise ValueError("want a request line such as GET /health HTTP/1.1")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal() or len(length) > 5 or int(length) > _MOST_BYTES:
            raise ValueError(f"want a body of a known length, at most {_MOST_BYTES} bytes")
        if len(rest) < int(length):
            return None, buffer
        url = urlsplit("http://engine" + words[1])
        close = words[2] == "HTTP/1.0" or "close" in headers.get("connection", "").lower()
        return cls(words[0], url.path, url.query, headers, close), rest[int(length) :]


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a stand-in needs it: several requests on one connection, one answered after the other."""

    def __init__(self, engine: Engine, handle: Callable[[_Connection, _Request], None]) -> None:
        self.engine = engine
        self.endless = False
        self.hung = False
        self._handle = handle
        self._buffer = b""
        self._close = self._full = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.hung or self.endless:
            return
        self._buffer += data
        while not (self.hung or self.endless or self._full or self.transport.is_closing()):
            try:
                request, self._buffer = _Request.take(self._buffer)
            except ValueError as exc:
                self.answer(400, f"{exc}\n".encode())
                return
            if request is None:
                return
            self._close = request.close
            self._handle(self, request)

    def pause_writing(self) -> None:
        """Who does not read is not answered further: a thousand large pages asked for at once would not fit."""
        self._full = True
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        self.transport.resume_reading()
        if self.endless:
            self.pour()
        else:
            self.data_received(b"")

    def answer(self, status: int, *body: bytes, kind: str = "text/plain; charset=utf-8", cut: bool = False) -> None:
        """Sends an answer, or with `cut` the first half of its body and the end of the connection."""
        close = self._close or cut or status in (400, 405)  # after these nobody knows where the next request begins
        size = sum(map(len, body))
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n"
        self.transport.write(f"{head}{_CLOSE if close else ''}\r\n".encode())
        for part in (b"".join(body)[: size // 2],) if cut else body:
            self.transport.write(part)
        if close:
            self.transport.close()

    def pour(self) -> None:
        """The next piece of a body without end, as fast as it is read."""
        if not (self._full or self.transport.is_closing()):
            self.transport.write(b"10000\r\n" + b"x 1\n" * 0x4000 + b"\r\n")
            asyncio.get_running_loop().call_soon(self.pour)  # others have their turn


def _health(connection: _Connection, request: _Request) -> None:
    engine = connection.engine
    if request.path == "/faults" or request.path.startswith("/faults/"):
        _control(connection, request)
    elif request.path != "/health":
        connection.answer(404, b"there are /health and /faults\n")
    elif request.method != "GET":
        connection.answer(405, b"want GET /health\n")
    elif "health-hang" in engine.on:
        connection.hung = True
    elif "health-500" in engine.on:
        connection.answer(500, b'{"status":"sick"}\n', kind="application/json")
    else:
        connection.answer(200, b'{"status":"ok"}\n', kind="application/json")


def _control(connection: _Connection, request: _Request) -> None:
    engine, name = connection.engine, request.path.removeprefix("/faults").strip("/")
    on = request.method == "POST"
    if name and name not in FAULTS:
        connection.answer(404, f"no fault {name!r}, want one of {', '.join(FAULTS)}\n".encode())
        return
    if request.method == "GET" and not name:
        told = {fault: {"on": fault in engine.on, "description": text} for fault, text in FAULTS.items()}
        connection.answer(200, json.dumps(told, indent=1).encode() + b"\n", kind="application/json")
        return
    if request.method not in ("POST", "DELETE") or (on and not name):
        connection.answer(405, b"want GET /faults, POST /faults/NAME or DELETE /faults[/NAME]\n")
        return
    text = parse_qs(request.query, keep_blank_values=True).get("seconds", [""])[0]
    try:
        seconds = float(text) if "seconds" in request.query else None
        if seconds is not None and not 0 < seconds <= 86400:  # a day; refuses NaN, which would spin the loop
            raise ValueError
    except ValueError:
        connection.answer(400, f"seconds {text!r}, want more than 0 and at most 86400\n".encode())
        return
    # Answered first, as some faults end the process. Nobody else is served between the two.
    connection.answer(200, f"{name or 'every fault'} {'on' if on else 'off'}\n".encode())
    for fault in (name,) if name else FAULTS:
        engine.switch(fault, on, seconds)


def _metrics(connection: _Connection, request: _Request) -> None:
    engine = connection.engine
    if request.path != "/metrics":
        connection.answer(404, b"there is /metrics\n")
    elif request.method != "GET":
        connection.answer(405, b"want GET /metrics\n")
    elif "metrics-hang" in engine.on:
        connection.hung = True
    elif "metrics-500" in engine.on:
        connection.answer(500, b"sick\n")
    elif "endless" in engine.on:
        connection.endless = True
        kind = "text/plain; version=0.0.4; charset=utf-8"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.transport.write(head.encode())
        connection.pour()
    else:
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "").lower()
        kind = "application/openmetrics-text; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
        page = engine.page(openmetrics)
        connection.answer(200, *page, kind=f"{kind}; charset=utf-8", cut="metrics-cut" in engine.on)


# --- the process ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Runs until a signal or a fault ends it: 0 after SIGTERM or SIGINT, 1 if a port is taken."""
    told = "\n".join(f"  {name:<16} {text}" for name, text in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m sentinel.demo.engine",
        description=__doc__,
        epilog=f"faults:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    port = _within(int, 0, 65535)
    parser.add_argument("--name", default="trading-engine", help="the process's name, at most 15 bytes")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--health-port", type=port, default=8080, metavar="PORT", help="0 lets the kernel choose")
    parser.add_argument("--metrics-port", type=port, default=9090, metavar="PORT")
    parser.add_argument("--rate", type=_within(float, 0, 100_000), default=200.0, help="orders a second")
    parser.add_argument(
        "--work", type=_seconds, default=0.0, metavar="TIME", help="of CPU an order, and latencies as they really are"
    )
    parser.add_argument("--series", type=_within(int, 0, 1_000_000), default=0, help="further series on the page")
    parser.add_argument("--memory-cap", type=_within(int, 0, 1 << 20, "MiB"), default=512, metavar="MIB")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault", action="append", default=[], choices=[*FAULTS], metavar="NAME")
    options = parser.parse_args(argv)
    if not 1 <= len(os.fsencode(options.name)) <= 15:  # more is cut off: proc(5), /proc/PID/comm
        parser.error(f"--name {options.name!r}: want 1 to 15 bytes")
    Path("/proc/self/comm").write_text(options.name)  # what `pgrep -x` sees
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand hung connections leave room for control
    asyncio.run(_serve(options))
    return 0


def _within(number: type[int | float], least: int, most: int, unit: str = "") -> Callable[[str], float]:
    """Parses a number between both bounds, inclusive; the unit may stand behind it."""

    def parse(text: str) -> float:
        try:
            if least <= (value := number(text.removesuffix(unit))) <= most:
                return value
        except ValueError:
            pass
        raise argparse.ArgumentTypeError(f"{text!r}, want {least} to {most} {unit}".rstrip())

    return parse


class Listener:
    """A port that connections are accepted on, or are not: then they wait in the kernel's queue, which is full."""

    def __init__(self, engine: Engine, handle: Callable[[_Connection, _Request], None], host: str, port: int) -> None:
        """Raises OSError if the port is taken."""
        self._new = lambda: _Connection(engine, handle)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self._server: asyncio.Server | None = None
        self._fillers: list[socket.socket] = []
        self._deaf = False
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._socket.getsockname()[1]}"

    async def start(self) -> None:
        """Accepts from now on. The socket stays ours: a server that is closed leaves it listening."""
        server = await asyncio.get_running_loop().create_server(self._new, sock=self._socket.dup(), backlog=_BACKLOG)
        if self._deaf:  # it turned over meanwhile
            server.close()
        else:
            self._server = server

    def be_deaf(self, deaf: bool) -> None:
        """Stops accepting and fills the queue, or accepts again."""
        if deaf == self._deaf:
            return
        self._deaf = deaf
        if not deaf:
            while self._fillers:
                self._fillers.pop().close()
            self._starting = asyncio.ensure_future(self.start())
            return
        if self._server is not None:
            self._server.close()
            self._server = None
        for _ in range(_BACKLOG + 1):  # the kernel takes one more than the backlog
            filler = socket.socket(self._socket.family)
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(self._socket.getsockname())
            self._fillers.append(filler)


def _seconds(text: str) -> float:
    try:
        return Seconds.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


async def _listen(engine: Engine, handle: Callable[[_Connection, _Request], None], port: int) -> Listener:
    """A new server; ends the process if the port is taken."""
    host = engine.options.host
    try:
        listener = Listener(engine, handle, host, port)
    except OSError as exc:
        reason = os.strerror(exc.errno or 0).lower()  # strerror has the address behind it
        raise SystemExit(f"stand-in: cannot listen on port {port} of {host}: {reason}") from exc
    await listener.start()
    return listener


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if getattr(context.get("exception"), "errno", None) != errno.EMFILE:
        loop.default_exception_handler(context)


async def _serve(options: argparse.Namespace) -> None:
    engine = Engine(options)
    # asyncio tells of each accept without a free file, a hundred times a second.
    asyncio.get_running_loop().set_exception_handler(_tell)
    health = await _listen(engine, _health, options.health_port)
    metrics = await _listen(engine, _metrics, options.metrics_port)
    engine.listener = health
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, os._exit, 0)  # hung connections are no reason to stay
    for _ in range(50):  # orders from before the start: a first page without a p99 would be a fault of ours
        engine.order(time.monotonic(), _MEDIAN_S)
    for fault in options.fault:
        engine.switch(fault, True)
    urls = {"health_url": f"{health.url}/health", "metrics_url": f"{metrics.url}/metrics", "control_url": health.url}
    sys.stdout.write(json.dumps({"name": options.name, "pid": os.getpid(), **urls}) + "\n")
    sys.stdout.flush()
    await engine.trade()


if __name__ == "__main__":
    sys.exit(main())
