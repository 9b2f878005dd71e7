"""Clustered segments and jobs that lie in one respect each, under good checksums: it is told, and nothing is done."""

from __future__ import annotations

import random
import struct

import pytest
from test_cluster_rows import (
    HEAD,
    LONG,
    NONCE,
    PAGE,
    TAIL,
    Place,
    body_of,
    bounds,
    entry_of,
    guarded,
    long_entries,
    records_of,
    row_of,
    scan,
    sealed,
)

from durable_log._core import ffi, lib

CHUNK = lib.DL_CHUNK


# ---- surveys and indexes


def test_the_first_of_two_bodies_that_does_not_hold_ends_the_scan():
    body = body_of([(1, 0, b"ab")])
    damaged = body[:-1] + b"?"
    assert scan(damaged + body, 0, [0, 26, 26, 26])[::3] == (lib.DL_CLUSTER_FRAME, 0)


def test_a_body_beyond_four_gibibytes_is_not_there():
    assert scan(bytes(28), 2**32 - 10, [2**32 - 10, 28])[0] == lib.DL_CLUSTER_SHORT
    assert scan(bytes(28), 2**32 - 10, [2**32 - 10, 9])[0] == lib.DL_CLUSTER_FRAME


LOG = 2 << 32 | PAGE
OLD = 1 << 32 | PAGE


@pytest.mark.parametrize(
    ("places", "bounds_of"),
    [
        ([], (0, 0)),
        ([1 << 63, 1 << 63 | 7], (2, 2)),
        ([1 << 63, OLD, LOG], (1, 2)),
        ([OLD, OLD + 1], (0, 2)),
        ([0], None),
        ([OLD, 5], None),
        ([LOG, OLD], None),
        ([LOG, 1 << 63], None),
        ([OLD, 1 << 63, LOG], None),
    ],
    ids=str,
)
def test_an_index_is_clustered_then_old_then_new_entries(places, bounds_of):
    index = b"".join(struct.pack("<QQ", at, place) for at, place in enumerate(places)) + bytes(8)
    found = ffi.new("size_t[2]")
    is_index = lib.dl_index_bounds(guarded(index), len(index), LOG, found)
    assert (tuple(found) if is_index else None) == bounds_of
    assert not lib.dl_index_bounds(guarded(index), len(index) - 1, LOG, found)


# ---- entries


def test_no_entry_is_behind_the_end_of_its_row():
    entry = entry_of(100, b"\x64")
    found = lib.dl_entry_find(guarded(entry), len(entry), NONCE, 7, 1000, 1100, 1000 + CHUNK)
    assert found == len(entry)
    entries = entry + entry
    assert lib.dl_entry_find(guarded(entries), len(entries), NONCE, 7, 1000, 1100, 1101) == len(entries)


def test_an_offset_before_the_chunk_is_in_none_of_its_records():
    assert bounds(entry_of(100, b"\x64", before=5), 994)[0] == lib.DL_CLUSTER_ENTRY
    assert bounds(entry_of(100, b"\x64", before=5), 995)[0] == lib.DL_CLUSTER_OK


def test_a_record_that_begins_before_its_row_is_none():
    assert bounds(entry_of(100, b"\x64", before=10), 1000) == (lib.DL_CLUSTER_OK, 990, 1100)
    assert bounds(entry_of(100, b"\x64", before=11), 1000)[0] == lib.DL_CLUSTER_ENTRY


def test_a_record_that_ends_beyond_the_last_offset_is_none():
    start = 2**64 - 200
    entry = entry_of(100, b"\x64\xff\xff\x03", start=start)
    first, last = ffi.new("uint64_t *"), ffi.new("uint64_t *")

    def verdict(offset: int) -> int:
        return lib.dl_entry_bounds(guarded(entry), len(entry), NONCE, 7, start, start, start + 100, offset, first, last)

    assert verdict(start + 99) == lib.DL_CLUSTER_OK
    assert verdict(start + 100) == lib.DL_CLUSTER_ENTRY


# ---- verification


FIRST, SECOND = long_entries()[:100], long_entries()[100:]


def two_chunks(entries: bytes, index: int, **fields: int) -> Place:
    return Place(LONG, entries, struct.pack("<I", index), records=2, **fields)


def test_both_entries_are_where_they_should_be():
    assert (len(FIRST), HEAD + TAIL) == (32 + 64 + 4, LONG)
    assert two_chunks(FIRST + SECOND, 100).verify() == []


def test_a_gap_between_entries_is_told_though_the_index_leads_past_it():
    assert two_chunks(FIRST + bytes(9) + SECOND, 109).verify() == [lib.DL_CLUSTER_ORDER]


def test_a_gap_behind_the_last_entry_is_told():
    assert two_chunks(FIRST + SECOND + bytes(9), 100).verify() == [lib.DL_CLUSTER_ORDER]


