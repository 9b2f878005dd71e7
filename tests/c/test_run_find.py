"""The rows of many names in C, against a search in plain Python: collisions, damage, little room, memory and disk."""

from __future__ import annotations

import os
import tempfile
from bisect import bisect_left, bisect_right
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_run_rows import NONCE, PAGE, exactly, key, paged, row, seal

from durable_log._core import ffi, lib

MISSING = 2**32 - 1
ROOM = 2**20
"""For the pages of most tests."""


class Table:
    """Pages of rows as a run has them, from the second page of a file on, in memory or on disk."""

    def __init__(self, pages, on_disk=False, damaged=()):
        self.rows = [rows_in(page) for page in pages]
        self.damaged = set(damaged)
        self.places = [1 + at // PAGE for at in accumulate(map(len, pages), initial=0)]
        self.fences = [key(rows[0])[0] for rows in self.rows]
        self.content = bytearray(bytes(PAGE) + b"".join(pages))
        for page in damaged:
            self.content[self.places[page] * PAGE + 20] ^= 1
        self.on_disk, self.length = on_disk, len(self.content)

    def search(self, wanted, room=None, even=False, runs_before=()):
        """Of each (hash, name): its row, None, or the position of the page that does not hold. And how many calls."""
        lookup = Lookup(wanted, room or ROOM)
        for table in (*runs_before, self):
            table.look(lookup, even)
        return lookup.found, lookup.calls

    def look(self, lookup, even=False):
        table = ffi.new("dl_run_table *")
        fences, places = ffi.new("uint64_t[]", self.fences), ffi.new("uint32_t[]", self.places)
        table.source.nonce, table.source.length, table.source.fd = NONCE, self.length, -1
        table.fences, table.pages, table.places = fences, len(self.fences), ffi.NULL if even else places
        memory = exactly(self.content)
        if not self.on_disk:
            table.source.bytes = memory
            return lookup.run(table)
        with tempfile.TemporaryFile() as file:
            file.write(self.content)
            file.flush()
            table.source.fd = file.fileno()
            return lookup.run(table)

    def expected(self, hash_, name):
        """The oracle: bisect the pages between which the fences leave a choice, the last one first."""
        high = bisect_right(self.fences, hash_) - 1
        low = high if high < 0 or self.fences[high] != hash_ else max(0, bisect_left(self.fences, hash_) - 1)
        while 0 <= low <= high:
            middle = (low + high + 1) // 2
            if middle in self.damaged:
                return self.places[middle] * PAGE
            rows = {key(each): each for each in self.rows[middle]}
            if (hash_, name) in rows:
                return rows[hash_, name]
            if (hash_, name) > max(rows):
                low = middle + 1
            elif (hash_, name) < min(rows):
                high = middle - 1
            else:
                return None
        return None


class Lookup:
    """What is looked for, and the caller's side of it: emptying, going on past what is damaged."""

    def __init__(self, wanted, room):
        names = [name for _, name in wanted]
        self.arrays = [
            ffi.new("uint64_t[]", [hash_ for hash_, _ in wanted]),
            exactly(b"".join(names)),
            ffi.new("uint32_t[]", list(accumulate(map(len, names)))),
            ffi.new("uint32_t[]", [MISSING] * len(wanted)),
        ]
        self.c = ffi.new("dl_run_lookup *")
        self.c.hashes, self.c.names, self.c.name_ends, self.c.rows = self.arrays
        self.c.names_length, self.c.count = sum(map(len, names)), len(wanted)
        self.out = ffi.new("uint8_t[]", room)
        self.c.out, self.c.out_size = self.out, room
        self.found, self.calls = [None] * len(wanted), 0

    def run(self, table):
        self.c.next, first = 0, 0
        while True:
            self.c.out_used = 0
            verdict, self.calls = lib.dl_run_find_many(table, self.c), self.calls + 1
            data = ffi.buffer(self.out, self.c.out_used)[:]
            for index in range(first, self.c.next):
                at = self.c.rows[index]
                if at != MISSING and self.found[index] is None:
                    self.found[index] = rows_of(data[at:], 1)[0]
            first = self.c.next
            if verdict == lib.DL_RUN_OK:
                assert first == self.c.count
                return verdict
            if verdict != lib.DL_RUN_FULL:
                if verdict not in (lib.DL_RUN_BAD_CRC, lib.DL_RUN_BAD_LENGTH):
                    return verdict
                self.found[first], self.c.rows[first] = self.c.position, 0
            elif not self.c.out_used:
                return verdict


def rows_of(data, count):
    found, at = [], 0
    for _ in range(count):
        size = 30 + int.from_bytes(data[at + 8 : at + 12], "little") + int.from_bytes(data[at + 28 : at + 30], "little")
        found.append(data[at : at + size])
        at += size
    return found


def rows_in(page):
    return rows_of(page[16:], int.from_bytes(page[12:14], "little"))


def table_of(drawn, on_disk=False, damaged=()):
    """A table of (hash, name, size of its payload); of what is the same, one row."""
    rows = {(hash_, name): row(hash_, name, 1, b"p" * size) for hash_, name, size in drawn}
    pages = paged([rows[each] for each in sorted(rows)], 1, lib.DL_RUN_ROWS)
    return Table(pages, on_disk, {page for page in damaged if page < len(pages)})


HASHES = st.sampled_from([0, 1, 2, 5, 2**63, 2**64 - 1])
NAMES = st.one_of(st.binary(min_size=1, max_size=3), st.sampled_from([b"a" * 900, b"a" * 1023 + b"b"]))
SIZES = st.sampled_from([0, 1, 500, 3000, 4050, 9000])
DRAWN = st.lists(st.tuples(HASHES, NAMES, SIZES), max_size=50)


@given(DRAWN, st.lists(st.tuples(HASHES, NAMES), max_size=20), st.sets(st.integers(0, 9), max_size=3), st.booleans())
def test_a_search_finds_what_the_oracle_finds(drawn, others, damaged, on_disk):
    table = table_of(drawn, on_disk, damaged)
    wanted = [(hash_, name) for hash_, name, _ in drawn] + others
    for room in (ROOM, 12 * 1024 + PAGE):
        assert table.search(wanted, room)[0] == [table.expected(*each) for each in wanted]


@given(st.lists(DRAWN, min_size=1, max_size=4), st.booleans())
def test_the_run_that_is_asked_first_has_the_word(pieces, on_disk):
    tables = [table_of(drawn, on_disk) for drawn in pieces]
    wanted = [(hash_, name) for drawn in pieces for hash_, name, _ in drawn]
    expected = [next(found for table in tables if (found := table.expected(*each)) is not None) for each in wanted]
    assert tables[-1].search(wanted, 12 * 1024 + PAGE, runs_before=tables[:-1])[0] == expected


@pytest.mark.parametrize("on_disk", [False, True])
def test_names_that_collide_on_many_pages_are_told_apart(on_disk):
    drawn = [(7, b"name %03d" % at, 500) for at in range(100)] + [(6, b"before", 0), (8, b"behind", 0)]
    table = table_of(drawn, on_disk)
    assert len(table.fences) > 12
    wanted = [(hash_, name) for hash_, name, _ in drawn] + [
        (7, b"name 050x"),
        (7, b"a"),
        (7, b"z"),
        (9, b"a"),
        (5, b"a"),
    ]
    found, calls = table.search(wanted)
    assert [each and key(each) for each in found] == [*wanted[:102], None, None, None, None, None]
    assert calls == 1


def test_pages_of_one_length_need_no_places():
    table = table_of([(at, b"name", 700) for at in range(40)])
    assert len(table.fences) == 8
    assert table.search([(at, b"name") for at in range(41)], even=True)[0] == [
        *(row(at, b"name", 1, b"p" * 700) for at in range(40)), None,
    ]  # fmt: skip


def test_a_buffer_of_one_page_is_enough_and_one_of_less_is_told():
    table = table_of([(at, b"name", 3000) for at in range(9)])
    wanted = [(at, b"name") for at in range(9)]
    found, calls = table.search(wanted, PAGE)
    assert found == [table.expected(*each) for each in wanted]
    assert calls == 9
    lookup = Lookup(wanted, PAGE - 1)
    assert table.look(lookup) == lib.DL_RUN_FULL
    assert (lookup.c.next, lookup.c.out_used) == (0, 0)


def test_a_page_that_finds_no_room_says_how_much_it_wants():
    table = table_of([(1, b"small", 1), (2, b"n" * 1024, 3 * 2**20), (3, b"small", 1)])
    wanted = [(1, b"small"), (2, b"n" * 1024), (3, b"small")]
    lookup = Lookup(wanted, 2**20)
    assert (table.look(lookup), lookup.calls) == (lib.DL_RUN_FULL, 2)
    assert (lookup.c.next, lookup.c.out_wanted) == (1, 3 * 2**20 + PAGE)
    assert table.search(wanted, lookup.c.out_wanted)[0] == [table.expected(*each) for each in wanted]


def test_what_is_known_already_is_not_looked_for():
    table = table_of([(1, b"a", 5)])
    lookup = Lookup([(1, b"a"), (1, b"a")], 2 * PAGE)
    lookup.c.rows[0] = 77
    table.look(lookup)
    assert (lookup.c.rows[0], lookup.c.rows[1]) == (77, 0)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_file_that_ends_early_is_damaged_where_it_ends(on_disk):
    table = table_of([(at, b"name", 3000) for at in range(3)], on_disk)
    whole = table.content
    for length in (0, PAGE, 2 * PAGE, 2 * PAGE + 1, 4 * PAGE - 1):
        table.content = whole[:length]
        # Its length in memory is what it is; of a file on disk, it is what it was.
        table.length = len(whole) if on_disk else length
        table.damaged = {page for page in range(3) if length < (page + 2) * PAGE}
        wanted = [(at, b"name") for at in range(3)]
        assert table.search(wanted)[0] == [table.expected(*each) for each in wanted]


LONGEST = lib.DL_RUN_PAGE_MAX // PAGE


@pytest.mark.parametrize("places", [[1, 1], [2, 1], [1, 2**32 - 1], [1, 2 + LONGEST], [2**32 - 1, 0]])
def test_places_that_cannot_be_are_not_read(places):
    table = table_of([(1, b"a", 5)])
    table.places = places
    assert table.search([(1, b"a")])[0] == [places[0] * PAGE]


def test_ends_of_names_that_cannot_be_are_refused():
    table = table_of([(1, b"a", 5)])
    for ends in ([3, 2], [1, 9], [2**32 - 1, 3]):
        lookup = Lookup([(5, b"abc"), (1, b"x")], PAGE)
        lookup.c.name_ends[0], lookup.c.name_ends[1] = ends
        assert table.look(lookup) == lib.DL_RUN_INPUT


def test_a_file_that_is_not_open_is_told_with_its_error():
    table = table_of([(1, b"a", 5)])
    lookup, c = Lookup([(1, b"a")], PAGE), ffi.new("dl_run_table *")
    fences = ffi.new("uint64_t[]", table.fences)
    c.fences, c.pages, c.source.length, c.source.nonce, c.source.fd = fences, 1, 2 * PAGE, NONCE, -1
    closed = os.open(os.devnull, os.O_RDONLY)
    os.close(closed)
    for fd in (-1, closed):
        c.source.fd = fd
        assert lookup.run(c) == lib.DL_RUN_READ
        assert (os.strerror(lookup.c.error), lookup.c.position) == ("Bad file descriptor", PAGE)


def test_a_run_without_pages_has_nothing():
    table = Table([])
    assert table.search([(0, b"a"), (2**64 - 1, b"b")])[0] == [None, None]
    assert table.search([])[0] == []


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1), st.integers(0, 300), st.sampled_from([0, 1, 2**63]))
def test_whatever_a_sealed_page_says_nothing_outside_of_it_is_read(body, items, length, hash_):
    table = table_of([(1, b"a", 5)])
    table.content[PAGE : 2 * PAGE] = seal(body, items, 1, lib.DL_RUN_ROWS, length=length)
    table.fences = [hash_]
    for name in (b"a", body[:3]):
        table.look(Lookup([(hash_, name), (2**63, name)], 2 * PAGE))


@pytest.mark.parametrize(("size", "used"), [(PAGE, PAGE + 1), (2**33, MISSING), (2**33, 2**32)])
def test_what_has_no_room_is_not_looked_for(size, used):
    lookup, run = Lookup([(1, b"a")], PAGE), ffi.new("dl_run_table *")
    lookup.c.out_size, lookup.c.out_used = size, used
    run.source.fd = -1
    assert lib.dl_run_find_many(run, lookup.c) == lib.DL_RUN_FULL
    assert (lookup.c.next, lookup.c.rows[0]) == (0, MISSING)


@pytest.mark.parametrize("places", [[1, 1], [2, 1], [1, 2 + lib.DL_RUN_PAGE_MAX // PAGE], [1, 2**32 - 1]])
def test_a_page_that_cannot_be_so_long_is_not_read(places):
    table = table_of([(1, b"a", 0)])
    table.places = places
    assert table.search([(1, b"a")], 2 * PAGE)[0] == [places[0] * PAGE]
