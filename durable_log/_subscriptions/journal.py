"""One subscription's stream in the store.

Law of this room: the only place that reads and writes it. An append has returned when it is durable. Now and then the
subscription is told anew as a whole, and what came before is given up, so that the stream stays about as long as what
it tells. One append at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import chain
from typing import Final

from durable_log._subscriptions.records import Record, Stored, fold, whole
from durable_log.aio import AsyncStore, AsyncStream
from durable_log.errors import InvalidData
from durable_log.model import EARLIEST, Appended, Chunk
from durable_log.protocol.names import RESERVED_SEGMENT

PREFIX: Final = f"{RESERVED_SEGMENT}/subscriptions/"
SLACK_BYTES: Final = 64 * 2**10


async def all_chunks(stream: AsyncStream) -> list[Chunk]:
    """What a stream holds."""
    chunks = [await stream.read(EARLIEST)]
    while not chunks[-1].up_to_date:
        chunks.append(await stream.read(chunks[-1].next_offset))
    return chunks


def items(chunks: list[Chunk]) -> Iterator[Record]:
    """The messages of a JSON stream."""
    return chain.from_iterable(chunk.items for chunk in chunks)


class Journal:
    """The records of the subscription of that id."""

    def __init__(self, store: AsyncStore, name: str) -> None:
        self._store = store
        self._stream = store.stream(PREFIX + name)
        self._limit = 0
        """The offset at which the subscription is told anew."""

    async def load(self) -> Stored | None:
        """What the stream tells; None if nothing was ever told to the end, and then the stream goes."""
        chunks = await all_chunks(self._stream)
        try:
            stored = await asyncio.to_thread(lambda: fold(items(chunks)))
        except (KeyError, TypeError, ValueError) as error:
            message = f"stream {self._stream.name!r} does not tell of a subscription ({error!r}); delete it"
            raise InvalidData(message) from error
        if stored is None:
            await self.delete()
        self._limit = chunks[0].offset + 2 * SLACK_BYTES
        return stored

    async def begin(self, stored: Stored) -> None:
        """Create the stream. The subscription is there once this has returned."""
        await self._store.create(self._stream.name, content_type="application/json")
        await self.tell(stored)

    async def append(self, record: Record) -> bool:
        """Note a change. True if the stream has become long, see :meth:`tell`."""
        return (await self._append(record)).next_offset > self._limit

    async def tell(self, stored: Stored) -> None:
        """Tell the subscription as a whole, and give up what was told before."""
        start = end = None
        for record in whole(stored):
            appended = await self._append(record)
            start, end = appended.offset if start is None else start, appended.next_offset
        assert start is not None
        assert end is not None
        self._limit = end + (end - start) + SLACK_BYTES
        await self._stream.trim(start)

    async def _append(self, record: Record) -> Appended:
        return await self._stream.append_json(record, durability="sync")

    async def delete(self) -> None:
        """Delete the stream."""
        await self._stream.delete()
