"""The kinds of probe: one file a kind, found by looking into this folder. There is no list of kinds anywhere.

A kind is a module with what `Kind` names. It does no I/O: it says what it wants (`asks`) and makes an observation
of the answers (`read`), so the one-shot check, the daemon and a test share one definition.
A module that cannot be loaded stops the program: a probe that silently does not exist looks like health.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Protocol

    from sentinel.model import Answer, Ask, Metric, Observation

    class Kind(Protocol):
        """What a module in this folder offers. `memory` is whatever the kind wants to keep between two answers."""

        Settings: type[Any]  # a Value; each field is a key of the YAML file
        METRICS: tuple[Metric, ...]
        NEEDS: str  # the kind that a probe of this kind depends on, where `needs:` does not say; "" for none

        def asks(self, settings: Any) -> tuple[Ask, ...]:
            """What must be known for one observation."""

        def read(self, settings: Any, answers: tuple[Answer, ...], memory: Any) -> tuple[Observation, Any]:
            """Pure: the answers, in the order of the asks, as an observation, and the memory for the next time."""


def load(kind: str) -> Kind:
    """The module of one kind, by its name; nothing else in the folder is imported. Raises ModuleNotFoundError."""
    return __import__(f"sentinel.probes.{kind}", fromlist=("read",))


def kinds() -> dict[str, Kind]:
    """Every kind there is, by name. Whatever a module raises while it loads goes to the caller."""
    import pkgutil  # the one-shot check loads kinds by name and never comes here

    return {found.name: load(found.name) for found in pkgutil.iter_modules(__path__)}
