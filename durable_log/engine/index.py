"""Where a stream's bytes lie: offset → place.

Law of this room: one entry a record of the log, appended in order by the holder of the commit lock after the record's
block was written; clustering replaces many of them by one entry a row of a clustered segment, in a new index that takes
the old one's place in a single store. Readers on other threads may look up anything below the durable tail that they
read before; they copy what they take, so no reader ever holds on to bytes that are about to grow. No I/O.

An index is a bytearray of numbers of 8 bytes: pairs of a start offset and a place, then the end. There may be millions
of them: this is one object each, which the garbage collector does not visit.
"""

from __future__ import annotations

import struct
import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.format import segment_of

LOST: Final = 0
"""A place: these bytes were acknowledged and can't be read any more. So is every number below 2³²: it is that of the
repair that found them lost, and has their report.
"""

RANGES_MAX: Final = 256
"""So many short ranges of a stream in clustered segments follow each other before they are made one,"""
SHORT_MAX: Final = 2**20
"""and a range is short up to this many bytes: a longer one is worth its entry."""

ENTRY: Final = 16
"""Bytes that an index grows by for each record: its place, and where it ends."""

_CLUSTERED: Final = 1 << 63
_NUMBER: Final = struct.Struct("<Q")
_PAIR: Final = struct.Struct("<QQ")
_ENTRY: Final = struct.Struct("<QQQ")

entry_of: Final = _PAIR.pack
"""A place, and the end of what lies there, as they are added to an index."""


def clustered_place(segment: int, row: int) -> int:
    """The place of a whole row of a clustered segment. The place of a record in the log is its LSN."""
    return _CLUSTERED | segment << 32 | row


def is_clustered(place: int) -> bool:
    """Whether a place lies in a clustered segment."""
    return bool(place & _CLUSTERED)


def is_lost(place: int) -> bool:
    """Whether nothing can be read there any more."""
    return place >> 32 == 0


def clustered_segment(place: int) -> int:
    """The number of the clustered segment that a place lies in."""
    return place >> 32 & 0x7FFFFFFF


def clustered_row(place: int) -> int:
    """The row of its clustered segment that a place names."""
    return place & 0xFFFFFFFF


class Run(NamedTuple):
    """Consecutive records in one log segment; or lost bytes, with segment 0. ``entries`` is an index of these alone."""

    segment: int
    entries: bytearray


class ClusteredRun(NamedTuple):
    """The bytes ``start`` to ``end`` lie in one row of a clustered segment."""

    segment: int
    row: int
    start: int
    end: int


def new_index(start: int = 0) -> bytearray:
    """One without entries, whose first byte will be the one at ``start``."""
    return bytearray(_NUMBER.pack(start))


def load_index(stored: bytes) -> bytearray:
    """An index out of a row of the catalog. Raises ``ValueError`` if it cannot be one."""
    if len(stored) % 16 != 8:
        raise ValueError(f"an index of {len(stored)} bytes is not whole")
    return bytearray(stored)


def start_of(index: bytearray) -> int:
    """Where the first entry begins, or will."""
    return _number(index, 0)


