"""The truth of windowed quantiles: the answer's bucket holds the true quantile of exactly the window's observations."""

from __future__ import annotations

import math
from bisect import bisect_left
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sentinel.exposition import PageError, Selector, read_family
from sentinel.native import Native, bound, spread
from sentinel.quantiles import Classic, Estimate, Window, estimate, gauges, histograms, merge, summaries

INF = math.inf
LAYOUTS = ((0.001, 0.01, 0.1, INF), (0.001, 0.005, 0.01, 0.1, 1.0, INF), (0.01, INF), (0.002, 0.2, INF))
values = st.one_of(st.sampled_from([0.001, 0.0010001, 0.005, 0.1, 0.2, 5.0]), st.floats(1e-5, 2.0))
quantiles = st.sampled_from(["0", "0.01", "0.07", "0.5", "0.9", "0.99", "0.999", "1"])


def classic(observed: list[float], bounds: tuple[float, ...] = LAYOUTS[0], since: float | None = None) -> Classic:
    counts = [0.0] * len(bounds)
    for value in observed:
        counts[bisect_left(bounds, value)] += 1
    return Classic(bounds, tuple(counts), since)


def true_quantile(observed: list[float], quantile: str) -> float:
    """The smallest value that at least this share of the observations does not exceed."""
    rank = max(1, math.ceil(Fraction(quantile) * len(observed)))
    return sorted(observed)[rank - 1]


def key(name: str) -> tuple[tuple[str, str], ...]:
    return (("shard", name),)


def holds(answer: Estimate | None, observed: list[float], quantile: str, slack: float = 0.0) -> None:
    if not observed:
        assert answer is None
        return
    assert answer is not None
    truth = true_quantile(observed, quantile)
    room = slack * abs(truth)
    assert answer.low - room <= truth <= answer.high + room
    assert answer.low <= answer.value <= answer.high
    if slack == 0.0 and answer.low > 0:
        assert answer.low < truth


# --- one history: shards observe, pages are read or missed, the engine restarts, bounds change ------------------------

SPAN_S = 5.0
shards = st.sampled_from("abc")
events = st.one_of(
    st.tuples(st.just("observe"), shards, st.lists(values, min_size=1, max_size=8)),
    st.tuples(st.just("read"), st.floats(0.1, 4.0), st.sets(shards, max_size=1)),  # without the series of these
    st.tuples(st.just("read"), st.floats(0.1, 4.0), st.just(set())),
    st.tuples(st.just("pass"), st.floats(0.1, 8.0), st.none()),
    st.tuples(st.just("restart"), st.none(), st.none()),
    st.tuples(st.just("bounds"), shards, st.sampled_from(LAYOUTS)),
)


@settings(max_examples=2000)
@given(st.lists(events, max_size=40), quantiles, st.booleans())
def test_the_bucket_holds_the_true_quantile_of_the_window(history: list, quantile: str, created: bool) -> None:
    window = Window(SPAN_S)
    clock, epoch = 0.0, 0
    alive: dict[str, list[float]] = {}  # what each shard counted since the engine started
    unread: dict[str, list[float]] = {}  # and what of it no reading has shown
    layouts = dict.fromkeys("abc", LAYOUTS[0])
    epochs: dict[object, int] = {}  # of each series when it was last read
    first: list[float] | None = None  # what the first reading showed
    steps: list[tuple[float, list[float]]] = []  # when each began, and what the reading at its end showed first
    for what, who, detail in history:
        if what == "observe":
            alive.setdefault(who, []).extend(detail)
            unread.setdefault(who, []).extend(detail)
        elif what == "pass":
            clock += who
        elif what == "restart":
            alive, unread, epoch = {}, {}, epoch + 1
        elif what == "bounds":
            layouts[who] = detail
        else:
            shown = [shard for shard in alive if shard not in detail]
            since = epoch if created else None
            page = {key(shard): classic(alive[shard], layouts[shard], since) for shard in shown}
            if not page:
                continue
            began, clock = clock if window.at is None else window.at, clock + who
            for series, now in page.items():
                if not created and epochs.get(series, epoch) != epoch and now.grown(window.last[series][1]) is not now:
                    return  # a restarted counter that passed its old value: nothing on the page tells
                epochs[series] = epoch
            window = window.read(clock, page)
            fresh = [value for shard in shown for value in unread.pop(shard, [])]
            if first is None:
                first = fresh
            else:
                steps = [step for step in steps if step[0] >= clock - SPAN_S] + [(began, fresh)]
            assert window.lifetime == (not steps)
            observed = [value for _, values_ in steps for value in values_] if steps else first
            holds(estimate(window.observed(), float(quantile)), observed, quantile)


