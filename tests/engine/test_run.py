"""Sorted runs: what was written is found, by name and by number; what is damaged is said, never guessed at."""

from __future__ import annotations

import contextlib
import errno
import random
import struct
from array import array
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durable_log.engine import run_writer
from durable_log.engine.files import DiskDirectory, MemoryDirectory, MemoryFile
from durable_log.engine.format import KIND_LOG, PAGE, FileHeader, crc32c, encode_file_header, nonce_of
from durable_log.engine.run import Run
from durable_log.engine.run_format import (
    NUMBER_MAX,
    PAYLOAD_BYTES_MAX,
    Row,
    encode_hashed_row,
    encode_row,
    hash_of,
    run_name,
    run_number,
)
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.errors import Corruption

UUID = bytes(range(16))
MIB = 2**20


def no_pause():
    pass


def encoded(rows):
    return [encode_row(*row) for row in rows]


def some_rows(count, *, seed=1, payload_max=200, first=1):
    draw = random.Random(seed)
    return [
        Row(
            f"{draw.choice('aäz')}/{draw.getrandbits(20 + draw.randrange(40))}",
            first + index,
            draw.randbytes(draw.randrange(payload_max)),
            draw.random() < 0.1,
        )
        for index in range(count)
    ]


def kept(rows):
    """The oracle: of each name, the last row."""
    return {row.name: row for row in rows}


def in_order(rows):
    return sorted(rows, key=lambda row: (hash_of(row.name), row.name.encode()))


def named(rows, prefix, after, limit):
    """The oracle of names_after."""
    found = sorted((row.name.encode(), row.tombstone, row.number, row.payload) for row in rows)
    found = [row for row in found if row[0].startswith(prefix) and row[0] > after]
    return found[:limit], len(found) > limit


def assert_run_holds(run, rows):
    """Every way to read the run says the same as the oracle's ``rows``, a dict by name."""
    assert list(run.rows()) == in_order(rows.values())
    assert (run.count, run.tombstones) == (len(rows), sum(row.tombstone for row in rows.values()))
    numbers = sorted(row.number for row in rows.values())
    assert (run.min_number, run.max_number) == ((numbers[0], numbers[-1]) if numbers else (0, 0))
    for name, row in rows.items():
        assert run.find(hash_of(name), name) == row
        position, length = run.locate(hash_of(name))
        assert run.find_in(run.file.read(position, length), hash_of(name), name) == row
        absent = name + "?"
        assert absent in rows or run.find(hash_of(absent), absent) is None
    assert run.find_numbers(array("Q", numbers)) == {row.number: row for row in rows.values()}
    assert run.names_after(b"", b"", 10**4) == named(rows.values(), b"", b"", 10**4)
    assert run.verify() == []


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
    assert run.locate(5) is None
    assert run.find_in(b"", 5, "a") is None
    run.close()


def test_rows_at_the_limits_are_kept(directory):
    rows = [
        Row("x" * 1024, NUMBER_MAX, bytes(PAYLOAD_BYTES_MAX), True),
        Row("y", 0, b"", False),
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
        ("x", 1, bytes(MIB + 1)),
    ],
    ids=["no name", "long name", "long UTF-8", "negative", "number of 49 bits", "long payload"],
)
def test_a_row_beyond_the_limits_is_refused(row):
    with pytest.raises(ValueError, match="a row of"):
        encode_row(*row)


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


def test_an_open_run_takes_ten_bytes_a_page():
    rows = [encode_row(f"{index:090}", index, b"") for index in range(30_000)]
    run = write_run(MemoryDirectory(), 1, UUID, rows, no_pause)
    assert run.pages > 800
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
    around = [encode_hashed_row(2**63 + side, b"other", 900 + side, b"") for side in (-1, 1)]
    run = write_run(MemoryDirectory(), 1, UUID, rows + around, no_pause)
    assert run.pages > 6
    for index, name in enumerate(names):
        assert run.find(2**63, name).number == index
        position, length = run.locate(2**63)
        assert run.find_in(run.file.read(position, length), 2**63, name).number == index
    assert run.find(2**63, "name 0100a") is None
    assert run.find(2**63, "a") is None
    assert run.find(2**63, "z") is None
    assert run.find(0, "name 0000") is None
    assert run.find(2**64 - 1, "name 0000") is None
    assert [run.find(2**63 + side, "other").number for side in (-1, 1)] == [899, 901]
    assert run.verify() == []


