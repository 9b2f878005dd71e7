"""Rows by the names of their streams, many at once.

Law of this room: what is looked for, what was found, and the memory that C works in. The search itself is
``csrc/run_find.c``: one call for all names and one run, with the interpreter's lock released. Runs are asked one after
the other, the newest first, and of a name the first row counts. A page that does not hold keeps only those from being
found that are on it by what the names of the run say; one that can't be read, those that may be on it. One thread a
search.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Final

from xxhash import xxh64_intdigest

from durable_log._core import ffi, lib
from durable_log.engine.cluster_records import new_uncleared
from durable_log.engine.files import File
from durable_log.engine.run_file import corruption
from durable_log.engine.run_format import Tables
from durable_log.errors import Corruption

_PAGES: Final = 4 * lib.DL_PAGE
"""Memory for the page that is looked into; a longer one has all memory replaced."""
_ROW_ROOM: Final = 256
"""Memory for a row, on average. What does not fit is fetched in pieces."""
_OUT_MAX: Final = 2**20
_NOTHING: Final = b"\xff\xff\xff\xff"

Unreadable = OSError | Corruption


class Search:
    """Looks for some names. Of each, ``found`` is the bytes in which its newest row begins at ``at``, a tombstone too;
    None if there is no row, or the error that keeps anybody from knowing.
    """

    def __init__(self, names: Sequence[str], hashes: array[int] | None = None) -> None:
        keys = [name.encode() for name in names]
        self.found: list[bytes | Unreadable | None] = [None] * len(keys)
        self._keys = b"".join(keys)
        self._hashes = array("Q", map(xxh64_intdigest, keys)) if hashes is None else hashes
        self._ends = array("I", accumulate(map(len, keys)))
        self.at = array("I", _NOTHING * len(keys))
        job = self._job = ffi.new("dl_run_lookup *")
        job.hashes, job.name_ends = (
            ffi.from_buffer("uint64_t[]", self._hashes),
            ffi.from_buffer("uint32_t[]", self._ends),
        )
        job.names, job.names_length = ffi.from_buffer("uint8_t[]", self._keys), len(self._keys)
        job.rows, job.count = ffi.from_buffer("uint32_t[]", self.at), len(keys)
        self._make_room(min(_PAGES + _ROW_ROOM * len(keys), _OUT_MAX))

    def look_into(self, file: File, nonce: int, size: int, tables: Tables, lacks: Callable[[bytes], bool]) -> None:
        """Look in one more run for those that are not known yet. A log n of pages each; raises nothing. ``lacks`` says
        whether the run has no row of a name that belongs on a page which does not hold.
        """
        fd, memory = file.source()
        table = ffi.new("dl_run_table *")
        view = ffi.NULL if memory is None else ffi.from_buffer("uint8_t[]", memory)
        table.source.fd, table.source.bytes, table.source.nonce = fd, view, nonce
        table.source.length = size if memory is None else len(memory)
        table.pages, table.fences = len(tables.fences), ffi.from_buffer("uint64_t[]", tables.fences)
        if tables.places is not None:
            table.places = ffi.from_buffer("uint32_t[]", tables.places)
        self._run(file, table, lacks)

    def _run(self, file: File, table: Any, lacks: Callable[[bytes], bool]) -> None:
        job, first = self._job, 0
        job.next = 0
        while True:
            job.out_used = 0
            verdict = lib.dl_run_find_many(table, job)
            stopped = job.next
            self._take(first, stopped)
            first = stopped
            if verdict == lib.DL_RUN_OK:
                return
            if verdict != lib.DL_RUN_FULL:
                job.next = stopped + 1
                if verdict == lib.DL_RUN_READ or not lacks(self._key(stopped)):
                    self.found[stopped], self.at[stopped] = self._error(file, verdict), 0
            elif not job.out_used:
                self._make_room(self._job.out_wanted)

    def _key(self, index: int) -> bytes:
        return self._keys[self._ends[index - 1] if index else 0 : self._ends[index]]

    def _take(self, first: int, end: int) -> None:
        """Fetch what was found just now."""
        found, data = self.found, ffi.buffer(self._out, self._job.out_used)[:]
        for index, at in enumerate(self.at[first:end], first):
            if at != lib.DL_RUN_MISSING and found[index] is None:
                found[index] = data

    def _make_room(self, size: int) -> None:
        self._out = new_uncleared("uint8_t[]", size)
        self._job.out, self._job.out_size = self._out, size

    def _error(self, file: File, verdict: int) -> Unreadable:
        if verdict == lib.DL_RUN_READ:
            return OSError(self._job.error, "read failed", file.name)
        return corruption(file, self._job.position, verdict)
