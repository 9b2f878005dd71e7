"""What can still be read of a damaged clustered segment.

Law of this room: it reads and changes nothing. Nothing is believed that a checksum does not vouch for; but where a
file's header, trailer or a row is damaged, what they said is worked out from what stands around them, and then has to
verify: the nonce follows from the store and the file's name, rows and entries lie without gaps, and entries say
themselves of which stream and offset they are. Any thread.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from durable_log.engine.cluster import (
    CHUNK,
    ROW_SIZE,
    TRAILER_SIZE,
    ClusteredSegment,
    Row,
    Trailer,
    decode_trailer,
)
from durable_log.engine.files import Directory, File
from durable_log.engine.format import KIND_CLUSTERED, PAGE, FileHeader, crc32c, decode_file_header, nonce_of
from durable_log.errors import Corruption

_PIECE: Final = 4 * 2**20
_FIRST_PAYLOAD: Final = struct.pack("<Q", PAGE)
_PAYLOAD_AT: Final = 24
_ENTRIES_AT: Final = 32
_ENTRY: Final = struct.Struct("<IIQQII")
_CRC: Final = struct.Struct("<I")
_POSITION: Final = struct.Struct("<Q")
_READ_MAX: Final = 2**20


def header_or_guess(file: File, name: str, kind: int, number: int, uuid: bytes) -> FileHeader:
    """The header of a file, or what it must have been. Raises :class:`UnsupportedFormat`, ``OSError``."""
    header = decode_file_header(name, file.read(0, PAGE))
    if header is not None and (header.kind, header.number, header.uuid) == (kind, number, uuid):
        return header
    return FileHeader(kind, number, uuid, nonce_of(uuid, number), file.size(), 0)


def open_damaged(directory: Directory, name: str, uuid: bytes, number: int) -> ClusteredSegment | None:
    """The clustered segment in that file, its header and trailer damaged or not; None if it holds no rows any more.

    Raises ``OSError``.
    """
    file = directory.open(name)
    try:
        header = header_or_guess(file, name, KIND_CLUSTERED, number, uuid)
        trailer = decode_trailer(file.read(max(0, header.size - TRAILER_SIZE), TRAILER_SIZE), header.nonce)
        trailer = trailer or _find_trailer(file, header.nonce)
    except BaseException:
        file.close()
        raise
    if trailer is None:
        file.close()
        return None
    return ClusteredSegment(file, header, trailer)


def _find_trailer(file: File, nonce: int) -> Trailer | None:
    """The trailer of a file whose first row verifies: the row says where the payload and the entries begin."""
    for begin in range(0, file.size(), _PIECE):
        data = file.read(begin, _PIECE + ROW_SIZE)
        at = data.find(_FIRST_PAYLOAD)
        while at >= 0:
            row = data[at - _PAYLOAD_AT : at - _PAYLOAD_AT + ROW_SIZE] if at >= _PAYLOAD_AT else b""
            if len(row) == ROW_SIZE and crc32c(nonce, row[4:]) == _CRC.unpack_from(row)[0]:
                position = begin + at - _PAYLOAD_AT
                entries = _POSITION.unpack_from(row, _ENTRIES_AT)[0]
                rows = (entries - position) // ROW_SIZE
                length = max(0, file.size() - TRAILER_SIZE - entries)
                return Trailer.of(rows, 0, position - PAGE, length) if rows > 0 else None
            at = data.find(_FIRST_PAYLOAD, at + 1)
    return None


class Entry(NamedTuple):
    """A chunk's entry that verifies: of which stream and bytes it is, and how long it is itself."""

    stream: int
    start: int
    end: int
    size: int


def entry_at(segment: ClusteredSegment, position: int) -> Entry | None:
    """The entry at a position, or None if there is none that verifies."""
    head = segment.file.read(position, _ENTRY.size)
    if len(head) < _ENTRY.size:
        return None
    crc, length, stream, start, _, ends = _ENTRY.unpack(head)
    size = _ENTRY.size + 4 * -(-length // PAGE) + ends
    if not 0 < length <= CHUNK or ends > 2 * CHUNK:
        return None
    data = segment.file.read(position, size)
    if len(data) < size or crc32c(segment.nonce, data[4:]) != crc:
        return None
    return Entry(stream, start, start + length, size)


def rows_of(segment: ClusteredSegment) -> Iterator[tuple[int, Row | None, bool]]:
    """Number, content and health of every row: one that fails its checksum is worked out from its entries, if the row
    before it is known; None if that can't be.
    """
    payload, entries = PAGE, segment.trailer.entries_position
    for number in range(segment.rows_count):
        row, is_whole = None, True
        try:
            row = segment.row(number)
        except Corruption:
            is_whole = False
            if payload:
                row = _worked_out(segment, payload, entries)
        if row is None:
            payload = 0
        else:
            payload = row.payload_position + row.end - row.start
            entries = row.index_position + 4 * (row.chunks - 1)
        yield number, row, is_whole


def _worked_out(segment: ClusteredSegment, payload: int, position: int) -> Row | None:
    first = entry = entry_at(segment, position)
    if first is None or entry is None:
        return None
    end, at = first.end, position + first.size
    while end - entry.start == CHUNK:
        entry = entry_at(segment, at)
        if entry is None or (entry.stream, entry.start) != (first.stream, end):
            break
        end, at = entry.end, at + entry.size
    return Row(first.stream, first.start, end, payload, position, at - position, 0)


class Piece(NamedTuple):
    """The bytes ``start`` to ``end`` of a row, which verify, or else ``reason`` says what is wrong at ``position``."""

    start: int
    end: int
    position: int = 0
    reason: str = ""


def pieces_of(segment: ClusteredSegment, row: Row) -> Iterator[Piece]:
    """A row, cut where it begins and ceases to verify. Raises ``OSError``."""
    offset, bad = row.start, None
    while offset < row.end:
        try:
            data = segment.read(row, offset, min(row.end, offset + _READ_MAX))
        except Corruption as error:
            following = min(row.end, offset + PAGE - (offset - row.start) % PAGE)
            bad = Piece(bad.start if bad else offset, following, *(bad[2:] if bad else (error.position, error.reason)))
            offset = following
            continue
        if bad is not None:
            yield bad
            bad = None
        yield Piece(offset, offset + len(data))
        offset += len(data)
    if bad is not None:
        yield bad


def records_of(segment: ClusteredSegment, row: Row, piece: Piece) -> Iterator[tuple[int, int]]:
    """The records that a piece that verifies consists of; the first and the last one may be parts of records.

    Raises :class:`Corruption` if their ends can't be read.
    """
    offset = piece.start
    while offset < piece.end:
        end = min(segment.record_bounds(row, offset)[1], piece.end)
        yield offset, end
        offset = end
