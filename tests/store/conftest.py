"""Stores to test, by both faces; and where the tests find the oracle and the twins."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from faces import AnyStore, Loop, LoopStore
from twins import Clock

import durable_log
from durable_log.model import Options
from durable_log.store import Store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    running = Loop()
    yield running
    running.close()


@pytest.fixture(params=["sync", "asyncio"])
def face(request: pytest.FixtureRequest, loop: Loop) -> Callable[[Store], AnyStore]:
    return (lambda store: store) if request.param == "sync" else lambda store: LoopStore(loop, store)


@pytest.fixture
def opened(face: Callable[[Store], AnyStore], clock: Clock) -> Iterator[Callable[..., Any]]:
    """Opens stores that are closed when the test is over."""
    stores: list[Store] = []

    def opening(path: Any = ":memory:", **options: Any) -> AnyStore:
        stores.append(durable_log.open(path, options=Options(**options), clock=clock))
        return face(stores[-1])

    yield opening
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Callable[..., Any]) -> AnyStore:
    return opened()
