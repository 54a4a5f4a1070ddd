"""One metric family out of a /metrics page: found in the bytes, and only its own lines are decoded and parsed.

Stands apart because a page of 10,000 series is read every second: a parser of the whole page takes 80 ms or more, a
search for a name 0.2 ms. It must never give a value of which it is not certain: what cannot be read is a PageError.
Prometheus text 0.0.4 and OpenMetrics 1.0 are read here, the protobuf exposition in `protobuf.py`.
"""

from __future__ import annotations

from sentinel.family import ANY_SUFFIX, Family, PageError, select
from sentinel.model import TYPE_CHECKING
from sentinel.selector import Selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from sentinel.family import Sample

__all__ = ["ACCEPT", "Family", "PageError", "Selector", "Sieve", "read_family"]

PROTOBUF = "application/vnd.google.protobuf"
OPENMETRICS = "application/openmetrics-text"
# Protobuf first: it alone carries native histograms, and most of a page is skipped by lengths.
ACCEPT = (
    f"{PROTOBUF};proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,"
    f"{OPENMETRICS};version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
)

_METADATA = (b"TYPE", b"UNIT", b"HELP")
_FEW = 4  # names that are searched one by one: up to here quicker than one pass for all, see benchmarks/exposition.py
_BLANKS = " \t"
_SHOWN = 120  # characters of a faulty line that a sentence repeats


# --- the wanted lines -----------------------------------------------------------------------------------------------


