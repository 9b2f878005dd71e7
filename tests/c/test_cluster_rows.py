"""The loops of clustered segments: sorting, choosing, entries; and files whose fields lie under good checksums."""

from __future__ import annotations

import random
import struct
from array import array
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log._core import ffi, lib

NONCE = 0x5EED
PAGE = 4096
RECORD = struct.Struct("<QQQII")
ROW = struct.Struct("<IQQQQII")

STREAMS = st.one_of(st.integers(0, 6), st.integers(0, 2**48 - 1))
RECORDS = st.lists(st.tuples(STREAMS, st.integers(0, 2**40), st.integers(0, 2**64 - 1)), max_size=200)


def records_of(rows) -> tuple:
    content = b"".join(RECORD.pack(*row) for row in rows)
    memory = ffi.new("dl_record[]", max(1, len(rows)))
    ffi.memmove(memory, content, len(content))
    return memory, len(rows)


def rows_of(memory, count: int) -> list[tuple[int, ...]]:
    return list(RECORD.iter_unpack(ffi.buffer(memory, count * RECORD.size)))


def sealed(data: bytes, seed: int = NONCE) -> bytes:
    return struct.pack("<I", lib.dl_crc32c(seed, data, len(data))) + data


def guarded(data: bytes):
    """A copy in memory of exactly its size, so that a sanitizer sees what reads beyond it."""
    memory = ffi.new("uint8_t[]", len(data))
    ffi.memmove(memory, data, len(data))
    return memory


# ---- sorting


def sort_by(memory, count: int, key: int, bits: int):
    for shift in range(0, bits, 11):
        counts = array("Q", bytes(8 * lib.DL_RADIX))
        lib.dl_records_count(memory, count, key, shift, ffi.from_buffer("uint64_t[]", counts))
        heads = ffi.from_buffer("uint64_t[]", array("Q", accumulate(counts, initial=0)))
        out = ffi.new("dl_record[]", max(1, count))
        assert lib.dl_records_scatter(memory, count, key, shift, heads, out, count) == lib.DL_CLUSTER_OK
        memory = out
    return memory


@given(RECORDS)
def test_records_are_sorted_by_stream_and_keep_their_order(drawn):
    rows = [(*row, index, 1) for index, row in enumerate(drawn)]
    memory, count = records_of(rows)
    assert rows_of(sort_by(memory, count, lib.DL_BY_STREAM, 48), count) == sorted(rows, key=lambda row: row[0])


@given(RECORDS)
def test_records_are_sorted_by_stream_and_offset(drawn):
    rows = [(*row, index, 1) for index, row in enumerate(drawn)]
    memory, count = records_of(rows)
    memory = sort_by(sort_by(memory, count, lib.DL_BY_OFFSET, 41), count, lib.DL_BY_STREAM, 48)
    assert rows_of(memory, count) == sorted(rows, key=lambda row: row[:2])


@given(RECORDS)
def test_the_greatest_numbers_are_found(drawn):
    memory, count = records_of([(*row, 0, 1) for row in drawn])
    keys = ffi.new("uint64_t[]", [3, 4, 0])
    lib.dl_records_greatest(memory, count, keys)
    assert keys[lib.DL_BY_STREAM] == max([3, *(row[0] for row in drawn)])
    assert keys[lib.DL_BY_OFFSET] == max([4, *(row[1] for row in drawn)])
    assert keys[lib.DL_BY_PLACE] == max([0, *(row[2] for row in drawn)])


def test_nothing_is_put_behind_the_end():
    memory, count = records_of([(5, 0, 0, 0, 1)])
    heads = ffi.new("uint64_t[]", lib.DL_RADIX)
    heads[5] = 1
    out = ffi.new("dl_record[]", 1)
    assert lib.dl_records_scatter(memory, count, 0, 0, heads, out, 1) == lib.DL_CLUSTER_ROOM


