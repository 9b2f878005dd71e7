"""The synchronous face: :class:`Store` and :class:`Stream`.

Law of this room: thin. Values go through ``_face``, requests to the engine; nothing is decided or remembered here. Any
number of threads may use one store; their appends share commits.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from durable_log import _face
from durable_log._face import Data
from durable_log.engine.figures import Stats
from durable_log.engine.log import LogEngine
from durable_log.engine.opening import open_engine
from durable_log.engine.recovery import Report
from durable_log.engine.watermark import Gates
from durable_log.errors import SequenceGap, StreamGone, StreamNotFound
from durable_log.model import (
    CONTENT_TYPE_DEFAULT,
    START,
    Append,
    Appended,
    Backup,
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

if TYPE_CHECKING:
    from typing_extensions import Self

ORDER_POLL_SECONDS = 0.05


_GATES = Gates()


class Stream:
    """A stream of a store, by name. Making one checks nothing; each operation looks the name up.

    All operations raise :class:`StreamNotFound` if no such stream exists, and :class:`StoreClosed`.
    """

    def __init__(self, engine: LogEngine, name: str) -> None:
        self._engine = engine
        self.name = name

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    def append(
        self,
        data: Data,
        *,
        producer: Producer | None = None,
        seq: str | None = None,
        close: bool = False,
        durability: Durability | None = None,
    ) -> Appended:
        """Append ``data`` as one record; returns when it is durable, at ``durability`` or the store's default.

        Text and JSON streams take ``str``, too; a JSON stream takes one JSON text, of which an array is so many
        messages. ``producer`` makes repeating safe: what was stored before is found and not stored again
        (PROTOCOL.md §5.2.1). ``seq`` must grow, byte by byte (§5.2). ``close`` ends the stream with this record.

        Raises :class:`StreamClosed`, :class:`InvalidData`, :class:`RecordTooLarge`, :class:`StaleEpoch`,
        :class:`SequenceGap`, :class:`InvalidProducer`, :class:`SequenceConflict`, :class:`StoreFull`,
        :class:`StoreUnreadable`, :class:`CommitFailed`.
        """
        content_type = self._engine.content_type(self.name)
        return self._append(_face.stored(data, content_type), content_type, producer, seq, close, durability)

    def append_many(
        self,
        items: Iterable[Data],
        *,
        producer: Producer | None = None,
        seq: str | None = None,
        close: bool = False,
        durability: Durability | None = None,
    ) -> Appended:
        """Append all ``items`` as one record: all of them are there, or none. Otherwise as :meth:`append`."""
        content_type = self._engine.content_type(self.name)
        raw = _face.stored_many(items, content_type)
        return self._append(raw, content_type, producer, seq, close, durability)

    def append_json(
        self,
        *values: Any,
        producer: Producer | None = None,
        seq: str | None = None,
        close: bool = False,
        durability: Durability | None = None,
    ) -> Appended:
        """Append Python values to a JSON stream, each as one message, in one record. Otherwise as :meth:`append`."""
        content_type = self._engine.content_type(self.name)
        raw = _face.stored_values(values, content_type)
        return self._append(raw, content_type, producer, seq, close, durability)

    def close(self, *, producer: Producer | None = None, seq: str | None = None) -> Appended:
        """End the stream, durably. Closing a closed stream again is fine."""
        return self._append(b"", None, producer, seq, True, None)

    def read(self, offset: int = START, *, limit: int | None = None, number: int | None = None) -> Chunk:
        """What the stream holds from ``offset`` on, at most ``limit`` bytes (the store's ``chunk_bytes_max``).

        An offset is an int that the store gave you, ``EARLIEST``, the oldest byte that is still there, or ``NOW``, the
        tail. ``NOW`` is -1; not so in the HTTP protocol, where ``offset=-1`` is the oldest byte.

        Returns at once, with no data at the tail. JSON chunks are whole messages. With ``number`` (of
        :class:`StreamInfo`), another life of the name is :class:`StreamGone`. Raises :class:`OffsetOutOfRange`,
        :class:`InvalidOption`, :class:`Corruption`.
        """
        return self._read(offset, limit, number)

    def follow(self, offset: int = START, *, limit: int | None = None) -> Iterator[Chunk]:
        """Chunks from ``offset`` on (see :meth:`read`) as they become durable; ends when the stream is closed.

        Raises what :meth:`read` raises, and :class:`StreamGone` when the stream is deleted meanwhile.
        """
        number = self.info().number
        while True:
            chunk = self._read(offset, limit, number)
            if chunk.data:
                yield chunk
            offset = chunk.next_offset
            if chunk.closed:
                return
            if chunk.up_to_date:
                self._wait(offset, None, number)

    def wait(self, offset: int, timeout: float | None = None, *, number: int | None = None) -> bool:
        """Wait until the stream has bytes beyond ``offset`` or is closed; False after ``timeout`` seconds.

        Raises :class:`StreamGone` when the stream is deleted meanwhile.
        """
        timeout = _face.check_wait(offset, timeout)
        return self._wait(offset, timeout, self.info().number if number is None else number)

    def info(self) -> StreamInfo:
        """What is known of the stream. Does not count as a use of it."""
        return self._engine.info(self.name)

    def touch(self) -> None:
        """Count as a use of the stream, which renews a sliding TTL."""
        self._engine.touch(self.name)

    def delete(self) -> None:
        """Delete the stream and its data, durably. Its readers are told."""
        self._engine.execute(Delete(self.name))

    def trim(self, before: int) -> int:
        """Give up the bytes before offset ``before``, durably; returns the first that is still there.

        Reading below it raises :class:`OffsetOutOfRange`; so does trimming beyond the tail, and a JSON stream inside of
        a message. Offsets do not change.
        """
        _face.check_int("before", before)
        engine, info = self._engine, self.info()
        if is_json(info.content_type) and before > info.first:
            _face.check_boundary(engine.read, engine.record_bounds, self.name, before, info.number)
        first: int = engine.execute(Trim(self.name, before, info.number))
        return first

    def _append(
        self, raw: bytes, content_type: str | None, producer: Producer | None, seq: str | None, close: bool,
        durability: Durability | None,
    ) -> Appended:  # fmt: skip
        engine = self._engine
        request = _face.append_request(self.name, raw, content_type, producer, seq, close, durability, engine.options)
        appended: Appended = engine.execute(request)
        return appended

    def _read(self, offset: int, limit: int | None, number: int | None) -> Chunk:
        _face.check_offset(offset, limit)
        engine = self._engine
        most = engine.options.chunk_bytes_max
        limit = most if limit is None else min(limit, most)
        chunk = _face.read_chunk(engine.read, engine.record_bounds, self.name, offset, limit, number)
        assert chunk is not None
        return chunk

    def _wait(self, offset: int, timeout: float | None, number: int) -> bool:
        gate = threading.Lock()
        gate.acquire()
        handle = self._engine.watch(self.name, offset, _GATES, gate, number)
        if handle is None:
            return True
        try:
            told = gate.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        finally:
            self._engine.unwatch(handle)
        if told:
            self._engine.check_alive(self.name, number)
        return told


class Store:
    """An open store. Use it in a ``with`` block, or call :meth:`close`."""

    def __init__(self, engine: LogEngine) -> None:
        self.engine = engine
        self.options = engine.options
        self.clock = engine.clock
        self.store_id = engine.store_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Store {self.engine.path!r}>"

    def create(
        self, name: str, *, content_type: str | None = None, ttl: float | None = None,
        expires_at: float | datetime | None = None, closed: bool = False, data: Data = b"", exist_ok: bool = True,
        fork_of: str | None = None, fork_at: int | None = None,
    ) -> Stream:  # fmt: skip
        """Create a stream, durably, with ``data`` in it; or find it as it was asked for (PROTOCOL.md §5.1).

        ``ttl``: whole seconds without a read or an append after which it expires. ``expires_at``: seconds since the
        epoch, or a datetime. Raises :class:`StreamExists` if it is there with another configuration, or at all if
        ``exist_ok`` is False: of many who ask at once for an answer, the one for whom this returns generates it.
        Raises :class:`InvalidName`, :class:`InvalidOption`, :class:`InvalidData`.

        ``fork_of``: begin with what that stream holds up to offset ``fork_at`` (its tail), by reference; content type
        and expiry are then the source's unless given (PROTOCOL.md §4.2). Raises :class:`StreamNotFound`,
        :class:`StreamGone`, :class:`OffsetOutOfRange`, :class:`ContentTypeMismatch` for the source.
        """
        if content_type is None:
            content_type = CONTENT_TYPE_DEFAULT if fork_of is None else self.engine.content_type(check_name(fork_of))
        fork = (fork_of, fork_at)
        request = _face.create_request(name, content_type, ttl, expires_at, closed, data, fork, self.options)
        if fork_of is not None and fork_at is not None and is_json(content_type):
            request, engine = request._replace(fork_number=0), self.engine
            with contextlib.suppress(StreamNotFound, StreamGone):  # whether it matters is the engine's to say
                request = request._replace(fork_number=engine.info(fork_of).number)
                _face.check_boundary(engine.read, engine.record_bounds, fork_of, fork_at, request.fork_number)
        _face.check_created(self.submit(request), name, exist_ok)
        return Stream(self.engine, name)

    def submit(self, request: Request) -> Any:
        """Commit a request that is made already; returns what became of it. For front-ends."""
        return self.engine.execute(request)

    def append_in_order(self, request: Append, patience: float) -> Appended:
        """Like :meth:`submit`, but an append whose predecessors of the same producer are still on their way waits for
        them, up to ``patience`` seconds, before it raises :class:`SequenceGap`.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                appended: Appended = self.submit(request)
            except SequenceGap:
                if (left := deadline - time.monotonic()) <= 0:
                    raise
                stream = self.stream(request.name)
                tail = stream.info().tail
                with contextlib.suppress(StreamGone):  # what became of it is for the next attempt to say
                    stream.wait(tail, min(left, ORDER_POLL_SECONDS))
            else:
                return appended

    def fork_point(self, name: str, anchor: int, sub_offset: int, number: int | None = None) -> int:
        """The offset that lies ``sub_offset`` bytes, on JSON streams messages, past ``anchor`` (PROTOCOL.md §4.2).

        Raises what it does in :meth:`durable_log.aio.AsyncStore.fork_point`.
        """
        engine = self.engine
        return _face.fork_point(engine.read, engine.record_bounds, name, anchor, sub_offset, number)

    def stream(self, name: str) -> Stream:
        """The stream of that name, whether it exists or not."""
        return Stream(self.engine, check_name(name))

    def delete(self, name: str) -> None:
        """Delete a stream, durably. Raises :class:`StreamNotFound`."""
        self.stream(name).delete()

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names of all streams that start with ``prefix``, in order."""
        return self.engine.names(prefix)

    def stats(self) -> Stats:
        """Figures of this moment: streams, files, bytes, commits and their syncs; :class:`Stats` explains each.

        Raises :class:`StoreUnreadable` if the directory cannot be listed.
        """
        return self.engine.stats()

    def compact(self) -> None:
        """Give back all the space that can be given back, now: of deleted, expired and trimmed streams, of what the log
        holds twice, of spare segments. Takes as long as rewriting what is left; appends and reads go on.

        Less than a hundredth of a segment is not worth a rewrite and stays. Spare segments come back when appends want
        them. Raises :class:`StoreFull` (a rewrite needs room for one segment), :class:`StoreUnreadable`,
        :class:`Corruption` (after all else was compacted), :class:`CommitFailed`, :class:`StoreClosed`.
        """
        self.engine.upkeep.compact()

    def backup(self, directory: str | os.PathLike[str], *, verify: bool = True) -> Backup:
        """Make a copy of the store in a new or empty ``directory``, durably. It holds everything that was acknowledged
        before the call; appends and reads go on. :func:`open` opens it.

        Files that never change again share their bytes with the store's where the file system can do that. Unless
        ``verify`` is False, everything is read again before this returns. Raises :class:`BackupFailed`, and then
        nothing is left there; :class:`StoreLocked`, :class:`CommitFailed`, :class:`StoreClosed`.
        """
        return self.engine.upkeep.backup(directory, verify=verify)

    @property
    def report(self) -> Report:
        """What opening the store found: records, and what was damaged."""
        return self.engine.report

    def close(self) -> None:
        """Make everything durable and let go of the directory. Closing twice is harmless. One that was interrupted
        holds the directory until it is called again, or the interpreter ends.

        Raises :class:`CommitFailed`, once it is closed, if data that was acknowledged as ``written`` is not durable.
        """
        self.engine.close()


def open(  # noqa: A001 - durable_log.open reads like open
    path: str | os.PathLike[str], *, options: Options | None = None, clock: Callable[[], float] = time.time
) -> Store:
    """Open the store in directory ``path``, or create one; ``":memory:"`` keeps everything in memory.

    ``clock`` gives seconds since the epoch, for expiry. Raises :class:`InvalidOption`, :class:`NotAStore`,
    :class:`StoreLocked`, :class:`UnsupportedFormat`, :class:`StoreFull`, :class:`StoreUnreadable`, :class:`Corruption`.
    """
    return Store(open_engine(*_face.place_and_options(path, options), clock))


__all__ = ["Store", "Stream", "open"]