# names in order


def test_names_come_in_order_in_pages_of_the_limit():
    rows = kept(some_rows(2500))
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows.values()), no_pause)
    for prefix in (b"", b"a/", "ä/1".encode(), b"z/9", b"none"):
        after, pieces, more = b"", [], True
        while more:
            found, more = run.names_after(prefix, after, 100)
            assert (found, more) == named(rows.values(), prefix, after, 100)
            pieces += found
            after = found[-1][0] if found else after
        assert pieces == named(rows.values(), prefix, b"", 10**6)[0]


def test_a_prefix_is_a_name_of_its_own():
    rows = [Row(name, index, b"", False) for index, name in enumerate(["a", "ab", "abc", "b"])]
    run = write_run(MemoryDirectory(), 1, UUID, encoded(rows), no_pause)
    assert [row[0] for row in run.names_after(b"ab", b"", 5)[0]] == [b"ab", b"abc"]
    assert [row[0] for row in run.names_after(b"ab", b"ab", 5)[0]] == [b"abc"]
    assert run.names_after(b"", b"", 4)[1] is False
    assert run.names_after(b"", b"", 3)[1] is True
    with pytest.raises(ValueError, match="limit"):
        run.names_after(b"", b"", 0)


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
    run = write_run(directory, 1, UUID, [encode_row(f"{i}", i, b"", True) for i in range(1000)], no_pause)
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


NAMES = st.text("abäz/", min_size=1, max_size=5)
ROWS = st.lists(st.tuples(NAMES, st.sampled_from([0, 1, 60, 4000, 4090, 9000]), st.booleans()), max_size=60)


@settings(max_examples=60)
@given(st.lists(ROWS, min_size=1, max_size=5), st.booleans(), st.binary(max_size=2), NAMES, st.integers(1, 9))
def test_any_rows_are_written_merged_and_read_as_the_oracle_says(pieces, drop, prefix, after, limit):
    directory, runs, all_rows = MemoryDirectory(), [], []
    for number, piece in enumerate(pieces, 1):
        rows = [Row(name, number << 16 | at, b"p" * size, dead) for at, (name, size, dead) in enumerate(piece)]
        runs.insert(0, write_run(directory, number, UUID, encoded(rows), no_pause))
        assert_run_holds(runs[0], kept(rows))
        all_rows += rows
    merged = merge_runs(directory, 99, UUID, runs, drop_tombstones=drop, pause=no_pause)
    expected = {name: row for name, row in kept(all_rows).items() if not (drop and row.tombstone)}
    assert_run_holds(merged, expected)
    assert merged.names_after(prefix, after.encode(), limit) == named(expected.values(), prefix, after.encode(), limit)
    assert_run_holds(Run.open(directory, run_name(99)), expected)


# what is damaged is said


@pytest.fixture
def damaged():
    """A small run of uneven pages, and a way to damage it."""
    rows = [Row(f"name {index}", 100 - index, bytes([index]) * 60, index % 9 == 0) for index in range(60)]
    rows.append(Row("large", 1000, b"l" * 4300, False))
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    assert 3 <= run.pages <= 4
    return directory, run, rows, directory.files[run_name(1)]._bytes


