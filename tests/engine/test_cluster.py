"""Clustered segments: the file's bytes, what is read from them, and what damage does to them."""

from __future__ import annotations

import errno
import random
import struct
from array import array
from itertools import pairwise

import pytest
from cluster_files import (
    CHUNK,
    PAGE,
    UUID,
    FailingDirectory,
    Record,
    appended,
    bytes_of,
    contents,
    directory_with,
    encode_cluster,
    nothing,
    rows_of,
    sealed,
    write_log,
)
from hypothesis import given
from hypothesis import strategies as st

from durable_log.engine.cluster import ClusteredSegment, cluster_name, cluster_number
from durable_log.engine.cluster_build import LogSource, RowSource, rewrite_clustered, write_clustered
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.format import (
    CREATE,
    FLAG_CLOSE,
    FLAG_PRODUCER,
    FLAG_SEQ,
    KIND_LOG,
    FileHeader,
    encode_file_header,
    encode_seq,
    nonce_of,
)
from durable_log.errors import Corruption, UnsupportedFormat

NAME = "00000009.seg"
NO_DESCRIPTOR = 10**6
SIZES = st.one_of(st.integers(1, 300), st.sampled_from([4095, 4096, 4097, 65535, 65536, 65537, 70000, 140000]))
WRITES = st.lists(st.tuples(st.sampled_from([1, 2, 3, 2047, 2048, 5_000_000]), SIZES), min_size=1, max_size=30)


@pytest.fixture(params=["memory", "disk"])
def directory(request, tmp_path):
    return MemoryDirectory() if request.param == "memory" else DiskDirectory(tmp_path / "store")


def filled(sizes: list[tuple[int, int]], seed: int = 1) -> list[tuple[int, bytes]]:
    rng = random.Random(seed)
    return [(stream, rng.randbytes(size)) for stream, size in sizes]


def build(directory, records: list[Record], number: int = 9, **options) -> ClusteredSegment | None:
    return write_clustered(directory, number, UUID, [write_log(directory, 1, records)], pause=nothing, **options)


def everything(segment: ClusteredSegment) -> array:
    return array("Q", range(segment.rows_count))


def held(segment: ClusteredSegment) -> list[tuple[int, int, bytes]]:
    rows = [segment.row(index) for index in range(segment.rows_count)]
    return [(row.stream, row.start, segment.read(row, row.start, row.end)) for row in rows]


def expected(records: list[Record]) -> list[tuple[int, int, bytes]]:
    return [(row[0].stream, row[0].offset, b"".join(one.data for one in row)) for row in rows_of(records)]


# ---- the file


@given(WRITES)
def test_the_file_is_byte_for_byte_what_the_format_says(sizes):
    records = appended(filled(sizes))
    directory = MemoryDirectory()
    build(directory, records, now_ms=1234)
    assert bytes_of(directory, NAME) == encode_cluster(9, records, 1234)


def test_a_file_on_disk_is_the_same_as_in_memory(directory):
    records = appended(filled([(stream % 5, 1 + 997 * stream) for stream in range(100)]))
    segment = build(directory, records)
    assert bytes_of(directory, NAME) == encode_cluster(9, records)
    assert segment.verify() == []
    segment.close()


def test_opening_finds_what_was_written(directory):
    records = appended(filled([(7, 100), (3, 70_000), (7, 200)]))
    written = build(directory, records)
    opened = ClusteredSegment.open(directory, NAME)
    assert (opened.number, opened.rows_count, opened.payload_bytes) == (9, 2, 70_300)
    assert (opened.header, opened.trailer) == (written.header, written.trailer)
    assert held(opened) == expected(records)
    assert directory.names() == ["00000001.log", NAME]
    for segment in (written, opened):
        segment.close()


def test_a_small_stream_costs_less_than_a_hundred_bytes():
    segment = build(MemoryDirectory(), appended(filled([(stream, 100) for stream in range(1000)])))
    assert segment.trailer.size - PAGE - 64 - segment.payload_bytes == 1000 * 85


