"""Sorted runs: what was written is found, by name, by number, in order; what is damaged is said, never guessed at."""

from __future__ import annotations

import errno
import random
import struct
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import (
    MIB,
    NOW_MS,
    UUID,
    assert_run_holds,
    check_damage_is_told_name_by_name,
    due,
    encoded,
    found_many,
    kept,
    named,
    no_pause,
    pages_of,
    small_run,
    some_rows,
)

from durable_log.engine import run_format, run_writer
from durable_log.engine.files import DiskDirectory, MemoryDirectory, MemoryFile
from durable_log.engine.format import KIND_LOG, PAGE, FileHeader, crc32c, encode_file_header, nonce_of
from durable_log.engine.run import Run
from durable_log.engine.run_format import (
    NEVER,
    NUMBER_MAX,
    Row,
    encode_hashed_row,
    encode_row,
    hash_of,
    run_name,
    run_number,
)
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.errors import Corruption


@pytest.fixture(params=["disk", "memory"])
def directory(request, tmp_path):
    return DiskDirectory(tmp_path / "store") if request.param == "disk" else MemoryDirectory()


@pytest.fixture
def small_pieces(monkeypatch):
    """Numbers go through the temporary file, in many pieces."""
    monkeypatch.setattr(run_writer, "PAIRS_MAX", 7)


# what was written is found


def test_every_row_is_found_before_and_after_reopening(directory):
    rows = some_rows(3000)
    run = write_run(directory, 7, UUID, encoded(rows), no_pause)
    assert directory.names() == ["00000007.run"]
    assert_run_holds(run, kept(rows))
    run.close()
    again = Run.open(directory, "00000007.run")
    assert_run_holds(again, kept(rows))
    again.close()


def test_rows_may_come_as_one_piece_of_memory():
    rows = some_rows(50)
    for kind in (bytes, bytearray, memoryview):
        run = write_run(MemoryDirectory(), 1, UUID, kind(b"".join(encoded(rows))), no_pause)
        assert_run_holds(run, kept(rows))


def test_of_one_name_the_last_row_counts():
    rows = [Row("a", 1, b"first", False), Row("b", 2, b"", False), Row("a", 3, b"second", True)]
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    assert_run_holds(run, kept(rows))
    assert run.find_numbers(array("Q", [1])) == {}


def test_an_empty_run_has_nothing(directory):
    run = write_run(directory, 1, UUID, [], no_pause)
    run.close()
    run = Run.open(directory, run_name(1))
    assert_run_holds(run, {})
    assert run.find(0, "a") is None
    assert found_many([run], ["a", "b"]) == [None, None]
    assert found_many([run], []) == []
    run.close()


def test_rows_at_the_limits_are_kept(directory):
    rows = [
        Row("x" * 1024, NUMBER_MAX, bytes(3 * MIB), True, True, NEVER),
        Row("x" * 1023 + "y", NUMBER_MAX, b"", False, True, 0),
        Row("y", 0, b"", False, False, NEVER - 1),
        *(Row(f"large {size}", size, b"p" * size, False) for size in (4036, 4037, 4038, 8000, 8192, 100_000)),
        *some_rows(300, first=200_000),
    ]
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    run.close()
    run = Run.open(directory, run_name(1))
    assert_run_holds(run, kept(rows))
    run.close()


@pytest.mark.parametrize(
    "row",
    [
        ("", 1, b""),
        ("x" * 1025, 1, b""),
        ("ä" * 513, 1, b""),
        ("x", -1, b""),
        ("x", 2**48, b""),
        ("x", 1, bytes(1001)),
    ],
    ids=["no name", "long name", "long UTF-8", "negative", "number of 49 bits", "long payload"],
)
def test_a_row_beyond_the_limits_is_refused(row, monkeypatch):
    monkeypatch.setattr(run_format, "PAYLOAD_BYTES_MAX", 1000)
    with pytest.raises(ValueError, match="a row of"):
        encode_row(*row)


@pytest.mark.parametrize("deadline", [-1, 2**64])
def test_a_deadline_beyond_64_bits_is_refused(deadline):
    with pytest.raises(ValueError, match="deadline"):
        encode_row("x", 1, b"", deadline=deadline)


def test_bytes_that_are_no_rows_are_refused_and_leave_nothing(directory):
    whole = encode_row("a", 1, b"payload")
    for bad in (whole[:-1], whole + b"x", bytes(100), whole + encode_hashed_row(1, b"b", 1, b"")[:21]):
        with pytest.raises(ValueError, match="there is no row"):
            write_run(directory, 1, UUID, bad, no_pause)
    assert directory.names() == []