# --- native histograms ------------------------------------------------------------------------------------------------


def native(observed: list[float], schema: int, zero_threshold: float = 0.0) -> Native:
    """As a client library counts."""
    positive: dict[int, float] = {}
    negative: dict[int, float] = {}
    zero = 0.0
    for value in observed:
        if abs(value) <= zero_threshold:
            zero += 1
            continue
        counts = positive if value > 0 else negative
        index = math.ceil(math.log2(abs(value)) * 2.0**schema)
        counts[index] = counts.get(index, 0) + 1
    return Native(schema, zero_threshold, zero, positive, negative)


anything = st.one_of(values, st.floats(-2.0, -0.31), st.floats(1e-5, 1e-3), st.just(0.0))


@settings(max_examples=500)
@given(
    st.lists(st.tuples(st.lists(anything, max_size=20), st.integers(-4, 8), st.sampled_from([1e-9, 0.001, 0.3]))),
    st.lists(anything, max_size=5),
    quantiles,
)
def test_native_quantiles_are_within_the_relative_error_of_the_schema(
    parts: list, before: list[float], quantile: str
) -> None:
    """Merged from any resolutions, and as the difference of two readings of any resolutions."""
    observed = [value for part, _, _ in parts for value in part]
    histograms_ = [native(part, schema, zero) for part, schema, zero in parts]
    if not histograms_:
        return
    holds(estimate(merge(histograms_), float(quantile)), observed, quantile, slack=1e-9)
    part, schema, zero = parts[0]
    old = native(before, max(-4, schema - 1), zero)
    now = native(before + part, schema, zero)
    answer = estimate(now.grown(old), float(quantile))
    holds(answer, part, quantile, slack=1e-9)
    if answer and answer.low > zero:
        assert answer.high / answer.low <= 2.0 ** (2.0 ** -max(-4, schema - 1)) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("schema", "index", "upper"),
    [(0, 0, 1.0), (0, 3, 8.0), (0, -1, 0.5), (1, 2, 2.0), (3, 8, 2.0), (-1, 1, 4.0), (-4, 1, 65536.0), (-4, 999, INF)],
)
def test_the_bounds_of_native_buckets(schema: int, index: int, upper: float) -> None:
    assert bound(schema, index) == upper


def test_spans_place_counts_by_offsets_from_the_span_before() -> None:
    assert spread([(-2, 2), (1, 1)], [5, 6, 7]) == {-2: 5, -1: 6, 1: 7}
    with pytest.raises(ValueError, match="differ in length"):
        spread([(0, 2)], [1])


def test_a_native_histogram_whose_bucket_fell_began_anew() -> None:
    old, now = native([1.0, 1.0, 3.0], 2), native([1.0], 2)
    assert now.grown(old) == now


# --- windows, step by step --------------------------------------------------------------------------------------------


def window_of(*readings: tuple[float, dict[object, Classic]], span_s: float = 10.0) -> Window:
    window = Window(span_s)
    for at, series in readings:
        window = window.read(at, series)
    return window


def test_the_first_reading_is_of_the_whole_life() -> None:
    window = window_of((5.0, {(): classic([0.002] * 3)}))
    assert window.lifetime
    assert window.observed().total == 3


