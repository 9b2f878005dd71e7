"""The records of the log that were found at open, by stream.

Law of this room: the thread that opens fills it, in the order of the log, and sorts it; from then on it never changes.
A stream that is not in memory is not loaded for the sake of its records: whoever looks it up applies them (``replay``),
so opening takes as long as reading the log does, however many streams it names. 32 bytes a record; the loops are C.
"""

from __future__ import annotations

import errno
import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from durable_log._core import ffi, lib
from durable_log.engine.cluster_records import RECORDS_AT_ONCE, SLICE, Records, new_uncleared
from durable_log.engine.format import (
    CREATE,
    DELETE,
    FRAME_ROW,
    PAGE,
    position_of,
    segment_of,
)
from durable_log.engine.index import ENTRY
from durable_log.engine.segment import Block, LogSegment, bodies_of, segment_name
from durable_log.errors import Corruption

_T = TypeVar("_T")

_RECORD: Final = struct.Struct("=QQQII")
_WINDOW: Final = 256 * 2**10
_LIVES: Final = 1 << CREATE | 1 << DELETE


def _nothing() -> None:
    """Nobody else is there to be let in while a store is opened."""


class Record(NamedTuple):
    """One frame of the log. ``skip``: its type and flags, whose claim it has, and how far its payload lies behind its
    start, in bytes.
    """

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
        return int(self.skip >> lib.DL_RECORD_FLAGS & lib.DL_FLAGS)


class StreamRecords:
    """The records of one stream, in the order of the log, but for its creation and its deletion."""

    def __init__(self, memory: Any, first: int, end: int) -> None:
        if first < end and _kind(memory[first]) == CREATE:
            first += 1
        if first < end and _kind(memory[end - 1]) == DELETE:
            end -= 1
        self._memory, self._first, self._count = memory, first, end - first
        self._entries = new_uncleared("uint8_t[]", ENTRY * self._count)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, at: int) -> Record:
        return _unpack(self.at(range(self._count)[at]), 1)[0]

    def since(self, lsn: int) -> int:
        """Which of them is the first from ``lsn`` on. O(log n)."""
        records = self.at(0)
        if not self._count or records[0].place >= lsn:
            return 0
        return bisect_left(range(self._count), lsn, key=lambda at: records[at].place)

    def data(self, first: int, end: int, offset: int, offset_max: int, *, without: int = 0) -> Any:
        """Entries of an index, as bytes: of those records from ``first`` on, below ``end``, that hold the bytes from
        ``offset`` on, one behind the other, to ``offset_max`` at most, and have no flag of ``without``.
        """
        found = lib.dl_replay_data(self.at(first), end - first, without, offset, offset_max, self._entries)
        return ffi.buffer(self._entries, ENTRY * found)

    def claims(self, first: int, tail: int) -> list[Record]:
        """Those from ``first`` on, where the stream ended at ``tail``, that say what holds in the end of its producers
        and its Stream-Seq: the last of each. Maybe others before them.
        """
        found = new_uncleared("uint64_t[]", self._count)
        count = lib.dl_replay_claims(self.at(first), self._count - first, tail, found)
        return [self[first + found[index]] for index in range(count)]

    def at(self, first: int) -> Any:
        """Those from ``first`` on, for loops in C."""
        return self._memory + self._first + first


class Backlog:
    """All frames of all blocks that count."""

    def __init__(self, segments: dict[int, LogSegment]) -> None:
        self._segments = segments
        self._collected, self._lives = Records(), Records()
        self._times: tuple[array[int], array[int]] = array("Q"), array("Q")
        self._sorted: Any = new_uncleared("dl_record[]", 0)
        self._window = (0, b"")
        self.count = 0
        self.greatest_stream = 0

    # --- filling ---------------------------------------------------------------------------------------------------

    def take(self, segment: LogSegment, blocks: list[Block]) -> None:
        """The frames of the blocks that count of one segment; of a damaged block, all that verify."""
        lsns, times = self._times
        lsns.extend(block.lsn for block in blocks)
        times.extend(block.time_ms for block in blocks)
        bodies = [body for block in blocks for body in bodies_of(segment, block)]
        segment.bodies.extend(chain.from_iterable(bodies))
        first = 0
        while first < len(bodies):
            (start, end), last = bodies[first], first
            while last < len(bodies) and (last == first or sum(bodies[last]) - start <= SLICE):
                end = max(end, sum(bodies[last]))
                last += 1
            self._take(segment, segment.file.read(start, end - start), start, bodies[first:last])
            first = last

    def _take(self, segment: LogSegment, content: bytes, start: int, bodies: list[tuple[int, int]]) -> None:
        count, bad = ffi.new("size_t *"), ffi.new("uint64_t *")
        part, count[0], room = self._collected.room(len(content) // lib.DL_FRAME_HEADER + 1)
        first = count[0]
        verdict = lib.dl_records_scan_all(
            content, len(content), start, segment.nonce, segment.number,
            ffi.new("uint64_t[]", list(chain.from_iterable(bodies))), len(bodies), part, room, count, bad,
        )  # fmt: skip
        if verdict != lib.DL_CLUSTER_OK:
            raise Corruption(segment.file.name, bad[0], "a frame of a block that verifies fails its checksum")
        self._use(part, first, count[0])

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

    def of(self, stream: int) -> StreamRecords:
        """The records of a stream."""
        find = lib.dl_records_find
        return StreamRecords(
            self._sorted, find(self._sorted, self.count, stream), find(self._sorted, self.count, stream + 1)
        )

    def streams(self) -> array[int]:
        """The numbers of all streams that have records, ascending."""
        found = new_uncleared("uint64_t[]", self.count)
        count = lib.dl_records_streams(self._sorted, self.count, found)
        return array("Q", bytes(ffi.buffer(found, count * 8)))

    def time_of(self, records: StreamRecords, first: int, count: int) -> float:
        """The latest time at which a block was written that holds one of so many of the records from ``first`` on, in
        seconds since the epoch.
        """
        lsns, times = (ffi.from_buffer("uint64_t[]", each) for each in self._times)
        return int(lib.dl_replay_time(records.at(first), count, lsns, times, len(lsns))) / 1000

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
        """Frames are mostly wanted one after the other; of one that is somewhere else, little more is read."""
        begin, data = self._window
        if not begin <= lsn <= lsn + size <= begin + len(data):
            ahead = _WINDOW if 0 <= lsn - begin - len(data) <= _WINDOW else PAGE
            data = segment.file.read(position_of(lsn), max(size, ahead))
            begin = lsn
            self._window = begin, data
        return data[lsn - begin : lsn - begin + size]


def _kind(record: Any) -> int:
    return int(record.skip >> lib.DL_RECORD_TYPE)


def _unpack(records: Any, count: int) -> list[Record]:
    return list(map(Record._make, _RECORD.iter_unpack(ffi.buffer(records, count * _RECORD.size))))