def test_an_entry_that_nothing_leads_to_is_told():
    damaged = FIRST[:-1] + b"?"
    assert two_chunks(damaged + SECOND, 100).verify() == [lib.DL_CLUSTER_ENTRY]
    assert two_chunks(damaged + SECOND, 99).verify() == [lib.DL_CLUSTER_ENTRY, lib.DL_CLUSTER_ENTRY]
    assert two_chunks(damaged + SECOND, 5000).verify() == [lib.DL_CLUSTER_ENTRY, lib.DL_CLUSTER_ENTRY]
    assert two_chunks(FIRST + SECOND, 99).verify() == [lib.DL_CLUSTER_INDEX]


@pytest.mark.parametrize("left", [0, 20, 48, 100, 148, 152, 180, 187, 190])
def test_a_file_that_became_shorter_is_told_wherever_it_ends(left, tmp_path):
    place = two_chunks(FIRST + SECOND, 100)
    end = place.entries_position - 48 + left
    path = tmp_path / "short"
    path.write_bytes(bytes(ffi.buffer(place.keep[0]))[:end])
    with path.open("rb") as file:
        place.source = (file.fileno(), NONCE, 1, ffi.NULL, *place.source[4:])
        assert place.verify()[-1] == lib.DL_CLUSTER_SHORT
        assert place.copy()[0] == (lib.DL_CLUSTER_SHORT if left < 187 else lib.DL_CLUSTER_OK), "it needs no index"


def test_stream_bytes_that_are_not_there_are_told(tmp_path):
    place = two_chunks(FIRST + SECOND, 100, payload=300_000)
    path = tmp_path / "short"
    path.write_bytes(bytes(ffi.buffer(place.keep[0])))
    with path.open("rb") as file:
        place.source = (file.fileno(), NONCE, 1, ffi.NULL, 400_000, *place.source[5:])
        assert place.verify() == [lib.DL_CLUSTER_ORDER, lib.DL_CLUSTER_SHORT]


def test_verifying_needs_room_for_faults():
    walk, faults = ffi.new("dl_walk *"), ffi.new("dl_fault[]", 31)
    assert lib.dl_cluster_verify(walk, faults, 31, ffi.new("size_t *")) == lib.DL_CLUSTER_ROOM


def test_much_is_verified_in_slices():
    payload = random.Random(1).randbytes(18 * CHUNK)
    entries = [
        entry_of(CHUNK, b"\x80\x80\x04", start=1000 + at, payload=payload[at : at + CHUNK])
        for at in range(0, len(payload), CHUNK)
    ]
    size = len(entries[0])
    index = struct.pack("<17I", *(size * chunk for chunk in range(1, 18)))
    place = Place(payload, b"".join(entries), index, records=18)
    assert place.verify() == []
    assert place.copy() == (lib.DL_CLUSTER_OK, payload)


# ---- jobs


def whole_chunk() -> Place:
    return Place(HEAD, entry_of(CHUNK, b"\x80\x80\x04", payload=HEAD))


def test_a_row_may_end_with_a_whole_chunk():
    assert whole_chunk().verify() == []
    assert whole_chunk().copy() == (lib.DL_CLUSTER_OK, HEAD)


class Job:
    """One copy of one record, with memory of the least size."""

    def __init__(self, source: tuple, record: tuple[int, ...], stage: bytes = b"") -> None:
        self.c = job = ffi.new("dl_cluster *")
        sizes = {"payload": CHUNK, "entries": 3 * lib.DL_ENTRY_MAX + 4 * lib.DL_ROW_CHUNKS, "rows": lib.DL_ROW}
        windows = [ffi.new("uint8_t[]", size) for size in (CHUNK, lib.DL_ENTRY_MAX, lib.DL_ROW)]
        outputs = {name: ffi.new("uint8_t[]", size) for name, size in sizes.items()}
        self.keep = [windows, outputs, ffi.new("dl_source[]", [source]), records_of([record])[0], guarded(stage)]
        index = ffi.new("uint32_t[]", lib.DL_ROW_CHUNKS)
        self.keep.append(index)
        for name, size in sizes.items():
            output = getattr(job, name)
            output.bytes, output.size = outputs[name], size
        job.reader = tuple(zip(windows, (CHUNK, lib.DL_ENTRY_MAX, lib.DL_ROW), strict=True))
        job.sources, job.sources_count, job.records, job.records_count = self.keep[2], 1, self.keep[3], 1
        job.stage, job.stage_size, job.records_staged, job.index = self.keep[4], len(stage), 1, index
        job.nonce, job.plan.row_max = NONCE, 2**31

    def copy(self) -> int:
        return lib.dl_cluster_copy(self.c)


STAGED = body_of([(7, 40, b"stream bytes")], 200)
LOG_SOURCE = (-1, NONCE, 0, ffi.NULL, 0, 0, 0)
HONEST = (7, 40, 200, 24, 12)


