"""Byte layouts of everything that is not a block: file headers, the heads of frames, the payloads of their types.

Law of this room: pure functions from values to bytes and back. No I/O, no state. Blocks and checksums of frames are
``csrc/frame.c``; the picture of a segment is ``csrc/durable_log.h``, the whole of it ``docs/format.md``. Any thread.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.errors import UnsupportedFormat
from durable_log.model import Producer, StreamConfig

PAGE: Final = 4096
BLOCK_HEADER: Final = 64
FRAME_HEADER: Final = 24

DATA: Final = 1
CREATE: Final = 2
DELETE: Final = 3
TOUCH: Final = 4
PRODUCER: Final = 5
TRIM: Final = 6

FLAG_CLOSE: Final = 1
FLAG_PRODUCER: Final = 2
FLAG_SEQ: Final = 4

BLOCK_CLEAN: Final = 1
"""Flag of a block: the store was closed in good order after it."""

FILE_MAGIC: Final = b"DURALOG\n"
FORMAT_VERSION: Final = 1
KIND_MANIFEST: Final = 1
KIND_LOG: Final = 2
KIND_CLUSTERED: Final = 3
KIND_RUN: Final = 4

_FILE_HEADER: Final = struct.Struct("<8sIIIIII16sIIQQQ")
_FRAME: Final = struct.Struct("<IIBBHIQ")
_CLAIM: Final = struct.Struct("<IQQ")
_CREATE: Final = struct.Struct("<qqQHHH")
_PAIR: Final = struct.Struct("<QQ")
_TOUCH: Final = struct.Struct("<Q")
_NUMBER: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<H")
_NEVER: Final = -(2**63)

FRAME_ROW: Final = struct.Struct("=QQQQQIIIHBB")
"""``dl_frame``: stream, offset, position, epoch, seq, producer, payload, payload length, seq length, type, flags."""


def lsn_of(segment: int, position: int) -> int:
    """The LSN of a position in a log segment."""
    return segment << 32 | position


def segment_of(lsn: int) -> int:
    """The number of the log segment that an LSN lies in."""
    return lsn >> 32


def position_of(lsn: int) -> int:
    """The position of an LSN in its log segment, in bytes."""
    return lsn & 0xFFFFFFFF


def pages(size: int) -> int:
    """``size`` rounded up to whole pages, in bytes."""
    return (size + PAGE - 1) // PAGE * PAGE


class FileHeader(NamedTuple):
    """The first page of every file of a store. ``size`` is the file's full length in bytes, 0 if it grows.

    ``after_lsn`` is set in a log segment that begins behind a cut: the log before it ends with the block at that LSN.
    """

    kind: int
    number: int
    uuid: bytes
    nonce: int
    size: int
    created_ms: int
    after_lsn: int = 0


def nonce_of(uuid: bytes, number: int) -> int:
    """The seed of a segment's checksums: unguessable, and of every segment number another.

    The step is odd, so all 2^32 numbers of a store give different nonces, and what an earlier life of a recycled
    file left behind never verifies: for equal bytes, CRCs with different seeds always differ.
    """
    return (crc32c(0, uuid) + number * 0x9E3779B1) & 0xFFFFFFFF


def crc32c(seed: int, data: bytes) -> int:
    """CRC32C of ``data`` with the register starting from ``seed``."""
    return int(lib.dl_crc32c(seed, ffi.from_buffer(data), len(data)))


def encode_file_header(header: FileHeader) -> bytes:
    """One page. Its CRC is not seeded: it is what tells the seed."""
    page = _FILE_HEADER.pack(
        FILE_MAGIC, header.kind, FORMAT_VERSION, 0, 0, 0, header.number, header.uuid, header.nonce, 0,
        header.size, header.created_ms, header.after_lsn,
    )  # fmt: skip
    return (page + struct.pack("<I", crc32c(0, page))).ljust(PAGE, b"\0")


def decode_file_header(file: str, page: bytes) -> FileHeader | None:
    """The header in a file's first page, or None if there is none that verifies.

    Raises :class:`UnsupportedFormat` if a newer version wrote it: an unknown version or feature bit.
    """
    if len(page) < _FILE_HEADER.size + 4 or page[:8] != FILE_MAGIC:
        return None
    stored = struct.unpack_from("<I", page, _FILE_HEADER.size)[0]
    if crc32c(0, page[: _FILE_HEADER.size]) != stored:
        return None
    fields = _FILE_HEADER.unpack_from(page)
    _, kind, version, _compat, ro_compat, incompat, number, uuid, nonce, _, size, created, after_lsn = fields
    if version != FORMAT_VERSION:
        raise UnsupportedFormat(file, f"version {version}", f"version {FORMAT_VERSION}")
    if ro_compat or incompat:
        raise UnsupportedFormat(file, f"features {ro_compat:#x}/{incompat:#x}", "none of them")
    return FileHeader(kind, number, uuid, nonce, size, created, after_lsn)


def frame_head(kind: int, flags: int, stream: int, offset: int, length: int) -> bytes:
    """The 24 bytes before a frame's extensions and payload; the checksum is filled in when the block is sealed."""
    return _FRAME.pack(0, length, kind, flags, stream >> 32, stream & 0xFFFFFFFF, offset)