def test_numbers_and_names_of_runs():
    assert run_name(0x1F) == "0000001f.run"
    assert run_number("0000001f.run") == 0x1F
    for other in ("1f.run", "0000001f.log", "0000001f.run.tmp", "0000001F.run"):
        assert run_number(other) is None


def test_an_open_run_takes_ten_bytes_a_page_of_rows_and_nothing_for_names():
    rows = [encode_row(f"{index:090}", index, b"") for index in range(30_000)]
    run = write_run(MemoryDirectory(), 1, UUID, rows, no_pause)
    assert run.pages > 800
    assert run.trailer.name_pages > 700
    assert run.memory() <= 10 * run.pages + 200


def test_finding_a_row_reads_one_page(monkeypatch):
    rows = some_rows(2000)
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    reads = []
    read = run.file.read
    run.file.read = lambda position, length: reads.append(length) or read(position, length)
    for name in kept(rows):
        run.find(hash_of(name), name)
    assert reads == [PAGE] * len(kept(rows))


def test_numbers_in_bulk_read_every_page_once():
    rows = some_rows(2000)
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    reads = []
    read = run.file.read
    run.file.read = lambda position, length: reads.append(position) or read(position, length)
    numbers = sorted(row.number for row in kept(rows).values())
    wanted = array("Q", [0, *numbers[::3], 10**9, 2**48 - 1])
    assert sorted(run.find_numbers(wanted)) == numbers[::3]
    assert len(reads) == len(set(reads))


def test_names_whose_hashes_collide_are_told_apart():
    names = [f"name {index:04}" for index in range(500)]
    rows = [encode_hashed_row(2**63, name.encode(), index, b"p" * 30) for index, name in enumerate(names)]
    around = [encode_hashed_row(2**63 + side, b"other %d" % side, 900 + side, b"") for side in (-1, 1)]
    run = write_run(MemoryDirectory(), 1, UUID, rows + around, no_pause)
    assert run.pages > 6
    for index, name in enumerate(names):
        assert run.find(2**63, name).number == index
    asked = [*names, "name 0100a", "a", "z"]
    many = found_many([run], asked, array("Q", [2**63] * len(asked)))
    assert [row and row.number for row in many] == [*range(500), None, None, None]
    assert run.find(2**63, "name 0100a") is None
    assert run.find(2**63, "a") is None
    assert run.find(2**63, "z") is None
    assert run.find(0, "name 0000") is None
    assert run.find(2**64 - 1, "name 0000") is None
    assert [run.find(2**63 + side, f"other {side}").number for side in (-1, 1)] == [899, 901]
    assert run.verify() == []


