"""The records of the log that were found at open, by stream.

Law of this room: the thread that opens fills it, in the order of the log, and sorts it; from then on it never changes.
A stream that is not in memory is not loaded for the sake of its records: whoever looks it up applies them (``replay``),
so opening takes as long as reading the log does, however many streams it names. 32 bytes a record; the loops are C.
"""

from __future__ import annotations

import errno
import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from durable_log._core import ffi, lib
from durable_log.engine.cluster_records import RECORDS_AT_ONCE, SLICE, Records, new_uncleared
from durable_log.engine.format import (
    BLOCK_HEADER,
    CREATE,
    DELETE,
    FRAME_ROW,
    lsn_of,
    position_of,
    segment_of,
)
from durable_log.engine.segment import Block, LogSegment, read_rows, segment_name
from durable_log.errors import Corruption

_T = TypeVar("_T")

_RECORD: Final = struct.Struct("=QQQII")
_WINDOW: Final = 256 * 2**10
_LIVES: Final = 1 << CREATE | 1 << DELETE


def _nothing() -> None:
    """Nobody else is there to be let in while a store is opened."""


class Record(NamedTuple):
    """One frame of the log. ``skip``: its type and flags, and how far its payload lies behind its start, in bytes."""

    stream: int
    offset: int
    lsn: int
    skip: int
    length: int

    @property
    def kind(self) -> int:
        """The frame's type."""
        return int(self.skip >> lib.DL_RECORD_TYPE)

    @property
    def flags(self) -> int:
        """The frame's flags."""
        return int(self.skip >> lib.DL_RECORD_FLAGS & 0xFF)


