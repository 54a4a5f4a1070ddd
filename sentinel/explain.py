"""Why an engine is not well: what the kernel counted in the time of trouble against a healthy time before, ranked.

Pure: the readings, the troubles and a clock for people come in; the table of causes is `causes`. Where nothing changed
it says so as plainly.
"""

from __future__ import annotations

from sentinel.causes import FACT, RULES
from sentinel.model import TYPE_CHECKING, Value
from sentinel.sight import Sight
from sentinel.units import duration, number, percent, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sentinel.causes import Rule
    from sentinel.sight import Columns, Moved, Trouble

LEAD_S = 5.0  # a quantile over a window shows what happened a moment ago, and a probe is asked once a second
_FOLLOWED_S = 0.5  # closer together nobody knows which was first
_LATE_S = 2.0  # what began this long after the troubles is none's cause; readings are a second apart


class Figure(Value):
    """A measured value, what it was before (None where there is nothing to compare with), and the file it is from."""

    name: str
    value: float
    unit: str
    before: float | None
    source: str


class Cause(Value):
    """A cause: the rule that found it, a sentence for a person, since when (monotonic clock), and its figures."""

    rule: str
    sentence: str
    since: float
    figures: tuple[Figure, ...]


class Explanation(Value):
    """What there is to say of a time of trouble; `until` is None while it lasts, `believed` if it changed the state."""

    since: float
    sentence: str
    troubles: tuple[Trouble, ...]
    causes: tuple[Cause, ...]
    until: float | None = None
    believed: bool = False

    @property
    def rule(self) -> str:
        """That of the likeliest cause, or nothing."""
        return self.causes[0].rule if self.causes else ""


def explain(
    columns: Columns,
    troubles: Sequence[Trouble],
    healthy: tuple[float, float],
    now: float,
    clock: Callable[[float], str],
    sources: Mapping[str, str],
) -> Explanation:
    """What explains these troubles, of which there is one at least.

    `healthy` is from when to when nothing was wrong, as lately as may be; `clock` writes a moment of the monotonic
    clock for people; `sources` names the file of a metric.
    """
    since = min(trouble.since for trouble in troubles)
    sight = Sight(columns, troubles, healthy, since - LEAD_S, now)
    latest = max(trouble.since for trouble in troubles) + _LATE_S
    measured = ((rule, rule.measure(sight)) for rule in RULES)
    found = [(rule, moved) for rule, moved in measured if moved is not None and moved.since <= latest]
    found.sort(key=lambda pair: -pair[0].cost * pair[1].now if pair[0].cost < FACT else -FACT)
    explained = {word for rule, _ in found for word in rule.explains}
    causes = tuple(
        _cause(rule, moved, [pair for pair in found if pair[0].word in rule.explains], sight, clock, sources)
        for rule, moved in found
        if rule.word not in explained
    )
    return Explanation(since, _told(causes, sight), tuple(troubles), causes)


def _told(causes: Sequence[Cause], sight: Sight) -> str:
    if causes:
        return f"likely cause: {causes[0].sentence}"
    if not any(at >= sight.begin for times, _ in sight.columns.values() for at in times[-1:]):
        return "no cause found: the kernel's counters of the engine's process were not read"
    if not sight.looked_before():
        return "no cause found: there is no healthy time before to compare with"
    return "no cause found: nothing that the kernel counts of the engine changed, so look into the engine itself"


def _cause(
    rule: Rule,
    moved: Moved,
    symptoms: Sequence[tuple[Rule, Moved]],
    sight: Sight,
    clock: Callable[[float], str],
    sources: Mapping[str, str],
) -> Cause:
    before = "" if moved.before is None or rule.cost == FACT else f", before {_amount(moved.before, rule.unit)}"
    # A fact is told by its probe too, word for word.
    since = "" if rule.cost == FACT else f", since {clock(moved.since)}"
    told = [f"{rule.says(moved, sight)}{before}{since}"]
    told += [_symptom(*pair) for pair in symptoms[:2]]
    later = [trouble for trouble in sight.troubles if trouble.since - moved.since > _FOLLOWED_S]
    if later:
        first = min(later, key=lambda trouble: trouble.since)
        told.append(f"{first.probe} followed {duration(round(first.since - moved.since, 1))} later")
    figures = tuple(
        Figure(one.figure, of.now, one.unit, of.before, sources.get(of.metric, ""))
        for one, of in ((rule, moved), *symptoms)
    )
    return Cause(rule.word, "; ".join(told), moved.since, figures)


def _symptom(rule: Rule, moved: Moved) -> str:
    before = "" if moved.before is None else f", before {_amount(moved.before, rule.unit)}"
    return f"{rule.figure} {_amount(moved.now, rule.unit)}{before}"


def _amount(value: float, unit: str) -> str:
    """For people."""
    if unit == "s/s":
        return f"{duration(value) if value else '0'}/s"
    if unit == "ratio":
        return percent(value)
    return size(value) if unit == "bytes" else f"{number(value)}{unit}"
