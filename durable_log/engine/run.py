"""Sorted runs: immutable files of catalog rows, found by name and by stream number.

Law of this room: how a run is opened, read and verified; ``run_format`` has its layout, ``run_writer`` makes it and
``csrc/run.c`` looks into its pages. A run never changes, and an open one holds the first key of each page, never a
row. Nothing is believed before its checksum: a page that does not verify raises :class:`Corruption`. Any thread may
read; nobody may while ``close`` runs.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import Directory, File
from durable_log.engine.format import KIND_RUN, PAGE, FileHeader, decode_file_header, encode_file_header
from durable_log.engine.run_format import (
    NAME_BYTES_MAX,
    Row,
    Tables,
    Trailer,
    decode_row,
    decode_tables,
    decode_trailer,
    key_of_row,
    run_number,
    size_of_row,
    tables_length,
)
from durable_log.errors import Corruption, UnsupportedFormat

SCAN_BYTES: Final = 2**20
_NAME: Final = struct.Struct("=IIII")


_find: Final = lib.dl_run_find
_OK: Final = lib.DL_RUN_OK
_ABSENT: Final = lib.DL_RUN_ABSENT
_BEFORE: Final = lib.DL_RUN_BEFORE
_AFTER: Final = lib.DL_RUN_AFTER
REASONS: Final = {
    lib.DL_RUN_BAD_LENGTH: "the page is longer than what is there",
    lib.DL_RUN_BAD_CRC: "the page fails its checksum",
    lib.DL_RUN_BAD_PLACE: "the page belongs to another place",
    lib.DL_RUN_BAD_ITEM: "a row does not fit into its page",
    lib.DL_RUN_BAD_ORDER: "the rows of the page are out of order",
}


class Span(NamedTuple):
    """Consecutive pages of rows, from the ``first`` one on, and where their bytes lie."""

    first: int
    position: int
    length: int


def _load(file: File, name: str) -> tuple[FileHeader, Trailer, Tables] | None:
    page = file.read(0, PAGE)
    header = decode_file_header(name, page)
    if header is None or page != encode_file_header(header):
        return None
    if header.kind != KIND_RUN or header.number != run_number(name) or header.size != file.size():
        return None
    trailer_and_crc = decode_trailer(file.read(header.size - PAGE, PAGE), header.nonce)
    if trailer_and_crc is None:
        return None
    trailer, crc = trailer_and_crc
    position = trailer.numbers_position + trailer.number_pages * PAGE
    length = tables_length(trailer)
    if position + length != header.size - PAGE:
        return None
    tables = decode_tables(file.read(position, length), trailer, header.nonce, crc)
    return None if tables is None else (header, trailer, tables)


class Run:
    """An open run. ``count`` includes the ``tombstones``; ``min_number`` and ``max_number`` are 0 if it is empty."""

    def __init__(self, file: File, header: FileHeader, trailer: Trailer, tables: Tables) -> None:
        self.file = file
        self.number, self.nonce, self.size = header.number, header.nonce, header.size
        self.count, self.tombstones = trailer.rows, trailer.tombstones
        self.min_number, self.max_number = trailer.min_number, trailer.max_number
        self.pages, self._trailer, self._tables = trailer.pages, trailer, tables
        self._fences, self._number_fences, self._places = tables

    @classmethod
    def open(cls, directory: Directory, name: str) -> Run | None:
        """The run in that file, or None if its header, its trailer or its tables do not verify. Reads no rows."""
        file = directory.open(name)
        try:
            loaded = _load(file, name)
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
        return sum(sys.getsizeof(table) for table in self._tables if table is not None)

    # by name

    def locate(self, hash_: int) -> tuple[int, int] | None:
        """Position and length of the pages that may hold a name of that hash; None if there are none.

        One page; two if the hash is the first of a page; more only if hashes collide. O(log n), no I/O.
        """
        low, high = self._candidates(hash_)
        if high < 0:
            return None
        position, end = self.extent(low)[0], sum(self.extent(high))
        return position, end - position

    def find_in(self, data: bytes, hash_: int, name: str) -> Row | None:
        """The row of that name in what :meth:`locate` pointed at. Raises :class:`Corruption`."""
        low, high = self._candidates(hash_)
        base = self.extent(low)[0] if high >= 0 else 0

        def page(position: int, length: int) -> bytes:
            return data[position - base : position - base + length] if low < high else data

        return self._search(low, high, hash_, name.encode(), page)

    def find(self, hash_: int, name: str) -> Row | None:
        """The row of that name, a tombstone too; ``hash_`` is its :func:`hash_of`. O(log n), one read but where
        hashes collide. Raises :class:`Corruption` and ``OSError``.
        """
        low, high = self._candidates(hash_)
        return self._search(low, high, hash_, name.encode(), self.file.read)

    def _candidates(self, hash_: int) -> tuple[int, int]:
        """First and last of the pages that may hold a hash; the last is -1 if none does."""
        fences = self._fences
        high = bisect_right(fences, hash_) - 1
        if high < 0 or fences[high] != hash_:
            return high, high
        return max(bisect_left(fences, hash_) - 1, 0), high

    def _search(self, low: int, high: int, hash_: int, key: bytes, page: Callable[[int, int], bytes]) -> Row | None:
        """Bisect pages, the last one first where there are two: it is the only one but where hashes collide."""
        at = ffi.new("size_t *")
        while low <= high and high >= 0:
            middle = (low + high + 1) // 2
            position, length = self.extent(middle)
            data = page(position, length)
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
                raise self.corruption(position, verdict)
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
            position = self._trailer.numbers_position + index * PAGE
            page = self.file.read(position, PAGE)
            verdict = lib.dl_run_numbers_find(
                *self._verified(position, page), view + begin, end - begin, pairs + count, found
            )
            self._expect(position, verdict)
            count, begin = count + found[0], end
        lib.dl_run_pairs_sort(pairs, ffi.new("dl_run_pair[]", max(1, count)), count)
        return pairs, count

    # all of them

    def names_after(self, prefix: bytes, after: bytes, limit: int) -> tuple[list[tuple[bytes, bool, int, bytes]], bool]:
        """The ``limit`` least names that begin with ``prefix`` and sort after ``after``, as (name, tombstone, number,
        payload), ascending by their UTF-8 bytes; and whether there are more of them.

        Reads the whole run, in pieces; about 1 KiB of memory a name. Raises :class:`Corruption` and ``OSError``.
        """
        if limit < 1:
            raise ValueError(f"a limit of {limit} names")
        texts, heap = ffi.new("uint8_t[]", limit * NAME_BYTES_MAX), ffi.new("dl_run_name[]", limit)
        start, end = ffi.from_buffer("uint8_t[]", prefix), ffi.from_buffer("uint8_t[]", after)
        names = ffi.new("dl_run_names *", [start, end, len(prefix), len(after), texts, heap, limit, 0, 0])
        bytes_read = ffi.new("size_t *")
        for span in self.spans(SCAN_BYTES):
            data = self.file.read(span.position, span.length)
            arguments = self._verified(span.position, data)
            verdict = lib.dl_run_names_scan(*arguments, span.first, names, bytes_read)
            self._expect(span.position + bytes_read[0], verdict if len(data) == span.length else lib.DL_RUN_BAD_LENGTH)
        lib.dl_run_names_sort(names)
        places = list(_NAME.iter_unpack(ffi.buffer(heap, names.count * _NAME.size)))
        return self._named(places), names.matches > limit

    def _named(self, places: Sequence[tuple[int, ...]]) -> list[tuple[bytes, bool, int, bytes]]:
        """Read the rows at (page, position in it, …) again: while the best names were sought, others were kept."""
        result: list[tuple[bytes, bool, int, bytes]] = [(b"", False, 0, b"")] * len(places)
        page, ordinal = b"", -1
        for index in sorted(range(len(places)), key=lambda index: places[index][0]):
            if places[index][0] != ordinal:
                ordinal = places[index][0]
                page = self.page(ordinal)
            row = decode_row(page, places[index][1])
            result[index] = (row.name.encode(), row.tombstone, row.number, row.payload)
        return result

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
        return list(_check(self))

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
        """The arguments by which C verifies pages."""
        return data, len(data), position // PAGE, self.nonce

    def _expect(self, position: int, verdict: int) -> None:
        if verdict != _OK:
            raise self.corruption(position, verdict)

    def corruption(self, position: int, verdict: int) -> Corruption:
        """The error that says what is wrong with the page at ``position``."""
        return Corruption(self.file.name, position, REASONS[verdict])


def _check(run: Run) -> Iterator[tuple[int, str]]:
    """Every problem of a run, those of its pages first."""
    try:
        loaded = _load(run.file, run.file.name)
    except UnsupportedFormat:
        loaded = None
    if loaded is None or loaded[1:] != (run._trailer, run._tables):
        yield 0, "the file header, the trailer or the tables do not verify"
    seen, numbers = _Seen(), _Seen()
    yield from _check_rows(run, seen)
    yield from _check_numbers(run, numbers)
    if not (seen.whole and numbers.whole):
        return
    lowest = seen.number_min if seen.count else 0
    expected = (run.count, run.tombstones, run.min_number, run.max_number)
    if (seen.count, seen.tombstones, lowest, seen.number_max) != expected:
        yield run.size - PAGE, "the trailer counts other rows than there are"
    if (numbers.count, numbers.digest) != (seen.count, seen.digest):
        yield run._trailer.numbers_position, "the numbers name other rows than there are"


class _Seen:
    """What the pages of one kind come to."""

    def __init__(self) -> None:
        self.whole = True
        self.count = self.tombstones = self.number_max = self.digest = 0
        self.number_min = 2**64 - 1
        self.last: tuple[int, bytes] = (-1, b"")

    def add(self, info: Any) -> None:
        self.count += info.items
        self.tombstones += info.tombstones
        self.number_min = min(self.number_min, info.number_min)
        self.number_max = max(self.number_max, info.number_max)
        self.digest = (self.digest + info.digest) % 2**64


def _check_rows(run: Run, seen: _Seen) -> Iterator[tuple[int, str]]:
    info = ffi.new("dl_run_page *")
    for ordinal in range(run.pages):
        position, page = run._read(ordinal)
        verdict = lib.dl_run_survey(*run._verified(position, page), lib.DL_RUN_ROWS, ordinal, info)
        if verdict != _OK:
            seen.whole = False
            yield position, REASONS[verdict]
            continue
        if info.first != run._fences[ordinal]:
            yield position, "the page begins with another hash than the tables say"
        if key_of_row(page, lib.DL_RUN_PAGE_HEADER) <= seen.last:
            yield position, "the page begins before the last one ended"
        seen.last = key_of_row(page, info.last)
        seen.add(info)


def _check_numbers(run: Run, seen: _Seen) -> Iterator[tuple[int, str]]:
    info = ffi.new("dl_run_page *")
    for index, fence in enumerate(run._number_fences):
        position = run._trailer.numbers_position + index * PAGE
        page = run.file.read(position, PAGE)
        verdict = lib.dl_run_survey(*run._verified(position, page), lib.DL_RUN_NUMBERS, 0, info)
        if verdict != _OK:
            seen.whole = False
            yield position, REASONS[verdict]
            continue
        if info.first != fence or (info.first, b"") < seen.last:
            yield position, "the page begins with another number than the tables say"
        seen.last = (int.from_bytes(page[info.last : info.last + 8], "little"), b"")
        seen.add(info)
