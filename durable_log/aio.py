"""The asyncio face: :class:`AsyncStore` and :class:`AsyncStream`.

Law of this room: thin, as ``store`` is. Appends are handed to the committer thread, whose results come back in one
loop wake-up a commit; what is not in memory is read on a thread, never on the loop. One store may serve several event
loops. Cancelling an append leaves its outcome unknown; a producer id makes the retry safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Protocol

from durable_log import _face
from durable_log._face import Data
from durable_log._loop import Feed, LoopPort
from durable_log.engine.figures import Stats
from durable_log.engine.log import LogEngine
from durable_log.engine.opening import Handover
from durable_log.errors import SequenceGap, StreamGone, StreamNotFound
from durable_log.model import (
    CONTENT_TYPE_DEFAULT,
    START,
    Append,
    Appended,
    Backup,
    Change,
    Chunk,
    Delete,
    Durability,
    Options,
    Producer,
    Request,
    StreamInfo,
    Trim,
    check_name,
    is_json,
)

ORDER_POLL_SECONDS = 0.05
NAMES_PAGE = 1000
_TIMED_OUT = object()


def _time_out(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(asyncio.TimeoutError())


class _HasEngine(Protocol):
    engine: LogEngine


class AsyncStream:
    """A stream of a store, by name; see :class:`durable_log.Stream`, which has the same methods."""

    def __init__(self, store: AsyncStore, name: str) -> None:
        self._store = store
        self._engine = store.engine
        self.name = name

    def __repr__(self) -> str:
        return f"<AsyncStream {self.name!r}>"

    async def append(
        self,
        data: Data,
        *,
        producer: Producer | None = None,
        seq: str | None = None,
        close: bool = False,
        durability: Durability | None = None,
    ) -> Appended:
        """Append ``data`` as one record; see :meth:`durable_log.Stream.append`."""
        port = self._store.port()
        content_type = port.content_type(self.name) or await port.content_type_later(self.name)
        raw = _face.stored(data, content_type)
        return await self._append(port, raw, content_type, producer, seq, close, durability)

    async def append_many(
        self,
        items: Iterable[Data],
        *,
        producer: Producer | None = None,
        seq: str | None = None,
        close: bool = False,
        durability: Durability | None = None,
    ) -> Appended:
        """Append all ``items`` as one record; see :meth:`durable_log.Stream.append_many`."""
        port = self._store.port()
        content_type = port.content_type(self.name) or await port.content_type_later(self.name)
        raw = _face.stored_many(items, content_type)
        return await self._append(port, raw, content_type, producer, seq, close, durability)

    async def append_json(
        self,
        *values: Any,
        producer: Producer | None = None,
        seq: str | None = None,
        close: bool = False,
        durability: Durability | None = None,
    ) -> Appended:
        """Append Python values to a JSON stream; see :meth:`durable_log.Stream.append_json`."""
        port = self._store.port()
        content_type = port.content_type(self.name) or await port.content_type_later(self.name)
        raw = _face.stored_values(values, content_type)
        return await self._append(port, raw, content_type, producer, seq, close, durability)

    async def close(self, *, producer: Producer | None = None, seq: str | None = None) -> Appended:
        """End the stream, durably. Closing a closed stream again is fine."""
        await self._store.load(self.name)
        return await self._append(self._store.port(), b"", None, producer, seq, True, None)

    async def read(self, offset: int = START, *, limit: int | None = None, number: int | None = None) -> Chunk:
        """What the stream holds from ``offset`` on, or ``EARLIEST``, or ``NOW``; see :meth:`durable_log.Stream.read`.

        ``NOW`` is -1, which in the HTTP protocol, as ``offset=-1``, is the oldest byte. Raises :class:`InvalidOption`.
        With ``number`` (of :class:`StreamInfo`), another life of the name is :class:`StreamGone`.
        """
        _face.check_offset(offset, limit)
        engine = self._engine
        most = engine.options.chunk_bytes_max
        arguments = (self.name, offset, most if limit is None else min(limit, most), number)
        bounds = partial(engine.record_bounds, wait=False)
        try:
            chunk = _face.read_chunk(engine.read_from_memory, bounds, *arguments)
        except BlockingIOError:
            chunk = None
        if chunk is None:
            loop = asyncio.get_running_loop()
            chunk = await loop.run_in_executor(None, _face.read_chunk, engine.read, engine.record_bounds, *arguments)
            assert chunk is not None
        return chunk

    async def follow(self, offset: int = START, *, limit: int | None = None) -> AsyncIterator[Chunk]:
        """Chunks from ``offset``, ``EARLIEST`` or ``NOW`` on; see :meth:`durable_log.Stream.follow`."""
        number = (await self.info()).number
        while True:
            chunk = await self.read(offset, limit=limit, number=number)
            if chunk.data:
                yield chunk
            offset = chunk.next_offset
            if chunk.closed:
                return
            if chunk.up_to_date:
                await self.wait(offset, None, number=number)

    async def wait(self, offset: int, timeout: float | None = None, *, number: int | None = None) -> bool:
        """Wait until the stream has bytes beyond ``offset`` or is closed; False after ``timeout`` seconds.

        Raises :class:`StreamGone` when the stream is deleted meanwhile.
        """
        timeout = _face.check_wait(offset, timeout)
        engine, port = self._engine, self._store.port()
        if number is None:
            number = (await self.info()).number
        future: asyncio.Future[None] = port.loop.create_future()
        watch = partial(engine.watch, self.name, offset, port, future, number, wait=False)
        handle = await port.ask(self.name, watch, number)
        if handle is None:
            return True
        # Not asyncio.wait_for: before Python 3.12 it can swallow a cancellation that comes together with the result.
        timer = None if timeout is None else port.loop.call_later(max(timeout, 0), _time_out, future)
        try:
            await future
        except asyncio.TimeoutError:
            return False
        finally:
            engine.unwatch(handle)
            if timer is not None:
                timer.cancel()
        await port.ask(self.name, partial(engine.check_alive, self.name, number, wait=False), number)
        return True

    async def info(self) -> StreamInfo:
        """What is known of the stream. Does not count as a use of it."""
        return await self._store.port().ask(self.name, partial(self._engine.info, self.name, wait=False))

    async def touch(self) -> None:
        """Count as a use of the stream, which renews a sliding TTL."""
        await self._store.port().ask(self.name, partial(self._engine.touch, self.name, wait=False))

    async def delete(self) -> None:
        """Delete the stream and its data, durably."""
        await self._store.commit(Delete(self.name))

    async def trim(self, before: int) -> int:
        """Give up the bytes before offset ``before``; see :meth:`durable_log.Stream.trim`."""
        _face.check_int("before", before)
        info = await self.info()
        if is_json(info.content_type) and before > info.first:
            await self._store.fork_point(self.name, before, 0, info.number)
        first: int = await self._store.commit(Trim(self.name, before, info.number))
        return first

    def _append(
        self, port: LoopPort, raw: bytes, content_type: str | None, producer: Producer | None, seq: str | None,
        close: bool, durability: Durability | None,
    ) -> asyncio.Future[Appended]:  # fmt: skip
        options = self._engine.options
        return port.submit(
            _face.append_request(self.name, raw, content_type, producer, seq, close, durability, options)
        )


class AsyncStore:
    """An open store in asyncio. Any number of them may share one engine, on any number of event loops."""

    def __init__(self, engine: LogEngine) -> None:
        self.engine = engine
        self.options = engine.options
        self.clock = engine.clock
        self.store_id = engine.store_id
        self._ports: dict[asyncio.AbstractEventLoop, LoopPort] = {}

    @classmethod
    def of(cls, store: _HasEngine) -> AsyncStore:
        """This face of an open store, be it a :class:`durable_log.Store` or another :class:`AsyncStore`."""
        return store if isinstance(store, AsyncStore) else cls(store.engine)

    def __repr__(self) -> str:
        return f"<AsyncStore {self.engine.path!r}>"

    async def create(
        self, name: str, *, content_type: str | None = None, ttl: float | None = None,
        expires_at: float | datetime | None = None, closed: bool = False, data: Data = b"", exist_ok: bool = True,
        fork_of: str | None = None, fork_at: int | None = None,
    ) -> AsyncStream:  # fmt: skip
        """Create a stream, or find it as it was asked for; see :meth:`durable_log.Store.create`."""
        if content_type is None:
            content_type = CONTENT_TYPE_DEFAULT if fork_of is None else (await self.stream(fork_of).info()).content_type
        fork = (fork_of, fork_at)
        request = _face.create_request(name, content_type, ttl, expires_at, closed, data, fork, self.options)
        if fork_of is not None and fork_at is not None and is_json(content_type):
            request = request._replace(fork_number=0)
            with contextlib.suppress(StreamNotFound, StreamGone):  # whether it matters is the engine's to say
                request = request._replace(fork_number=(await self.stream(fork_of).info()).number)
                await self.fork_point(fork_of, fork_at, 0, request.fork_number)
        _face.check_created(await self.submit(request), name, exist_ok)
        return AsyncStream(self, name)

    def submit(self, request: Request) -> asyncio.Future[Any]:
        """Commit a request that is made already; awaits to what became of it. For front-ends.

        Requests are committed in the order of the calls.
        """
        return self.port().submit(request)

    def commit(self, request: Append | Delete | Trim) -> Awaitable[Any]:
        """Like :meth:`submit`, but a stream that is not in memory is brought there first, beside commits."""
        port = self.port()
        return port.submit(request) if port.has(request.name) else self._commit_later(port, request)

    async def _commit_later(self, port: LoopPort, request: Request) -> Any:
        await self.load(request.name)
        return await port.submit(request)

    async def load(self, name: str) -> None:
        """See to it that committing a request about a stream will not have to read the disk. It may not exist."""
        with contextlib.suppress(StreamNotFound):
            await self.port().ask(name, partial(self.engine.check_loaded, name))

    async def append_in_order(self, request: Append, patience: float) -> Appended:
        """Like :meth:`submit`, but an append whose predecessors of the same producer are still on their way waits for
        them, up to ``patience`` seconds, before it raises :class:`SequenceGap`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            try:
                appended: Appended = await self.commit(request)
            except SequenceGap:
                if (left := deadline - loop.time()) <= 0:
                    raise
                stream = self.stream(request.name)
                tail = (await stream.info()).tail
                with contextlib.suppress(StreamGone):  # what became of it is for the next attempt to say
                    await stream.wait(tail, min(left, ORDER_POLL_SECONDS))
            else:
                return appended

    async def fork_point(self, name: str, anchor: int, sub_offset: int, number: int | None = None) -> int:
        """The offset that lies ``sub_offset`` bytes, on JSON streams messages, past ``anchor`` (PROTOCOL.md §4.2).

        Raises :class:`InvalidOption` if that is not within the first append behind the anchor, and
        :class:`OffsetOutOfRange` for an anchor inside of a JSON message, or of which nothing is held. With ``number``,
        another life of the name is :class:`StreamGone`.
        """
        engine = self.engine
        arguments = (engine.read, engine.record_bounds, name, anchor, sub_offset, number)
        return await asyncio.get_running_loop().run_in_executor(None, _face.fork_point, *arguments)

    def stream(self, name: str) -> AsyncStream:
        """The stream of that name, whether it exists or not."""
        return AsyncStream(self, check_name(name))

    def listen(self, heard: Callable[[list[Change]], None]) -> Callable[[], None]:
        """Have ``heard`` called on the running event loop with what commits change, whoever asked for it; returns what
        ends that. It hears of a change before the one who asked for it on this loop does.
        """
        return Feed(asyncio.get_running_loop(), self.engine, heard).close

    async def delete(self, name: str) -> None:
        """Delete a stream, durably. Raises :class:`StreamNotFound`."""
        await self.stream(name).delete()

    async def names(self, prefix: str = "") -> list[str]:
        """The names of all streams that start with ``prefix``, in order."""
        loop, names, listed = asyncio.get_running_loop(), self.engine.names(prefix), list[str]()
        while page := await loop.run_in_executor(None, list, islice(names, NAMES_PAGE)):
            listed += page
        return listed

    def stats(self) -> Stats:
        """Figures of this moment; see :meth:`durable_log.Store.stats`."""
        return self.engine.stats()

    async def compact(self) -> None:
        """Give back all the space that can be given back; see :meth:`durable_log.Store.compact`."""
        await asyncio.get_running_loop().run_in_executor(None, self.engine.upkeep.compact)

    async def backup(self, directory: str | os.PathLike[str], *, verify: bool = True) -> Backup:
        """Make a copy of the store in a new or empty directory; see :meth:`durable_log.Store.backup`.

        Cancelling it does not stop it.
        """
        work = partial(self.engine.upkeep.backup, directory, verify=verify)
        return await asyncio.get_running_loop().run_in_executor(None, work)

    async def close(self) -> None:
        """Make everything durable and let go of the directory; see :meth:`durable_log.Store.close`."""
        await asyncio.get_running_loop().run_in_executor(None, self.engine.close)

    def port(self) -> LoopPort:
        """Where the running event loop gets its results."""
        loop = asyncio.get_running_loop()
        port = self._ports.get(loop)
        if port is None:
            port = LoopPort(loop, self.engine)
            self._ports = {loop: port, **{other: its for other, its in self._ports.items() if not other.is_closed()}}
        return port


class _Opening:
    """``async with open(...)`` or ``await open(...)``."""

    def __init__(self, path: str | os.PathLike[str], options: Options, clock: Callable[[], float]) -> None:
        self._arguments = (path, options, clock)
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, None, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._open()
        return self._store

    async def __aexit__(self, *_: object) -> None:
        assert self._store is not None
        await self._store.close()

    async def _open(self) -> AsyncStore:
        handover = Handover()
        opening = asyncio.get_running_loop().run_in_executor(None, handover.open, *self._arguments)
        try:
            return AsyncStore(await opening)
        except asyncio.CancelledError:
            handover.leave()
            raise


def open(  # noqa: A001 - durable_log.aio.open reads like open
    path: str | os.PathLike[str], *, options: Options | None = None, clock: Callable[[], float] = time.time
) -> _Opening:
    """Open the store in directory ``path``, or create one; see :func:`durable_log.open`."""
    return _Opening(*_face.place_and_options(path, options), clock)
