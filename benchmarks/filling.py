"""Streams to read and logs to recover, written as fast as it goes.

Law of this room: what it writes is on disk when it returns, record for record as if each had been appended alone.
"""

from __future__ import annotations

import asyncio
from itertools import cycle, islice

import durable_log
from benchmarks.cardinality_child import Answer, Worker
from durable_log.aio import AsyncStore
from durable_log.model import Append, Options

AT_ONCE = 1000
NO_CLUSTERING = {"cluster_segments": 2**30, "cluster_seconds": 1e9, "cluster_at_close": False}
"""Options of a store whose records stay in the log."""


def in_log() -> Options:
    """See :data:`NO_CLUSTERING`."""
    return Options(cluster_segments=2**30, cluster_seconds=1e9, cluster_at_close=False)


def fill(store: durable_log.Store, names: list[str], records: int, data: bytes) -> None:
    """So many records of ``data`` in all, to the streams in turn, which are made if they are not there."""
    face, turns = AsyncStore.of(store), cycle(names)

    async def append() -> None:
        for start in range(0, len(names), AT_ONCE):
            await asyncio.gather(*[face.create(name) for name in names[start : start + AT_ONCE]])
        for start in range(0, records, AT_ONCE):
            requests = [Append(name, data) for name in islice(turns, min(AT_ONCE, records - start))]
            await asyncio.gather(*[face.submit(request) for request in requests])

    asyncio.run(append())


def fill_worker(worker: Worker, *, streams: int, records: int, record_bytes: int, known: bool) -> Answer:
    """The same in a child; streams that are ``known`` have left the log before it begins to grow. Says how many bytes
    of log that made, and how many records are in them.
    """
    names = [f"stream/{number}" for number in range(streams)]
    if known:
        fill(worker.store, names, 0, b"")
        worker.store.engine.upkeep.cluster()
    before = worker.store.stats()
    fill(worker.store, names, records, b"x" * record_bytes)
    after = worker.store.stats()
    return {what: int(str(after[what])) - int(str(before[what])) for what in ("bytes_written", "records")}
