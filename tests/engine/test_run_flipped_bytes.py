"""Every byte of a run, flipped: it is reported, and no row is ever wrong."""

from __future__ import annotations

import contextlib
from array import array

import pytest
from runs import (
    NOW_MS,
    UUID,
    check_damage_is_told_name_by_name,
    due,
    expiring,
    named,
    no_pause,
    pages_of,
    position_of_page,
    small_run,
)

from durable_log.engine.format import PAGE
from durable_log.engine.run import Run
from durable_log.engine.run_format import hash_of, run_name
from durable_log.engine.run_writer import merge_runs
from durable_log.errors import Corruption

HEADER = 84
"""Bytes of a file header that say something; zeroes fill its page."""


def test_every_flipped_byte_is_reported_and_no_row_is_ever_wrong():
    directory, run, rows, content = small_run()
    rows_end, names, names_end = run.trailer.numbers_position, run.trailer.names_position, run.trailer.tables_position
    by_page = {run.extent(run._candidates(hash_of(row.name))[1]): row for row in rows}
    assert len(by_page) == run.pages
    numbers = array("Q", sorted(row.number for row in rows))
    by_number = {row.number: row for row in rows}
    pages = pages_of(run, rows)
    for position in range(len(content)):
        content[position] ^= 1 << position % 8
        opened = Run.open(directory, run_name(1))
        if HEADER <= position < names_end:
            assert opened is not None
            at = 0 if position < PAGE else position_of_page(run, position)
            assert [fault for fault, _ in opened.verify()] == [at]
        else:
            assert opened is None
            assert run.verify()[0][0] == 0
        for (at, length), row in by_page.items():
            if at <= position < at + length:
                with pytest.raises(Corruption, match=f"position {position_of_page(run, position)}"):
                    run.find(hash_of(row.name), row.name)
            elif position % 101 == 0:
                assert run.find(hash_of(row.name), row.name) == row
        if PAGE <= position < rows_end:
            check_damage_is_told_name_by_name(run, rows, pages, position)
        if names <= position < names_end:
            for read in (lambda: run.names_from(b"", b"", 99), lambda: due(run, NOW_MS)):
                with pytest.raises(Corruption, match=f"position {position_of_page(run, position)}"):
                    read()
        elif position % 101 == 0:
            assert run.names_from(b"", b"", 99) == named(rows, b"", b"", 99)
            assert due(run, 1030) == expiring(rows, 1030)
        if PAGE <= position < rows_end and position % 7 == 0:
            with pytest.raises(Corruption):
                list(run.rows())
        if (PAGE <= position < rows_end or names <= position < names_end) and position % 13 == 0:
            with pytest.raises(Corruption):
                merge_runs(directory, 2, UUID, [run], drop_tombstones=False, pause=no_pause)
            assert directory.names() == [run_name(1)]
        with contextlib.suppress(Corruption):
            assert run.find_numbers(numbers) == by_number
            assert opened is None or position < PAGE or names <= position < names_end
        content[position] ^= 1 << position % 8
    assert run.verify() == []
