"""The sidecar: no capability, a read-only root, the engine's namespaces. What it sees, and what it outlives."""

from __future__ import annotations

import json
import os
import select
import statistics
import time
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.container.docker import LOCKED, POD, SENTINEL, STAND_IN, healthcheck
from tests.daemons import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.container.docker import Docker

pytestmark = pytest.mark.alone

MEMORY_BYTES = 256 << 20
_LIMITS = ("--memory", str(MEMORY_BYTES), "--cpus", "0.5")


@contextmanager
def pair(docker: Docker, *options: str) -> Iterator[tuple[str, str]]:
    """An engine with limits and its sidecar, both in the namespaces of a third, as in a pod; their ids."""
    with docker.run("--network", "none", POD) as pod:
        joined = ("--network", f"container:{pod}", "--pid", f"container:{pod}", *LOCKED[2:])
        with docker.run(*joined, *_LIMITS, "--restart", "always", SENTINEL, *STAND_IN) as engine:
            with docker.run(*joined, *options, SENTINEL) as sidecar:
                until(lambda: _state(docker, sidecar) == "healthy")
                yield engine, sidecar


def _status(docker: Docker, sidecar: str) -> Any:
    """The engine as the sidecar tells of it; empty while it does not listen yet."""
    done = docker.tried("exec", sidecar, "curl", "-s", "http://127.0.0.1:9710/api/v1/status")
    return json.loads(done.stdout)["engines"][0] if done.returncode == 0 else {}


def _state(docker: Docker, sidecar: str) -> str:
    return str(_status(docker, sidecar).get("state"))


def _metric(docker: Docker, sidecar: str, name: str) -> float | None:
    page = docker.get(sidecar, "http://127.0.0.1:9710/metrics")
    return next((float(line.split()[-1]) for line in page.splitlines() if line.startswith(f"{name} ")), None)


def test_it_sees_the_engines_own_limit_and_throttling(docker: Docker) -> None:
    with pair(docker) as (engine, sidecar):
        limit = _metric(docker, sidecar, 'sentinel_engine_memory_limit_bytes{engine="trading-engine"}')
        assert limit == MEMORY_BYTES

        throttled = 'sentinel_engine_cpu_throttled_periods_total{engine="trading-engine"}'
        before = _metric(docker, sidecar, throttled)
        docker("exec", "--detach", engine, "python3", "-c", "while True: pass")
        until(lambda: (_metric(docker, sidecar, throttled) or 0) > (before or 0) + 10)


def test_it_sees_the_end_of_the_engine_within_50_ms(docker: Docker) -> None:
    took_ms = []
    with pair(docker) as (engine, sidecar):
        for _ in range(5):
            until(lambda: _state(docker, sidecar) == "healthy")
            known = len(docker.log(sidecar))
            handle = os.pidfd_open(docker.inspect(engine)["State"]["Pid"])
            try:
                with docker.following("kill", "--signal", "KILL", engine) as answer:
                    assert select.select([handle], [], [], 10)[0]
                    ended_at = time.time()
                    assert [*answer]
            finally:
                os.close(handle)

            def told(known: int = known) -> Any:
                rows = docker.log(sidecar)[known:]
                return next((row for row in rows if row.get("reason") == "no_process"), None)

            seen_at = datetime.fromisoformat(until(told)["time"]).timestamp()
            took_ms.append((seen_at - ended_at) * 1000)
            docker("start", engine)  # Docker's restart policy leaves alone what `docker kill` ended
    print(f"from the end of the engine to the sidecar's line, ms: {', '.join(f'{ms:.1f}' for ms in took_ms)}")
    assert statistics.median(took_ms) < 50


def test_it_outlives_a_crash_and_watches_the_engine_that_docker_starts_again(docker: Docker) -> None:
    with pair(docker) as (_, sidecar):
        docker.fault(sidecar, "kill")  # on the same loopback: an exec in a container that ends may wait for ever
        restarts = 'sentinel_engine_restarts_total{engine="trading-engine"}'
        until(lambda: _metric(docker, sidecar, restarts) == 1)
        until(lambda: _state(docker, sidecar) == "healthy")
        assert docker.inspect(sidecar)["RestartCount"] == 0


def test_as_another_user_it_says_what_it_cannot_see_and_asks_its_four_questions(docker: Docker) -> None:
    with pair(docker, "--user", "2000:2000") as (engine, sidecar):
        seen = _status(docker, sidecar)
        assert {
            probe["name"]: probe["state"] for probe in seen["probes"] if probe["name"] != "evidence"
        } == dict.fromkeys(("health", "process", "memory", "latency"), "passing")
        # and the sentence of the memory probe says of which limit it does not speak
        assert {missing["source"] for missing in seen["unreadable"]} == {
            "the engine's memory limit",
            "CPU throttling",
            "reclaim at the memory limit",
        }
        assert all(missing["why"] and missing["remedy"] for missing in seen["unreadable"])
        docker.fault(engine, "health-500")
        until(lambda: _state(docker, sidecar) == "unhealthy")


def test_the_owner_of_a_namespace_takes_the_sidecar_along_and_docker_does_not_bring_it_back(docker: Docker) -> None:
    """Why there is a pod. Where this fails, Docker has learnt to wait, and a pod is no longer needed."""
    always = ("--restart", "always")
    with docker.run(*LOCKED, *always, SENTINEL, *STAND_IN) as engine:
        joined = ("--network", f"container:{engine}", "--pid", f"container:{engine}", *LOCKED[2:])
        with docker.run(*joined, *always, SENTINEL) as sidecar:
            until(lambda: _state(docker, sidecar) == "healthy")
            docker("kill", "--signal", "KILL", engine)
            # It tries once, a tenth of a second later. Where an engine comes back by itself that is a race.
            until(lambda: "non running container" in docker.inspect(sidecar)["State"]["Error"])
            docker("start", engine)
            time.sleep(3)
            assert docker.inspect(sidecar)["State"]["Status"] == "exited"


def test_it_stops_within_two_seconds(docker: Docker) -> None:
    with pair(docker) as (_, sidecar):
        began = time.monotonic()
        docker("stop", sidecar)
        assert time.monotonic() - began < 2
        assert docker.inspect(sidecar)["State"]["ExitCode"] == 0


def test_an_engine_asks_over_a_socket_on_a_shared_tmpfs(docker: Docker) -> None:
    options = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=0750,uid=1000,gid=1000")
    volume = docker("volume", "create", *options)
    mount = ("--volume", f"{volume}:/run/sentinel", "--env", "SENTINEL_DAEMON=unix:/run/sentinel/sentinel.sock")
    try:
        ask = healthcheck(0.5, 2, "sentinel check --daemon")
        with docker.run(*LOCKED, *mount, *ask, SENTINEL, *STAND_IN) as engine:
            joined = ("--network", f"container:{engine}", "--pid", f"container:{engine}", *LOCKED[2:], *mount)
            with docker.run(*joined, "--env", "SENTINEL_LISTEN=unix:/run/sentinel/sentinel.sock", SENTINEL) as sidecar:
                until(lambda: docker.health(engine) == "healthy")
                until(lambda: docker.health(sidecar) == "healthy")
                assert docker.inspect(engine)["State"]["Health"]["Log"][-1]["Output"].startswith("healthy: ")
    finally:
        docker("volume", "rm", volume)
