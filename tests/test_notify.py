"""Sentinel tells by itself: a real daemon, a real Alertmanager, what Apprise reaches, and receivers that fail."""

from __future__ import annotations

import asyncio
import contextlib
import email
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiosmtpd.controller import Controller

from sentinel import cli
from sentinel.address import Url
from sentinel.outbox import Line, Spell
from sentinel.publish import carriers
from sentinel.publish.carriers import UndeliveredError, alerts, message, to_alertmanager
from sentinel.publish.notify import Notifier
from sentinel.receivers import Alertmanager, Heartbeat, Labels, Pause, Receiver, SecretUrl
from tests import servers
from tests.alertmanager import Alertmanager as RealAlertmanager
from tests.capture_pages import free_port
from tests.daemons import Daemon, until
from tests.inbox import Inbox
from tests.tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def config(notify: str, **engines: str) -> str:
    """Engines of one http probe each, and receivers."""
    rows = "".join(
        f"  - name: {name}\n    interval: 500ms\n    timeout: 500ms\n    fall: 2\n    rise: 2\n    start_period: 0s\n"
        f'    probes: {{health: {{kind: http, url: "{url}/"}}}}\n'
        for name, url in engines.items()
    )
    return f"listen: 127.0.0.1:0\nnotify:\n{notify}engines:\n{rows}"


@pytest.fixture
def engine() -> Iterator[Inbox]:
    with Inbox() as running:
        yield running


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with Inbox() as running:
        yield running


# --- Alertmanager ---------------------------------------------------------------------------------------------------


TOLD_AT_ONCE = """\
route: {{receiver: hook, group_by: [engine], group_wait: 0s, group_interval: 500ms, repeat_interval: 1h}}
receivers: [{{name: hook, webhook_configs: [{{url: "{url}/", send_resolved: true}}]}}]
"""


@pytest.fixture
def alertmanager(inbox: Inbox, tmp_path: Path) -> Iterator[RealAlertmanager]:
    with RealAlertmanager(tmp_path, TOLD_AT_ONCE.format(url=inbox.url)) as running:
        yield running


def pages(inbox: Inbox) -> list[tuple[str, str, str]]:
    """Engine, state and firing or resolved, of every alert in every notification, in their order."""
    return [
        (alert["labels"]["engine"], alert["labels"]["state"], alert["status"])
        for body in inbox.bodies()
        for alert in body["alerts"]
    ]


@needs("prometheus-alertmanager")
def test_a_real_alertmanager_is_told_once_and_of_the_end_once(
    alertmanager: RealAlertmanager, inbox: Inbox, engine: Inbox, tmp_path: Path
) -> None:
    receiver = (
        f'  am: {{kind: alertmanager, url: "http://{alertmanager.where}", resend: 1s, labels: {{team: trading}}}}\n'
    )
    with Daemon(tmp_path, config(receiver, e=engine.url)) as daemon:
        until(lambda: daemon.state() == "healthy")
        engine.status = 500
        until(lambda: pages(inbox))
        (alert,) = inbox.bodies()[0]["alerts"]
        assert alert["labels"] == {
            "alertname": "EngineUnhealthy",
            "engine": "e",
            "severity": "page",
            "state": "unhealthy",
            "team": "trading",
        }
        assert alert["annotations"] == {
            "summary": f"e is unhealthy (health: GET {engine.url}/: status 500, want 2xx)",
        }
        until(lambda: (daemon.metric('sentinel_notifications_total{receiver="am",result="sent"}') or 0) >= 4)
        engine.status = 200
        until(lambda: len(pages(inbox)) > 1)
        until(lambda: daemon.metric('sentinel_notifications_pending{receiver="am"}') == 0)
        assert daemon.metric('sentinel_notifications_total{receiver="am",result="failed"}') == 0
    assert pages(inbox) == [("e", "unhealthy", "firing"), ("e", "unhealthy", "resolved")]


