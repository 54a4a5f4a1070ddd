"""Durations, sizes, ratios and limits as people write them, and back: `1000us`, `6GiB`, `90%`.

A number without a unit is refused, never guessed: a limit that is wrong by a thousand looks exactly like health.
Base units inside are seconds, bytes and ratios. Every parser raises ValueError with one sentence.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_DIGITS = frozenset("0123456789")


def _split(text: str) -> tuple[float, str]:
    """The number and the unit behind it. Plain decimals only: no sign, exponent, NaN or infinity."""
    text = text.strip()
    end = 0
    while end < len(text) and (text[end] in _DIGITS or text[end] == "."):
        end += 1
    number, unit = text[:end], text[end:].strip()
    if not _DIGITS.intersection(number) or number.count(".") > 1:
        raise ValueError("no number in front")
    return float(number), unit


def _scaled(text: str, scales: Mapping[str, float], want: str) -> float:
    try:
        number, unit = _split(text)
        if not unit and number == 0:
            return 0.0
        if not unit:
            raise ValueError("no unit")
        if unit not in scales:
            raise ValueError(f"unknown unit {unit!r}")
    except ValueError as exc:
        raise ValueError(f"{text!r}: {exc}, want {want} (units: {', '.join(scales)})") from None
    scale = scales[unit]
    # Dividing keeps 1000us exactly 0.001: a budget must equal the same budget written another way.
    return number * scale if scale >= 1 else number / round(1 / scale)


class Seconds(float):
    """A duration in seconds."""

    FORM = "a duration such as 800ms, 1s or 1000us"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(_scaled(text, _SECONDS, cls.FORM))

    def text(self) -> str:
        """As the configuration writes it; `parse` gives the same duration back."""
        for unit in ("s", "ms", "us", "ns"):
            text = f"{self / _SECONDS[unit]:.12g}"
            if float(text) >= 1 and "e" not in text:
                return text + unit
        return "0s"


class Bytes(int):
    """A size in bytes."""

    FORM = "a size such as 512KiB, 16MiB or 6GiB"

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(_scaled(text, _BYTES, cls.FORM))

    def text(self) -> str:
        """As the configuration writes it."""
        for unit in ("TiB", "GiB", "MiB", "KiB"):
            if self and self % _BYTES[unit] == 0:
                return f"{self // _BYTES[unit]}{unit}"
        return f"{int(self)}B"


class Share(Value):
    """A limit on something that has a whole: a ratio of it (`90%`) or a size (`6GiB`). One of the two is set."""

    ratio: float | None = None
    size_bytes: int | None = None

    @classmethod
    def parse(cls, text: str) -> Share:
        if text.strip().endswith("%"):
            try:
                percent, _ = _split(text.strip()[:-1] + "%")
            except ValueError as exc:
                raise ValueError(f"{text!r}: {exc}, want {cls.FORM}") from None
            if not 0 < percent <= 100:
                raise ValueError(f"{text!r}: want more than 0% and at most 100%")
            return cls(ratio=percent / 100)
        try:
            return cls(size_bytes=int(Bytes.parse(text)))
        except ValueError:
            raise ValueError(f"{text!r}: want {cls.FORM}") from None

    FORM = "a share such as 90%, or a size such as 6GiB"

    def text(self) -> str:
        """As the configuration writes it."""
        return Bytes(self.size_bytes or 0).text() if self.ratio is None else f"{self.ratio * 100:.12g}%"

    def __str__(self) -> str:
        return size(self.size_bytes or 0) if self.ratio is None else percent(self.ratio)


def number(value: float) -> str:
    """Three significant digits, no exponent, no trailing zeros: what a person compares at a glance."""
    if value >= 100:
        return f"{value:.0f}"
    text = f"{value:.3g}"
    return f"{float(text):f}".rstrip("0").rstrip(".")


def duration(seconds: float) -> str:
    """For people: `850 µs`, `1.2 ms`, `3 s`, `2 h 5 min`."""
    if seconds < 0:
        return "-" + duration(-seconds)
    for unit, scale in (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)):
        text = number(seconds / scale)
        if float(text) < (1000 if scale < 1 else 120):
            return f"{text} {unit}"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"


def size(count: float) -> str:
    """For people, in binary units: `512 B`, `1.5 MiB`, `6 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1000:
            return f"{number(count)} {unit}"
        count /= 1024
    return f"{number(count)} TiB"


def percent(ratio: float) -> str:
    """For people: `90 %`."""
    return f"{number(ratio * 100)} %"
