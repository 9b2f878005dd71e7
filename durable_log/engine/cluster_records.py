"""What goes into a clustered segment, as arrays of ``dl_record``: growing, sorting, and staging the frames they name.

Law of this room: the loops are C, over slices of about 1 MiB; here are only the arrays and their order. Nothing is
verified here, and nothing is trusted by those who verify. One thread a build.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import accumulate
from typing import Any, Final

from durable_log._core import ffi, lib

SLICE: Final = 2**20
RECORDS_AT_ONCE: Final = SLICE // 32

_PART: Final = 4 * RECORDS_AT_ONCE
_STAGE: Final = 32 * SLICE
_STAGED_MAX: Final = 8 * RECORDS_AT_ONCE
_WINDOW: Final = SLICE // 4
_DIGIT: Final = 11
_RECORD: Final = ffi.sizeof("dl_record")

new_uncleared: Final = ffi.new_allocator(should_clear_after_alloc=False)
"""Like ``ffi.new``, but without touching the memory: that would hold the interpreter's lock."""

Parts = list[tuple[Any, int]]


class Records:
    """Records in parts, so that memory grows without being copied, and none is touched before it is needed."""

    def __init__(self) -> None:
        self.parts: Parts = []
        self._size = 0

    def room(self, needed: int) -> tuple[Any, int, int]:
        """The last part, how many records it has, and how many it can have: ``needed`` more at least."""
        if not self.parts or self._size - self.parts[-1][1] < needed:
            self._size = max(needed, _PART)
            self.parts.append((new_uncleared("dl_record[]", self._size), 0))
        part, used = self.parts[-1]
        return part, used, self._size

    def use(self, count: int) -> None:
        """The last part now has so many."""
        self.parts[-1] = self.parts[-1][0], count

    def sort(self, keys: tuple[int, ...], pause: Callable[[], None]) -> tuple[Any, int]:
        """All of them in one array, by the first key, then the second, then in the order they came; and how many.

        The parts are given up. O(records) for each 11 bits of each key.
        """
        parts, self.parts = self.parts, []
        return sort(parts, keys, pause)


def sort(parts: Parts, keys: tuple[int, ...], pause: Callable[[], None]) -> tuple[Any, int]:
    """:meth:`Records.sort` of parts, least significant digit first. ``parts`` is used up."""
    greatest = ffi.new("uint64_t[]", lib.DL_KEYS)
    for part, count in parts:
        lib.dl_records_greatest(part, count, greatest)
    total = sum(count for _, count in parts)
    memory: Any = ffi.NULL
    for key in reversed(keys):
        for shift in range(0, max(1, int(greatest[key]).bit_length()), _DIGIT):
            memory = _sort_by(parts, key, shift, total, pause)
            parts[:] = [
                (memory + first, min(RECORDS_AT_ONCE, total - first)) for first in range(0, total, RECORDS_AT_ONCE)
            ]
    return memory, total


def _sort_by(parts: Parts, key: int, shift: int, total: int, pause: Callable[[], None]) -> Any:
    counts = array("Q", bytes(8 * lib.DL_RADIX))
    view = ffi.from_buffer("uint64_t[]", counts)
    for part, count in parts:
        lib.dl_records_count(part, count, key, shift, view)
        pause()
    out = new_uncleared("dl_record[]", total)
    heads = ffi.from_buffer("uint64_t[]", array("Q", accumulate(counts, initial=0)))
    for part, count in parts:
        verdict = lib.dl_records_scatter(part, count, key, shift, heads, out, total)
        assert verdict == lib.DL_CLUSTER_OK
        forget(part, count * _RECORD)
        pause()
    return out


def forget(memory: Any, size: int) -> None:
    """Give back ``size`` bytes of memory that nobody wants any more, without the interpreter's lock, under which it
    will be freed.
    """
    lib.dl_forget(ffi.cast("uint8_t *", memory), size)


class Stage:
    """Where the frames of a ``dl_cluster`` wait, as many as fit in 32 MiB, in the order in which they are copied."""

    def __init__(self, job: Any, largest: int) -> None:
        self._job = job
        self._size = max(_STAGE, largest) if largest else 1
        self._memory = new_uncleared("uint8_t[]", self._size)
        self._window_memory = new_uncleared("uint8_t[]", _WINDOW)
        self._window = ffi.new("dl_window *", (self._window_memory, _WINDOW))
        job.stage, job.stage_size = self._memory, self._size

    @property
    def is_empty(self) -> bool:
        """Whether nothing that was staged is wanted any more, and something else is."""
        job = self._job
        return bool(job.piece_left == 0 and job.records_done == job.records_staged < job.records_count)

    def fill(self, pause: Callable[[], None]) -> int:
        """Stage the frames of the next records of the job. Returns a verdict; the job's ``fault`` says what failed."""
        job, count = self._job, ffi.new("size_t *")
        wanted = new_uncleared("dl_record[]", _STAGED_MAX)
        job.records_staged += lib.dl_stage_plan(
            job.sources, job.sources_count, job.records + job.records_done, job.records_count - job.records_done,
            self._size, wanted, _STAGED_MAX, count,
        )  # fmt: skip
        assert job.records_staged > job.records_done
        job.stage_at = 0
        if not count[0]:
            return int(lib.DL_CLUSTER_OK)
        memory, total = sort([(wanted, count[0])], (lib.DL_BY_PLACE,), pause)
        verdict, done = lib.DL_CLUSTER_MORE, ffi.new("size_t *")
        while verdict == lib.DL_CLUSTER_MORE:
            verdict = lib.dl_stage_fill(
                job.sources, job.sources_count, memory, total, done,
                self._window, self._memory, self._size, ffi.addressof(job, "fault"),
            )  # fmt: skip
            pause()
        forget(memory, total * _RECORD)
        return int(verdict)

    def close(self) -> None:
        """Give back the memory of the stage, and of the job's records."""
        forget(self._memory, self._size)
        forget(self._job.records, self._job.records_count * _RECORD)