def test_a_run_is_laid_out_as_the_page_of_the_format_says():
    """Decoded with struct and ``docs/format.md`` alone."""
    large = [Row(f"large {size}", size, b"l" * size, False, True, 3) for size in (9000, 70_000, 2_000_000)]
    rows = [*some_rows(300, first=2**21), *large]
    directory = MemoryDirectory()
    run = write_run(directory, 0x2A, UUID, encoded(rows), no_pause)
    content = bytes(directory.files["0000002a.run"]._bytes)
    trailer = struct.unpack_from("<8sQQQQQQQQQI", content, len(content) - PAGE)
    magic, count, tombstones, least, greatest, deadline, *pages, numbers_at, tables_crc = trailer
    oracle = sorted(kept(rows).values(), key=lambda row: (hash_of(row.name), row.name.encode()))
    assert magic == b"RUNTAIL\n"
    assert content[-4:] == struct.pack("<I", crc32c(run.nonce, content[-PAGE:-4]))
    assert (count, tombstones) == (len(oracle), sum(row.tombstone for row in oracle))
    assert (least, greatest) == (min(row.number for row in oracle), max(row.number for row in oracle))
    assert deadline == min(row.deadline for row in oracle if not row.tombstone and not row.hidden)

    position, found = PAGE, {1: [], 2: [], 3: []}
    begins = {1: [], 2: [], 3: []}
    while sum(map(len, begins.values())) < sum(pages):
        crc, length, place, items, kind, zero = struct.unpack_from("<IIIHBB", content, position)
        size = -(-length // PAGE) * PAGE
        page = content[position : position + size]
        assert (crc, place, zero) == (crc32c(run.nonce, page[4:]), position // PAGE, 0)
        assert size == PAGE or (kind == 1 and (items == 1 or size <= 2**16))
        begins[kind].append(position)
        at = 16
        for _ in range(items):
            if kind == 2:
                found[2].append((*struct.unpack_from("<QI", page, at), at == 16))
                at += 12
                continue
            hash_, payload_length = struct.unpack_from("<QI", page, at) if kind == 1 else (0, 0)
            at += 12 * (kind == 1)
            number, flags, end, text_length = struct.unpack(
                "<QHQH", page[at : at + 6] + b"\0\0" + page[at + 6 : at + 18]
            )
            text = page[at + 18 : at + 18 + text_length].decode()
            at += 18 + text_length + payload_length
            row = Row(text, number, page[at - payload_length : at], bool(flags & 1), bool(flags & 2), end)
            found[kind].append((row, hash_, len(begins[1]) - 1))
        assert at == length
        assert not any(page[length:])
        position += size
    assert [len(begins[kind]) for kind in (1, 2, 3)] == pages
    assert begins[2][0] == numbers_at
    assert [row for row, _, _ in found[1]] == oracle
    assert [hash_ for _, hash_, _ in found[1]] == [hash_of(row.name) for row in oracle]
    assert [each[:2] for each in found[2]] == sorted((row.number, page) for row, _, page in found[1])
    by_name = sorted(oracle, key=lambda row: row.name.encode())
    assert [row for row, _, _ in found[3]] == [row._replace(payload=b"") for row in by_name]

    tables = content[position:-PAGE]
    places = [at // PAGE for at in (*begins[1], numbers_at)]
    fences = [hash_ for index, (_, hash_, page) in enumerate(found[1]) if index == 0 or page != found[1][index - 1][2]]
    first_numbers = [number for number, _, is_first in found[2] if is_first]
    expected = struct.pack(f"<{len(fences) + len(first_numbers)}Q{len(places)}I", *fences, *first_numbers, *places)
    assert tables == expected.ljust(-(-len(expected) // PAGE) * PAGE, b"\0")
    assert tables_crc == crc32c(run.nonce, tables)


# names in order


def test_names_come_in_order_in_pages_of_the_limit():
    rows = kept(some_rows(2500))
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows.values()), no_pause)
    for prefix in (b"", b"a/", "ä/1".encode(), b"z/9", b"none"):
        after, pieces, more = b"", [], True
        while more:
            found, more = run.names_from(prefix, after, 100)
            assert (found, more) == named(rows.values(), prefix, after, 100)
            pieces += found
            after = found[-1].name.encode() if found else after
        assert pieces == named(rows.values(), prefix, b"", 10**6)[0]


def test_a_prefix_is_a_name_of_its_own():
    rows = [Row(name, index, b"") for index, name in enumerate(["a", "ab", "abc", "b"])]
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    assert [entry.name for entry in run.names_from(b"ab", b"", 5)[0]] == ["ab", "abc"]
    assert [entry.name for entry in run.names_from(b"ab", b"ab", 5)[0]] == ["abc"]
    assert run.names_from(b"", b"", 4)[1] is False
    assert run.names_from(b"", b"", 3)[1] is True
    assert run.names_from(b"a", b"", 3)[1] is False
    assert run.names_from(b"", b"b", 3) == ([], False)
    with pytest.raises(ValueError, match="limit"):
        run.names_from(b"", b"", 0)


def test_names_that_begin_alike_are_kept_apart_on_every_page():
    """Each is longer than the one before, up to the limit, and begins with all of it: few fit on a page."""
    names = ["ä" * length for length in range(1, 513)] + ["ä" * length + "a" for length in range(0, 512, 7)]
    rows = kept(Row(name, index, b"") for index, name in enumerate(names))
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows.values()), no_pause)
    assert run.trailer.name_pages > 70
    ordered = sorted(names, key=str.encode)
    for index in range(0, len(ordered), 11):
        after = ordered[index].encode()
        assert [entry.name for entry in run.names_from(b"", after, 3)[0]] == ordered[index + 1 : index + 4]
        assert run.names_from(after, b"", 600) == named(rows.values(), after, b"", 600)
        assert run.names_from(after + b"!", b"", 600) == ([], False)
    assert_run_holds(run, rows)


def counted_reads(run):
    """The pieces that are read of a run from now on, as (position, length)."""
    reads, read = [], run.file.read
    run.file.read = lambda position, length: reads.append((position, length)) or read(position, length)
    return reads


def test_a_page_of_names_is_found_in_a_few_reads():
    names = [f"tenant/{index % 50:03}/{index:06}" for index in range(20_000)]
    run = write_run(MemoryDirectory(), 1, UUID, [encode_row(name, 1, b"") for name in names], no_pause)
    reads = counted_reads(run)
    steps_max = run.trailer.name_pages.bit_length()
    for prefix, limit in (
        (b"", 10),
        (b"tenant/017/", 400),
        (b"tenant/049/0199", 1),
        (b"z", 5),
        (b"tenant/025/01", 9999),
    ):
        reads.clear()
        found, _ = run.names_from(prefix, b"", limit)
        assert len(reads) <= steps_max + 3
        assert sum(length for _, length in reads[:-1]) <= (steps_max + 2 + limit // 50) * PAGE
        assert [entry.name for entry in found] == sorted(name for name in names if name.encode().startswith(prefix))[
            :limit
        ]


# deadlines


def test_looking_for_what_is_due_reads_the_names_once_and_no_rows():
    rows = [Row(f"name {index:05}", index, bytes(100), deadline=10**6 + index) for index in range(40_000)]
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    assert run.min_deadline == 10**6
    reads = counted_reads(run)
    assert due(run, 10**6 - 1) == []
    reads.clear()
    assert due(run, 10**6) == [("name 00000", 0)]
    assert [position for position, _ in reads] == list(
        range(run.trailer.names_position, run.trailer.tables_position, MIB)
    )
    assert due(run, 10**6 + 39_998) == [(row.name, row.number) for row in rows[:-1]]


def test_what_was_due_before_is_left_out_and_the_next_deadline_is_told():
    rows = [Row(f"name {index:05}", index, b"", deadline=1000 + 10 * index) for index in range(9)]
    run = write_run(MemoryDirectory(), 1, UUID, encoded([*rows, Row("forever", 99, b"")]), no_pause)
    assert list(run.due(1021, 1045)) == [([("name 00003", 3), ("name 00004", 4)], 1050)]
    assert list(run.due(1046, 2000)) == [([(row.name, row.number) for row in rows[5:]], NEVER)]


def test_what_is_deleted_or_hidden_is_never_due():
    rows = [
        Row("dead", 1, b"", tombstone=True, deadline=1),
        Row("hidden", 2, b"", hidden=True, deadline=2),
        Row("both", 3, b"", tombstone=True, hidden=True, deadline=3),
        Row("alive", 4, b"", deadline=40),
        Row("forever", 5, b""),
    ]
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    assert run.min_deadline == 40
    assert due(run, 39) == []
    assert due(run, NEVER) == [("alive", 4)]


def test_the_least_deadline_of_a_merge_is_that_of_the_rows_that_stay():
    directory = MemoryDirectory()
    old = write_run(directory, 1, UUID, encoded([Row("a", 1, b"", deadline=5), Row("b", 2, b"", deadline=9)]), no_pause)
    new = write_run(directory, 2, UUID, encoded([Row("a", 1, b"", deadline=50)]), no_pause)
    gone = write_run(directory, 3, UUID, encoded([Row("b", 2, b"", True), Row("a", 1, b"", hidden=True)]), no_pause)
    for number, runs, expected in ((4, [new, old], 9), (5, [gone, new, old], NEVER), (6, [old, new], 5)):
        merged = merge_runs(directory, number, UUID, runs, drop_tombstones=True, pause=no_pause)
        assert merged.min_deadline == expected
        assert Run.open(directory, run_name(number)).min_deadline == expected


# merging


def test_the_newest_run_says_what_a_name_is(directory, small_pieces):
    old, middle, new = (some_rows(400, seed=seed, first=1000 * seed) for seed in (1, 2, 3))
    middle += [row._replace(number=5000 + index, payload=b"again") for index, row in enumerate(old[::2])]
    new += [row._replace(number=9000 + index, tombstone=True) for index, row in enumerate(middle[::3])]
    runs = [write_run(directory, at, UUID, encoded(rows), no_pause) for at, rows in enumerate((new, middle, old), 1)]
    merged = merge_runs(directory, 9, UUID, runs, drop_tombstones=False, pause=no_pause)
    expected = kept([*old, *middle, *new])
    assert_run_holds(merged, expected)
    dropped = merge_runs(directory, 10, UUID, runs, drop_tombstones=True, pause=no_pause)
    assert_run_holds(dropped, {name: row for name, row in expected.items() if not row.tombstone})
    assert directory.names() == [run_name(number) for number in (1, 2, 3, 9, 10)]
    for run in (*runs, merged, dropped):
        run.close()


def test_merging_one_run_copies_it_and_merging_none_gives_an_empty_one():
    directory, rows = MemoryDirectory(), some_rows(500, payload_max=9000)
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    assert_run_holds(merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=no_pause), kept(rows))
    assert_run_holds(merge_runs(directory, 3, UUID, [], drop_tombstones=False, pause=no_pause), {})
    empty = merge_runs(directory, 4, UUID, [], drop_tombstones=True, pause=no_pause)
    assert_run_holds(merge_runs(directory, 5, UUID, [empty, run], drop_tombstones=False, pause=no_pause), kept(rows))


def test_a_run_of_tombstones_merges_into_nothing():
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, [encode_row(f"{i}", i, b"", tombstone=True) for i in range(1000)], no_pause)
    assert run.tombstones == 1000
    assert_run_holds(merge_runs(directory, 2, UUID, [run], drop_tombstones=True, pause=no_pause), {})


