"""CRC-32C: published vectors, a bit-by-bit oracle, and both ways of computing it against each other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib

POLYNOMIAL = 0x82F63B78
WAYS = [lib.dl_crc32c, lib.dl_crc32c_portable]
WAY_NAMES = ["chosen", "portable"]
PAGE = 4096
LONG = random.Random(33).randbytes(40_000)
SAMPLE = random.Random(32).randbytes(3 * 4080 + 400)


def prefix_sums(data: bytes, crc: int = 0) -> list[int]:
    """The sums of data[:0], data[:1], …, one bit at a time."""
    state = crc ^ 0xFFFFFFFF
    sums = [crc]
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (POLYNOMIAL if state & 1 else 0)
        sums.append(state ^ 0xFFFFFFFF)
    return sums


SUMS = prefix_sums(SAMPLE)

ISCSI_READ = bytes.fromhex(
    "01c00000 00000000 00000000 00000000 14000000 00000400 00000014 00000018 28000000 00000000 02000000 00000000"
)
VECTORS = {
    "check value": (b"123456789", 0xE3069283),
    "nothing": (b"", 0),
    "one byte": (b"a", 0xC1D04330),
    "RFC 3720 zeros": (bytes(32), 0x8A9136AA),
    "RFC 3720 ones": (b"\xff" * 32, 0x62A8AB43),
    "RFC 3720 rising": (bytes(range(32)), 0x46DD794E),
    "RFC 3720 falling": (bytes(range(31, -1, -1)), 0x113FDB5C),
    "RFC 3720 read command": (ISCSI_READ, 0xD9963A56),
}


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize(("data", "crc"), VECTORS.values(), ids=VECTORS)
def test_published_vectors(way, data, crc):
    assert way(0, data, len(data)) == crc


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize("misaligned", range(9))
def test_every_short_length_at_every_alignment(way, misaligned):
    memory = ffi.new("uint8_t[]", 300 + misaligned)
    for length in range(301):
        ffi.memmove(memory + misaligned, SAMPLE, length)
        assert way(0, memory + misaligned, length) == SUMS[length]


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
@pytest.mark.parametrize("around", [256, 384, 512, 768, 1024, 4080, 4096, 4464, 8160, 12240, 12624])
def test_lengths_around_the_lanes(way, around):
    memory = ffi.new("uint8_t[]", SAMPLE)
    for length in range(around - 17, min(around + 17, len(SAMPLE)) + 1):
        assert way(0, memory, length) == SUMS[length]


@pytest.mark.parametrize("way", WAYS, ids=WAY_NAMES)
def test_a_seed_is_where_the_sum_starts(way):
    for seed in (1, 0x12345678, 0xFFFFFFFF):
        sums = prefix_sums(SAMPLE[:5000], seed)
        for length in (0, 1, 7, 8, 63, 64, 400, 4080, 5000):
            assert way(seed, SAMPLE, length) == sums[length]


@given(st.binary(max_size=2000), st.data(), st.integers(0, 2**32 - 1))
def test_a_sum_continues_where_another_ended(data, draw, seed):
    cut = draw.draw(st.integers(0, len(data)))
    for first in WAYS:
        for second in WAYS:
            head = first(seed, data[:cut], cut)
            assert second(head, data[cut:], len(data) - cut) == lib.dl_crc32c_portable(seed, data, len(data))


@given(st.integers(0, 20000), st.integers(0, 15), st.integers(0, 2**32 - 1), st.integers(0, 255))
def test_both_ways_agree(length, misaligned, seed, fill):
    memory = ffi.new("uint8_t[]", length + misaligned)
    pattern = (SAMPLE[fill:] + bytes([fill]))[: max(1, length)]
    ffi.memmove(memory, (pattern * (len(memory) // len(pattern) + 1))[: len(memory)], len(memory))
    assert lib.dl_crc32c(seed, memory + misaligned, length) == lib.dl_crc32c_portable(seed, memory + misaligned, length)


def marks_of(data: bytes):
    marks = ffi.new("uint32_t[]", len(data) // PAGE + 1)
    lib.dl_crc32c_marks(data, len(data), marks)
    return marks


@given(st.integers(0, 40_000), st.data(), st.integers(0, 2**32 - 1))
def test_the_sum_of_a_range_is_that_of_its_bytes(length, draw, seed):
    data = LONG[:length]
    to = draw.draw(st.integers(0, length))
    start = draw.draw(st.integers(0, to))
    expected = lib.dl_crc32c_portable(seed, data[start:to], to - start)
    assert lib.dl_crc32c_range(seed, data, marks_of(data), start, to) == expected


@pytest.mark.parametrize("length", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 1, 9 * PAGE])
def test_ranges_begin_and_end_anywhere_about_pages(length):
    data, around = LONG[:length], (0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, length - 1, length)
    marks = marks_of(data)
    for start in around:
        for to in around:
            if start <= to <= length:
                expected = lib.dl_crc32c_portable(7, data[start:to], to - start)
                assert lib.dl_crc32c_range(7, data, marks, start, to) == expected, (start, to)


@pytest.mark.parametrize("power", range(12, 28))
def test_a_register_is_moved_past_any_power_of_two(power):
    data = bytes(2**power + 1) + b"x"
    expected = lib.dl_crc32c(5, data[1:], len(data) - 1)
    assert lib.dl_crc32c_range(5, data, marks_of(data), 1, len(data)) == expected


def test_one_changed_bit_changes_the_sum():
    length = 512
    intact = lib.dl_crc32c(0, SAMPLE, length)
    for bit in range(8 * length):
        damaged = bytearray(SAMPLE[:length])
        damaged[bit // 8] ^= 1 << bit % 8
        assert lib.dl_crc32c(0, bytes(damaged), length) != intact


def test_the_processor_has_nothing_or_an_instruction_or_wide_products():
    assert lib.dl_crc32c_hardware() in (0, 1, 2)