def test_names_and_numbers_are_each_other():
    assert cluster_name(0xABC) == "00000abc.seg"
    assert cluster_number("00000abc.seg") == 0xABC
    assert cluster_number("00000abc.log") is None
    assert cluster_number("00000abc.seg.tmp") is None


# ---- what goes in


def test_only_records_with_payload_go_in():
    extensions = struct.pack("<IQQ", 5, 6, 7) + encode_seq(b"seq")
    records = [
        Record(1, 0, b"config", kind=CREATE),
        Record(1, 0, b"with extensions", flags=FLAG_PRODUCER | FLAG_SEQ, extensions=extensions),
        Record(1, 15, b"plain"),
        Record(1, 20, b"", flags=FLAG_CLOSE),
    ]
    segment = build(MemoryDirectory(), records)
    assert held(segment) == [(1, 0, b"with extensionsplain")]
    assert segment.trailer.records == segment.row(0).records == 2


def test_blocks_that_do_not_count_stay_out():
    directory = MemoryDirectory()
    log = write_log(directory, 1, appended([(1, b"first"), (2, b"cut"), (3, b"last")]), per_block=1)
    segment = write_clustered(
        directory, 9, UUID, [LogSource(log.segment, [log.blocks[0], log.blocks[2]])], pause=nothing
    )
    assert held(segment) == [(1, 0, b"first"), (3, 0, b"last")]


def test_streams_that_nobody_wants_stay_out():
    records = appended(filled([(stream, 10) for stream in range(1, 9)]))
    segment = build(MemoryDirectory(), records, only=array("Q", [0, 1, 4, 5, 6, 7, 99]))
    assert held(segment) == expected([record for record in records if record.stream in (1, 4, 5, 6, 7)])


def test_nothing_makes_no_file(directory):
    records = appended(filled([(1, 10), (2, 10)]))
    assert build(directory, records, only=array("Q", [0, 3])) is None
    assert write_clustered(directory, 9, UUID, [], pause=nothing) is None
    log = write_log(directory, 1, [])
    assert write_clustered(directory, 9, UUID, [log], pause=nothing) is None
    assert directory.names() == ["00000001.log"]


def test_whole_records_below_a_trim_stay_out():
    records = appended([(stream, b"%d-%d" % (stream, number)) for number in range(9) for stream in (4, 5, 6)])
    segment = build(MemoryDirectory(), records, trims=[(4, 7), (6, 27), (7, 3)])
    assert [one[:2] for one in held(segment)] == [(4, 6), (5, 0)]
    assert held(segment)[0][2] == b"4-24-34-44-54-64-74-8"


def test_a_gap_makes_another_row():
    records = [Record(5, 0, b"aa"), Record(5, 2, b"bb"), Record(5, 10, b"cc"), Record(6, 12, b"dd")]
    segment = build(MemoryDirectory(), records)
    assert held(segment) == [(5, 0, b"aabb"), (5, 10, b"cc"), (6, 12, b"dd")]


def test_a_row_that_would_get_too_long_is_continued_in_another():
    records = appended(filled([(1, 60), (1, 60), (1, 90), (1, 200), (1, 5)]))
    segment = build(MemoryDirectory(), records, row_max=150)
    assert [(row.start, row.end) for row in map(segment.row, range(4))] == [
        (0, 120),
        (120, 210),
        (210, 410),
        (410, 415),
    ]
    assert segment.verify() == []
    joined = rewrite_clustered(MemoryDirectory(), 9, UUID, [(segment, everything(segment))], pause=nothing)
    assert held(joined) == expected(records)


def test_segments_come_in_the_order_of_the_log():
    directory = MemoryDirectory()
    records = appended(filled([(stream % 3, 50 + stream) for stream in range(90)]))
    sources = [write_log(directory, number, records[30 * number : 30 * number + 30]) for number in range(3)]
    segment = write_clustered(directory, 9, UUID, sources, pause=nothing)
    assert bytes_of(directory, NAME) == encode_cluster(9, records)
    assert segment.verify() == []


