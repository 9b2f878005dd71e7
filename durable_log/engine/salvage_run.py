"""What can still be read of a damaged run.

Law of this room: it reads and changes nothing. Pages stand for themselves: each says by its checksum what it is and
where it belongs, so they are found without header, trailer or tables. The three sections of a run speak of the same
streams: where a row is lost, its name, or at least its number, may be left. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import Directory, File
from durable_log.engine.format import KIND_RUN, PAGE, nonce_of, pages
from durable_log.engine.run import Run
from durable_log.engine.run_file import REASONS
from durable_log.engine.run_format import NameEntry, decode_name, decode_row, run_number, size_of_row
from durable_log.engine.salvage import header_or_guess

_HEADER: Final = lib.DL_RUN_PAGE_HEADER
_KINDS: Final = (lib.DL_RUN_ROWS, lib.DL_RUN_NUMBERS, lib.DL_RUN_NAMES)


class SalvagedRun(NamedTuple):
    """``rows``: by name, the encoded rows that verify. ``lost``: names whose rows are lost. ``unnamed``: the numbers of
    rows of which nothing else is left. ``complete``: there were no other rows than these.
    """

    number: int
    rows: dict[str, bytes]
    lost: dict[str, NameEntry]
    unnamed: set[int]
    complete: bool


class Page(NamedTuple):
    """A page that verifies, or the ``reason`` why what stands there is none."""

    position: int
    kind: int
    data: bytes
    reason: str = ""


def pages_of(file: File, nonce: int) -> Iterator[Page]:
    """Every page of a run that verifies, wherever they begin, and all other pages of the file as what they are not."""
    position, size = PAGE, file.size()
    info = ffi.new("dl_run_page *")
    while position < size:
        data = file.read(position, PAGE)
        length = pages(int.from_bytes(data[4:8], "little")) if len(data) == PAGE else 0
        kind = data[14] if len(data) == PAGE else 0
        reason = REASONS[lib.DL_RUN_BAD_LENGTH]
        if kind in _KINDS and PAGE <= length <= size - position:
            data = data if length == PAGE else file.read(position, length)
            verdict = lib.dl_run_survey(data, len(data), position // PAGE, nonce, kind, 0, info)
            if verdict == lib.DL_RUN_OK:
                yield Page(position, kind, data)
                position += length
                continue
            reason = REASONS[verdict]
        yield Page(position, 0, data[:PAGE], reason)
        position += PAGE


def salvage_run(directory: Directory, name: str, uuid: bytes) -> SalvagedRun:
    """What is left of the run in that file; nothing if it is not there. Raises ``OSError``."""
    number = run_number(name) or 0
    rows: dict[str, bytes] = {}
    names: dict[str, NameEntry] = {}
    numbers: set[int] = set()
    of_rows: set[int] = set()
    if name not in directory.names():
        return SalvagedRun(number, rows, names, numbers, complete=False)
    run = Run.open(directory, name)
    expected = None if run is None or run.nonce != nonce_of(uuid, number) else run.count
    if run is not None:
        run.close()
    file = directory.open(name)
    try:
        for page in pages_of(file, header_or_guess(file, name, KIND_RUN, number, uuid).nonce):
            if page.kind == lib.DL_RUN_ROWS:
                for key, stream, encoded in rows_on(page.data):
                    rows[key] = encoded
                    of_rows.add(stream)
            elif page.kind == lib.DL_RUN_NAMES:
                names.update((entry.name, entry) for entry in names_on(page.data))
            elif page.kind == lib.DL_RUN_NUMBERS:
                numbers.update(numbers_on(page.data))
    finally:
        file.close()
    lost = {key: entry for key, entry in names.items() if key not in rows}
    named = len(rows) + len(lost)
    unnamed = numbers - of_rows - {entry.number for entry in lost.values()}
    everything = 0 < named == len(names) == len(numbers)
    complete = everything if expected is None else named == expected
    return SalvagedRun(number, rows, lost, unnamed, complete)


def rows_on(data: bytes) -> Iterator[tuple[str, int, bytes]]:
    """Name, stream number and bytes of each row of a page that verifies."""
    at = _HEADER
    for _ in range(int.from_bytes(data[12:14], "little")):
        row, size = decode_row(data, at), size_of_row(data, at)
        yield row.name, row.number, data[at : at + size]
        at += size


def names_on(data: bytes) -> Iterator[NameEntry]:
    """The names of a page that verifies."""
    at = _HEADER
    for _ in range(int.from_bytes(data[12:14], "little")):
        entry = decode_name(data, at)
        yield entry
        at += lib.DL_RUN_NAME_HEADER + len(entry.name.encode())


def numbers_on(data: bytes) -> Iterator[int]:
    """The stream numbers of a page that verifies."""
    for at in range(_HEADER, _HEADER + int.from_bytes(data[12:14], "little") * lib.DL_RUN_NUMBER, lib.DL_RUN_NUMBER):
        yield int.from_bytes(data[at : at + 8], "little")
