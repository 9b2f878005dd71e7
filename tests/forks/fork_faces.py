"""Both faces of a store, driven alike: what a test asserts of one holds for the other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import durable_log
from durable_log import aio
from durable_log.model import Options

FACES = ("sync", "asyncio")
SMALL = Options(segment_bytes=2**20, record_bytes_max=2**18, preallocate=False)


class Clock:
    """A wall clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


class OnLoop:
    """An object of the asyncio face whose coroutines are run to their end."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target, self._loop = target, loop

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not callable(attribute) or name == "engine":
            return attribute

        async def finished(*arguments: Any, **options: Any) -> Any:
            result = attribute(*arguments, **options)
            return await result if inspect.isawaitable(result) else result

        def call(*arguments: Any, **options: Any) -> Any:
            result = self._loop.run_until_complete(finished(*arguments, **options))
            return OnLoop(result, self._loop) if isinstance(result, aio.AsyncStream) else result

        return call


class Opened:
    """A store by one of its faces; its data outlives ``reopen``."""

    def __init__(self, face: str, path: Path, clock: Callable[[], float]) -> None:
        self._face, self._path, self._clock = face, path, clock
        self._loop = asyncio.new_event_loop() if face == "asyncio" else None
        self.store = self._open()

    def _open(self) -> Any:
        if self._loop is None:
            return durable_log.open(self._path, options=SMALL, clock=self._clock)

        async def opened() -> aio.AsyncStore:
            return await aio.open(self._path, options=SMALL, clock=self._clock)

        return OnLoop(self._loop.run_until_complete(opened()), self._loop)

    def reopen(self) -> Any:
        """The same store after a restart: what it then reads comes from its files."""
        self.store.engine.check()
        self.store.close()
        self.store = self._open()
        self.store.engine.check()
        return self.store

    def lives(self) -> Iterator[Any]:
        """The store as it is, and once more after a restart."""
        yield self.store
        yield self.reopen()

    def close(self) -> None:
        self.store.engine.check()
        self.store.close()
        if self._loop is not None:
            self._loop.close()


@contextmanager
def opened(face: str, path: Path, clock: Callable[[], float]) -> Iterator[Opened]:
    """A store whose invariants hold at its end."""
    running = Opened(face, path, clock)
    try:
        yield running
    finally:
        running.close()


class Told:
    """A port that remembers what it was told."""

    def __init__(self) -> None:
        self.tokens: list[Any] = []

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        self.tokens += [token for token, _ in results]


def everything(stream: Any, limit: int | None = None) -> bytes:
    """All that a stream holds, read from its oldest byte in chunks of at most ``limit``."""
    chunk = stream.read(durable_log.model.EARLIEST, limit=limit)
    parts = [chunk.data]
    while not chunk.up_to_date:
        chunk = stream.read(chunk.next_offset, limit=limit)
        parts.append(chunk.data)
    return b"".join(parts)
