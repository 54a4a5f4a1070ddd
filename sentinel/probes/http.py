"""Kind `http`: a GET answers 2xx. What it took is measured: connect, first byte and total apart.

It must never follow a redirect: the address that was asked is the one that counts. Each GET has a connection of its
own, as a kept one hides a full accept queue.
"""

from __future__ import annotations

from sentinel.address import Headers, Url
from sentinel.model import TYPE_CHECKING, Get, Metric, Observation, Reading, Value, unanswered
from sentinel.units import Bytes, duration

if TYPE_CHECKING:
    from sentinel.hdr import Durations
    from sentinel.model import Answer, Ask, Response

METRICS = (
    Metric(
        "sentinel_probe_http_seconds",
        "A quantile of the last ten minutes of what a GET took until it was connected, until the first byte and in "
        "total, from when it was due: waiting for a GET before it that hung is counted (coordinated omission).",
        ("probe", "phase", "quantile"),
    ),
)
NEEDS = ""

_QUANTILES = (0.5, 0.99, 0.999)


class Settings(Value):
    """The settings of a probe of kind `http`."""

    url: Url
    max_body: Bytes = Bytes(1 << 20)  # a health answer is small; more is not read
    headers: Headers = Headers()


class Measured(Value):
    """What the GETs of the last ten minutes took, by phase."""

    connect: Durations
    first_byte: Durations
    total: Durations


def asks(settings: Settings) -> tuple[Ask, ...]:
    """One GET on a connection of its own."""
    return (Get(settings.url, settings.max_body, headers=settings.headers),)


def read(
    settings: Settings, answers: tuple[Answer, ...], memory: Measured | None
) -> tuple[Observation, Measured | None]:
    """2xx (RFC 9110 §15.3) is a pass; every other status is not, 3xx included."""
    (answer,) = answers
    seen = _observation(settings, answer)
    if not answer.waited_s:  # a one-shot check measures nothing over time
        return seen, memory
    memory = _measured(answer, memory)
    readings = [
        Reading("sentinel_probe_http_seconds", seconds, (phase, str(quantile)))
        for phase in memory._fields
        for quantile, seconds in zip(_QUANTILES, getattr(memory, phase).quantiles(_QUANTILES), strict=False)
    ]
    return seen.replace(readings=tuple(readings)), memory


def _observation(settings: Settings, answer: Answer) -> Observation:
    if answer.failure is not None:
        return unanswered(answer)
    response: Response = answer.value
    where = f"GET {settings.url}: status {response.status}"
    if 200 <= response.status < 300:
        sentence = f"{where} in {duration(answer.took_s)}"
        return Observation(answer.at, answer.took_s, True, sentence, value=answer.took_s, unit="seconds")
    to = f" to {response.location}" if response.location else ""
    return Observation(answer.at, answer.took_s, False, f"{where}{to}, want 2xx", "http_status")


def _measured(answer: Answer, before: Measured | None) -> Measured:
    """With this answer. One that did not come took its whole time, which is the least that it would have taken."""
    from sentinel.hdr import Durations

    before = before or Measured(Durations(), Durations(), Durations())
    response: Response | None = answer.value
    took = {"total": answer.took_s}
    if response is not None:
        took = {"connect": response.connect_s, "first_byte": response.first_byte_s, "total": response.total_s}
    return before.replace(
        **{
            phase: getattr(before, phase).add(answer.at, [waited + seconds for waited in answer.waited_s])
            for phase, seconds in took.items()
        }
    )
