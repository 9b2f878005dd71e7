"""Responses that wait for a stream: long-polls and event streams.

Law of this room: a live response is one pump, the task that reads, waits and sends, beside one that listens for the
client's departure. Whichever ends first ends the other, and neither outlives the call of ``Live.run``. A pump is told
to stop only while it waits, never within a send, so that what a client gets always ends at an event's boundary. Memory
per viewer is one chunk: the next is read when the last was taken. Everything runs on the server's event loop;
``LiveSet.begin_shutdown`` alone may be called from any thread and from signal handlers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from durable_log._http.audience import Audience, Position, Write
from durable_log._http.exchange import Receive, Send
from durable_log.aio import AsyncStore, AsyncStream
from durable_log.errors import OffsetOutOfRange, StreamGone, StreamNotFound
from durable_log.model import Chunk, Options, StreamInfo
from durable_log.protocol import sse
from durable_log.protocol.response import Response
from durable_log.protocol.tokens import cursor

T = TypeVar("T")

EVENT_CHUNK_BYTES: Final = 256 * 2**10
"""The most that one data event carries: what a viewer costs in memory, more or less."""

EVENT_CACHE_BYTES: Final = 4 * 2**20
EVENT_OVERHEAD: Final = 400
"""What an event in the cache takes beside its bytes."""

log: Final = logging.getLogger("durable_log")


def event_chunk_bytes(options: Options) -> int:
    """How much of a stream one data event carries."""
    return min(EVENT_CHUNK_BYTES, options.chunk_bytes_max)


class Limits(NamedTuple):
    """How long live responses last, in seconds; see :func:`durable_log.asgi.app`."""

    long_poll: float
    sse: float
    heartbeat: float
    stall: float

    def within(self, seconds: float | None) -> Limits:
        """The same, but no live response lasts longer than ``seconds``."""
        if seconds is None:
            return self
        return self._replace(long_poll=min(self.long_poll, seconds), sse=min(self.sse, seconds))


class LiveSet:
    """The live responses of one application. ``cut_off``: how many viewers were, for taking nothing."""

    def __init__(self) -> None:
        self.cut_off = 0
        self._closing = self._closed = False
        self._members: set[Live] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, live: Live) -> None:
        """Count one more."""
        self._loop = asyncio.get_running_loop()
        self._members.add(live)

    def discard(self, live: Live) -> None:
        """It has ended."""
        self._members.discard(live)

    def __len__(self) -> int:
        return len(self._members)

    def modes(self) -> Counter[str]:
        """How many there are of each mode. Any thread."""
        return Counter(live.mode for live in tuple(self._members))

    def closing(self) -> bool:
        """Whether nothing may wait any more."""
        return self._closing

    def begin_shutdown(self) -> None:
        """End all of them soon, and new ones at once. Any thread, any signal handler; returns immediately."""
        self._closing = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._stop_idle)

    def _stop_idle(self) -> None:
        for live in tuple(self._members):
            live.stop_waiting()

    async def shutdown(self, timeout_seconds: float) -> None:
        """End all of them and wait until they have, at most ``timeout_seconds``."""
        self._closed = True
        self.begin_shutdown()
        pumps = [live.pump for live in self._members if live.pump is not None]
        if pumps:
            await asyncio.wait(pumps, timeout=timeout_seconds)

    def restart(self) -> None:
        """Let responses wait again after a shutdown: the application has another life. One that has only begun goes on,
        for a signal may come before the startup.
        """
        if self._closed:
            self._closing = self._closed = False


class Live:
    """One live response."""

    def __init__(self, members: LiveSet, receive: Receive, send: Send, stall_seconds: float, mode: str) -> None:
        self.pump: asyncio.Task[Any] | None = None
        self.mode = mode
        self._members, self._receive, self._send, self._stall = members, receive, send, stall_seconds
        self._loop = asyncio.get_running_loop()
        self._waiting = self._ended = False

    async def run(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Run the pump to its end and return its result; None if the client left or stalled before."""
        pump = self.pump = self._loop.create_task(work)
        departure = self._loop.create_task(self._departure())
        self._members.add(self)
        try:
            await asyncio.wait((pump, departure), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._ended = True
            self._members.discard(self)
            pump.cancel()
            departure.cancel()
            await asyncio.gather(pump, departure, return_exceptions=True)
        return None if pump.cancelled() else pump.result()

    async def _departure(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def stop_waiting(self) -> None:
        """Let the pump go on to its last words, if it waits."""
        if self._waiting and self.pump is not None:
            self._waiting = False
            self.pump.cancel()

    async def beyond(
        self, viewer: Viewer | EventFeed, offset: int, until: float, pulse: float,
        on_pulse: Callable[[], Awaitable[None]],
    ) -> bool:  # fmt: skip
        """Whether there is something beyond ``offset`` before the loop's clock says ``until``.

        ``on_pulse`` is awaited every ``pulse`` seconds meanwhile. False, at once, when the application closes.
        """
        while (left := until - self._loop.time()) > 0 and not self._members.closing():
            self._waiting = True
            try:
                found = await viewer.wait(offset, min(left, pulse))
            except asyncio.CancelledError:
                # Cancelled by stop_waiting, the pump goes on; by run, it does not.
                if self._ended or not self._members.closing():
                    raise
                return False
            finally:
                self._waiting = False
            self._check_not_ended()
            if found:
                return True
            await on_pulse()
        return False

    def _check_not_ended(self) -> None:
        # What a pump awaits may forget a cancellation that meets its result.
        if self._ended:
            raise asyncio.CancelledError

    async def start(self, response: Response) -> None:
        """Send the head of a response whose body follows."""
        await self._send({"type": "http.response.start", "status": response.status, "headers": response.headers})

    async def send(self, body: bytes, *, more: bool = True) -> None:
        """Send a part of the body. A viewer that has not taken it after the stall time is cut off."""
        self._check_not_ended()
        timer = self._loop.call_later(self._stall, self._cut)
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            timer.cancel()

    def _cut(self) -> None:
        log.info("a viewer took nothing for %g s and is cut off", self._stall)
        self._members.cut_off += 1
        # ASGI has no word for it, and an orderly close would wait for the peer that reads nothing: servers that run
        # the application on their own connection object, as uvicorn does, let the socket go at once.
        transport = getattr(getattr(self._receive, "__self__", None), "transport", None)
        if transport is not None:
            transport.abort()
        if self.pump is not None:
            self._ended = True
            self.pump.cancel()


class EventCache:
    """Data events by the range that they carry, so that viewers of one range share one encoding.

    Bounded in bytes; what was put in first goes first. Ranges of a stream's life never change: nothing is ever stale.
    """

    def __init__(self, bytes_max: int = EVENT_CACHE_BYTES) -> None:
        self._bytes_max, self._bytes = bytes_max, 0
        self._events: dict[tuple[int, int, int, bool], tuple[bytes, int]] = {}

    def event(self, number: int, kind: sse.Encoding, chunk: Chunk) -> tuple[bytes, int]:
        """The data event of a chunk of the stream ``number``, and the offset up to which it goes."""
        key = (number, chunk.offset, chunk.next_offset, chunk.closed)
        found = self._events.get(key)
        if found is None:
            event, taken = sse.data_event(kind, chunk.data, chunk.closed)
            found = (event, chunk.offset + taken)
            if not event:
                return found  # made in no time, and for each viewer who has seen all
            self._events[key] = found
            self._bytes += len(event) + EVENT_OVERHEAD
            while self._bytes > self._bytes_max:
                self._bytes -= len(self._events.pop(next(iter(self._events)))[0]) + EVENT_OVERHEAD
        return found


class Viewer(NamedTuple):
    """What a live response follows: one life of one stream, in chunks of at most ``chunk_bytes``."""

    live: Live
    stream: AsyncStream
    info: StreamInfo
    chunk_bytes: int

    async def read(self, offset: int) -> Chunk:
        """A chunk of this life. When it is over, raises :class:`StreamNotFound`, or :class:`StreamGone` if the stream
        is kept for its forks.
        """
        try:
            return await self.stream.read(offset, limit=self.chunk_bytes, number=self.info.number)
        except StreamGone as error:
            await self.stream.info()
            raise StreamNotFound(self.info.name) from error

    async def wait(self, offset: int, seconds: float) -> bool:
        """Whether there is something beyond ``offset`` within ``seconds``. Raises as ``read`` does."""
        try:
            return await self.stream.wait(offset, seconds, number=self.info.number)
        except StreamGone as error:
            await self.stream.info()
            raise StreamNotFound(self.info.name) from error

    def pulse(self, seconds: float) -> float:
        """At most ``seconds``, and at most half a sliding time to live, which a viewer keeps from running out."""
        return seconds if self.info.ttl is None else min(seconds, max(self.info.ttl, 1) / 2)

    async def touch(self) -> None:
        """A viewer's presence is use (PROTOCOL.md §5.1)."""
        if self.info.ttl is not None:
            await self.stream.touch()

    async def touch_and_beat(self) -> None:
        """The same, and a comment for the proxies between."""
        await self.touch()
        await self.live.send(sse.HEARTBEAT)


async def long_poll(viewer: Viewer, chunk: Chunk, seconds: float) -> Chunk:
    """The chunk itself if it says something, else the first that does, else an empty one after ``seconds``."""
    until = asyncio.get_running_loop().time() + seconds
    while not chunk.data and not chunk.closed:
        if not await viewer.live.beyond(viewer, chunk.next_offset, until, viewer.pulse(seconds), viewer.touch):
            break
        chunk = await viewer.read(chunk.next_offset)
    return chunk


class Events:
    """What the event streams of one application share: encoded events, and audiences by the number of the stream."""

    def __init__(self, store: AsyncStore) -> None:
        self.cache, self._store = EventCache(), store
        self._audiences: dict[int, Audience] = {}

    def cursor(self) -> int:
        """The cursor of this moment."""
        return cursor(self._store.clock(), None, 0)

    def audience(self, viewer: Viewer, kind: sse.Encoding, position: Position) -> Audience:
        """Those who watch what the viewer does, who begins an audience if there is none."""
        number = viewer.info.number
        audience = self._audiences.get(number)
        if audience is None or audience.ended:
            self._audiences = {key: other for key, other in self._audiences.items() if not other.ended}
            encode = partial(self.encode, number, kind, 0)
            audience = Audience(viewer.stream, number, viewer.chunk_bytes, encode, position)
            self._audiences[number] = audience
        return audience

    def encode(self, number: int, kind: sse.Encoding, first_cursor: int, chunk: Chunk) -> tuple[bytes, int]:
        """A chunk as a data event and its control event, and the offset up to which they go; nothing if it says
        nothing.
        """
        event, sent = self.cache.event(number, kind, chunk)
        if not event and not chunk.closed:
            return b"", sent
        position = max(first_cursor, self.cursor())
        return event + sse.control_event(sent, position, chunk.up_to_date, chunk.closed), sent


class EventFeed:
    """The body of one event stream, from its first chunk to the close, the rotation or the shutdown.

    A member of an audience if it has a ``write``.
    """

    def __init__(self, viewer: Viewer, events: Events, limits: Limits, write: Write | None) -> None:
        self._viewer, self._events, self._limits = viewer, events, limits
        self._kind = sse.encoding(viewer.info.content_type)
        self._can_attend = write is not None
        self.write: Write = write or (lambda _: False)
        self._first_cursor = 0
        self.position = Position(0, 0)
        self.bytes_written = 0

    async def run(self, head: Response, chunk: Chunk, first_cursor: int, members: LiveSet) -> None:
        """Send everything; an error after the start can only end the body, and the client comes back for more."""
        live = self._viewer.live
        self._first_cursor = first_cursor
        await live.start(head)
        try:
            await self._follow(chunk, members)
        except (StreamNotFound, StreamGone, OffsetOutOfRange):
            pass  # deleted or trimmed under its viewers: their next request says so
        except OSError:
            return  # from send, in servers that tell: the client left
        except Exception:
            log.exception("stream %r: an event stream ends early", self._viewer.info.name)
        await live.send(b"", more=False)

    async def wait(self, _offset: int, seconds: float) -> bool:
        """Whether there is something to be seen to within ``seconds``; an audience may have sent much until then."""
        if self._can_attend and self._first_cursor <= self._events.cursor():
            audience = self._events.audience(self._viewer, self._kind, self.position)
            if audience.position == self.position:
                return await audience.attend(self, seconds)
        return await self._viewer.wait(self.position.seen, seconds)

    async def _follow(self, chunk: Chunk, members: LiveSet) -> None:
        viewer, time = self._viewer, asyncio.get_running_loop().time
        until = time() + self._limits.sse
        number, pulse = viewer.info.number, viewer.pulse(self._limits.heartbeat)
        greeted = last = False
        while True:
            part, sent = self._events.encode(number, self._kind, self._first_cursor, chunk)
            if not part and not greeted:
                position = max(self._first_cursor, self._events.cursor())
                part = sse.control_event(sent, position, chunk.up_to_date, chunk.closed)
            if part:
                greeted = True
                await viewer.live.send(part)
            self.position = Position(sent, chunk.next_offset)
            if chunk.closed or last:
                return
            last = members.closing() or time() >= until
            if not chunk.up_to_date:
                await asyncio.sleep(0)  # long histories come from memory: others get their turn between two chunks
            elif not last:
                # What is held back is not waited for again: only what comes after it can release it.
                last = not await viewer.live.beyond(self, chunk.next_offset, until, pulse, viewer.touch_and_beat)
            chunk = await viewer.read(self.position.sent)
