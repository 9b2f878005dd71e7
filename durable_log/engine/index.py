"""Where a stream's records lie: offset → LSN.

Law of this room: one entry a record, appended in order by the holder of the commit lock after the record's block was
written. Readers on other threads may look up anything below the durable tail that they read before; they copy what
they take, so no reader ever holds on to an array that is about to grow. No I/O.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Final, NamedTuple

from durable_log.engine.format import position_of, segment_of

LOST: Final = 0
"""In place of an LSN: these bytes were acknowledged and can't be read any more."""


class Run(NamedTuple):
    """Consecutive records in one log segment, or lost bytes (segment 0). ``offsets`` has one entry more than
    ``positions``: where the last record ends.
    """

    segment: int
    positions: array[int]
    offsets: array[int]


class StreamIndex:
    """The records of one stream: record i holds bytes ``_offsets[i]`` to ``_offsets[i + 1]``, at ``_lsns[i]``."""

    __slots__ = ("_lsns", "_offsets")

    def __init__(self, start: int = 0) -> None:
        self._offsets: array[int] = array("Q", (start,))
        self._lsns: array[int] = array("Q")

    def __len__(self) -> int:
        return len(self._lsns)

    def add(self, end: int, lsn: int) -> None:
        """The next record, up to ``end``; ``LOST`` as its LSN if it is gone. Amortised O(1)."""
        self._lsns.append(lsn)
        self._offsets.append(end)

    def record_start(self, offset: int) -> int:
        """Where the record that holds the byte at ``offset`` starts. O(log n)."""
        return self._offsets[bisect_right(self._offsets, offset) - 1]

    def record_end(self, offset: int) -> int:
        """Where the record that holds the byte at ``offset`` ends. O(log n)."""
        return self._offsets[bisect_right(self._offsets, offset)]

    def runs(self, start: int, end: int) -> list[Run]:
        """The records that hold the bytes ``start`` to ``end`` (not empty), one run a segment. O(log n + records)."""
        first = bisect_right(self._offsets, start) - 1
        last = bisect_left(self._offsets, end, first + 1)
        return _split(self._lsns[first:last], self._offsets[first : last + 1])


def _split(lsns: array[int], offsets: array[int]) -> list[Run]:
    runs = []
    first = 0
    while first < len(lsns):
        segment = segment_of(lsns[first])
        last = first + 1
        while last < len(lsns) and segment_of(lsns[last]) == segment:
            last += 1
        positions = array("Q", map(position_of, lsns[first:last]))
        runs.append(Run(segment, positions, offsets[first : last + 1]))
        first = last
    return runs
