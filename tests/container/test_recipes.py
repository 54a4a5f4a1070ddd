"""The HEALTHCHECKs of docs/docker.md, as they stand there, each in an image that is built from them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.container.docker import BASE, LOCKED, POD, ROOT, SENTINEL, STAND_IN
from tests.daemons import until

if TYPE_CHECKING:
    from tests.container.docker import Docker

pytestmark = pytest.mark.alone

SOON = ("--health-interval", "500ms", "--health-retries", "2")
WITH_PYTHON, WITH_CURL = re.findall(
    r"^```dockerfile\n(.*?)^```$", (ROOT / "docs/docker.md").read_text(), re.DOTALL | re.MULTILINE
)


def built(docker: Docker, tag: str, text: str) -> str:
    """An image of this Dockerfile, with the images that there are."""
    images = {"python:3.13.5-slim-bookworm": BASE, "sentinel-engine-monitor:0.1.0": SENTINEL}
    for theirs, ours in images.items():
        text = text.replace(theirs, ours)
    docker.build(tag, dockerfile=text)
    return tag


def turns(docker: Docker, name: str) -> str:
    """Healthy, unhealthy with a fault, and healthy again; gives what `docker inspect` said of the fault."""
    until(lambda: docker.health(name) == "healthy")
    docker.fault(name, "metrics-500")
    until(lambda: docker.health(name) == "unhealthy")
    line = str(docker.inspect(name)["State"]["Health"]["Log"][-1]["Output"])
    docker.fault(name, "", "DELETE")
    until(lambda: docker.health(name) == "healthy")
    return line


def test_an_engine_with_python_asks_by_itself(docker: Docker) -> None:
    image = built(docker, "sentinel-tests/with-python:1", WITH_PYTHON)
    with docker.run(*LOCKED, *SOON, image, f"/opt/sentinel/bin/{STAND_IN[0]}", *STAND_IN[1:]) as name:
        assert turns(docker, name) == ("unhealthy: latency: GET http://localhost:9090/metrics: status 500, want 2xx\n")


def test_an_engine_with_curl_alone_asks_the_sidecar_and_keeps_its_sentence(docker: Docker) -> None:
    image = built(docker, "sentinel-tests/with-curl:1", f"FROM {SENTINEL}\n{WITH_CURL}")
    with docker.run("--network", "none", POD) as pod:
        joined = ("--network", f"container:{pod}", "--pid", f"container:{pod}", *LOCKED[2:])
        with docker.run(*joined, *SOON, image, *STAND_IN) as engine, docker.run(*joined, SENTINEL):
            line = turns(docker, engine)
            assert (
                "unhealthy: trading-engine is unhealthy (latency: GET http://localhost:9090/metrics: status 500" in line
            )