@pytest.mark.alone
@needs("prometheus-alertmanager")
def test_an_alertmanager_that_is_down_for_a_while_loses_nothing(
    alertmanager: RealAlertmanager, inbox: Inbox, tmp_path: Path
) -> None:
    """A minute, scaled down to 12 s with 2 s and not 1 m between two sendings: longer than an alert lives unsent."""
    receiver = f'  am: {{kind: alertmanager, url: "http://{alertmanager.where}", resend: 2s}}\n'
    with contextlib.ExitStack() as stack:
        engines = {name: stack.enter_context(Inbox()) for name in ("ends", "begins", "both", "lasts", "well")}
        text = config(receiver, **{name: each.url for name, each in engines.items()})
        daemon = stack.enter_context(Daemon(tmp_path, text))
        until(lambda: daemon.get("/health")[0] == 200)
        engines["ends"].status = engines["lasts"].status = 500
        until(lambda: len(pages(inbox)) == 2)
        alertmanager.stop()
        down = time.monotonic()
        engines["ends"].status = 200
        engines["begins"].status = engines["both"].status = 500
        until(lambda: daemon.state(2) == "unhealthy")
        engines["both"].status = 200
        time.sleep(max(0.0, down + 12.0 - time.monotonic()))
        alertmanager.start()
        failed = daemon.metric('sentinel_notifications_total{receiver="am",result="failed"}')
        assert failed is not None
        assert failed >= 3
        until(lambda: len(pages(inbox)) >= 6)
        engines["begins"].status = engines["lasts"].status = 200
        until(lambda: len(pages(inbox)) >= 8)
        assert daemon.metric('sentinel_notifications_dropped_total{receiver="am"}') == 0
        assert daemon.metric('sentinel_notifications_pending{receiver="am"}') == 0
        said = [row["message"].partition(": ")[2] for row in daemon.log() if row["message"].startswith("notify am")]
        where = f"http://{alertmanager.where}"
        assert said == [f"not told, and tried again: {where}: connection refused", "told again"]
    told = [f"{engine} {status}" for engine, _, status in pages(inbox)]
    both = sorted(f"{engine} {status}" for engine in engines if engine != "well" for status in ("firing", "resolved"))
    assert sorted(told) == both
    assert all(
        told.index(f"{engine} firing") < told.index(f"{engine} resolved") for engine in engines if engine != "well"
    )


def test_an_alert_as_alertmanager_is_sent_it() -> None:
    settings = Alertmanager("http://h", labels=Labels({"team": "t"}.items()), resend=Pause(60), runbooks="http://r/")
    began, ended = Spell("e", "degraded", 5.0, 1005.0), Spell("e", "unhealthy", 1.0, 1001.0)
    sent = alerts(settings, [Line(5.0, 1005.0, "e is degraded (why)", began, ended)], 1006.0)
    common = {"engine": "e", "team": "t"}
    assert sent == [
        {
            "labels": {**common, "alertname": "EngineUnhealthy", "severity": "page", "state": "unhealthy"},
            "annotations": {"summary": "e is degraded (why)", "runbook_url": "http://r/EngineUnhealthy.md"},
            "startsAt": "1970-01-01T00:16:41.000Z",
            "endsAt": "1970-01-01T00:16:45.000Z",
        },
        {
            "labels": {**common, "alertname": "EngineDegraded", "severity": "ticket", "state": "degraded"},
            "annotations": {"summary": "e is degraded (why)", "runbook_url": "http://r/EngineDegraded.md"},
            "startsAt": "1970-01-01T00:16:45.000Z",
            "endsAt": "1970-01-01T00:20:46.000Z",
        },
    ]


# --- what Apprise reaches -------------------------------------------------------------------------------------------


def test_apprise_is_told_and_an_outage_comes_together_afterwards(inbox: Inbox, engine: Inbox, tmp_path: Path) -> None:
    (tmp_path / "chat").write_text(f"json://{inbox.where}/s3cret-path\n")
    with Daemon(tmp_path, config('  chat: {kind: apprise, url: "file:chat"}\n', e=engine.url)) as daemon:
        until(lambda: daemon.state() == "healthy")
        engine.status = 500
        until(lambda: inbox.requests)
        (first,) = inbox.bodies()
        assert (first["title"], first["type"]) == ("e is unhealthy", "failure")
        assert (
            first["message"].partition("Z ")[2] == f"e is unhealthy (health: GET {engine.url}/: status 500, want 2xx)"
        )
        inbox.status = 503
        for status, state in ((200, "healthy"), (500, "unhealthy"), (200, "healthy")):
            engine.status = status
            until(lambda state=state: daemon.state() == state)
        until(lambda: (daemon.metric('sentinel_notifications_total{receiver="chat",result="failed"}') or 0) >= 2)
        assert daemon.metric('sentinel_notifications_pending{receiver="chat"}') == 3
        inbox.status = 200
        until(lambda: daemon.metric('sentinel_notifications_pending{receiver="chat"}') == 0)
        last = inbox.bodies()[-1]
        assert (last["title"], last["type"]) == (
            "3 changes, the last: e is healthy, was unhealthy for " + (last["title"].rpartition(" for ")[2]),
            "success",
        )
        said = [
            line.partition("Z e is ")[2].partition(" (")[0].partition(",")[0] for line in last["message"].splitlines()
        ]
        assert said == ["healthy", "unhealthy", "healthy"]
        assert daemon.metric('sentinel_notifications_total{receiver="chat",result="sent"}') == 2
        assert "s3cret" not in daemon.log_path.read_text()
        told = [row for row in daemon.log() if row["message"].startswith("notify chat: not told")]
        assert len(told) == 1
        assert "503" in told[0]["message"]


