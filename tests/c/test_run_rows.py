"""Rows and pages of a run in C, against a codec in plain Python; whatever a page says, nothing outside it is read."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib

NONCE = 0x1234ABCD
PAGE = 4096
ROW = struct.Struct("<QQIH")
NUMBER = struct.Struct("<QI")


def row(hash_, name, number=1, payload=b"", flags=0):
    return ROW.pack(hash_, number | flags << 48, len(payload), len(name)) + name + payload


def key(encoded):
    return ROW.unpack_from(encoded)[0], encoded[22 : 22 + ROW.unpack_from(encoded)[3]]


def seal(body, items, place, kind, nonce=NONCE, length=None):
    head = struct.pack("<IIHBB", 16 + len(body) if length is None else length, place, items, kind, 0)
    page = head + body
    page += bytes(-(len(page) + 4) % PAGE)
    return struct.pack("<I", lib.dl_crc32c_portable(nonce, page, len(page))) + page


def paged(items, place, kind):
    """The oracle of the builder: pages as large as their first item needs, filled while items fit."""
    pages, body, count, size = [], b"", 0, 0
    for item in items:
        if count and 16 + len(body) + len(item) > size:
            pages.append(seal(body, count, place + sum(map(len, pages)) // PAGE, kind))
            body, count = b"", 0
        if not count:
            size = -(-(16 + len(item)) // PAGE) * PAGE
        body, count = body + item, count + 1
    return [*pages, seal(body, count, place + sum(map(len, pages)) // PAGE, kind)] if count else pages


def exactly(data):
    """Memory that ends where the bytes do, so that a sanitizer sees a read beyond them."""
    memory = ffi.new("uint8_t[]", max(1, len(data)))
    ffi.memmove(memory, data, len(data))
    return memory


def find(page, hash_, name, place=1, nonce=NONCE):
    at = ffi.new("size_t *")
    return lib.dl_run_find(exactly(page), len(page), place, nonce, hash_, name, len(name), at), at[0]


def survey(page, kind=lib.DL_RUN_ROWS, place=1, nonce=NONCE):
    info = ffi.new("dl_run_page *")
    return lib.dl_run_survey(exactly(page), len(page), place, nonce, kind, 0, info), info


class Builder:
    """A builder with small arrays, emptied as it asks for it."""

    def __init__(self, kind, place=1, size=2 * lib.DL_RUN_PAGE_MAX, fences=3, pairs=5):
        self.arrays = [
            ffi.new("uint8_t[]", size),
            ffi.new("uint64_t[]", fences),
            ffi.new("uint32_t[]", fences),
            ffi.new("dl_run_pair[]", pairs),
        ]
        self.c = ffi.new("dl_run_builder *")
        self.c.pages, self.c.fences, self.c.places, self.c.pairs = self.arrays
        self.c.pages_size, self.c.fences_size, self.c.pairs_size = size, fences, pairs
        if kind == lib.DL_RUN_NUMBERS:
            self.c.pairs = ffi.NULL
        self.c.place, self.c.nonce, self.c.kind = place, NONCE, kind
        self.out, self.fences, self.places, self.pairs = b"", [], [], []

    def empty(self):
        self.out += ffi.buffer(self.c.pages, self.c.pages_used)[:]
        self.fences += [self.c.fences[i] for i in range(self.c.fences_used)]
        self.places += [self.c.places[i] for i in range(self.c.fences_used)]
        self.pairs += [(self.arrays[3][i].key, self.arrays[3][i].value) for i in range(self.c.pairs_used)]
        lib.dl_run_emptied(self.c)
        self.c.pairs_used = 0

    def finish(self):
        lib.dl_run_seal(self.c)
        self.empty()
        return self.out


def scanned(blob):
    count, bytes_read = ffi.new("size_t *"), ffi.new("size_t *")
    memory = exactly(blob)
    verdict = lib.dl_run_rows_scan(memory, len(blob), ffi.NULL, 0, count, bytes_read)
    pairs = ffi.new("dl_run_pair[]", count[0])
    lib.dl_run_rows_scan(memory, len(blob), pairs, count[0], count, bytes_read)
    return verdict, memory, pairs, count[0], bytes_read[0]


NAMES = st.binary(min_size=1, max_size=4)
ROWS = st.lists(st.tuples(st.integers(0, 5), NAMES, st.integers(0, 9), st.booleans()), max_size=80)


def rows_of(drawn):
    return [row(hash_, name, at, b"p" * size, dead) for at, (hash_, name, size, dead) in enumerate(drawn)]


# sorting


@given(ROWS)
def test_rows_are_sorted_and_the_last_of_a_name_stays(drawn):
    rows = rows_of(drawn)
    verdict, memory, pairs, count, _ = scanned(b"".join(rows))
    assert (verdict, count) == (lib.DL_RUN_OK, len(rows))
    left = lib.dl_run_rows_sort(memory, pairs, ffi.new("dl_run_pair[]", count), count)
    starts = {sum(map(len, rows[:at])): at for at in range(len(rows))}
    assert [rows[starts[pairs[i].value]] for i in range(left)] == [
        each for _, each in sorted({key(each): each for each in rows}.items())
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 31, 32, 33, 48, 100, 1000, 4097])
def test_pairs_are_sorted_at_every_size(count):
    draw = random.Random(count)
    values = [(draw.randrange(50), draw.getrandbits(64)) for _ in range(count)]
    pairs, scratch = ffi.new("dl_run_pair[]", values), ffi.new("dl_run_pair[]", count)
    lib.dl_run_pairs_sort(pairs, scratch, count)
    assert [(pairs[i].key, pairs[i].value) for i in range(count)] == sorted(values)


def test_a_row_that_was_cut_is_no_row():
    whole = row(1, b"name", 2, b"payload")
    for length in range(1, len(whole)):
        verdict, _, _, count, bytes_read = scanned(whole + whole[:length])
        assert (verdict, count, bytes_read) == (lib.DL_RUN_BAD_ITEM, 1, len(whole))


@pytest.mark.parametrize(
    "bad",
    [
        row(1, b""),
        row(1, b"n" * 1025),
        ROW.pack(1, 1, 2**32 - 1, 1) + b"n" * 9,
        row(1, b"n", 1, bytes(2**20 + 1)),
    ],
    ids=["no name", "long name", "length of all ones", "long payload"],
)
def test_a_row_beyond_the_limits_is_no_row(bad):
    assert scanned(bad)[0] == lib.DL_RUN_BAD_ITEM
    assert survey(seal(bad, 1, 1, lib.DL_RUN_ROWS))[0] in (lib.DL_RUN_BAD_ITEM, lib.DL_RUN_BAD_LENGTH)


def test_a_scan_stops_where_the_array_is_full():
    blob = row(1, b"a") * 3
    count, bytes_read = ffi.new("size_t *"), ffi.new("size_t *")
    pairs = ffi.new("dl_run_pair[]", 2)
    assert lib.dl_run_rows_scan(exactly(blob), len(blob), pairs, 2, count, bytes_read) == lib.DL_RUN_FULL
    assert (count[0], bytes_read[0]) == (2, len(blob) // 3 * 2)


# pages


@given(st.lists(st.tuples(NAMES, st.sampled_from([0, 50, 2000, 4057, 4058, 9000])), max_size=40), st.integers(1, 9))
def test_the_builder_lays_pages_out_as_the_oracle_does(drawn, place):
    rows = [row(at, name, at, b"p" * size) for at, (name, size) in enumerate(drawn)]
    _, memory, pairs, count, _ = scanned(b"".join(rows))
    builder, following = Builder(lib.DL_RUN_ROWS, place), ffi.new("size_t *")
    length = sum(map(len, rows))
    while lib.dl_run_pack_rows(memory, length, pairs, count, following, builder.c) == lib.DL_RUN_FULL:
        builder.empty()
    pages = paged(rows, place, lib.DL_RUN_ROWS)
    assert builder.finish() == b"".join(pages)
    assert builder.fences == [struct.unpack_from("<Q", page, 16)[0] for page in pages]
    assert builder.places == [place + sum(map(len, pages[:at])) // PAGE for at in range(len(pages))]
    of_page = [at for at, page in enumerate(pages) for _ in range(struct.unpack_from("<H", page, 12)[0])]
    assert builder.pairs == list(enumerate(of_page))
    assert builder.c.count == len(rows)


def test_numbers_fill_pages_of_340():
    values = [(number * 3, number % 7) for number in range(1000)]
    builder, following = Builder(lib.DL_RUN_NUMBERS), ffi.new("size_t *")
    pairs = ffi.new("dl_run_pair[]", values)
    while lib.dl_run_pack_pairs(pairs, 1000, following, builder.c) == lib.DL_RUN_FULL:
        builder.empty()
    assert builder.finish() == b"".join(paged([NUMBER.pack(*each) for each in values], 1, lib.DL_RUN_NUMBERS))
    assert builder.fences == [0, 340 * 3, 680 * 3]


def test_packing_refuses_positions_outside_of_the_rows():
    blob, following = row(1, b"a"), ffi.new("size_t *")
    for at in (1, len(blob), len(blob) + 1, 2**64 - 1):
        pairs = ffi.new("dl_run_pair[]", [(1, at)])
        builder = Builder(lib.DL_RUN_ROWS)
        assert lib.dl_run_pack_rows(exactly(blob), len(blob), pairs, 1, following, builder.c) == lib.DL_RUN_BAD_ITEM


def test_a_row_is_found_or_said_to_lie_elsewhere():
    rows = [row(10, b"b", 1, b"x"), row(10, b"bb", 2), row(20, b"a", 3)]
    page = seal(b"".join(rows), 3, 1, lib.DL_RUN_ROWS)
    assert find(page, 10, b"b") == (lib.DL_RUN_OK, 16)
    assert find(page, 10, b"bb") == (lib.DL_RUN_OK, 16 + len(rows[0]))
    assert find(page, 20, b"a") == (lib.DL_RUN_OK, 16 + len(rows[0]) + len(rows[1]))
    for hash_, name, verdict in [
        (9, b"z", lib.DL_RUN_BEFORE),
        (10, b"a", lib.DL_RUN_BEFORE),
        (10, b"ba", lib.DL_RUN_ABSENT),
        (15, b"b", lib.DL_RUN_ABSENT),
        (20, b"aa", lib.DL_RUN_AFTER),
        (21, b"", lib.DL_RUN_AFTER),
    ]:
        assert find(page, hash_, name)[0] == verdict


def test_a_page_of_another_place_kind_or_file_does_not_hold():
    page = seal(row(1, b"a"), 1, 7, lib.DL_RUN_ROWS)
    assert find(page, 1, b"a", place=7)[0] == lib.DL_RUN_OK
    assert find(page, 1, b"a", place=8)[0] == lib.DL_RUN_BAD_PLACE
    assert find(page, 1, b"a", place=7, nonce=NONCE + 1)[0] == lib.DL_RUN_BAD_CRC
    assert survey(page, lib.DL_RUN_NUMBERS, place=7)[0] == lib.DL_RUN_BAD_PLACE


def test_every_flipped_bit_of_a_page_is_seen():
    page = bytearray(seal(row(1, b"name", 1, b"payload") + row(2, b"other"), 2, 1, lib.DL_RUN_ROWS))
    for bit in range(8 * len(page)):
        if bit < 8 * 100 or bit % 13 == 0:
            page[bit // 8] ^= 1 << bit % 8
            assert find(bytes(page), 1, b"name")[0] in (lib.DL_RUN_BAD_CRC, lib.DL_RUN_BAD_LENGTH)
            page[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("length", [0, 1, 16, 17, PAGE - 1, PAGE, PAGE + 1, 2**20, 2**31, 2**32 - 1])
def test_a_forged_length_reads_nothing_outside_of_the_page(length):
    page = seal(row(1, b"a"), 1, 1, lib.DL_RUN_ROWS, length=length)
    for available in (0, 1, 16, 100, PAGE - 1, PAGE):
        assert find(page[:available], 1, b"b")[0] != lib.DL_RUN_OK
        assert survey(page[:available])[0] != lib.DL_RUN_OK


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1), st.sampled_from([1, 2]), st.integers(0, 300))
def test_whatever_a_sealed_page_says_nothing_outside_of_it_is_read(body, items, kind, length):
    page = seal(body, items, 1, kind, length=length)
    numbers = ffi.new("uint64_t[]", [0, 1, 2**63])
    found, count, at = ffi.new("dl_run_pair[]", 3), ffi.new("size_t *"), ffi.new("uint32_t[]", 3)
    memory = exactly(page)
    survey(page, kind)
    find(page, 0, body[:4])
    lib.dl_run_numbers_find(memory, len(page), 1, NONCE, numbers, 3, found, count)
    lib.dl_run_rows_select(memory, len(page), 1, NONCE, found, 3, at)
    names_of([page], b"", b"", 2)
    merged([[page]], kind)


def test_a_survey_says_what_a_page_comes_to():
    rows = [row(5, b"a", 9), row(5, b"b", 2, b"x", 1), row(6, b"a", 2**48 - 1, b"", 1)]
    verdict, info = survey(seal(b"".join(rows), 3, 1, lib.DL_RUN_ROWS))
    assert verdict == lib.DL_RUN_OK
    assert (info.items, info.tombstones, info.first, info.last) == (3, 2, 5, 16 + len(rows[0]) + len(rows[1]))
    assert (info.number_min, info.number_max) == (2, 2**48 - 1)
    for bad in ([rows[1], rows[0]], [rows[2], rows[0]], [rows[0], rows[0]]):
        assert survey(seal(b"".join(bad), 2, 1, lib.DL_RUN_ROWS))[0] == lib.DL_RUN_BAD_ORDER
    assert survey(seal(b"".join(rows), 2, 1, lib.DL_RUN_ROWS))[0] == lib.DL_RUN_BAD_ITEM
    assert survey(seal(b"".join(rows), 4, 1, lib.DL_RUN_ROWS))[0] == lib.DL_RUN_BAD_ITEM


# by number


@given(st.sets(st.integers(0, 60), min_size=1), st.lists(st.integers(0, 60)))
def test_numbers_are_found_in_a_page_of_them(there, wanted):
    wanted = sorted(wanted)
    page = seal(b"".join(NUMBER.pack(each, each + 7) for each in sorted(there)), len(there), 1, lib.DL_RUN_NUMBERS)
    found, count = ffi.new("dl_run_pair[]", max(1, len(wanted))), ffi.new("size_t *")
    numbers = ffi.new("uint64_t[]", wanted)
    assert lib.dl_run_numbers_find(exactly(page), PAGE, 1, NONCE, numbers, len(wanted), found, count) == lib.DL_RUN_OK
    pairs = [(found[i].key, found[i].value) for i in range(count[0])]
    assert pairs == [(each + 7, each) for each in sorted(there.intersection(wanted))]


@given(st.sets(st.integers(0, 40), min_size=1), st.sets(st.integers(0, 40), min_size=1))
def test_rows_are_selected_by_number(there, wanted):
    there = sorted(there, reverse=True)
    rows = [row(at, b"name", number) for at, number in enumerate(there)]
    page = seal(b"".join(rows), len(rows), 1, lib.DL_RUN_ROWS)
    pairs = ffi.new("dl_run_pair[]", [(0, number) for number in sorted(wanted)])
    at = ffi.new("uint32_t[]", len(wanted))
    assert lib.dl_run_rows_select(exactly(page), PAGE, 1, NONCE, pairs, len(wanted), at) == lib.DL_RUN_OK
    expected = {number: 16 + index * len(rows[0]) for index, number in enumerate(there)}
    assert list(at) == [expected.get(number, 0) for number in sorted(wanted)]


# names and merging


def names_of(pages, prefix, after, limit):
    data = b"".join(pages)
    texts, heap = ffi.new("uint8_t[]", limit * 1024), ffi.new("dl_run_name[]", limit)
    start, end = exactly(prefix), exactly(after)
    names = ffi.new("dl_run_names *", [start, end, len(prefix), len(after), texts, heap, limit, 0, 0])
    bytes_read = ffi.new("size_t *")
    verdict = lib.dl_run_names_scan(exactly(data), len(data), 1, NONCE, 0, names, bytes_read)
    lib.dl_run_names_sort(names)
    found = [ffi.buffer(texts + heap[i].slot * 1024, heap[i].length)[:] for i in range(names.count)]
    return verdict, found, names.matches, bytes_read[0], [(heap[i].page, heap[i].at) for i in range(names.count)]


@given(st.sets(st.binary(min_size=1, max_size=3), max_size=60), st.binary(max_size=2), NAMES, st.integers(1, 20))
def test_the_least_names_are_kept(there, prefix, after, limit):
    rows = [row(at, name, at, bytes(300)) for at, name in enumerate(sorted(there, key=lambda name: name[::-1]))]
    pages = paged(rows, 1, lib.DL_RUN_ROWS)
    expected = sorted(name for name in there if name.startswith(prefix) and name > after)
    verdict, found, matches, bytes_read, places = names_of(pages, prefix, after, limit)
    assert (verdict, found, matches) == (lib.DL_RUN_OK, expected[:limit], len(expected))
    assert bytes_read == sum(map(len, pages))
    assert [key(pages[page][at:])[1] for page, at in places] == found


def test_a_scan_for_names_stops_before_a_bad_page():
    pages = paged([row(at, b"name %02d" % at, at, bytes(1000)) for at in range(12)], 1, lib.DL_RUN_ROWS)
    pages[2] = pages[2][:-1] + b"x"
    assert names_of(pages, b"", b"", 3)[::3] == (lib.DL_RUN_BAD_CRC, 2 * PAGE)


def merged(pieces, kind, drop=0, places=None):
    """Merge sources that are lists of pages, one page at a time each."""
    sources = ffi.new("dl_run_source[]", len(pieces))
    heap, which = ffi.new("uint32_t[]", len(pieces)), ffi.new("uint32_t *")
    given_pages, held, builder = [0] * len(pieces), {}, Builder(kind)
    for source in sources:
        source.nonce = NONCE
    while True:
        verdict = lib.dl_run_merge(sources, len(pieces), heap, drop, builder.c, which)
        if verdict == lib.DL_RUN_FULL:
            builder.empty()
        elif verdict == lib.DL_RUN_INPUT:
            index = which[0]
            source, pages = sources[index], pieces[index]
            if given_pages[index] == len(pages):
                source.last, source.length, source.next = 1, 0, 0
                continue
            page = pages[given_pages[index]]
            held[index] = exactly(page)
            source.bytes, source.length, source.next = held[index], len(page), 0
            source.place = 1 + sum(map(len, pages[: given_pages[index]])) // PAGE
            given_pages[index] += 1
        else:
            return verdict, builder.finish(), which[0]


@given(st.lists(ROWS, max_size=7), st.booleans())
def test_of_merged_rows_the_first_source_wins(drawn, drop):
    runs = [dict(sorted({key(each): each for each in rows_of(rows)}.items())) for rows in drawn]
    pieces = [paged(list(rows.values()), 1, lib.DL_RUN_ROWS) for rows in runs]
    expected = {}
    for rows in reversed(runs):
        expected.update(rows)
    left = [each for _, each in sorted(expected.items()) if not (drop and each[14] & 1)]
    assert merged(pieces, lib.DL_RUN_ROWS, drop)[:2] == (lib.DL_RUN_OK, b"".join(paged(left, 1, lib.DL_RUN_ROWS)))


@given(st.lists(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), max_size=500), max_size=9))
def test_merged_numbers_are_all_kept(drawn):
    pieces = [paged([NUMBER.pack(*each) for each in sorted(piece)], 1, lib.DL_RUN_NUMBERS) for piece in drawn]
    every = [NUMBER.pack(*each) for each in sorted(each for piece in drawn for each in piece)]
    expected = b"".join(paged(every, 1, lib.DL_RUN_NUMBERS))
    assert merged(pieces, lib.DL_RUN_NUMBERS)[:2] == (lib.DL_RUN_OK, expected)


def test_large_rows_pass_through_the_builder():
    pieces = [[row(at * 2 + side, b"n", at, bytes([at]) * (2**20 - at)) for at in range(3)] for side in (0, 1)]
    every = sorted((each for piece in pieces for each in piece), key=key)
    verdict, out, _ = merged([paged(piece, 1, lib.DL_RUN_ROWS) for piece in pieces], lib.DL_RUN_ROWS)
    assert verdict == lib.DL_RUN_OK
    assert out == b"".join(paged(every, 1, lib.DL_RUN_ROWS))


def test_a_bad_page_stops_the_merge_and_says_whose_it_is():
    pages = paged([row(at, b"name", at, bytes(1000)) for at in range(12)], 1, lib.DL_RUN_ROWS)
    damaged = [*pages[:2], pages[2][:-1] + b"x", *pages[3:]]
    verdict, _, which = merged([pages, damaged], lib.DL_RUN_ROWS)
    assert (verdict, which) == (lib.DL_RUN_BAD_CRC, 1)