def test_many_runs_merge():
    directory = MemoryDirectory()
    pieces = [some_rows(60, seed=seed, first=100 * seed) for seed in range(40)]
    runs = [write_run(directory, 100 + at, UUID, encoded(rows), no_pause) for at, rows in enumerate(pieces)]
    merged = merge_runs(directory, 1, UUID, runs[::-1], drop_tombstones=False, pause=no_pause)
    assert_run_holds(merged, kept([row for rows in pieces for row in rows]))


def test_rows_larger_than_a_slice_merge():
    directory = MemoryDirectory()
    new = [Row(f"{index % 7}", index, bytes([index]) * (MIB - 3 * index), False) for index in range(5)]
    old = [Row(f"{index}", 50 + index, b"x" * MIB, False) for index in range(7)]
    runs = [write_run(directory, at, UUID, encoded(rows), no_pause) for at, rows in enumerate((new, old), 1)]
    merged = merge_runs(directory, 3, UUID, runs, drop_tombstones=False, pause=no_pause)
    assert_run_holds(merged, kept([*old, *new]))


def test_rows_of_many_mebibytes_are_written_merged_and_found_in_one_read(directory, monkeypatch):
    """A stream may have any number of producers."""
    draw = random.Random(5)
    old = [Row("large", 1, draw.randbytes(5 * MIB)), Row("larger", 2, draw.randbytes(9 * MIB)), *some_rows(50, first=9)]
    new = [Row("large", 1, draw.randbytes(6 * MIB)), *some_rows(50, seed=2, first=99)]
    runs = [write_run(directory, at, UUID, encoded(rows), no_pause) for at, rows in enumerate((new, old), 1)]
    merged = merge_runs(directory, 3, UUID, runs, drop_tombstones=False, pause=no_pause)
    for run, rows in ((runs[0], new), (runs[1], old), (merged, [*old, *new])):
        assert_run_holds(run, kept(rows))
    read = merged.file.read
    reads = []
    monkeypatch.setattr(type(merged.file), "read", lambda self, *place: reads.append(place) or read(*place))
    assert merged.find(hash_of("larger"), "larger") == old[1]
    assert len(reads) == 1
    for run in (*runs, merged):
        run.close()