class Mailbox:
    """A handler of aiosmtpd that keeps what it is sent."""

    def __init__(self) -> None:
        self.mails: list[Any] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802  # aiosmtpd's name
        self.mails.append(email.message_from_bytes(envelope.content))
        return "250 OK"


def test_a_mail(engine: Inbox, tmp_path: Path) -> None:
    mailbox = Mailbox()
    server = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    server.start()
    try:
        url = f"mailto://127.0.0.1:{server.port}?from=sentinel@localhost.test&to=ops@localhost.test&mode=insecure"
        with Daemon(tmp_path, config(f'  mail: {{kind: apprise, url: "{url}"}}\n', e=engine.url)) as daemon:
            until(lambda: daemon.state() == "healthy")
            engine.status = 500
            (mail,) = until(lambda: mailbox.mails)
    finally:
        server.stop()
    assert mail["Subject"] == "e is unhealthy"
    parts = [part.get_payload(decode=True).decode() for part in mail.walk() if not part.is_multipart()]
    assert "status 500, want 2xx" in parts[0]


def test_a_long_message_shows_its_end_and_counts_the_rest() -> None:
    batch = [Line(at, at, f"e{at} is unhealthy (why)") for at in range(25)]
    title, body = message(batch)
    assert title == "25 changes, the last: e24 is unhealthy"
    assert body.splitlines()[0] == "and 5 before these:"
    assert body.splitlines()[1] == "1970-01-01T00:00:05.000Z e5 is unhealthy (why)"
    assert len(body.splitlines()) == 21


# --- a dead man's switch --------------------------------------------------------------------------------------------


async def test_a_heartbeat_beats_while_the_schedule_is_fresh_and_says_when_it_is_not(inbox: Inbox) -> None:
    """`late` is what the daemon's schedule says: late for real would be this test asleep."""
    late = ""
    said: list[str] = []
    notifier = Notifier(str, lambda: late, lambda *words: said.append(" ".join(words)))
    settings = Heartbeat(SecretUrl(f"{inbox.url}/ping/s3cret"), Pause(0.1))
    quiet = Receiver("quiet", "heartbeat", settings)
    loud = Receiver("loud", "heartbeat", Heartbeat(SecretUrl(f"{inbox.url}/loud"), Pause(0.1), "/fail"))
    notifier.set([quiet], {})
    await asyncio.to_thread(until, lambda: len(inbox.requests) >= 3)
    assert {*inbox.requests} == {("GET", "/ping/s3cret", "")}
    late = "the schedule is late: e/health was last started 5 s ago"
    notifier.set([quiet, loud], {})
    await asyncio.to_thread(until, lambda: ("POST", "/loud/fail", late) in inbox.requests)
    count = len([path for _, path, _ in inbox.requests if path.startswith("/ping")])
    await asyncio.sleep(0.5)
    assert len([path for _, path, _ in inbox.requests if path.startswith("/ping")]) <= count + 1  # one was on its way
    inbox.status = 500
    late = ""
    await asyncio.to_thread(until, lambda: notifier.deliveries()[0].failed)
    assert f"WARNING quiet not told, and tried again: {inbox.url}: status 500, want 2xx" in said
    notifier.close()


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_in_maintenance_nobody_is_told_and_a_bad_end_is(inbox: Inbox, engine: Inbox, tmp_path: Path) -> None:
    control = f"unix:{tmp_path}/control.sock"
    text = config(f'  am: {{kind: alertmanager, url: "{inbox.url}"}}\n', e=engine.url)
    with Daemon(tmp_path, f"control: {control}\n{text}") as daemon:
        until(lambda: daemon.state() == "healthy")
        assert cli.main(["maintenance", "start", "e", "--for", "1h", "--control", control]) == 0
        engine.status = 500
        until(lambda: daemon.probes()["health"] == ("failing", "http_status"))
        assert daemon.state() == "maintenance"
        time.sleep(1.5)  # longer than anything is gathered
        assert inbox.requests == []
        assert cli.main(["maintenance", "end", "e", "--control", control]) == 0
        until(lambda: inbox.requests)
        (alert,) = inbox.bodies()[0]
        assert alert["annotations"]["summary"].startswith("e is unhealthy (health: GET ")
        assert cli.main(["maintenance", "start", "e", "--for", "1h", "--control", control]) == 0
        until(lambda: len(inbox.requests) == 2)
        (alert,) = inbox.bodies()[1]
        assert alert["annotations"]["summary"].startswith("e is in maintenance (until ")
        assert alert["labels"]["state"] == "unhealthy"


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        pytest.param(
            servers.answers(b"", "302 Found", "Location: http://127.0.0.1:1/\r\n"),
            "status 302, want 2xx",
            id="a redirect, which would make a GET of a POST",
        ),
        pytest.param(servers.answers(b"bad label", "400 Bad Request"), "status 400, want 2xx: bad label", id="refused"),
        pytest.param(servers.resetting, "connection reset by peer", id="a reset"),
        pytest.param(servers.says(b"SSH-2.0-x\r\n"), "ssh-2.0-x", id="no HTTP"),
        pytest.param(servers.says(b""), "remote end closed connection without response", id="no answer"),
    ],
)
def test_what_does_not_arrive_says_why(behave: Any, why: str) -> None:
    with servers.serving(behave) as url:
        settings = Alertmanager(Url(url.replace("http://", "http://user:pw@")))
        with pytest.raises(UndeliveredError) as caught:
            to_alertmanager(settings, [Line(1.0, 1.0, "e is unhealthy", Spell("e", "unhealthy", 1.0, 1.0))], 1.0)
    assert str(caught.value).strip() == f"{url}: {why}"


