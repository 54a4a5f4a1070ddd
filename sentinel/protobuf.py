"""The protobuf exposition: length-delimited io.prometheus.client.MetricFamily messages, which alone carry native
histograms.

A decoder of only the fields that are needed: whole families are passed over by their length. Field numbers are those
of io/prometheus/client/metrics.proto; the wire format is protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from _struct import unpack

from sentinel.family import Family, PageError, select
from sentinel.model import TYPE_CHECKING
from sentinel.native import SCHEMAS, Native, spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sentinel.family import Sample
    from sentinel.selector import Selector

    Field = tuple[int, int | bytes]

_TYPES = ("counter", "gauge", "summary", "untyped", "histogram", "gaugehistogram")
_HEAD = 1 << 10  # bytes of a message in which its name must show; names are short and come first


class MessageSieve:
    """Keeps the messages of the wanted families; a page that ended in the middle of a message still does."""

    def __init__(self, names: Iterable[bytes]) -> None:
        self._names = frozenset(names)
        self._kept: list[bytes] = []
        self._rest = b""
        self._skip = 0
        self._broken = False

    def feed(self, chunk: bytes) -> None:
        if self._broken:
            return
        if self._skip >= len(chunk):
            self._skip -= len(chunk)
            return
        data = self._rest + chunk[self._skip :]
        self._skip = at = 0
        try:
            while at < len(data):
                length, start = _varint(data, at)
                if len(data) < min(start + length, start + _HEAD):
                    break
                end = start + length
                if _name(data[start : min(end, start + _HEAD)]) in self._names:
                    if end > len(data):
                        break
                    self._kept.append(data[at:end])
                at = end
        except IndexError:  # not even the length is whole
            pass
        except ValueError:  # no length at all: what stands here is for the reader to refuse
            self._broken = True
        self._rest = data[at:]
        self._skip = max(0, at - len(data))

    def close(self) -> bytes:
        missing = b"\x01" if self._skip else b""  # the length of a message that is not there
        return b"".join(self._kept) + self._rest[: _HEAD if self._rest else 0] + missing


def read_messages(page: bytes, selector: Selector) -> Family:
    """As `exposition.read_family`: classic buckets as samples with `le`, native histograms as `natives`."""
    name = selector.name.encode()
    type_ = unit = ""
    samples: list[Sample] = []
    natives: list[tuple[dict[str, str], Native]] = []
    try:
        at = 0
        while at < len(page):
            length, at = _varint(page, at)
            if at + length > len(page):
                raise PageError("page_cut", "the page ends in the middle of a message")
            message = page[at : at + length]
            at += length
            if _name(message[:_HEAD]) != name:
                continue
            for field, value in _fields(message):
                if field == 3:
                    type_ = _TYPES[min(_whole(value), len(_TYPES) - 1)]
                elif field == 4:
                    _read_metric(selector.name, _inside(value), samples, natives)
                elif field == 5:
                    unit = _text(value)
    except IndexError as exc:
        raise PageError("page_cut", "the page ends in the middle of a message") from exc
    except (ValueError, KeyError) as exc:
        raise PageError("bad_page", f"the message of {selector.name} cannot be read ({exc})") from exc
    family = select(selector, type_, unit, samples)
    fitting = tuple(native for native in natives if selector.fits(native[0]))
    return family.replace(natives=fitting, unmatched=family.unmatched + len(natives) - len(fitting))


def _read_metric(name: str, metric: bytes, samples: list[Sample], natives: list[tuple[dict[str, str], Native]]) -> None:
    labels: dict[str, str] = {}
    fields = list(_fields(metric))
    for field, value in fields:
        if field == 1:
            pair = dict(_fields(_inside(value)))
            labels[_text(pair[1])] = _text(pair.get(2, b""))
    for field, value in fields:
        if field in (2, 3, 5):  # gauge, counter, untyped
            samples.append((name, labels, _double(dict(_fields(_inside(value))).get(1, bytes(8)))))
        elif field == 4:
            _read_summary(name, labels, _inside(value), samples)
        elif field == 7:
            _read_histogram(name, labels, _inside(value), samples, natives)


def _read_summary(name: str, labels: dict[str, str], summary: bytes, samples: list[Sample]) -> None:
    fields = list(_fields(summary))
    for field, value in fields:
        if field == 3:
            pair = dict(_fields(_inside(value)))
            quantile = _double(pair.get(1, bytes(8)))
            samples.append((name, {**labels, "quantile": str(quantile)}, _double(pair.get(2, bytes(8)))))
    once = dict(fields)
    samples.append((name + "_sum", labels, _double(once.get(2, bytes(8)))))
    samples.append((name + "_count", labels, float(_whole(once.get(1, 0)))))


def _read_histogram(
    name: str,
    labels: dict[str, str],
    histogram: bytes,
    samples: list[Sample],
    natives: list[tuple[dict[str, str], Native]],
) -> None:
    """The native histogram where there is one, which is the finer; else the classic buckets."""
    several: dict[int, list[int | bytes]] = {}
    for field, value in _fields(histogram):
        several.setdefault(field, []).append(value)
    once = {field: values[-1] for field, values in several.items()}
    since = None
    if 15 in once:
        stamp = dict(_fields(_inside(once[15])))
        since = _whole(stamp.get(1, 0)) + _whole(stamp.get(2, 0)) / 1e9
        samples.append((name + "_created", labels, since))
    zero_threshold = _double(once.get(6, bytes(8)))
    zero_count = _double(once[8]) if 8 in once else float(_whole(once.get(7, 0)))
    if 9 in several or 12 in several or zero_threshold or zero_count:  # as Prometheus tells them apart
        schema = _signed(_whole(once.get(5, 0)))
        if schema not in SCHEMAS:
            raise ValueError(f"native schema {schema}, want {SCHEMAS[0]} to {SCHEMAS[-1]}")
        negative, positive = (_placed(several, spans) for spans in (9, 12))
        natives.append((labels, Native(schema, zero_threshold, zero_count, positive, negative, since)))
        return
    total = _double(once[4]) if 4 in once else float(_whole(once.get(1, 0)))
    bounded = False
    for value in several.get(3, ()):
        bucket = dict(_fields(_inside(value)))
        bound = _double(bucket.get(2, bytes(8)))
        count = _double(bucket[4]) if 4 in bucket else float(_whole(bucket.get(1, 0)))
        samples.append((name + "_bucket", {**labels, "le": str(bound)}, count))
        bounded = bounded or bound == float("inf")
    if not bounded:  # it may be left out: the count of all says the same
        samples.append((name + "_bucket", {**labels, "le": "+Inf"}, total))
    samples.append((name + "_sum", labels, _double(once.get(2, bytes(8)))))
    samples.append((name + "_count", labels, total))


def _placed(several: dict[int, list[int | bytes]], spans_field: int) -> dict[int, float]:
    """Counts by bucket: spans in one field; in the next, differences from bucket to bucket, or floats after that."""
    spans = []
    for value in several.get(spans_field, ()):
        span = dict(_fields(_inside(value)))
        spans.append((_signed(_whole(span.get(1, 0))), _whole(span.get(2, 0))))
    counts: list[float] = []
    for value in several.get(spans_field + 1, ()):
        for delta in _varints(value):
            counts.append((counts[-1] if counts else 0) + _signed(delta))
    for value in several.get(spans_field + 2, ()):
        packed = _inside(value)
        counts += [_double(packed[at : at + 8]) for at in range(0, len(packed), 8)]
    if min(counts, default=0) < 0:
        raise ValueError("a native bucket counts less than nothing")
    return spread(spans, counts)


# --- the wire format ------------------------------------------------------------------------------------------------


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Raises IndexError where the data ends first."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is too long")


def _fields(message: bytes) -> Iterator[Field]:
    """(number, value): an int for varints, bytes for the rest."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: int | bytes
        if tag & 7 == 0:
            value, at = _varint(message, at)
        else:
            if tag & 7 == 2:
                length, at = _varint(message, at)
            elif tag & 7 in (1, 5):
                length = 8 if tag & 7 == 1 else 4
            else:
                raise ValueError(f"wire type {tag & 7}")
            value = message[at : at + length]
            at += length
            if at > len(message):
                raise ValueError("a field is longer than its message")
        yield tag >> 3, value


def _name(start: bytes) -> bytes:
    """The name in the start of a MetricFamily: field 1, which every serializer writes first."""
    if start[:1] != b"\x0a":
        return b""
    try:
        length, at = _varint(start, 1)
    except (IndexError, ValueError):
        return b""
    return start[at : at + length]


def _varints(value: int | bytes) -> Iterator[int]:
    """A repeated number as it stands on the wire: one by one, or packed."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _signed(number: int) -> int:
    """ZigZag: sint32 and sint64."""
    return number >> 1 ^ -(number & 1)


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number is wanted")
    return value


def _inside(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where bytes are wanted")
    return value


def _double(value: int | bytes) -> float:
    data = _inside(value)
    if len(data) != 8:
        raise ValueError("a double has 8 bytes")
    number: float = unpack("<d", data)[0]
    return number


def _text(value: int | bytes) -> str:
    return _inside(value).decode()