def test_a_record_may_be_larger_than_all_buffers(directory):
    records = appended(filled([(1, 100), (2, 3_000_001), (1, 65_436), (1, 1)]))
    segment = build(directory, records)
    assert held(segment) == expected(records)
    assert segment.record_bounds(segment.row(1), 2_000_000) == (0, 3_000_001)
    assert segment.verify() == []
    segment.close()


def test_more_records_than_are_staged_at_once():
    records = appended([(stream % 3, b"%d" % (stream % 7)) for stream in range(270_000)])
    directory = MemoryDirectory()
    log = write_log(directory, 1, records, per_block=10_000)
    write_clustered(directory, 9, UUID, [log], pause=nothing)
    assert bytes_of(directory, NAME) == encode_cluster(9, records)


def test_more_bytes_than_are_staged_at_once(directory):
    records = appended(filled([(stream % 3, 700_000) for stream in range(60)]))
    segment = build(directory, records)
    assert bytes_of(directory, NAME) == encode_cluster(9, records)
    segment.close()


def test_the_builder_may_pause_between_slices_of_a_mebibyte():
    directory = MemoryDirectory()
    log = write_log(directory, 1, appended(filled([(stream % 40, 4000) for stream in range(2000)])))
    pauses = []
    write_clustered(directory, 9, UUID, [log], pause=lambda: pauses.append(1))
    assert len(pauses) >= 2 * 8


# ---- rewriting


@given(WRITES, st.data())
def test_merging_files_gives_the_file_that_would_have_been_built_at_once(sizes, data):
    records = appended(filled(sizes))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(records)), max_size=3)))
    directory = MemoryDirectory()
    files = []
    for number, (first, last) in enumerate(pairwise([0, *cuts, len(records)])):
        log = write_log(directory, 100 + number, records[first:last])
        files.append(write_clustered(directory, 200 + number, UUID, [log], pause=nothing))
    files = data.draw(st.permutations([file for file in files if file is not None]))
    merged = rewrite_clustered(directory, 9, UUID, [(file, everything(file)) for file in files], pause=nothing)
    assert bytes_of(directory, NAME) == encode_cluster(9, records)
    assert merged.verify() == []


def test_logs_and_files_may_be_merged_in_one_build(directory):
    records = appended(filled([(stream % 4, 5000 + stream) for stream in range(60)]))
    older = build(directory, records[:30], number=8)
    sources = [write_log(directory, 2, records[30:]), RowSource(older, everything(older))]
    merged = write_clustered(directory, 9, UUID, sources, pause=nothing)
    assert bytes_of(directory, NAME) == encode_cluster(9, records)
    for segment in (older, merged):
        segment.close()


def test_only_the_selected_rows_are_kept():
    directory = MemoryDirectory()
    records = appended(filled([(stream, 300) for stream in range(1, 50)]))
    segment = build(directory, records, number=8)
    kept = rewrite_clustered(directory, 9, UUID, [(segment, array("Q", [0, 7, 48]))], pause=nothing)
    assert held(kept) == expected([record for record in records if record.stream in (1, 8, 49)])
    assert rewrite_clustered(directory, 10, UUID, [(segment, array("Q"))], pause=nothing) is None


@given(WRITES, st.integers(0, 300_000))
def test_a_row_is_cut_at_the_record_that_holds_the_first_byte_kept(sizes, kept):
    records = appended(filled([(2, 10), *sizes]))
    directory = MemoryDirectory()
    segment = build(directory, records, number=8)
    whole = [(segment, everything(segment))]
    trimmed = rewrite_clustered(directory, 9, UUID, whole, trims=[(1, 3), (2, kept)], pause=nothing)
    firsts = {1: 3, 2: kept}
    left = [one for one in records if one.offset + len(one.data) > firsts.get(one.stream, 0)]
    if left:
        assert bytes_of(directory, NAME) == encode_cluster(9, left)
        assert trimmed.verify() == []
    else:
        assert trimmed is None


