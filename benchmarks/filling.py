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
    """So many records of ``data`` in all, to the streams in turn."""
    face = AsyncStore.of(store)

    async def append() -> None:
        turns = cycle(names)
        for start in range(0, records, AT_ONCE):
            requests = [Append(name, data) for name in islice(turns, min(AT_ONCE, records - start))]
            await asyncio.gather(*[face.submit(request) for request in requests])

    for name in names:
        store.create(name)
    asyncio.run(append())


def fill_worker(worker: Worker, *, streams: int, records: int, record_bytes: int) -> Answer:
    """The same in a child. Says how many bytes of log that made."""
    fill(worker.store, [f"stream/{number}" for number in range(streams)], records, b"x" * record_bytes)
    return {"log_bytes": worker.store.stats()["bytes_written"]}