# ---- choosing and counting


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50), st.integers(1, 9)), max_size=60),
    st.sets(st.integers(0, 9)),
    st.dictionaries(st.integers(0, 9), st.integers(0, 60)),
    st.integers(1, 20),
)
def test_what_is_not_wanted_or_trimmed_is_left_out(drawn, wanted, trims, step):
    rows = [(stream, offset, 0, 0, length) for stream, offset, length in sorted(drawn)]
    memory, count = records_of(rows)
    numbers = ffi.from_buffer("uint64_t[]", array("Q", sorted(wanted)))
    pairs = ffi.from_buffer("uint64_t[]", array("Q", [part for pair in sorted(trims.items()) for part in pair]))
    selection = ffi.new("dl_selection *", (numbers, len(wanted), 0, pairs, len(trims), 0, 0))
    cut = []
    for first in range(0, count, step):
        part = min(step, count - first)
        cuts = ffi.new("uint64_t[]", part)
        cut += ffi.unpack(cuts, lib.dl_records_select(selection, memory, first, part, cuts))
    kept = [row for row in rows if row[0] in wanted and row[1] + row[4] > trims.get(row[0], 0)]
    assert rows_of(memory, selection.kept) == kept
    assert cut == [index for index, row in enumerate(kept) if row[1] < trims.get(row[0], 0)]


def planned(rows, row_max: int = 2**31) -> tuple[int, int, int]:
    memory, count = records_of(rows)
    plan, bad = ffi.new("dl_plan *"), ffi.new("size_t *")
    plan.row_max = row_max
    return lib.dl_records_plan(plan, memory, count, bad), plan.rows, plan.payload_bytes


def test_adjacent_records_are_one_row():
    rows = [(0, 0, 0, 0, 5), (0, 5, 0, 0, 5), (0, 11, 0, 0, 1), (1, 12, 0, 0, 1), (1, 13, 0, 0, 9)]
    assert planned(rows) == (lib.DL_CLUSTER_OK, 3, 21)
    assert planned(rows, row_max=9) == (lib.DL_CLUSTER_OK, 5, 21)


@pytest.mark.parametrize(
    "rows",
    [
        [(1, 0, 0, 0, 5), (1, 4, 0, 0, 5)],
        [(1, 0, 0, 0, 5), (1, 0, 0, 0, 5)],
        [(2, 0, 0, 0, 5), (1, 0, 0, 0, 5)],
        [(1, 0, 0, 0, 0)],
        [(1, 2**64 - 3, 0, 0, 9)],
    ],
    ids=["overlap", "twice", "streams", "empty", "beyond the last offset"],
)
def test_what_cannot_be_in_a_row_is_told(rows):
    assert planned(rows)[0] == lib.DL_CLUSTER_ORDER


# ---- scanning a log


def body_of(frames: list[tuple[int, int, bytes]], position: int = 0, kind: int = lib.DL_TYPE_DATA) -> bytes:
    """Frames as they stand at ``position`` in a segment, to which their checksums are bound."""
    body = b""
    for stream, offset, data in frames:
        head = struct.pack("<IBBHIQ", len(data), kind, 0, stream >> 32, stream & 0xFFFFFFFF, offset)
        body += sealed(head + data, NONCE ^ position + len(body))
    return body


def scan(content: bytes, position: int, blocks: list[int], room: int = 100):
    records = ffi.new("dl_record[]", room)
    count, largest, bad = ffi.new("size_t *"), ffi.new("uint64_t *"), ffi.new("uint64_t *")
    pairs = ffi.from_buffer("uint64_t[]", array("Q", blocks))
    verdict = lib.dl_records_scan(
        guarded(content), len(content), position, NONCE, 3, pairs, len(blocks) // 2, records, room, count, largest, bad
    )
    return verdict, rows_of(records, count[0]), largest[0], bad[0]


def test_records_name_their_frames():
    body = body_of([(7, 0, b"ab"), (2**47, 5, b""), (7, 2, b"cdef")], 100)
    content = b"?" * 10 + body + b"?" * 9
    verdict, rows, largest, _ = scan(content, 90, [100, len(body)])
    assert verdict == lib.DL_CLUSTER_OK
    assert rows == [(7, 0, 3 << 32 | 100, 24, 2), (7, 2, 3 << 32 | 150, 24, 4)]
    assert largest == 28


