"""One metric family as values: what every exposition is read into, and what all of them refuse with.

Stands apart because the text formats, the protobuf one and the quantiles all speak of it; it knows none of them.

    PageError                  reason (`page_cut`, `bad_page`) and one sentence: the page gives no certain value
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from sentinel.native import Native
    from sentinel.selector import Selector

    # name as on the page, labels, value
    Sample = tuple[str, dict[str, str], float]

# What a family's samples are called behind its name (OpenMetrics 1.0, "Metric Types"; text format 0.0.4).
SUFFIXES = {
    "gauge": ("",),
    "counter": ("", "_total", "_created"),
    "summary": ("", "_count", "_sum", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "info": ("_info",),
    "stateset": ("",),
}
ANY_SUFFIX = tuple({suffix: None for suffixes in SUFFIXES.values() for suffix in suffixes})


class PageError(Exception):
    """The page gives no certain value. `reason` is `page_cut` or `bad_page`; the text is one sentence."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Family(Value):
    """The selected series of one family, in the order of the page.

    `type` and `unit` are as the page says, or empty. `unmatched` counts the samples that the selector's matchers
    left out. `created` are the samples that say when a series began, in seconds since 1970.
    """

    name: str
    type: str = ""
    unit: str = ""
    samples: tuple[Sample, ...] = ()
    unmatched: int = 0
    created: tuple[Sample, ...] = ()
    natives: tuple[tuple[dict[str, str], Native], ...] = ()


def select(selector: Selector, type_: str, unit: str, samples: list[Sample], openmetrics: bool = True) -> Family:
    """The family of these samples, in which others may stand that only begin with the same name."""
    name = selector.name
    if type_ in ("untyped", "unknown"):
        type_ = ""
    suffixes = SUFFIXES.get(type_, ("",))
    if not type_ and any(sample[0] == name + "_bucket" for sample in samples):
        suffixes = SUFFIXES["histogram"]
    if not openmetrics:  # there a family of its own
        suffixes = tuple(suffix for suffix in suffixes if suffix != "_created")
    own = [sample for sample in samples if sample[0].startswith(name) and sample[0][len(name) :] in suffixes]
    fitting = [sample for sample in own if selector.fits(sample[1])] if selector.matchers else own
    created = tuple(sample for sample in samples if sample[0] == name + "_created")
    return Family(name, type_, unit, tuple(fitting), len(own) - len(fitting), created)
