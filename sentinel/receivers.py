"""Whom Sentinel tells by itself: each kind of receiver and its settings, as the configuration gives them.

Values only, apart from what sends (publish/notify.py), so that a configuration is checked without sending. What a URL
here holds is mostly a secret: nothing prints more of it than where it goes.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from sentinel.address import Headers, Url, parse_url
from sentinel.model import Value
from sentinel.units import Seconds

if TYPE_CHECKING:
    from typing import Self

SEVERITY = {"unhealthy": "page", "unknown": "page", "degraded": "ticket"}  # as the rules in alerts/ have it
OWN_LABELS = ("alertname", "engine", "severity", "state")


class SecretUrl(Url):
    """A URL whose path says who may use it."""

    __slots__ = ()
    FORM = "an http or https URL, mostly as file:PATH"

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            parse_url(text)
        except ValueError:
            raise ValueError(f"cannot be reached, want {cls.FORM}") from None  # the other sentence repeats it
        return cls(text)

    def text(self) -> str:
        """Where it goes."""
        address = parse_url(self)
        return f"{'https' if address.tls else 'http'}://{address.authority}/***"


class AppriseUrl(str):
    """A URL as Apprise has them, one for each service."""

    __slots__ = ()
    FORM = "a URL that Apprise knows, such as mailto://… or slack://…, mostly as file:PATH"

    @classmethod
    def parse(cls, text: str) -> Self:
        if "://" not in text:
            raise ValueError(f"Apprise cannot read it, want {cls.FORM}")
        return cls(text)

    def fault(self) -> str:
        """What Apprise has against it, or nothing. Apart from `parse`, as Apprise takes 0.3 s to load."""
        try:
            import apprise
        except ImportError:
            return "needs Apprise: pip install 'sentinel-engine-monitor[notify]'"
        logging.getLogger("apprise").propagate = False  # it would print the URL
        try:
            known = apprise.Apprise.instantiate(str(self), suppress_exceptions=False)
        except Exception:  # noqa: BLE001  # whatever one of a hundred plug-ins thinks of it, and it may hold the secret
            known = None
        return "" if known is not None else f"Apprise cannot read it, want {self.FORM}"

    def text(self) -> str:
        """Which service."""
        return f"{self.partition('://')[0]}://***"


class States(tuple[str, ...]):
    """The states of an engine that a receiver hears of."""

    __slots__ = ()
    FORM = "a list of unhealthy, unknown and degraded"
    PLAIN = True  # takes what YAML has, not only text

    @classmethod
    def parse(cls, plain: object) -> Self:
        if not isinstance(plain, list) or not plain or not all(state in SEVERITY for state in plain):
            raise ValueError(f"want {cls.FORM}")
        return cls(plain)

    def plain(self) -> list[str]:
        """As the configuration writes it."""
        return list(self)


class Labels(tuple[tuple[str, str], ...]):
    """Labels beside our own."""

    __slots__ = ()
    FORM = "labels, a map such as {team: trading}"
    PLAIN = True  # takes what YAML has, not only text

    @classmethod
    def parse(cls, plain: object) -> Self:
        if not isinstance(plain, dict) or not all(isinstance(value, str) for value in plain.values()):
            raise ValueError(f"want {cls.FORM}")
        for name in plain:
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name):
                raise ValueError(f"{name!r} is not the name of a label")
            if name in OWN_LABELS:
                raise ValueError(f"{name} is a label of Sentinel's own")
        return cls(plain.items())

    def plain(self) -> dict[str, str]:
        """As the configuration writes it."""
        return dict(self)


class Pause(Seconds):
    """A pause between two messages."""

    FORM = "a duration of at least 1s, such as 30s or 1m"

    @classmethod
    def parse(cls, text: str) -> Self:
        pause = super().parse(text)
        if pause < 1:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return pause


class PauseOrNever(Seconds):
    """A pause between two messages, or none after the first."""

    FORM = "a duration of at least 1s such as 4h, or 0s for never"

    @classmethod
    def parse(cls, text: str) -> Self:
        pause = super().parse(text)
        if 0 < pause < 1:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return pause


class PerHour(int):
    """How many messages an hour may have."""

    FORM = "a number of messages from 1 to 1000"

    @classmethod
    def parse(cls, text: str) -> Self:
        if not text.isdecimal() or not 1 <= int(text[:5]) <= 1000:
            raise ValueError(f"{text!r}: want {cls.FORM}")
        return cls(text)

    def plain(self) -> int:
        """As the configuration writes it."""
        return int(self)


class Alertmanager(Value):
    """Prometheus' Alertmanager, by version 2 of its API."""

    url: Url
    headers: Headers = Headers()
    states: States = States(SEVERITY)
    resend: Pause = Pause(60)
    labels: Labels = Labels()
    runbooks: str = ""


class Apprise(Value):
    """A chat, a mail, a text message: whatever Apprise reaches."""

    url: AppriseUrl
    states: States = States(SEVERITY)
    reminder: PauseOrNever = PauseOrNever(4 * 3600)
    per_hour: PerHour = PerHour(20)


class Heartbeat(Value):
    """A dead man's switch: a URL that is asked while the schedule is fresh."""

    url: SecretUrl
    every: Pause = Pause(30)
    fail: str = ""


KINDS: dict[str, Any] = {"alertmanager": Alertmanager, "apprise": Apprise, "heartbeat": Heartbeat}


class Receiver(Value):
    """One receiver by its name in the configuration."""

    name: str
    kind: str
    settings: Any
