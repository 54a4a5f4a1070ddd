"""What an open status page costs the daemon, in a real browser with all that it asks for: bar 0.1 % of a core each.

The daemon with pages open less the same daemon with none, in turns so that drift hits both, for one engine and for 20.
The engine that is shown is asked every two seconds and the others hardly ever: asking costs a hundred times what
showing does, and its noise would hide it. What is shown of them is as much as ever.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.browser import chromium, watched
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SECONDS = float(os.environ.get("SECONDS", "15"))
ROUNDS = int(os.environ.get("ROUNDS", "5"))
PAGES = (1, 5)


def on_cpu_s(pid: int) -> float:
    """Seconds on a CPU of all threads so far, in ns steps (proc(5), schedstat): ticks of 10 ms are too coarse here."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def share(daemon: Daemon, browser: Browser, pages: int) -> float:
    """Of a core, while this many pages are open and shown; their opening is not counted."""
    with contextlib.ExitStack() as stack:
        for _ in range(pages):
            context = browser.new_context(viewport={"width": 1280, "height": 800})
            stack.callback(context.close)
            page = context.new_page()
            page.goto(daemon.url + "/?engine=engine-0")
            page.wait_for_selector("figure")
        time.sleep(3)
        before, began = on_cpu_s(daemon.process.pid), time.monotonic()
        time.sleep(SECONDS)
        return (on_cpu_s(daemon.process.pid) - before) / (time.monotonic() - began)


def main() -> int:
    worst = 0.0
    print(f"medians of {ROUNDS} rounds of {SECONDS:.0f} s each")
    print(f"{'':<12}{'none open':>12}{'each of 1':>12}{'each of 5':>12}")
    for count in (1, 20):
        with (
            tempfile.TemporaryDirectory() as folder,
            Engine(name=f"engine-{os.getpid()}") as engine,
            chromium() as browser,
        ):
            asked = ["2s", *["10m"] * (count - 1)]
            engines = "".join(watched(f"engine-{nth}", engine, interval=every) for nth, every in enumerate(asked))
            with Daemon(Path(folder), f"listen: 127.0.0.1:0\nengines:\n{engines}") as daemon:
                until(lambda daemon=daemon: {one["state"] for one in daemon.status()["engines"]} == {"healthy"})
                none, more = [], {pages: [] for pages in PAGES}
                for _ in range(ROUNDS):
                    none.append(share(daemon, browser, 0))
                    for pages, shares in more.items():
                        shares.append((share(daemon, browser, pages) - none[-1]) / pages)
                each = {pages: statistics.median(shares) for pages, shares in more.items()}
                row = "".join(f"{value:>12.3%}" for value in (statistics.median(none), *each.values()))
                print(f"medians of {ROUNDS} rounds of {SECONDS:.0f} s each")
    print(f"{'':<12}{'none open':>12}{'each of 1':>12}{'each of 5':>12}")
    for count in (1, 20):
        with (
            tempfile.TemporaryDirectory() as folder,
            Engine(name=f"engine-{os.getpid()}") as engine,
            chromium() as browser,
        ):
            asked = ["2s", *["10m"] * (count - 1)]
            engines = "".join(watched(f"engine-{nth}", engine, interval=every) for nth, every in enumerate(asked))
            with Daemon(Path(folder), f"listen: 127.0.0.1:0\nengines:\n{engines}") as daemon:
                until(lambda daemon=daemon: {one["state"] for one in daemon.status()["engines"]} == {"healthy"})
                none, more = [], {pages: [] for pages in PAGES}
                for _ in range(ROUNDS):
                    none.append(share(daemon, browser, 0))
                    for pages, shares in more.items():
                        shares.append((share(daemon, browser, pages) - none[-1]) / pages)
                each = {pages: statistics.median(shares) for pages, shares in more.items()}
                row = "".join(f"{value:>12.3%}" for value in (statistics.median(none), *each.values()))
                print(f"{count:>2} engine{'s' if count > 1 else ' '}  {row}")
                worst = max(worst, *each.values())
    print(f"the worst is {worst:.3%} of a core for a page, the bar 0.1 %")
    return 0 if worst < 0.001 else 1


if __name__ == "__main__":
    sys.exit(main())