def end_of(index: bytearray) -> int:
    """Where the last entry ends."""
    return _number(index, len(index) // 8 - 1)


def add_place(index: bytearray, end: int, place: int) -> None:
    """The next record, up to ``end``. Amortised O(1)."""
    index += entry_of(place, end)


def places_of(index: bytearray) -> Iterator[tuple[int, int, int]]:
    """Start, end and place of each entry, as they were at the call."""
    numbers = _numbers(index, 0, len(index))
    return zip(numbers[:-1:2], numbers[2::2], numbers[1::2], strict=True)


def without_log(index: bytearray) -> bytes:
    """As it is stored in a row of the catalog: without what lies in the log, which tells of that itself."""
    size = 8
    while size < len(index):
        place = _number(index, size // 8)
        if not (is_lost(place) or place & _CLUSTERED):
            break
        size += 16
    return bytes(index[:size])


def first_in_log(index: bytearray) -> int:
    """The LSN of the first entry in the log; 2**64 - 1 if there is none. O(entries)."""
    return _number(index, len(without_log(index)) // 8) if reaches_log(index) else 2**64 - 1


def end_before_log(index: bytearray) -> int:
    """Where the entries end that do not lie in the log. O(entries)."""
    return int(_NUMBER.unpack_from(without_log(index)[-8:])[0]) if reaches_log(index) else end_of(index)


def replaced(index: bytearray, below: int, rows: Sequence[tuple[int, int, int]]) -> bytearray:
    """A copy in which ``rows`` (start, end, place) stand for all entries of the log below that LSN. O(entries), in C
    where nothing was lost or trimmed.
    """
    bounds = ffi.new("size_t[2]")
    if lib.dl_index_bounds(ffi.from_buffer("uint8_t[]", index), len(index), below, bounds):
        kept, later = bounds[0], bounds[1]
        copy, end = index[: 16 * kept + 8], _number(index, 2 * kept)
        for start, row_end, place in rows:
            if start != end:
                break
            copy += _PAIR.pack(place, row_end)
            end = row_end
        else:
            if end == _number(index, 2 * later):
                return copy + index[16 * later + 8 :]
    return _replaced(index, below, rows)


def _replaced(index: bytearray, below: int, rows: Iterable[tuple[int, int, int]]) -> bytearray:
    kept, later = [], []
    for entry in places_of(index):
        if entry[2] & _CLUSTERED or (entry[2] > LOST and is_lost(entry[2])):
            kept.append(entry)
        elif entry[2] >= below:
            later.append(entry)
    return _made_of(index, (*sorted((*kept, *rows)), *later))


def relocated(index: bytearray, segments: frozenset[int], rows: Iterable[tuple[int, int, int]]) -> bytearray:
    """A copy in which ``rows`` (start, end, place) stand for all entries in those clustered segments."""
    kept = [
        entry for entry in places_of(index) if not (is_clustered(entry[2]) and clustered_segment(entry[2]) in segments)
    ]
    return _made_of(index, sorted((*kept, *rows)))


def frayed(index: bytearray) -> tuple[int, int] | None:
    """From where to where the newest ranges in clustered segments should become one: if there are too many short ones,
    as many of them as are at most twice as long as all that follow them, so that none is copied often. O(entries).
    """
    if len(index) <= 16 * RANGES_MAX:
        return None
    count = total = 0
    begin = end = end_before_log(index)
    for start, stop, place in reversed(list(places_of(bytearray(without_log(index))))):
        if not is_clustered(place) or stop - start > SHORT_MAX:
            break
        begin = start if stop - start <= 2 * total else begin
        count, total = count + 1, total + stop - start
    return (begin, end) if count > RANGES_MAX else None


def gathered(index: bytearray, begin: int, end: int, rows: Iterable[tuple[int, int, int]]) -> bytearray:
    """A copy in which ``rows`` stand for all entries from offset ``begin`` to ``end``."""
    entries = list(places_of(index))
    clipped = [(max(start, begin), min(stop, end), place) for start, stop, place in rows]
    before = [entry for entry in entries if entry[1] <= begin]
    return _made_of(index, (*before, *clipped, *(entry for entry in entries if entry[0] >= end)))


def index_of(start: int, end: int, entries: Iterable[tuple[int, int, int]]) -> bytearray:
    """One of the bytes ``start`` to ``end``, which lie in ``entries`` (start, end, place) as far as these reach."""
    whole = new_index(start)
    if end > start:
        add_place(whole, end, LOST)
    return _made_of(whole, sorted(entries))


def marked(index: bytearray, report: int, first: int = 0) -> bytearray:
    """A copy in which what is lost from ``first`` on is known to be so, by the report of that number."""
    copy = bytearray(index)
    for entry, (_, end, place) in enumerate(places_of(index)):
        if place == LOST and end > first:
            _NUMBER.pack_into(copy, 16 * entry + 8, report)
    return copy


def lost_in(index: bytearray, first: int = 0) -> Iterator[tuple[int, int, int]]:
    """Start, end and place of all that is lost from ``first`` on."""
    return ((max(start, first), end, place) for start, end, place in places_of(index) if is_lost(place) and end > first)


def _made_of(old: bytearray, entries: Iterable[tuple[int, int, int]]) -> bytearray:
    index, end = old[:8], _number(old, 0)
    for start, entry_end, place in entries:
        if start > end:
            index += _PAIR.pack(LOST, start)
            end = start
        if entry_end > end:
            index += _PAIR.pack(place, entry_end)
            end = entry_end
    if end_of(old) > end:
        index += _PAIR.pack(LOST, end_of(old))  # all that was left is trimmed
    return index


def reaches_log(index: bytearray) -> bool:
    """Whether anything lies in the log: all entries of the log come after those of clustered segments, but what was
    lost may come behind them. O(1) where nothing was.
    """
    for at in range(len(index) // 8 - 2, 0, -2):
        place = _number(index, at)
        if not is_lost(place):
            return not place & _CLUSTERED
    return False


def place_at(index: bytearray, offset: int) -> tuple[int, int, int]:
    """Start, end and place of the entry that holds the byte at ``offset``. O(log n)."""
    return entry_at(index, _find(index, offset))


def entry_at(index: bytearray, number: int) -> tuple[int, int, int]:
    """Start, end and place of an entry."""
    start, place, end = _ENTRY.unpack_from(index, ENTRY * number)
    return start, end, place


def runs_of(index: bytearray, start: int, end: int) -> list[Run | ClusteredRun]:
    """What holds the bytes ``start`` to ``end`` (not empty). O(log n + records)."""
    first, last = _find(index, start), _find(index, end - 1) + 1
    return _split(index[ENTRY * first : ENTRY * last + 8], start, end)


def _find(index: bytearray, offset: int) -> int:
    return bisect_right(range(len(index) // 16), offset, key=lambda entry: _number(index, 2 * entry)) - 1


def _number(index: bytearray, at: int) -> int:
    number: int = _NUMBER.unpack_from(index, 8 * at)[0]
    return number


def _numbers(index: bytearray, first: int, length: int) -> array[int]:
    numbers = array("Q")
    numbers.frombytes(index[first : first + length])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _split(index: bytearray, start: int, end: int) -> list[Run | ClusteredRun]:
    runs: list[Run | ClusteredRun] = []
    first, count = 0, len(index) // ENTRY
    while first < count:
        begin, stop, place = entry_at(index, first)
        if place & _CLUSTERED:
            last = first + 1
            runs.append(ClusteredRun(clustered_segment(place), clustered_row(place), max(start, begin), min(end, stop)))
        else:
            entries = ffi.from_buffer("uint8_t[]", index) + ENTRY * first
            last = first + lib.dl_index_run(entries, count - first)
            runs.append(Run(segment_of(place), index[ENTRY * first : ENTRY * last + 8]))
        first = last
    return runs
