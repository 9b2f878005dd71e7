"""Rows, names and pages of a run in C, against a codec in plain Python; no page has anything outside of it read."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib

NONCE = 0x1234ABCD
PAGE = 4096
ROW = struct.Struct("<QIQQH")
NUMBER = struct.Struct("<QI")
NAME = struct.Struct("<QQH")
NEVER = 2**64 - 1
TOMBSTONE, HIDDEN = 1, 2


def row(hash_, name, number=1, payload=b"", flags=0, deadline=NEVER):
    return ROW.pack(hash_, len(payload), number | flags << 48, deadline, len(name)) + name + payload


def name_entry(name, number=1, flags=0, deadline=NEVER):
    return NAME.pack(number | flags << 48, deadline, len(name)) + name


def key(encoded):
    return ROW.unpack_from(encoded)[0], encoded[30 : 30 + ROW.unpack_from(encoded)[4]]


def entry_of(encoded):
    """The name in a row."""
    return encoded[12 : 30 + ROW.unpack_from(encoded)[4]]


def text_of(entry):
    return entry[18:]


def flags_of(entry):
    return entry[6]


def is_tombstone(encoded):
    return flags_of(entry_of(encoded)) & TOMBSTONE


def seal(body, items, place, kind, nonce=NONCE, length=None):
    head = struct.pack("<IIHBB", 16 + len(body) if length is None else length, place, items, kind, 0)
    page = head + body
    page += bytes(-(len(page) + 4) % PAGE)
    return struct.pack("<I", lib.dl_crc32c_portable(nonce, page, len(page))) + page


def paged(items, place, kind):
    """The oracle of the builder: pages as large as their first item needs, filled while items fit if they are small."""
    pages, body, count, size = [], b"", 0, 0
    for item in items:
        if count and (16 + len(body) + len(item) > size or size > 2**16):
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
    """A builder with small arrays, emptied as it asks for it. One of names makes no tables."""

    def __init__(self, kind, place=1, size=2 * lib.DL_RUN_SLICE, fences=3, pairs=5):
        self.arrays = [
            ffi.new("uint8_t[]", size),
            ffi.new("uint64_t[]", fences),
            ffi.new("uint32_t[]", fences),
            ffi.new("dl_run_pair[]", pairs),
        ]
        self.c = ffi.new("dl_run_builder *")
        self.c.pages, self.c.fences, self.c.places, self.c.pairs = self.arrays
        self.c.pages_size, self.c.fences_size, self.c.pairs_size = size, fences, pairs
        if kind != lib.DL_RUN_ROWS:
            self.c.pairs = ffi.NULL
        if kind == lib.DL_RUN_NAMES:
            self.c.fences, self.c.places = ffi.NULL, ffi.NULL
        self.c.deadline_min = NEVER
        self.c.place, self.c.nonce, self.c.kind = place, NONCE, kind
        self.out, self.fences, self.places, self.pairs = b"", [], [], []

    def empty(self):
        self.out += ffi.buffer(self.c.pages, self.c.pages_used)[:]
        self.fences += [self.c.fences[i] for i in range(self.c.fences_used)]
        self.places += [self.c.places[i] for i in range(self.c.fences_used)]
        self.pairs += [(self.arrays[3][i].key, self.arrays[3][i].value) for i in range(self.c.pairs_used)]
        lib.dl_run_emptied(self.c)
        self.c.pairs_used = 0
        if self.c.pages_wanted > self.c.pages_size:
            assert self.c.open_length == 0
            self.arrays[0] = ffi.new("uint8_t[]", self.c.pages_wanted)
            self.c.pages, self.c.pages_size = self.arrays[0], self.c.pages_wanted

    def finish(self):
        lib.dl_run_seal(self.c)
        self.empty()
        return self.out


def scanned(blob, kind=lib.DL_RUN_ROWS):
    count, bytes_read = ffi.new("size_t *"), ffi.new("size_t *")
    memory = exactly(blob)
    verdict = lib.dl_run_rows_scan(memory, len(blob), kind, ffi.NULL, 0, count, bytes_read)
    pairs = ffi.new("dl_run_pair[]", count[0])
    lib.dl_run_rows_scan(memory, len(blob), kind, pairs, count[0], count, bytes_read)
    return verdict, memory, pairs, count[0], bytes_read[0]


NAMES = st.binary(min_size=1, max_size=4)
LIKE_NAMES = st.one_of(
    NAMES,
    st.lists(
        st.sampled_from([b"a", b"b", b"\0", b"\xff", b"sixteen bytes ..", b"x" * 70]), min_size=1, max_size=12
    ).map(b"".join),
)
"""Names that are prefixes of each other, with zeroes, and alike in more than the eight bytes of a key."""

DEADLINES = st.sampled_from([0, 1, 5, 2**40, NEVER - 1, NEVER])
ROWS = st.lists(
    st.tuples(st.integers(0, 5), LIKE_NAMES, st.integers(0, 9), st.sampled_from([0, 0, 1, 2, 3]), DEADLINES),
    max_size=80,
)


def rows_of(drawn):
    return [row(hash_, name, at, b"p" * size, *rest) for at, (hash_, name, size, *rest) in enumerate(drawn)]


def last_of_each(rows):
    """The oracle of sorting by name: the last row of each name, by the names' bytes."""
    return [each for _, each in sorted({key(each)[1]: each for each in rows}.items())]


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


