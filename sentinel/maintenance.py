"""Which engine is in maintenance: by command for a while, or by a window of its configuration that comes again.

Pure: both clocks come in, as a command lasts by the monotonic one and a window is a matter of the wall clock in its
time zone. Apart from the board, which knows only what is in force now. Every maintenance has an end.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from sentinel.model import Maintenance, Value, Window
from sentinel.units import Seconds

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Self

    from sentinel.model import EngineSpec

MAX_S = 7 * 86400.0  # what nobody ended by then was forgotten
_STEP_S = 0.5  # two clocks that moved this much against each other: one was set
_STARTS = 10_000  # a week of every minute: a window that has no pause by then has none


class Cron(str):
    """When a window begins: the five fields of crontab(5), as Debian's cron reads them when clocks change too."""

    __slots__ = ()
    FORM = "five fields as of cron, such as '0 22 * * sun'"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            if len(text.split()) != 5:
                raise ValueError(f"{text!r}: want {cls.FORM}")
            next(CronSim(text, datetime(2024, 1, 1, tzinfo=UTC)))
        except CronSimError as exc:
            raise ValueError(f"{text!r}: {str(exc).lower()}, want {cls.FORM}") from exc
        except StopIteration:
            raise ValueError(f"{text!r}: that day never comes") from None
        return cls(text)


class Zone(str):
    """A time zone by its name in the IANA database."""

    __slots__ = ()
    FORM = "a time zone such as Europe/Paris or UTC"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            ZoneInfo(text)
        except (ValueError, OSError, LookupError) as exc:
            raise ValueError(f"{text!r}: want {cls.FORM}") from exc
        return cls(text)


class While(Seconds):
    """How long a maintenance lasts."""

    FORM = "a duration such as 10m, at most 7d"

    @classmethod
    def parse(cls, text: str) -> Self:
        lasts = super().parse(text)
        if not 0 < lasts <= MAX_S:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return lasts


class Reason(str):
    """Why, for a person, on one line."""

    __slots__ = ()
    FORM = "one line of at most 200 letters"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text.isprintable() or len(text) > 200:
            raise ValueError(f"want {cls.FORM}")
        return cls(text)


def never_over(window: Window) -> bool:
    """Whether it always begins again before it ends."""
    starts = CronSim(window.cron, datetime(2024, 1, 1, tzinfo=ZoneInfo(window.zone)))
    began = next(starts).timestamp()
    for _ in range(_STARTS):
        start = next(starts).timestamp()
        if start > began + window.lasts_s:
            return False
        began = start
    return True


class _Stretch(Value):
    """What the windows of one engine say between two moments of the wall clock."""

    offset_s: float
    from_unix: float
    until_unix: float
    maintenance: Maintenance | None


class Calendar:
    """The maintenance of every engine. `now` is the monotonic clock, `unix` the same moment on the wall clock."""

    def __init__(self) -> None:
        self._ordered: dict[str, Maintenance] = {}
        self._ended: dict[str, float] = {}
        self._stretches: dict[str, _Stretch] = {}

    def start(self, engine: str, lasts_s: float, reason: str, now: float, unix: float) -> None:
        """In maintenance by command; a second command takes the place of the first."""
        self._ordered[engine] = _maintenance(now + lasts_s, unix + lasts_s, reason)

    def end(self, engine: str, unix: float) -> None:
        """Out of maintenance, out of a window that is open too: the next one begins as ever."""
        self._ordered.pop(engine, None)
        self._stretches.pop(engine, None)
        self._ended[engine] = unix

    def keep(self, engines: Collection[str]) -> None:
        """After a reload: forgets the engines that are watched no more, and what the windows were."""
        self._stretches.clear()
        for known in (self._ordered, self._ended):
            for gone in known.keys() - set(engines):
                del known[gone]

    def of(self, spec: EngineSpec, now: float, unix: float) -> Maintenance | None:
        """What is in force now; of several, the one that lasts longest."""
        ordered = self._ordered.get(spec.name)
        if ordered is None and not spec.windows:
            return None
        if ordered is not None and ordered.until <= now:
            del self._ordered[spec.name]
            ordered = None
        found = [ordered, self._by_window(spec, now, unix) if spec.windows else None]
        return max((each for each in found if each is not None), key=lambda each: each.until, default=None)

    def _by_window(self, spec: EngineSpec, now: float, unix: float) -> Maintenance | None:
        """Looked up in the calendar at its edges only, and where the wall clock was set."""
        known = self._stretches.get(spec.name)
        if (
            known is None
            or not known.from_unix <= unix < known.until_unix
            or abs(unix - now - known.offset_s) > _STEP_S
        ):
            known = self._stretches[spec.name] = _stretch(spec, now, unix, self._ended.get(spec.name, 0.0))
        return known.maintenance


def _stretch(spec: EngineSpec, now: float, unix: float, ended_unix: float) -> _Stretch:
    until_unix, longest = float("inf"), None
    for window in spec.windows:
        start = _start_after(window, max(unix - window.lasts_s, ended_unix))
        end = start + window.lasts_s
        if start > unix:
            until_unix = min(until_unix, start)
            continue
        until_unix = min(until_unix, end)
        maintenance = _maintenance(now + end - unix, end, window.reason)
        if longest is None or maintenance.until > longest.until:
            longest = maintenance
    return _Stretch(unix - now, unix, until_unix, longest)


def _start_after(window: Window, unix: float) -> float:
    starts = CronSim(window.cron, datetime.fromtimestamp(unix, ZoneInfo(window.zone)))
    # In the hour that winter time repeats, the start before this moment comes first.
    return next(start for start in (each.timestamp() for each in starts) if start > unix)


def _maintenance(until: float, until_unix: float, reason: str) -> Maintenance:
    told = datetime.fromtimestamp(until_unix, UTC).strftime("until %Y-%m-%dT%H:%M:%SZ")
    return Maintenance(until, reason, f"{told}: {reason}" if reason else told)
