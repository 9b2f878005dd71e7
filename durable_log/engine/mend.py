"""New clustered segments out of damaged ones.

Law of this room: what verifies goes into a new file, byte for byte at its offset; what does not stays out. Rows that
hold are copied whole; of others, each piece that holds becomes frames of a temporary log segment, from which a new
segment is built as from any other. The thread that repairs.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from typing import Final

from durable_log._core import ffi
from durable_log.engine.cluster import ROW_SIZE, ClusteredSegment, Row
from durable_log.engine.cluster_build import LogSource, RowSource, write_clustered
from durable_log.engine.files import Directory, MemoryDirectory
from durable_log.engine.format import BLOCK_HEADER, DATA, PAGE, frame_head, lsn_of, pages
from durable_log.engine.quarantine import Finding
from durable_log.engine.salvage import Piece, pieces_of, records_of, rows_of
from durable_log.engine.segment import LogSegment

_BLOCK_MAX: Final = 2**20
_SEGMENT_MAX: Final = 2**26
"""How much of a damaged file is in memory at a time, in bytes, and a block more; a record is not divided."""

NewNumber = Callable[[], int]
_Part = tuple[Row, Piece]
_Record = tuple[Row, int, int]


def mend_clustered(
    directory: Directory, damaged: ClusteredSegment, uuid: bytes, new_number: NewNumber, findings: list[Finding]
) -> list[ClusteredSegment]:
    """New, durable segments of all that verifies. Adds to ``findings`` what does not. Raises ``OSError``."""
    whole, parts = array("Q"), list[_Part]()
    for number, row, is_whole in rows_of(damaged):
        if row is None:
            position = damaged.trailer.rows_position + number * ROW_SIZE
            findings.append(Finding("damage", damaged.file.name, position, "a row fails its checksum"))
            continue
        found = list(pieces_of(damaged, row))
        if is_whole and len(found) == 1 and not found[0].reason:
            whole.append(number)
            continue
        parts += _parts(damaged, row, found, findings)
    made = []
    sources: list[RowSource | LogSource] = [RowSource(damaged, whole)] if whole else []
    first = True
    for source in _as_log(damaged, uuid, parts):
        made.append(_build(directory, uuid, new_number(), [*(sources if first else []), source]))
        first = False
    if first and sources:
        made.append(_build(directory, uuid, new_number(), sources))
    return [segment for segment in made if segment is not None]


def _build(
    directory: Directory, uuid: bytes, number: int, sources: list[RowSource | LogSource]
) -> ClusteredSegment | None:
    return write_clustered(directory, number, uuid, sources, pause=lambda: None)


def _parts(damaged: ClusteredSegment, row: Row, found: list[Piece], findings: list[Finding]) -> Iterator[_Part]:
    for piece in found:
        if piece.reason:
            reason = f"{piece.reason} (stream number {row.stream})"
            findings.append(
                Finding("damage", damaged.file.name, piece.position, reason, start=piece.start, end=piece.end)
            )
            continue
        yield row, piece


def _as_log(damaged: ClusteredSegment, uuid: bytes, parts: list[_Part]) -> Iterator[LogSource]:
    """Log segments, in memory, of the records of these parts, one at a time."""
    records = ((row, start, end) for row, piece in parts for start, end in records_of(damaged, row, piece))
    while (source := _write_log(damaged, uuid, records)) is not None:
        yield source


def _write_log(damaged: ClusteredSegment, uuid: bytes, records: Iterator[_Record]) -> LogSource | None:
    """One of the next records, as many as it takes; None if there are none."""
    segment = LogSegment.create(MemoryDirectory(), 1, 2 * PAGE, uuid, 0)
    blocks, position = list[tuple[int, int]](), PAGE
    frames, length = [bytes(BLOCK_HEADER)], 0
    for row, start, end in records:
        frames.append(frame_head(DATA, 0, row.stream, start, end - start) + _read(damaged, row, start, end))
        length += len(frames[-1])
        if length >= _BLOCK_MAX:
            position = _write_block(segment, position, frames, length, blocks)
            frames, length = [bytes(BLOCK_HEADER)], 0
            if position >= _SEGMENT_MAX:
                break
    if length:
        _write_block(segment, position, frames, length, blocks)
    return LogSource(segment, blocks) if blocks else None


def _read(damaged: ClusteredSegment, row: Row, start: int, end: int) -> bytes:
    found = []
    while start < end:
        data = damaged.read(row, start, end)
        found.append(data)
        start += len(data)
    return b"".join(found)


def _write_block(
    segment: LogSegment, position: int, frames: list[bytes], length: int, blocks: list[tuple[int, int]]
) -> int:
    size = pages(BLOCK_HEADER + length)
    block = bytearray().join([*frames, bytes(size - BLOCK_HEADER - length)])
    info = ffi.new("dl_block *", {"lsn": lsn_of(segment.number, position), "body_length": length})
    info.nonce = segment.nonce
    segment.file.commit(block, info, False)
    blocks.append((position + BLOCK_HEADER, length))
    return position + size