def encode_claim(producer_number: int, producer: Producer) -> bytes:
    """The producer extension of a frame."""
    return _CLAIM.pack(producer_number, producer.epoch, producer.seq)


def encode_seq(seq: bytes) -> bytes:
    """The Stream-Seq extension of a frame."""
    return _LENGTH.pack(len(seq)) + seq


def stored_time(seconds: float | None) -> float | None:
    """A time as it comes back from the log, which keeps milliseconds."""
    return None if seconds is None else round(seconds * 1000) / 1000


class Ancestor(NamedTuple):
    """A fork's bytes below ``end`` (and from the end of the ancestor before it on) are those of stream ``number``."""

    number: int
    end: int


class Creation(NamedTuple):
    """A CREATE frame. ``source`` is the number of the stream that it was forked from, 0 if it is no fork; its own
    bytes begin at ``base``. ``ancestors`` hold the bytes before that, in order.
    """

    name: str
    config: StreamConfig
    created_ms: int
    source: int = 0
    base: int = 0
    ancestors: tuple[Ancestor, ...] = ()


def encode_create(creation: Creation) -> bytes:
    """The payload of a CREATE frame."""
    config = creation.config
    ttl = -1 if config.ttl is None else config.ttl
    expires = _NEVER if config.expires_at is None else round(config.expires_at * 1000)
    content_type, name = config.content_type.encode(), creation.name.encode()
    count = len(creation.ancestors) + 1 if creation.source else 0
    head = _CREATE.pack(ttl, expires, creation.created_ms, len(content_type), len(name), count)
    pairs = [_PAIR.pack(creation.source, creation.base), *(_PAIR.pack(*ancestor) for ancestor in creation.ancestors)]
    return b"".join((head, content_type, name, *pairs[:count]))


def _check_length(payload: bytes, length: int, what: str) -> None:
    if len(payload) != length:
        raise ValueError(f"the payload of {what} frame has {len(payload)} bytes, not {length}")


def decode_create(payload: bytes) -> Creation:
    """What a CREATE frame says. Raises ``ValueError`` if it is none."""
    start = _CREATE.size
    _check_length(payload[:start], start, "a CREATE")
    ttl, expires, created_ms, type_length, name_length, count = _CREATE.unpack_from(payload)
    _check_length(payload, start + type_length + name_length + count * _PAIR.size, "a CREATE")
    content_type = payload[start : start + type_length].decode()
    start += type_length
    name = payload[start : start + name_length].decode()
    start += name_length
    pairs = [_PAIR.unpack_from(payload, start + index * _PAIR.size) for index in range(count)]
    config = StreamConfig(content_type, None if ttl < 0 else ttl, None if expires == _NEVER else expires / 1000)
    source, base = pairs[0] if pairs else (0, 0)
    return Creation(name, config, created_ms, source, base, tuple(Ancestor(*pair) for pair in pairs[1:]))


def encode_touch(touched_ms: int) -> bytes:
    """The payload of a TOUCH frame."""
    return _TOUCH.pack(touched_ms)


def decode_touch(payload: bytes) -> int:
    """The time of a TOUCH frame, in ms. Raises ``ValueError`` if it is none."""
    _check_length(payload, _TOUCH.size, "a TOUCH")
    return int(_TOUCH.unpack_from(payload)[0])


def encode_producer(number: int, producer_id: str) -> bytes:
    """The payload of a PRODUCER frame: from here on, ``number`` stands for this id in the stream's claims."""
    return _NUMBER.pack(number) + producer_id.encode("utf-8", "surrogatepass")


def decode_producer(payload: bytes) -> tuple[int, str]:
    """Number and id of a PRODUCER frame. Raises ``ValueError`` if it is none."""
    _check_length(payload[: _NUMBER.size], _NUMBER.size, "a PRODUCER")
    return _NUMBER.unpack_from(payload)[0], payload[_NUMBER.size :].decode("utf-8", "surrogatepass")
