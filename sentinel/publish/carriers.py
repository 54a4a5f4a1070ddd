"""How a batch of lines reaches each kind of receiver: what it looks like there, and one blocking call that sends it.

Blocking on purpose: each call runs in a thread of its own (notify.py), where neither a name server nor a plug-in can
hold up a probe. What is said of a failure never holds more of a secret URL than where it goes.

    UndeliveredError           it did not arrive; one sentence
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

from sentinel.address import parse_url
from sentinel.publish.picture import rfc3339
from sentinel.receivers import SEVERITY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sentinel.outbox import Line, Spell
    from sentinel.receivers import Alertmanager, Apprise, Heartbeat

TIMEOUT_S = 10.0  # of each step of an exchange; notify.py bounds the whole
_SHOWN_LINES = 20  # in one message: what a person reads of it
_RESENDS = 4  # an alert that was not sent again for so many times its interval is over, as Prometheus has it


class UndeliveredError(Exception):
    """It did not arrive. One sentence."""


# --- Alertmanager ---------------------------------------------------------------------------------------------------


def to_alertmanager(settings: Alertmanager, batch: Sequence[Line], unix: float) -> None:
    """Raises UndeliveredError."""
    headers = {**dict(settings.headers), "Content-Type": "application/json"}
    _request(settings.url.rstrip("/") + "/api/v2/alerts", json.dumps(alerts(settings, batch, unix)).encode(), headers)


def alerts(settings: Alertmanager, batch: Sequence[Line], unix: float) -> list[dict[str, Any]]:
    """The body of POST /api/v2/alerts: what began lasts until it is sent again, what ended has ended."""
    told = []
    for line in batch:
        if line.ended is not None:
            told.append(_alert(settings, line, line.ended, max(line.at_unix, line.ended.since_unix)))
        if line.began is not None:
            told.append(_alert(settings, line, line.began, unix + _RESENDS * settings.resend))
    return told


def _alert(settings: Alertmanager, line: Line, spell: Spell, ends_unix: float) -> dict[str, Any]:
    name = f"Engine{spell.state.capitalize()}"
    annotations = {"summary": line.text}
    if settings.runbooks:
        annotations["runbook_url"] = f"{settings.runbooks.rstrip('/')}/{name}.md"
    own = {"alertname": name, "engine": spell.engine, "severity": SEVERITY[spell.state], "state": spell.state}
    return {
        "labels": {**dict(settings.labels), **own},
        "annotations": annotations,
        "startsAt": rfc3339(spell.since_unix),
        "endsAt": rfc3339(ends_unix),
    }


# --- whatever Apprise reaches ---------------------------------------------------------------------------------------


def by_apprise(settings: Apprise, batch: Sequence[Line], _unix: float) -> None:
    """Raises UndeliveredError."""
    import apprise  # an optional dependency; the configuration has found it

    logger = logging.getLogger("apprise")
    said = _LastWords()
    logger.addHandler(said)
    try:
        # Without a time limit of its own it stays in this thread; its pool would be waited for at the daemon's end.
        service = apprise.Apprise(asset=apprise.AppriseAsset(async_mode=False, service_timeout=0))
        service.add(str(settings.url))
        title, body = message(batch)
        arrived = service.notify(body, title, notify_type=apprise.NotifyType(_kind(batch)))
    except Exception as exc:  # whatever a plug-in raises is a message that did not arrive
        raise UndeliveredError(f"{settings.url.text()}: {type(exc).__name__}") from exc
    finally:
        logger.removeHandler(said)
    if not arrived:
        raise UndeliveredError(f"{settings.url.text()}: {_hidden(said.text, settings.url) or 'not sent'}")


def message(batch: Sequence[Line]) -> tuple[str, str]:
    """Title and body: a line a change, with its time, the oldest first."""
    last = batch[-1].text.partition(" (")[0]
    title = last if len(batch) == 1 else f"{len(batch)} changes, the last: {last}"
    shown = [f"{rfc3339(line.at_unix)} {line.text}" for line in batch[-_SHOWN_LINES:]]
    before = len(batch) - len(shown)
    return title, "\n".join([f"and {before} before these:", *shown] if before else shown)


def _kind(batch: Sequence[Line]) -> str:
    """The worst that is still true at the end of the batch, in Apprise's words."""
    over = {line.ended for line in batch}
    severities = {SEVERITY[line.began.state] for line in batch if line.began is not None and line.began not in over}
    return "failure" if "page" in severities else "warning" if severities else "success"


class _LastWords(logging.Handler):
    """What Apprise logged last in this thread: the reason that it does not return."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.text = record.getMessage()


def _hidden(text: str, url: str) -> str:
    """The text without the parts of the URL, any of which may be a secret."""
    for part in re.split(r"[/:@?&=]+", url):
        if len(part) >= 4:
            text = text.replace(part, "***").replace(urllib.parse.unquote(part), "***")
    return " ".join(text.split())


# --- a dead man's switch --------------------------------------------------------------------------------------------


def beat(settings: Heartbeat, late: str) -> None:
    """A GET while the schedule is fresh (`late` is empty), else a POST that says why not. Raises UndeliveredError."""
    if late:
        _request(settings.url.rstrip("/") + settings.fail, late.encode(), {"Content-Type": "text/plain; charset=utf-8"})
    else:
        _request(settings.url, None, {})


# --- HTTP -----------------------------------------------------------------------------------------------------------


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET, and its 200 would look as if the message had arrived."""

    def redirect_request(self, *_: object) -> None:
        return None


def _request(url: str, body: bytes | None, headers: Mapping[str, str]) -> None:
    """Raises UndeliveredError unless the answer is 2xx."""
    address = parse_url(url)
    scheme = "https" if address.tls else "http"
    where = f"{scheme}://{address.authority}"
    given = {"User-Agent": "sentinel", **headers}
    if address.userinfo:
        given["Authorization"] = "Basic " + base64.b64encode(urllib.parse.unquote_to_bytes(address.userinfo)).decode()
    request = urllib.request.Request(where + address.target, body, given)  # noqa: S310  # http or https: parsed above
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            answer.read(1 << 16)
    except urllib.error.HTTPError as exc:
        with exc:
            said = exc.read(200).decode("utf-8", "replace").strip()
        raise UndeliveredError(f"{where}: status {exc.code}, want 2xx{f': {said}' if said else ''}") from exc
    except (OSError, http.client.HTTPException, ValueError) as exc:
        why = getattr(exc, "reason", exc)
        what = (getattr(why, "strerror", None) or str(why) or type(why).__name__).lower()
        raise UndeliveredError(f"{where}: {what}") from exc
