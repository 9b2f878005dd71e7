"""Everything that a run says, compared with everything else that it says.

Law of this room: it reads every page, reports and goes on; only ``OSError`` stops it. Pages are surveyed in C; what
they come to together is compared here: rows, numbers and names are of the same streams, and the trailer counts them.
Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from durable_log._core import ffi, lib
from durable_log.engine.format import PAGE, encode_file_header
from durable_log.engine.run_file import REASONS, arguments, load
from durable_log.engine.run_format import NEVER, decode_name, key_of_row
from durable_log.errors import UnsupportedFormat

if TYPE_CHECKING:
    from durable_log.engine.run import Run


def check(run: Run) -> Iterator[tuple[int, str]]:
    """Position and reason of every problem of a run, those of its pages first. Raises ``OSError``."""
    trailer = run.trailer
    try:
        loaded = load(run.file, run.file.name)
    except UnsupportedFormat:
        loaded = None
    if loaded is None or loaded[1:] != (trailer, run.tables):
        yield 0, "the file header, the trailer or the tables do not verify"
    elif run.file.read(0, PAGE) != encode_file_header(loaded.header):
        yield 0, "the header has changed"
    rows, numbers, names = _Seen(), _Seen(), _Seen()
    yield from _check_rows(run, rows)
    yield from _check_numbers(run, numbers)
    yield from _check_names(run, names)
    if rows.whole and rows.counts() != (
        run.count, run.tombstones, run.min_number, run.max_number, run.min_deadline,
    ):  # fmt: skip
        yield run.size - PAGE, "the trailer counts other rows than there are"
    if rows.whole and numbers.whole and (numbers.count, numbers.digest) != (rows.count, rows.digest):
        yield trailer.numbers_position, "the numbers name other rows than there are"
    if rows.whole and names.whole and (names.count, names.names_digest) != (rows.count, rows.names_digest):
        yield trailer.names_position, "the names are others than those of the rows"


class _Seen:
    """What the pages of one kind come to."""

    def __init__(self) -> None:
        self.whole = True
        self.count = self.tombstones = self.number_max = self.digest = self.names_digest = 0
        self.number_min, self.deadline_min = 2**64 - 1, NEVER
        self.last: Any = None

    def add(self, info: Any) -> None:
        self.count += info.items
        self.tombstones += info.tombstones
        self.number_min = min(self.number_min, info.number_min)
        self.number_max = max(self.number_max, info.number_max)
        self.deadline_min = min(self.deadline_min, info.deadline_min)
        self.digest = (self.digest + info.digest) % 2**64
        self.names_digest = (self.names_digest + info.names_digest) % 2**64

    def counts(self) -> tuple[int, int, int, int, int]:
        """In the trailer's order."""
        lowest = self.number_min if self.count else 0
        return self.count, self.tombstones, lowest, self.number_max, self.deadline_min


def _check_rows(run: Run, seen: _Seen) -> Iterator[tuple[int, str]]:
    info = ffi.new("dl_run_page *")
    for ordinal in range(run.pages):
        position, length = run.extent(ordinal)
        page = run.file.read(position, length)
        verdict = lib.dl_run_survey(*arguments(position, page, run.nonce), lib.DL_RUN_ROWS, ordinal, info)
        if verdict != lib.DL_RUN_OK:
            seen.whole = False
            yield position, REASONS[verdict]
            continue
        if info.first != run.tables.fences[ordinal]:
            yield position, "the page begins with another hash than the tables say"
        if seen.last is not None and key_of_row(page, lib.DL_RUN_PAGE_HEADER) <= seen.last:
            yield position, "the page begins before the last one ended"
        seen.last = key_of_row(page, info.last)
        seen.add(info)


def _check_numbers(run: Run, seen: _Seen) -> Iterator[tuple[int, str]]:
    info = ffi.new("dl_run_page *")
    for index, fence in enumerate(run.tables.number_fences):
        position = run.trailer.numbers_position + index * PAGE
        page = run.file.read(position, PAGE)
        verdict = lib.dl_run_survey(*arguments(position, page, run.nonce), lib.DL_RUN_NUMBERS, 0, info)
        if verdict != lib.DL_RUN_OK:
            seen.whole = False
            yield position, REASONS[verdict]
            continue
        if info.first != fence or (seen.last is not None and info.first < seen.last):
            yield position, "the page begins with another number than the tables say"
        seen.last = int.from_bytes(page[info.last : info.last + 8], "little")
        seen.add(info)


def _check_names(run: Run, seen: _Seen) -> Iterator[tuple[int, str]]:
    info = ffi.new("dl_run_page *")
    for index in range(run.trailer.name_pages):
        position = run.trailer.names_position + index * PAGE
        page = run.file.read(position, PAGE)
        verdict = lib.dl_run_survey(*arguments(position, page, run.nonce), lib.DL_RUN_NAMES, 0, info)
        if verdict != lib.DL_RUN_OK:
            seen.whole = False
            yield position, REASONS[verdict]
            continue
        if seen.last is not None and decode_name(page, lib.DL_RUN_PAGE_HEADER).name <= seen.last:
            yield position, "the page begins before the last one ended"
        seen.last = decode_name(page, info.last).name
        seen.add(info)
