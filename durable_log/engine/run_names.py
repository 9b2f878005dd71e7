"""The names of a run, listed in order and searched for those whose time has come.

Law of this room: names lie in pages of one length, so a page's place follows from its number, and no table of them is
in memory. A listing bisects the pages on disk and reads on from there; looking for deadlines reads all of them. Which
names count is said by ``csrc/run_names.c``, with the interpreter's lock released. Nothing is believed before its
checksum. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import File
from durable_log.engine.format import PAGE
from durable_log.engine.run_file import SCAN_BYTES, arguments, corruption, expect
from durable_log.engine.run_format import NEVER, NameEntry, Trailer, decode_name
from durable_log.errors import Corruption

_SCAN_PAGES: Final = SCAN_BYTES // PAGE
_SCAN_NAMES: Final = SCAN_BYTES // lib.DL_RUN_NAME_HEADER
_AFTER: Final = lib.DL_RUN_AFTER
_BEFORE: Final = lib.DL_RUN_BEFORE
_FULL: Final = lib.DL_RUN_FULL
_OK: Final = lib.DL_RUN_OK


class Due(NamedTuple):
    """Name and number of streams whose time has come; and when that of the next one comes, of all that were read."""

    streams: list[tuple[str, int]]
    next_ms: int


class Names:
    """The pages of names of an open run."""

    def __init__(self, file: File, nonce: int, trailer: Trailer) -> None:
        self._file, self._nonce = file, nonce
        self.position, self.pages, self._count = trailer.names_position, trailer.name_pages, trailer.rows

    def listed(self, prefix: bytes, after: bytes, limit: int) -> tuple[list[NameEntry], bool]:
        """See :meth:`Run.names_from`."""
        start, end = ffi.from_buffer("uint8_t[]", prefix), ffi.from_buffer("uint8_t[]", after)
        bounds = ffi.new("dl_run_range *", [start, end, len(prefix), len(after)])
        at = ffi.new("uint32_t[]", limit)
        picked = ffi.new("dl_run_picked *", [at, limit, 0, 0])
        found: list[NameEntry] = []
        page, verdict = self._seek(bounds), _OK
        step = min(_SCAN_PAGES, 1 + -(-limit * self.pages // max(1, self._count)))
        while page < self.pages and verdict == _OK:
            position, data = self._read(page, step)
            picked.size = limit - len(found)
            verdict = lib.dl_run_names_take(*arguments(position, data, self._nonce), bounds, picked)
            expect(self._file, position + picked.bytes_read, verdict)
            found += [decode_name(data, place) for place in ffi.unpack(at, picked.count)]
            page += step
        return found, verdict == _FULL

    def lack(self, name: bytes) -> bool:
        """Whether it is certain that this is none of them. O(log n) reads."""
        try:
            found, _ = self.listed(name, b"", 1)
        except (OSError, Corruption):
            return False
        return not found or found[0].name.encode() != name

    def due(self, from_ms: int, now_ms: int) -> Iterator[Due]:
        """See :meth:`Run.due`."""
        at = ffi.new("uint32_t[]", _SCAN_NAMES)
        picked = ffi.new("dl_run_picked *", [at, _SCAN_NAMES, 0, 0])
        next_ms = ffi.new("uint64_t *", NEVER)
        for page in range(0, self.pages, _SCAN_PAGES):
            position, data = self._read(page, _SCAN_PAGES)
            where = arguments(position, data, self._nonce)
            verdict = lib.dl_run_names_due(*where, from_ms, now_ms, next_ms, picked)
            expect(self._file, position + picked.bytes_read, verdict)
            yield Due([decode_name(data, place)[:2] for place in ffi.unpack(at, picked.count)], next_ms[0])

    def _seek(self, bounds: Any) -> int:
        """The page with the first name that is not below the bounds; or the one after it, if that begins with it."""
        low, high = 0, self.pages
        while low < high:
            middle = (low + high) // 2
            position = self.position + middle * PAGE
            data = self._file.read(position, PAGE)
            verdict = lib.dl_run_names_seek(*arguments(position, data, self._nonce), bounds)
            if verdict == _AFTER:
                low = middle + 1
            elif verdict == _BEFORE:
                high = middle
            elif verdict == _OK:
                return middle
            else:
                raise corruption(self._file, position, verdict)
        return low

    def _read(self, page: int, count: int) -> tuple[int, bytes]:
        """Where a page lies, and the bytes of up to ``count`` pages from there on."""
        position, length = self.position + page * PAGE, min(count, self.pages - page) * PAGE
        data = self._file.read(position, length)
        if len(data) < length:
            raise corruption(self._file, position + len(data) // PAGE * PAGE, lib.DL_RUN_BAD_LENGTH)
        return position, data
