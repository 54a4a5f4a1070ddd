"""Which series of a page are meant: `order_latency_seconds{venue="X",side=~"buy|sell"}`, as PromQL writes it.

Stands apart because it is the only part of reading a page that a person writes: every fault in it is found at start.
It must not import `re` (6.5 ms) unless a matcher is a regular expression.
"""

from __future__ import annotations

from sentinel.model import TYPE_CHECKING, Value

if TYPE_CHECKING:
    from collections.abc import Mapping

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_LABEL = _LETTERS | frozenset("0123456789")
_ESCAPES = {"\\": "\\", '"': '"', "'": "'", "n": "\n", "t": "\t", "r": "\r"}


class Matcher(Value):
    """One condition on a label; a label that is not there is empty, as in PromQL."""

    label: str
    op: str  # = != =~ !~
    value: str

    def fits(self, labels: Mapping[str, str]) -> bool:
        got = labels.get(self.label, "")
        if self.op in ("=", "!="):
            return (got == self.value) == (self.op == "=")
        import re  # keeps what it compiled

        return (re.fullmatch(self.value, got) is not None) == (self.op == "=~")

    def __str__(self) -> str:
        value = self.value.replace("\\", "\\\\").replace('"', '\\"')
        for escape in "ntr":
            value = value.replace(_ESCAPES[escape], "\\" + escape)
        return f'{self.label}{self.op}"{value}"'


class Selector(Value):
    """The series of one family whose labels fit every matcher. `str()` is the canonical text, which parses back."""

    FORM = 'a metric such as latency_p99 or order_latency_seconds{venue="X",side=~"buy|sell"}'

    name: str
    matchers: tuple[Matcher, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Raises ValueError with one sentence."""
        try:
            selector = _parsed(text)
        except ValueError as exc:
            raise ValueError(f"{text!r}: {exc}, want {cls.FORM}") from None
        if selector.name.endswith("_bucket"):
            family = selector.name.removesuffix("_bucket")
            raise ValueError(f"{text!r}: name the histogram without its suffix, {family}")
        return selector

    def fits(self, labels: Mapping[str, str]) -> bool:
        return all(matcher.fits(labels) for matcher in self.matchers)

    def text(self) -> str:
        """As the configuration writes it."""
        return f"{self.name}{{{','.join(map(str, self.matchers))}}}" if self.matchers else self.name

    __str__ = text


def _parsed(text: str) -> Selector:
    rest = text.strip()
    name, rest = _word(rest, _LABEL | {":"})
    if not name or name[0] in "0123456789":
        raise ValueError("no name in front")
    matchers: list[Matcher] = []
    if rest and (rest[0] != "{" or rest[-1] != "}" or len(rest) < 2):
        raise ValueError(f"{rest[:20]!r} behind the name")
    rest = rest[1:-1].lstrip() if rest else ""
    while rest:
        label, rest = _word(rest, _LABEL)
        if not label or label[0] in "0123456789":
            raise ValueError(f"no label at {rest[:20]!r}")
        op = next((op for op in ("=~", "!~", "!=", "=") if rest.startswith(op)), "")
        if not op:
            raise ValueError(f"no = != =~ or !~ behind {label}")
        value, rest = _string(rest[len(op) :].lstrip())
        if op.endswith("~"):
            _check_regex(value)
        matchers.append(Matcher(label, op, value))
        if rest and rest[0] != ",":
            raise ValueError(f"{rest[:20]!r} behind the value of {label}")
        rest = rest[1:].lstrip()
    return Selector(name, tuple(matchers))


def _word(text: str, letters: frozenset[str]) -> tuple[str, str]:
    """The longest start made of these letters, and what follows its blanks."""
    end = 0
    while end < len(text) and text[end] in letters:
        end += 1
    return text[:end], text[end:].lstrip()


def _string(text: str) -> tuple[str, str]:
    """A value in double, single or back quotes, and what follows its blanks. Nothing is escaped in back quotes."""
    quote = text[:1]
    if not quote or quote not in "\"'`":
        raise ValueError(f"a value stands in quotes, got {text[:20]!r}")
    value = ""
    at = 1
    while at < len(text) and text[at] != quote:
        if text[at] == "\\" and quote != "`":
            at += 1
            if text[at : at + 1] not in _ESCAPES:
                raise ValueError(f"unknown escape \\{text[at : at + 1]}")
            value += _ESCAPES[text[at]]
        else:
            value += text[at]
        at += 1
    if at >= len(text):
        raise ValueError("a quote is not closed")
    return value, text[at + 1 :].lstrip()


def _check_regex(pattern: str) -> None:
    import re

    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"{pattern!r} is not a regular expression ({exc})") from None