@pytest.mark.parametrize("rows", [[1, 0], [0, 0], [0, 2, 1], [2, 0, 1]])
def test_rows_out_of_order_are_a_programmers_mistake(rows):
    segment = build(MemoryDirectory(), appended(filled([(1, 5), (2, 5), (3, 5)])))
    with pytest.raises(ValueError, match="have to ascend"):
        rewrite_clustered(MemoryDirectory(), 10, UUID, [(segment, array("Q", rows))], pause=nothing)


def test_a_row_that_is_not_there_is_a_programmers_mistake():
    segment = build(MemoryDirectory(), appended(filled([(1, 5), (2, 5)])))
    with pytest.raises(IndexError):
        rewrite_clustered(MemoryDirectory(), 10, UUID, [(segment, array("Q", [0, 2]))], pause=nothing)


# ---- reading


@given(WRITES, st.data())
def test_any_span_of_a_stream_reads_back(sizes, data):
    records = appended(filled(sizes))
    segment = build(MemoryDirectory(), records)
    for index, (stream, start, content) in enumerate(expected(records)):
        row = segment.row(index)
        first = data.draw(st.integers(0, len(content) - 1))
        last = data.draw(st.integers(first + 1, len(content)))
        assert segment.read(row, start + first, start + last) == content[first:last]
        assert segment.find(stream, start + first) == index


def test_long_spans_are_read_in_place(directory):
    records = appended(filled([(1, 99), (2, 900_000), (2, 300_001)]))
    segment = build(directory, records)
    row, content = segment.row(1), contents(records)[2]
    for first, last in [(0, len(content)), (1, len(content)), (4096, 70_000), (65_537, 300_000), (4095, 4097)]:
        assert segment.read(row, first, last) == content[first:last]
    segment.close()