class Sieve:
    """Keeps the lines of the wanted families of a page that arrives in pieces, and drops the rest unread.

    `content_type` is that of the response. What `close` returns is a page again, for `read_family`. A page that
    ended in the middle still does.
    """

    def __init__(self, families: Iterable[str], content_type: str = "") -> None:
        needles = [family.encode() for family in families]
        self._names = _names(needles)
        self._kept: list[bytes] = []
        self._tail = bytearray()
        self._last = b""
        self._other: Any = None
        if content_type.lower().startswith(PROTOBUF):
            from sentinel.protobuf import MessageSieve

            self._other = MessageSieve(needles)
        self._needles = needles
        self._all_at_once = _one_pass(needles) if len(needles) > _FEW and self._other is None else None

    def feed(self, chunk: bytes) -> None:
        if self._other is not None:
            self._other.feed(chunk)
            return
        first = chunk.find(b"\n")
        self._tail += chunk[: first + 1] if first >= 0 else chunk
        if first < 0:
            return
        self._last = bytes(self._tail)
        if _name(self._last) in self._names:
            self._kept.append(self._last)
        last = chunk.rfind(b"\n")
        if last > first:
            self._kept += [chunk[start:end] for start, end in self._spans(chunk, first, last + 1)]
            self._last = chunk[chunk.rfind(b"\n", first, last) + 1 : last + 1]
        self._tail = bytearray(chunk[last + 1 :])

    def close(self) -> bytes:
        """The kept lines, `# EOF` if it ended the page, and the start of a line that was not finished."""
        if self._other is not None:
            kept: bytes = self._other.close()
            return kept
        end = self._last if self._last.rstrip() == b"# EOF" else b""
        return b"".join(self._kept) + end + bytes(self._tail[:_SHOWN])

    def _spans(self, data: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """Where wanted lines stand, in order. `data[start]` and `data[end - 1]` are newlines."""
        if self._all_at_once is not None:
            hits = (match.end() for match in self._all_at_once.finditer(data, start, end))
            return list(_blocks(data, hits, self._names, end))
        if len(self._needles) == 1:
            return list(_blocks(data, _hits(data, self._needles[0], start + 1, end), self._names, end))
        spans: list[tuple[int, int]] = []
        for needle in self._needles:
            spans += _blocks(data, _hits(data, needle, start + 1, end), self._names, end)
        spans.sort()
        once = []
        done = 0
        for span in spans:  # a line that two searches found is kept once
            if span[1] > done:
                once.append((max(done, span[0]), span[1]))
                done = span[1]
        return once


def _names(families: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(family + suffix.encode() for family in families for suffix in ANY_SUFFIX)


def _hits(data: bytes, needle: bytes, start: int, end: int) -> Iterator[int]:
    """Where the name stands, at most once a line, wherever in the line; the line itself decides."""
    while (start := data.find(needle, start, end)) >= 0:
        yield start
        start = data.find(b"\n", start, end)
        if start < 0:
            return


def _blocks(data: bytes, hits: Iterable[int], names: frozenset[bytes], end: int) -> Iterator[tuple[int, int]]:
    """Lines that belong to the names: from a hit's line on as long as the next lines do."""
    done = 0
    for hit in hits:
        if hit < done:
            continue
        start = at = data.rfind(b"\n", 0, hit) + 1
        while at < end:
            after = data.find(b"\n", at, end) + 1 or end
            if _name(data[at:after]) not in names:
                break
            at = after
        if at > start:
            yield start, at
            done = at


def _name(line: bytes) -> bytes:
    """The name that a line speaks of: its sample's or its metadata's. Empty for every other line."""
    first = line.lstrip()[:1]
    if first == b"#":
        words = line.split(None, 3)
        return words[2].strip(b'"') if len(words) > 2 and words[0] == b"#" and words[1] in _METADATA else b""
    if first == b"{":  # the name in quotes among the labels
        text = line.decode("utf-8", "replace")
        try:
            return _labels(text, text.index("{") + 1)[0]["__name__"].encode()
        except (ValueError, KeyError, IndexError):  # broken: whose name is there first is told that it is
            return line.split(b'"', 2)[1] if b'"' in line else b""
    words = line.partition(b"{")[0].split(None, 1)
    return words[0] if words else b""


def _one_pass(names: list[bytes]) -> Any:
    """One regular expression for all names, whose cost hardly grows with their number.

    It comes near every wanted line and seldom another; `_name` decides. Lines that begin with a blank, a brace or an
    odd comment are all looked at.
    """
    import re

    def trie(words: list[str]) -> str:  # sre tries alternatives in turn: shared beginnings are written once
        by_letter: dict[str, list[str]] = {}
        for word in words:
            by_letter.setdefault(word[:1], []).append(word[1:])
        branches = [re.escape(letter) + trie(rest) if letter else "" for letter, rest in by_letter.items()]
        return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"

    # Reversed, so that a name which begins another is tried after it; both lead to the same line.
    names_ = trie(sorted({name.decode() for name in names}, reverse=True))
    metadata = rf'# (?:TYPE|HELP|UNIT)(?: (?:{names_})|\t| [ \t"])|#(?! [THU])'
    return re.compile(rf"\n(?:{names_}|{metadata}|[ \t\r{{])".encode())


# --- lines as samples -----------------------------------------------------------------------------------------------


def read_family(page: bytes, selector: Selector, content_type: str = "") -> Family:
    """The selected series of a page, or of what a Sieve kept of it. Raises PageError.

    A family that is not there has no samples. Sample names are as on the page; the `quantile` and `le` labels too.
    """
    if content_type.lower().startswith(PROTOBUF):
        from sentinel.protobuf import read_messages

        return read_messages(page, selector)
    openmetrics = content_type.lower().startswith(OPENMETRICS)
    if openmetrics:
        if page[page.rfind(b"\n", 0, -1) + 1 :].rstrip() != b"# EOF":
            raise PageError("page_cut", "the page ends without # EOF: it was cut, or is not OpenMetrics")
    elif page and not page.endswith(b"\n"):
        end = page[page.rfind(b"\n") + 1 :][:_SHOWN].decode("utf-8", "replace")
        raise PageError("page_cut", f"the page ends in the middle of a line: {end!r}")
    needle = selector.name.encode()
    type_ = unit = ""
    samples: list[Sample] = []
    for start, end_ in _blocks(page, _hits(page, needle, 0, len(page)), _names((needle,)), len(page)):
        try:
            lines = page[start:end_].decode().split("\n")  # not splitlines: labels may hold a form feed
        except UnicodeDecodeError as exc:
            raise PageError("bad_page", f"the lines of {selector.name} are not UTF-8 ({exc.reason})") from exc
        for line in lines[:-1]:
            if line.lstrip().startswith("#"):
                words = line.split(None, 3)
                if words[2].strip('"') == selector.name and len(words) == 4:
                    type_ = words[3].strip() if words[1] == "TYPE" else type_
                    unit = words[3].strip() if words[1] == "UNIT" else unit
            else:
                samples.append(_sample(line))
    return select(selector, type_, unit, samples, openmetrics)


def _sample(line: str) -> Sample:
    """One line of either text format. Timestamps and exemplars are checked for their place and not kept."""
    try:
        brace = line.find("{")
        words = line[:brace].split(None, 1) if brace >= 0 else ["", ""]
        if len(words) < 2:
            name = words[0] if words else ""
            labels, end = _labels(line, brace + 1)
            rest = line[end:]
            name = name or labels.pop("__name__")
            if "__name__" in labels:
                raise ValueError("two names")
        else:  # no labels; a brace further on is an exemplar's
            name, rest = line.split(None, 1)
            labels = {}
        value, *time = rest.partition("#")[0].split()
        if time:
            (at,) = time
            _number(at)
        return name, labels, _number(value)
    except (ValueError, KeyError, IndexError) as exc:
        raise PageError("bad_page", f"the page has a line that is no sample: {line[:_SHOWN]!r}") from exc


def _number(text: str) -> float:
    if "_" in text:  # Python's, no exposition's
        raise ValueError(text)
    return float(text)


def _labels(line: str, at: int) -> tuple[dict[str, str], int]:
    """The labels from behind the opening brace on, and where the closing one was passed."""
    labels: dict[str, str] = {}
    while True:
        while line[at] in _BLANKS:
            at += 1
        if line[at] == "}":
            return labels, at + 1
        if line[at] == '"':  # the metric's name, or a label's
            label, at = _quoted(line, at)
            while line[at] in _BLANKS:
                at += 1
            label, value = ("", label) if line[at] != "=" else (label, "")
        else:
            equals = line.index("=", at)
            label, at, value = line[at:equals].rstrip(), equals, ""
        if label:
            at += 1
            while line[at] in _BLANKS:
                at += 1
            value, at = _quoted(line, at)
        label = label or "__name__"
        if label in labels:
            raise ValueError(label)
        labels[label] = value
        while line[at] in _BLANKS:
            at += 1
        if line[at] == ",":
            at += 1
        elif line[at] != "}":
            raise ValueError(line[at])


def _quoted(line: str, at: int) -> tuple[str, int]:
    """The text in the quotes that open at `at`, unescaped, and where they were passed."""
    if line[at] != '"':
        raise ValueError(line[at])
    end = line.index('"', at + 1)
    while line[end - 1] == "\\" and (end - len(line[at + 1 : end].rstrip("\\")) - at - 1) % 2:
        end = line.index('"', end + 1)
    text = line[at + 1 : end]
    if "\\" in text:
        text = "\\".join(part.replace('\\"', '"').replace("\\n", "\n") for part in text.split("\\\\"))
    return text, end + 1
