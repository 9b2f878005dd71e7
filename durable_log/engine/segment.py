"""One log segment: a file of blocks.

Law of this room: how a segment file is made, checked, written and surveyed. A segment is made under a temporary name
and renamed when its header is durable, so a file named ``*.log`` always has one. Blocks are written by the holder of
the commit lock, in order, never twice at one place. Which blocks count is not decided here but in ``recovery``.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import Directory, File, discard
from durable_log.engine.format import (
    BLOCK_CLEAN,
    BLOCK_HEADER,
    FRAME_ROW,
    KIND_LOG,
    PAGE,
    FileHeader,
    decode_file_header,
    encode_file_header,
    lsn_of,
    nonce_of,
    pages,
    position_of,
)

RESERVE: Final = 16 * PAGE
FIRST_SIZE: Final = 4 * 2**20
_WINDOW: Final = 2**20
_NAME: Final = re.compile(r"([0-9a-f]{8})\.log")
TEMPORARY: Final = ".tmp"


def segment_name(number: int) -> str:
    """The file name of a log segment."""
    return f"{number:08x}.log"


def segment_number(name: str) -> int | None:
    """The number in a log segment's file name, or None if it is no such name."""
    match = _NAME.fullmatch(name)
    return None if match is None else int(match[1], 16)