def test_a_flipped_byte_of_a_large_row_costs_that_row(directory):
    rows = [Row("large", 1, bytes(5 * MIB)), *some_rows(50, first=9)]
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    position, length = max(map(run.extent, range(run.pages)), key=lambda extent: extent[1])
    at = position + length - PAGE
    run.file.write(at, bytes([run.file.read(at, 1)[0] ^ 1]))
    assert run.verify() == [(position, "the page fails its checksum")]
    with pytest.raises(Corruption, match="checksum"):
        run.find(hash_of("large"), "large")
    found = found_many([run], [row.name for row in rows])
    assert isinstance(found[0], Corruption)
    assert found[1:] == rows[1:]
    run.close()


def test_places_that_lead_outside_of_the_rows_are_not_believed(directory):
    """What is read and allocated for a page follows from them."""
    rows = [Row("large", 1, bytes(9000)), *some_rows(100, first=9)]
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    tables, trailer = run.tables, run.trailer
    assert run_format.decode_tables(tables_of(trailer, tables), trailer, 0, crc32c(0, tables_of(trailer, tables)))
    for at, place in ((0, 0), (1, 2**32 - 1), (1, tables.places[0]), (-1, tables.places[-1] + 1)):
        places = tables.places[:]
        places[at] = place
        body = tables_of(trailer, tables._replace(places=places))
        assert run_format.decode_tables(body, trailer, 0, crc32c(0, body)) is None
    run.close()


