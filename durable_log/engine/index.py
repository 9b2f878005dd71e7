"""Where a stream's bytes lie: offset → place.

Law of this room: one entry a record of the log, appended in order by the holder of the commit lock after the record's
block was written; clustering replaces many of them by one entry a row of a clustered segment, in a new index that takes
the old one's place in a single store. Readers on other threads may look up anything below the durable tail that they
read before; they copy what they take, so no reader ever holds on to an array that is about to grow. No I/O.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from durable_log.engine.format import position_of, segment_of

LOST: Final = 0
"""A place: these bytes were acknowledged and can't be read any more."""

_CLUSTERED: Final = 1 << 63


def clustered_place(segment: int, row: int) -> int:
    """The place of a whole row of a clustered segment. The place of a record in the log is its LSN."""
    return _CLUSTERED | segment << 32 | row


def is_clustered(place: int) -> bool:
    """Whether a place lies in a clustered segment."""
    return bool(place & _CLUSTERED)


def clustered_segment(place: int) -> int:
    """The number of the clustered segment that a place lies in."""
    return place >> 32 & 0x7FFFFFFF


def clustered_row(place: int) -> int:
    """The row of its clustered segment that a place names."""
    return place & 0xFFFFFFFF


class Run(NamedTuple):
    """Consecutive records in one log segment; or lost bytes, with segment 0. ``offsets`` has one entry more than
    ``positions``: where the last record ends.
    """

    segment: int
    positions: array[int]
    offsets: array[int]


class ClusteredRun(NamedTuple):
    """The bytes ``start`` to ``end`` lie in one row of a clustered segment."""

    segment: int
    row: int
    start: int
    end: int


class StreamIndex:
    """The bytes of one stream, in order. ``_entries`` holds pairs of a start offset and a place, then the end."""

    __slots__ = ("_entries",)

    def __init__(self, start: int = 0) -> None:
        self._entries: array[int] = array("Q", (start,))

    def __len__(self) -> int:
        return len(self._entries) // 2

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Start, end and place of each entry, as they were at the call."""
        entries = self._entries[:]
        return zip(entries[:-1:2], entries[2::2], entries[1::2], strict=True)

    @property
    def end(self) -> int:
        """Where the last entry ends."""
        return self._entries[-1]

    def add(self, end: int, place: int) -> None:
        """The next record, up to ``end``. Amortised O(1)."""
        self._entries.extend((place, end))

    def replaced(self, below: int, rows: Iterable[tuple[int, int, int]]) -> StreamIndex:
        """A copy in which ``rows`` (start, end, place) stand for all entries of the log below that LSN."""
        kept = [entry for entry in self if is_clustered(entry[2])]
        later = [entry for entry in self if not is_clustered(entry[2]) and entry[2] >= below]
        return self._copy((*kept, *rows, *later))

    def relocated(self, segments: frozenset[int], rows: Iterable[tuple[int, int, int]]) -> StreamIndex:
        """A copy in which ``rows`` (start, end, place) stand for all entries in those clustered segments."""
        kept = [entry for entry in self if not (is_clustered(entry[2]) and clustered_segment(entry[2]) in segments)]
        return self._copy(sorted((*kept, *rows)))

    def _copy(self, entries: Iterable[tuple[int, int, int]]) -> StreamIndex:
        copy = StreamIndex(self._entries[0])
        for start, end, place in entries:
            if start > copy.end:
                copy.add(start, LOST)
            if end > copy.end:
                copy.add(end, place)
        if self.end > copy.end:
            copy.add(self.end, LOST)  # all that was left is trimmed
        return copy

    def tobytes(self) -> bytes:
        """As it is stored in a row of the catalog: without what lies in the log, which tells of that itself."""
        entries, at = self._entries, 0
        while 2 * at + 1 < len(entries) and (is_clustered(entries[2 * at + 1]) or entries[2 * at + 1] == LOST):
            at += 1
        return entries[: 2 * at + 1].tobytes()

    @classmethod
    def frombytes(cls, stored: bytes) -> StreamIndex:
        """What ``tobytes`` gave. Raises ``ValueError`` if it cannot be that."""
        index = cls()
        index._entries = array("Q")
        index._entries.frombytes(stored)
        if len(index._entries) % 2 != 1:
            raise ValueError(f"an index of {len(stored)} bytes is not whole")
        return index

    def in_log(self) -> bool:
        """Whether the last entry lies in the log, as all entries of the log come after all others."""
        return len(self._entries) > 1 and not is_clustered(self._entries[-2]) and self._entries[-2] != LOST

    def place_at(self, offset: int) -> tuple[int, int, int]:
        """Start, end and place of the entry that holds the byte at ``offset``. O(log n)."""
        entries = self._entries
        at = 2 * (self._find(offset))
        return entries[at], entries[at + 2], entries[at + 1]

    def runs(self, start: int, end: int) -> list[Run | ClusteredRun]:
        """What holds the bytes ``start`` to ``end`` (not empty). O(log n + records)."""
        first = self._find(start)
        last = self._find(end - 1) + 1
        entries = self._entries[2 * first : 2 * last + 1]
        return _split(entries[1::2], entries[::2], start, end)

    def _find(self, offset: int) -> int:
        entries = self._entries
        return bisect_right(range(len(entries) // 2), offset, key=lambda index: entries[2 * index]) - 1


def _split(places: array[int], offsets: array[int], start: int, end: int) -> list[Run | ClusteredRun]:
    runs: list[Run | ClusteredRun] = []
    first = 0
    while first < len(places):
        place = places[first]
        last = first + 1
        if place & _CLUSTERED:
            number, row = clustered_segment(place), clustered_row(place)
            runs.append(ClusteredRun(number, row, max(start, offsets[first]), min(end, offsets[last])))
        else:
            segment = segment_of(place)
            while last < len(places) and segment_of(places[last]) == segment:
                last += 1
            positions = array("Q", map(position_of, places[first:last]))
            runs.append(Run(segment, positions, offsets[first : last + 1]))
        first = last
    return runs
