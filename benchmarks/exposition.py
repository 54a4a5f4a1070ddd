"""What reading one page costs, beside prometheus-client's parser and a bare search: `python -m benchmarks.exposition`.

The page has counters of 250 components and, at its end, a histogram of 25 buckets and a gauge: the worst place, as
every search must pass all the rest. Each figure is the least of many runs in this one process, in turns.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from sentinel.exposition import Selector, Sieve, read_family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHUNK = 64 << 10  # what is read from a socket at once
COUNTS = (1, 2, 4, 5, 8, 16, 32)  # of wanted families
HISTOGRAM, GAUGE = Selector("order_latency_seconds"), Selector("latency_p99")


def page(series: int) -> bytes:
    lines = []
    for at in range(series - 28):
        family = f"engine_component_{at // 40:05d}_operations_total"
        if at % 40 == 0:
            lines.append(f"# HELP {family} Operations done by this component.\n# TYPE {family} counter\n")
        lines.append(f'{family}{{venue="V{at % 7}",side="buy",shard="{at % 40}"}} {at * 12345}\n')
    lines.append("# HELP order_latency_seconds Until acknowledged.\n# TYPE order_latency_seconds histogram\n")
    for at in range(24):
        lines.append(f'order_latency_seconds_bucket{{venue="X",le="{at / 1000}"}} {at * 100}\n')
    lines.append('order_latency_seconds_bucket{venue="X",le="+Inf"} 2400\n')
    lines.append('order_latency_seconds_sum{venue="X"} 24.5\norder_latency_seconds_count{venue="X"} 2400\n')
    lines.append("# HELP latency_p99 The worst of the last second.\n# TYPE latency_p99 gauge\nlatency_p99 850\n")
    return "".join(lines).encode()


def streamed(chunks: Iterable[bytes], families: Iterable[str]) -> bytes:
    sieve = Sieve(families)
    for chunk in chunks:
        sieve.feed(chunk)
    return sieve.close()


def both(chunks: Iterable[bytes]) -> None:
    kept = streamed(chunks, (HISTOGRAM.name, GAUGE.name))
    assert len(read_family(kept, HISTOGRAM).samples) == 27
    assert len(read_family(kept, GAUGE).samples) == 1


def searched(chunks: Iterable[bytes], count: int) -> None:
    """For families that are not there, though many lines begin as they do."""
    streamed(chunks, [f"engine_component_latency_{at}_seconds" for at in range(count)])


def least(runs: int, *verbs: Callable[[], object]) -> list[float]:
    """The least time of each, in milliseconds, measured in turns."""
    times: list[list[float]] = [[] for _ in verbs]
    for _ in range(runs):
        for verb, kept in zip(verbs, times, strict=True):
            began = time.perf_counter()
            verb()
            kept.append(time.perf_counter() - began)
    return [min(kept) * 1e3 for kept in times]


def main() -> None:
    for series, runs in ((10_000, 200), (100_000, 20)):
        body = page(series)
        chunks = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
        text = body.decode()
        name = HISTOGRAM.name.encode()
        ours, bare = least(runs, lambda chunks=chunks: both(chunks), lambda body=body, name=name: body.find(name))
        (parser,) = least(3, lambda text=text: list(text_string_to_metric_families(text)))
        print(f"{series:,} series, {len(body) / 1e3:,.0f} kB")
        print(f"  a histogram and a gauge   {ours:9.3f} ms")
        print(f"  prometheus-client parser  {parser:9.3f} ms   1/{parser / ours:,.0f} of it (bar: 1/100)")
        print(f"  a bare bytes.find         {bare:9.3f} ms   {ours / bare:.2f} times it (bar: 4)")
        sieves = least(runs // 10, *(lambda count=count, chunks=chunks: searched(chunks, count) for count in COUNTS))
        shown = ", ".join(f"{count}: {took:.3f}" for count, took in zip(COUNTS, sieves, strict=True))
        print(f"  searched families, ms     {shown}")
        print(f"  per family beyond four    {(sieves[-1] - sieves[3]) / 27 * 1e3:9.1f} µs")


if __name__ == "__main__":
    main()