@given(WRITES)
def test_record_bounds_are_those_of_the_append(sizes):
    records = appended(filled(sizes))
    segment = build(MemoryDirectory(), records)
    for record in records:
        row = segment.row(segment.find(record.stream, record.offset))
        end = record.offset + len(record.data)
        for offset in {record.offset, (record.offset + end) // 2, end - 1}:
            assert segment.record_bounds(row, offset) == (record.offset, end)


def test_find_says_none_where_nothing_is():
    segment = build(MemoryDirectory(), [Record(5, 10, b"aa"), Record(5, 20, b"bb"), Record(9, 0, b"cc")])
    found = {(stream, offset): segment.find(stream, offset) for stream in range(4, 11) for offset in range(25)}
    here = {(5, 10): 0, (5, 11): 0, (5, 20): 1, (5, 21): 1, (9, 0): 2, (9, 1): 2}
    assert {place: index for place, index in found.items() if index is not None} == here


def test_streams_lists_every_row():
    records = appended(filled([(stream, 3) for stream in range(1, 40_000)]))
    segment = build(MemoryDirectory(), records)
    numbers, starts, ends = segment.streams()
    assert list(numbers) == list(range(1, 40_000))
    assert set(starts) == {0}
    assert set(ends) == {3}


def test_rows_beyond_the_last_are_an_index_error():
    segment = build(MemoryDirectory(), appended(filled([(1, 3)])))
    with pytest.raises(IndexError):
        segment.row(1)


# ---- what fails


def test_the_same_bytes_twice_are_refused(directory):
    records = [Record(3, 0, b"abc"), Record(3, 2, b"cd")]
    with pytest.raises(Corruption, match="stream 3 from offset 2") as caught:
        build(directory, records)
    assert caught.value.file == "00000001.log"
    assert directory.names() == ["00000001.log"]


def test_a_frame_that_does_not_verify_stops_the_build():
    records = appended([(1, b"one"), (2, b"two")])
    for position in range(PAGE + 64, PAGE + 64 + 2 * 27):
        directory = MemoryDirectory()
        log = write_log(directory, 1, records)
        log.segment.file._bytes[position] ^= 1
        with pytest.raises(Corruption) as caught:
            write_clustered(directory, 9, UUID, [log], pause=nothing)
        assert (caught.value.file, caught.value.position) == (
            "00000001.log",
            PAGE + 64 + (position - PAGE - 64) // 27 * 27,
        )
        assert directory.names() == ["00000001.log"]


def test_a_frame_that_changes_after_it_was_scanned_stops_the_build():
    directory = MemoryDirectory()
    log = write_log(directory, 1, appended([(1, b"one"), (2, b"two")]))
    steps = []

    def damage():
        steps.append(1)
        if len(steps) == 2:
            log.segment.file._bytes[PAGE + 64 + 26] ^= 1

    with pytest.raises(Corruption) as caught:
        write_clustered(directory, 9, UUID, [log], pause=damage)
    assert (caught.value.file, caught.value.position) == ("00000001.log", PAGE + 64)
    assert directory.names() == ["00000001.log"]


def test_a_log_that_ends_too_early_stops_the_build():
    directory = MemoryDirectory()
    log = write_log(directory, 1, appended([(1, b"one"), (2, b"two")]))
    del log.segment.file._bytes[PAGE + 64 + 30 :]
    with pytest.raises(Corruption, match="ends too early"):
        write_clustered(directory, 9, UUID, [log], pause=nothing)


def test_a_damaged_file_is_not_copied():
    source = MemoryDirectory()
    segment = build(source, appended(filled([(1, 70_000), (2, 100), (2, 5000)])))
    whole, refused = bytes_of(source, NAME), 0
    for position in [
        *range(PAGE, segment.trailer.rows_position, 499),
        *range(segment.trailer.rows_position, len(whole) - 64),
    ]:
        damaged = ClusteredSegment.open(directory_with(NAME, flipped(whole, position)), NAME)
        target = MemoryDirectory()
        try:
            copy = rewrite_clustered(target, 9, UUID, [(damaged, everything(damaged))], pause=nothing)
        except Corruption:
            assert target.names() == []
            refused += 1
        else:
            assert bytes_of(target, NAME) == whole
            assert copy.verify() == []
    index_bytes = 4
    assert (
        refused
        == len(range(PAGE, segment.trailer.rows_position, 499))
        + len(whole)
        - 64
        - segment.trailer.rows_position
        - index_bytes
    )


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_whatever_fails_leaves_nothing_behind(tmp_path, fails_at):
    log = write_log(MemoryDirectory(), 1, appended(filled([(1, 100), (2, 70_000)])))
    directory = FailingDirectory(str(tmp_path / "store"), fails_at)
    with pytest.raises(OSError, match="No space left"):
        write_clustered(directory, 9, UUID, [log], pause=nothing)
    assert directory.names() == []


def test_eight_operations_make_a_small_file(tmp_path):
    log = write_log(MemoryDirectory(), 1, appended(filled([(1, 100), (2, 70_000)])))
    directory = FailingDirectory(str(tmp_path / "store"), 9)
    write_clustered(directory, 9, UUID, [log], pause=nothing).close()
    assert directory.left == 1
    assert directory.names() == [NAME]


def test_a_number_is_never_used_twice(directory):
    records = appended(filled([(1, 100)]))
    build(directory, records).close()
    before = bytes_of(directory, NAME)
    with pytest.raises(ValueError, match="never used before"):
        build(directory, records)
    assert bytes_of(directory, NAME) == before


def test_a_pause_that_raises_stops_the_build():
    directory = MemoryDirectory()
    log = write_log(directory, 1, appended(filled([(1, 100)])))
    steps = []

    def stop():
        steps.append(1)
        if any(name.endswith(".tmp") for name in directory.names()):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clustered(directory, 9, UUID, [log], pause=stop)
    assert directory.names() == ["00000001.log"]


def test_a_source_that_was_closed_is_an_error_of_the_system(tmp_path):
    directory = DiskDirectory(tmp_path / "store")
    log = write_log(directory, 1, appended(filled([(1, 100)])))
    log.segment.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        write_clustered(directory, 9, UUID, [log], pause=nothing)


@pytest.mark.parametrize("kind", ["log", "cluster"])
def test_a_source_that_can_no_more_be_read_stops_the_build(kind):
    directory = MemoryDirectory()
    source = write_log(directory, 1, appended(filled([(1, 100), (2, 100)])))
    if kind == "cluster":
        segment = write_clustered(directory, 8, UUID, [source], pause=nothing)
        source = RowSource(segment, everything(segment))
    source.segment.file.source = lambda: (NO_DESCRIPTOR, None)
    before = directory.names()
    with pytest.raises(OSError, match="read failed") as caught:
        write_clustered(directory, 9, UUID, [source], pause=nothing)
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, source.segment.file.name)
    assert directory.names() == before


