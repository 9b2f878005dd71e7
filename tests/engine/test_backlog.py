"""The loops over records that wait for their stream: collecting every frame, finding a stream's; and over indexes."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left

import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib
from durable_log.engine import index as index_room
from durable_log.engine.index import LOST, add_place, clustered_place, is_lost, new_index, places_of, replaced

NONCE = 0xFEED
BEGIN = 3 * 4096
RECORD = struct.Struct("<QQQII")
NUMBERS = st.one_of(st.integers(0, 1025), st.integers(0, 2**32 - 1))
FRAMES = st.builds(
    oracle.Frame,
    st.integers(1, lib.DL_TYPE_MAX + 2),
    st.one_of(st.integers(0, 5), st.integers(0, 2**48 - 1)),
    st.integers(0, 2**40),
    st.binary(max_size=40),
    st.booleans(),
    st.one_of(st.none(), st.tuples(NUMBERS, st.integers(0, 2**53), st.integers(0, 2**53))),
    st.one_of(st.none(), st.binary(max_size=9)),
)
BODIES = st.lists(st.lists(FRAMES, max_size=5), max_size=5)


def skip_of(frame, flags, payload):
    kind = frame.kind if frame.kind <= lib.DL_TYPE_MAX else 0
    producer = min(frame.claim[0], 1023) if frame.claim else 0
    return kind << 29 | flags << 26 | producer << 16 | payload


def laid_out(bodies):
    """Bodies one behind the other, with gaps; (position, length) of each; what a scan has to find."""
    content, blocks, expected = bytearray(), [], []
    for body in bodies:
        begin = len(content)
        for frame in body:
            position = BEGIN + len(content)
            raw = frame.encode(NONCE, position)
            payload = len(raw) - len(frame.payload)
            expected.append(
                (frame.stream, frame.offset, 7 << 32 | position, skip_of(frame, raw[9], payload), len(frame.payload))
            )
            content += raw
        blocks.append((BEGIN + begin, len(content) - begin))
        content += b"gap"
    return bytes(content), blocks, expected


def scanned(content, blocks, room):
    memory = ffi.new("uint8_t[]", len(content))
    ffi.memmove(memory, content, len(content))
    pairs = ffi.from_buffer("uint64_t[]", array("Q", [part for block in blocks for part in block]))
    records, count, bad = ffi.new("dl_record[]", max(1, room)), ffi.new("size_t *"), ffi.new("uint64_t *")
    verdict = lib.dl_records_scan_all(
        memory, len(content), BEGIN, NONCE, 7, pairs, len(blocks), records, room, count, bad
    )
    return verdict, list(RECORD.iter_unpack(ffi.buffer(records, count[0] * RECORD.size))), bad[0]


@given(BODIES)
def test_every_frame_is_collected_with_its_type_flags_and_lsn(bodies):
    content, blocks, expected = laid_out(bodies)
    assert scanned(content, blocks, len(expected))[:2] == (lib.DL_CLUSTER_OK, expected)


def test_what_there_is_no_room_for_or_does_not_verify_is_told():
    content, blocks, expected = laid_out([[oracle.Frame(1, 5, 0, b"one")], [oracle.Frame(3, 6, 3)]])
    assert scanned(content, blocks, 1)[:2] == (lib.DL_CLUSTER_ROOM, expected[:1])
    damaged = bytearray(content)
    damaged[blocks[1][0] - BEGIN + 8] ^= 1
    assert scanned(damaged, blocks, 9) == (lib.DL_CLUSTER_FRAME, expected[:1], blocks[1][0])
    assert scanned(content, [(BEGIN, len(content) + 1)], 9)[0] == lib.DL_CLUSTER_SHORT
    assert scanned(content, [(BEGIN - 1, 4)], 9)[0] == lib.DL_CLUSTER_SHORT


def records_of(rows):
    memory = ffi.new("dl_record[]", max(1, len(rows)))
    ffi.memmove(memory, b"".join(RECORD.pack(*row) for row in rows), len(rows) * RECORD.size)
    return memory


@given(st.lists(st.integers(0, 7), max_size=40), st.integers(0, 255))
def test_records_of_some_types_are_picked_in_their_order(kinds, wanted):
    rows = [(1, index, 0, kind << 29 | 0x1FFFFFFF, 0) for index, kind in enumerate(kinds)]
    out = ffi.new("dl_record[]", max(1, len(rows)))
    count = lib.dl_records_pick(records_of(rows), len(rows), wanted, out)
    found = list(RECORD.iter_unpack(ffi.buffer(out, count * RECORD.size)))
    assert found == [row for row in rows if wanted >> (row[3] >> 29) & 1]


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(0, 10))
def test_the_records_of_a_stream_are_found_among_sorted_ones(drawn, wanted):
    streams = sorted(drawn)
    memory = records_of([(stream, 0, 0, 0, 0) for stream in streams])
    assert lib.dl_records_find(memory, len(streams), wanted) == bisect_left(streams, wanted)
    found = ffi.new("uint64_t[]", max(1, len(streams)))
    count = lib.dl_records_streams(memory, len(streams), found)
    assert ffi.unpack(found, count) == sorted(set(streams))


# ---- indexes

BELOW = 9 << 32
LOGGED = 8 << 32
PLACES = st.one_of(
    st.just(LOST),
    st.builds(clustered_place, st.integers(1, 9), st.integers(0, 9)),
    st.integers(1 << 32, 2 * BELOW),
)


def index_of(start, entries):
    made = new_index(start)
    end = start
    for length, place in entries:
        end += length
        add_place(made, end, place)
    return made


@given(st.integers(0, 100), st.lists(st.tuples(st.integers(1, 50), PLACES), max_size=12), st.data())
def test_an_index_is_replaced_in_c_as_it_is_in_python(start, entries, data):
    index = index_of(start, entries)
    gone = [entry for entry in places_of(index) if entry[2] < BELOW and not is_lost(entry[2])]
    kept = data.draw(st.sampled_from([gone, gone[1:], gone[:1]]))
    rows = [(first, last, clustered_place(77, number)) for number, (first, last, _) in enumerate(kept)]
    before = bytes(index)
    assert replaced(index, BELOW, rows) == index_room._replaced(index, BELOW, rows)
    assert bytes(index) == before


@pytest.mark.parametrize(
    ("places", "bounds"),
    [
        ([], (0, 0)),
        ([clustered_place(1, 1)], (1, 1)),
        ([clustered_place(1, 1), LOGGED, LOGGED + 1, BELOW, BELOW + 1], (1, 3)),
        ([LOGGED, clustered_place(1, 1)], None),
        ([LOST], None),
        ([LOST + 7], None),
        ([BELOW, LOGGED], None),
    ],
)
def test_only_an_index_in_the_usual_order_has_bounds(places, bounds):
    raw, found = index_of(0, [(10, place) for place in places]), ffi.new("size_t[2]")
    usual = lib.dl_index_bounds(ffi.from_buffer("uint8_t[]", raw), len(raw), BELOW, found)
    assert (tuple(found) if usual else None) == bounds


def test_bytes_that_are_no_index_have_no_bounds():
    assert lib.dl_index_bounds(ffi.new("uint8_t[]", 16), 16, BELOW, ffi.new("size_t[2]")) == 0
