"""Clustered segments: immutable files grouped by stream. Their format, and reading them.

Law of this room: a file named ``*.seg`` was written once, whole and synced, by ``cluster_build``; nothing here changes
one. No byte leaves that was not verified in this very read. What is damaged is named as narrowly as the file allows: a
page of 4 KiB, a chunk's entry, a row. Any thread, no lock; nobody may close a segment while another thread reads it.
The loops and the layout of rows and entries are ``csrc/cluster*``, the picture is ``csrc/cluster.h``.
"""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import Directory, File
from durable_log.engine.format import (
    KIND_CLUSTERED,
    PAGE,
    FileHeader,
    crc32c,
    decode_file_header,
    encode_file_header,
)
from durable_log.errors import Corruption

CHUNK: Final = 65536
ROW_SIZE: Final = 48
TRAILER_SIZE: Final = 64

_NAME: Final = re.compile(r"([0-9a-f]{8})\.seg")
_TRAILER: Final = struct.Struct("<I4s7Q")
_TRAILER_MAGIC: Final = b"CLST"
_ROW: Final = struct.Struct("<IIQQQQII")
_INDEX: Final = struct.Struct("<I")
_ROWS_AT_ONCE: Final = 16384
_FAULTS_AT_ONCE: Final = 256
_WINDOW: Final = 256 * 2**10
_ONE_READ_MAX: Final = 64 * 2**10

REASONS: Final = {
    lib.DL_CLUSTER_SHORT: "the file ends too early",
    lib.DL_CLUSTER_FRAME: "a frame fails its checksum",
    lib.DL_CLUSTER_ROW: "a row fails its checksum",
    lib.DL_CLUSTER_ENTRY: "a chunk's entry fails its checksum",
    lib.DL_CLUSTER_PAGE: "a page of stream bytes fails its checksum",
    lib.DL_CLUSTER_INDEX: "the sparse index names another place than the entry's",
    lib.DL_CLUSTER_ORDER: "something stands out of its order or place",
}
"""What a verdict of the C core means, for messages."""


def cluster_name(number: int) -> str:
    """The file name of a clustered segment."""
    return f"{number:08x}.seg"


def cluster_number(name: str) -> int | None:
    """The number in a clustered segment's file name, or None if it is no such name."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1], 16)


class Row(NamedTuple):
    """The bytes ``start`` to ``end`` of a stream, and where the file has them. Entries are followed by the index."""

    stream: int
    start: int
    end: int
    payload_position: int
    entries_position: int
    entries_length: int
    records: int

    @property
    def chunks(self) -> int:
        """How many chunks it has, and entries."""
        return (self.end - self.start + CHUNK - 1) // CHUNK

    @property
    def index_position(self) -> int:
        """Where the sparse index is: 4 bytes for each chunk but the first."""
        return self.entries_position + self.entries_length


class Fault(NamedTuple):
    """Something damaged: the stream bytes that can't be read for it (none, of stream 0, if it is nobody's)."""

    stream: int
    start: int
    end: int
    position: int
    reason: str


def _fault(found: Any) -> Fault:
    return Fault(found.stream, found.start, found.end, found.position, REASONS[found.verdict])


class Trailer(NamedTuple):
    """The last bytes of a clustered segment. Payload, rows and entries follow each other without gaps."""

    rows: int
    records: int
    payload_bytes: int
    rows_position: int
    entries_position: int
    size: int

    @classmethod
    def of(cls, rows: int, records: int, payload_bytes: int, entries_length: int) -> Trailer:
        """The trailer of a file with that much in it."""
        rows_position = PAGE + payload_bytes
        entries_position = rows_position + rows * ROW_SIZE
        size = entries_position + entries_length + TRAILER_SIZE
        return cls(rows, records, payload_bytes, rows_position, entries_position, size)

    def encode(self, nonce: int) -> bytes:
        """The bytes of the trailer, checksum first."""
        data = _TRAILER.pack(0, _TRAILER_MAGIC, *self, 0)
        return _INDEX.pack(crc32c(nonce, data[4:])) + data[4:]


def decode_trailer(data: bytes, nonce: int) -> Trailer | None:
    """The trailer in a file's last bytes, or None if it does not verify."""
    if len(data) != TRAILER_SIZE or crc32c(nonce, data[4:]) != _INDEX.unpack_from(data)[0]:
        return None
    _, magic, *fields, zero = _TRAILER.unpack(data)
    trailer = Trailer(*fields)
    entries_length = trailer.size - TRAILER_SIZE - trailer.entries_position
    whole = Trailer.of(trailer.rows, trailer.records, trailer.payload_bytes, entries_length)
    return trailer if magic == _TRAILER_MAGIC and zero == 0 and entries_length >= 0 and trailer == whole else None


