"""A log segment, block by block and frame by frame.

Law of this room: the same as that of ``dump``. Which blocks count is not said: that takes the whole log.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from durable_log.engine.format import (
    CREATE,
    DATA,
    DELETE,
    FLAG_CLOSE,
    FLAG_PRODUCER,
    FLAG_SEQ,
    PAGE,
    PRODUCER,
    TOUCH,
    TRIM,
    decode_create,
    decode_producer,
    decode_touch,
    position_of,
    segment_of,
)
from durable_log.engine.segment import Block, LogSegment, Rows, read_rows, survey

_TYPES: Final = {
    DATA: "data", CREATE: "create", DELETE: "delete", TOUCH: "touch", PRODUCER: "producer", TRIM: "trim",
}  # fmt: skip


def dump_log(segment: LogSegment, *, payload: bool) -> Iterator[dict[str, Any]]:
    """Every block whose header verifies, its frames, and pages between them that hold something else."""
    at, previous = PAGE, None
    for block in survey(segment):
        yield from _gap(segment, at, position_of(block.lsn))
        yield _block(block, previous)
        if block.body_length:
            yield from _frames(segment, block, payload=payload)
        at = position_of(block.end) if block.whole else position_of(block.lsn) + PAGE
        previous = block
    yield from _gap(segment, at, segment.file.size())


def _block(block: Block, previous: Block | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "at": position_of(block.lsn),
        "is": "block" if block.body_length else "mark",
        "lsn": place(block.lsn),
        "length": block.body_length,
        "durable": place(block.durable_lsn),
        "previous": place(block.previous_lsn),
        "previous_crc": f"{block.previous_crc:08x}",
        "crc": f"{block.header_crc:08x}",
        "time_ms": block.time_ms,
    }
    if block.clean:
        told["clean"] = True
    if not block.whole:
        told["damage"] = "the body fails its checksum"
    elif previous is not None and (block.previous_lsn, block.previous_crc) != (previous.lsn, previous.header_crc):
        told["note"] = "it does not name the block before it"
    return told


def _frames(segment: LogSegment, block: Block, *, payload: bool) -> Iterator[dict[str, Any]]:
    rows = read_rows(segment, block)
    at, end = rows.position, rows.position + block.body_length
    for row in rows.rows:
        if row[2] > at:
            yield {"at": at, "is": "frame", "length": row[2] - at, "damage": "no frame verifies here"}
        yield _frame(rows, row, payload=payload)
        at = row[2] + row[6] + row[7]
    if at < end:
        yield {"at": at, "is": "frame", "length": end - at, "damage": "no frame verifies here"}


def _frame(rows: Rows, row: tuple[int, ...], *, payload: bool) -> dict[str, Any]:
    stream, offset, position, epoch, seq, producer, _, length, seq_length, kind, flags = row
    told: dict[str, Any] = {
        "at": position, "is": _TYPES.get(kind, f"frame of type {kind}"), "stream": stream, "offset": offset,
        "length": length,
    }  # fmt: skip
    if flags & FLAG_CLOSE:
        told["close"] = True
    if flags & FLAG_PRODUCER:
        told |= {"producer": producer, "epoch": epoch, "seq": seq}
    if flags & FLAG_SEQ and seq_length:
        told["stream_seq"] = rows.seq(row).decode("utf-8", "replace")
    data = rows.payload(row)
    if kind == CREATE:
        creation = decode_create(data)
        told |= {"name": creation.name, **creation.config._asdict(), "created_ms": creation.created_ms}
        if creation.source:
            told |= {"source": creation.source, "base": creation.base, "ancestors": list(creation.ancestors)}
    elif kind == PRODUCER:
        told["number"], told["id"] = decode_producer(data)
    elif kind == TOUCH:
        told["touched_ms"] = decode_touch(data)
    elif payload and kind == DATA:
        told["payload"] = data
    return told


def _gap(segment: LogSegment, start: int, end: int) -> Iterator[dict[str, Any]]:
    """Pages between blocks: zeroes, what an earlier life left, or something that was a block."""
    at = start
    while at < end:
        first, zero = at, is_zero(segment.file.read(at, PAGE))
        while at < end and is_zero(segment.file.read(at, PAGE)) == zero:
            at += PAGE
        told = {"at": first, "is": "zeroes" if zero else "no block", "length": min(at, end) - first}
        if not zero:
            told["note"] = "damaged, cut off, or of an earlier life of the file"
        yield told


def is_zero(data: bytes) -> bool:
    """Whether there is nothing but zeroes."""
    return not any(data)


def place(lsn: int) -> str:
    """An LSN as text."""
    return f"{segment_of(lsn)}:{position_of(lsn)}"