def tables_of(trailer, tables):
    body = b"".join(struct.pack(f"<{len(each)}{each.typecode}", *each) for each in tables)
    return body.ljust(run_format.tables_length(trailer), b"\0")


NAMES = st.one_of(
    st.text("abäz/", min_size=1, max_size=5),
    st.text(min_size=1, max_size=3),
    st.lists(st.sampled_from(["a", "\0", "日本", "x" * 100]), min_size=1, max_size=10).map("".join),
)
DEADLINES = st.sampled_from([0, NOW_MS, NOW_MS + 1, NEVER - 1, NEVER])
SIZES = st.sampled_from([0, 1, 60, 4000, 4090, 9000])
ROWS = st.lists(st.tuples(NAMES, SIZES, st.booleans(), st.booleans(), DEADLINES), max_size=60)


@settings(max_examples=60)
@given(
    st.lists(ROWS, min_size=1, max_size=5),
    st.booleans(),
    st.binary(max_size=2),
    NAMES,
    st.integers(1, 9),
    st.integers(3, 99),
)
def test_any_rows_are_written_merged_and_read_as_the_oracle_says(pieces, drop, prefix, after, limit, pairs_max):
    directory, runs, all_rows = MemoryDirectory(), [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_writer, "PAIRS_MAX", pairs_max)
        check_any_rows(directory, runs, all_rows, pieces, drop, prefix, after, limit)


def check_any_rows(directory, runs, all_rows, pieces, drop, prefix, after, limit):
    for number, piece in enumerate(pieces, 1):
        rows = [Row(name, number << 16 | at, b"p" * size, *rest) for at, (name, size, *rest) in enumerate(piece)]
        runs.insert(0, write_run(directory, number, UUID, encoded(rows), no_pause))
        assert_run_holds(runs[0], kept(rows))
        all_rows += rows
    merged = merge_runs(directory, 99, UUID, runs, drop_tombstones=drop, pause=no_pause)
    expected = {name: row for name, row in kept(all_rows).items() if not (drop and row.tombstone)}
    assert_run_holds(merged, expected)
    assert merged.names_from(prefix, after.encode(), limit) == named(expected.values(), prefix, after.encode(), limit)
    assert_run_holds(Run.open(directory, run_name(99)), expected)


# what is damaged is said


@pytest.fixture
def damaged():
    return small_run()


def test_a_damaged_page_of_rows_costs_none_that_is_not_on_it(damaged, monkeypatch):
    """Its names say what is on it; with them damaged, too, whatever belongs there may be."""
    directory, run, rows, content = damaged
    absent = [f"absent {index}" for index in range(200)] + ["x" * 999, "x" * 1001, "\0", "\U0010ffff"]
    older = write_run(
        directory, 3, UUID, encoded(Row(name, 5000 + at, b"") for at, name in enumerate(absent)), no_pause
    )
    for ordinal in range(run.pages):
        at = run.extent(ordinal)[0]
        content[at + 99] ^= 1
        belong = [name for name in absent if run.extent(run._candidates(hash_of(name))[1])[0] == at]
        assert belong
        assert all(run.find(hash_of(name), name) is None for name in absent)
        wanted = [*absent, *(row.name for row in rows), *absent]
        found = found_many([run, older], wanted)
        assert [row.name for row in found[: len(absent)]] == [row.name for row in found[-len(absent) :]] == absent
        check_damage_is_told_name_by_name(run, rows, pages_of(run, rows), at)
        for page in range(run.trailer.name_pages):
            content[run.trailer.names_position + page * PAGE + 99] ^= 1
        for name in belong:
            with pytest.raises(Corruption, match=f"position {at}"):
                run.find(hash_of(name), name)
        told = [str(found) for found in found_many([run, older], belong)]
        assert all(f"position {at}" in each for each in told)
        for page in range(run.trailer.name_pages):
            content[run.trailer.names_position + page * PAGE + 99] ^= 1
        content[at + 99] ^= 1
    assert run.verify() == []


def test_a_run_of_another_length_does_not_open(damaged):
    directory, _, _, content = damaged
    whole = bytes(content)
    for length in [*range(0, len(whole), PAGE), len(whole) - 1, 1, 100]:
        content[:] = whole[:length]
        assert Run.open(directory, run_name(1)) is None
    content[:] = whole + bytes(PAGE)
    assert Run.open(directory, run_name(1)) is None
    content[:] = whole
    assert Run.open(directory, run_name(1)).verify() == []


