"""The same readings in Sentinel and in a real Prometheus: where histogram_quantile agrees, and where it cannot.

docs/latency.md explains the differences that are asserted here.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import threading
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from sentinel.exposition import Selector, read_family
from sentinel.quantiles import Window, estimate, histograms
from tests.prometheus import Prometheus
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUNDS = ("0.0005", "0.001", "0.0025", "0.005", "0.01", "+Inf")


class Page(http.server.BaseHTTPRequestHandler):
    """Shards a and b have counted long and go on; c is not there at first and then has 500 slow orders at once."""

    server: Any

    def do_GET(self) -> None:
        chance, counts = self.server.chance, self.server.counts
        for shard in "ab":
            for bucket in range(len(BOUNDS)):
                counts[shard][bucket] += chance.randrange(1000 >> bucket)
        self.server.scrapes += 1
        if self.server.scrapes == 8:
            counts["c"] = [0, 0, 0, 500, 0, 0]
        lines = [
            f'lat_seconds_bucket{{shard="{shard}",le="{le}"}} {sum(alone[: at + 1])}\n'
            for shard, alone in counts.items()
            for at, le in enumerate(BOUNDS)
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write("".join(["# TYPE lat_seconds histogram\n", *lines]).encode())

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextlib.contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Prometheus scraping such a page every second; its URL."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.chance, server.scrapes = random.Random(7), 0  # type: ignore[attr-defined]  # for the handler
        server.counts = {"a": [10**7] * len(BOUNDS), "b": [10**7] * len(BOUNDS)}  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        config = (
            "scrape_configs: [{job_name: page, scrape_interval: 1s, scrape_timeout: 1s,"
            f" static_configs: [{{targets: ['127.0.0.1:{server.server_port}']}}]}}]\n"
        )
        try:
            with Prometheus(folder, config) as running:
                yield running.url
        finally:
            server.shutdown()


def query(url: str, promql: str, at: float | None = None) -> list[dict[str, Any]]:
    parameters = {"query": promql} | ({} if at is None else {"time": f"{at:.3f}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/api/v1/query?{urllib.parse.urlencode(parameters)}", timeout=5) as response:
        result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result


def scraped(url: str, promql: str) -> float:
    """The time of a sample of this query, once there is one."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if found := query(url, promql):
                return float(found[0]["value"][0])
        time.sleep(0.2)
    raise AssertionError(f"no answer to {promql}")


def window(url: str, selector: str, at: float) -> Window:
    """Sentinel's window over the very samples that Prometheus has in its last ten seconds."""
    pages: dict[float, list[str]] = {}
    for series in query(url, f"lat_seconds_bucket{selector}[10s]", at):
        labels = ",".join(f'{name}="{series["metric"][name]}"' for name in ("shard", "le"))
        for moment, value in series["values"]:
            pages.setdefault(moment, []).append(f"lat_seconds_bucket{{{labels}}} {value}\n")
    seen = Window(10.0)
    for moment, lines in sorted(pages.items()):
        page = "".join(["# TYPE lat_seconds histogram\n", *lines]).encode()
        seen = seen.read(moment, histograms(read_family(page, Selector("lat_seconds"))))
    return seen


@needs("prometheus")
def test_histogram_quantile_of_a_real_prometheus(tmp_path: Path) -> None:
    with prometheus(tmp_path) as url:
        at = scraped(url, 'count_over_time(lat_seconds_bucket{shard="a",le="+Inf"}[30s]) >= 12')
        for quantile in (0.5, 0.9, 0.99, 0.999):
            long_lived = '{shard=~"a|b"}'
            promql = f"histogram_quantile({quantile}, sum by (le) (increase(lat_seconds_bucket%s[10s])))"
            (theirs,) = query(url, promql % long_lived, at)
            ours = estimate(window(url, long_lived, at).observed(), quantile)
            assert ours is not None
            assert ours.value == pytest.approx(float(theirs["value"][1]), rel=1e-9)

            # Its increase() takes the first sample of a new series for where it stood before.
            (without,) = query(url, promql % '{shard!=""}', at)
            assert float(without["value"][1]) == pytest.approx(float(theirs["value"][1]), rel=1e-9)
        everything, long = (window(url, selector, at).observed() for selector in ("", long_lived))
        assert everything.total - long.total == 500
