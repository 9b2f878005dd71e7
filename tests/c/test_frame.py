"""Blocks and frames in C: what is sealed holds, and what is wrong with anything else is told before it is read."""

from __future__ import annotations

import struct
import time

import pytest

from durable_log._core import ffi, lib

NONCE = 0xBEEF
PAGE = 4096
LSN = 5 << 32 | PAGE
POSITION = PAGE
CLOSE, WITH_PRODUCER, WITH_SEQ = 1, 2, 4


def exactly(data: bytes):
    """Memory that ends where the bytes do, so that a sanitizer sees a read beyond them."""
    memory = ffi.new("uint8_t[]", max(1, len(data)))
    ffi.memmove(memory, data, len(data))
    return memory


def head(rest: bytes, flags: int = 0, stream: int = 7, offset: int = 0, kind: int = 1) -> bytes:
    """A frame without its checksum."""
    return struct.pack("<IIBBHIQ", 0, len(rest), kind, flags, stream >> 32, stream & 0xFFFFFFFF, offset) + rest


def sealed(*frames: bytes, lsn: int = LSN) -> bytes:
    body = b"".join(frames)
    block = bytearray((bytes(64) + body).ljust(-(-(64 + len(body)) // PAGE) * PAGE, b"\0"))
    info = ffi.new("dl_block *", {"lsn": lsn, "body_length": len(body), "nonce": NONCE})
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), len(block), info) == lib.DL_OK
    assert info.records == len(frames)
    return bytes(block)


def check(block: bytes, lsn: int = LSN, nonce: int = NONCE) -> int:
    return lib.dl_block_check(exactly(block), len(block), lsn, nonce, ffi.new("dl_block *"))


def scan(block: bytes, length: int, room: int = 10):
    rows, count, done = ffi.new("dl_frame[]", room), ffi.new("size_t *"), ffi.new("size_t *")
    body = block[64 : 64 + length]
    verdict = lib.dl_frames_scan(exactly(body), len(body), LSN + 64, NONCE, rows, room, count, done)
    return verdict, [rows[index] for index in range(count[0])], done[0]


@pytest.mark.parametrize(("size", "length"), [(PAGE - 1, 24), (0, 0), (PAGE, PAGE - 63), (PAGE, 2**32 - 1)], ids=str)
def test_a_body_that_does_not_fit_its_block_is_not_sealed(size, length):
    block = ffi.new("uint8_t[]", PAGE)
    info = ffi.new("dl_block *", {"lsn": LSN, "body_length": length, "nonce": NONCE})
    assert lib.dl_block_seal(block, size, info) == lib.DL_BAD_LENGTH


@pytest.mark.parametrize(
    "body", [head(b"abc")[:-1], head(b"abc") + bytes(23), head(b"abc") + b"\xff" * 24], ids=["cut", "short", "long"]
)
def test_a_body_that_is_no_frames_is_not_sealed(body):
    block = bytearray((bytes(64) + body).ljust(PAGE, b"\0"))
    info = ffi.new("dl_block *", {"lsn": LSN, "body_length": len(body), "nonce": NONCE})
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), PAGE, info) == lib.DL_BAD_FRAME


def changed(block: bytes, at: int) -> bytes:
    return block[:at] + bytes([block[at] ^ 1]) + block[at + 1 :]


def test_what_is_wrong_with_a_block_is_told():
    block = sealed(head(b"hello"))
    assert check(block) == check(block[: 64 + 29]) == lib.DL_OK
    assert check(block[:63]) == check(b"") == check(changed(block, 0)) == lib.DL_ABSENT
    for at in range(4, 64):
        assert check(changed(block, at)) == lib.DL_BAD_HEADER
    assert check(block, nonce=NONCE + 1) == lib.DL_BAD_HEADER
    assert check(block, lsn=LSN + PAGE) == lib.DL_BAD_LSN
    assert check(block[: 64 + 28]) == lib.DL_BAD_LENGTH
    for at in range(64, 64 + 29):
        assert check(changed(block, at)) == lib.DL_BAD_BODY


