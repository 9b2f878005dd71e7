"""Log segments for the tests of clustered ones, and what a clustered segment is: its format in plain Python."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from durable_log._core import ffi
from durable_log.engine.cluster_build import LogSource
from durable_log.engine.files import Directory, DiskDirectory, MemoryDirectory, MemoryFile
from durable_log.engine.format import (
    DATA,
    KIND_CLUSTERED,
    FileHeader,
    crc32c,
    encode_file_header,
    frame_head,
    lsn_of,
    nonce_of,
    pages,
)
from durable_log.engine.segment import LogSegment

UUID = bytes(range(100, 116))
CHUNK, PAGE = 65536, 4096


class Record(NamedTuple):
    stream: int
    offset: int
    data: bytes
    kind: int = DATA
    flags: int = 0
    extensions: bytes = b""


def nothing() -> None:
    """A pause that takes no time."""


def write_log(directory: Directory, number: int, records: list[Record], per_block: int = 7) -> LogSource:
    """A log segment of those records, in their order."""
    blocks = [records[first : first + per_block] for first in range(0, len(records), per_block)]
    bodies = [b"".join(map(frame, block)) for block in blocks]
    size = PAGE + sum(pages(64 + len(body)) for body in bodies)
    segment = LogSegment.create(directory, number, size, UUID, 1)
    info = ffi.new("dl_block *")
    position, found = PAGE, []
    for body in bodies:
        info.lsn, info.nonce, info.body_length = lsn_of(number, position), segment.nonce, len(body)
        segment.file.commit(bytearray((bytes(64) + body).ljust(pages(64 + len(body)), b"\0")), info, False)
        found.append((position + 64, len(body)))
        position += pages(64 + len(body))
    return LogSource(segment, found)


def frame(record: Record) -> bytes:
    length = len(record.extensions) + len(record.data)
    head = frame_head(record.kind, record.flags, record.stream, record.offset, length)
    return head + record.extensions + record.data


def appended(writes: Iterable[tuple[int, bytes]], starts: dict[int, int] | None = None) -> list[Record]:
    """Records of streams that begin at 0, or where ``starts`` says."""
    tails: dict[int, int] = defaultdict(int, starts or {})
    records = []
    for stream, data in writes:
        records.append(Record(stream, tails[stream], data))
        tails[stream] += len(data)
    return records


def contents(records: Iterable[Record]) -> dict[int, bytes]:
    """What the streams hold, each from its first record on."""
    found: dict[int, bytes] = defaultdict(bytes)
    for record in sorted(records, key=lambda one: (one.stream, one.offset)):
        found[record.stream] += record.data
    return dict(found)


# ---- the format


def encode_cluster(number: int, records: Iterable[Record], now_ms: int = 0) -> bytes:
    """The whole file that has to come out of those records."""
    nonce = nonce_of(UUID, number)
    rows = rows_of(records)
    payload = b"".join(record.data for row in rows for record in row)
    entries_position = PAGE + len(payload) + 48 * len(rows)
    table, entries, position = [], b"", PAGE
    for row in rows:
        length = sum(len(record.data) for record in row)
        units = encode_entries(nonce, row)
        size = sum(map(len, units))
        place = (length, row[0].stream, row[0].offset, position, entries_position + len(entries), size, len(row))
        table.append(sealed(nonce, struct.pack("<IQQQQII", *place)))
        starts = [sum(map(len, units[:chunk])) for chunk in range(1, len(units))]
        entries += b"".join(units) + struct.pack(f"<{len(starts)}I", *starts)
        position += length
    size = entries_position + len(entries) + 64
    count = sum(map(len, rows))
    places = (len(rows), count, len(payload), PAGE + len(payload), entries_position, size, 0)
    trailer = sealed(nonce, struct.pack("<4s7Q", b"CLST", *places))
    header = encode_file_header(FileHeader(KIND_CLUSTERED, number, UUID, nonce, size, now_ms))
    return b"".join((header, payload, *table, entries, trailer))


def rows_of(records: Iterable[Record]) -> list[list[Record]]:
    rows: list[list[Record]] = []
    for record in sorted(records, key=lambda one: (one.stream, one.offset)):
        last = rows[-1][-1] if rows else None
        if last is None or (last.stream, last.offset + len(last.data)) != (record.stream, record.offset):
            rows.append([])
        rows[-1].append(record)
    return rows


def encode_entries(nonce: int, row: list[Record]) -> list[bytes]:
    """The entry of each chunk of a row."""
    start = row[0].offset
    payload = b"".join(record.data for record in row)
    units = []
    for first in range(start, start + len(payload), CHUNK):
        chunk = payload[first - start : first - start + CHUNK]
        touching = [
            record for record in row if record.offset < first + len(chunk) and record.offset + len(record.data) > first
        ]
        ends = [record.offset + len(record.data) for record in touching]
        distances = [end - before for before, end in zip([first, *ends], ends, strict=False)]
        varints = b"".join(map(varint, distances))
        head = struct.pack("<IQQII", len(chunk), row[0].stream, first, max(0, first - touching[0].offset), len(varints))
        sums = [crc32c(nonce, chunk[at : at + PAGE]) for at in range(0, len(chunk), PAGE)]
        units.append(sealed(nonce, head + struct.pack(f"<{len(sums)}I", *sums) + varints))
    return units


def varint(value: int) -> bytes:
    digits = []
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])


def sealed(nonce: int, data: bytes) -> bytes:
    return struct.pack("<I", crc32c(nonce, data)) + data


# ---- files that can be damaged


def bytes_of(directory: Directory, name: str) -> bytes:
    file = directory.open(name)
    try:
        return file.read(0, file.size())
    finally:
        file.close()


def directory_with(name: str, content: bytes) -> MemoryDirectory:
    """A directory of one file."""
    directory = MemoryDirectory()
    file = MemoryFile(name)
    file.write(0, content)
    directory.files[name] = file
    return directory


class FailingDirectory(DiskDirectory):
    """A directory in which the operation number ``fails_at`` on a new file, or on its name, fails."""

    def __init__(self, path: str, fails_at: int) -> None:
        super().__init__(path)
        self.left = fails_at

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(28, "No space left on device")

    def create(self, name):
        file = super().create(name)
        write, sync = file.write, file.sync

        def failing_write(position, data):
            self.step()
            write(position, data)

        def failing_sync():
            self.step()
            sync()

        file.write, file.sync = failing_write, failing_sync
        return file

    def rename(self, old, new):
        self.step()
        super().rename(old, new)

    def sync(self):
        self.step()
        super().sync()