def test_a_frame_on_the_stage_is_copied():
    job = Job(LOG_SOURCE, HONEST, STAGED)
    assert job.copy() == lib.DL_CLUSTER_OK
    assert bytes(ffi.buffer(job.c.payload.bytes, job.c.payload.used)) == b"stream bytes"


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        ((8, 40, 200, 24, 12), lib.DL_CLUSTER_FRAME),
        ((7, 41, 200, 24, 12), lib.DL_CLUSTER_FRAME),
        ((7, 40, 201, 24, 12), lib.DL_CLUSTER_FRAME),
        ((7, 40, 200, 25, 11), lib.DL_CLUSTER_FRAME),
        ((7, 40, 200, 24, 11), lib.DL_CLUSTER_FRAME),
        ((7, 40, 200, 24, 13), lib.DL_CLUSTER_ROOM),
        ((7, 40, 200, 24, 0), lib.DL_CLUSTER_ORDER),
        ((7, 40, 1 << 32 | 200, 24, 12), lib.DL_CLUSTER_ORDER),
    ],
    ids=["stream", "offset", "place", "payload", "shorter", "longer", "empty", "source"],
)
def test_a_record_that_lies_of_its_frame_is_not_copied(record, verdict):
    job = Job(LOG_SOURCE, record, STAGED)
    assert (job.copy(), job.c.payload.used, job.c.fault.verdict) == (verdict, 0, verdict)


def test_a_frame_of_two_is_none():
    two = body_of([(7, 40, b"one"), (7, 43, b"two")], 200)
    assert Job(LOG_SOURCE, (7, 40, 200, 24, 30), two).copy() == lib.DL_CLUSTER_FRAME


def test_a_frame_of_another_type_is_not_copied():
    other = body_of([(7, 40, b"stream bytes")], 200, kind=2)
    assert Job(LOG_SOURCE, HONEST, other).copy() == lib.DL_CLUSTER_FRAME


def test_a_frame_whose_extension_is_longer_than_its_record_says_is_not_copied():
    head = struct.pack("<IBBHIQ", 14, 1, 4, 0, 7, 40)
    with_seq = sealed(head + b"\x05\0abcdestream!", NONCE ^ 200)
    assert Job(LOG_SOURCE, (7, 40, 200, 31, 7), with_seq).copy() == lib.DL_CLUSTER_OK
    assert Job(LOG_SOURCE, (7, 40, 200, 30, 8), with_seq).copy() == lib.DL_CLUSTER_FRAME


def row_source(row: bytes) -> tuple:
    place = Place(b"x" * 100, entry_of(100, b"\x64", payload=b"x" * 100), b"")
    content = bytearray(ffi.buffer(place.keep[0]))
    content[PAGE + 100 : PAGE + 148] = row
    memory = guarded(bytes(content))
    return (-1, NONCE, 1, memory, len(content), PAGE + 100, 1), memory


GOOD_ROW = row_of(entries=PAGE + 148, entries_length=37)


def test_a_row_is_copied():
    source, memory = row_source(GOOD_ROW)
    job = Job(source, (7, 1000, 0, 0, 100))
    job.keep.append(memory)
    assert job.copy() == lib.DL_CLUSTER_OK
    assert bytes(ffi.buffer(job.c.payload.bytes, job.c.payload.used)) == b"x" * 100


@pytest.mark.parametrize(
    ("row", "record", "verdict"),
    [
        (GOOD_ROW, (7, 1000, 1, 0, 100), lib.DL_CLUSTER_SHORT),
        (GOOD_ROW[:-1] + b"?", (7, 1000, 0, 0, 100), lib.DL_CLUSTER_ROW),
        (row_of(payload=2**40), (7, 1000, 0, 0, 100), lib.DL_CLUSTER_ROW),
        (GOOD_ROW, (8, 1000, 0, 0, 100), lib.DL_CLUSTER_ROW),
        (GOOD_ROW, (7, 1001, 0, 0, 99), lib.DL_CLUSTER_ROW),
        (GOOD_ROW, (7, 1000, 0, 0, 99), lib.DL_CLUSTER_ROW),
    ],
    ids=["number", "checksum", "payload", "stream", "offset", "end"],
)
def test_a_record_that_lies_of_its_row_is_not_copied(row, record, verdict):
    source, memory = row_source(row)
    job = Job(source, record)
    job.keep.append(memory)
    assert (job.copy(), job.c.payload.used) == (verdict, 0)


def test_a_job_that_cannot_be_is_refused():
    job = Job(LOG_SOURCE, HONEST, STAGED)
    job.c.plan.row_max = 2**32
    assert job.copy() == lib.DL_CLUSTER_ROOM
    job.c.plan.row_max, job.c.stage_at = 2**31, len(STAGED) + 1
    assert job.copy() == lib.DL_CLUSTER_ROOM


def test_nothing_is_copied_before_it_is_staged():
    job = Job(LOG_SOURCE, HONEST, STAGED)
    job.c.records_staged = 0
    assert (job.copy(), job.c.records_done) == (lib.DL_CLUSTER_MORE, 0)
    job.c.records_staged = 1
    assert (job.copy(), job.c.records_done) == (lib.DL_CLUSTER_OK, 1)