def test_a_frame_has_what_its_flags_say():
    claim, seq = struct.pack("<IQQ", 3, 4, 5), struct.pack("<H", 2) + b"ab"
    frames = [head(b"x", CLOSE), head(claim + seq + b"data", WITH_PRODUCER | WITH_SEQ), head(seq, WITH_SEQ)]
    verdict, rows, done = scan(sealed(*frames), sum(map(len, frames)))
    assert (verdict, done) == (lib.DL_OK, sum(map(len, frames)))
    assert [(row.payload, row.payload_length) for row in rows] == [(24, 1), (48, 4), (28, 0)]
    assert (rows[1].producer, rows[1].epoch, rows[1].producer_seq, rows[1].seq_length) == (3, 4, 5, 2)


@pytest.mark.parametrize(
    ("rest", "flags"),
    [
        (bytes(19), WITH_PRODUCER),
        (b"", WITH_PRODUCER),
        (b"\0", WITH_SEQ),
        (b"\x02\0a", WITH_SEQ),
        (struct.pack("<H", 1025) + bytes(1025), WITH_SEQ),
        (bytes(21), WITH_PRODUCER | WITH_SEQ),
    ],
    ids=["short claim", "no claim", "short length", "short seq", "long seq", "claim and no seq"],
)
def test_a_frame_that_holds_but_lacks_what_its_flags_say_is_bad(rest, flags):
    good, bad = head(b"good"), head(rest, flags)
    block = sealed(good, bad)
    verdict, rows, done = scan(block, len(good) + len(bad))
    assert (verdict, len(rows), done) == (lib.DL_BAD_FRAME, 1, len(good))
    assert gather(block, [(64 + 28, 0)], len(rest), (0, len(rest)))[::2] == (lib.DL_BAD_FRAME, 0)


def test_a_scan_stops_where_a_frame_is_not_whole_or_its_rows_are_full():
    block = sealed(head(b"one"), head(b"two"))
    assert scan(block, 54)[::2] == (lib.DL_OK, 54)
    assert scan(block, 53)[::2] == (lib.DL_BAD_FRAME, 27)
    assert scan(block, 30)[::2] == (lib.DL_BAD_FRAME, 27)
    assert scan(block, 54, room=1)[::2] == (lib.DL_NO_ROOM, 27)
    assert scan(changed(block, 64 + 27 + 25), 54)[::2] == (lib.DL_BAD_FRAME, 27)


def test_the_next_block_is_found_at_its_own_place_only():
    first, second = sealed(head(b"one")), sealed(head(b"two"), lsn=LSN + 2 * PAGE)
    content = first + bytes(PAGE) + second + first

    def find(start: int) -> int:
        return lib.dl_block_find(exactly(content), len(content), LSN, NONCE, start)

    assert [find(start) for start in (0, 1, PAGE, 2 * PAGE)] == [0, 2 * PAGE, 2 * PAGE, 2 * PAGE]
    assert [find(start) for start in (2 * PAGE + 1, 4 * PAGE, 4 * PAGE + 1, 2**40)] == [4 * PAGE] * 4


