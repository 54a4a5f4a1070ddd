"""`sentinel check` as a Docker HEALTHCHECK: what Docker makes of it for each fault, and what it leaves behind."""

from __future__ import annotations

import itertools
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sentinel.demo.engine import FAULTS
from tests.container.docker import LOCKED, SENTINEL, STAND_IN, healthcheck
from tests.daemons import until

if TYPE_CHECKING:
    from tests.container.docker import Docker

pytestmark = pytest.mark.alone

INTERVAL_S, RETRIES = 2.0, 2


class Case(NamedTuple):
    """What the line says of a fault; how long it takes to grow; options of the container."""

    word: str
    grows_s: float = 0.0
    options: tuple[str, ...] = ()


CASES = {
    "health-500": Case("health: GET http://localhost:8080/health: status 500, want 2xx"),
    "health-hang": Case("health: GET http://localhost:8080/health: "),
    "slow": Case("latency: p99 of latency_p99 is "),
    "memory": Case("memory: memory ", 6.0, ("--env", "SENTINEL_MAX_MEMORY=40%")),  # 100 of 256 MiB, at 16 MiB a second
    "files": Case("health: GET http://localhost:8080/health: "),
    "deaf": Case("health: GET http://localhost:8080/health: "),
    "metric-missing": Case("latency: "),
    "metric-nan": Case("latency: "),
    "metrics-500": Case("latency: GET http://localhost:9090/metrics: status 500, want 2xx"),
    "metrics-cut": Case("latency: GET http://localhost:9090/metrics: "),
    "metrics-hang": Case("latency: GET http://localhost:9090/metrics: "),
    "endless": Case("latency: GET http://localhost:9090/metrics: ", 0.0, ("--cpus", "0.3")),
    "exit": Case("process: no process named 'trading-engine'"),
    "kill": Case("process: no process named 'trading-engine'"),
}
# Over before a check is: what they do is the daemon's to see and to explain.
HARMLESS = {"freeze", "cold-map", "reread"}


# A shell as PID 1, which starts the engine again when it has ended for long enough.
ENGINE = f"while true; do {' '.join(STAND_IN)}; sleep 8; done"


class Told(NamedTuple):
    """When the fault began, and what Docker knew when it turned `unhealthy`, in its own times."""

    at: float
    checks: list[Any]
    line: str
    back: str


def test_every_fault_has_its_case() -> None:
    assert CASES.keys() | HARMLESS == FAULTS.keys()


@pytest.fixture(scope="module")
def told(docker: Docker) -> dict[str, Told]:
    """Every fault at the same time, each in an engine of its own."""
    options = (*LOCKED, "--memory", "256m", "--tmpfs", "/tmp", *healthcheck(INTERVAL_S, RETRIES, "sentinel check"))
    names = {
        docker("run", "--detach", *options, *case.options, SENTINEL, "sh", "-c", ENGINE): fault
        for fault, case in CASES.items()
    }
    began: dict[str, float] = {}
    sick: dict[str, Any] = {}
    well: dict[str, str] = {}

    def over() -> bool:
        for state in docker.inspect_all(*(name for name, fault in names.items() if fault not in well)):
            fault, health = names[state["Id"]], state["State"]["Health"]
            if fault not in began and health["Status"] == "healthy":
                began[fault] = time.time()
                docker.fault(state["Id"], fault + ("?seconds=12" if fault in ("files", "deaf") else ""))
            elif fault in began and fault not in sick and health["Status"] == "unhealthy":
                sick[fault] = health["Log"]
                if fault not in ("files", "deaf", "exit", "kill"):  # those hear nothing now, and end by themselves
                    docker.fault(state["Id"], "", "DELETE")
            elif fault in sick and health["Status"] == "healthy":
                well[fault] = health["Log"][-1]["Output"]
        return len(well) == len(CASES)

    try:
        until(over, 120)
    finally:
        docker("rm", "--force", "--volumes", *names)
    return {fault: Told(began[fault], sick[fault], sick[fault][-1]["Output"], well[fault]) for fault in CASES}


@pytest.mark.parametrize("fault", CASES)
def test_a_fault_makes_the_container_unhealthy_and_its_end_healthy(told: dict[str, Told], fault: str) -> None:
    case, seen = CASES[fault], told[fault]
    assert seen.line.startswith("unhealthy: ")
    assert case.word in seen.line
    assert seen.back.startswith("healthy: ")

    # Docker's interval is from the end of a check to the start of the next: what checks took comes on top.
    checks = [(_unix(row["Start"]), _unix(row["End"])) for row in seen.checks]
    ended = checks[-1][1]
    asking = sum(end - max(start, seen.at) for start, end in checks if end > seen.at)
    assert ended - seen.at - asking <= RETRIES * INTERVAL_S + case.grows_s + 1.0  # 1 s to start them on a busy machine
    assert all(row["ExitCode"] in (0, 1) for row in seen.checks)


def _unix(text: str) -> float:
    """Docker writes nanoseconds, which `fromisoformat` does not read."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text).replace("Z", "+00:00")).timestamp()


def test_a_hundred_checks_leave_no_zombie(docker: Docker) -> None:
    options = (*LOCKED, "--memory", "256m", *healthcheck(0.05, 3, "sentinel check"))
    with docker.run(*options, SENTINEL, *STAND_IN) as name:
        with docker.following("events", "--filter", f"container={name}", "--filter", "event=exec_die") as ends:
            assert len([*itertools.islice(ends, 100)]) == 100
        until(lambda: docker.health(name) == "healthy")
        # One that has ended just now waits for its shim; one that stays was left behind.
        until(lambda: "Z" not in docker("exec", name, "ps", "-eo", "stat="), 5)
        assert docker("exec", name, "pgrep", "-x", "trading-engine") == "1"


def test_the_stand_in_stops_within_two_seconds(docker: Docker) -> None:
    with docker.run(*LOCKED, SENTINEL, *STAND_IN) as name:
        until(lambda: docker.tried("exec", name, "curl", "-fs", "http://127.0.0.1:8080/health").returncode == 0)
        began = time.monotonic()
        docker("stop", name)
        assert time.monotonic() - began < 2
        assert docker.inspect(name)["State"]["ExitCode"] == 0
