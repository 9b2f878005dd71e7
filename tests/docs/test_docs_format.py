"""The page on the format says what is on disk: its example is decoded by the page alone, and encoded by the code."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from documents import text_of

from durable_log._core import ffi, lib
from durable_log.engine import format as codec
from durable_log.model import Options, Producer, StreamConfig

PAGE = text_of("docs/format.md")
UUID = bytes(range(16))
CREATED_MS = 1893456000000


def crc(seed, data):
    """As the page has it: CRC32C, reflected, continuing from a seed."""
    register = seed ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def example():
    """The bytes of the example by their positions: the header and the block."""
    between = PAGE.partition("<!-- example: begin -->")[2].partition("<!-- example: end -->")[0]
    image = bytearray(8192)
    for position, data in re.findall(r"^([0-9a-f]{6})  ((?:[0-9a-f]{2} ?){16})", between, re.MULTILINE):
        image[int(position, 16) : int(position, 16) + 16] = bytes.fromhex(data)
    return bytes(image[:4096]), bytes(image[4096:])


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    offset: int
    rest: bytes


def frames(body, position, nonce):
    """The frames of a body that stands at ``position``, each with a checksum that holds."""
    at = 0
    while at < len(body):
        checksum, length, kind, flags, high, low, offset = struct.unpack_from("<IIBBHIQ", body, at)
        end = at + 24 + length
        assert checksum == crc(nonce ^ (position + at), body[at + 4 : end])
        yield Frame(kind, flags, high << 32 | low, offset, body[at + 24 : end])
        at = end


def test_the_checksum_is_the_one_that_the_page_names():
    assert crc(0, b"123456789") == 0xE3069283
    assert crc(crc(7, b"1234"), b"56789") == crc(7, b"123456789")
    assert codec.crc32c(7, b"123456789") == crc(7, b"123456789")


def test_the_header_of_the_example_says_what_the_page_says():
    header, _ = example()
    magic, kind, version, *features, number, uuid, nonce, zero, size, created, after_lsn = struct.unpack_from(
        "<8sIIIIII16sIIQQQ", header
    )
    assert (magic, kind, version, features, number) == (b"DURALOG\n", 2, 1, [0, 0, 0], 1)
    assert (uuid, zero, size, created, after_lsn) == (UUID, 0, 4 * 2**20, CREATED_MS, 0)
    assert nonce == (crc(0, uuid) + number * 0x9E3779B1) % 2**32
    assert struct.unpack_from("<I", header, 80)[0] == crc(0, header[:80])
    assert not any(header[84:])


def test_the_block_of_the_example_says_what_the_page_says():
    header, block = example()
    nonce = struct.unpack_from("<I", header, 48)[0]
    magic, checksum, lsn, durable, previous, time_ms, length, records, body_crc, previous_crc, flags, zero = (
        struct.unpack_from("<4sIQQQQIIIIII", block)
    )
    assert (magic, lsn, durable, previous, previous_crc) == (b"DBLK", 1 << 32 | 4096, 1 << 32 | 4096, 0, 0)
    assert (time_ms, length, records, flags, zero) == (CREATED_MS, 143, 3, 0, 0)
    assert checksum == crc(nonce, block[8:64])
    assert body_crc == crc(nonce, block[64 : 64 + length])
    assert not any(block[64 + length :])
    create, producer, data = frames(block[64 : 64 + length], 4096 + 64, nonce)
    assert {frame[2:4] for frame in (create, producer, data)} == {(1, 0)}
    assert create[:2] == (2, 0)
    ttl, expires, created, *lengths = struct.unpack_from("<qqQHHH", create.rest)
    assert (ttl, expires, created, lengths) == (-1, -(2**63), CREATED_MS, [10, 1, 0])
    assert create.rest[30:] == b"text/plaina"
    assert (producer[:2], producer.rest) == ((5, 0), struct.pack("<I", 0) + b"p")
    assert (data[:2], data.rest) == ((1, 1 | 2), struct.pack("<IQQ", 0, 0, 0) + b"hello")


def test_the_code_writes_the_bytes_of_the_example():
    header, block = example()
    nonce = codec.nonce_of(UUID, 1)
    made = codec.encode_file_header(codec.FileHeader(codec.KIND_LOG, 1, UUID, nonce, 4 * 2**20, CREATED_MS))
    assert made == header
    create = codec.encode_create(codec.Creation("a", StreamConfig("text/plain"), CREATED_MS))
    producer = codec.encode_producer(0, "p")
    data = codec.encode_claim(0, Producer("p", 0, 0)) + b"hello"
    flags = codec.FLAG_CLOSE | codec.FLAG_PRODUCER
    body = b"".join(
        (
            codec.frame_head(codec.CREATE, 0, 1, 0, len(create)) + create,
            codec.frame_head(codec.PRODUCER, 0, 1, 0, len(producer)) + producer,
            codec.frame_head(codec.DATA, flags, 1, 0, len(data)) + data,
        )
    )
    sealed = bytearray(bytes(64) + body).ljust(4096, b"\0")
    info = ffi.new("dl_block *")
    info.lsn = info.durable_lsn = codec.lsn_of(1, 4096)
    info.time_ms, info.body_length, info.nonce = CREATED_MS, len(body), nonce
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", sealed), len(sealed), info) == lib.DL_OK
    assert sealed == block


def test_the_sizes_that_pages_name_are_those_of_the_code():
    options, mib = Options(), 2**20
    limits = text_of("docs/protocol.md")
    assert f"{options.record_bytes_max // mib} MiB (`Options.record_bytes_max`)" in limits
    assert f"{options.chunk_bytes_max // mib} MiB (`Options.chunk_bytes_max`)" in limits
    assert f"all others {options.segment_bytes // mib} (`Options.segment_bytes`)" in PAGE
    bounded = text_of("docs/ARCHITECTURE.md").partition("## What is bounded")[2]
    assert f"Staged bytes ({options.staged_bytes_max // mib} MiB" in bounded
    assert f"recent bytes ({options.recent_bytes_max // mib} MiB in all" in bounded
