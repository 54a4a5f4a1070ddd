"""One look at the kernel's counters while it is taken: every part writes into it what it found, and what it missed."""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Missing

if TYPE_CHECKING:
    from sentinel.model import Counted, Series


class Look:
    """Totals, levels, where they come from, and what is missing."""

    def __init__(self) -> None:
        self.counted: list[Counted] = []
        self.levels: dict[Series, float] = {}
        self.sources: dict[str, str] = {}
        self.missing: dict[str, Missing] = {}

    def source(self, path: str, *metrics: str) -> None:
        self.sources.update(dict.fromkeys(metrics, path))

    def miss(self, source: str, path: str, why: object, remedy: str) -> None:
        """`why` in words, or the exception that says it."""
        told = getattr(why, "strerror", None) or why
        self.missing[source] = Missing(source, f"{path}: {str(told)[:1].lower()}{str(told)[1:]}", remedy)

    def add(self, metric: str, value: float, source: str) -> None:
        """A level of the engine as a whole: that of one process more."""
        self.levels[metric, ()] = self.levels.get((metric, ()), 0) + value
        self.source(source, metric)
