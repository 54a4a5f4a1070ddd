"""The stream of events: what happened and what is, each written once, and nothing lost by who comes back."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from sentinel.publish.events import _BACKLOG, _Reader
from tests.daemons import Daemon, until
from tests.engines import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = "metric=sentinel_engine_latency_seconds&metric=sentinel_engine_memory_used_bytes"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(name=f"told-{os.getpid()}") as running:
        yield running


@pytest.fixture(scope="module")
def _running(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    text = f"""\
listen: 127.0.0.1:0
engines:
  - name: e
    interval: 200ms
    probes:
      health: {{kind: http, url: "{engine.health_url}"}}
      process: {{kind: process, name: {engine.name}}}
      memory: {{kind: memory, max: 90%}}
      latency: {{kind: latency, url: "{engine.metrics_url}", metric: order_latency_seconds, max: 1s}}
  - {{name: other, interval: 200ms, probes: {{health: {{kind: http, url: "{engine.health_url}"}}}}}}
"""
    with Daemon(tmp_path_factory.mktemp("daemon"), text) as running:
        yield running


@pytest.fixture
def daemon(_running: Daemon, engine: Engine) -> Daemon:
    engine.clear()
    until(lambda: {_running.state(0), _running.state(1)} == {"healthy"})
    return _running


@contextlib.contextmanager
def stream(daemon: Daemon, query: str = "", last_id: str | None = None) -> Iterator[Iterator[tuple[str, str, Any]]]:
    """The events as they come: id, event and what it says."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    request = urllib.request.Request(f"{daemon.url}/api/v1/events{query}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:

        def events() -> Iterator[tuple[str, str, Any]]:
            fields: dict[str, str] = {}
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name:
                    fields[name] = value
                elif "data" in fields:
                    yield fields.get("id", ""), fields["event"], json.loads(fields["data"])
                    fields = {}

        yield events()


def changes(daemon: Daemon, query: str = "") -> list[dict[str, Any]]:
    code, text = daemon.get(f"/api/v1/changes{query}")
    assert code == 200
    told: list[dict[str, Any]] = json.loads(text)["changes"]
    return told


def test_the_changes_are_remembered_in_order(daemon: Daemon, engine: Engine) -> None:
    engine.fault("health-500")
    until(lambda: daemon.state() == "unhealthy" and daemon.state(1) == "unhealthy")
    told = changes(daemon)
    assert {change["engine"] for change in told} == {"e", "other"}
    assert [change["time"] for change in told] == sorted(change["time"] for change in told)
    assert len({change["id"] for change in told}) == len(told)
    last, whole = changes(daemon, "?engine=e")[-2:]
    assert (last["probe"], last["before"], last["state"]) == ("health", "passing", "failing")
    assert ("probe" in whole, whole["before"], whole["state"]) == (False, "healthy", "unhealthy")
    assert changes(daemon, "?engine=nobody") == []


def test_who_comes_back_gets_what_it_missed_and_no_more(daemon: Daemon, engine: Engine) -> None:
    before = changes(daemon)
    engine.fault("health-500")
    until(lambda: daemon.state() == "unhealthy" and daemon.state(1) == "unhealthy")
    after = changes(daemon)
    with stream(daemon, last_id=before[-1]["id"]) as events:
        missed = [next(events)[0] for _ in after[len(before) :]]
    assert missed == [change["id"] for change in after[len(before) :]]
    for other in ("", "another-1", "7"):  # of a daemon that ran before: all that this one has seen is new
        with stream(daemon, last_id=other) as events:
            assert next(events)[0] == after[0]["id"]


def test_only_who_asks_gets_the_picture_and_at_once(daemon: Daemon, engine: Engine) -> None:
    with stream(daemon, "?live") as events:
        _, event, picture = next(events)
        ticks = [next(events)[2]["at"] for _ in range(2)]  # the first came at once, these come with the daemon's tick
    assert event == "picture"
    assert 0.5 < ticks[1] - ticks[0] < 5
    assert [(one["name"], one["state"], one["why"]) for one in picture["engines"]] == [
        ("e", "healthy", []),
        ("other", "healthy", []),
    ]
    memory, latency = picture["engines"][0]["probes"][2:4]
    assert (memory["name"], memory["unit"], memory["limit"], "sentence" in memory) == ("memory", "ratio", 0.9, False)
    assert latency["value"] == pytest.approx(0.0006, rel=0.5)
    with stream(daemon) as events:
        engine.fault("health-500")
        assert next(events)[1] == "change"


def test_the_readings_that_are_drawn_come_with_the_picture(daemon: Daemon) -> None:
    until(lambda: len(json.loads(daemon.get(f"/api/v1/history/e?{METRICS}")[1])["probes"]["memory"]["times"]) > 2)
    with stream(daemon, f"?live=e&{METRICS}") as events:
        assert next(events)[1] == "picture"
        _, event, past = next(events)
    assert (event, past["engine"], [*past["probes"]]) == ("past", "e", ["memory", "latency"])
    latency = past["probes"]["latency"]
    assert [*latency["series"]] == ['sentinel_engine_latency_seconds{quantile="0.99"}']
    assert 1 <= len(latency["times"]) <= 6
    with stream(daemon, f"?live=nobody&{METRICS}") as events:
        assert [next(events)[1] for _ in range(2)] == ["picture", "picture"]


async def test_a_reader_that_does_not_read_gets_the_newest_picture_and_then_its_end() -> None:
    reader = _Reader(True, ("", ()))
    for number in range(3):
        reader.show(b"picture %d" % number)
    assert reader.tell(b"change")
    assert [await reader.next(), await reader.next()] == [b"change", b"picture 2"]
    kept = [reader.tell(b"change") for _ in range(_BACKLOG + 1)]
    assert kept == [True] * _BACKLOG + [False]
    assert await reader.next() is None