def test_what_apprise_says_of_a_failure_loses_the_secret() -> None:
    url = "slack://TokenA123/Token%2FB12/abc123def456"
    assert carriers._hidden("403 at /TokenA123/Token/B12,\nabc123def456", url) == "403 at /***/***, ***"


@pytest.mark.alone
def test_receivers_that_hang_delay_no_probe_and_not_the_end(engine: Inbox, tmp_path: Path) -> None:
    with servers.serving(servers.silent) as hung:
        where = hung.removeprefix("http://")
        notify = (
            f'  am: {{kind: alertmanager, url: "{hung}", resend: 1s}}\n'
            f'  chat: {{kind: apprise, url: "json://{where}/"}}\n'
            f'  beat: {{kind: heartbeat, url: "{hung}/", every: 1s}}\n'
        )
        with Daemon(tmp_path, config(notify, e=engine.url)) as daemon:
            until(lambda: daemon.state() == "healthy")
            engine.status = 500
            until(lambda: daemon.metric('sentinel_notifications_pending{receiver="chat"}'))
            before = daemon.metric('sentinel_probe_duration_seconds_count{engine="e",kind="http",probe="health"}')
            late = {
                bound: daemon.metric(f'sentinel_schedule_lag_seconds_bucket{{le="{bound}"}}')
                for bound in ("0.05", "+Inf")
            }
            began = time.monotonic()
            time.sleep(5.0)  # all three hang, the mail's thread too
            passed_s = time.monotonic() - began
            after = daemon.metric('sentinel_probe_duration_seconds_count{engine="e",kind="http",probe="health"}')
            now = {bound: daemon.metric(f'sentinel_schedule_lag_seconds_bucket{{le="{bound}"}}') for bound in late}
            assert after is not None
            assert before is not None
            assert after - before >= 0.9 * passed_s / 0.5
            runs, in_time = now["+Inf"] - late["+Inf"], now["0.05"] - late["0.05"]
            assert in_time >= 0.9 * runs, (in_time, runs)  # the machine's own noise; a hanging receiver would be all
            assert daemon.metric('sentinel_notifications_pending{receiver="am"}') == 1
            code, took_s = daemon.end()
            assert (code, took_s < 2) == (0, True)
            said = [row["message"] for row in daemon.log() if "ended with changes" in row["message"]]
            assert said == [f"notify {name}: ended with changes that were not told: 1" for name in ("am", "chat")]


def test_a_reload_changes_the_receivers_and_tells_the_new_one_what_lasts(
    inbox: Inbox, engine: Inbox, tmp_path: Path
) -> None:
    with Inbox() as second:
        engine.status = 500
        text = config(f'  a: {{kind: alertmanager, url: "{inbox.url}"}}\n', e=engine.url)
        with Daemon(tmp_path, text) as daemon:
            until(lambda: inbox.requests)
            daemon.config_path.write_text(
                text.replace("engines:", f'  b: {{kind: alertmanager, url: "{second.url}"}}\nengines:')
            )
            daemon.process.send_signal(signal.SIGHUP)
            until(lambda: second.requests)
            assert [alert["labels"]["engine"] for alert in second.bodies()[0]] == ["e"]
            daemon.config_path.write_text(
                config(f'  b: {{kind: alertmanager, url: "{second.url}"}}\n', other=engine.url)
            )
            daemon.process.send_signal(signal.SIGHUP)
            until(lambda: len(second.requests) >= 3)
            gone, new = second.bodies()[1][0], second.bodies()[2][0]
            assert (gone["labels"]["engine"], gone["annotations"]["summary"].partition(",")[0]) == (
                "e",
                "e is watched no more",
            )
            assert gone["endsAt"] <= new["startsAt"]
            assert new["labels"]["engine"] == "other"
            assert len(inbox.requests) == 1
