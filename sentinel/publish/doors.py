"""Where the daemon listens: a port or a Unix socket for those who ask, and a socket of its own for commands.

All of them or none: a door that cannot be opened leaves those that are open as they are. It must not take a socket
from a daemon that still listens there, nor leave a file behind.
"""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from sentinel.address import parse_listen
from sentinel.yaml_source import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MODES = {"control": 0o660}  # commands are taken from the daemon's own user and group
_CLOSE_S = 1.0  # for open connections at the end; the whole end is to take under 2 s


class Doors:
    """`async with Doors(served):` and then `await doors.open(where)`; both by the key that the configuration has."""

    def __init__(self, served: Mapping[str, web.Application]) -> None:
        self._served = served
        self._runners: dict[str, web.AppRunner] = {}
        self._open: dict[str, tuple[str, web.BaseSite]] = {}

    async def __aenter__(self) -> Self:
        for door, each in self._served.items():
            runner = web.AppRunner(each, access_log=None, handle_signals=False, shutdown_timeout=_CLOSE_S)
            await runner.setup()
            self._runners[door] = runner
        return self

    async def __aexit__(self, *_: object) -> None:
        for runner in self._runners.values():
            await runner.cleanup()
        for address, _site in self._open.values():
            _remove_socket(address)

    async def open(self, wanted: Mapping[str, str]) -> None:
        """Exactly these from now on, all or nothing. Raises ConfigError."""
        kept = {door: held for door, held in self._open.items() if wanted.get(door) == held[0]}
        opened: dict[str, tuple[str, web.BaseSite]] = {}
        try:
            for door in wanted.keys() - kept.keys():
                opened[door] = (wanted[door], await _open(self._runners[door], wanted[door], door))
        except ConfigError:
            await _close(opened.values())
            raise
        await _close(held for door, held in self._open.items() if door not in kept)
        self._open = kept | opened

    def where(self, door: str) -> str:
        """The address in use: port 0 became a real one."""
        address, site = self._open[door]
        server: Any = getattr(site, "_server", None)
        if address.startswith("unix:") or server is None or not server.sockets:
            return address
        host, port = server.sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


async def _open(runner: web.AppRunner, where: str, door: str) -> web.BaseSite:
    """Listens there. Raises ConfigError."""
    address = parse_listen(where)
    site: web.BaseSite
    try:
        if address.unix:
            site = web.SockSite(runner, _bound(address.unix, _MODES.get(door)))
        else:
            site = web.TCPSite(runner, address.host, address.port)
        await site.start()
    except OSError as exc:
        why = os.strerror(exc.errno) if exc.errno else str(exc)
        hint = f"; is another sentinel running? Set {door}: or SENTINEL_{door.upper()}"
        taken = hint if exc.errno == errno.EADDRINUSE else ""
        raise ConfigError([f"cannot listen on {where}: {why.lower()}{taken}"]) from exc
    return site


def _bound(path: str, mode: int | None) -> socket.socket:
    """A socket at this path that does not listen yet, so nobody connects before its file has its mode."""
    _clear_socket(path)
    bound = socket.socket(socket.AF_UNIX)
    try:
        bound.bind(path)
        if mode is not None:
            Path(path).chmod(mode)
    except OSError:
        bound.close()
        raise
    return bound


async def _close(doors: Iterable[tuple[str, web.BaseSite]]) -> None:
    for where, site in doors:
        await site.stop()
        _remove_socket(where)


def _remove_socket(where: str) -> None:
    if path := parse_listen(where).unix:
        with suppress(OSError):
            Path(path).unlink()


def _clear_socket(path: str) -> None:
    """Removes a socket that nobody listens on any more, as a killed daemon leaves it. Raises OSError if one listens."""
    if not Path(path).is_socket():
        return
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        else:
            raise OSError(errno.EADDRINUSE, "")