def test_a_file_that_lost_its_end_while_open_is_corrupt(damaged):
    directory, run, rows, content = damaged
    del content[run.extent(1)[0] :]
    lost = [row for row in rows if run.extent(run._candidates(hash_of(row.name))[1])[0] >= len(content)]
    assert lost
    for row in lost:
        with pytest.raises(Corruption, match="longer than what is there"):
            run.find(hash_of(row.name), row.name)
    names = [row.name for row in rows]
    many = dict(zip(names, map(str, found_many([run], names)), strict=True))
    assert [name for name in names if "longer than what is there" in many[name]] == [row.name for row in lost]
    for read in (lambda: run.names_from(b"", b"", 100), lambda: due(run, NOW_MS)):
        with pytest.raises(Corruption, match="longer than what is there"):
            read()
    with pytest.raises(Corruption):
        merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=no_pause)
    assert len(run.verify()) == run.pages - 1 + run.trailer.number_pages + run.trailer.name_pages + 1


def test_a_page_of_another_place_is_not_believed():
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(some_rows(200)), no_pause)
    content = directory.files[run_name(1)]._bytes
    content[PAGE : 2 * PAGE] = content[2 * PAGE : 3 * PAGE]
    assert run.verify() == [(PAGE, "the page belongs to another place")]


def test_a_page_of_another_run_is_not_believed():
    directory = MemoryDirectory()
    rows = encoded(some_rows(200))
    run, _ = (write_run(directory, number, UUID, rows, no_pause) for number in (1, 2))
    directory.files[run_name(1)]._bytes[PAGE : 2 * PAGE] = directory.files[run_name(2)]._bytes[PAGE : 2 * PAGE]
    assert run.verify() == [(PAGE, "the page fails its checksum")]


def test_a_file_of_another_kind_or_name_is_no_run(directory):
    write_run(directory, 1, UUID, encoded(some_rows(5)), no_pause).close()
    directory.rename(run_name(1), run_name(2))
    assert Run.open(directory, run_name(2)) is None
    file = directory.create(run_name(3))
    file.write(0, encode_file_header(FileHeader(KIND_LOG, 3, UUID, nonce_of(UUID, 3), PAGE, 0)))
    file.close()
    assert Run.open(directory, run_name(3)) is None


def resealed(run, content, position, change):
    """Damage that checksums do not see: the page is changed and sealed again."""
    page = bytearray(content[position : position + PAGE])
    change(page)
    page[:4] = struct.pack("<I", crc32c(run.nonce, bytes(page[4:])))
    content[position : position + PAGE] = page


def put(at, data):
    """Set bytes of a page: its header has 16, then come the fields of the first item."""
    return lambda page: page.__setitem__(slice(at, at + len(data)), data)


def flip(at):
    return lambda page: page.__setitem__(at, page[at] ^ 1)


@pytest.mark.parametrize(
    ("kind", "index", "change", "reason"),
    [
        ("rows", 0, put(16, bytes(8)), "begins with another hash"),
        ("rows", 1, put(16, bytes(8)), "begins before the last one ended"),
        ("rows", 1, put(16, b"\xff" * 8), "out of order"),
        ("rows", 0, flip(34), "counts other rows"),
        ("rows", 0, flip(34), "names are others"),
        ("rows", 0, flip(28), "numbers name other rows"),
        ("rows", 0, put(36, bytes(8)), "counts other rows"),
        ("rows", 0, put(36, bytes(8)), "names are others"),
        ("rows", 0, flip(46), "names are others"),
        ("rows", 0, lambda page: page.__setitem__(12, page[12] - 1), "does not fit"),
        ("rows", 0, put(44, b"\0\0"), "does not fit"),
        ("rows", 0, put(14, b"\2"), "another place"),
        ("numbers", 0, put(16, b"\1" + bytes(7)), "another number"),
        ("names", 0, flip(16), "names are others"),
        ("names", 0, flip(22), "names are others"),
        ("names", 0, flip(24), "names are others"),
        ("names", 0, put(34, b"A"), "names are others"),
        ("names", 0, put(34, b"\x7f"), "out of order"),
        ("names", 1, put(34, b"\0"), "begins before the last one ended"),
        ("names", 0, put(32, b"\0\0"), "does not fit"),
        ("names", 0, put(14, b"\1"), "another place"),
    ],
)
def test_a_writer_that_was_wrong_is_found_out(kind, index, change, reason):
    directory = MemoryDirectory()
    rows = [row._replace(tombstone=False, hidden=False) for row in some_rows(200, first=5)]
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    first = {"rows": PAGE, "numbers": run.trailer.numbers_position, "names": run.trailer.names_position}[kind]
    assert run.trailer.name_pages > 1
    resealed(run, directory.files[run_name(1)]._bytes, first + index * PAGE, change)
    assert reason in " ".join(reason for _, reason in run.verify())