def test_more_frames_than_a_batch_are_scanned():
    body = body_of([(stream, 0, b"x") for stream in range(1000)])
    verdict, rows, _, _ = scan(body, 0, [0, len(body)], 1000)
    assert verdict == lib.DL_CLUSTER_OK
    assert [row[0] for row in rows] == list(range(1000))


@pytest.mark.parametrize("block", [[99, 10], [100, 29], [128, 1], [2**63, 2**63], [105, 2**64 - 1]])
def test_a_body_that_is_not_there_is_told(block):
    assert scan(bytes(28), 100, block)[0] == lib.DL_CLUSTER_SHORT


def test_a_frame_that_does_not_hold_is_told_with_its_position():
    body = body_of([(1, 0, b"ab"), (1, 2, b"cd")], 1000)
    for position in range(26, 52):
        changed = bytearray(body)
        changed[position] ^= 1
        verdict, rows, _, bad = scan(bytes(changed), 1000, [1000, 52])
        assert (verdict, len(rows), bad) == (lib.DL_CLUSTER_FRAME, 1, 1026)


def test_a_full_array_is_told():
    body = body_of([(1, 0, b"ab"), (1, 2, b"cd")])
    assert scan(body, 0, [0, 52], 1)[0] == lib.DL_CLUSTER_ROOM


@given(st.binary(max_size=200))
def test_any_bytes_may_be_scanned(content):
    assert scan(content, 0, [0, len(content)])[0] in (lib.DL_CLUSTER_OK, lib.DL_CLUSTER_FRAME)


# ---- staging


class Log:
    """Frames in memory, wanted in another order than the one they lie in."""

    def __init__(self, sizes: list[int], order: list[int]) -> None:
        starts = list(accumulate((size + 24 for size in sizes), initial=0))
        bodies = [body_of([(stream, 0, bytes([stream]) * size)], starts[stream]) for stream, size in enumerate(sizes)]
        self.content = b"".join(bodies)
        self.frames = [bodies[index] for index in order]
        self.wanted = [(index, 0, starts[index], 24, sizes[index]) for index in order]
        self.memory = guarded(self.content)
        self.sources = ffi.new("dl_source[]", [(-1, NONCE, 0, self.memory, len(self.content), 0, 0)])

    def plan(self, size: int, most: int = 100) -> tuple[int, list[tuple[int, ...]]]:
        records, count = records_of(self.wanted)
        out, found = ffi.new("dl_record[]", most), ffi.new("size_t *")
        done = lib.dl_stage_plan(self.sources, 1, records, count, size, out, most, found)
        return done, rows_of(out, found[0])

    def fill(self, planned: list[tuple[int, ...]], size: int, window: int = 64) -> tuple[int, bytes]:
        records, count = records_of(planned)
        memory, stage = ffi.new("uint8_t[]", window), ffi.new("uint8_t[]", size)
        done, fault, state = ffi.new("size_t *"), ffi.new("dl_fault *"), ffi.new("dl_window *", (memory, window))
        verdict = lib.DL_CLUSTER_MORE
        while verdict == lib.DL_CLUSTER_MORE:
            verdict = lib.dl_stage_fill(self.sources, 1, records, count, done, state, stage, size, fault)
        return verdict, bytes(ffi.buffer(stage, size))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.data(), st.integers(1, 300))
def test_frames_stand_on_the_stage_in_the_order_they_are_wanted_in(sizes, data, window):
    log = Log(sizes, data.draw(st.permutations(range(len(sizes)))))
    size = data.draw(st.integers(200, len(log.content) + 200))
    done, planned = log.plan(size)
    frames = b"".join(log.frames[:done])
    assert len(frames) <= size
    assert done == len(sizes) or len(frames) + len(log.frames[done]) > size
    verdict, stage = log.fill(sorted(planned, key=lambda row: row[2]), len(frames), window)
    assert (verdict, stage) == (lib.DL_CLUSTER_OK, frames)


