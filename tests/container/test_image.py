"""The image: what is in it and what is not, and that it runs with nothing but an environment."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest

from tests.container.docker import BASE, LOCKED, ROOT, SENTINEL
from tests.daemons import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.container.docker import Docker

pytestmark = pytest.mark.alone


def test_it_is_what_the_project_says_it_is(docker: Docker) -> None:
    config = docker.inspect(SENTINEL)["Config"]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    assert config["Labels"]["org.opencontainers.image.version"] == version
    assert config["Labels"]["org.opencontainers.image.base.name"] == BASE
    assert (config["User"], config["StopSignal"]) == ("1000:1000", "SIGTERM")
    assert config["Healthcheck"]["Test"] == ["CMD", "sentinel", "check", "--live"]
    assert config["Cmd"] == ["sentinel", "run"]
    assert docker("run", "--rm", *LOCKED, SENTINEL, "sentinel", "--version") == f"sentinel {version}"


def test_it_adds_little_to_its_base_and_nothing_that_only_building_needs(docker: Docker) -> None:
    added = docker.inspect(SENTINEL)["Size"] - docker.inspect(BASE)["Size"]
    print(f"the image adds {added / 1e6:.1f} MB to its base")
    assert added < 40e6  # 32 MB when this was written

    sizes = docker("history", "--format", "{{.Size}}", SENTINEL).split()
    assert len([size for size in sizes if size != "0B"]) == 2  # one COPY, and the base
    found = docker("run", "--rm", *LOCKED, SENTINEL, "find", "/opt/sentinel", "-type", "f").split()
    assert any(path.endswith(".pyc") for path in found)  # a read-only root cannot keep what Python compiles
    unwanted = ("/pip/", "/tests/", ".whl")
    assert [path for path in found if any(part in path for part in unwanted)] == []


def test_another_uid_and_gid_are_build_arguments(docker: Docker) -> None:
    docker.build("sentinel-tests/other:1", "--build-arg", "UID=1234", "--build-arg", "GID=2345")

    told = docker("run", "--rm", *LOCKED, "sentinel-tests/other:1", "sh", "-c", "id -u; id -g")
    assert told.split() == ["1234", "2345"]


def test_the_environment_alone_configures_it(docker: Docker) -> None:
    given = (
        "--env",
        "SENTINEL_PROCESS=matcher",
        "--env",
        "SENTINEL_MAX_P99=250us",
        "--env",
        "SENTINEL_MAX_MEMORY=1GiB",
    )
    shown = docker("run", "--rm", *LOCKED, *given, SENTINEL, "sentinel", "config", "show")
    assert [line for line in ("- name: matcher", "      max: 250us", "      max: 1GiB") if line not in shown] == []


def test_a_bad_environment_is_one_sentence_and_status_1(docker: Docker) -> None:
    done = docker.tried("run", "--rm", *LOCKED, "--env", "SENTINEL_MAX_P99=fast", SENTINEL)
    assert done.returncode == 1
    assert done.stderr.startswith("sentinel: SENTINEL_MAX_P99: 'fast'")
    assert done.stderr.count("\n") == 1


def test_a_mounted_file_configures_it_and_the_log_is_json(docker: Docker, tmp_path: Path) -> None:
    text = "engines: [{name: mounted, start_period: 0s, probes: {alive: {kind: process, name: matcher}}}]\n"
    (tmp_path / "sentinel.yaml").write_text(text)
    mount = ("--volume", f"{tmp_path}/sentinel.yaml:/etc/sentinel/sentinel.yaml:ro")
    with docker.run(*LOCKED, *mount, "--env", "SENTINEL_CONFIG=/etc/sentinel/sentinel.yaml", SENTINEL) as name:
        until(lambda: any("-> unhealthy" in row["message"] for row in docker.log(name)))
        until(lambda: docker.health(name) == "healthy")  # the daemon itself is well: the schedule is fresh
        assert docker.log(name)[0]["message"].startswith("watching mounted; listening on ")
