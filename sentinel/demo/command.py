"""`sentinel demo`: a stand-in engine with faults to switch on, watched by a daemon, for a look at what Sentinel says.

It must leave nothing behind: the stand-in ends with it, and the terminal is as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import termios
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp

from sentinel.config import DEFAULT_LISTEN, load_config
from sentinel.daemon import Daemon
from sentinel.publish.log import start_log
from sentinel.yaml_source import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESTART_S = 10.0  # long enough to read what Sentinel says of a dead engine


def main(argv: Sequence[str]) -> int:
    """0 after SIGINT, 1 if something cannot be started."""
    parser = argparse.ArgumentParser(prog="sentinel demo", description="A stand-in engine, watched by a daemon.")
    parser.add_argument("--health-port", type=int, default=8080, help="of the stand-in; a free one if it is taken")
    parser.add_argument("--metrics-port", type=int, default=9090, help="of the stand-in; a free one if it is taken")
    parser.add_argument("--listen", default=DEFAULT_LISTEN, help="of the daemon; a free port if it is taken")
    parser.add_argument("--fault", action="append", default=[], metavar="NAME", help="switched on from the start")
    args = parser.parse_args(argv)
    start_log()
    try:
        asyncio.run(_demo(args))
    except (ConfigError, NoEngineError) as exc:
        sys.stderr.write(f"sentinel demo: {exc}\n")
        return 1
    return 0


class NoEngineError(Exception):
    """The stand-in could not be started. One sentence."""


async def _demo(args: argparse.Namespace) -> None:
    listen = args.listen
    host, _, port = listen.rpartition(":")
    if not listen.startswith("unix:") and port.isdecimal():
        listen = f"{host}:{_free(int(port))}"
    options = ["--health-port", str(_free(args.health_port)), "--metrics-port", str(_free(args.metrics_port))]
    options += [word for fault in args.fault for word in ("--fault", fault)]
    engine, told = await _start(options)
    # The stand-in comes back on the same ports, whichever they were.
    again = ["--health-port", _port(told["health_url"]), "--metrics-port", _port(told["metrics_url"])]
    try:
        environ = {
            "SENTINEL_HEALTH_URL": told["health_url"],
            "SENTINEL_METRICS_URL": told["metrics_url"],
            "SENTINEL_PROCESS": told["name"],
            "SENTINEL_LISTEN": listen,
        }
        daemon = Daemon(load_config(None, environ), None)
        _say(told, listen)
        keeper = asyncio.create_task(_keep(engine, again))
        keys = asyncio.create_task(_keys(told["control_url"]))
        try:
            await daemon.run()
        finally:
            for task in (keeper, keys):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
    finally:
        if engine.returncode is None:
            with suppress(ProcessLookupError):
                engine.kill()
            await engine.wait()


async def _start(options: Sequence[str]) -> tuple[asyncio.subprocess.Process, dict[str, str]]:
    """The stand-in and what it says of itself."""
    words = (sys.executable, "-m", "sentinel.demo.engine", *options)
    pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    # A session of its own: Ctrl-C is for the demo, and a killed engine would be the last thing that it tells.
    engine = await asyncio.create_subprocess_exec(*words, stdout=pipe, stdin=nothing, start_new_session=True)
    assert engine.stdout is not None
    told = await engine.stdout.readline()
    if not told:
        await engine.wait()
        raise NoEngineError("the stand-in engine did not start; what it said stands above")
    return engine, json.loads(told)


async def _keep(engine: asyncio.subprocess.Process, options: Sequence[str]) -> None:
    """Starts the stand-in again when it ended, as a container's restart policy would."""
    while True:
        try:
            await engine.wait()
            sys.stdout.write(f"demo: the stand-in ended; it comes back in {_RESTART_S:.0f} s\n")
            await asyncio.sleep(_RESTART_S)
            engine, _ = await _start(options)
        except asyncio.CancelledError:
            if engine.returncode is None:
                with suppress(ProcessLookupError):
                    engine.kill()
                await engine.wait()
            raise


async def _keys(control_url: str) -> None:
    """On a terminal: a digit or letter switches the fault that it stands for on or off."""
    if not sys.stdin.isatty():
        return
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        async with session.get(f"{control_url}/faults") as answer:
            faults: dict[str, Any] = await answer.json()
        letters = dict(zip("1234567890abcdefghij", faults, strict=False))
        sys.stdout.write(
            "".join(f"  {key}  {name:<16} {faults[name]['description']}\n" for key, name in letters.items())
        )
        loop = asyncio.get_running_loop()
        pressed: asyncio.Queue[str] = asyncio.Queue()
        before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        loop.add_reader(sys.stdin, lambda: pressed.put_nowait(os.read(sys.stdin.fileno(), 1).decode("latin-1")))
        try:
            while True:
                name = letters.get(await pressed.get())
                if name is not None:
                    await _switch(session, control_url, name)
        finally:
            loop.remove_reader(sys.stdin)
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


async def _switch(session: aiohttp.ClientSession, control_url: str, name: str) -> None:
    """Turns a fault over; a dead engine cannot be told anything."""
    try:
        async with session.get(f"{control_url}/faults") as answer:
            on = (await answer.json())[name]["on"]
        async with session.request("DELETE" if on else "POST", f"{control_url}/faults/{name}"):
            sys.stdout.write(f"demo: {name} {'off' if on else 'on'}\n")
    except (aiohttp.ClientError, TimeoutError):
        sys.stdout.write(f"demo: {name}: the stand-in does not answer\n")


def _say(told: dict[str, str], listen: str) -> None:
    where = f"curl --unix-socket {listen.removeprefix('unix:')} http://localhost" if listen.startswith("unix:") else ""
    where = where or f"curl -s http://{listen}"
    sys.stdout.write(
        f"""demo: {told["name"]} runs as pid {told["pid"]}: {told["health_url"]} {told["metrics_url"]}
demo: what Sentinel knows of it:
  {where}/            in words; in a browser the status page
  {where}/health      for machines
  {where}/metrics     for Prometheus
demo: break it, and mend it again (all faults: curl -s {told["control_url"]}/faults):
  curl -X POST   {told["control_url"]}/faults/slow
  curl -X DELETE {told["control_url"]}/faults/slow
"""
    )
    sys.stdout.flush()


def _port(url: str) -> str:
    return url.rpartition(":")[2].partition("/")[0]


def _free(port: int) -> int:
    """The port, or another one that is free, if somebody has it."""
    for wanted in (port, 0):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                trial.bind(("127.0.0.1", wanted))
                found: int = trial.getsockname()[1]
                return found
    raise NoEngineError("no port is free on 127.0.0.1")