@given(ROWS)
def test_rows_are_sorted_by_name_and_packed_as_names(drawn):
    rows = rows_of(drawn)
    blob = b"".join(rows)
    verdict, memory, pairs, count, _ = scanned(blob, lib.DL_RUN_NAMES)
    assert (verdict, count) == (lib.DL_RUN_OK, len(rows))
    left = lib.dl_run_rows_sort(memory, pairs, ffi.new("dl_run_pair[]", count), count)
    builder, following = Builder(lib.DL_RUN_NAMES), ffi.new("size_t *")
    while lib.dl_run_pack_rows(memory, len(blob), pairs, left, following, builder.c) == lib.DL_RUN_FULL:
        builder.empty()
    expected = last_of_each(rows)
    assert builder.finish() == b"".join(paged([entry_of(each) for each in expected], 1, lib.DL_RUN_NAMES))
    assert builder.c.count == len(expected)


@pytest.mark.parametrize("count", [0, 1, 2, 15, 16, 17, 31, 32, 33, 48, 100, 1000, 4097])
def test_pairs_are_sorted_at_every_size(count):
    draw = random.Random(count)
    values = [(draw.randrange(50), draw.getrandbits(64)) for _ in range(count)]
    pairs, scratch = ffi.new("dl_run_pair[]", values), ffi.new("dl_run_pair[]", count)
    lib.dl_run_pairs_sort(pairs, scratch, count)
    assert [(pairs[i].key, pairs[i].value) for i in range(count)] == sorted(values)


