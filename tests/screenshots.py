"""`make screenshots`: the status page in each state, light and dark, wide and on a phone, of real faults in stand-ins.

Into build/screenshots, or the folder named on the command line; not a test, for people to look at. Two of them stand in
docs/, for the README.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser import PHONE, WIDE, chromium, watched
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_BEFORE_S = 60  # of health in the pictures before the fault
_FAULT_S = 15  # of the fault in them
_PROBE = (
    "kind: latency, metric: order_latency_seconds, window: 10s, when_idle: unknown, "
    "quantiles: {0.5: 500us, 0.99: 1ms, 0.999: 2ms}"
)


def config(engines: dict[str, Engine]) -> str:
    """What is slow in one of them is only a warning, and one that handles no orders cannot be judged."""
    text = "listen: 127.0.0.1:0\nengines:\n"
    for name, engine in engines.items():
        severity = "warning" if name == "market-data" else "critical"
        latency = f'{{url: "{engine.metrics_url}", {_PROBE}, severity: {severity}}}'
        text += watched(name, engine, interval="1s", latency=latency)
    return text


def shoot(browser: Browser, daemon: Daemon, folder: Path, name: str) -> None:
    for scheme in ("light", "dark"):
        for kind, viewport in (("wide", WIDE), ("phone", PHONE)):
            with contextlib.closing(browser.new_context(viewport=viewport, color_scheme=scheme)) as context:
                page = context.new_page()
                page.goto(daemon.url)
                page.wait_for_selector("figure")
                page.wait_for_timeout(1500)
                page.screenshot(path=folder / f"{name}-{scheme}-{kind}.png")


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:

        def start(*names: str, **more: Engine) -> tuple[dict[str, Engine], Daemon]:
            engines = {
                # Named after this process too: another stand-in on the machine must not be in the picture.
                name: stack.enter_context(Engine(name=f"{name[:6]}-{os.getpid()}"))
                for name in names
            } | more
            configured = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            return engines, stack.enter_context(Daemon(configured, config(engines)))

        def when(daemon: Daemon, state: str, seconds: float = _FAULT_S) -> None:
            until(lambda: any(engine["state"] == state for engine in daemon.status()["engines"]))
            time.sleep(seconds)
            shoot(browser, daemon, folder, state)

        browser = stack.enter_context(chromium())
        idle = stack.enter_context(Engine("--rate", "0", name=f"risk-{os.getpid()}"))
        engines, daemon = start("trading-engine", "market-data", "order-gateway")
        _, other = start(**engines, **{"risk-checks": idle})
        when(daemon, "healthy", _BEFORE_S)
        when(other, "unknown", 0)
        engines["market-data"].fault("slow")
        when(daemon, "degraded")
        engines["trading-engine"].fault("slow")
        when(daemon, "unhealthy")
    pictures = [*map(str, folder.glob("*.png"))]
    subprocess.run(["pngquant", "--force", "--ext", ".png", "64", *pictures], check=True)  # a third of the size
    print(f"in {folder}")


if __name__ == "__main__":
    main()