def test_the_same_bytes_twice_in_clustered_segments_are_refused():
    directory = MemoryDirectory()
    first = build(directory, appended([(1, b"one"), (3, b"abc")]), 8)
    second = build(directory, appended([(3, b"abcd")]), 9)
    selected = [(segment, everything(segment)) for segment in (first, second)]
    with pytest.raises(Corruption, match="stream 3 from offset 0 on are there twice") as caught:
        rewrite_clustered(directory, 10, UUID, selected, pause=nothing)
    assert caught.value.file in (first.file.name, second.file.name)
    segment, row = (first, 1) if caught.value.file == first.file.name else (second, 0)
    assert caught.value.position == segment.trailer.rows_position + 48 * row


# ---- damage


def flipped(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 0x10
    return bytes(changed)


DAMAGED = appended(
    [(3, bytes([65 + n]) * 700) for n in range(3)] + [(4, bytes([97 + n]) * 6000) for n in range(12)] + [(5, b"small")],
    {4: 1000},
)
WHOLE = encode_cluster(9, DAMAGED)
TRAILER = len(WHOLE) - 64
ROWS = PAGE + 2100 + 72_000 + 5
ENTRIES = ROWS + 3 * 48
UNITS = [32 + 4 + 6, 32 + 64 + 22, 32 + 8 + 4, 4, 32 + 4 + 1]
"""Sizes of the entry of stream 3, both entries and the index of stream 4, and the entry of stream 5."""


def readable(segment: ClusteredSegment, index: int) -> set[int]:
    """The pages of a row (by their starts) that read, each on its own; they read as they were written."""
    stream, start, content = expected(DAMAGED)[index]
    try:
        row = segment.row(index)
    except Corruption:
        return set()
    assert (row.stream, row.start, row.end) == (stream, start, start + len(content))
    pages_found = set()
    for first in range(start, row.end, PAGE):
        last = min(first + PAGE, row.end)
        try:
            data = segment.read(row, first, last)
        except Corruption:
            continue
        else:
            assert data == content[first - start : last - start]
            pages_found.add(first)
    return pages_found


def unreadable(segment: ClusteredSegment) -> list[tuple[int, int]]:
    """Stream and page of everything that does not read."""
    missing = []
    for index, (stream, start, content) in enumerate(expected(DAMAGED)):
        found = readable(segment, index)
        missing += [(stream, page) for page in range(start, start + len(content), PAGE) if page not in found]
    return missing


def lost_by(position: int) -> list[tuple[int, int]]:
    """What a flip at that position may cost."""
    second = 1000 + CHUNK
    if position < PAGE or position >= TRAILER:
        return []
    if position < PAGE + 2100:
        return [(3, 0)]
    if position < PAGE + 74_100:
        return [(4, 1000 + (position - PAGE - 2100) // PAGE * PAGE)]
    if position < ROWS:
        return [(5, 0)]
    whole = {3: [(3, 0)], 4: [(4, page) for page in range(1000, 73_000, PAGE)], 5: [(5, 0)]}
    if position < ENTRIES:
        return whole[3 + (position - ROWS) // 48]
    at = position - ENTRIES
    parts = [whole[3], [one for one in whole[4] if one[1] < second], [one for one in whole[4] if one[1] >= second], []]
    for size, part in zip(UNITS, [*parts, whole[5]], strict=True):
        if at < size:
            return part
        at -= size
    raise AssertionError(position)


def test_the_sample_is_laid_out_as_the_damage_tests_take_it_to_be():
    segment = ClusteredSegment.open(directory_with(NAME, WHOLE), NAME)
    assert (segment.trailer.rows_position, segment.trailer.entries_position) == (ROWS, ENTRIES)
    assert sum(UNITS) == TRAILER - ENTRIES
    assert unreadable(segment) == []
    assert segment.verify() == []


@pytest.mark.parametrize(
    "positions",
    [range(PAGE, ROWS, 61), range(ROWS, ENTRIES), range(ENTRIES, TRAILER)],
    ids=["payload", "rows", "entries"],
)
def test_a_flipped_byte_costs_its_page_or_its_entry_and_is_reported(positions):
    for position in positions:
        segment = ClusteredSegment.open(directory_with(NAME, flipped(WHOLE, position)), NAME)
        assert unreadable(segment) == lost_by(position), position
        faults = segment.verify()
        assert faults, position
        spans = {(fault.stream, fault.start, fault.end) for fault in faults if fault.end > fault.start}
        for stream, page in lost_by(position):
            covered = any(one == stream and start <= page < end for one, start, end in spans)
            assert covered or ROWS <= position < ENTRIES, position


def test_every_byte_of_a_small_file_is_watched():
    records = appended([(1, b"one"), (2, b"two and more"), (1, b"three")])
    whole = encode_cluster(9, records)
    for position in range(len(whole)):
        segment = ClusteredSegment.open(directory_with(NAME, flipped(whole, position)), NAME)
        if segment is None:
            assert position < 84 or position >= len(whole) - 64
            continue
        assert segment.verify(), position
        for index, (_, start, content) in enumerate(expected(records)):
            try:
                row = segment.row(index)
                assert segment.read(row, start, start + len(content)) == content
            except Corruption:
                assert position >= PAGE


def test_a_read_ends_before_what_is_damaged():
    page = 1000 + 5 * PAGE
    position = PAGE + 2100 + 5 * PAGE + 17
    segment = ClusteredSegment.open(directory_with(NAME, flipped(WHOLE, position)), NAME)
    row, content = segment.row(1), contents(DAMAGED)[4]
    assert segment.read(row, 1000, 73_000) == content[: 5 * PAGE]
    assert segment.read(row, page - 1, page + 10) == content[5 * PAGE - 1 : 5 * PAGE]
    assert segment.read(row, page + PAGE, 73_000) == content[6 * PAGE :]
    with pytest.raises(Corruption, match="a page of stream bytes") as caught:
        segment.read(row, page, 73_000)
    assert caught.value.position == PAGE + 2100 + 5 * PAGE


def test_a_damaged_index_costs_nothing():
    index = ENTRIES + sum(UNITS[:3])
    for position in range(index, index + 4):
        segment = ClusteredSegment.open(directory_with(NAME, flipped(WHOLE, position)), NAME)
        row, content = segment.row(1), contents(DAMAGED)[4]
        assert segment.read(row, 1000 + CHUNK, 73_000) == content[CHUNK:]
        assert segment.read(row, 1000, 1100) == content[:100]
        assert segment.record_bounds(row, 72_999) == (67_000, 73_000)
        assert [fault[:3] for fault in segment.verify()] == [(4, 1000 + CHUNK, 1000 + CHUNK)]


def test_a_damaged_row_is_never_passed_over_in_silence():
    records = appended(filled([(stream, 10) for stream in range(1, 20)]))
    whole = encode_cluster(9, records)
    for index in range(19):
        position = PAGE + 190 + 48 * index + 20
        segment = ClusteredSegment.open(directory_with(NAME, flipped(whole, position)), NAME)
        numbers, starts, ends = segment.streams()
        assert (numbers[index], starts[index], ends[index]) == (0, 0, 0)
        assert numbers.count(0) == 1
        for stream in range(1, 20):
            if stream - 1 == index:
                with pytest.raises(Corruption, match="a row"):
                    segment.find(stream, 5)
            else:
                assert segment.find(stream, 5) == stream - 1


def test_payload_that_is_gone_is_reported():
    directory = directory_with(NAME, WHOLE)
    segment = ClusteredSegment.open(directory, NAME)
    row = segment.row(0)
    del directory.files[NAME]._bytes[PAGE + 100 :]
    with pytest.raises(Corruption):
        segment.read(row, 0, 2100)
    assert segment.verify()


def test_bytes_behind_the_trailer_are_reported():
    segment = ClusteredSegment.open(directory_with(NAME, WHOLE + b"!"), NAME)
    assert [fault.position for fault in segment.verify()] == [TRAILER]


@pytest.mark.parametrize("size", [0, 50, PAGE, PAGE + 1, TRAILER, len(WHOLE) - 1])
def test_a_file_that_ends_too_early_does_not_open(size):
    assert ClusteredSegment.open(directory_with(NAME, WHOLE[:size]), NAME) is None


def test_a_file_under_another_name_does_not_open():
    assert ClusteredSegment.open(directory_with("0000000a.seg", WHOLE), "0000000a.seg") is None


def test_a_file_of_another_kind_does_not_open():
    header = encode_file_header(FileHeader(KIND_LOG, 9, UUID, nonce_of(UUID, 9), len(WHOLE), 0))
    assert ClusteredSegment.open(directory_with(NAME, header + WHOLE[PAGE:]), NAME) is None


def test_a_newer_file_says_so():
    header = bytearray(WHOLE[:PAGE])
    header[12] = 2
    header[80:84] = sealed(0, bytes(header[:80]))[:4]
    with pytest.raises(UnsupportedFormat):
        ClusteredSegment.open(directory_with(NAME, bytes(header) + WHOLE[PAGE:]), NAME)


def test_verification_pauses_and_tells_any_number_of_faults():
    records = appended(filled([(1, PAGE)] * 1000))
    whole = bytearray(encode_cluster(9, records))
    for page in range(1000):
        whole[PAGE + page * PAGE + 5] ^= 1
    pauses = []
    segment = ClusteredSegment.open(directory_with(NAME, bytes(whole)), NAME)
    faults = segment.verify(lambda: pauses.append(1))
    assert [fault.start for fault in faults] == [page * PAGE for page in range(1000)]
    assert len(pauses) > 3


def test_the_bounds_of_a_record_whose_entry_is_damaged_are_not_guessed():
    segment = ClusteredSegment.open(directory_with(NAME, flipped(WHOLE, ENTRIES + 9)), NAME)
    with pytest.raises(Corruption, match="entry fails its checksum") as caught:
        segment.record_bounds(segment.row(0), 5)
    assert (caught.value.file, caught.value.position) == (NAME, ENTRIES)


def test_an_index_that_cannot_be_read_whole_is_done_without():
    segment = ClusteredSegment.open(directory_with(NAME, WHOLE), NAME)
    row, read, index = segment.row(1), segment.file.read, ENTRIES + sum(UNITS[:3])
    segment.file.read = lambda position, length: b"" if position == index else read(position, length)
    assert segment.record_bounds(row, 72_999) == (67_000, 73_000)
    assert segment.read(row, 1000 + CHUNK, 73_000) == contents(DAMAGED)[4][CHUNK:]


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged():
    segment = ClusteredSegment.open(directory_with(NAME, WHOLE), NAME)
    segment.file.source = lambda: (NO_DESCRIPTOR, None)
    with pytest.raises(OSError, match="read failed") as caught:
        segment.verify()
    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, NAME)