class ClusteredSegment:
    """An open clustered segment. Rows are numbered from 0, sorted by stream and start."""

    def __init__(self, file: File, header: FileHeader, trailer: Trailer) -> None:
        self.file = file
        self.header = header
        self.trailer = trailer
        self.number, self.nonce = header.number, header.nonce
        self.rows_count, self.payload_bytes = trailer.rows, trailer.payload_bytes
        self._last_row: tuple[int, Row] | None = None  # reads mostly follow each other

    @classmethod
    def open(cls, directory: Directory, name: str) -> ClusteredSegment | None:
        """The segment in that file, or None if its header or its trailer does not verify. O(1).

        Raises ``OSError``, and :class:`UnsupportedFormat` if a newer version wrote it.
        """
        file = directory.open(name)
        try:
            segment = cls._open(file, name)
        except BaseException:
            file.close()
            raise
        if segment is None:
            file.close()
        return segment

    @classmethod
    def _open(cls, file: File, name: str) -> ClusteredSegment | None:
        header = decode_file_header(name, file.read(0, PAGE))
        if header is None or header.kind != KIND_CLUSTERED or header.number != cluster_number(name):
            return None
        trailer = decode_trailer(file.read(max(0, header.size - TRAILER_SIZE), TRAILER_SIZE), header.nonce)
        return cls(file, header, trailer) if trailer is not None and trailer.size == header.size else None

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    # ---- rows

    def row(self, index: int) -> Row:
        """One row. Raises :class:`Corruption`."""
        last = self._last_row
        if last is not None and last[0] == index:
            return last[1]
        row = self._row(index)
        if row is None:
            position = self.trailer.rows_position + index * ROW_SIZE
            raise Corruption(self.file.name, position, REASONS[lib.DL_CLUSTER_ROW])
        self._last_row = index, row
        return row

    def _row(self, index: int) -> Row | None:
        if not 0 <= index < self.rows_count:
            raise IndexError(f"row {index} of {self.rows_count}")
        data = self.rows_bytes(index, 1)
        if len(data) < ROW_SIZE or not lib.dl_row_holds(data, self.nonce, self.trailer.size):
            return None
        _, length, stream, start, payload, entries, entries_length, records = _ROW.unpack(data)
        return Row(stream, start, start + length, payload, entries, entries_length, records)

    def rows_bytes(self, first: int, count: int) -> bytes:
        """``count`` rows as they are in the file, for loops in C: each has its own checksum."""
        return self.file.read(self.trailer.rows_position + first * ROW_SIZE, count * ROW_SIZE)

    def streams(self) -> tuple[array[int], array[int], array[int]]:
        """Stream number, start and end of every row. One that does not verify is stream 0, from 0 to 0."""
        columns = tuple(array("Q", (0,)) * self.rows_count for _ in range(3))
        views = [ffi.from_buffer("uint64_t[]", column) for column in columns]
        for first in range(0, self.rows_count, _ROWS_AT_ONCE):
            table = self.rows_bytes(first, min(_ROWS_AT_ONCE, self.rows_count - first))
            lib.dl_rows_unpack(
                table, len(table) // ROW_SIZE, self.nonce, self.trailer.size, *(view + first for view in views)
            )
        numbers, starts, ends = columns
        return numbers, starts, ends

    def find(self, stream: int, offset: int) -> int | None:
        """The number of the row that holds the byte, or None if this file has it not. O(log rows) reads.

        Raises :class:`Corruption` if a damaged row might be the one.
        """
        low, high = 0, self.rows_count
        while low < high:
            middle = (low + high) // 2
            at, row = self._whole_row(middle, high)
            if row is None or (row.stream, row.start) > (stream, offset):
                high = middle
            elif row.stream == stream and offset < row.end:
                return at
            else:
                low = at + 1
        if low < self.rows_count and self._row(low) is None:
            self.row(low)
        return None

    def _whole_row(self, index: int, stop: int) -> tuple[int, Row | None]:
        """The first row from ``index`` on, below ``stop``, that verifies."""
        row = None
        while index < stop and row is None:
            row = self._row(index)
            index += 1
        return index - 1, row

    # ---- stream bytes

    def read(self, row: Row, start: int, end: int) -> bytes:
        """The stream bytes ``start`` to ``end`` (not empty, within the row), fewer if the rest does not verify.

        Raises :class:`Corruption` if the first of them does not, and ``OSError``.
        """
        assert row.start <= start < end <= row.end, (row, start, end)
        payload = _Payload(self, row, start, end)
        first, last = (start - row.start) // CHUNK, (end - 1 - row.start) // CHUNK
        good = payload.check(*self._entries(row, first, last))
        if good <= start and payload.verdict == lib.DL_CLUSTER_ENTRY:
            good = payload.check(*self._walk(row, first))
        if good >= end:
            return payload.data
        if good > start:
            return payload.data[: good - start]
        position = payload.entry_position
        if payload.verdict != lib.DL_CLUSTER_ENTRY:
            position = row.payload_position + good - row.start
        raise Corruption(self.file.name, position, REASONS[payload.verdict])

    def record_bounds(self, row: Row, offset: int) -> tuple[int, int]:
        """Where the record that holds the byte at ``offset`` (within the row) starts and ends.

        Raises :class:`Corruption`, and ``OSError``.
        """
        assert row.start <= offset < row.end, (row, offset)
        number = (offset - row.start) // CHUNK
        start, end = ffi.new("uint64_t *"), ffi.new("uint64_t *")
        position = row.entries_position
        for entries, at in (self._entries(row, number, number), self._walk(row, number)):
            position = row.entries_position + at
            verdict = lib.dl_entry_bounds(
                entries, len(entries), self.nonce, row.stream, row.start + number * CHUNK, row.start, row.end, offset,
                start, end,
            )  # fmt: skip
            if verdict == lib.DL_CLUSTER_OK:
                return start[0], end[0]
        raise Corruption(self.file.name, position, REASONS[lib.DL_CLUSTER_ENTRY])

    def _entries(self, row: Row, first: int, last: int) -> tuple[bytes, int]:
        """Where the index says that the entries of those chunks are: their bytes, and where in the row's entries."""
        at, end = 0, row.entries_length
        lowest, highest = max(first - 1, 0), min(last + 1, row.chunks - 1)
        if first > 0 or highest > last:
            index = self.file.read(row.index_position + 4 * lowest, 4 * (highest - lowest))
            if len(index) == 4 * (highest - lowest):
                at = _INDEX.unpack_from(index)[0] if first > 0 else at
                end = _INDEX.unpack_from(index, len(index) - 4)[0] if highest > last else end
        if not at < end <= row.entries_length:
            return b"", 0
        return self.file.read(row.entries_position + at, end - at), at

    def _walk(self, row: Row, first: int) -> tuple[bytes, int]:
        """The same from the row's first entry on, for an index that leads nowhere. O(entries of the row)."""
        entries = self.file.read(row.entries_position, row.entries_length)
        at = lib.dl_entry_find(
            entries, len(entries), self.nonce, row.stream, row.start, row.end, row.start + first * CHUNK
        )
        return entries[at:], at

    # ---- verification

    def verify(self, pause: Callable[[], None] | None = None) -> list[Fault]:
        """Read everything, and say what is damaged. ``pause`` is called between slices of about 1 MiB.

        Raises ``OSError``.
        """
        faults = []
        if self.file.read(0, PAGE) != encode_file_header(self.header):
            faults.append(Fault(0, 0, 0, 0, "the header has changed"))
        end = self.trailer.size - TRAILER_SIZE
        if self.file.read(end, 2 * TRAILER_SIZE) != self.trailer.encode(self.nonce):
            faults.append(Fault(0, 0, 0, end, "the trailer has changed, or something stands behind it"))
        found = ffi.new("dl_fault[]", _FAULTS_AT_ONCE)
        count, walk = ffi.new("size_t *"), _Walk(self)
        verdict = lib.DL_CLUSTER_MORE
        while verdict == lib.DL_CLUSTER_MORE:
            verdict = lib.dl_cluster_verify(walk.state, found, _FAULTS_AT_ONCE, count)
            faults.extend(_fault(found[index]) for index in range(count[0]))
            if pause is not None:
                pause()
        if verdict == lib.DL_CLUSTER_READ:
            raise OSError(found[0].error, "read failed", self.file.name)
        if verdict != lib.DL_CLUSTER_OK:
            faults.append(Fault(0, 0, 0, self.file.size(), REASONS[verdict]))
        return faults


