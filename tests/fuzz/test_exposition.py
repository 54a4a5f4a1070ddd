"""Made-up pages, read as prometheus-client reads them: 100,000 of each kind under `make fuzz`.

tests/test_exposition.py runs the same properties with fewer examples in every `make test`.
"""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from sentinel.exposition import Family, PageError, Selector, Sieve, read_family
from sentinel.selector import Matcher

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4"
# Names that begin, end and contain each other, and that look like another's samples.
NAMES = (
    "lat",
    "lat_seconds",
    "lat_seconds_max",
    "a_lat",
    "lat:rate",
    "lat_sum",
    "lat_seconds_count",
    "at",
    "TYPE",
    "x",
)
ALLOWED = {
    "gauge": [""],
    "counter": ["", "_total", "_created"],
    "summary": ["", "_count", "_sum", "_created"],
    "histogram": ["_bucket", "_count", "_sum", "_created"],
    "info": ["_info"],
}

blanks = st.sampled_from(["", "", "", " ", "\t", "  ", " \t"])
gaps = st.sampled_from([" ", " ", " ", "\t", "  "])
texts = st.one_of(
    st.sampled_from(
        ["", "X", "buy", "lat", "lat_seconds 5", "\nlat 3\n", '"', "\\", "\\n", "} 7", "a,b", "# EOF", "é"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
numbers = st.one_of(
    st.sampled_from(
        ["0", "1", "+1", "-0", "1.0", "1e-3", "1E3", ".5", "5.", "NaN", "nan", "+Inf", "-Inf", "inf", "Inf"]
    ),
    st.floats().map(str),
    st.integers(-10, 10**20).map(str),
)
label_names = st.sampled_from(["venue", "side", "le", "quantile", "_a1", "lat"])


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


@st.composite
def sample_lines(draw: st.DrawFn, name: str) -> str:
    labels = draw(st.dictionaries(label_names, texts, max_size=3))
    inside = ",".join(
        f"{draw(blanks)}{label}{draw(blanks)}={draw(blanks)}{quoted(value)}{draw(blanks)}"
        for label, value in labels.items()
    )
    if inside and draw(st.booleans()):
        inside += ","
    braces = f"{draw(blanks)}{{{inside}}}{draw(blanks)}" if labels or draw(st.booleans()) else draw(gaps)
    if draw(st.integers(0, 9)) == 0 and labels:
        name, braces = "", f'{{"{name}",{inside}}}'
    time = draw(st.one_of(st.just(""), st.integers(0, 10**13).map(lambda ms: f" {ms}")))
    return f"{draw(blanks)}{name}{braces if braces.strip() else ' '}{draw(numbers)}{time}{draw(blanks)}"


@st.composite
def text_pages(draw: st.DrawFn) -> str:
    """Prometheus text 0.0.4 as liberally as its grammar allows."""
    lines = []
    for name in draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5)):
        type_ = draw(st.sampled_from(["gauge", "summary", "histogram", "untyped", ""]))
        metadata = [f"# TYPE{draw(gaps)}{name} {type_}"] if type_ else []
        if draw(st.booleans()):
            metadata.insert(draw(st.integers(0, 1)), f"# HELP {name} {draw(texts)!a} lat_seconds 4")
        lines += metadata
        for _ in range(draw(st.integers(0, 4))):
            suffix = draw(st.sampled_from([s for s in ALLOWED.get(type_, [""]) if s != "_created"]))
            lines.append(draw(sample_lines(name + suffix)))
        lines += draw(
            st.lists(st.sampled_from(["", "# lat 3", "#lat", "# a comment about lat_seconds", "  "]), max_size=1)
        )
    return "".join(line + "\n" for line in lines)


@st.composite
def openmetrics_pages(draw: st.DrawFn) -> str:
    """OpenMetrics 1.0 as its grammar and its rules demand it."""
    lines = []
    families = st.sampled_from(("lat", "a_lat", "lat_p99", "order_seconds", "order_seconds_max", "x:y"))
    for name in draw(st.lists(families, unique=True, max_size=4)):
        type_ = draw(st.sampled_from(["gauge", "counter", "summary", "histogram", "info", "unknown"]))
        lines.append(f"# TYPE {name} {type_}")
        if name.endswith("_seconds") and type_ != "info":
            lines.append(f"# UNIT {name} seconds")
        lines.append(f"# HELP {name} lat 5 order_seconds {draw(texts)!a}")
        groups = draw(st.dictionaries(st.sampled_from(["", "X", "lat", "a b", "} 7"]), st.just(None), max_size=3))
        for venue in groups:
            lines += draw(openmetrics_group(name, type_, venue))
    return "".join(line + "\n" for line in [*lines, "# EOF"])


@st.composite
def openmetrics_group(draw: st.DrawFn, name: str, type_: str, venue: str) -> list[str]:
    def sample(suffix: str, value: object, *more: str, exemplar: bool = False) -> str:
        labels = ",".join([f"venue={quoted(venue)}", *more])
        end = f" # {{trace={quoted('lat} 3')}}} 0.5" if exemplar and draw(st.booleans()) else ""
        return f"{name}{suffix}{{{labels}}} {value}{time}{end}"

    time = draw(st.sampled_from(["", " 1700000000.5"])) if type_ != "info" else ""
    counts = st.integers(0, 10**9)
    if type_ == "counter":
        return [sample("_total", draw(counts), exemplar=True), sample("_created", 1.5)]
    if type_ == "info":
        return [sample("_info", 1)]
    if type_ == "summary":
        return [
            *(sample("", draw(st.floats(0, 1e9)), f'quantile="{q}"') for q in ("0.5", "0.99")),
            sample("_count", draw(counts)),
            sample("_sum", draw(st.floats(0, 1e9))),
        ]
    if type_ == "histogram":
        les = sorted(draw(st.sets(st.sampled_from([0.001, 0.0025, 0.5, 1.0, 1e6]))))
        values = sorted(draw(st.lists(counts, min_size=len(les) + 1, max_size=len(les) + 1)))
        pairs = zip([*map(str, les), "+Inf"], values, strict=True)
        buckets = [sample("_bucket", value, f'le="{le}"', exemplar=True) for le, value in pairs]
        return [*buckets, sample("_count", values[-1]), sample("_sum", draw(st.floats(0, 1e9))), sample("_created", 7)]
    return [sample("", draw(numbers))]


def oracle(page: str, openmetrics: bool) -> list[Any]:
    """Every sample of the page, as prometheus-client reads it."""
    metrics = openmetrics_families(page) if openmetrics else text_families(page)
    return [sample for metric in metrics for sample in metric.samples]


def expected(
    samples: list[Any], family: Family, selector: Selector, openmetrics: bool
) -> list[tuple[str, dict[str, str], str]]:
    suffixes = ALLOWED.get(family.type, [""])
    if not family.type and any(sample.name == family.name + "_bucket" for sample in samples):
        suffixes = ALLOWED["histogram"]
    # In text 0.0.4 the time of creation is a family of its own.
    names = [family.name + suffix for suffix in suffixes if openmetrics or suffix != "_created"]

    def fits(labels: dict[str, str]) -> bool:
        return all(
            (re.fullmatch(m.value if "~" in m.op else re.escape(m.value), labels.get(m.label, "")) is None)
            == ("!" in m.op)
            for m in selector.matchers
        )

    return [comparable(s.name, s.labels, s.value) for s in samples if s.name in names and fits(s.labels)]


def comparable(name: str, labels: dict[str, str], value: float) -> tuple[str, dict[str, str], str]:
    """With NaN equal to NaN; prometheus-client reads -0 as an int, which has no sign."""
    return name, labels, repr(float(value) + 0.0)


matchers = st.builds(
    Matcher,
    st.sampled_from(["venue", "side", "absent"]),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    st.sampled_from(["", "X", "buy", "lat", "X|buy", ".*", ".+", "a b"]),
)
selectors = st.builds(
    Selector,
    st.sampled_from((*NAMES, "lat_p99", "order_seconds", "x:y", "absent")),
    st.lists(matchers, max_size=2).map(tuple),
)


def same_as_the_oracle(page: str, selector: Selector, content_type: str) -> None:
    samples = oracle(page, content_type == OPENMETRICS)
    family = read_family(page.encode(), selector, content_type)
    assert [comparable(*sample) for sample in family.samples] == expected(
        samples, family, selector, content_type == OPENMETRICS
    )


def sieved_is_the_same(page: str, families: list[str], sizes: list[int], content_type: str) -> None:
    body = page.encode()
    sieve = Sieve(families, content_type)
    at = 0
    for size in sizes:
        sieve.feed(body[at : at + size])
        at += size
    sieve.feed(body[at:])
    kept = sieve.close()
    assert len(kept) <= len(body)
    for family in families:
        whole = read_family(body, Selector(family), content_type)
        again = read_family(kept, Selector(family), content_type)
        assert repr(again) == repr(whole)  # not ==: NaN
    assert set(kept.split(b"\n")) <= set(body.split(b"\n"))


def never_another_value(page: str, cut: int, hole: int, put: str, selector: Selector, content_type: str) -> None:
    """A damaged page gives the oracle's samples or a PageError; where the oracle refuses, no other exception."""
    at = cut % (len(page) + 1)
    damaged = page[:at] + put + page[at + hole :]
    try:
        family = read_family(damaged.encode(), selector, content_type)
    except PageError:
        return
    try:
        samples = oracle(damaged, content_type == OPENMETRICS)
    except (ValueError, LookupError, TypeError):  # its ways to refuse a page
        return
    assert [comparable(*sample) for sample in family.samples] == expected(
        samples, family, selector, content_type == OPENMETRICS
    )


pages = st.one_of(
    text_pages().map(lambda page: (page, TEXT)), openmetrics_pages().map(lambda page: (page, OPENMETRICS))
)
wanted = st.lists(st.sampled_from((*NAMES, "order_seconds", "lat_p99")), min_size=1, max_size=8, unique=True)
chunks = st.lists(st.integers(1, 60), max_size=20)
damage = st.sampled_from(["", "", "\n", '"', "\\", "{", "}", " ", ",", "#", "1", "_", "lat", "\x00", "é"])


@given(pages, selectors)
def test_a_page_reads_as_the_oracle_reads_it(page: tuple[str, str], selector: Selector) -> None:
    same_as_the_oracle(page[0], selector, page[1])


@given(pages, wanted, chunks)
def test_what_the_sieve_keeps_reads_as_the_whole_page(
    page: tuple[str, str], names: list[str], sizes: list[int]
) -> None:
    sieved_is_the_same(page[0], names, sizes, page[1])


@given(pages, st.integers(0, 10**6), st.integers(0, 30), damage, selectors)
def test_a_damaged_page_never_gives_another_value(
    page: tuple[str, str], cut: int, hole: int, put: str, selector: Selector
) -> None:
    never_another_value(page[0], cut, hole, put, selector, page[1])
