"""Reading one family of a page: as prometheus-client reads it, and a reason where the page is broken."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from sentinel.exposition import Family, PageError, Sieve, read_family
from sentinel.native import Native
from sentinel.quantiles import Classic, histograms
from sentinel.selector import Matcher, Selector
from tests.fuzz import test_exposition as fuzz

PAGES = Path(__file__).parent / "data" / "pages"
OPENMETRICS = fuzz.OPENMETRICS
PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"

# `make test` runs the properties of tests/fuzz this often; `make fuzz` 100,000 times each.
settings_2000 = settings(max_examples=2000)


@settings_2000
@given(fuzz.pages, fuzz.selectors)
def test_a_page_reads_as_the_oracle_reads_it(page: tuple[str, str], selector: Selector) -> None:
    fuzz.same_as_the_oracle(page[0], selector, page[1])


@settings_2000
@given(fuzz.pages, fuzz.wanted, fuzz.chunks)
def test_what_the_sieve_keeps_reads_as_the_whole_page(
    page: tuple[str, str], names: list[str], sizes: list[int]
) -> None:
    fuzz.sieved_is_the_same(page[0], names, sizes, page[1])


@settings_2000
@given(fuzz.pages, st.integers(0, 10**6), st.integers(0, 30), fuzz.damage, fuzz.selectors)
def test_a_damaged_page_never_gives_another_value(
    page: tuple[str, str], cut: int, hole: int, put: str, selector: Selector
) -> None:
    fuzz.never_another_value(page[0], cut, hole, put, selector, page[1])


def sieved(page: bytes, *families: str, content_type: str = "", size: int = 7) -> bytes:
    sieve = Sieve(families, content_type)
    for at in range(0, len(page), size):
        sieve.feed(page[at : at + size])
    return sieve.close()


# --- real pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.text")), ids=lambda path: path.stem)
def test_every_family_of_a_real_page_reads_as_the_oracle_reads_it(path: Path) -> None:
    body = path.read_bytes()
    metrics = list(text_string_to_metric_families(body.decode()))
    assert len(metrics) > 20
    for metric in metrics:
        # The oracle calls counters as OpenMetrics does; the page may not.
        total = metric.type == "counter" and f"\n# TYPE {metric.name}_total ".encode() in body
        plain = metric.type == "counter" and not total
        name = metric.name + "_total" if total else metric.name
        family = read_family(body, Selector(name))
        samples = [(s.name.removesuffix("_total") if plain else s.name, s.labels, s.value) for s in metric.samples]
        assert [fuzz.comparable(*s) for s in family.samples] == [fuzz.comparable(*s) for s in samples]
        assert (family.type or "unknown") == metric.type
        assert repr(read_family(sieved(body, name, "go_threads", size=4096), Selector(name))) == repr(family)


@pytest.mark.parametrize("path", sorted(PAGES.glob("*.protobuf")), ids=lambda path: path.stem)
def test_a_real_page_in_protobuf_has_the_series_of_its_text(path: Path) -> None:
    """Taken a moment later, so some values differ; every series must be there, and half of the values be equal."""
    body, text = path.read_bytes(), path.with_suffix(".text").read_bytes()
    same = of = 0
    for metric in text_string_to_metric_families(text.decode()):
        for name in (metric.name, metric.name + "_total"):
            ours, theirs = read_family(body, Selector(name), PROTOBUF), read_family(text, Selector(name))
            assert ours.type == theirs.type
            values = {repr(series(sample)): sample[2] for sample in ours.samples}
            known = iter(values)
            assert all(repr(series(sample)) in known for sample in theirs.samples)  # in the same order
            same += sum(values[repr(series(sample))] == sample[2] for sample in theirs.samples)
            of += len(theirs.samples)
            assert repr(read_family(sieved(body, name, content_type=PROTOBUF), Selector(name), PROTOBUF)) == repr(ours)
    assert of > 40
    assert same / of > 0.5


def series(sample: tuple[str, dict[str, str], float]) -> tuple[str, list[tuple[str, object]]]:
    numbers = ("le", "quantile")
    return sample[0], sorted((k, float(v) if k in numbers else v) for k, v in sample[1].items())


def test_what_prometheus_client_publishes_in_openmetrics() -> None:
    registry = CollectorRegistry()
    latency = Histogram("order_latency", "With an exemplar.", ["venue"], unit="seconds", registry=registry)
    latency.labels("X").observe(0.02, {"trace_id": "} 9"})
    latency.labels('Y"\n\\').observe(3)
    Gauge("latency_p99", "µs", registry=registry).set(850)
    Summary("request_latency_seconds", "", registry=registry).observe(1)
    Counter("orders", "", registry=registry).inc()
    for page, content_type in ((generate_openmetrics(registry), OPENMETRICS), (generate_latest(registry), "")):
        for name in ("order_latency_seconds", "latency_p99", "request_latency_seconds"):
            fuzz.same_as_the_oracle(page.decode(), Selector(name), content_type)
    family = read_family(
        generate_openmetrics(registry), Selector.parse("order_latency_seconds{venue='X'}"), OPENMETRICS
    )
    assert (family.type, family.unit, len(family.samples), family.unmatched) == ("histogram", "seconds", 18, 18)


# --- what must not fool it --------------------------------------------------------------------------------------------

FOOLING = {
    "the name in a label value": 'x{a="lat 5"} 1\nlat 3\n',
    "the name in a label value behind an escaped newline": 'x{a="\\nlat 5"} 1\nlat 3\n',
    "the name in a HELP line": "# HELP x of lat 5\n# TYPE x gauge\nx 1\n# HELP lat of lat\nlat 3\n",
    "the name in a comment": "# lat 4\n#lat 5\nlat 3\n",
    "the name begins another": "lat_max 9\nlatency 9\nlat:x 9\nlat 3\n",
    "the name ends another": "a_lat 9\n:lat 9\nlat 3\n",
    "another family is called like its sum": "# TYPE lat gauge\nlat 3\n# TYPE lat_sum gauge\nlat_sum 9\n",
    "blanks and tabs": "\t lat \t 3 \t\n",
    "empty braces": "lat { } 3\n",
    "a timestamp": "lat 3 1700000000000\n",
    "line ends of another system": "# TYPE lat gauge\r\nlat 3\r\n",
    "the name in quotes": '{"lat"} 3\n',
    "the name on the first line": "lat 3\nx 1\n",
    "a form feed and a line separator in a label": 'x{a="\x0c\u2028"} 1\nlat 3\n',
}


@pytest.mark.parametrize("page", FOOLING.values(), ids=FOOLING)
def test_only_the_family_is_read(page: str) -> None:
    for body in (page.encode(), sieved(page.encode(), "lat"), sieved(page.encode(), "lat", *"abcde")):
        assert read_family(body, Selector("lat")).samples == (("lat", {}, 3.0),)
        assert read_family(sieved(body, "lat", size=1), Selector("lat")).samples == (("lat", {}, 3.0),)


def test_the_sieve_keeps_no_other_line() -> None:
    page = b'# HELP lat x\n# TYPE lat gauge\n# lat\nx{a="lat 3"} 4\nlat{a="1"} 5\nlat_max 6\n\nlat{a="2"} 7\n# EOF\n'
    kept = b'# HELP lat x\n# TYPE lat gauge\nlat{a="1"} 5\nlat{a="2"} 7\n# EOF\n'
    assert sieved(page, "lat") == sieved(page, "lat", size=1) == sieved(page, "lat", size=999) == kept
    assert sieved(page, "lat", *"abcde") == kept


def test_a_line_that_two_names_want_is_kept_once() -> None:
    assert sieved(b"lat_sum 1\nlat 2\nlat_sum 3\n", "lat", "lat_sum", size=99) == b"lat_sum 1\nlat 2\nlat_sum 3\n"


def test_a_line_without_an_end_is_not_kept_whole() -> None:
    assert len(sieved(b"x" * 10**6, "lat", size=65536)) < 1000


# --- pages that are broken --------------------------------------------------------------------------------------------

HISTOGRAM = '# TYPE lat histogram\nlat_bucket{le="1"} 3\nlat_bucket{le="+Inf"} 4\nlat_count 4\n'
BROKEN = {
    "cut in a line": ("lat 85", "", "page_cut", "the page ends in the middle of a line: 'lat 85'"),
    "cut in another line": ("lat 85\nother 1", "", "page_cut", "the page ends in the middle of a line: 'other 1'"),
    "OpenMetrics without its end": (
        "lat 85\n",
        OPENMETRICS,
        "page_cut",
        "the page ends without # EOF: it was cut, or is not OpenMetrics",
    ),
    "OpenMetrics with lines behind its end": (
        "# EOF\nlat 85\n",
        OPENMETRICS,
        "page_cut",
        "the page ends without # EOF: it was cut, or is not OpenMetrics",
    ),
    "no value": ("lat\n", "", "bad_page", "the page has a line that is no sample: 'lat'"),
    "a word for a value": ("lat fast\n", "", "bad_page", "the page has a line that is no sample: 'lat fast'"),
    "an underscore in a number": ("lat 1_000\n", "", "bad_page", "the page has a line that is no sample: 'lat 1_000'"),
    "a brace that does not close": (
        'lat{a="1" 5\n',
        "",
        "bad_page",
        "the page has a line that is no sample: 'lat{a=\"1\" 5'",
    ),
    "a quote that does not close": (
        'lat{a="1} 5\n',
        "",
        "bad_page",
        "the page has a line that is no sample: 'lat{a=\"1} 5'",
    ),
    "a label twice": (
        'lat{a="1",a="2"} 5\n',
        "",
        "bad_page",
        'the page has a line that is no sample: \'lat{a="1",a="2"} 5\'',
    ),
    "two lines in one, the name in quotes": (
        '{"lat",a="1"} 1 {"lat",a="2"} 2\n',
        "",
        "bad_page",
        'the page has a line that is no sample: \'{"lat",a="1"} 1 {"lat",a="2"} 2\'',
    ),
    "too many numbers": ("lat 1 2 3\n", "", "bad_page", "the page has a line that is no sample: 'lat 1 2 3'"),
}


@pytest.mark.parametrize(("page", "content_type", "reason", "sentence"), BROKEN.values(), ids=BROKEN)
def test_a_broken_page_is_a_reason(page: str, content_type: str, reason: str, sentence: str) -> None:
    for body in (page.encode(), sieved(page.encode(), "lat")):
        with pytest.raises(PageError) as caught:
            read_family(body, Selector("lat"), content_type)
        assert (caught.value.reason, str(caught.value)) == (reason, sentence)


def test_bytes_that_are_not_utf8_are_a_reason_only_in_a_wanted_line() -> None:
    with pytest.raises(PageError, match="the lines of lat are not UTF-8"):
        read_family(b'lat{a="\xff"} 1\n', Selector("lat"))
    assert read_family(b'x{a="\xff"} 1\nlat 3\n', Selector("lat")).samples == (("lat", {}, 3.0),)


def test_a_family_that_is_not_there_has_no_samples() -> None:
    family = read_family(b"# TYPE x gauge\nx 1\n", Selector("lat"))
    assert (family.samples, family.type, family.unmatched) == ((), "", 0)


def test_an_untyped_histogram_is_known_by_its_buckets() -> None:
    page = HISTOGRAM.partition("\n")[2].encode()
    assert [sample[0] for sample in read_family(page, Selector("lat")).samples] == [
        "lat_bucket",
        "lat_bucket",
        "lat_count",
    ]


# --- selectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("latency_p99", Selector("latency_p99")),
        (" a:b { } ", Selector("a:b")),
        (
            "lat{venue='X', side!~`buy|\\d`,}",
            Selector("lat", (Matcher("venue", "=", "X"), Matcher("side", "!~", "buy|\\d"))),
        ),
        ('lat{a!="\\"\\n\\\\,}"}', Selector("lat", (Matcher("a", "!=", '"\n\\,}'),))),
    ],
)
def test_selectors_parse_and_their_text_parses_back(text: str, selector: Selector) -> None:
    assert Selector.parse(text) == selector
    assert Selector.parse(str(selector)) == selector


@given(fuzz.selectors)
def test_the_text_of_any_selector_parses_back(selector: Selector) -> None:
    assert Selector.parse(selector.text()) == selector


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no name in front"),
        ('{a="b"}', "no name in front"),
        ("9lat", "no name in front"),
        ("lat-max", "'-max' behind the name"),
        ("lat{", "'{' behind the name"),
        ("lat{a}", "no = != =~ or !~ behind a"),
        ("lat{a=b}", "a value stands in quotes, got 'b'"),
        ('lat{a="b}', "a quote is not closed"),
        ('lat{a="b" c="d"}', "'c=\"d\"' behind the value of a"),
        ('lat{="b"}', "no label at '=\"b\"'"),
        ('lat{a="\\d"}', "unknown escape \\d"),
        ('lat{a=~"("}', "'(' is not a regular expression (missing ), unterminated subpattern at position 0)"),
    ],
)
def test_a_bad_selector_is_one_sentence(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole message is compared
        Selector.parse(text)
    assert str(caught.value) == f"{text!r}: {fault}, want {Selector.FORM}"


def test_a_histogram_is_named_without_its_suffix() -> None:
    with pytest.raises(ValueError, match="name the histogram without its suffix, lat"):
        Selector.parse("lat_bucket")


@pytest.mark.parametrize(
    ("op", "value", "fits"),
    [
        ("=", "X", [True, False, False]),
        ("!=", "X", [False, True, True]),
        ("=", "", [False, False, True]),
        ("=~", "X|Z", [True, False, False]),
        ("=~", "X?", [True, False, True]),
        ("!~", "X", [False, True, True]),
        ("=~", "Y", [False, False, False]),
    ],
)
def test_matchers_match_whole_values_and_absent_labels_as_empty(op: str, value: str, fits: list[bool]) -> None:
    matcher = Matcher("v", op, value)
    assert [matcher.fits(labels) for labels in ({"v": "X"}, {"v": "XY"}, {})] == fits


# --- protobuf ---------------------------------------------------------------------------------------------------------

# Written by the protobuf package from the fields of io/prometheus/client/metrics.proto; no server that Debian
# packages publishes native histograms.
NATIVE = (Path(__file__).parent / "data" / "native.protobuf").read_bytes()


def read(name: str, page: bytes = NATIVE) -> Family:
    return read_family(page, Selector.parse(name), PROTOBUF)


def test_protobuf_gauges_and_summaries() -> None:
    gauge = read("latency_p99")
    assert (gauge.type, gauge.unit) == ("gauge", "microseconds")
    assert gauge.samples == (("latency_p99", {"venue": 'X"é'}, 850.5),)
    assert [fuzz.comparable(*sample) for sample in read("rpc_ms").samples] == [
        ("rpc_ms", {"quantile": "0.5"}, "0.2"),
        ("rpc_ms", {"quantile": "0.99"}, "nan"),
        ("rpc_ms_sum", {}, "12.5"),
        ("rpc_ms_count", {}, "30.0"),
    ]


def test_a_classic_histogram_in_protobuf_may_leave_out_its_last_bucket() -> None:
    assert histograms(read("classic_seconds")) == {(): Classic((0.001, 0.01, math.inf), (100, 199, 1), 1700000000.5)}


def test_native_histograms() -> None:
    found = histograms(read("order_latency_seconds"))
    assert found == {
        (("side", "buy"),): Native(3, 2.0**-128, 2, {-80: 5, -79: 3, -78: 2, -72: 2}, {4: 3}),
        (("side", "sell"),): Native(-2, 0.001, 1.5, {0: 1.25, 1: 1.25}, {}),
        (("side", "none"),): Native(0, 0.0, 0, {}, {}),
    }
    assert read('order_latency_seconds{side="sell"}').unmatched == 2


@pytest.mark.parametrize("name", ["latency_p99", "rpc_ms", "order_latency_seconds", "absent"])
@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_the_sieve_of_protobuf_keeps_whole_messages(name: str, size: int) -> None:
    kept = sieved(NATIVE, name, content_type=PROTOBUF, size=size)
    assert len(kept) < len(NATIVE) / 2
    assert repr(read(name, kept)) == repr(read(name))


@pytest.mark.parametrize("name", ["latency_p99", "order_latency_seconds", "absent"])
def test_a_cut_protobuf_page_is_a_reason_wherever_it_is_cut(name: str) -> None:
    """But between two messages, where nothing tells."""
    whole = [repr(read(name)), repr(Family(name))]
    for at in range(len(NATIVE)):
        cut = NATIVE[:at]
        told = []
        for page in (cut, sieved(cut, name, content_type=PROTOBUF, size=50)):
            try:
                told.append(repr(read(name, page)))
            except PageError as exc:
                told.append(exc.reason)
        assert told[0] == told[1]
        assert told[0] in ("page_cut", *whole)


@given(st.integers(0, len(NATIVE) - 1), st.integers(0, 255), st.sampled_from(["latency_p99", "order_latency_seconds"]))
def test_damaged_protobuf_raises_nothing_else(at: int, byte: int, name: str) -> None:
    damaged = NATIVE[:at] + bytes([byte]) + NATIVE[at + 1 :]
    for page in (damaged, sieved(damaged, name, content_type=PROTOBUF, size=50)):
        with contextlib.suppress(PageError):
            histograms(read(name, page))
