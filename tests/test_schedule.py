"""The schedule, with the real APScheduler on the real clock; intervals are short so that seconds are not waited for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sentinel.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = ("engine", "probe")
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


counted: list[int] = []  # for how many runs each one of the last play stood


async def play(
    run: Callable[[tuple[str, str]], Awaitable[None]], seconds: float, interval_s: float = 0.05
) -> list[float]:
    """Runs one key for a while; gives the lags."""
    counted.clear()
    lags: list[float] = []

    async def measured(key: tuple[str, str], waited_s: tuple[float, ...]) -> None:
        lags.append(waited_s[0])
        counted.append(len(waited_s))
        await run(key)

    schedule = Schedule(measured)
    schedule.set({KEY: interval_s})
    schedule.start()
    await asyncio.sleep(seconds)
    schedule.stop()
    await asyncio.sleep(0)
    return lags


async def test_a_key_runs_at_its_interval_and_lag_is_small() -> None:
    began: list[float] = []

    async def run(_: object) -> None:
        began.append(time.monotonic())

    lags = await play(run, 1.0)
    assert 15 <= len(began) <= 21
    assert sorted(lags)[len(lags) // 2] < 0.02


async def test_never_two_of_one_key_at_once() -> None:
    running, most = 0, 0

    async def run(_: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.12)
        running -= 1

    await play(run, 0.6)
    assert most == 1


async def test_a_stall_is_measured_whole_and_its_runs_are_not_piled_up() -> None:
    began: list[float] = []

    async def run(_: object) -> None:
        began.append(time.monotonic())
        if len(began) == 3:
            time.sleep(0.5)  # noqa: ASYNC251  # the loop stands still, as under a throttled CPU

    lags = await play(run, 0.9)
    assert max(lags) > 0.4
    after = [at for at in began if at > began[2] + 0.4]
    assert after[1] - after[0] > 0.02
    assert len(began) < 16
    assert 8 <= max(counted) <= 12  # ten runs of 50 ms were missed, and each of them is accounted for
    assert 16 <= sum(counted) <= 19


async def test_what_stays_keeps_its_beat_and_what_goes_stops() -> None:
    seen: list[tuple[str, str]] = []

    async def run(key: tuple[str, str], _: object) -> None:
        seen.append(key)

    schedule = Schedule(run)
    other = ("engine", "other")
    schedule.set({KEY: 0.05, other: 0.05})
    schedule.start()
    await asyncio.sleep(0.3)
    schedule.set({KEY: 0.05})
    await asyncio.sleep(0.02)
    seen.clear()
    await asyncio.sleep(0.3)
    schedule.stop()
    assert KEY in seen
    assert other not in seen
    assert schedule.silent_s(KEY, time.monotonic()) < 0.2


_UNDER_A_CLOCK_THAT_STEPS = """
import asyncio, os, sys, time
from pathlib import Path
from sentinel.schedule import Schedule

async def main():
    runs = []
    async def run(key, waited_s): runs.append(time.monotonic())
    schedule = Schedule(run)
    schedule.set({("e", "p"): 0.1})
    schedule.start()
    ticking = asyncio.create_task(schedule.keep_time(lambda: None, every_s=0.1))
    await asyncio.sleep(0.5)
    before = time.time()
    Path(os.environ["FAKETIME_TIMESTAMP_FILE"]).write_text(sys.argv[1])
    await asyncio.sleep(1.0)
    stepped = time.time() - before
    print(round(stepped), len([at for at in runs if at > time.monotonic() - 0.6]))
    ticking.cancel()
    schedule.stop()

asyncio.run(main())
"""


@pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")
@pytest.mark.parametrize(("step", "hours"), [("-1h", -1), ("+1h", 1)])
def test_a_step_of_the_wall_clock_silences_nothing(tmp_path: Path, step: str, hours: int) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environ = {
        **os.environ,
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    words = [sys.executable, "-c", _UNDER_A_CLOCK_THAT_STEPS, step]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True, timeout=30)
    stepped, runs = map(int, done.stdout.split())
    assert abs(stepped - hours * 3600) < 5
    assert runs >= 3