def test_a_spike_fades_when_it_leaves_the_window() -> None:
    window = window_of((0.0, {(): classic([0.0005] * 100)}))
    seen = [0.0005] * 100
    p99 = []
    for at in range(1, 16):
        seen += [0.05] * 100 if at == 3 else [0.0005] * 10
        window = window.read(float(at), {(): classic(seen)})
        answer = estimate(window.observed(), 0.99)
        assert answer is not None
        p99.append(answer.high)
    assert p99 == [0.001] * 2 + [0.1] * 10 + [0.001] * 3


def test_nothing_observed_in_the_window_is_no_estimate() -> None:
    window = window_of((0.0, {(): classic([0.05])}), (1.0, {(): classic([0.05])}))
    assert estimate(window.observed(), 0.99) is None
    assert window.covers_s == 1.0


def test_a_gap_longer_than_the_window_is_covered_whole() -> None:
    window = window_of((0.0, {(): classic([])}), (1.0, {(): classic([0.05])}), (31.0, {(): classic([0.05] * 3)}))
    assert (window.covers_s, window.observed().total) == (30.0, 2)


def test_the_same_reading_twice_changes_nothing() -> None:
    window = window_of((0.0, {(): classic([0.05])}))
    assert window.read(0.0, {(): classic([])}) is window


def test_a_restart_counts_what_was_observed_since() -> None:
    window = window_of((0.0, {(): classic([0.05] * 9)}), (1.0, {(): classic([0.0005] * 2)}))
    assert window.observed() == Classic(LAYOUTS[0], (2, 0, 0, 0))


def test_a_bucket_that_fell_is_a_restart_though_the_total_rose() -> None:
    window = window_of((0.0, {(): classic([0.05] * 2)}), (1.0, {(): classic([0.0005] * 5)}))
    assert window.observed().total == 5


def test_a_series_that_comes_back_goes_on_where_it_stood() -> None:
    a, b = key("a"), key("b")
    gone = window_of((0.0, {a: classic([]), b: classic([0.05] * 99)}), (1.0, {a: classic([])}))
    assert gone.read(2.0, {a: classic([]), b: classic([0.05] * 100)}).observed().total == 1


def test_a_new_series_counts_whole() -> None:
    window = window_of((0.0, {key("a"): classic([0.05])}), (1.0, {key("a"): classic([0.05]), key("b"): classic([0.5])}))
    assert window.observed() == Classic(LAYOUTS[0], (0, 0, 0, 1))


def test_a_process_that_began_anew_is_a_first_reading() -> None:
    window = Window(10.0).read(0.0, {(): classic([0.05])}, began=1000.0)
    assert window.read(1.0, {(): classic([0.05] * 2)}, began=1001.0).observed().total == 1  # the clock was set
    anew = window.read(1.0, {(): classic([0.05] * 2)}, began=1010.0)
    assert (anew.lifetime, anew.observed().total) == (True, 2)


def test_merging_knows_only_the_bounds_that_all_have() -> None:
    merged = merge([classic([0.004, 0.02], LAYOUTS[1]), classic([0.004], LAYOUTS[2]), classic([], LAYOUTS[3])])
    assert merged == Classic((0.01, INF), (2, 1))


def test_classic_and_native_histograms_do_not_mix() -> None:
    with pytest.raises(PageError, match="mixed"):
        merge([classic([1.0]), native([1.0], 0)])


@pytest.mark.parametrize(
    ("histogram", "quantile", "answer"),
    [
        pytest.param(Classic((1, 2, INF), (50, 50, 0)), 0.75, Estimate(1.5, 1, 2), id="in the middle of a bucket"),
        pytest.param(Classic((1, 2, INF), (50, 50, 0)), 0.5, Estimate(1.0, 0, 1), id="at the end of a bucket"),
        pytest.param(Classic((1, 2, INF), (0, 0, 5)), 0.5, Estimate(2, 2, INF), id="above the largest bound"),
        pytest.param(Classic((INF,), (5,)), 0.5, Estimate(0, 0, INF), id="no bounds at all"),
        pytest.param(Classic((-1, 1, INF), (5, 0, 0)), 0.5, Estimate(-1, -INF, -1), id="below zero"),
        pytest.param(Classic((1, 2, INF), (0, 5, 0)), 0.0, Estimate(1.0, 1, 2), id="zero is the least observed"),
        pytest.param(Classic((1, 2, INF), (7, 93, 0)), 0.07, Estimate(1.0, 0, 1), id="a rank that is just not whole"),
    ],
)
def test_estimates(histogram: Classic, quantile: float, answer: Estimate) -> None:
    assert estimate(histogram, quantile) == answer


