"""The compose files: accepted alone and together, held to what they promise, and brought up with what Debian has.

Grafana is in no registry that is reached and in no Debian, so its service is held to its file and its mounts alone.
"""

from __future__ import annotations

import json
import re
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.capture_pages import free_port
from tests.container.docker import BASE, POD, ROOT, SENTINEL
from tests.daemons import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.container.docker import Docker

pytestmark = pytest.mark.alone

EXAMPLE, OVERLAY = "examples/docker-compose.yml", "compose.monitoring.yaml"
HERE = ("compose", "--project-directory", str(ROOT))
BOTH = (*HERE, "--file", EXAMPLE, "--file", OVERLAY)
STAND_ALONE = {"ENGINE_NAMESPACES": "container:trading-engine"}
MONITORING = ("sentinel", "prometheus", "alertmanager", "grafana")


def config(docker: Docker, *words: str, **environ: str) -> Any:
    return json.loads(docker(*words, "config", "--format", "json", environ=environ))


def test_compose_accepts_each_file_alone_and_both_together(docker: Docker) -> None:
    assert config(docker, *HERE, "--file", EXAMPLE)["services"].keys() == {"pod", "trading-engine"}
    alone = config(docker, *HERE, "--file", OVERLAY, **STAND_ALONE)["services"]
    assert alone.keys() == {*MONITORING}
    assert (alone["sentinel"]["network_mode"], alone["sentinel"]["pid"]) == ("container:trading-engine",) * 2

    together = config(docker, *BOTH)["services"]
    assert together.keys() == {"pod", "trading-engine", *MONITORING}
    assert (together["sentinel"]["network_mode"], together["sentinel"]["pid"]) == ("service:trading-engine",) * 2


def test_an_engine_with_a_compose_file_of_its_own_gets_the_four_and_stays_as_it_is(
    docker: Docker, tmp_path: Path
) -> None:
    theirs = {"image": "engine:7", "networks": {"default": None}, "user": "1001:1002", "cpuset": "2-3"}
    (tmp_path / "docker-compose.yml").write_text(yaml.safe_dump({"services": {"trading-engine": theirs}}))
    words = ("compose", "--file", f"{tmp_path}/docker-compose.yml", "--file", str(ROOT / OVERLAY))
    given = {"SENTINEL_DIR": str(ROOT), "ENGINE_USER": "1001:1002", "SENTINEL_CPUSET": "0-1"}
    services = config(docker, *words, **given)["services"]

    assert services.keys() == {"trading-engine", *MONITORING}
    assert services["trading-engine"].items() >= theirs.items()
    assert (services["sentinel"]["user"], services["sentinel"]["cpuset"]) == ("1001:1002", "0-1")
    assert services["prometheus"]["volumes"][0]["source"] == f"{ROOT}/alerts/prometheus.compose.yml"


@pytest.mark.parametrize("service", MONITORING)
def test_a_service_is_pinned_unprivileged_limited_and_asked_for_its_health(docker: Docker, service: str) -> None:
    spec = config(docker, *BOTH)["services"][service]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", spec["image"])
    assert (spec["cap_drop"], spec["security_opt"], spec["read_only"]) == (["ALL"], ["no-new-privileges:true"], True)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", spec["user"])
    assert int(spec["mem_limit"]) > 0
    assert int(spec["pids_limit"]) > 0
    assert {port["host_ip"] for port in spec.get("ports", ())} <= {"127.0.0.1"}
    assert service == "sentinel" or spec["healthcheck"]["test"][0] == "CMD"  # the image of Sentinel has its own


