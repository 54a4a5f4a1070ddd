"""The programs that some tests need."""

from __future__ import annotations

import shutil

import pytest


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where one of the programs is missing; conftest.py turns that into a failure under CI=true."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}, see tests/install-tools")
