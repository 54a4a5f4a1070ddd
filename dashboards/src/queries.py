"""PromQL in the few shapes that the boards use.

One place for them, so that each query has the matchers of its board's variables and the interval that Grafana chooses.
"""

from __future__ import annotations


class Scope:
    """The series of the engines that are chosen on the board: `of("sentinel_probe_success", kind="http")`."""

    def __init__(self, *matchers: str) -> None:
        self._matchers = matchers

    def __call__(self, metric: str, *matchers: str, **labels: str) -> str:
        exact = (f'{label}="{value}"' for label, value in labels.items())
        return f"{metric}{{{','.join((*self._matchers, *matchers, *exact))}}}"


def rate(series: str) -> str:
    """How fast a counter rises, per second."""
    return f"rate({series}[$__rate_interval])"


def rise(series: str) -> str:
    """By how much a counter rose, about the point that is drawn."""
    return f"increase({series}[$__rate_interval])"


def total(series: str) -> str:
    """By how much a counter rose in the time that the board shows."""
    return f"increase({series}[$__range])"


def peak(series: str) -> str:
    """The highest of a gauge between two points: a spike is seen however far one looks from."""
    return f"max_over_time({series}[$__interval])"


def low(series: str) -> str:
    """The lowest of a gauge between two points."""
    return f"min_over_time({series}[$__interval])"


def worst(value: str, *by: str) -> str:
    """The highest, where several daemons watch the same engine or one came after another."""
    return f"max by ({', '.join(by)}) ({value})"


def quantile(of: float, buckets: str, *by: str) -> str:
    """A quantile of a histogram, from the rate of its buckets."""
    return f"histogram_quantile({of}, sum by ({', '.join((*by, 'le'))}) ({rate(buckets)}))"


# From good to worst, as the daemon's own first line ranks them, and the colour of each.
STATES = {
    "healthy": "green",
    "maintenance": "blue",
    "degraded": "yellow",
    "starting": "light-blue",
    "unknown": "purple",
    "unhealthy": "red",
}


def state(of: Scope, *by: str, over: bool = False) -> str:
    """The place of the worst state in STATES; `over` the time between two points, else of now."""
    series = [of("sentinel_engine_state", state=name) for name in STATES]
    ranked = (f"{place} * {peak(one) if over else one}" for place, one in enumerate(series))
    return worst(" or ".join(ranked), *by)
