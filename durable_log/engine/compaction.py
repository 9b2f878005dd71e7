"""Giving space back: clustered segments that are mostly dead, and runs of the catalog that pile up.

Law of this room: the same as a checkpoint's: new files first, then the manifest, then the old files go. It runs on the
same background thread, never beside a checkpoint. What it moves keeps its bytes and offsets.
"""

from __future__ import annotations

import logging
from array import array
from collections import defaultdict
from collections.abc import Container
from itertools import takewhile
from typing import Final

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import Checkpointer, pause
from durable_log.engine.cluster import ROW_SIZE, ClusteredSegment
from durable_log.engine.cluster_build import rewrite_clustered
from durable_log.engine.commit import Committer
from durable_log.engine.edits import Change
from durable_log.engine.files import Directory
from durable_log.engine.idle import let_go
from durable_log.engine.index import (
    clustered_place,
    clustered_row,
    clustered_segment,
    frayed,
    gathered,
    places_of,
    relocated,
)
from durable_log.engine.live import LiveBytes
from durable_log.engine.reader import Reader
from durable_log.engine.run import Run
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.engine.snapshot import SLICE_STATES, Rows, row_or_none
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter
from durable_log.errors import Corruption

RUNS_MAX: Final = 4
DEAD_PART: Final = 0.5
SMALL_MAX: Final = 8
"""So many clustered segments of about the same size are merged into one,"""
CLASSES_MERGED: Final = 4
"""unless they are of 32 MiB or more."""
GATHERED_AT_ONCE: Final = 1024

_log = logging.getLogger("durable_log")


class Needed:
    """The rows of clustered segments that indexes of streams name, by segment; the numbers of these streams; and of
    those that were trimmed, the first byte that is needed.
    """

    def __init__(self) -> None:
        self.rows: dict[int, set[int]] = defaultdict(set)
        self.streams: set[int] = set()
        self.trims: dict[int, int] = {}

    def add(self, stream: int, segment: int, row: int, first: int) -> None:
        """That stream needs a row, from the stream's byte ``first`` on."""
        self.rows[segment].add(row)
        self.streams.add(stream)
        if first:
            self.trims[stream] = first


