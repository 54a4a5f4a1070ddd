"""The latency probe: from a page to a verdict, its sentence and what is published."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from sentinel.model import Answer, Failure, Reading, Response
from sentinel.probes import latency
from sentinel.probes.latency import Quantile, Quantiles, Settings, Unit, WhenIdle, unit_of
from sentinel.selector import Selector
from sentinel.units import Seconds

if TYPE_CHECKING:
    from sentinel.model import Observation

URL = "http://localhost:9090/metrics"


def answer(page: str, at: float = 100.0, content_type: str = "", status: int = 200) -> Answer:
    return Answer(at, 0.01, Response(status, content_type, "", page.encode(), 0.001, 0.002, 0.01))


def settings(metric: str = "latency_p99", **more: Any) -> Settings:
    return Settings(url=URL, metric=Selector.parse(metric), **more)


def seen(page: str, metric: str = "latency_p99", **more: Any) -> Observation:
    return latency.read(settings(metric, **more), (answer(page),), None)[0]


def histogram(*counts: int, labels: str = "", name: str = "order_latency_seconds", start: str = "") -> str:
    """Up to 0.5 ms, 1 ms, 2.5 ms and any; counts of each bucket alone."""
    lines = [f"# TYPE {name} histogram"]
    for at, le in enumerate(("0.0005", "0.001", "0.0025", "+Inf")):
        lines.append(f'{name}_bucket{{{labels}le="{le}"}} {sum(counts[: at + 1])}')
    if start:
        lines.append(f"process_start_time_seconds {start}")
    return "\n".join([*lines, ""])


def windows(*pages: str, metric: str = "order_latency_seconds", **more: Any) -> list[Observation]:
    memory = None
    observations = []
    for at, page in enumerate(pages):
        observation, memory = latency.read(settings(metric, **more), (answer(page, 100.0 + at),), memory)
        observations.append(observation)
    return observations


def test_it_asks_for_one_page_of_which_it_wants_the_metric_and_the_start() -> None:
    (get,) = latency.asks(settings('lat{venue="X"}'))
    assert (get.url, get.max_bytes, get.fresh) == (URL, 16 << 20, False)
    assert get.families == ("lat", "process_start_time_seconds")


# --- gauges and summaries ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "more", "ok", "reason", "sentence"),
    [
        pytest.param("latency_p99 850\n", {}, True, "", "p99 of latency_p99 is 850 µs, limit 1 ms", id="within"),
        pytest.param("latency_p99 1000\n", {}, True, "", "p99 of latency_p99 is 1 ms, limit 1 ms", id="on the limit"),
        pytest.param(
            "latency_p99 1300\n", {}, False, "over_budget", "p99 of latency_p99 is 1.3 ms, limit 1 ms", id="over"
        ),
        pytest.param(
            "latency_p99 +Inf\n", {}, False, "over_budget", "p99 of latency_p99 is infinite, limit 1 ms", id="infinity"
        ),
        pytest.param(
            'latency_p99{a="1"} 2\nlatency_p99{a="2"} 1300\n',
            {},
            False,
            "over_budget",
            'p99 of latency_p99 is 1.3 ms in the worst of 2 series, {a="2"}, limit 1 ms',
            id="the worst of several",
        ),
        pytest.param("latency_p99 NaN\n", {}, False, "not_a_number", "latency_p99 is NaN, no latency", id="NaN"),
        pytest.param(
            'latency_p99{a="1"} 2\nlatency_p99{a="2"} NaN\n',
            {},
            False,
            "not_a_number",
            'latency_p99{a="2"} is NaN, no latency',
            id="one of several is NaN",
        ),
        pytest.param("latency_p99 -1\n", {}, False, "negative", "latency_p99 is -1, no latency", id="negative"),
        pytest.param(
            "# HELP latency_p99 850\n",
            {},
            False,
            "metric_missing",
            f"GET {URL}: no metric latency_p99",
            id="only a HELP line",
        ),
        pytest.param("", {}, False, "metric_missing", f"GET {URL}: no metric latency_p99", id="an empty page"),
        pytest.param(
            "# TYPE latency_p99 counter\nlatency_p99 3\n",
            {},
            False,
            "wrong_type",
            "latency_p99 has the type counter, want a gauge, a summary or a histogram",
            id="a counter",
        ),
        pytest.param(
            "latency_p99 85",
            {},
            False,
            "page_cut",
            f"GET {URL}: the page ends in the middle of a line: 'latency_p99 85'",
            id="a page that was cut",
        ),
        pytest.param(
            "latency_p99 1\nlatency_p99 2\n",
            {},
            False,
            "bad_page",
            f"GET {URL}: latency_p99 stands on the page twice",
            id="a series twice",
        ),
        pytest.param(
            "latency_p99 850\n", {"unit": Unit("ns")}, True, "", "p99 of latency_p99 is 850 ns, limit 1 ms", id="unit:"
        ),
    ],
)
def test_a_gauge(page: str, more: dict[str, Any], ok: bool, reason: str, sentence: str) -> None:
    observation = seen(page, **more)
    assert (observation.ok, observation.reason, observation.sentence) == (ok, reason, sentence)


SUMMARY = """# TYPE rpc_ms summary
rpc_ms{quantile="0.5",v="a"} 0.2
rpc_ms{quantile="0.99",v="a"} 0.9
rpc_ms{quantile="0.5",v="b"} NaN
rpc_ms{quantile="0.99",v="b"} NaN
rpc_ms_sum{v="a"} 12
rpc_ms_count{v="a"} 30
"""


def test_a_summary_whose_other_series_are_idle() -> None:
    observation = seen(SUMMARY, "rpc_ms")
    assert (observation.ok, observation.sentence) == (True, "p99 of rpc_ms is 900 µs, limit 1 ms")
    assert observation.details == ()


@pytest.mark.parametrize(("when_idle", "ok"), [("ok", True), ("unknown", None), ("fail", False)])
def test_a_summary_in_which_nothing_happened(when_idle: str, ok: bool | None) -> None:
    observation = seen(SUMMARY, 'rpc_ms{v="b"}', when_idle=WhenIdle(when_idle))
    assert (observation.ok, observation.reason) == (ok, "no_samples")
    assert observation.sentence == 'p99 of rpc_ms{v="b"} is NaN: nothing was observed'


def test_a_summary_without_the_quantile_names_those_it_has() -> None:
    observation = seen(SUMMARY, "rpc_ms", quantile=Quantile(0.999))
    assert (observation.ok, observation.reason) == (False, "metric_missing")
    assert observation.sentence == "rpc_ms has no quantile 0.999, only 0.5, 0.99"


def test_a_selector_that_no_series_fits() -> None:
    observation = seen(SUMMARY, 'rpc_ms{v="c"}')
    assert observation.sentence == f'GET {URL}: rpc_ms is there, but no series of rpc_ms{{v="c"}}'


def test_several_quantiles_each_with_a_budget() -> None:
    budgets = Quantiles.parse({"0.5": "100us", "0.99": "1ms"})
    observation = seen(SUMMARY, "rpc_ms", quantiles=budgets)
    assert (observation.ok, observation.value, observation.limit) == (False, 0.0002, 0.0001)
    assert observation.sentence == "p50 of rpc_ms is 200 µs, limit 100 µs"
    assert observation.readings == (
        Reading("sentinel_engine_latency_seconds", 0.0002, ("0.5",)),
        Reading("sentinel_engine_latency_seconds", 0.0009, ("0.99",)),
        Reading("sentinel_engine_latency_budget_seconds", 0.0001, ("0.5",)),
        Reading("sentinel_engine_latency_budget_seconds", 0.001, ("0.99",)),
    )


def test_a_gauge_is_the_one_quantile_configured_first() -> None:
    observation = seen("latency_p99 1300\n", quantiles=Quantiles.parse(["0.99", "0.999"]))
    assert [reading.labels for reading in observation.readings if reading.value != 0.001] == [("0.99",)]


# --- histograms -------------------------------------------------------------------------------------------------------


def test_a_window_shows_a_spike_at_once_and_names_its_bucket() -> None:
    first, spike = windows(histogram(10**6, 0, 0, 0), histogram(10**6, 0, 100, 0))
    assert first.sentence == (
        "p99 of order_latency_seconds is 495 µs (between 0 ns and 500 µs) since the engine's start, limit 1 ms"
    )
    assert (first.ok, first.details) == (True, (("window", "lifetime"),))
    assert (spike.ok, spike.reason) == (False, "over_budget")
    assert spike.sentence == (
        "p99 of order_latency_seconds is 2.49 ms (between 1 ms and 2.5 ms) over the last 1 s, limit 1 ms"
    )
    assert spike.readings[:3] == (
        Reading("sentinel_engine_latency_seconds", spike.value, ("0.99",)),
        Reading("sentinel_engine_latency_low_seconds", 0.001, ("0.99",)),
        Reading("sentinel_engine_latency_high_seconds", 0.0025, ("0.99",)),
    )


def test_a_verdict_that_the_width_of_a_bucket_decides_says_so() -> None:
    observation = seen(histogram(0, 0, 100, 0), "order_latency_seconds", max=Seconds(0.0024))
    assert (observation.ok, observation.reason) == (False, "over_budget")
    assert observation.sentence.endswith("limit 2.4 ms: the bucket is too wide to be sure")


def test_above_the_largest_bucket_and_the_limit_is_over() -> None:
    observation = seen(histogram(0, 0, 0, 9), "order_latency_seconds")
    assert (observation.ok, observation.value) == (False, 0.0025)
    assert observation.sentence == (
        "p99 of order_latency_seconds is above 2.5 ms (the largest bucket) since the engine's start, limit 1 ms"
    )


def test_above_the_largest_bucket_but_not_the_limit_is_unknown() -> None:
    observation = seen(histogram(0, 0, 0, 9), "order_latency_seconds", max=Seconds(1))
    assert (observation.ok, observation.reason) == (None, "bucket_too_wide")
    assert observation.sentence.endswith("limit 1 s: no bucket reaches the limit")
    assert Reading("sentinel_engine_latency_high_seconds", math.inf, ("0.99",)) in observation.readings


@pytest.mark.parametrize(("when_idle", "ok"), [("ok", True), ("unknown", None), ("fail", False)])
def test_nothing_observed_in_the_window(when_idle: str, ok: bool | None) -> None:
    page = histogram(5, 0, 0, 0)
    _, idle = windows(page, page, when_idle=WhenIdle(when_idle))
    assert (idle.ok, idle.reason, idle.value) == (ok, "no_samples", None)
    assert idle.sentence == "nothing was observed in order_latency_seconds over the last 1 s"
    assert [reading.metric for reading in idle.readings] == ["sentinel_engine_latency_budget_seconds"]


def test_series_are_merged_as_buckets() -> None:
    """The p99 of the worst series alone would be over; one slow order in a thousand is not."""
    page = histogram(999, 0, 0, 0, labels='v="a",') + histogram(0, 0, 1, 0, labels='v="b",')
    assert seen(page.replace("# TYPE", "#"), "order_latency_seconds").ok is True
    assert seen(page, 'order_latency_seconds{v="b"}').ok is False


def test_a_restart_is_seen_by_the_start_of_the_process_though_every_counter_rose() -> None:
    slow, fast = histogram(0, 0, 10, 0, start="1000"), histogram(100, 0, 11, 0, start="2000")
    _, restarted = windows(slow, fast)
    assert "since the engine's start" in restarted.sentence


def test_a_page_that_misses_the_metric_once_does_not_lose_the_window() -> None:
    page, more = histogram(10**6, 0, 0, 0), histogram(10**6, 0, 9, 0)
    *_, missing, after = windows(page, page, "x 1\n", more)
    assert missing.reason == "metric_missing"
    assert after.sentence.endswith("over the last 3 s, limit 1 ms")
    assert after.ok is False


def test_a_histogram_that_contradicts_itself_keeps_the_window() -> None:
    good = histogram(10, 0, 0, 0)
    _, bad, after = windows(good, good.replace('le="+Inf"', 'le="9"'), histogram(20, 0, 0, 0))
    assert (bad.ok, bad.reason) == (False, "bad_page")
    assert "over the last 2 s" in after.sentence


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("order_latency_seconds", "seconds"),
        ("latency_us", "us"),
        ("latency_us_p99", "us"),
        ("latency_ms_p99_9", "ms"),
        ("latency_microseconds_max", "microseconds"),
        ("latency_ns_quantile", "ns"),
        ("latency_p99", ""),
        ("seconds", ""),
        ("ms_latency", ""),
        ("latencies", ""),
    ],
)
def test_the_unit_in_a_name(name: str, unit: str) -> None:
    assert unit_of(name) == unit


def test_a_bare_name_is_microseconds_and_says_so() -> None:
    assert seen("latency_p99 850\n").details == (("assumed", "µs, as the name latency_p99 does not say its unit"),)
    assert seen("latency_p99 850\n", unit=Unit("us")).details == ()


def test_the_unit_that_openmetrics_names() -> None:
    page = "# TYPE lat gauge\n# UNIT lat milliseconds\nlat 0.5\n# EOF\n"
    observation, _ = latency.read(settings("lat"), (answer(page, content_type="application/openmetrics-text"),), None)
    assert (observation.ok, observation.value) == (True, 0.0005)


def test_a_unit_that_is_no_time() -> None:
    page = "# UNIT lat bytes\nlat 0.5\n"
    assert seen(page, "lat").sentence == "lat has the unit 'bytes', want one of s, ms, us, ns"


# --- answers and settings ---------------------------------------------------------------------------------------------


def test_a_failed_ask_keeps_the_window() -> None:
    _, memory = latency.read(settings("order_latency_seconds"), (answer(histogram(1, 0, 0, 0)),), None)
    failed = Answer(101.0, 0.8, failure=Failure("timeout", f"GET {URL}: no answer in 800 ms"))
    observation, after = latency.read(settings("order_latency_seconds"), (failed,), memory)
    assert (observation.ok, observation.reason) == (False, "timeout")
    assert after is memory


def test_a_status_that_is_not_2xx() -> None:
    observation, _ = latency.read(settings(), (answer("latency_p99 850\n", status=503),), None)
    assert (observation.ok, observation.reason) == (False, "http_status")
    assert observation.sentence == f"GET {URL}: status 503, want 2xx"


@pytest.mark.parametrize(
    ("type_", "plain", "fault"),
    [
        (Quantile, "99", "'99': want a number from 0 to 1, such as 0.99"),
        (Quantile, "nan", "'nan': want a number from 0 to 1, such as 0.99"),
        (Quantile, "p99", "'p99': want a number from 0 to 1, such as 0.99"),
        (Quantiles, "0.99", f"want {Quantiles.FORM}"),
        (Quantiles, [], f"want {Quantiles.FORM}"),
        (Quantiles, ["0.5", "0.50"], "a quantile stands there twice"),
        (
            Quantiles,
            {"0.5": "1"},
            "'1': no unit, want a duration such as 800ms, 1s or 1000us (units: ns, us, µs, μs, ms, s, m, h, d)",
        ),
        (Unit, "bytes", "'bytes': want one of s, ms, us, ns"),
        (WhenIdle, "maybe", "'maybe': want one of ok, unknown, fail"),
    ],
)
def test_a_bad_setting_is_one_sentence(type_: Any, plain: object, fault: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        type_.parse(plain)
    assert str(caught.value) == fault


def test_quantiles_that_share_the_budget() -> None:
    budgets = settings(quantiles=Quantiles.parse(["0.99", "0.5"]), max=Seconds(0.002)).budgets()
    assert budgets == ((0.99, 0.002), (0.5, 0.002))
