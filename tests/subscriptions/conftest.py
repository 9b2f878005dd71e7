"""Where shared test machinery is, and an application with subscriptions whose clock stands still."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent / "http")]

from receivers import Receiver
from worlds import Process, Serve, World, world


@pytest.fixture
def at_work() -> Iterator[World]:
    """An application for development, with a clock of its own."""
    with world() as running:
        yield running


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts servers on one directory, one at a time."""
    started: list[Process] = []

    def start(*more: str) -> Process:
        started.append(Process(tmp_path, *more))
        return started[-1]

    yield start
    for process in started:
        process.end_anyway()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A webhook that answers 200 and no more."""
    with Receiver() as running:
        yield running
