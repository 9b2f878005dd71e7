"""A store on disk, once by each of its faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_faces import FACES, Clock, Opened, opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=FACES)
def home(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Opened]:
    with opened(request.param, tmp_path / "data", clock) as running:
        yield running
