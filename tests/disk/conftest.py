"""Where the tests here find the twins of a store's files; and engines that do only what they are asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from quiet import quiet


@pytest.fixture
def quiet_engines() -> Iterator[None]:
    with quiet():
        yield