class Compactor:
    """Rewrites and merges, one step at a time."""

    def __init__(
        self, directory: Directory, catalog: Catalog, committer: Committer, writer: LogWriter, reader: Reader,
        checkpointer: Checkpointer, live: LiveBytes,
    ) -> None:  # fmt: skip
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._checkpointer, self._edits, self._live = reader, checkpointer, checkpointer.edits, live
        self._moved: list[StreamState] = []
        """Streams whose rows name a segment that they have left: it may not go before newer rows count."""
        self._damaged: set[str] = set()

    def step(self, dead_part: float = DEAD_PART) -> bool:
        """Merge runs if there are too many, gather streams that lie in too many pieces, rewrite the segment that is
        most dead, or merge small ones.

        False if nothing is due.
        """
        self._checkpointer.finish()
        olds: list[ClusteredSegment] = []
        try:
            if self._merge_runs() or self._gather():
                return True
            olds = self._most_dead(dead_part) or self._small()
            if olds:
                self.rewrite(olds)
        except Corruption as error:
            self._leave(error, olds)
            return True
        return bool(olds)

    def _leave(self, error: Corruption, olds: list[ClusteredSegment]) -> None:
        """What is damaged stays as it is, until somebody repairs the store, and what can't be rewritten because of
        something else that is damaged; the others go on. Raises the error if that was so before.
        """
        names = {old.file.name for old in olds}
        left = {error.file} if error.file in names or not names else {error.file, *names}
        if left <= self._damaged:
            raise error
        self._damaged |= left
        _log.error("%s: %s", self._directory.path, error)

    def tidy(self) -> bool:
        """What keeps the number of files small, and is done in no time. False if nothing is due."""
        return self._merge_runs() or self._merge_small()

    def merge_all(self) -> None:
        """One run, without tombstones."""
        self._checkpointer.finish()
        if len(self._catalog.runs) > 1 or any(run.tombstones for run in self._catalog.runs):
            self._merge(self._catalog.runs)

    def _most_dead(self, dead_part: float) -> list[ClusteredSegment]:
        """The segment that is, if it is so by more than ``dead_part``."""
        parts = {segment.number: 1 - self._live[segment.number] / segment.payload_bytes for segment in self._sound()}
        worst = max(parts, key=lambda number: parts[number], default=None)
        return [self._reader.clustered[worst]] if worst is not None and parts[worst] > dead_part else []

    def _sound(self) -> list[ClusteredSegment]:
        """The segments that are not known to be damaged."""
        return [segment for segment in self._reader.clustered.values() if segment.file.name not in self._damaged]

    def _merge(self, old: tuple[Run, ...]) -> None:
        whole, uuid, number = old[-1] is self._catalog.runs[-1], self._edits.manifest.uuid, self._edits.new_number()
        new = merge_runs(self._directory, number, uuid, old, drop_tombstones=whole, pause=pause)
        self._edits.make(Change(new, old, (), [], 0))

    def _merge_runs(self) -> bool:
        runs = tuple(takewhile(lambda run: run.file.name not in self._damaged, self._catalog.runs))
        if len(runs) <= RUNS_MAX:
            return False
        self._merge(_worth_merging(runs))
        return True

    def _merge_small(self) -> bool:
        olds = self._small()
        if olds:
            self.rewrite(olds)
        return bool(olds)

    def _small(self) -> list[ClusteredSegment]:
        """Clustered segments of about the same, small size, if there are many of them."""
        classes: dict[int, list[ClusteredSegment]] = {}
        for segment in self._sound():
            classes.setdefault(_size_class(segment.payload_bytes), []).append(segment)
        for size_class in sorted(classes):
            if len(classes[size_class]) >= SMALL_MAX and size_class < CLASSES_MERGED:
                return classes[size_class]
        return []

    def _gather(self) -> bool:
        """Copy the many short ranges of some streams to where they are one range each. False if nothing is due."""
        long = self._checkpointer.long
        numbers = sorted(long)[:GATHERED_AT_ONCE]
        long.difference_update(numbers)
        with self._committer.exclusive():
            epoch = self._catalog.begin_epoch()
        sound = {segment.number: segment for segment in self._sound()}
        needed, spans = self._frayed(numbers, sound)
        if not spans:
            return bool(numbers)
        new = self._copy([sound[number] for number in sorted(needed.rows)], needed)
        rows = None if new is None else Rows(new)
        for first in range(0, len(spans), SLICE_STATES):
            with self._committer.exclusive():
                for number, begin, end in spans[first : first + SLICE_STATES]:
                    state = self._catalog.find_number(number)
                    if state is not None:
                        self._live.moved(state, begin, end)
                        index = gathered(state.index, begin, end, [] if rows is None else rows.of(number))
                        self._move(state, index, epoch)
            pause()
        run, _ = self._write_rows()
        self._edits.make(Change(run, (), (), self._moved, epoch))
        return True

    def _frayed(self, numbers: list[int], sound: Container[int]) -> tuple[Needed, list[tuple[int, int, int]]]:
        """The rows of sound segments that have to be copied; and of each stream, from where to where."""
        needed, spans = Needed(), list[tuple[int, int, int]]()
        for first in range(0, len(numbers), SLICE_STATES):
            with self._committer.exclusive():
                for number in numbers[first : first + SLICE_STATES]:
                    state = self._catalog.find_number(number)
                    span = None if state is None else frayed(state.index)
                    if state is None or span is None:
                        continue
                    places = [place for start, _, place in places_of(state.index) if span[0] <= start < span[1]]
                    if all(clustered_segment(place) in sound for place in places):
                        spans.append((number, *span))
                        for place in places:
                            kept = 0 if state.forks else state.first
                            needed.add(number, clustered_segment(place), clustered_row(place), kept)
            pause()
        return needed, spans

    def rewrite(self, olds: list[ClusteredSegment], needed: Needed | None = None) -> None:
        """Copy what is needed of some segments into a new one, have the manifest say so, and remove them.

        Whoever has looked already says what is ``needed``; it may be more than that, never less. A checkpoint that is
        finished later needs what nobody needed before, so that has been done.
        """
        if needed is None:
            self._checkpointer.finish()
        for old in olds if needed is None or needed.streams else ():
            _expect_rows(old)
        with self._committer.exclusive():
            epoch = self._catalog.begin_epoch()
        needed = needed or self._needed(olds)
        gone = frozenset(old.number for old in olds)
        if needed.streams:
            new = self._copy(olds, needed)
            self._relocate(gone, None if new is None else Rows(new), sorted(needed.streams), epoch)
        run, is_whole = self._write_rows() if self._moved else (None, True)
        if not is_whole:
            # Somebody's row names them for ever: they stay, and are not tried again.
            self._damaged.update(old.file.name for old in olds)
            olds, gone = [], frozenset()
        self._edits.make(Change(run, (), tuple(olds), self._moved, epoch))

    def _copy(self, olds: list[ClusteredSegment], needed: Needed) -> ClusteredSegment | None:
        number, uuid = self._edits.new_number(), self._edits.manifest.uuid
        selected = [(old, array("Q", sorted(needed.rows[old.number]))) for old in olds]
        new = rewrite_clustered(
            self._directory, number, uuid, selected, pause=pause, trims=sorted(needed.trims.items())
        )
        if new is not None:
            self._edits.adopt(new, new.payload_bytes)
        return new

    def _needed(self, olds: list[ClusteredSegment]) -> Needed:
        needed = Needed()
        for old in olds:
            streams, _, _ = old.streams()
            for first in range(0, len(streams), SLICE_STATES):
                with self._committer.exclusive():
                    for row in range(first, min(first + SLICE_STATES, len(streams))):
                        state = self._catalog.find_number(streams[row])
                        place = clustered_place(old.number, row)
                        if state is not None and any(found == place for _, _, found in places_of(state.index)):
                            needed.add(state.number, old.number, row, 0 if state.forks else state.first)
                    let_go(self._catalog, self._committer)
                pause()
        return needed

    def _relocate(self, gone: frozenset[int], rows: Rows | None, numbers: list[int], epoch: int) -> None:
        for first in range(0, len(numbers), SLICE_STATES):
            with self._committer.exclusive():
                for number in numbers[first : first + SLICE_STATES]:
                    state = self._catalog.find_number(number)
                    if state is not None:
                        index = relocated(state.index, gone, [] if rows is None else rows.of(number))
                        self._move(state, index, epoch)
            pause()

    def _move(self, state: StreamState, index: bytearray, epoch: int) -> None:
        """Not idle until its new row counts: the old one names the segments that it leaves."""
        self._catalog.hold(state, epoch)
        self._moved.append(state)
        state.index = index

    def _write_rows(self) -> tuple[Run, bool]:
        """A run of those that were moved and are still what their name leads to, and whether all of these have rows.

        One that has none is a stream that has changed, and the next checkpoint's.
        """
        encoded, moved = list[bytes](), list[StreamState]()
        for first in range(0, len(self._moved), SLICE_STATES):
            with self._committer.exclusive():
                lsn = self._writer.end_lsn
                for state in self._moved[first : first + SLICE_STATES]:
                    row = row_or_none(state, lsn) if self._catalog.get(state.name) is state else b""
                    if row is not None:
                        encoded.append(row)
                        moved.append(state)
            pause()
        is_whole, self._moved = len(moved) == len(self._moved), moved
        number, uuid = self._edits.new_number(), self._edits.manifest.uuid
        return write_run(self._directory, number, uuid, encoded, pause=pause), is_whole


def _expect_rows(segment: ClusteredSegment) -> None:
    """Raise :class:`Corruption` unless all rows are there, each in its place: a stream whose row is damaged, or another
    one's, would be taken for one that has nothing here.
    """
    streams, starts, _ = segment.streams()
    last = (0, 2**64)
    for row, place in enumerate(zip(streams, starts, strict=True)):
        if place <= last:
            position = segment.trailer.rows_position + row * ROW_SIZE
            raise Corruption(segment.file.name, position, "a row fails its checksum, or is not in its order")
        last = place
        if row % SLICE_STATES == 0:
            pause()


def _size_class(size: int) -> int:
    """0 below 64 KiB, 1 below 512 KiB, and so on: in each class, sizes differ by at most a factor of 8."""
    return max(0, (size >> 13).bit_length() - 1) // 3


def _worth_merging(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """The newest runs up to one that is more than twice as large as all of them together."""
    total = runs[0].count
    count = 1
    while count < len(runs) and (count < 2 or runs[count].count <= 2 * total):
        total += runs[count].count
        count += 1
    return runs[:count]
