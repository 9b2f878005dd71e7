"""What the records of one stream make of its index and its state: the loops in C beside plain ones of this page."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib

RECORD = struct.Struct("<QQQII")
DATA, TOUCH = 1, 4
CLOSE, PRODUCER, SEQ = lib.DL_FLAG_CLOSE, lib.DL_FLAG_PRODUCER, lib.DL_FLAG_SEQ
MANY = lib.DL_PRODUCERS_TOLD
LSN = 3 << 32


def record(offset: int, length: int, kind: int = DATA, flags: int = 0, producer: int = 0, place: int = LSN) -> tuple:
    skip = kind << lib.DL_RECORD_TYPE | flags << lib.DL_RECORD_FLAGS | producer << lib.DL_RECORD_PRODUCER | 24
    return 7, offset, place, skip, length


def memory_of(records: list[tuple]):
    memory = ffi.new("dl_record[]", len(records))
    ffi.memmove(memory, b"".join(RECORD.pack(*one) for one in records), len(records) * RECORD.size)
    return memory


def is_data(one: tuple) -> bool:
    return one[3] >> lib.DL_RECORD_TYPE == DATA


def flags_of(one: tuple) -> int:
    return one[3] >> lib.DL_RECORD_FLAGS & 7


# ---- stream bytes that follow each other


def entries(records: list[tuple], flags: int, end: int, end_max: int) -> list[tuple[int, int]]:
    pairs = ffi.new("uint8_t[]", 16 * len(records))
    done = lib.dl_replay_data(memory_of(records), len(records), flags, end, end_max, pairs)
    return list(struct.iter_unpack("<QQ", ffi.buffer(pairs, 16 * done)))


def test_records_that_follow_each_other_become_entries_of_the_index():
    records = [
        record(5, 2, place=LSN),
        record(7, 1, flags=PRODUCER | SEQ, place=LSN + 100),
        record(8, 9, place=LSN + 9),
    ]
    assert entries(records, CLOSE, 5, 17) == [(LSN, 7), (LSN + 100, 8), (LSN + 9, 17)]
    assert entries(records, CLOSE, 5, 16) == [(LSN, 7), (LSN + 100, 8)]
    assert entries([], 0, 5, 9) == []


@pytest.mark.parametrize(
    "stops",
    [
        record(6, 1, kind=TOUCH),
        record(6, 1, kind=0),
        record(6, 1, flags=CLOSE | SEQ),
        record(7, 1),
        record(5, 4),
        record(6, 0),
        record(6, 5),
    ],
    ids=["no data", "unknown", "flag", "gap", "overlap", "empty", "too far"],
)
def test_what_is_not_plain_ends_it(stops):
    assert entries([record(5, 1), stops, record(6, 1)], CLOSE, 5, 10) == [(LSN, 6)]


def test_an_end_behind_the_last_one_that_may_be_is_no_beginning():
    assert entries([record(11, 1)], 0, 11, 10) == []
    top = 2**64 - 1
    assert entries([record(top - 1, 1), record(top, 1)], 0, top - 1, top) == [(LSN, top)]


# ---- claims


def claims(records: list[tuple], tail: int) -> list[int]:
    found = ffi.new("uint64_t[]", len(records))
    return ffi.unpack(found, lib.dl_replay_claims(memory_of(records), len(records), tail, found)) if records else []


def expected_claims(records: list[tuple], tail: int) -> list[int]:
    told, many = {}, []
    for at, one in enumerate(records):
        if not is_data(one) or one[1] < tail:
            continue
        tail = one[1] + one[4]
        producer = one[3] >> lib.DL_RECORD_PRODUCER & MANY
        if flags_of(one) & PRODUCER:
            told[producer] = at
            many += [at] * (producer == MANY)
        if flags_of(one) & SEQ:
            told["seq"] = at
    return sorted({*told.values(), *many})


RECORDS = st.lists(
    st.builds(
        record,
        st.integers(0, 30),
        st.integers(0, 3),
        st.sampled_from([DATA, DATA, DATA, TOUCH]),
        st.integers(0, 7),
        st.sampled_from([0, 1, 2, MANY - 1, MANY]),
    ),
    max_size=30,
)


@given(RECORDS, st.integers(0, 10))
def test_the_last_claim_of_each_producer_is_found_and_the_last_sequence(records, tail):
    assert claims(records, tail) == expected_claims(records, tail)


def test_of_many_appends_of_one_producer_the_last_is_told():
    records = [record(at, 1, flags=PRODUCER, producer=5) for at in range(1000)]
    assert claims(records, 0) == [999]
    records[3] = record(3, 1, flags=PRODUCER | SEQ, producer=6)
    assert claims(records, 0) == [3, 999]


def test_of_producers_whose_numbers_are_too_great_to_be_told_all_claims_are():
    records = [record(at, 1, flags=PRODUCER, producer=MANY) for at in range(3)]
    assert claims(records, 0) == [0, 1, 2]


def test_what_overlaps_bytes_that_are_there_claims_nothing():
    records = [record(0, 5, flags=PRODUCER), record(2, 1, flags=PRODUCER | SEQ), record(4, 9, flags=SEQ)]
    assert claims(records, 0) == [0]
    assert claims(records, 1) == [1, 2]


# ---- times


def time_of(places: list[int], blocks: list[tuple[int, int]]) -> int:
    lsns, times = (ffi.from_buffer("uint64_t[]", array("Q", column)) for column in zip(*blocks, strict=True))
    records = [record(0, 1, place=place) for place in places]
    return lib.dl_replay_time(memory_of(records), len(records), lsns, times, len(blocks))


def test_the_time_is_the_latest_of_the_blocks_that_hold_the_records():
    blocks = [(100, 5), (200, 9), (300, 7), (400, 8)]
    assert [time_of([place], blocks) for place in (100, 199, 200, 299, 399, 400, 10**9)] == [5, 5, 9, 9, 7, 8, 8]
    assert time_of([110, 320, 450], blocks) == 8
    assert time_of([110, 220, 330], blocks) == 9
    assert time_of([], blocks) == 0


def test_without_blocks_there_is_no_time():
    nothing = ffi.new("uint64_t[]", 0)
    assert lib.dl_replay_time(memory_of([record(0, 1)]), 1, nothing, nothing, 0) == 0


# ---- records of some types


def test_records_of_some_types_are_picked_in_their_order():
    records = [record(at, 1, kind=kind) for at, kind in enumerate([DATA, TOUCH, 0, 2, TOUCH])]
    out = ffi.new("dl_record[]", len(records))
    assert lib.dl_records_pick(memory_of(records), len(records), 1 << TOUCH | 1 << 2, out) == 3
    assert [row[1] for row in RECORD.iter_unpack(ffi.buffer(out, 3 * RECORD.size))] == [1, 3, 4]


# ---- runs of an index


@pytest.mark.parametrize(("segments", "run"), [([], 0), ([1], 1), ([1, 1, 2, 1], 2), ([0, 0, 0], 3), ([1 << 31, 1], 1)])
def test_a_run_of_an_index_lies_in_one_file(segments, run):
    index = b"".join(struct.pack("<QQ", at, segment << 32 | at) for at, segment in enumerate(segments)) + bytes(8)
    memory = ffi.new("uint8_t[]", index)
    assert lib.dl_index_run(memory, len(segments)) == run
