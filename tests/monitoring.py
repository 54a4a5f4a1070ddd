"""Prometheus and Alertmanager with the files of `alerts/`, and what their receivers got.

The shipped files are loaded as they are but for addresses and the paths of secrets: `prometheus` and `alertmanager` say
which words they replace.
"""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.alertmanager import Alertmanager
from tests.prometheus import Prometheus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.inbox import Inbox

ALERTS = Path(__file__).parent.parent / "alerts"


def scaled(folder: Path, by: int) -> Path:
    """A copy of the rules in which every duration is shorter by so many times; no limit is changed.

    Durations are windows, `for`, `keep_firing_for`, offsets and the groups' intervals, the last not below 500 ms.
    """
    units = {"s": 1000, "m": 60_000, "h": 3_600_000}

    def shorter(match: re.Match[str]) -> str:
        least = 500 if match[1] == "interval: " else 0
        return f"{match[1]}{max(int(match[2]) * units[match[3]] // by, least)}ms"

    folder.mkdir()
    for path in (ALERTS / "rules").glob("*.yml"):
        text = re.sub(r"(\[|for: |interval: |offset )(\d+)([smh])\b", shorter, path.read_text())
        (folder / path.name).write_text(text)
    return folder


def prometheus(
    folder: Path, targets: Sequence[str], alertmanager: str = "", rules: Path = ALERTS / "rules", *options: str
) -> Prometheus:
    """One that scrapes these daemons and evaluates the rules of a folder.

    Replaced are `localhost:9710` and `localhost:9093` by the addresses given; an Alertmanager of "" is none.
    """
    text = (ALERTS / "prometheus.yml").read_text()
    text = text.replace('"localhost:9710"', ", ".join(f'"{target}"' for target in targets))
    text = text.replace('"localhost:9093"', f'"{alertmanager}"' if alertmanager else "")
    return Prometheus(folder, text.replace("rules/*.yml", f"{rules}/*.yml"), *options)


def firing(server: Prometheus) -> set[tuple[str, str]]:
    """Alert and engine of all that fires and would page; the engine is empty where an alert has none."""
    alerts = server.api("query", query='ALERTS{alertstate="firing",severity="page"}')["result"]
    return {(found["metric"]["alertname"], found["metric"].get("engine", "")) for found in alerts}


def alertmanager(folder: Path, inbox: Inbox) -> Alertmanager:
    """One that tells everything to the inbox: `/page` as PagerDuty, `/chat`, `/ticket` and `/watchdog`.

    Replaced are the addresses of PagerDuty and of the dead man's switch, and where the files of the secrets lie.
    """
    inbox.status = 202  # PagerDuty's; the others take it too
    secrets = folder / "secrets"
    secrets.mkdir()
    for name, secret in {
        "pagerduty_routing_key": "key-of-the-test",
        "chat_webhook_url": f"{inbox.url}/chat",
        "ticket_webhook_url": f"{inbox.url}/ticket",
        "dead_mans_switch_token": "token-of-the-test",
    }.items():
        (secrets / name).write_text(secret)
    text = (ALERTS / "alertmanager.yml").read_text()
    text = text.replace("https://events.pagerduty.com/v2/enqueue", f"{inbox.url}/page")
    text = text.replace("http://localhost:9096/watchdog", f"{inbox.url}/watchdog")
    text = text.replace("/etc/alertmanager/secrets/", f"{secrets}/").replace("templates/", f"{ALERTS}/templates/")
    return Alertmanager(folder, text)


def held(server: Alertmanager) -> list[dict[str, Any]]:
    """The alerts that Alertmanager has, as its API tells them."""
    with urllib.request.urlopen(f"{server.url}/api/v2/alerts", timeout=10) as answer:
        alerts: list[dict[str, Any]] = json.load(answer)
        return alerts


def inhibited(server: Alertmanager, engine: str) -> list[tuple[str, str]]:
    """Of an engine the alerts that are held back, each with its probe."""
    return sorted(
        (alert["labels"]["alertname"], alert["labels"].get("probe", ""))
        for alert in held(server)
        if alert["labels"].get("engine") == engine and alert["status"]["inhibitedBy"]
    )


class Message(NamedTuple):
    """One notification: when it came, of which engine, and the texts of what fires and of what is resolved by alert."""

    at: float
    engine: str
    status: str
    firing: dict[str, str]
    resolved: dict[str, str]
    title: str


def to(inbox: Inbox, path: str) -> list[tuple[float, str, dict[str, Any]]]:
    """When, with which Authorization, and the bodies that came to a path."""
    pairs = zip(list(inbox.arrived), list(inbox.requests), strict=False)  # another may be coming in
    return [(*arrived, json.loads(body)) for arrived, (_, there, body) in pairs if there == path]


def pages(inbox: Inbox, engine: str) -> list[Message]:
    """What the pager got of an engine; of Sentinel itself, if that is ""."""
    found = [_message(at, body) for at, _, body in to(inbox, "/page")]
    return [message for message in found if message.engine == engine]


def _message(at: float, event: dict[str, Any]) -> Message:
    """From PagerDuty's Events API v2 as Alertmanager writes it."""
    told: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for text in event["payload"]["custom_details"]["alerts"].split("\n\n"):
        name, _, rest = text.removeprefix("Resolved: ").partition(": ")
        told[text.startswith("Resolved: ")][name] = rest
    payload = event["payload"]
    return Message(at, payload.get("component", ""), event["event_action"], *told, payload["summary"])
