"""Where the next block goes: the open end of the log.

Law of this room: used by the holder of the commit lock only. It places blocks, chains them, moves on to the next
segment and knows which LSN is durable. It knows nothing of streams. After a :class:`SyncFailed` it must not be used
again; after a :class:`WriteFailed` for want of space the same place is written again, as nobody was told of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, NamedTuple

from durable_log._core import ffi
from durable_log.engine.files import is_out_of_files, is_out_of_space
from durable_log.engine.format import BLOCK_CLEAN, BLOCK_HEADER, PAGE, lsn_of, pages
from durable_log.engine.segment import FIRST_SIZE, LogSegment
from durable_log.errors import StoreFull, StoreUnreadable

_PADDING: Final = bytes(PAGE)


class Tail(NamedTuple):
    """Where the log ends: the next block goes to ``position`` of ``segment``, after the block that is named.
    ``unmarked``: no block says that this one is durable, which it is.
    """

    segment: LogSegment
    position: int
    previous_lsn: int
    previous_crc: int
    clean: bool = False
    unmarked: bool = False


class LogWriter:
    """Writes blocks at the end of the log. ``next_segment(number, size)`` gives an empty segment or raises."""

    def __init__(self, tail: Tail, next_segment: Callable[[int, int], LogSegment]) -> None:
        self.segment = tail.segment
        self.position = tail.position
        self._previous_lsn, self._previous_crc = tail.previous_lsn, tail.previous_crc
        self._next_segment = next_segment
        self._info = ffi.new("dl_block *")
        self.durable_lsn = self.end_lsn
        self.unmarked = tail.unmarked
        """Whether no block on disk says yet that the newest records are durable."""
        self.clean = tail.clean
        """Whether the newest block says that the store was closed in good order."""
        self.written_at, self.unsynced_since = time.monotonic(), 0.0
        """Monotonic seconds of the last write, and of the first that is not synced."""

    @property
    def end_lsn(self) -> int:
        """The LSN of the next block."""
        return lsn_of(self.segment.number, self.position)

    @property
    def last_lsn(self) -> int:
        """The LSN of the newest block; 0 if there is none."""
        return self._previous_lsn

    @property
    def unsynced(self) -> bool:
        """Whether something was written that no sync has covered yet."""
        return self.durable_lsn != self.end_lsn

    @property
    def is_full(self) -> bool:
        """Whether the segment has no room for a mark."""
        return self.position + PAGE > self.segment.size

    def make_room(self, length: int, *, reserved: bool) -> None:
        """See to it that a block of ``length`` bytes of frames fits, in a new segment if need be.

        ``reserved``: it may use the last pages. Raises :class:`StoreFull`, :class:`StoreUnreadable` if no more files
        may be opened, or ``OSError`` for anything else.
        """
        needed = pages(BLOCK_HEADER + length)
        usable = self.segment.size if reserved else self.segment.usable
        if self.position + needed <= usable:
            return
        try:
            segment = self._next_segment(self.segment.number + 1, PAGE + needed)
        except OSError as error:
            if not (is_out_of_space(error) or is_out_of_files(error)):
                raise
            name = error.filename or self.segment.file.name
            raise (StoreFull(name, needed) if is_out_of_space(error) else StoreUnreadable(name, error)) from error
        self._enter(segment)

    def following(self, *, shrink: bool) -> LogSegment | None:
        """A segment to go on in, so that this one can be clustered, or None if it is empty. To ``shrink`` is to leave
        one that is empty, too, if it is larger than that of a young store. Raises ``OSError``.
        """
        if self.position > PAGE or (shrink and self.segment.size > FIRST_SIZE):
            return self._next_segment(self.segment.number + 1, 2 * PAGE)
        return None

    def enter(self, segment: LogSegment, now: float) -> None:
        """Go on in that segment. Raises ``OSError``."""
        if self.position == PAGE:
            self.mark(now)  # only the last segment of a log may be without a block
        self._enter(segment)

    def _enter(self, segment: LogSegment) -> None:
        if self.unsynced:
            self.segment.file.sync()
        self.segment, self.position = segment, PAGE
        self.durable_lsn = self.end_lsn

    def write(self, parts: list[bytes], length: int, *, sync: bool, now: float, flags: int = 0) -> tuple[int, int]:
        """One block of the frames in ``parts`` (the first of which is the room for its header), written and, if
        asked, synced. Returns the LSN of its body and what the sync took in ns. Raises ``OSError``.
        """
        size = pages(BLOCK_HEADER + length)
        parts.append(_PADDING[: size - BLOCK_HEADER - length])
        block = bytearray().join(parts)
        info = self._info
        info.lsn = lsn = self.end_lsn
        info.durable_lsn = self.durable_lsn
        info.previous_lsn, info.previous_crc = self._previous_lsn, self._previous_crc
        info.time_ms = int(now * 1000)
        info.body_length, info.flags = length, flags
        info.nonce = self.segment.nonce
        sync_ns = self.segment.file.commit(block, info, sync)
        self._previous_lsn, self._previous_crc = lsn, info.header_crc
        self.written_at = time.monotonic()
        if not sync and not self.unsynced:
            self.unsynced_since = self.written_at
        self.unmarked = length > 0
        self.clean = bool(flags & BLOCK_CLEAN)
        if length:
            self.segment.bodies.extend((self.position + BLOCK_HEADER, length))
        self.segment.last = lsn, info.header_crc
        self.position += size
        self.segment.end = self.position
        if sync:
            self.durable_lsn = self.end_lsn
        return lsn + BLOCK_HEADER, sync_ns

    def mark(self, now: float, *, clean: bool = False) -> None:
        """An empty block, which says that all before it is durable; none if the segment is full. Raises ``OSError``.

        ``clean``: and that the store was closed in good order.
        """
        self.unmarked = False
        if not self.is_full:
            self.write([bytes(BLOCK_HEADER)], 0, sync=True, now=now, flags=BLOCK_CLEAN if clean else 0)

    def sync(self) -> None:
        """Sync what was written without. Raises ``OSError``."""
        self.segment.file.sync()
        self.durable_lsn = self.end_lsn