def size_of_segment(number: int, full: int, needed: int = 0) -> int:
    """Young stores have small segments: 4 MiB, 16 MiB, then full ones; larger if appends need to reach further."""
    return max(min(full, FIRST_SIZE << 2 * min(number - 1, 8)), pages(needed + min(RESERVE, needed // 7)) + PAGE)


class LogSegment:
    """An open log segment. ``size`` is how far blocks may reach, in bytes."""

    def __init__(self, file: File, header: FileHeader) -> None:
        self.file = file
        self.number = header.number
        self.nonce = header.nonce
        self.size = header.size
        self.after_lsn = header.after_lsn
        self._header = header
        self.end = PAGE
        """Where the last block that counts ends. Blocks behind it, if there are any, are void."""
        self.bodies = array("Q")
        """Of each block that counts and holds frames: where they begin, and how many bytes they are; of a damaged one,
        of each piece that holds.
        """
        self.last: tuple[int, int] | None = None
        """LSN and checksum of the last block that counts."""
        self.damaged = False

    @classmethod
    def create(cls, directory: Directory, number: int, size: int, uuid: bytes, now_ms: int) -> LogSegment:
        """A new, durable, empty segment. Raises ``OSError``; what it began is removed then."""
        header = FileHeader(KIND_LOG, number, uuid, nonce_of(uuid, number), size, now_ms)
        name = segment_name(number)
        file = directory.create(name + TEMPORARY)
        try:
            file.write(0, encode_file_header(header))
            if directory.grows_in_place:
                file.fill_with_zeroes(size)
            file.sync()
            directory.rename(name + TEMPORARY, name)
            directory.sync()
        except OSError:
            file.close()
            discard(directory, name, name + TEMPORARY)
            raise
        file.name = name
        return cls(file, header)

    @property
    def usable(self) -> int:
        """How far appends may reach; the rest is for deletions and marks, so that a full disk can be cleared."""
        return self.size - min(RESERVE, self.size // 8 // PAGE * PAGE)

    def begin_after(self, lsn: int) -> None:
        """Say durably, in a segment that is still empty, that the log before it ends with the block at ``lsn``.

        What else stands behind that block is void from then on. Raises ``OSError``.
        """
        self._header = self._header._replace(after_lsn=lsn)
        self.after_lsn = lsn
        self.file.write(0, encode_file_header(self._header))
        self.file.sync()

    def recycle(self, directory: Directory, number: int, now_ms: int) -> LogSegment:
        """Make this file, which nobody needs any more, the empty segment ``number``. Raises ``OSError``.

        Its old blocks stay where they are and never verify again: their checksums were seeded otherwise.
        """
        uuid = self._header.uuid
        header = FileHeader(KIND_LOG, number, uuid, nonce_of(uuid, number), self.size, now_ms)
        name = segment_name(number)
        directory.rename(self.file.name, name + TEMPORARY)
        self.file.name = name + TEMPORARY
        self.file.write(0, encode_file_header(header))
        self.file.sync()
        directory.rename(name + TEMPORARY, name)
        self.file.name = name
        directory.sync()
        return LogSegment(self.file, header)

    @classmethod
    def open(cls, directory: Directory, name: str, uuid: bytes) -> LogSegment | None:
        """The segment in that file, or None if its header does not verify or is that of another store.

        Raises ``OSError``, and :class:`UnsupportedFormat` if a newer version wrote it.
        """
        file = directory.open(name)
        try:
            header = decode_file_header(name, file.read(0, PAGE))
        except BaseException:
            file.close()
            raise
        expected = (KIND_LOG, segment_number(name), uuid)
        if header is None or (header.kind, header.number, header.uuid) != expected:
            file.close()
            return None
        return cls(file, header)

    @classmethod
    def open_by_name(cls, directory: Directory, name: str, uuid: bytes) -> LogSegment:
        """The segment that should be in that file: all that reading it takes of its header follows from its name.

        Blocks of another store or number do not verify in it. It must not be written to. Raises ``OSError``.
        """
        number = segment_number(name)
        assert number is not None, name
        file = directory.open(name)
        try:
            size = file.size()
        except BaseException:
            file.close()
            raise
        return cls(file, FileHeader(KIND_LOG, number, uuid, nonce_of(uuid, number), size, 0))

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Block(NamedTuple):
    """A block that was found in a segment. ``whole``: its body verifies, too."""

    lsn: int
    end: int
    durable_lsn: int
    previous_lsn: int
    previous_crc: int
    header_crc: int
    time_ms: int
    body_length: int
    clean: bool
    whole: bool


class Rows(NamedTuple):
    """The frames of a block that verify, as ``dl_frame`` rows, and their bytes from ``position`` in the file on."""

    rows: list[tuple[int, ...]]
    body: bytes
    position: int

    def payload(self, row: tuple[int, ...]) -> bytes:
        """The payload of one of the rows."""
        start = row[2] - self.position + row[6]
        return self.body[start : start + row[7]]

    def spans(self) -> list[tuple[int, int]]:
        """Position and length of what the rows' frames occupy, in one piece where they follow each other."""
        found: list[tuple[int, int]] = []
        for row in self.rows:
            position, length = row[2], row[6] + row[7]
            if found and sum(found[-1]) == position:
                found[-1] = found[-1][0], found[-1][1] + length
            else:
                found.append((position, length))
        return found

    def seq(self, row: tuple[int, ...]) -> bytes:
        """The Stream-Seq of one of the rows."""
        end = row[2] - self.position + row[6]
        return self.body[end - row[8] : end]


def survey(segment: LogSegment) -> list[Block]:
    """Every block whose header verifies at its place, in order, whatever lies between them."""
    found: list[Block] = []
    position, needed = PAGE, 0
    while position < segment.size:
        asked = min(max(needed, _WINDOW), segment.size - position)
        content = segment.file.read(position, asked)
        if not content:
            break
        more = len(content) == asked < segment.size - position
        position, needed = _survey_piece(segment, content, position, found, more=more)
    return found


def _survey_piece(
    segment: LogSegment, content: bytes, position: int, found: list[Block], *, more: bool
) -> tuple[int, int]:
    """Take up the blocks in ``content``, which is the file from ``position`` on. Returns where to go on, and how many
    bytes are needed there at least: of a block that goes on where the content ends, if there is ``more`` of the file.
    """
    view, length = ffi.from_buffer("uint8_t[]", content), len(content)
    lsn, info = lsn_of(segment.number, position), ffi.new("dl_block *")
    at = lib.dl_block_find(view, length, lsn, segment.nonce, 0)
    while at < length:
        verdict = lib.dl_block_check(view + at, length - at, lsn + at, segment.nonce, info)
        if verdict == lib.DL_BAD_LENGTH and more:
            return position + at, pages(BLOCK_HEADER + info.body_length)
        block = _block(info, lsn + at, verdict == lib.DL_OK)
        found.append(block)
        at += pages(BLOCK_HEADER + block.body_length) if block.whole else PAGE
        if at < length:
            at = lib.dl_block_find(view, length, lsn, segment.nonce, at)
    return position + at, 0


def bodies_of(segment: LogSegment, block: Block) -> Iterable[tuple[int, int]]:
    """Position and length of a block's frames, if it has any; of a damaged block, of each piece that holds."""
    if not block.whole:
        return read_rows(segment, block).spans()
    return ((position_of(block.lsn) + BLOCK_HEADER, block.body_length),) if block.body_length else ()


def _block(info: Any, lsn: int, whole: bool) -> Block:
    end = lsn + pages(BLOCK_HEADER + info.body_length)
    return Block(
        lsn, end, info.durable_lsn, info.previous_lsn, info.previous_crc, info.header_crc, info.time_ms,
        info.body_length, bool(info.flags & BLOCK_CLEAN), whole,
    )  # fmt: skip


def read_rows(segment: LogSegment, block: Block) -> Rows:
    """The frames of a block; of a damaged one, all that still verify."""
    position = (block.lsn & 0xFFFFFFFF) + BLOCK_HEADER
    body = segment.file.read(position, block.body_length)
    view, length, nonce = ffi.from_buffer("uint8_t[]", body), len(body), segment.nonce
    rows_max = length // lib.DL_FRAME_HEADER + 1
    rows = ffi.new("dl_frame[]", rows_max)
    count, bytes_read = ffi.new("size_t *"), ffi.new("size_t *")
    found: list[tuple[int, ...]] = []
    at, marks = 0, ffi.NULL
    while at < length:
        lib.dl_frames_scan(view + at, length - at, position + at, nonce, rows, rows_max, count, bytes_read)
        found += FRAME_ROW.iter_unpack(ffi.buffer(rows, count[0] * FRAME_ROW.size))
        at += bytes_read[0]
        if at < length:
            if not marks:
                marks = ffi.new("uint32_t[]", length // PAGE + 1)
                lib.dl_crc32c_marks(view, length, marks)
            at = lib.dl_frame_find(view, length, marks, position, nonce, at + 1)
    return Rows(found, body, position)