@pytest.mark.parametrize("count", [16, 17, 32, 33, 100])
def test_pairs_that_are_sorted_stay_so(count):
    values = [(at // 3, at) for at in range(count)]
    pairs, scratch = ffi.new("dl_run_pair[]", values), ffi.new("dl_run_pair[]", count)
    lib.dl_run_pairs_sort(pairs, scratch, count)
    assert [(pairs[i].key, pairs[i].value) for i in range(count)] == values


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
        ROW.pack(1, 2**32 - 1, 1, NEVER, 1) + b"n" * 9,
        ROW.pack(1, 2**30 + 1, 1, NEVER, 1) + b"n" * 9,
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
    verdict = lib.dl_run_rows_scan(exactly(blob), len(blob), lib.DL_RUN_ROWS, pairs, 2, count, bytes_read)
    assert verdict == lib.DL_RUN_FULL
    assert (count[0], bytes_read[0]) == (2, len(blob) // 3 * 2)


# pages


@given(st.lists(st.tuples(NAMES, st.sampled_from([0, 50, 2000, 4049, 4050, 9000])), max_size=40), st.integers(1, 9))
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
    names = seal(name_entry(b"a"), 1, 7, lib.DL_RUN_NAMES)
    assert taken([names], b"", b"", 1, place=7)[0] == lib.DL_RUN_OK
    assert taken([names], b"", b"", 1, place=6)[0] == lib.DL_RUN_BAD_PLACE
    page = seal(row(1, b"a"), 1, 7, lib.DL_RUN_ROWS)
    assert taken([page], b"", b"", 1, place=7)[0] == lib.DL_RUN_BAD_PLACE
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


@given(st.binary(max_size=200), st.integers(0, 2**16 - 1), st.sampled_from([1, 2, 3]), st.integers(0, 300))
def test_whatever_a_sealed_page_says_nothing_outside_of_it_is_read(body, items, kind, length):
    page = seal(body, items, 1, kind, length=length)
    numbers = ffi.new("uint64_t[]", [0, 1, 2**63])
    found, count, at = ffi.new("dl_run_pair[]", 3), ffi.new("size_t *"), ffi.new("uint32_t[]", 3)
    memory = exactly(page)
    survey(page, kind)
    find(page, 0, body[:4])
    lib.dl_run_numbers_find(memory, len(page), 1, NONCE, numbers, 3, found, count)
    lib.dl_run_rows_select(memory, len(page), 1, NONCE, found, 3, at)
    seek(page, b"", b"")
    taken([page], b"", b"", 2)
    due([page], NEVER, 2)
    merged([[page]], kind)


def test_a_survey_says_what_a_page_comes_to():
    rows = [row(5, b"a", 9, b"", 0, 700), row(5, b"b", 2, b"x", 1, 60), row(6, b"a", 2**48 - 1, b"", 3, 50)]
    verdict, info = survey(seal(b"".join(rows), 3, 1, lib.DL_RUN_ROWS))
    assert verdict == lib.DL_RUN_OK
    assert (info.items, info.tombstones, info.first, info.last) == (3, 2, 5, 16 + len(rows[0]) + len(rows[1]))
    assert (info.number_min, info.number_max, info.deadline_min) == (2, 2**48 - 1, 700)
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


# names


def bounds(prefix, after):
    start, end = exactly(prefix), exactly(after)
    return ffi.new("dl_run_range *", [start, end, len(prefix), len(after)]), start, end


def picked(call, pages, room):
    """Verdict, names and place of the last page of what ``call`` picks out of ``pages``."""
    data, at = b"".join(pages), ffi.new("uint32_t[]", room)
    found = ffi.new("dl_run_picked *", [at, room, 99, 99])
    verdict = call(exactly(data), len(data), found)
    names = [data[at[i] : at[i] + 18 + NAME.unpack_from(data, at[i])[2]] for i in range(found.count)]
    return verdict, names, found.bytes_read


def taken(pages, prefix, after, room, place=1):
    span = bounds(prefix, after)
    return picked(
        lambda data, size, found: lib.dl_run_names_take(data, size, place, NONCE, span[0], found), pages, room
    )


def due(pages, now_ms, room):
    return picked(
        lambda data, size, found: lib.dl_run_names_due(data, size, 1, NONCE, 0, now_ms, ffi.new("uint64_t *"), found),
        pages,
        room,
    )


def seek(page, prefix, after):
    span = bounds(prefix, after)
    return lib.dl_run_names_seek(exactly(page), len(page), 1, NONCE, span[0])


@given(st.sets(LIKE_NAMES, max_size=60), st.binary(max_size=2), LIKE_NAMES, st.integers(1, 70))
def test_the_names_of_a_range_are_taken(there, prefix, after, room):
    entries = [name_entry(name, at) for at, name in enumerate(sorted(there))]
    expected = [each for each in entries if text_of(each).startswith(prefix) and text_of(each) > after]
    verdict, found, _ = taken(paged(entries, 1, lib.DL_RUN_NAMES), prefix, after, room)
    assert found == expected[:room]
    if verdict == lib.DL_RUN_FULL:
        assert len(expected) > room
    elif verdict == lib.DL_RUN_AFTER:
        assert any(text_of(each) > max(prefix, after) and each not in expected for each in entries)
    else:
        assert verdict == lib.DL_RUN_OK
        assert expected[-1:] == [each for each in entries[-1:] if each in expected]


@given(st.sets(LIKE_NAMES, min_size=1, max_size=20), st.binary(max_size=2), st.one_of(st.just(b""), LIKE_NAMES))
def test_a_page_of_names_says_where_a_range_begins(there, prefix, after):
    names = sorted(there)
    below = [name <= after or name < prefix for name in names]
    expected = lib.DL_RUN_AFTER if all(below) else lib.DL_RUN_OK if below[0] else lib.DL_RUN_BEFORE
    page = seal(b"".join(map(name_entry, names)), len(names), 1, lib.DL_RUN_NAMES)
    assert len(page) > PAGE or seek(page, prefix, after) == expected


def test_names_that_end_where_a_range_does_are_told_apart():
    names = [b"a", b"a\0", b"a\0\0", b"ab", b"b", b"\xc3\xa4", "äb".encode(), b"\xff" * 1024]
    pages = paged([name_entry(name) for name in names], 1, lib.DL_RUN_NAMES)

    def listed(prefix, after):
        return [text_of(each) for each in taken(pages, prefix, after, 9)[1]]

    assert listed(b"", b"") == names
    assert listed(b"a", b"") == names[:4]
    assert listed(b"a", b"a") == names[1:4]
    assert listed(b"a\0", b"") == names[1:3]
    assert listed(b"a\0", b"a\0") == names[2:3]
    assert listed("ä".encode(), b"b") == names[5:7]
    assert listed(b"\xff" * 1024, b"") == names[7:]
    assert listed(b"\xff" * 1025, b"") == []
    assert listed(b"b", b"c") == []


@given(ROWS, st.integers(0, 6))
def test_the_names_that_are_due_are_picked(drawn, now_ms):
    entries = [entry_of(each) for each in last_of_each(rows_of(drawn))]
    expected = [each for each in entries if flags_of(each) == 0 and NAME.unpack_from(each)[1] <= now_ms]
    pages = paged(entries, 1, lib.DL_RUN_NAMES)
    assert due(pages, now_ms, 80)[:2] == (lib.DL_RUN_OK, expected)
    if expected:
        assert due(pages, now_ms, len(expected) - 1)[:2] == (lib.DL_RUN_FULL, expected[:-1])


def test_what_never_expires_is_never_due():
    pages = [seal(name_entry(b"a") + name_entry(b"b", deadline=NEVER - 1), 2, 1, lib.DL_RUN_NAMES)]
    assert due(pages, NEVER, 9)[1] == [name_entry(b"b", deadline=NEVER - 1)]


def test_names_stop_before_a_bad_page():
    pages = paged([name_entry(b"name %03d" % at + b"x" * 1000) for at in range(12)], 1, lib.DL_RUN_NAMES)
    pages[2] = pages[2][:-1] + b"x"
    for verdict, names, bytes_read in (taken(pages, b"", b"", 99), due(pages, 0, 99)):
        assert (verdict, bytes_read) == (lib.DL_RUN_BAD_CRC, 2 * PAGE)
        assert len(names) in (0, 6)
    assert taken(pages, b"", b"", 5)[0] == lib.DL_RUN_FULL
    assert seek(pages[2], b"", b"") == lib.DL_RUN_BAD_CRC
    assert taken([pages[0], pages[1][:-1]], b"", b"", 99)[::2] == (lib.DL_RUN_BAD_LENGTH, PAGE)


@pytest.mark.parametrize(
    "bad",
    [name_entry(b""), name_entry(b"n" * 1025), NAME.pack(1, NEVER, 2) + b"n", b"n" * 17],
    ids=["no name", "long name", "longer than its page", "cut"],
)
def test_a_name_beyond_the_limits_is_none(bad):
    page = seal(name_entry(b"a") + bad, 2, 1, lib.DL_RUN_NAMES)
    assert survey(page, lib.DL_RUN_NAMES)[0] == lib.DL_RUN_BAD_ITEM
    assert taken([page], b"", b"", 9)[0] == lib.DL_RUN_BAD_ITEM
    assert due([page], 0, 9)[0] == lib.DL_RUN_BAD_ITEM
    assert seek(page, b"", b"a") == lib.DL_RUN_BAD_ITEM


def test_a_survey_of_names_and_one_of_their_rows_come_to_the_same():
    rows = [row(at, b"name %d" % at, at, b"p" * at, at % 4, 1000 - at) for at in range(20)]
    of_rows = survey(seal(b"".join(rows), 20, 1, lib.DL_RUN_ROWS))[1]
    names = sorted(map(entry_of, rows), key=text_of)
    verdict, of_names = survey(seal(b"".join(names), 20, 1, lib.DL_RUN_NAMES), lib.DL_RUN_NAMES)
    assert verdict == lib.DL_RUN_OK
    assert (of_names.names_digest, of_names.deadline_min) == (of_rows.names_digest, 1000 - 16)
    assert (of_names.tombstones, of_names.number_max) == (of_rows.tombstones, of_rows.number_max) == (10, 19)
    for bad in ([names[1], names[0]], [names[0], names[0]]):
        page = seal(b"".join(bad), 2, 1, lib.DL_RUN_NAMES)
        assert survey(page, lib.DL_RUN_NAMES)[0] == lib.DL_RUN_BAD_ORDER


def test_every_bit_of_a_name_counts_in_the_digest():
    def digest(entry):
        return survey(seal(entry, 1, 1, lib.DL_RUN_NAMES), lib.DL_RUN_NAMES)[1].names_digest

    entry = bytearray(name_entry(b"some name", 77, 0, 12345))
    whole = digest(entry)
    for bit in range(8 * len(entry)):
        if bit // 8 not in (16, 17):
            entry[bit // 8] ^= 1 << bit % 8
            assert digest(entry) != whole
            entry[bit // 8] ^= 1 << bit % 8


# merging


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
    left = [each for _, each in sorted(expected.items()) if not (drop and is_tombstone(each))]
    assert merged(pieces, lib.DL_RUN_ROWS, drop)[:2] == (lib.DL_RUN_OK, b"".join(paged(left, 1, lib.DL_RUN_ROWS)))


@given(st.lists(ROWS, max_size=7), st.booleans())
def test_of_merged_names_the_first_source_wins(drawn, drop):
    runs = [{text_of(each): each for each in map(entry_of, rows_of(rows))} for rows in drawn]
    pieces = [paged([names[text] for text in sorted(names)], 1, lib.DL_RUN_NAMES) for names in runs]
    expected = {}
    for names in reversed(runs):
        expected.update(names)
    left = [each for _, each in sorted(expected.items()) if not (drop and flags_of(each) & TOMBSTONE)]
    assert merged(pieces, lib.DL_RUN_NAMES, drop)[:2] == (lib.DL_RUN_OK, b"".join(paged(left, 1, lib.DL_RUN_NAMES)))


@given(st.lists(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), max_size=500), max_size=9))
def test_merged_numbers_are_all_kept(drawn):
    pieces = [paged([NUMBER.pack(*each) for each in sorted(piece)], 1, lib.DL_RUN_NUMBERS) for piece in drawn]
    every = [NUMBER.pack(*each) for each in sorted(each for piece in drawn for each in piece)]
    expected = b"".join(paged(every, 1, lib.DL_RUN_NUMBERS))
    assert merged(pieces, lib.DL_RUN_NUMBERS)[:2] == (lib.DL_RUN_OK, expected)


def test_large_rows_pass_through_the_builder():
    pieces = [[row(at * 2 + side, b"n", at, bytes([at]) * (2**20 * at - at)) for at in range(5)] for side in (0, 1)]
    every = sorted((each for piece in pieces for each in piece), key=key)
    verdict, out, _ = merged([paged(piece, 1, lib.DL_RUN_ROWS) for piece in pieces], lib.DL_RUN_ROWS)
    assert verdict == lib.DL_RUN_OK
    assert out == b"".join(paged(every, 1, lib.DL_RUN_ROWS))


def test_a_bad_page_stops_the_merge_and_says_whose_it_is():
    pages = paged([row(at, b"name", at, bytes(1000)) for at in range(12)], 1, lib.DL_RUN_ROWS)
    damaged = [*pages[:2], pages[2][:-1] + b"x", *pages[3:]]
    verdict, _, which = merged([pages, damaged], lib.DL_RUN_ROWS)
    assert (verdict, which) == (lib.DL_RUN_BAD_CRC, 1)


# room


@pytest.mark.parametrize("kind", [lib.DL_RUN_ROWS, lib.DL_RUN_NUMBERS])
def test_a_merge_goes_on_when_pages_or_fences_were_full(kind):
    items = [row(at, b"name", at, bytes(900)) for at in range(40)]
    if kind == lib.DL_RUN_NUMBERS:
        items = [NUMBER.pack(at, at) for at in range(4000)]
    verdict, out, _ = merged([paged(items[::2], 1, kind), paged(items[1::2], 1, kind)], kind)
    assert (verdict, out) == (lib.DL_RUN_OK, b"".join(paged(items, 1, kind)))


def test_numbers_are_packed_when_there_is_room_again():
    values = [(at, at % 5) for at in range(2000)]
    pairs, following = ffi.new("dl_run_pair[]", values), ffi.new("size_t *")
    builder, times = Builder(lib.DL_RUN_NUMBERS, fences=2), 0
    while lib.dl_run_pack_pairs(pairs, len(values), following, builder.c) == lib.DL_RUN_FULL:
        builder.empty()
        times += 1
    items = [NUMBER.pack(*value) for value in values]
    assert builder.finish() == b"".join(paged(items, 1, lib.DL_RUN_NUMBERS))
    assert times > 1


@pytest.mark.parametrize(("size", "used"), [(PAGE - 1, 0), (2 * PAGE, PAGE + 1), (PAGE, 2 * PAGE)])
def test_what_has_no_room_is_not_packed(size, used):
    builder, rows = Builder(lib.DL_RUN_ROWS), row(1, b"a")
    builder.c.pages_size, builder.c.pages_used = size, used
    pairs, following = ffi.new("dl_run_pair[]", [(1, 0)]), ffi.new("size_t *")
    verdict = lib.dl_run_pack_rows(exactly(rows), len(rows), pairs, 1, following, builder.c)
    assert (verdict, following[0], builder.c.pages_wanted) == (lib.DL_RUN_FULL, 0, PAGE)


def test_a_survey_is_of_one_page_and_nothing_behind_it():
    page = seal(row(1, b"a"), 1, 1, lib.DL_RUN_ROWS)
    assert survey(page)[0] == lib.DL_RUN_OK
    assert survey(page + bytes(PAGE))[0] == lib.DL_RUN_BAD_LENGTH


def test_names_beyond_four_gibibytes_are_not_taken():
    page = seal(name_entry(b"a"), 1, 1, lib.DL_RUN_NAMES)
    picked_names = ffi.new("dl_run_picked *", [ffi.new("uint32_t[]", 1), 1, 9, 9])
    span, next_ms = bounds(b"", b""), ffi.new("uint64_t *")
    for verdict in (
        lib.dl_run_names_take(exactly(page), 2**32, 1, NONCE, span[0], picked_names),
        lib.dl_run_names_due(exactly(page), 2**32, 1, NONCE, 0, 9, next_ms, picked_names),
    ):
        assert (verdict, picked_names.count, picked_names.bytes_read) == (lib.DL_RUN_BAD_LENGTH, 0, 0)