def next_frame(body: bytes, position: int, start: int) -> int:
    content, marks = exactly(body), ffi.new("uint32_t[]", len(body) // PAGE + 1)
    lib.dl_crc32c_marks(content, len(body), marks)
    return lib.dl_frame_find(content, len(body), marks, position, NONCE, start)


def test_the_next_frame_is_found_by_its_checksum():
    frames = [head(b"one"), head(b"two", kind=6), head(b"none", kind=7), head(b"none", flags=8), head(b"none", kind=0)]
    block = sealed(*frames)

    def find(start: int, length: int = len(block)) -> int:
        return next_frame(block[:length], LSN, start)

    assert (find(0), find(64), find(65), find(91)) == (64, 64, 91, 91)
    assert find(92) == find(PAGE) == PAGE, "types and flags that no frame has"
    assert (find(65, 91 + 27), find(65, 91 + 26)) == (91, 91 + 26)
    assert find(PAGE - 23) == PAGE


def test_a_payload_that_looks_like_long_frames_everywhere_is_searched_in_a_time_that_grows_as_it_does():
    """Summed one by one, they take minutes; whoever appends chooses the bytes, and each open would wait."""
    size = 2**23
    body = bytes((1, 0, size >> 17, 0)) * (size // 4)
    began = time.perf_counter()
    assert next_frame(body, LSN, 0) == size
    assert time.perf_counter() - began < 30


def test_the_next_frame_is_found_behind_long_ones_that_are_none():
    body = bytearray(bytes((1, 0, 1, 0)) * 50_000)
    frame = sealed(head(b"x" * 30_000), lsn=LSN + 70_001 - 64)[64 : 64 + 30_024]
    body[70_001:100_025] = frame
    assert next_frame(bytes(body), LSN, 0) == next_frame(bytes(body), LSN, 70_001) == 70_001
    assert next_frame(bytes(body), LSN, 70_002) == len(body)


def index_of(records: list[tuple[int, int]], end: int):
    numbers = [number for at, offset in records for number in (offset, LSN + at)]
    return exactly(struct.pack(f"<{len(numbers) + 1}Q", *numbers, end))


def gather(block: bytes, records: list[tuple[int, int]], end: int, span: tuple[int, int], stream: int = 7):
    """``records``: position in the block, offset."""
    out, done = ffi.new("uint8_t[]", span[1] - span[0]), ffi.new("size_t *")
    verdict = lib.dl_frames_gather(
        exactly(block), len(block), POSITION, NONCE, stream, index_of(records, end), len(records), *span, out, done
    )
    return verdict, bytes(ffi.buffer(out)), done[0]


THREE = sealed(head(b"abcd", offset=10), head(b"??", stream=8), head(b"efgh", offset=14), head(b"ij", offset=18))
PLACES = [(64, 10), (64 + 54, 14), (64 + 82, 18)]


def test_the_bytes_of_a_span_are_gathered_from_its_records():
    assert gather(THREE, PLACES, 20, (10, 20)) == (lib.DL_OK, b"abcdefghij", 3)
    assert gather(THREE, PLACES, 20, (12, 15)) == (lib.DL_OK, b"cde", 3)
    assert gather(THREE, PLACES[:1], 14, (13, 14)) == (lib.DL_OK, b"d", 1)


@pytest.mark.parametrize(
    ("places", "end", "stream", "verdict"),
    [
        ([(-1, 10)], 14, 7, lib.DL_BAD_LENGTH),
        ([(PAGE + 1, 10)], 14, 7, lib.DL_BAD_LENGTH),
        ([(PAGE - 5, 10)], 14, 7, lib.DL_BAD_LENGTH),
        ([(65, 10)], 14, 7, lib.DL_BAD_LENGTH),
        ([(200, 10)], 14, 7, lib.DL_BAD_FRAME),
        ([(64, 10)], 14, 8, lib.DL_BAD_FRAME),
        ([(64, 11)], 15, 7, lib.DL_BAD_FRAME),
        ([(64, 10)], 15, 7, lib.DL_BAD_FRAME),
        ([PLACES[0], (64 + 28, 14)], 16, 7, lib.DL_BAD_FRAME),
    ],
    ids=["before", "behind", "cut", "no frame", "zeroes", "stream", "offset", "end", "other stream"],
)
def test_an_index_that_lies_is_told(places, end, stream, verdict):
    found, _, done = gather(THREE, places, end, (10, 14), stream)
    assert (found, done) == (verdict, len(places) - 1)


EXTENSIONS_MAX = 20 + 2 + 1024
"""So much may stand between a frame's header and its payload."""


@pytest.mark.parametrize(
    ("records", "end", "size", "ahead", "length"),
    [
        ([], 0, PAGE, 0, None),
        ([(0, 0)], 10, 1, 1, 10),
        ([(0, 0), (40, 10), (80, 20)], 25, 80 + 24 + EXTENSIONS_MAX + 5, 3, 85),
        ([(0, 0), (40, 10), (80, 20)], 25, 80 + 24 + EXTENSIONS_MAX + 4, 2, 50),
        ([(40, 0), (80, 10), (80, 20)], 25, PAGE, 2, 50),
        ([(40, 0), (0, 10)], 25, PAGE, 1, 10),
    ],
    ids=["none", "larger than a piece", "all", "too far", "twice the same place", "backwards"],
)
def test_a_piece_is_records_that_stand_one_behind_the_other_and_as_long_as_they_may_be(
    records, end, size, ahead, length
):
    piece = ffi.new("uint64_t[2]")
    assert lib.dl_frames_ahead(index_of(records, end), len(records), size, piece) == ahead
    begins = POSITION + records[0][0] if records else 0
    assert list(piece) == [begins, 0 if length is None else length + 24 + EXTENSIONS_MAX]
