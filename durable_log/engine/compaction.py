"""Giving space back: clustered segments that are mostly dead, and runs of the catalog that pile up.

Law of this room: the same as a checkpoint's: new files first, then the manifest, then the old files go. It runs on the
same background thread, never beside a checkpoint. What it moves keeps its bytes and offsets.
"""

from __future__ import annotations

import logging
from array import array
from collections import defaultdict
from itertools import takewhile
from typing import Final

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import SLICE_STATES, Checkpointer, Rows, pause
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.cluster_build import rewrite_clustered
from durable_log.engine.commit import Committer
from durable_log.engine.files import Directory
from durable_log.engine.index import clustered_place, places_of, relocated
from durable_log.engine.live import LiveBytes
from durable_log.engine.reader import Reader
from durable_log.engine.rows import encode_stream
from durable_log.engine.run import Run
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter
from durable_log.errors import Corruption

RUNS_MAX: Final = 4
DEAD_PART: Final = 0.5
SMALL_MAX: Final = 8
"""So many clustered segments of about the same size are merged into one,"""
CLASSES_MERGED: Final = 4
"""unless they are of 32 MiB or more."""

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
        self._reader, self._checkpointer, self._live = reader, checkpointer, live
        self._moved: list[StreamState] = []
        """Streams whose rows name a segment that they have left: it may not go before newer rows count."""
        self._damaged: set[str] = set()

    def step(self, dead_part: float = DEAD_PART) -> bool:
        """Merge runs if there are too many, rewrite the segment that is most dead, or merge small ones.

        False if nothing is due.
        """
        self._checkpointer.finish()
        olds: list[ClusteredSegment] = []
        try:
            if self._merge_runs():
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
        manifest, checkpointer = self._checkpointer.manifest, self._checkpointer
        whole = old[-1] is self._catalog.runs[-1]
        number = checkpointer.new_number()
        new = merge_runs(self._directory, number, manifest.uuid, old, drop_tombstones=whole, pause=pause)
        gone = {run.number for run in old}
        at = manifest.runs.index(old[0].number)
        runs = [run for run in manifest.runs if run not in gone]
        runs.insert(at, number)
        try:
            checkpointer.save(runs=tuple(runs))
        except BaseException:
            checkpointer.discard(new)
            raise
        self._catalog.replace_runs(old, new)
        for run in old:
            run.close()
            self._directory.remove(run.file.name)

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

    def rewrite(self, olds: list[ClusteredSegment], needed: Needed | None = None) -> None:
        """Copy what is needed of some segments into a new one, have the manifest say so, and remove them.

        Whoever has looked already says what is ``needed``; it may be more than that, never less.
        """
        checkpointer, catalog = self._checkpointer, self._catalog
        checkpointer.finish()
        with self._committer.exclusive():
            epoch = catalog.begin_epoch()
        needed = needed or self._needed(olds)
        gone = frozenset(old.number for old in olds)
        if needed.streams:
            new = self._copy(olds, needed)
            self._relocate(gone, None if new is None else Rows(new), sorted(needed.streams), epoch)
        run = self._write_rows() if self._moved else None
        manifest = checkpointer.manifest
        clustered = tuple(file for file in manifest.clustered if file.number not in gone)
        try:
            checkpointer.save(clustered=clustered, runs=(*([run.number] if run else []), *manifest.runs))
        except BaseException:
            if run is not None:
                checkpointer.discard(run)
            raise
        with self._committer.exclusive():
            if run is not None:
                catalog.replace_runs((), run)
            for old in olds:
                del self._reader.clustered[old.number]
        checkpointer.settle(self._moved, [], epoch)
        self._moved.clear()
        for old in olds:
            old.close()
            self._directory.remove(old.file.name)

    def _copy(self, olds: list[ClusteredSegment], needed: Needed) -> ClusteredSegment | None:
        number, uuid = self._checkpointer.new_number(), self._checkpointer.manifest.uuid
        selected = [(old, array("Q", sorted(needed.rows[old.number]))) for old in olds]
        new = rewrite_clustered(
            self._directory, number, uuid, selected, pause=pause, trims=sorted(needed.trims.items())
        )
        if new is not None:
            self._checkpointer.adopt(new, new.payload_bytes)
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
                    self._catalog.evict()
                pause()
        return needed

    def _relocate(self, gone: frozenset[int], rows: Rows | None, numbers: list[int], epoch: int) -> None:
        for first in range(0, len(numbers), SLICE_STATES):
            with self._committer.exclusive():
                for number in numbers[first : first + SLICE_STATES]:
                    state = self._catalog.find_number(number)
                    if state is not None:
                        # Not idle until its new row counts: the old one names the segments that go.
                        self._catalog.hold(state, epoch)
                        self._moved.append(state)
                        state.index = relocated(state.index, gone, [] if rows is None else rows.of(number))
            pause()

    def _write_rows(self) -> Run:
        """A run of those that were moved and are still what their name leads to."""
        encoded: list[bytes] = []
        for first in range(0, len(self._moved), SLICE_STATES):
            with self._committer.exclusive():
                lsn = self._writer.end_lsn
                encoded += [
                    encode_stream(state, lsn)
                    for state in self._moved[first : first + SLICE_STATES]
                    if self._catalog.get(state.name) is state
                ]
            pause()
        checkpointer = self._checkpointer
        return write_run(self._directory, checkpointer.new_number(), checkpointer.manifest.uuid, encoded, pause=pause)


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