def test_a_stage_takes_as_many_records_as_there_is_memory_for():
    log = Log([5, 6, 7], [2, 0, 1])
    assert log.plan(1000, most=2) == (2, [(2, 0, 59, 24, 7), (0, 31, 0, 24, 5)])
    assert log.plan(59) == (1, [(2, 0, 59, 24, 7)])
    assert log.plan(30) == (0, [])


def test_much_is_staged_in_slices():
    log = Log([600_000, 600_000, 600_000], [1, 2, 0])
    done, planned = log.plan(2_000_000)
    assert log.fill(planned, 1_800_072) == (lib.DL_CLUSTER_OK, b"".join(log.frames))
    assert done == 3


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        ((0, 0, 1 << 32, 24, 5), lib.DL_CLUSTER_ORDER),
        ((0, 0, 90, 24, 5), lib.DL_CLUSTER_SHORT),
        ((0, 0, 2**32 - 1, 24, 100), lib.DL_CLUSTER_SHORT),
        ((0, 0, 0, 24, 2**32 - 1), lib.DL_CLUSTER_ROOM),
        ((0, 2**64 - 1, 0, 24, 5), lib.DL_CLUSTER_ROOM),
        ((0, 172, 0, 24, 5), lib.DL_CLUSTER_ROOM),
    ],
)
def test_what_cannot_be_staged_is_told(row, verdict):
    assert Log([5, 6, 7], [0]).fill([row], 200)[0] == verdict


def test_forgotten_memory_is_still_there():
    memory = ffi.new("uint8_t[]", b"x" * 100_000)
    lib.dl_forget(memory + 1, 99_998)
    assert memory[0] == memory[99_999] == ord("x")
    lib.dl_forget(memory, 0)


# ---- entries


def entry_of(
    length: int, ends: bytes, stream: int = 7, start: int = 1000, before: int = 0, payload: bytes = b""
) -> bytes:
    payload = payload or bytes(min(length, 65536))
    sums = [
        lib.dl_crc32c(NONCE, page, len(page))
        for page in (payload[at : at + PAGE] for at in range(0, len(payload), PAGE))
    ]
    head = struct.pack("<IQQII", length, stream, start, before, len(ends))
    return sealed(head + struct.pack(f"<{len(sums)}I", *sums) + ends)


def bounds(entry: bytes, offset: int, end: int = 1100):
    start, stop = ffi.new("uint64_t *"), ffi.new("uint64_t *")
    verdict = lib.dl_entry_bounds(guarded(entry), len(entry), NONCE, 7, 1000, 990, end, offset, start, stop)
    return verdict, start[0], stop[0]


def test_an_entry_knows_the_records_that_touch_its_chunk():
    entry = entry_of(100, bytes([10, 50, 0x80 | 100, 1]), before=5)
    assert bounds(entry, 1000) == (lib.DL_CLUSTER_OK, 995, 1010)
    assert bounds(entry, 1010) == (lib.DL_CLUSTER_OK, 1010, 1060)
    assert bounds(entry, 1099) == (lib.DL_CLUSTER_OK, 1060, 1288)


