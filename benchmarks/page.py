"""What an open status page costs the daemon: bar 0.1 % of a core each, for one engine and for 20.

The daemon's own HTTP side, events and shapes, in a process of its own that asks no engine anything: asking costs a
hundred times what showing does, and its noise would hide it. The picture is another one every second.
A page is a client that asks for what the page asks for: the stream, and why every five seconds.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from sentinel.board import Snapshot, fresh, step
from sentinel.history import History
from sentinel.model import EngineSpec, Observation, ProbeSpec, Reading, Tally
from sentinel.publish.events import Events
from sentinel.publish.web import application

if TYPE_CHECKING:
    from sentinel.board import EngineRecord

SECONDS = float(os.environ.get("SECONDS", "10"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
PAGES = (1, 20)
_QUANTILES = ("0.5", "0.99", "0.999")
_METRICS = ("latency_seconds", "latency_budget_seconds", "memory_used_bytes", "memory_limit_bytes", "memory_max_ratio")
_QUERY = "&".join(f"metric=sentinel_engine_{name}" for name in _METRICS)
_WHY_EVERY_S = 5


def answers(at: float) -> dict[str, Observation]:
    """One round of answers as the four probes give them, with their sentences and readings."""
    latencies = [
        Reading(f"sentinel_engine_latency_{what}seconds", 0.0005 + at % 7 / 1e4, (quantile,))
        for what in ("", "low_", "high_", "budget_")
        for quantile in _QUANTILES
    ]
    memory = [
        Reading(f"sentinel_engine_memory_{what}", value)
        for what, value in (("used_bytes", 18e6 + at % 9 * 1e5), ("limit_bytes", 24e9), ("max_ratio", 0.9))
    ]
    health = "GET http://127.0.0.1:8080/health: status 200 in 2.71 ms"
    p99 = "p99 of order_latency_seconds is 595 µs (between 500 µs and 600 µs) over the last 10 s, limit 1 ms"
    return {
        "health": Observation(at, 0.00271, True, health, value=0.00271, unit="seconds"),
        "process": Observation(at, 0.001, True, f"trading-engine runs as pid 22224, up {at:.1f} s"),
        "memory": Observation(at, 0.001, True, "memory 18 MiB", "", 0.000745, 0.9, "ratio", tuple(memory)),
        "latency": Observation(at, 0.002, True, p99, "", 0.000595, 0.001, "seconds", tuple(latencies)),
    }


async def serve(count: int, path: str) -> None:
    """The daemon less its probes, until it is killed."""
    kinds = {"health": "http", "process": "process", "memory": "memory", "latency": "latency"}
    probes = tuple(ProbeSpec(name, kind, None) for name, kind in kinds.items())
    specs = [EngineSpec(f"engine-{number}", probes, 0.0) for number in range(count)]
    began = time.monotonic()
    records: dict[str, EngineRecord] = {spec.name: fresh(spec, began) for spec in specs}
    history = History()

    def picture() -> Snapshot:
        engines = tuple((spec, records[spec.name]) for spec in specs)
        return Snapshot(time.monotonic(), time.time(), "0", engines, Tally(), True)

    def ask(at: float) -> None:
        for spec in specs:
            for name, seen in answers(at).items():
                records[spec.name] = step(spec, records[spec.name], name, seen, at)
                history.add((spec.name, name), seen)

    for second in range(600, 0, -1):
        ask(began - second)
    events = Events(picture, history)
    runner = web.AppRunner(application(picture, events, history), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    while True:
        ask(time.monotonic())
        events.show(picture())
        await asyncio.sleep(1)


async def page(path: str) -> None:
    """What an open page asks for."""
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path), timeout=aiohttp.ClientTimeout()) as session:

        async def why() -> None:
            while True:
                async with session.get("http://localhost/api/v1/explain/engine-0") as answer:
                    await answer.read()
                await asyncio.sleep(_WHY_EVERY_S)

        asking = asyncio.create_task(why())
        try:
            async with session.get(f"http://localhost/api/v1/events?live=engine-0&{_QUERY}") as stream:
                async for _ in stream.content.iter_any():
                    pass
        finally:
            asking.cancel()


def on_cpu_s(pid: int) -> float:
    """Seconds on a CPU of all threads so far, in ns steps (proc(5), schedstat): ticks of 10 ms are too coarse here."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


async def share(pid: int, path: str, pages: int) -> float:
    """Of a core, while this many pages are open; their opening is not counted."""
    opened = [asyncio.create_task(page(path)) for _ in range(pages)]
    await asyncio.sleep(2)
    before, began = on_cpu_s(pid), time.monotonic()
    await asyncio.sleep(SECONDS)
    used = (on_cpu_s(pid) - before) / (time.monotonic() - began)
    for task in opened:
        task.cancel()
    await asyncio.gather(*opened, return_exceptions=True)
    return used


def main() -> int:
    worst = 0.0
    print(f"medians of {ROUNDS} rounds of {SECONDS:.0f} s each")
    print(f"{'':<12}{'none open':>12}" + "".join(f"{f'each of {pages}':>12}" for pages in PAGES))
    for count in (1, 20):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/page.sock"
            words = [sys.executable, "-m", "benchmarks.page", str(count), path]
            with subprocess.Popen(words) as daemon:
                while not Path(path).exists():
                    time.sleep(0.1)
                none, more = [], {pages: [] for pages in PAGES}
                for _ in range(ROUNDS):
                    none.append(asyncio.run(share(daemon.pid, path, 0)))
                    for pages, shares in more.items():
                        shares.append((asyncio.run(share(daemon.pid, path, pages)) - none[-1]) / pages)
                daemon.kill()
            each = {pages: statistics.median(shares) for pages, shares in more.items()}
            row = "".join(f"{value:>12.3%}" for value in (statistics.median(none), *each.values()))
            print(f"{count:>2} engine{'s' if count > 1 else ' '}  {row}", flush=True)
            worst = max(worst, *each.values())
    print(f"the worst is {worst:.3%} of a core for a page, the bar 0.1 %")
    return 0 if worst < 0.001 else 1


if __name__ == "__main__":
    if len(sys.argv) == 3:
        asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
    sys.exit(main())
