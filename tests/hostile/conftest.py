"""Where shared test machinery is, and one server process for the tests that need nothing special of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).resolve().parent.parent / room) for room in ("hostile", "http", "conformance")]

from attacked import Attacked, attacked


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """Whatever a test does to it, it has to serve the next one and to have logged no failure of its own."""
    with attacked(tmp_path_factory.mktemp("served")) as running:
        yield running