class _Payload:
    """Stream bytes as they are in the file, and whether they hold. ``data`` are those that were asked for; the rest of
    the pages at both ends is read beside them, so that what is returned is never copied but by the system.
    """

    def __init__(self, segment: ClusteredSegment, row: Row, start: int, end: int) -> None:
        low = start - (start - row.start) % PAGE
        high = min(row.end, row.start + (end - row.start + PAGE - 1) // PAGE * PAGE)
        read, position = segment.file.read, row.payload_position - row.start
        at_once = high - low <= _ONE_READ_MAX or (low, high) == (start, end)
        bounds = (low, high) if at_once else (low, start, end, high)
        parts = [read(position + first, last - first) for first, last in pairwise(bounds)]
        self.data = parts[0][start - low : end - low] if at_once else parts[1]
        self._keep = [ffi.from_buffer("uint8_t[]", part) for part in parts]
        chunk = start - (start - row.start) % CHUNK
        lengths = [len(part) for part in parts]
        fields = (segment.nonce, row.stream, chunk, row.end, low, high, self._keep, lengths)
        self._span = ffi.new("dl_span *", fields)
        self._entries_position = row.entries_position
        self.verdict = lib.DL_CLUSTER_OK
        self.entry_position = 0

    def check(self, entries: bytes, at: int) -> int:
        """The offset up to which the bytes hold, by the entries of their chunks, which begin ``at`` in the row's."""
        good, entry = ffi.new("uint64_t *"), ffi.new("size_t *")
        self.verdict = lib.dl_span_check(self._span, entries, len(entries), good, entry)
        self.entry_position = self._entries_position + at + entry[0]
        return int(good[0])


def source_of(segment: Any, keep: list[Any]) -> tuple[Any, ...]:
    """The fields of a ``dl_source``: by what C reads a log segment or a clustered one. ``keep`` holds its memory."""
    fd, memory = segment.file.source()
    view = ffi.NULL
    if memory is not None:
        view = ffi.from_buffer("uint8_t[]", memory)
        keep.append(view)
    clustered = isinstance(segment, ClusteredSegment)
    rows = (segment.trailer.rows_position, segment.rows_count) if clustered else (0, 0)
    return fd, segment.nonce, clustered, view, segment.file.size(), *rows


def new_reader(keep: list[Any]) -> tuple[Any, ...]:
    """The fields of a ``dl_reader``. ``keep`` holds its memory."""
    windows = []
    for size in (_WINDOW, _WINDOW, _WINDOW // 4):
        memory = ffi.from_buffer("uint8_t[]", bytearray(size))
        keep.append(memory)
        windows.append((memory, size))
    return tuple(windows)


class _Walk:
    """Everything that one verification remembers."""

    def __init__(self, segment: ClusteredSegment) -> None:
        self._keep: list[Any] = []
        self.state = ffi.new("dl_walk *")
        self.state.source = source_of(segment, self._keep)
        self.state.reader = new_reader(self._keep)
        self.state.entries_end = segment.trailer.size - TRAILER_SIZE
        self.state.payload_position = PAGE
        self.state.entries_position = segment.trailer.entries_position


assert lib.DL_CHUNK == CHUNK
assert lib.DL_ROW == ROW_SIZE == _ROW.size
assert _TRAILER.size == TRAILER_SIZE
