"""Viewers at the tail of one stream, who get each event at the same moment.

Law of this room: one task a stream waits, reads and encodes, and writes the same bytes to all of them: no task of a
viewer's wakes up for that. It does nothing else. Whoever has to do something of his own, because his time is over, his
client takes too little or the stream ends, goes on by himself from where he has got to. Only those are here whose
server can be written to at once (``WRITE``). Event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from durable_log.aio import AsyncStream
from durable_log.errors import DurableLogError
from durable_log.model import Chunk

AT_ONCE: Final = 16
"""To so many an event is written before others on the loop, such as the writer of the next one, get their turn."""

WRITE: Final = "durable_log.write"
"""An extension (ASGI) of servers that can be written to at once, a :data:`Write`; not for whoever wraps ``send``."""

Write = Callable[[bytes], bool]
"""Sends a part of the body without waiting; False, and nothing is sent, if the client is behind or gone."""


class Position(NamedTuple):
    """How far a viewer has got: what was ``sent``, and what was ``seen``, of which the end may have been held back."""

    sent: int
    seen: int


class Member(Protocol):
    """A viewer. ``write`` sends a part of the body at once, or returns False and sends nothing; what was sent is
    counted in ``bytes_written``.
    """

    position: Position
    bytes_written: int

    @property
    def write(self) -> Write: ...


class Audience:
    """Those who watch one life of one stream. ``encode``: a chunk as events, and the offset up to which they go."""

    def __init__(
        self, stream: AsyncStream, number: int, chunk_bytes: int, encode: Callable[[Chunk], tuple[bytes, int]],
        position: Position,
    ) -> None:  # fmt: skip
        self.position = position
        self.ended = False
        self._stream, self._number, self._chunk_bytes, self._encode = stream, number, chunk_bytes, encode
        self._members: dict[Member, asyncio.Future[bool]] = {}
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._serve())

    async def attend(self, member: Member, seconds: float) -> bool:
        """Have a member who is where the audience is written to, until there is something that he has to see to by
        himself; False after so many seconds. His position is kept up, also if this is cancelled.
        """
        future: asyncio.Future[bool] = self._loop.create_future()
        self._members[member] = future
        timer = self._loop.call_later(seconds, self._release, member, False)
        try:
            return await future
        finally:
            timer.cancel()
            self._release(member, True)
            if not self._members:
                self.ended = True
                self._task.cancel()

    def _release(self, member: Member, has_to_see: bool) -> None:
        future = self._members.pop(member, None)
        if future is not None and not future.done():
            future.set_result(has_to_see)

    async def _serve(self) -> None:
        try:
            while True:
                await self._stream.wait(self.position.seen, number=self._number)
                chunk = await self._stream.read(self.position.sent, limit=self._chunk_bytes, number=self._number)
                if chunk.closed:
                    return
                part, sent = self._encode(chunk)
                self.position = Position(sent, chunk.next_offset)
                await self._write(part)
        except DurableLogError:
            pass  # everybody meets it himself
        finally:
            self.ended = True
            for member in tuple(self._members):
                self._release(member, True)

    async def _write(self, part: bytes) -> None:
        """Write to all who are here. Who comes meanwhile has it already."""
        position, members = self.position, list(self._members)
        for start in range(0, len(members), AT_ONCE):
            for member in members[start : start + AT_ONCE]:
                if member not in self._members or member.position == position:
                    continue  # he went on by himself, and may have come back
                if not part or member.write(part):
                    member.position = position
                    member.bytes_written += len(part)
                else:
                    self._release(member, True)
            if start + AT_ONCE < len(members):
                await asyncio.sleep(0)
