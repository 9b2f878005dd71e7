"""A plain-Python codec of blocks and frames, written from the picture in csrc/durable_log.h: the oracle for the C one.

Nothing of the package is used here, so that a mistake in it can't hide in its own mirror.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

PAGE = 4096
MAGIC = 0x4B4C4244
CLOSE, WITH_PRODUCER, WITH_SEQ = 1, 2, 4
DATA, CREATE, DELETE, TOUCH, PRODUCER = 1, 2, 3, 4, 5

_HEADER = struct.Struct("<IIQQQQIIIIII")
_FRAME = struct.Struct("<IIBBHIQ")


def _table() -> list[int]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc32c(seed: int, data: bytes) -> int:
    state = seed ^ 0xFFFFFFFF
    for byte in data:
        state = _TABLE[(state ^ byte) & 0xFF] ^ state >> 8
    return state ^ 0xFFFFFFFF


class Frame(NamedTuple):
    kind: int
    stream: int
    offset: int
    payload: bytes = b""
    close: bool = False
    claim: tuple[int, int, int] | None = None
    seq: bytes | None = None

    def encode(self, nonce: int, position: int) -> bytes:
        """The frame as it stands at ``position`` in its file."""
        flags, rest = CLOSE if self.close else 0, b""
        if self.claim is not None:
            flags |= WITH_PRODUCER
            rest += struct.pack("<IQQ", *self.claim)
        if self.seq is not None:
            flags |= WITH_SEQ
            rest += struct.pack("<H", len(self.seq)) + self.seq
        rest += self.payload
        head = _FRAME.pack(0, len(rest), self.kind, flags, self.stream >> 32, self.stream & 0xFFFFFFFF, self.offset)
        covered = head[4:] + rest
        return struct.pack("<I", crc32c(nonce ^ position & 0xFFFFFFFF, covered)) + covered


class OracleBlock(NamedTuple):
    lsn: int
    frames: list[Frame]
    durable_lsn: int = 0
    previous_lsn: int = 0
    previous_crc: int = 0
    time_ms: int = 0
    flags: int = 0
    header_crc: int = 0

    def encode(self, nonce: int) -> bytes:
        body = b""
        for frame in self.frames:
            body += frame.encode(nonce, self.lsn + 64 + len(body))
        header = _HEADER.pack(
            MAGIC, 0, self.lsn, self.durable_lsn, self.previous_lsn, self.time_ms, len(body), len(self.frames),
            crc32c(nonce, body), self.previous_crc, self.flags, 0,
        )  # fmt: skip
        header = header[:4] + struct.pack("<I", crc32c(nonce, header[8:])) + header[8:]
        return (header + body).ljust(-(-(64 + len(body)) // PAGE) * PAGE, b"\0")


class NotABlock(Exception):
    """Why the bytes are no block."""


def decode_frame(raw: bytes, at: int, nonce: int, position: int) -> tuple[Frame, int]:
    """The frame at ``at`` of bytes that stand at ``position`` in their file, and where it ends."""
    crc, length, kind, flags, high, low, offset = _FRAME.unpack_from(raw, at)
    end = at + 24 + length
    if end > len(raw) or crc32c(nonce ^ (position + at) & 0xFFFFFFFF, raw[at + 4 : end]) != crc:
        raise NotABlock(f"frame at {at}")
    start, claim, seq = at + 24, None, None
    if flags & WITH_PRODUCER:
        claim = struct.unpack_from("<IQQ", raw, start)
        start += 20
    if flags & WITH_SEQ:
        size = struct.unpack_from("<H", raw, start)[0]
        seq = raw[start + 2 : start + 2 + size]
        start += 2 + size
    return Frame(kind, high << 32 | low, offset, raw[start:end], bool(flags & CLOSE), claim, seq), end


def decode_block(raw: bytes, lsn: int, nonce: int) -> OracleBlock:
    if len(raw) < 64 or raw[:4] != struct.pack("<I", MAGIC):
        raise NotABlock("magic")
    _, crc, at, durable, previous, time_ms, length, records, body_crc, previous_crc, flags, zero = _HEADER.unpack_from(
        raw
    )
    if crc32c(nonce, raw[8:64]) != crc or at != lsn or zero:
        raise NotABlock("header")
    body = raw[64 : 64 + length]
    if len(body) != length or crc32c(nonce, body) != body_crc:
        raise NotABlock("body")
    frames, position = [], 0
    while position < length:
        frame, position = decode_frame(body, position, nonce, lsn + 64)
        frames.append(frame)
    if len(frames) != records:
        raise NotABlock("records")
    return OracleBlock(lsn, frames, durable, previous, previous_crc, time_ms, flags, crc)


def size_of(block: OracleBlock) -> int:
    return len(block.encode(0))


def decode_segment(raw: bytes, number: int, nonce: int) -> list[OracleBlock]:
    """The blocks of a segment in their order, up to the first place where none is."""
    blocks, at = [], PAGE
    while at < len(raw):
        try:
            block = decode_block(raw[at:], number << 32 | at, nonce)
        except NotABlock:
            break
        blocks.append(block)
        at += size_of(block)
    return blocks


def encode_segment(number: int, nonce: int, bodies: Iterable[list[Frame]], time_ms: int = 0) -> bytes:
    """Chained blocks as they stand after a segment's header page, each of which says that all before it is durable."""
    raw, previous_lsn, previous_crc, at = b"", 0, 0, PAGE
    for frames in bodies:
        lsn = number << 32 | at
        encoded = OracleBlock(lsn, frames, lsn, previous_lsn, previous_crc, time_ms).encode(nonce)
        previous_lsn, previous_crc = lsn, struct.unpack_from("<I", encoded, 4)[0]
        raw += encoded
        at += len(encoded)
    return raw


def nonce_in(page: bytes) -> int:
    """The nonce in a segment's file header: magic 8, six words, UUID 16, nonce 4."""
    return int(struct.unpack_from("<I", page, 48)[0])
