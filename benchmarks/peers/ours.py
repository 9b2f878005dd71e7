"""durable_log, by its two faces."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import durable_log
from benchmarks.peers.base import Peer, RecordPeer, library, paged
from durable_log.aio import AsyncStore
from durable_log.model import Chunk

PAGE = 2**19
"""How much of a stream is read at a time: with less, records that go on are read again; more leaves the caches."""


class DurableLog(Peer):
    """The synchronous face: writers are threads."""

    name = "durable_log"
    how = "Stream.append, durability='sync'"
    content_type = "application/octet-stream"

    @classmethod
    def version(cls) -> str:
        return f"durable_log {durable_log.__version__}"

    def __init__(self, folder: Path, writers: int = 1) -> None:
        self.store = durable_log.open(folder / "store")
        self._streams = [
            self.store.create(f"writer/{number}", content_type=self.content_type) for number in range(writers)
        ]

    def append(self, writer: int, data: bytes) -> None:
        self._streams[writer].append(data)

    def append_many(self, items: Sequence[bytes]) -> None:
        self._streams[0].append_many(items)

    def close(self) -> None:
        self.store.close()


class DurableLogThreads(DurableLog):
    """The same, where it is held against the other face."""

    name = "durable_log, threads"


class DurableLogAsyncio(DurableLog):
    """The asyncio face: writers are tasks of one event loop."""

    how = "await AsyncStream.append, durability='sync'"

    def appends(self, writers: int, count: int, data: bytes) -> float:
        face = AsyncStore.of(self.store)

        async def write(writer: int) -> None:
            stream = face.stream(f"writer/{writer}")
            for _ in range(count // writers):
                await stream.append(data)

        async def measure() -> float:
            started = time.perf_counter()
            await asyncio.gather(*[write(writer) for writer in range(writers)])
            return time.perf_counter() - started

        return self._run(measure())

    def _run(self, measure: Coroutine[Any, Any, float]) -> float:
        return asyncio.run(measure)


class DurableLogUvloop(DurableLogAsyncio):
    """The same on the event loop that servers use."""

    name = "durable_log, uvloop"
    how = DurableLogAsyncio.how + ", on uvloop"

    def _run(self, measure: Coroutine[Any, Any, float]) -> float:
        told: float = library("uvloop").run(measure)
        return told


class DurableLogJson(DurableLog, RecordPeer):
    """JSON streams, whose messages are records that a reader sees; each in its bytes, as the others give theirs."""

    how = f"Chunk.messages of Stream.read(limit={PAGE}): messages as they were appended"
    content_type = "application/json"

    def iterate(self) -> Iterable[bytes]:
        return paged(chunk.messages for chunk in self._chunks())

    def _chunks(self) -> Iterator[Chunk]:
        stream, tail = self._streams[0], self._streams[0].info().tail
        offset = 0
        while offset < tail:
            chunk = stream.read(offset, limit=PAGE)
            yield chunk
            offset = chunk.next_offset


class DurableLogParsed(DurableLogJson):
    """The same, parsed, which the others leave to whoever reads."""

    name = "durable_log, parsed"
    how = f"Chunk.items of Stream.read(limit={PAGE}): messages as Python values"

    def iterate(self) -> Iterable[Any]:
        return paged(chunk.items for chunk in self._chunks())
