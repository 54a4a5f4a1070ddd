"""The stand-in engine: a process named `trading-engine` with /health, /metrics and faults to switch on while it runs.

For the demo, the tests and the benchmarks; it must never be watched less honestly than a real engine: its latencies
are observations, its memory is touched pages, its end is a real end. Standard library only.
Faults: `POST /faults/NAME` on the health port switches one on (`?seconds=5` for a while), DELETE off; GET lists them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import time
from bisect import bisect_left
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FAULTS = {
    "health-500": "GET /health answers 500",
    "health-hang": "GET /health is accepted and never answered",
    "slow": "orders take ten times as long, so p99 does",
    "memory": "memory grows by 16 MiB a second, up to --memory-cap",
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
_BATCH_S = 0.1
_GROWTH = 16 << 20  # bytes a second
_WINDOW_S = 5.0  # the gauge and the summary are of the last orders, so a fault fades from them in seconds
_MEDIAN_S, _SPREAD = 0.0003, 0.3  # log-normal: p99 is about 600 µs


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
        self.ballast: list[bytearray] = []
        self._random = random.Random(options.seed)  # noqa: S311  # no secret is made of it
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._padding = b"".join(
            b'venue_book_depth_levels{venue="V%d",symbol="S%05d",side="%s"} %d\n'
            % (number % 7, number // 2, b"buy" if number % 2 else b"sell", number % 50)
            for number in range(options.series)
        )

    async def trade(self) -> None:
        """Simulates orders for ever, in batches."""
        owed = 0.0
        while True:
            await asyncio.sleep(_BATCH_S)
            owed += self.options.rate * _BATCH_S
            now = time.monotonic()
            factor = 10 if "slow" in self.on else 1
            for _ in range(int(owed)):
                self._order(now, self._random.lognormvariate(0, _SPREAD) * _MEDIAN_S * factor)
            owed -= int(owed)
            while self.recent and self.recent[0][0] < now - _WINDOW_S:
                self.recent.popleft()
            self._grow()

    def _order(self, now: float, took_s: float) -> None:
        venue = VENUES[self.total % len(VENUES)]
        self.counts[venue][bisect_left(BOUNDS, took_s)] += 1
        self.sums[venue] += took_s
        self.total += 1
        self.recent.append((now, took_s))

    def _grow(self) -> None:
        if "memory" not in self.on:
            self.ballast.clear()
        elif sum(map(len, self.ballast)) < self.options.memory_cap << 20:
            self.ballast.append(bytearray(os.urandom(4096) * int(_GROWTH * _BATCH_S / 4096)))  # touched: resident

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
            if seconds is not None:
                self._timers[name] = asyncio.get_running_loop().call_later(seconds, self.switch, name, False)

    def page(self, openmetrics: bool) -> bytes:
        """The metrics page, in Prometheus text 0.0.4 or OpenMetrics 1.0."""
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
        rows += ["# TYPE process_resident_memory_bytes gauge", f"process_resident_memory_bytes {_resident_bytes()}"]
        rows += ["# TYPE process_start_time_seconds gauge", f"process_start_time_seconds {self.began_unix_s:.3f}", ""]
        body = "\n".join(rows).encode()
        if self._padding:
            body += b"# TYPE venue_book_depth_levels gauge\n" + self._padding
        return body + b"# EOF\n" if openmetrics else body

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


def _number(value: float) -> str:
    return "NaN" if value != value else f"{value:.9g}"  # noqa: PLR0124


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- HTTP -----------------------------------------------------------------------------------------------------------


class _Connection(asyncio.Protocol):
    """HTTP/1.1 as far as a stand-in needs it: a request without a body, several on one connection."""

    def __init__(self, engine: Engine, handle: Callable[[_Connection, str, str, str], None]) -> None:
        self.engine = engine
        self._handle = handle
        self._buffer = b""
        self._close = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > 65536:
            self.transport.close()
        while b"\r\n\r\n" in self._buffer and not self.transport.is_closing():
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            first, _, headers = head.decode("latin-1").partition("\r\n")
            words = first.split(" ")
            if len(words) != 3 or not words[2].startswith("HTTP/1."):
                self.answer(400, b"not HTTP/1.1\n", close=True)
                return
            self._close = "connection: close" in headers.lower() or words[2] == "HTTP/1.0"
            self._handle(self, words[0], words[1], headers)

    def answer(self, status: int, body: bytes, content_type: str = "text/plain", close: bool = False) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(head.encode() + body)
        if close or self._close:
            self.transport.close()


def _health(connection: _Connection, method: str, target: str, _headers: str) -> None:
    engine, path = connection.engine, urlsplit(target).path
    if path.startswith("/faults"):
        _control(connection, method, target)
    elif path != "/health":
        connection.answer(404, b"there are /health and /faults\n")
    elif "health-hang" in engine.on:
        return
    elif "health-500" in engine.on:
        connection.answer(500, b'{"status":"sick"}\n', "application/json")
    else:
        connection.answer(200, b'{"status":"ok"}\n', "application/json")


def _control(connection: _Connection, method: str, target: str) -> None:
    engine, parts = connection.engine, urlsplit(target)
    name = parts.path.removeprefix("/faults").strip("/")
    if name and name not in FAULTS:
        connection.answer(404, f"no fault {name!r}, want one of {', '.join(FAULTS)}\n".encode())
        return
    if method == "GET":
        told = {fault: {"on": fault in engine.on, "description": text} for fault, text in FAULTS.items()}
        connection.answer(200, json.dumps(told, indent=1).encode() + b"\n", "application/json")
        return
    if method not in ("POST", "DELETE") or (method == "POST" and not name):
        connection.answer(405, b"want GET /faults, POST /faults/NAME or DELETE /faults[/NAME]\n")
        return
    seconds = None
    with suppress(ValueError):
        seconds = float(parse_qs(parts.query).get("seconds", ["none"])[0])
    connection.answer(200, f"{name or 'every fault'} {'on' if method == 'POST' else 'off'}\n".encode())
    # After the answer is on its way: some faults end the process.
    for fault in (name,) if name else tuple(FAULTS):
        asyncio.get_running_loop().call_later(0.01, engine.switch, fault, method == "POST", seconds)


def _metrics(connection: _Connection, _method: str, target: str, headers: str) -> None:
    engine = connection.engine
    if urlsplit(target).path != "/metrics":
        connection.answer(404, b"there is /metrics\n")
    elif "metrics-hang" in engine.on:
        return
    elif "metrics-500" in engine.on:
        connection.answer(500, b"sick\n")
    elif "endless" in engine.on:
        connection.transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        asyncio.get_running_loop().create_task(_flood(connection.transport))  # ends with its connection
    else:
        openmetrics = "openmetrics-text" in headers
        kind = (
            "application/openmetrics-text; version=1.0.0; charset=utf-8" if openmetrics else "text/plain; version=0.0.4"
        )
        body = engine.page(openmetrics)
        if "metrics-cut" in engine.on:
            head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.transport.write(head.encode() + body[: len(body) // 2])
            connection.transport.close()
            return
        connection.answer(200, body, kind)


async def _flood(transport: asyncio.Transport) -> None:
    while not transport.is_closing():
        if transport.get_write_buffer_size() < 1 << 20:
            transport.write(b"10000\r\n" + b"x 1\n" * 0x4000 + b"\r\n")
        await asyncio.sleep(0)


# --- the process ----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """0 after SIGTERM or SIGINT, 1 if a port is taken."""
    told = "\n".join(f"  {name:<16} {text}" for name, text in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m sentinel.demo.engine",
        description=__doc__,
        epilog=f"faults:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--name", default="trading-engine", help="the process's name, at most 15 characters")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--health-port", type=int, default=8080, help="0 lets the kernel choose")
    parser.add_argument("--metrics-port", type=int, default=9090)
    parser.add_argument("--rate", type=float, default=200.0, help="orders a second")
    parser.add_argument("--series", type=int, default=0, help="further series on the metrics page")
    parser.add_argument("--memory-cap", type=int, default=512, metavar="MIB")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault", action="append", default=[], choices=[*FAULTS], metavar="NAME")
    options = parser.parse_args(argv)
    Path("/proc/self/comm").write_text(options.name)  # what `pgrep -x` sees: proc(5), /proc/PID/comm
    try:
        asyncio.run(_serve(options))
    except OSError as exc:
        sys.stderr.write(f"stand-in: cannot listen on {options.host}: {exc.strerror}\n")
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    engine = Engine(options)
    health = await loop.create_server(lambda: _Connection(engine, _health), options.host, options.health_port)
    metrics = await loop.create_server(lambda: _Connection(engine, _metrics), options.host, options.metrics_port)
    host = f"[{options.host}]" if ":" in options.host else options.host
    control = f"http://{host}:{health.sockets[0].getsockname()[1]}"
    told = {
        "name": options.name,
        "pid": os.getpid(),
        "health_url": f"{control}/health",
        "metrics_url": f"http://{host}:{metrics.sockets[0].getsockname()[1]}/metrics",
        "control_url": control,
    }
    for _ in range(50):  # orders from before the start: a first page without a p99 would be a fault of ours
        engine._order(time.monotonic(), _MEDIAN_S)
    for fault in options.fault:
        engine.switch(fault, True)
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, os._exit, 0)  # hung connections are no reason to stay
    await engine.trade()


if __name__ == "__main__":
    sys.exit(main())
