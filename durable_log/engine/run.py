"""Sorted runs: immutable files of catalog rows, found by name and by stream number, and listed in order.

Law of this room: how a run is opened and read; ``run_format`` has its layout, ``run_writer`` makes it, ``run_find``
finds many names in it, ``run_names`` lists it, ``run_check`` verifies it and ``csrc/run.c`` looks into its pages. A run
never changes, and an open one holds the first key of each page of rows and numbers, never a row. Nothing is believed
before its checksum: a page that does not verify raises :class:`Corruption`. Any thread may read; whoever does while
``close`` runs meets an error, or bytes of another file that look like damage, and has to know that it is none.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import Directory, File
from durable_log.engine.format import PAGE, FileHeader
from durable_log.engine.run_check import check
from durable_log.engine.run_file import arguments, corruption, expect, load
from durable_log.engine.run_find import Search
from durable_log.engine.run_format import NameEntry, Row, Tables, Trailer, decode_row, size_of_row
from durable_log.engine.run_names import Due, Names
from durable_log.errors import Corruption

_find: Final = lib.dl_run_find
_OK: Final = lib.DL_RUN_OK
_ABSENT: Final = lib.DL_RUN_ABSENT
_BEFORE: Final = lib.DL_RUN_BEFORE
_AFTER: Final = lib.DL_RUN_AFTER


class Span(NamedTuple):
    """Consecutive pages of rows, from the ``first`` one on, and where their bytes lie."""

    first: int
    position: int
    length: int


class Run:
    """An open run. ``count`` includes the ``tombstones``; ``min_number`` and ``max_number`` are 0 if it is empty, and
    ``min_deadline``, in milliseconds since 1970, is ``NEVER`` if none of its streams expires.
    """

    def __init__(self, file: File, header: FileHeader, trailer: Trailer, tables: Tables) -> None:
        self.file = file
        self.number, self.nonce, self.size = header.number, header.nonce, header.size
        self.count, self.tombstones = trailer.rows, trailer.tombstones
        self.min_number, self.max_number = trailer.min_number, trailer.max_number
        self.min_deadline = trailer.min_deadline
        self.pages, self.trailer, self.tables = trailer.pages, trailer, tables
        self._fences, self._number_fences, self._places = tables
        self._names = Names(file, header.nonce, trailer)

    @classmethod
    def open(cls, directory: Directory, name: str) -> Run | None:
        """The run in that file, or None if its header, its trailer or its tables do not verify. Reads no rows."""
        file = directory.open(name)
        try:
            loaded = load(file, name)
        except BaseException:
            file.close()
            raise
        if loaded is None:
            file.close()
            return None
        return cls(file, *loaded)

    def close(self) -> None:
        """Close the file. No read may be under way."""
        self.file.close()

    def memory(self) -> int:
        """What the tables take, in bytes."""
        return sum(sys.getsizeof(table) for table in self.tables if table is not None)

    # by name

    def find(self, hash_: int, name: str) -> Row | None:
        """The row of that name, a tombstone too; ``hash_`` is its :func:`hash_of`. O(log n), one read but where
        hashes collide. Raises :class:`Corruption`, but not for a page that the name would be on and is not, and
        ``OSError``.
        """
        low, high = self._candidates(hash_)
        key = name.encode()
        try:
            return self._search(low, high, hash_, key)
        except Corruption:
            if self._names.lack(key):
                return None
            raise

    def find_many(self, search: Search) -> None:
        """The rows of all names that ``search`` has not found yet, by the same rule, in one call of C."""
        search.look_into(self.file, self.nonce, self.size, self.tables, self._names.lack)

    def _candidates(self, hash_: int) -> tuple[int, int]:
        """First and last of the pages that may hold a hash; the last is -1 if none does."""
        fences = self._fences
        high = bisect_right(fences, hash_) - 1
        if high < 0 or fences[high] != hash_:
            return high, high
        return max(bisect_left(fences, hash_) - 1, 0), high

    def _search(self, low: int, high: int, hash_: int, key: bytes) -> Row | None:
        """Bisect pages, the last one first where there are two: it is the only one but where hashes collide."""
        at = ffi.new("size_t *")
        while low <= high and high >= 0:
            middle = (low + high + 1) // 2
            position, length = self.extent(middle)
            data = self.file.read(position, length)
            verdict = _find(data, len(data), position // PAGE, self.nonce, hash_, key, len(key), at)
            if verdict == _OK:
                return decode_row(data, at[0])
            if verdict == _AFTER:
                low = middle + 1
            elif verdict == _BEFORE:
                high = middle - 1
            elif verdict == _ABSENT:
                return None
            else:
                raise corruption(self.file, position, verdict)
        return None

    # by number

    def find_numbers(self, numbers: array[int]) -> dict[int, Row]:
        """The rows of those of the ascending ``numbers`` (``array('Q')``) that the run has.

        Reads every page that it needs once. Raises :class:`Corruption` and ``OSError``.
        """
        pairs, count = self._pages_of(numbers)
        found: dict[int, Row] = {}
        at = ffi.new("uint32_t[]", max(1, count))
        ordinals = array("Q", bytes(ffi.buffer(pairs, count * ffi.sizeof("dl_run_pair"))))[::2]
        first = 0
        while first < count:
            end = bisect_right(ordinals, ordinals[first], first)
            if ordinals[first] >= self.pages:
                position, reason = self.trailer.numbers_position, "the numbers name a page of rows that is not there"
                raise Corruption(self.file.name, position, reason)
            position, page = self._read(ordinals[first])
            wanted = end - first
            self._expect(position, lib.dl_run_rows_select(*self._verified(position, page), pairs + first, wanted, at))
            for index in range(wanted):
                if at[index] == 0:
                    raise Corruption(self.file.name, position, "the page lacks a row that the numbers say it has")
                row = decode_row(page, at[index])
                found[row.number] = row
            first = end
        return found

    def _pages_of(self, numbers: array[int]) -> tuple[Any, int]:
        """(page of rows, number) of each of the ``numbers`` that the run has, ascending."""
        fences = self._number_fences
        view = ffi.from_buffer("uint64_t[]", numbers)
        pairs = ffi.new("dl_run_pair[]", max(1, len(numbers)))
        found = ffi.new("size_t *")
        count, begin = 0, bisect_left(numbers, fences[0]) if fences else len(numbers)
        while begin < len(numbers):
            index = bisect_right(fences, numbers[begin]) - 1
            end = len(numbers) if index + 1 == len(fences) else bisect_left(numbers, fences[index + 1], begin)
            position = self.trailer.numbers_position + index * PAGE
            page = self.file.read(position, PAGE)
            verdict = lib.dl_run_numbers_find(
                *self._verified(position, page), view + begin, end - begin, pairs + count, found
            )
            self._expect(position, verdict)
            count, begin = count + found[0], end
        lib.dl_run_pairs_sort(pairs, ffi.new("dl_run_pair[]", max(1, count)), count)
        return pairs, count

    # all of them

    def names_from(self, prefix: bytes, after: bytes, limit: int) -> tuple[list[NameEntry], bool]:
        """The ``limit`` least names that begin with ``prefix`` and sort after ``after``, ascending by their UTF-8
        bytes, tombstones too; and whether there are more of them.

        O(log n) reads of a page, and what the names take. Raises :class:`Corruption` and ``OSError``.
        """
        if limit < 1:
            raise ValueError(f"a limit of {limit} names")
        return self._names.listed(prefix, after, limit)

    def due(self, from_ms: int, now_ms: int) -> Iterator[Due]:
        """Every stream that is neither deleted nor hidden, and whose deadline is ``from_ms`` or later and has come, in
        the order of the names.

        A :class:`Due` for each mebibyte of names. Reads all of them. Raises :class:`Corruption` and ``OSError``.
        """
        return self._names.due(from_ms, now_ms)

    def rows(self) -> Iterator[Row]:
        """Every row, by hash, then name. Raises :class:`Corruption` and ``OSError``."""
        for ordinal in range(self.pages):
            page = self.page(ordinal)
            at = lib.DL_RUN_PAGE_HEADER
            for _ in range(int.from_bytes(page[12:14], "little")):
                yield decode_row(page, at)
                at += size_of_row(page, at)

    def verify(self) -> list[tuple[int, str]]:
        """Read everything. Position and reason of whatever is not as it was written. Raises ``OSError``."""
        return list(check(self))

    # pages

    def extent(self, ordinal: int) -> tuple[int, int]:
        """Position and length of a page of rows."""
        places = self._places
        if places is None:
            return PAGE + ordinal * PAGE, PAGE
        return places[ordinal] * PAGE, (places[ordinal + 1] - places[ordinal]) * PAGE

    def spans(self, length_max: int) -> Iterator[Span]:
        """All pages of rows, in pieces of ``length_max`` bytes or of one page that is longer."""
        first, step = 0, length_max // PAGE
        while first < self.pages:
            if self._places is None:
                end = min(first + step, self.pages)
            else:
                end = bisect_right(self._places, self._places[first] + step) - 1
            end = max(end, first + 1)
            position = self.extent(first)[0]
            yield Span(first, position, sum(self.extent(end - 1)) - position)
            first = end

    def page(self, ordinal: int) -> bytes:
        """A page of rows, verified. Raises :class:`Corruption` and ``OSError``."""
        position, page = self._read(ordinal)
        info = ffi.new("dl_run_page *")
        self._expect(position, lib.dl_run_survey(*self._verified(position, page), lib.DL_RUN_ROWS, ordinal, info))
        return page

    def _read(self, ordinal: int) -> tuple[int, bytes]:
        position, length = self.extent(ordinal)
        return position, self.file.read(position, length)

    def _verified(self, position: int, data: bytes) -> tuple[bytes, int, int, int]:
        return arguments(position, data, self.nonce)

    def _expect(self, position: int, verdict: int) -> None:
        expect(self.file, position, verdict)
