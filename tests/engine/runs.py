"""Runs for tests: rows, what they come to, and what a run says of them."""

from __future__ import annotations

import random
from array import array

from durable_log.engine.files import MemoryDirectory
from durable_log.engine.format import PAGE
from durable_log.engine.run_find import Search
from durable_log.engine.run_format import NEVER, NameEntry, Row, decode_row, encode_row, hash_of, run_name
from durable_log.engine.run_writer import write_run
from durable_log.errors import Corruption

UUID = bytes(range(16))
MIB = 2**20
NOW_MS = 5000


def no_pause():
    pass


def encoded(rows):
    return [
        encode_row(row.name, row.number, row.payload, tombstone=row.tombstone, hidden=row.hidden, deadline=row.deadline)
        for row in rows
    ]


def some_rows(count, *, seed=1, payload_max=200, first=1):
    draw = random.Random(seed)
    return [
        Row(
            f"{draw.choice('aäz')}/{draw.getrandbits(20 + draw.randrange(40))}",
            first + index,
            draw.randbytes(draw.randrange(payload_max)),
            draw.random() < 0.1,
            draw.random() < 0.1,
            draw.choice([NEVER, draw.randrange(2 * NOW_MS), 2**50]),
        )
        for index in range(count)
    ]


def kept(rows):
    """The oracle: of each name, the last row."""
    return {row.name: row for row in rows}


def in_order(rows):
    return sorted(rows, key=lambda row: (hash_of(row.name), row.name.encode()))


def named(rows, prefix, after, limit):
    """The oracle of names_from."""
    found = [
        NameEntry(row.name, row.number, row.tombstone, row.hidden, row.deadline)
        for row in sorted(rows, key=lambda row: row.name.encode())
        if row.name.encode().startswith(prefix) and row.name.encode() > after
    ]
    return found[:limit], len(found) > limit


def expiring(rows, now_ms):
    """The oracle of due."""
    return [
        (row.name, row.number)
        for row in sorted(rows, key=lambda row: row.name.encode())
        if not row.tombstone and not row.hidden and row.deadline <= now_ms and row.deadline != NEVER
    ]


def due(run, now_ms):
    return [each for piece in run.due(0, now_ms) for each in piece.streams]


def assert_run_holds(run, rows):
    """Every way to read the run says the same as the oracle's ``rows``, a dict by name."""
    assert list(run.rows()) == in_order(rows.values())
    assert (run.count, run.tombstones) == (len(rows), sum(row.tombstone for row in rows.values()))
    numbers = sorted(row.number for row in rows.values())
    assert (run.min_number, run.max_number) == ((numbers[0], numbers[-1]) if numbers else (0, 0))
    for name, row in rows.items():
        assert run.find(hash_of(name), name) == row
        absent = name + "?"
        assert absent in rows or run.find(hash_of(absent), absent) is None
    wanted = [asked for name in rows for asked in (name, name + "?", name)]
    assert found_many([run], wanted) == [rows.get(name) for name in wanted]
    assert run.find_numbers(array("Q", numbers)) == {row.number: row for row in rows.values()}
    assert run.names_from(b"", b"", 10**4) == named(rows.values(), b"", b"", 10**4)
    deadlines = [row.deadline for row in rows.values() if not row.tombstone and not row.hidden]
    assert run.min_deadline == min(deadlines, default=NEVER)
    for now_ms in (0, NOW_MS, NEVER - 1, NEVER):
        assert due(run, now_ms) == expiring(rows.values(), now_ms)
    assert run.verify() == []


def found_many(runs, names, hashes=None):
    """What a search says of each name: its newest row, None, or what kept it from being read."""
    search = Search(names, hashes)
    for run in runs:
        run.find_many(search)
    return [
        decode_row(found, at) if isinstance(found, bytes) else found
        for found, at in zip(search.found, search.at, strict=True)
    ]


def small_run():
    """A run of uneven pages in its directory, its rows, and its bytes, which may be damaged."""
    rows = [
        Row(f"name {index}", 100 - index, bytes([index]) * 60, index % 9 == 0, index % 7 == 0, 1000 + index)
        for index in range(60)
    ]
    rows.append(Row("large", 1000, b"l" * 4300))
    rows += [Row(letter * 1000, 1001 + index, b"") for index, letter in enumerate("xyz")]
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, encoded(rows), no_pause)
    assert 3 <= run.pages <= 4
    assert run.trailer.name_pages == 2
    return directory, run, rows, directory.files[run_name(1)]._bytes


def pages_of(run, rows):
    """Where the page of each row is."""
    return [run.extent(run._candidates(hash_of(row.name))[1])[0] for row in rows]


def check_damage_is_told_name_by_name(run, rows, pages, position):
    at = next(extent[0] for extent in map(run.extent, range(run.pages)) if position < sum(extent))
    for row, page, found in zip(rows, pages, found_many([run], [row.name for row in rows]), strict=True):
        if page == at:
            assert (type(found), found.position) == (Corruption, at)
        else:
            assert found == row


def position_of_page(run, position):
    for ordinal in range(run.pages):
        start, length = run.extent(ordinal)
        if start <= position < start + length:
            return start
    return position // PAGE * PAGE