def test_what_is_mounted_is_there_and_grafana_finds_its_boards(docker: Docker) -> None:
    whole = config(docker, *BOTH)
    mounts = [mount for name in MONITORING for mount in whole["services"][name].get("volumes", ())]
    sources = {mount["source"] for mount in mounts if mount["type"] == "bind"}
    outside = {source for source in sources if source.startswith(f"{ROOT}/secrets")}  # the user's own
    assert {source for source in sources - outside if not (ROOT / source).exists()} == set()

    grafana = whole["services"]["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == grafana["secrets"][0]["target"]
    targets = {mount["target"]: mount["source"] for mount in grafana["volumes"]}
    (provider,) = yaml.safe_load((ROOT / "dashboards/provisioning/dashboards/sentinel.yaml").read_text())["providers"]
    assert [*(ROOT / targets[provider["options"]["path"]]).glob("*.json")]
    (source,) = yaml.safe_load((ROOT / "dashboards/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"


@contextmanager
def up(docker: Docker, tmp_path: Path) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Both files and a service that waits for the engine, without Grafana; the environment and each one's container."""
    ports = {name: str(free_port()) for name in ("ENGINE", "SENTINEL", "PROMETHEUS", "ALERTMANAGER")}
    environ = {f"{name}_PORT": port for name, port in ports.items()}
    environ |= {"SENTINEL_IMAGE": SENTINEL, "POD_IMAGE": POD, "CHECK_INTERVAL": "1s"}
    for name, program in {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}.items():
        environ[f"{name.upper()}_IMAGE"] = tag = f"sentinel-tests/{name}:1"
        owned = f"RUN install -d -o 65534 -g 65534 /{name}"
        docker.build(tag, dockerfile=f'FROM {BASE}\n{owned}\nENTRYPOINT ["{program}"]\n')
    waits = {"image": BASE, "command": "true", "depends_on": {"trading-engine": {"condition": "service_healthy"}}}
    (tmp_path / "client.yaml").write_text(yaml.safe_dump({"services": {"client": waits}}))
    environ["ALERT_SECRETS_DIR"] = str(tmp_path)
    words = (*BOTH, "--file", f"{tmp_path}/client.yaml", "--project-name", "sentinel-tests")
    services = ("trading-engine", "sentinel", "prometheus", "alertmanager", "client")
    try:
        docker(*words, "up", "--detach", "--no-build", *services, environ=environ)
        names = {name: docker(*words, "ps", "--all", "--quiet", name, environ=environ) for name in services}
        yield environ, names
    finally:
        print(docker.tried(*words, "logs", "--no-color", "--tail", "15", environ=environ).stdout)
        docker(*words, "down", "--volumes", "--timeout", "2", environ=environ)


def ask(port: str, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


def test_the_pair_comes_up_with_the_engines_dependents_waiting_and_prometheus_and_alertmanager_configured(
    docker: Docker, tmp_path: Path
) -> None:
    with up(docker, tmp_path) as (environ, names):
        client = docker.inspect(names["client"])["State"]  # `up` waited for the engine to be healthy
        assert (docker.health(names["trading-engine"]), client["ExitCode"]) == ("healthy", 0)
        until(lambda: docker.health(names["sentinel"]) == "healthy")
        assert ask(environ["SENTINEL_PORT"], "/health")["status"] == "pass"

        prometheus = environ["PROMETHEUS_PORT"]
        until(lambda: ask(prometheus, "/api/v1/query?query=sentinel_engine_healthy")["data"]["result"])
        loaded = ask(prometheus, "/api/v1/rules")["data"]["groups"]
        assert len(loaded) == sum(
            len(yaml.safe_load(path.read_text())["groups"]) for path in (ROOT / "alerts/rules").glob("*.yml")
        )
        (alertmanager,) = until(lambda: ask(prometheus, "/api/v1/alertmanagers")["data"]["activeAlertmanagers"])
        assert alertmanager["url"] == "http://alertmanager:9093/api/v2/alerts"
        served = ask(environ["ALERTMANAGER_PORT"], "/api/v2/status")["config"]["original"]
        assert yaml.safe_load(served)["route"]["group_by"] == ["engine"]
        until(lambda: docker.health(names["prometheus"]) == "healthy", 60)
        until(lambda: docker.health(names["alertmanager"]) == "healthy", 60)

        docker.fault(names["sentinel"], "kill")  # Docker starts it again, and nobody else has to be
        metric = "/api/v1/query?query=sentinel_engine_restarts_total"
        until(lambda: ask(prometheus, metric)["data"]["result"][0]["value"][1] == "1")
        until(lambda: ask(environ["SENTINEL_PORT"], "/health")["status"] == "pass")
