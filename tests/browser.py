"""Debian's Chromium without a screen, driven by Playwright, and fleets for it to look at: for the tests of the status
page and for its pictures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser

    from tests.engines import Engine

# Without its own talk to the network: it updates components and looks up hosts at every start otherwise.
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
)
WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """One browser; each page gets a context, and so a cache, of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=[*_FLAGS])
        try:
            yield browser
        finally:
            browser.close()


def watched(name: str, engine: Engine, *, interval: str = "200ms", start_period: str = "10s", **more: str) -> str:
    """The entry of one engine in `engines:`; `more` replaces the settings of a probe, or with its name adds one."""
    probes = {
        "health": f'{{kind: http, url: "{engine.health_url}"}}',
        "process": f"{{kind: process, name: {engine.name}}}",
        "memory": "{kind: memory, max: 90%}",
        "latency": f'{{kind: latency, url: "{engine.metrics_url}", metric: order_latency_seconds, window: 5s, '
        "quantiles: {0.5: 500us, 0.99: 1ms, 0.999: 2ms}}",
    }
    lines = [f"      {probe}: {settings}" for probe, settings in {**probes, **more}.items()]
    head = f"  - name: {name}\n    interval: {interval}\n    start_period: {start_period}\n    probes:\n"
    return head + "\n".join(lines) + "\n"
