"""Whole processes and their cost: the kernel's own accounting, several commands in turns so that drift hits all."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent


def cpu_ms(words: Sequence[str], environ: Mapping[str, str]) -> tuple[float, int]:
    """User and system CPU in ms of a command and all the children that it waited for, and its exit status."""
    with Path(os.devnull).open("r+b") as null:
        quiet = [(os.POSIX_SPAWN_DUP2, null.fileno(), fd) for fd in (0, 1, 2)]
        pid = os.posix_spawnp(words[0], words, dict(environ), file_actions=quiet)
    _, status, usage = os.wait4(pid, 0)
    return (usage.ru_utime + usage.ru_stime) * 1000, os.waitstatus_to_exitcode(status)


def in_turns(commands: Mapping[str, Sequence[str]], environ: Mapping[str, str], runs: int) -> dict[str, list[float]]:
    """CPU ms of every run of every command: A B C, A B C, …; one turn in front is not counted. All must exit with 0."""
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(runs + 1):
        for name, words in commands.items():
            ms, code = cpu_ms(words, environ)
            if code:
                told = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
                raise SystemExit(f"{name} exits with {code}: {told.stdout}{told.stderr}")
            if turn:
                taken[name].append(ms)
    return taken


def table(taken: Mapping[str, Sequence[float]], against: str) -> None:
    """Median and spread of each, and the median of the ratios pair by pair."""
    print(f"{'':<44}{'median':>9}{'min':>8}{'max':>8}  ratio to {against}")
    for name, values in taken.items():
        ratio = statistics.median(a / b for a, b in zip(values, taken[against], strict=True))
        print(f"{name:<44}{statistics.median(values):>6.1f} ms{min(values):>8.1f}{max(values):>8.1f}  {ratio:.2f}")


def installed(folder: Path, *, dependencies: bool = False) -> Path:
    """Sentinel as a user installs it: a wheel in an environment of its own. Gives the folder of its commands."""
    venv.create(folder, with_pip=True)
    words = [str(folder / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", str(ROOT)]
    subprocess.run(words if dependencies else [*words, "--no-deps"], check=True)
    return folder / "bin"


@contextlib.contextmanager
def running(
    words: Sequence[str], environ: Mapping[str, str] | None = None, stderr: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended at the end."""
    process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, stderr=stderr, text=True)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def used_s(pid: int) -> float:
    """CPU seconds of a process so far, ended threads too: its CPU clock (clock_getcpuclockid(3)), exact to the ns."""
    return time.clock_gettime(~pid << 3 | 2)


def memory_mb(pid: int, what: str = "VmHWM") -> float:
    """Resident memory in MB (10^6): VmRSS now, VmHWM at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024 / 1e6
    return float("nan")


def cores_used(pid: int, seconds: float) -> float:
    """The share of one core that a process takes, over this long."""
    before, began = used_s(pid), time.monotonic()
    time.sleep(seconds)
    return (used_s(pid) - before) / (time.monotonic() - began)


if __name__ == "__main__":
    sys.exit("a part of the benchmarks; run `make bench`")
