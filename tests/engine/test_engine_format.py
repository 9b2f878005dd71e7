"""Byte layouts against the oracle and against themselves; blocks and frames of the C core in both directions."""

from __future__ import annotations

import random
import struct
from typing import Any
from unittest.mock import patch

import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib
from durable_log.engine import format as layout
from durable_log.engine import segment as segment_room
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.segment import LogSegment, read_rows, survey
from durable_log.errors import UnsupportedFormat
from durable_log.model import Producer, StreamConfig

UUID = bytes(range(16))
INT = st.integers(0, 2**53 - 1)
FRAMES = st.lists(
    st.builds(
        oracle.Frame,
        kind=st.integers(1, 5),
        stream=st.integers(1, 2**48 - 1),
        offset=st.integers(0, 2**64 - 1),
        payload=st.binary(max_size=300),
        close=st.booleans(),
        claim=st.none() | st.tuples(st.integers(0, 2**32 - 1), INT, INT),
        seq=st.none() | st.binary(max_size=40),
    ),
    max_size=8,
)


def segment(number: int = 1, size: int = 64 * 1024) -> LogSegment:
    return LogSegment.create(MemoryDirectory(), number, size, UUID, 0)


def sealed(block: oracle.OracleBlock, nonce: int) -> bytes:
    """The block as the C core makes it of frames without checksums."""
    body = b"".join(b"\xee\xee\xee\xee" + frame.encode(0, 0)[4:] for frame in block.frames)
    raw = bytearray(bytes(64) + body).ljust(layout.pages(64 + len(body)), b"\xee")
    info: Any = ffi.new("dl_block *")
    info.lsn, info.durable_lsn, info.previous_lsn = block.lsn, block.durable_lsn, block.previous_lsn
    info.previous_crc, info.time_ms, info.flags = block.previous_crc, block.time_ms, block.flags
    info.body_length, info.nonce = len(body), nonce
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", raw), len(raw), info) == lib.DL_OK
    return bytes(raw)


@given(FRAMES, st.integers(0, 2**32 - 1), st.integers(0, 2**40))
def test_the_core_seals_what_the_oracle_encodes(frames, nonce, time_ms):
    block = oracle.OracleBlock(1 << 32 | 4096, frames, 7, 5, 3, time_ms)
    assert sealed(block, nonce) == block.encode(nonce)


@given(FRAMES)
def test_what_the_engine_writes_the_oracle_reads(frames):
    block = oracle.OracleBlock(1 << 32 | 4096, frames, 7, 5, 3, 1)
    found = oracle.decode_block(sealed(block, 99), block.lsn, 99)
    assert found._replace(header_crc=0) == block


@given(FRAMES)
def test_what_the_oracle_writes_the_engine_reads(frames):
    made = segment()
    block = oracle.OracleBlock(layout.lsn_of(1, 4096), frames, 7, 0, 0, 1234)
    made.file.write(4096, block.encode(made.nonce))
    (found,) = survey(made)
    assert (found.lsn, found.durable_lsn, found.time_ms, found.whole) == (block.lsn, 7, 1234, True)
    assert found.end == block.lsn + oracle.size_of(block)
    rows = read_rows(made, found)
    assert len(rows.rows) == len(frames)
    for row, frame in zip(rows.rows, frames, strict=True):
        assert (row[0], row[1], row[9]) == (frame.stream, frame.offset, frame.kind)
        assert rows.payload(row) == frame.payload
        assert bool(row[10] & layout.FLAG_CLOSE) is frame.close
        if frame.claim is not None:
            assert (row[5], row[3], row[4]) == frame.claim
        if frame.seq is not None:
            assert rows.seq(row) == frame.seq


def test_every_flipped_bit_of_a_block_is_noticed():
    made = segment()
    frames = [oracle.Frame(1, 5, 0, b"payload", True, (1, 2, 3), b"seq"), oracle.Frame(2, 6, 0, b"x")]
    good = oracle.OracleBlock(layout.lsn_of(1, 4096), frames).encode(made.nonce)
    covered = 64 + sum(len(frame.encode(0, 0)) for frame in frames)
    for position in range(covered):
        for bit in range(8):
            bad = bytearray(good)
            bad[position] ^= 1 << bit
            made.file.write(4096, bytes(bad))
            assert [block.whole for block in survey(made)] in ([], [False]), (position, bit)


def test_a_block_whose_length_reaches_beyond_the_segment_is_not_whole():
    made = segment(size=64 * 1024)
    block = oracle.OracleBlock(layout.lsn_of(1, 60 * 1024), [oracle.Frame(1, 1, 0, b"x" * 8000)]).encode(made.nonce)
    made.file.write(60 * 1024, block)
    assert [found.whole for found in survey(made)] == [False]


SIZES = st.lists(st.one_of(st.integers(0, 500), st.sampled_from([4000, 4008, 4009, 8000, 30_000])), max_size=8)