def test_runs_whose_names_are_not_those_of_their_rows_are_not_merged():
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(some_rows(200, first=5)), no_pause)
    resealed(run, directory.files[run_name(1)]._bytes, run.trailer.names_position, flip(16))
    with pytest.raises(Corruption, match="other names than rows"):
        merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=no_pause)
    assert directory.names() == [run_name(1)]


def test_numbers_that_name_a_page_without_them_are_corrupt():
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(some_rows(200, first=5)), no_pause)

    def other_page(page):
        page[24] ^= 1

    resealed(run, directory.files[run_name(1)]._bytes, run.trailer.numbers_position, other_page)
    with pytest.raises(Corruption, match="lacks a row"):
        run.find_numbers(array("Q", [5]))


# failing and waiting


class FailingFile(MemoryFile):
    def __init__(self, name, directory):
        super().__init__(name)
        self.directory = directory

    def write(self, position, data):
        self.directory.count(len(data))
        super().write(position, data)

    def sync(self):
        self.directory.count()


class FailingDirectory(MemoryDirectory):
    """Fails at a step of its own, and counts what is written between two pauses."""

    def __init__(self, fails_at=-1):
        super().__init__()
        self.steps, self.fails_at = 0, fails_at
        self.written = [0]

    def count(self, length=0):
        self.steps += 1
        self.written[-1] += length
        if self.steps - 1 == self.fails_at:
            raise OSError(errno.ENOSPC, "no room")

    def pause(self):
        self.written.append(0)

    def create(self, name):
        self.count()
        self.files[name] = FailingFile(name, self)
        return self.files[name]

    def rename(self, old, new):
        self.count()
        super().rename(old, new)

    def sync(self):
        self.count()


def test_whatever_fails_leaves_nothing_behind(small_pieces):
    rows = encoded(some_rows(40))
    counting = FailingDirectory()
    source = write_run(MemoryDirectory(), 5, UUID, rows, no_pause)
    write_run(counting, 1, UUID, rows, counting.pause)
    assert counting.names() == [run_name(1)]
    steps = counting.steps
    assert steps > 10
    for step in range(steps):
        failing = FailingDirectory(step)
        with pytest.raises(OSError, match="no room"):
            write_run(failing, 1, UUID, rows, failing.pause)
        assert failing.names() == []
        failing = FailingDirectory(step)
        with pytest.raises(OSError, match="no room"):
            merge_runs(failing, 1, UUID, [source], drop_tombstones=False, pause=failing.pause)
        assert failing.names() == []


def test_who_pauses_may_give_up(directory, small_pieces):
    class GivenUpError(Exception):
        pass

    def give_up():
        raise GivenUpError

    with pytest.raises(GivenUpError):
        write_run(directory, 1, UUID, encoded(some_rows(40)), give_up)
    assert directory.names() == []


def test_a_pause_comes_at_every_mebibyte():
    directory = FailingDirectory()
    rows = [encode_row(f"{index}", index, bytes(3000)) for index in range(3000)]
    run = write_run(directory, 1, UUID, rows, directory.pause)
    assert max(directory.written) <= MIB + PAGE
    merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=directory.pause)
    assert max(directory.written) <= MIB + PAGE
    before = len(directory.written)
    dead = write_run(
        directory, 3, UUID, [encode_row(f"{i}", i, bytes(3000), tombstone=True) for i in range(3000)], no_pause
    )
    merge_runs(directory, 4, UUID, [dead], drop_tombstones=True, pause=directory.pause)
    assert len(directory.written) - before > 9


def test_pages_cover_the_file_without_gaps():
    run = write_run(MemoryDirectory(), 1, UUID, encoded(some_rows(300, payload_max=9000)), no_pause)
    for length in (PAGE, 3 * PAGE, MIB):
        spans = list(run.spans(length))
        assert spans[0].position == PAGE
        assert all(a.position + a.length == b.position and a.first < b.first for a, b in pairwise(spans))
        assert spans[-1].position + spans[-1].length == run.trailer.numbers_position
        assert all(span.length <= max(length, run.extent(span.first)[1]) for span in spans)