class Backlog:
    """All frames of all blocks that count."""

    def __init__(self, segments: dict[int, LogSegment]) -> None:
        self._segments = segments
        self._collected, self._lives = Records(), Records()
        self._times: tuple[array[int], array[int]] = array("Q"), array("Q")
        self._sorted: Any = ffi.NULL
        self._window = (0, b"")
        self.count = 0
        self.greatest_stream = 0

    # --- filling ---------------------------------------------------------------------------------------------------

    def take(self, segment: LogSegment, blocks: list[Block]) -> None:
        """The frames of the blocks of one segment; of a damaged block, all that verify."""
        for block in blocks:
            self._times[0].append(block.lsn)
            self._times[1].append(block.time_ms)
        first = 0
        while first < len(blocks):
            last, start = first + 1, position_of(blocks[first].lsn)
            if not blocks[first].whole:
                self._take_damaged(segment, blocks[first])
            else:
                while last < len(blocks) and blocks[last].whole and blocks[last].end - blocks[first].lsn <= SLICE:
                    last += 1
                self._take_whole(segment, start, blocks[first:last])
            first = last

    def _take_whole(self, segment: LogSegment, start: int, blocks: list[Block]) -> None:
        content = segment.file.read(start, position_of(blocks[-1].end) - start)
        bodies = array(
            "Q", chain.from_iterable((position_of(block.lsn) + BLOCK_HEADER, block.body_length) for block in blocks)
        )
        count, bad = ffi.new("size_t *"), ffi.new("uint64_t *")
        part, count[0], room = self._collected.room(len(content) // lib.DL_FRAME_HEADER + 1)
        first = count[0]
        verdict = lib.dl_records_scan_all(
            content, len(content), start, segment.nonce, segment.number, ffi.from_buffer("uint64_t[]", bodies),
            len(blocks), part, room, count, bad,
        )  # fmt: skip
        if verdict != lib.DL_CLUSTER_OK:
            raise Corruption(segment.file.name, bad[0], "a frame of a block that verifies fails its checksum")
        self._use(part, first, count[0])

    def _take_damaged(self, segment: LogSegment, block: Block) -> None:
        rows = read_rows(segment, block).rows
        part, first, _ = self._collected.room(len(rows))
        for index, row in enumerate(rows, first):
            record = part[index]
            record.stream, record.offset, record.place = row[0], row[1], lsn_of(segment.number, row[2])
            record.skip = row[9] << lib.DL_RECORD_TYPE | row[10] << lib.DL_RECORD_FLAGS | row[6]
            record.length = row[7]
        self._use(part, first, first + len(rows))

    def _use(self, part: Any, first: int, end: int) -> None:
        self._collected.use(end)
        self.count += end - first
        lives, used, _ = self._lives.room(end - first)
        self._lives.use(used + lib.dl_records_pick(part + first, end - first, _LIVES, lives + used))

    def sort(self) -> None:
        """All records are there: from now on they are found by stream."""
        greatest = ffi.new("uint64_t[]", lib.DL_KEYS)
        for part, count in self._collected.parts:
            lib.dl_records_greatest(part, count, greatest)
        self.greatest_stream = greatest[lib.DL_BY_STREAM]
        self._sorted, _ = self._collected.sort((lib.DL_BY_STREAM,), _nothing)

    # --- looking up ------------------------------------------------------------------------------------------------

    def lives(self) -> Iterator[Record]:
        """Every creation and deletion, in the order of the log."""
        for part, count in self._lives.parts:
            for first in range(0, count, RECORDS_AT_ONCE):
                yield from _unpack(part + first, min(RECORDS_AT_ONCE, count - first))

    def of(self, stream: int) -> list[Record]:
        """The records of a stream, in the order of the log, without creations and deletions."""
        first = lib.dl_records_find(self._sorted, self.count, stream)
        end = lib.dl_records_find(self._sorted, self.count, stream + 1)
        return [record for record in _unpack(self._sorted + first, end - first) if record.kind not in (CREATE, DELETE)]

    def streams(self) -> array[int]:
        """The numbers of all streams that have records, ascending."""
        found = new_uncleared("uint64_t[]", self.count)
        count = lib.dl_records_streams(self._sorted, self.count, found)
        return array("Q", bytes(ffi.buffer(found, count * 8)))

    def time_of(self, lsn: int) -> float:
        """When the block that holds ``lsn`` was written, in seconds since the epoch."""
        lsns, times = self._times
        return times[bisect_right(lsns, lsn) - 1] / 1000

    def frame(self, record: Record) -> tuple[tuple[int, ...], bytes]:
        """The row of a record's frame, and the frame. Reads it, verified. Raises :class:`Corruption`, ``OSError``."""
        number, position = segment_of(record.lsn), position_of(record.lsn)
        segment = self._segments.get(number)
        if segment is None:
            raise FileNotFoundError(
                errno.ENOENT, "the log segment was given back", segment_name(segment_of(record.lsn))
            )
        size = (record.skip & 0xFFFF) + record.length
        data = self._read(segment, record.lsn, size)
        row, count, done = ffi.new("dl_frame[1]"), ffi.new("size_t *"), ffi.new("size_t *")
        if lib.dl_frames_scan(data, size, position, segment.nonce, row, 1, count, done) != lib.DL_OK:
            raise Corruption(segment.file.name, position, "a frame fails its checksum that held when it was found")
        return FRAME_ROW.unpack(ffi.buffer(row)), data

    def decoded(self, record: Record, decode: Callable[[bytes], _T]) -> _T:
        """What a record's payload says. Raises :class:`Corruption`, ``OSError``."""
        row, frame = self.frame(record)
        try:
            return decode(frame[row[6] :])
        except ValueError as error:
            number, position = segment_of(record.lsn), position_of(record.lsn)
            reason = f"a frame that holds can't be understood: {error}"
            raise Corruption(segment_name(number), position, reason) from error

    def _read(self, segment: LogSegment, lsn: int, size: int) -> bytes:
        """Frames are mostly wanted one after the other."""
        begin, data = self._window
        if not begin <= lsn <= lsn + size <= begin + len(data):
            data = segment.file.read(position_of(lsn), max(size, _WINDOW))
            begin = lsn
            self._window = begin, data
        return data[lsn - begin : lsn - begin + size]


def _unpack(records: Any, count: int) -> list[Record]:
    return list(map(Record._make, _RECORD.iter_unpack(ffi.buffer(records, count * _RECORD.size))))
