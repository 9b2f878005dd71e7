"""The npm packages that judge servers, and the clients that see every byte."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packages import installed

sys.path.append(str(Path(__file__).resolve().parent.parent / "http"))


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return installed(Path(__file__).parent)