@given(SIZES, st.lists(st.integers(4096, 100_000), max_size=2), st.integers(1, 5), st.booleans())
def test_blocks_are_found_wherever_the_pieces_end_in_which_a_segment_is_read(sizes, damage, pages, reaches_end):
    made, at = segment(size=160 * 1024), 4096
    for size in sizes:
        block = oracle.OracleBlock(layout.lsn_of(1, at), [oracle.Frame(1, 1, 0, b"x" * size)] * (size > 0))
        raw = sealed(block, made.nonce)
        made.file.write(at, raw)
        at += len(raw)
    for position in damage:
        made.file.write(position, b"?")
    if reaches_end:
        made.file.write(160 * 1024 - 1, b"\0")
    with patch.object(segment_room, "_WINDOW", 2**20):
        at_once = survey(made)
    with patch.object(segment_room, "_WINDOW", pages * 4096):
        assert survey(made) == at_once
    assert damage or len(at_once) == len(sizes)


@given(
    st.text(min_size=1, max_size=40),
    st.none() | st.integers(0, 2**53),
    st.none() | st.integers(0, 2**40).map(lambda ms: ms / 1000),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60),
    st.integers(0, 2**50),
)
def test_creations_come_back_as_they_were(name, ttl, expires_at, content_type, created_ms):
    creation = layout.Creation(name, StreamConfig(content_type, ttl, expires_at), created_ms)
    assert layout.decode_create(layout.encode_create(creation)) == creation


@given(st.integers(1, 2**48), st.integers(0, 2**60), st.lists(st.tuples(st.integers(1, 2**48), st.integers(0, 2**60))))
def test_creations_of_forks_come_back_as_they_were(source, base, ancestors):
    owners = tuple(layout.Ancestor(*ancestor) for ancestor in ancestors)
    creation = layout.Creation("fork", StreamConfig("text/plain"), 5, source, base, owners)
    assert layout.decode_create(layout.encode_create(creation)) == creation


@given(st.integers(0, 2**32 - 1), st.text(st.characters(), min_size=1, max_size=40))
def test_producers_come_back_as_they_were(number, name):
    assert layout.decode_producer(layout.encode_producer(number, name)) == (number, name)


def test_touches_and_claims_and_sequences_are_laid_out_as_the_oracle_reads_them():
    assert layout.decode_touch(layout.encode_touch(2**50)) == 2**50
    assert layout.encode_claim(7, Producer("p", 8, 9)) == struct.pack("<IQQ", 7, 8, 9)
    assert layout.encode_seq(b"abc") == b"\x03\x00abc"
    head = layout.frame_head(1, 3, 2**48 - 1, 2**64 - 2, 77)
    assert head == struct.pack("<IIBB", 0, 77, 1, 3) + b"\xff" * 6 + struct.pack("<Q", 2**64 - 2)


def test_lsns_are_a_segment_and_a_position():
    for number, position in ((0, 0), (1, 4096), (2**31, 2**32 - 4096)):
        lsn = layout.lsn_of(number, position)
        assert (layout.segment_of(lsn), layout.position_of(lsn)) == (number, position)


@pytest.mark.parametrize(("size", "rounded"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192)])
def test_sizes_are_rounded_up_to_pages(size, rounded):
    assert layout.pages(size) == rounded


HEADER = layout.FileHeader(layout.KIND_LOG, 7, UUID, 0xDEADBEEF, 2**26, 123)


def test_a_file_header_comes_back_as_it_was():
    page = layout.encode_file_header(HEADER)
    assert len(page) == 4096
    assert layout.decode_file_header("f", page) == HEADER
    assert oracle.nonce_in(page) == 0xDEADBEEF


def test_a_file_header_with_any_flipped_bit_is_none():
    page = layout.encode_file_header(HEADER)
    for position in range(len(page.rstrip(b"\0"))):
        for bit in (0, 7):
            bad = bytearray(page)
            bad[position] ^= 1 << bit
            assert layout.decode_file_header("f", bytes(bad)) is None
    for size in (0, 8, 75):
        assert layout.decode_file_header("f", page[:size]) is None
    assert layout.decode_file_header("f", bytes(4096)) is None


@pytest.mark.parametrize(("at", "value", "supported"), [(12, 2, False), (16, 9, True), (20, 1, False), (24, 1, False)])
def test_newer_versions_and_features_are_refused_unless_they_are_compatible(at, value, supported):
    page = bytearray(layout.encode_file_header(HEADER))
    struct.pack_into("<I", page, at, value)
    crc_at = len(layout.encode_file_header(HEADER).rstrip(b"\0")) - 4
    assert (
        oracle.crc32c(0, layout.encode_file_header(HEADER)[:crc_at])
        == struct.unpack_from("<I", layout.encode_file_header(HEADER), crc_at)[0]
    )
    struct.pack_into("<I", page, crc_at, oracle.crc32c(0, bytes(page[:crc_at])))
    if supported:
        assert layout.decode_file_header("f", bytes(page)) == HEADER
    else:
        with pytest.raises(UnsupportedFormat):
            layout.decode_file_header("f", bytes(page))


def test_every_segment_has_a_seed_of_its_own():
    seeds = {layout.nonce_of(UUID, number) for number in range(1, 10_000)}
    assert len(seeds) == 9999


def test_random_bytes_are_no_blocks():
    made, chance = segment(), random.Random(1)
    made.file.write(4096, chance.randbytes(60 * 1024))
    assert survey(made) == []