# --- pages that contradict themselves ---------------------------------------------------------------------------------


def buckets(*pairs: tuple[str, object]) -> str:
    return "# TYPE h histogram\n" + "".join(f'h_bucket{{le="{le}"}} {count}\n' for le, count in pairs)


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        pytest.param(
            buckets(("1", 3), ("2", 2), ("+Inf", 3)), "h counts 2 up to le=2, fewer than the 3 below", id="fall"
        ),
        pytest.param(
            buckets(("1", 3), ("2", 4)),
            "h has no bucket le=+Inf: the page was cut, or the histogram is broken",
            id="no +Inf",
        ),
        pytest.param(
            buckets(("1", 3), ("1.0", 3), ("+Inf", 3)), "h has the bucket le=1 twice in one series", id="twice"
        ),
        pytest.param(buckets(("1", "NaN"), ("+Inf", 3)), "h counts nan up to le=1, fewer than the 0 below", id="NaN"),
        pytest.param(
            buckets(("one", 3), ("+Inf", 3)), "a bucket of h has no le that is a number: 'one'", id="le is a word"
        ),
        pytest.param(
            buckets(("NaN", 3), ("+Inf", 3)), "a bucket of h has no le that is a number: 'NaN'", id="le is NaN"
        ),
        pytest.param("# TYPE h histogram\nh_bucket 3\n", "a bucket of h has no le that is a number: ''", id="no le"),
        pytest.param(buckets(("1", -3), ("+Inf", 3)), "h counts -3 up to le=1, fewer than the 0 below", id="negative"),
    ],
)
def test_a_histogram_that_contradicts_itself_is_refused(page: str, sentence: str) -> None:
    with pytest.raises(PageError) as caught:
        histograms(read_family(page.encode(), Selector("h")))
    assert (caught.value.reason, str(caught.value)) == ("bad_page", sentence)


@pytest.mark.parametrize(
    "order",
    [("0.5", "1e0", "2.0", "+Inf"), ("Inf", "2", "1", ".5"), ("1.0", "+inf", "5e-1", "2")],
)
def test_le_in_any_order_and_writing_is_the_same_histogram(order: tuple[str, ...]) -> None:
    counts = {0.5: 1, 1.0: 3, 2.0: 3, INF: 4}
    page = buckets(*((le, counts[float(le)]) for le in order))
    assert histograms(read_family(page.encode(), Selector("h"))) == {(): Classic((0.5, 1, 2, INF), (1, 2, 0, 1))}


def test_a_series_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(PageError, match=r'g\{a="1"\} stands on the page twice'):
        gauges(read_family(b'g{a="1"} 3\ng{a="1"} 4\n', Selector("g")))


def test_when_a_series_was_created_is_kept() -> None:
    page = buckets(("+Inf", 4)) + "h_created 1700000000.5\n"
    assert histograms(read_family(page.encode(), Selector("h"))) == {(): Classic((INF,), (4,), 1700000000.5)}


def test_a_summary_by_quantile() -> None:
    page = b'# TYPE s summary\ns{quantile="0.5"} 1\ns{quantile="0.990"} 2\ns{quantile="0.99",v="X"} 3\ns_sum 9\n'
    assert summaries(read_family(page, Selector("s"))) == {0.5: {(): 1.0}, 0.99: {(): 2.0, (("v", "X"),): 3.0}}
