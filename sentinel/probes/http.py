"""Kind `http`: a GET answers 2xx.

It must never follow a redirect: the address that was asked is the one that counts.
"""

from __future__ import annotations

from sentinel.address import Headers, Url
from sentinel.model import TYPE_CHECKING, Get, Metric, Observation, Value, unanswered
from sentinel.units import Bytes, duration

if TYPE_CHECKING:
    from sentinel.model import Answer, Ask, Response

METRICS: tuple[Metric, ...] = ()
NEEDS = ""


class Settings(Value):
    """The settings of a probe of kind `http`."""

    url: Url
    max_body: Bytes = Bytes(1 << 20)  # a health answer is small; more is not read
    headers: Headers = Headers()


def asks(settings: Settings) -> tuple[Ask, ...]:
    """One GET on a connection of its own."""
    return (Get(settings.url, settings.max_body, headers=settings.headers),)


def read(settings: Settings, answers: tuple[Answer, ...], memory: None) -> tuple[Observation, None]:
    """2xx (RFC 9110 §15.3) is a pass; every other status is not, 3xx included."""
    (answer,) = answers
    if answer.failure is not None:
        return unanswered(answer), memory
    response: Response = answer.value
    where = f"GET {settings.url}: status {response.status}"
    if 200 <= response.status < 300:
        sentence = f"{where} in {duration(answer.took_s)}"
        return Observation(answer.at, answer.took_s, True, sentence, value=answer.took_s, unit="seconds"), memory
    to = f" to {response.location}" if response.location else ""
    return Observation(answer.at, answer.took_s, False, f"{where}{to}, want 2xx", "http_status"), memory