def test_every_flipped_byte_is_reported_and_no_row_is_ever_wrong(damaged):
    directory, run, rows, content = damaged
    rows_end = run._trailer.numbers_position
    by_page = {run.extent(run._candidates(hash_of(row.name))[1]): row for row in rows}
    assert len(by_page) == run.pages
    numbers = array("Q", sorted(row.number for row in rows))
    by_number = {row.number: row for row in rows}
    for position in range(len(content)):
        content[position] ^= 1 << position % 8
        opened = Run.open(directory, run_name(1))
        if PAGE <= position < run._trailer.numbers_position + run._trailer.number_pages * PAGE:
            assert opened is not None
            assert [at for at, _ in opened.verify()] == [position_of_page(run, position)]
        else:
            assert opened is None
            assert run.verify()[0][0] == 0
        for (at, length), row in by_page.items():
            if at <= position < at + length:
                with pytest.raises(Corruption, match=f"position {position_of_page(run, position)}"):
                    run.find(hash_of(row.name), row.name)
            elif position % 101 == 0:
                assert run.find(hash_of(row.name), row.name) == row
        if PAGE <= position < rows_end and position % 7 == 0:
            with pytest.raises(Corruption):
                run.names_after(b"", b"", 5)
            with pytest.raises(Corruption):
                list(run.rows())
            with pytest.raises(Corruption):
                merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=no_pause)
            assert directory.names() == [run_name(1)]
        with contextlib.suppress(Corruption):
            assert run.find_numbers(numbers) == by_number
            assert opened is None
        content[position] ^= 1 << position % 8
    assert run.verify() == []


def position_of_page(run, position):
    for ordinal in range(run.pages):
        start, length = run.extent(ordinal)
        if start <= position < start + length:
            return start
    return position // PAGE * PAGE


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
    lost = [row for row in rows if run.locate(hash_of(row.name))[0] >= len(content)]
    assert lost
    for row in lost:
        with pytest.raises(Corruption, match="longer than what is there"):
            run.find(hash_of(row.name), row.name)
    with pytest.raises(Corruption):
        run.names_after(b"", b"", 100)
    with pytest.raises(Corruption):
        merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=no_pause)
    assert len(run.verify()) == run.pages - 1 + run._trailer.number_pages + 1


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


@pytest.mark.parametrize(
    ("page", "change", "reason"),
    [
        (1, lambda page: page.__setitem__(slice(16, 24), bytes(8)), "begins with another hash"),
        (2, lambda page: page.__setitem__(slice(16, 24), bytes(8)), "begins before the last one ended"),
        (2, lambda page: page.__setitem__(slice(16, 24), b"\xff" * 8), "out of order"),
        (1, lambda page: page.__setitem__(30, page[30] ^ 1), "counts other rows"),
        (1, lambda page: page.__setitem__(24, page[24] ^ 1), "name other rows"),
        (1, lambda page: page.__setitem__(12, page[12] - 1), "does not fit"),
        (1, lambda page: page.__setitem__(slice(36, 38), b"\0\0"), "does not fit"),
        (1, lambda page: page.__setitem__(14, 2), "another place"),
        (-1, lambda page: page.__setitem__(slice(16, 24), b"\x01" + bytes(7)), "another number"),
    ],
)
def test_a_writer_that_was_wrong_is_found_out(page, change, reason):
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(some_rows(200, first=5)), no_pause)
    position = page * PAGE if page > 0 else run._trailer.numbers_position
    resealed(run, directory.files[run_name(1)]._bytes, position, change)
    assert reason in " ".join(reason for _, reason in run.verify())


def test_numbers_that_name_a_page_without_them_are_corrupt():
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(some_rows(200, first=5)), no_pause)

    def other_page(page):
        page[24] ^= 1

    resealed(run, directory.files[run_name(1)]._bytes, run._trailer.numbers_position, other_page)
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
    dead = write_run(directory, 3, UUID, [encode_row(f"{i}", i, bytes(3000), True) for i in range(3000)], no_pause)
    merge_runs(directory, 4, UUID, [dead], drop_tombstones=True, pause=directory.pause)
    assert len(directory.written) - before > 9


def test_pages_cover_the_file_without_gaps():
    run = write_run(MemoryDirectory(), 1, UUID, encoded(some_rows(300, payload_max=9000)), no_pause)
    for length in (PAGE, 3 * PAGE, MIB):
        spans = list(run.spans(length))
        assert spans[0].position == PAGE
        assert all(a.position + a.length == b.position and a.first < b.first for a, b in pairwise(spans))
        assert spans[-1].position + spans[-1].length == run._trailer.numbers_position
        assert all(span.length <= max(length, run.extent(span.first)[1]) for span in spans)