@pytest.mark.parametrize(
    "entry",
    [
        entry_of(100, b""),
        entry_of(100, b"\x00\x64"),
        entry_of(100, b"\xe4"),
        entry_of(100, b"\xff" * 12 + b"\x01"),
        entry_of(100, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        entry_of(99, b"\x64"),
        entry_of(100, b"\x64", stream=8),
        entry_of(100, b"\x64", start=900),
        entry_of(100, b"\x64", before=2000),
        entry_of(100, b"\x64")[:-1],
        entry_of(100, b"\x64")[:20],
        b"",
        sealed(struct.pack("<IQQII", 100, 7, 1000, 0, 2**32 - 1) + bytes(8)),
    ],
)
def test_an_entry_that_lies_is_told(entry):
    verdict, start, end = bounds(entry, 1099)
    assert verdict == lib.DL_CLUSTER_ENTRY or (start <= 1099 < end)


@given(st.binary(max_size=80))
def test_any_ends_may_be_read(ends):
    verdict, start, end = bounds(entry_of(100, ends), 1050)
    assert verdict == lib.DL_CLUSTER_ENTRY or start <= 1050 < end


def test_entries_are_found_one_behind_the_other():
    first = entry_of(65536, b"\x80\x80\x04", start=0)
    second = entry_of(65536, b"\x80\x80\x04", start=65536)
    third = entry_of(9, b"\x09", start=131072)
    entries = first + second + third

    def find(content: bytes, chunk: int) -> int:
        return lib.dl_entry_find(guarded(content), len(content), NONCE, 7, 0, 131081, chunk)

    assert [find(entries, chunk) for chunk in (0, 65536, 131072)] == [0, len(first), len(first + second)]
    assert find(entries[:-1], 131072) == len(first + second)
    changed = first + bytes(1) + second[1:] + third
    assert find(changed, 65536) == len(first)
    assert find(changed, 131072) == len(changed)
    assert find(b"", 65536) == 0


# ---- spans


PAYLOAD = random.Random(3).randbytes(3 * PAGE + 100)


def check_span(
    parts: list[bytes], first: int, last: int, entry: bytes, chunk: int = 1000, end: int = 1000 + len(PAYLOAD)
):
    views = [guarded(part) for part in parts]
    span = ffi.new("dl_span *", (NONCE, 7, chunk, end, first, last, views, list(map(len, parts))))
    good, at = ffi.new("uint64_t *"), ffi.new("size_t *")
    return lib.dl_span_check(span, guarded(entry), len(entry), good, at), good[0]


WHOLE_ENTRY = entry_of(len(PAYLOAD), b"\xe4\x60", payload=PAYLOAD)


@given(st.integers(0, 3), st.integers(1, 4), st.data())
def test_pages_hold_however_their_bytes_are_parted(first, count, data):
    low, high = first * PAGE, min(len(PAYLOAD), (first + count) * PAGE)
    one = data.draw(st.integers(low, high))
    two = data.draw(st.integers(one, high))
    parts = [PAYLOAD[low:one], PAYLOAD[one:two], PAYLOAD[two:high]]
    assert check_span(parts, 1000 + low, 1000 + high, WHOLE_ENTRY) == (lib.DL_CLUSTER_OK, 1000 + high)


def test_a_changed_byte_is_found_in_its_page():
    for position in range(0, len(PAYLOAD), 37):
        changed = bytearray(PAYLOAD)
        changed[position] ^= 0x40
        verdict, good = check_span([bytes(changed), b"", b""], 1000, 1000 + len(PAYLOAD), WHOLE_ENTRY)
        assert (verdict, good) == (lib.DL_CLUSTER_PAGE, 1000 + position // PAGE * PAGE)


def test_a_changed_entry_is_found():
    for position in range(len(WHOLE_ENTRY)):
        changed = bytearray(WHOLE_ENTRY)
        changed[position] ^= 0x40
        verdict, good = check_span([PAYLOAD, b"", b""], 1000, 1000 + len(PAYLOAD), bytes(changed))
        assert (verdict, good) == (lib.DL_CLUSTER_ENTRY, 1000)


def test_spans_that_cannot_be_are_refused():
    whole = 1000 + len(PAYLOAD)
    assert check_span([PAYLOAD[:-1], b"", b""], 1000, whole, WHOLE_ENTRY)[0] == lib.DL_CLUSTER_SHORT
    assert check_span([PAYLOAD, b"", b""], 1000, whole, WHOLE_ENTRY, end=whole - 1)[0] == lib.DL_CLUSTER_ORDER
    assert check_span([PAYLOAD[1:], b"", b""], 1001, whole, WHOLE_ENTRY)[0] == lib.DL_CLUSTER_ORDER
    assert check_span([PAYLOAD, b"", b""], 1000, whole, WHOLE_ENTRY, chunk=PAGE + 1000)[0] == lib.DL_CLUSTER_ORDER


# ---- rows


FILE_LENGTH = 10_000


def row_of(stream=7, start=1000, length=100, payload=PAGE, entries=8000, entries_length=40, records=1) -> bytes:
    return sealed(ROW.pack(length, stream, start, payload, entries, entries_length, records))


def test_rows_that_do_not_hold_become_stream_zero():
    table = bytearray(row_of() + row_of(stream=8) + row_of(stream=9, length=0) + row_of(stream=10, start=2**64 - 5))
    table[50] ^= 1
    columns = [ffi.new("uint64_t[]", 4) for _ in range(3)]
    assert lib.dl_rows_unpack(guarded(bytes(table)), 4, NONCE, FILE_LENGTH, *columns) == 1
    assert [ffi.unpack(column, 4) for column in columns] == [[7, 0, 0, 0], [1000, 0, 0, 0], [1100, 0, 0, 0]]
    holds = [lib.dl_row_holds(guarded(bytes(table[at : at + 48])), NONCE, FILE_LENGTH) for at in range(0, 192, 48)]
    assert holds == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "lies",
    [
        {"payload": FILE_LENGTH - 99}, {"payload": FILE_LENGTH + 1}, {"payload": 2**64 - 50},
        {"entries": FILE_LENGTH - 39}, {"entries": FILE_LENGTH + 1}, {"entries": 2**64 - 50},
        {"entries_length": FILE_LENGTH - 8000 + 1}, {"entries_length": 2**32 - 1},
        {"length": 65536 + 1, "payload": 0, "entries": 0, "entries_length": 10_000 - 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_row_that_names_what_the_file_has_not_does_not_hold(lies):
    columns = [ffi.new("uint64_t[]", 1) for _ in range(3)]
    lying = guarded(row_of(**lies))
    assert not lib.dl_row_holds(lying, NONCE, FILE_LENGTH)
    assert lib.dl_rows_unpack(lying, 1, NONCE, FILE_LENGTH, *columns) == 0
    assert [column[0] for column in columns] == [0, 0, 0]


@pytest.mark.parametrize(
    "fields", [{"payload": FILE_LENGTH - 100}, {"entries": FILE_LENGTH - 40}, {"entries_length": FILE_LENGTH - 8000}]
)
def test_a_row_may_name_what_the_file_ends_with(fields):
    assert lib.dl_row_holds(guarded(row_of(**fields)), NONCE, FILE_LENGTH)


def test_records_are_made_of_the_rows_asked_for():
    table = guarded(row_of(stream=1) + row_of(stream=2) + row_of(stream=3)[:-1] + b"?")
    records, bad = ffi.new("dl_record[]", 3), ffi.new("uint64_t *")

    def take(*indexes: int) -> int:
        chosen = ffi.new("uint64_t[]", list(indexes))
        return lib.dl_records_of_rows(table, 3, 10, NONCE, 5, chosen, len(indexes), records, bad)

    assert take(10, 11) == lib.DL_CLUSTER_OK
    assert rows_of(records, 2) == [(1, 1000, 5 << 32 | 10, 0, 100), (2, 1000, 5 << 32 | 11, 0, 100)]
    assert (take(10, 12), bad[0]) == (lib.DL_CLUSTER_ROW, 12)
    assert take(11, 10) == lib.DL_CLUSTER_ORDER
    assert (take(9), take(13)) == (lib.DL_CLUSTER_SHORT, lib.DL_CLUSTER_SHORT)


# ---- whole files


class Place:
    """A clustered segment of one row in memory, with fields that may lie."""

    def __init__(self, payload: bytes, entries: bytes, index: bytes = b"", /, **fields: int) -> None:
        rows_position = PAGE + len(payload)
        entries_position = rows_position + 48
        row = {"length": len(payload), "entries": entries_position, "entries_length": len(entries), **fields}
        self.stream, self.start = row.get("stream", 7), row.get("start", 1000)
        self.length, self.records = row["length"], row.get("records", 1)
        content = bytes(PAGE) + payload + row_of(**row) + entries + index
        self.keep = [guarded(content)]
        self.source = (-1, NONCE, 1, self.keep[0], len(content), rows_position, 1)
        self.entries_position, self.entries_end = entries_position, len(content)

    def reader(self, sizes=(65536, 65637, 48)) -> tuple:
        memory = [ffi.new("uint8_t[]", size) for size in sizes]
        self.keep += memory
        return tuple(zip(memory, sizes, strict=True))

    def verify(self) -> list[int]:
        walk = ffi.new("dl_walk *")
        walk.source, walk.reader, walk.entries_end = self.source, self.reader(), self.entries_end
        walk.payload_position, walk.entries_position = PAGE, self.entries_position
        faults, count, found = ffi.new("dl_fault[]", 32), ffi.new("size_t *"), []
        verdict = lib.DL_CLUSTER_MORE
        while verdict == lib.DL_CLUSTER_MORE:
            verdict = lib.dl_cluster_verify(walk, faults, 32, count)
            found += [faults[index].verdict for index in range(count[0])]
        return found if verdict == lib.DL_CLUSTER_OK else [*found, verdict]

    def copy(self, skip: int = 0, **changes) -> tuple[int, bytes]:
        job = ffi.new("dl_cluster *")
        sources = ffi.new("dl_source[]", [self.source])
        record = (self.stream, self.start + skip, 0, skip, max(self.length - skip, 0))
        records, _ = records_of([record])
        index = ffi.new("uint32_t[]", lib.DL_ROW_CHUNKS)
        job.sources, job.sources_count, job.records, job.records_count, job.index = sources, 1, records, 1, index
        job.records_staged = 1
        job.reader, job.nonce, job.plan.row_max = self.reader(changes.get("windows", (65536, 65637, 48))), NONCE, 2**31
        out = b""
        for name, size in (("payload", 65536), ("entries", 3 * lib.DL_ENTRY_MAX + 4 * lib.DL_ROW_CHUNKS), ("rows", 48)):
            memory = ffi.new("uint8_t[]", changes.get(name, size))
            self.keep.append(memory)
            getattr(job, name).bytes, getattr(job, name).size = memory, changes.get(name, size)
        verdict = lib.DL_CLUSTER_MORE
        while verdict == lib.DL_CLUSTER_MORE:
            verdict = lib.dl_cluster_copy(job)
            out += bytes(ffi.buffer(job.payload.bytes, job.payload.used))
        return verdict, out


LONG = random.Random(4).randbytes(65536 + 3000)
HEAD, TAIL = LONG[:65536], LONG[65536:]
ENDS = b"\x64" + b"\xfc\xff\x03" + b"\xb8\x17"
"""Records that end at 100, at 65632 (in the second chunk) and at 68632."""


def long_entries(**changes) -> bytes:
    first = entry_of(65536, ENDS[:4], payload=HEAD)
    second = {"ends": b"\x60" + b"\xd8\x16", "before": 65436, **changes}
    return first + entry_of(3000, second["ends"], start=66536, before=second["before"], payload=TAIL)


def test_a_file_of_one_row_holds_and_copies():
    entries = long_entries()
    index = struct.pack("<I", len(entries) - 32 - 4 - 3)
    place = Place(LONG, entries, index, length=len(LONG), records=2)
    assert place.verify() == []
    assert place.copy() == (lib.DL_CLUSTER_OK, LONG)
    assert place.copy(skip=100) == (lib.DL_CLUSTER_OK, LONG[100:])
    assert place.copy(skip=65632) == (lib.DL_CLUSTER_OK, LONG[65632:])


def test_a_cut_inside_of_a_record_is_refused():
    place = Place(LONG, long_entries(), bytes(4))
    assert place.copy(skip=101)[0] == lib.DL_CLUSTER_ENTRY
    assert place.copy(skip=65536)[0] == lib.DL_CLUSTER_ENTRY


@pytest.mark.parametrize(
    "second",
    [
        {"before": 65435},
        {"before": 0},
        {"before": 66536},
        {"ends": b"\x61" + b"\xd7\x16"},
        {"ends": b"\x60"},
        {"ends": b""},
        {"ends": b"\x60" + b"\xd9\x16"},
    ],
)
def test_entries_that_disagree_are_refused(second):
    entries = long_entries(**second)
    place = Place(LONG, entries, struct.pack("<I", 32 + 64 + 4))
    assert place.copy()[0] == lib.DL_CLUSTER_ENTRY


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "length": st.one_of(st.integers(1, 70000), st.integers(1, 2**32 - 1)),
            "payload": st.one_of(st.integers(0, 80000), st.integers(0, 2**64 - 1)),
            "entries": st.one_of(st.integers(0, 80000), st.integers(0, 2**64 - 1)),
            "entries_length": st.one_of(st.integers(0, 300), st.integers(0, 2**32 - 1)),
            "start": st.sampled_from([0, 999, 1000, 2**63, 2**64 - 70000]),
            "stream": st.sampled_from([0, 6, 7, 2**64 - 1]),
        },
    )
)
def test_a_row_may_lie_under_a_good_checksum(fields):
    entries = long_entries()
    lies = Place(LONG, entries, struct.pack("<I", 101), **fields)
    verdict, payload = lies.copy()
    assert (verdict == lib.DL_CLUSTER_OK) <= (payload == LONG)
    found = lies.verify()
    assert verdict == lib.DL_CLUSTER_OK or found


@given(st.data())
def test_an_entry_may_lie_under_a_good_checksum(data):
    entries = bytearray(long_entries())
    second = data.draw(st.booleans())
    at, size = (102, len(entries) - 102) if second else (0, 102)
    for _ in range(data.draw(st.integers(1, 3))):
        entries[at + data.draw(st.integers(4, size - 1))] = data.draw(st.integers(0, 255))
    entries[at : at + size] = sealed(bytes(entries[at + 4 : at + size]))
    lies = Place(LONG, bytes(entries), struct.pack("<I", 102))
    verdict, payload = lies.copy()
    assert (verdict == lib.DL_CLUSTER_OK) <= (payload == LONG)
    lies.verify()


def test_memory_that_is_too_small_is_told():
    place = Place(LONG, long_entries(), bytes(4))
    assert place.copy(windows=(65535, 65637, 48))[0] == lib.DL_CLUSTER_ROOM
    assert place.copy(windows=(65536, 10, 48))[0] == lib.DL_CLUSTER_ROOM
    assert place.copy(windows=(65536, 65637, 47))[0] == lib.DL_CLUSTER_ROOM
    assert place.copy(payload=65535)[0] == lib.DL_CLUSTER_ROOM
    assert place.copy(entries=3 * lib.DL_ENTRY_MAX)[0] == lib.DL_CLUSTER_ROOM
    assert place.copy(rows=47)[0] == lib.DL_CLUSTER_ROOM


def test_a_frame_that_was_not_staged_is_told():
    place = Place(LONG, long_entries(), bytes(4))
    place.source = (*place.source[:2], 0, *place.source[3:])
    assert place.copy()[0] == lib.DL_CLUSTER_ROOM


def test_a_descriptor_that_ends_too_early_is_told(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(bytes(PAGE))
    with path.open("rb") as file:
        place = Place(LONG, long_entries(), bytes(4))
        place.source = (file.fileno(), NONCE, 1, ffi.NULL, *place.source[4:])
        assert place.copy()[0] == lib.DL_CLUSTER_SHORT
        assert place.verify() == [lib.DL_CLUSTER_SHORT]


def test_a_read_that_fails_is_told():
    place = Place(LONG, long_entries(), bytes(4))
    place.source = (-1, NONCE, 1, ffi.NULL, *place.source[4:])
    assert place.copy()[0] == lib.DL_CLUSTER_READ
    assert place.verify() == [lib.DL_CLUSTER_READ]
