"""One Docker Engine for all the tests of this folder, with Sentinel's image in it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.container.docker import PROGRAMS, Docker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs {', '.join(missing) or 'root'} to start a Docker Engine, see tests/install-tools")
    with Docker() as docker:
        docker.load()
        yield docker
