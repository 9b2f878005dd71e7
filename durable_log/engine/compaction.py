"""Giving space back: clustered segments that are mostly dead, and runs of the catalog that pile up.

Law of this room: the same as a checkpoint's: new files first, then the manifest, then the old files go. It runs on the
same background thread, never beside a checkpoint. What it moves keeps its bytes and offsets.
"""

from __future__ import annotations

from array import array
from typing import Final, NamedTuple

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import SLICE_STATES, Checkpointer, Rows, pause
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.cluster_build import rewrite_clustered
from durable_log.engine.commit import Committer
from durable_log.engine.files import Directory
from durable_log.engine.index import clustered_place
from durable_log.engine.live import LiveBytes
from durable_log.engine.reader import Reader
from durable_log.engine.rows import encode_state
from durable_log.engine.run import Run
from durable_log.engine.run_format import encode_row
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter

RUNS_MAX: Final = 4
DEAD_PART: Final = 0.5


class Needed(NamedTuple):
    """The rows of a segment that some stream's index names: row → stream number; and pairs of a stream's number and the
    first byte of it that is needed, for those that were trimmed, ascending.
    """

    rows: dict[int, int]
    trims: list[tuple[int, int]]


class Compactor:
    """Rewrites and merges, one step at a time."""

    def __init__(
        self, directory: Directory, catalog: Catalog, committer: Committer, writer: LogWriter, reader: Reader,
        checkpointer: Checkpointer, live: LiveBytes,
    ) -> None:  # fmt: skip
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._checkpointer, self._live = reader, checkpointer, live

    def step(self, dead_part: float = DEAD_PART) -> bool:
        """Merge runs if there are too many, or rewrite the segment that is most dead. False if nothing is due."""
        runs = self._catalog.runs
        if len(runs) > RUNS_MAX:
            self._merge(_worth_merging(runs))
            return True
        number = self._most_dead(dead_part)
        if number is None:
            return False
        self.rewrite(self._reader.clustered[number])
        return True

    def merge_all(self) -> None:
        """One run, without tombstones."""
        if len(self._catalog.runs) > 1 or any(run.tombstones for run in self._catalog.runs):
            self._merge(self._catalog.runs)

    def _most_dead(self, dead_part: float) -> int | None:
        parts = {
            number: 1 - self._live[number] / segment.payload_bytes for number, segment in self._reader.clustered.items()
        }
        worst = max(parts, key=lambda number: parts[number], default=None)
        return worst if worst is not None and parts[worst] > dead_part else None

    def _merge(self, old: tuple[Run, ...]) -> None:
        manifest, checkpointer = self._checkpointer.manifest, self._checkpointer
        whole = old[-1] is self._catalog.runs[-1]
        number = manifest.next_file
        new = merge_runs(self._directory, number, manifest.uuid, old, drop_tombstones=whole, pause=pause)
        gone = {run.number for run in old}
        at = manifest.runs.index(old[0].number)
        runs = [run for run in manifest.runs if run not in gone]
        runs.insert(at, number)
        checkpointer.save(runs=tuple(runs), next_file=number + 1)
        self._catalog.replace_runs(old, new)
        for run in old:
            run.close()
            self._directory.remove(run.file.name)

    def rewrite(self, old: ClusteredSegment, needed: Needed | None = None) -> None:
        """Copy what is needed of a segment into a new one, have the manifest say so, and remove it.

        Whoever has looked already says what is ``needed``; it may be more than that, never less.
        """
        checkpointer, catalog = self._checkpointer, self._catalog
        with self._committer.exclusive():
            epoch = catalog.begin_epoch()
        needed = needed or self._needed(old)
        moved: list[StreamState] = []
        runs = checkpointer.manifest.runs
        new = self._copy(old, needed) if needed.rows else None
        run = None
        if needed.rows:
            rows = None if new is None else Rows(new)
            run = self._relocate(old, rows, sorted(set(needed.rows.values())), moved)
            runs = (run.number, *runs)
        manifest = checkpointer.manifest
        clustered = tuple(file for file in manifest.clustered if file.number != old.number)
        checkpointer.save(clustered=clustered, runs=runs, next_file=manifest.next_file + (run is not None))
        with self._committer.exclusive():
            if run is not None:
                catalog.replace_runs((), run)
            catalog.settle(moved, [], epoch)
            catalog.evict()
            del self._reader.clustered[old.number]
        old.close()
        self._directory.remove(old.file.name)

    def _copy(self, old: ClusteredSegment, needed: Needed) -> ClusteredSegment | None:
        manifest = self._checkpointer.manifest
        selected = [(old, array("Q", sorted(needed.rows)))]
        new = rewrite_clustered(
            self._directory, manifest.next_file, manifest.uuid, selected, pause=pause, trims=needed.trims
        )
        if new is not None:
            self._checkpointer.adopt(new)
        return new

    def _needed(self, old: ClusteredSegment) -> Needed:
        streams, _, _ = old.streams()
        needed, trims = {}, {}
        for first in range(0, len(streams), SLICE_STATES):
            with self._committer.exclusive():
                for row in range(first, min(first + SLICE_STATES, len(streams))):
                    state = self._catalog.find_number(streams[row])
                    place = clustered_place(old.number, row)
                    if state is not None and any(found == place for _, _, found in state.index):
                        needed[row] = streams[row]
                        if state.first and not state.forks:
                            trims[state.number] = state.first
                self._catalog.evict()
            pause()
        return Needed(needed, sorted(trims.items()))

    def _relocate(self, old: ClusteredSegment, rows: Rows | None, numbers: list[int], moved: list[StreamState]) -> Run:
        encoded = []
        for first in range(0, len(numbers), SLICE_STATES):
            with self._committer.exclusive():
                lsn = self._writer.end_lsn
                for number in numbers[first : first + SLICE_STATES]:
                    state = self._catalog.find_number(number)
                    if state is not None:
                        # Not idle until its new row counts: the old one names the segment that goes.
                        self._catalog.hold(state)
                        moved.append(state)
                        state.index = state.index.relocated(old.number, [] if rows is None else rows.of(number))
                        encoded.append(encode_row(state.name, number, encode_state(state, lsn)))
            pause()
        manifest = self._checkpointer.manifest
        return write_run(self._directory, manifest.next_file, manifest.uuid, encoded, pause=pause)


def _worth_merging(runs: tuple[Run, ...]) -> tuple[Run, ...]:
    """The newest runs up to one that is more than twice as large as all of them together."""
    total = runs[0].count
    count = 1
    while count < len(runs) and (count < 2 or runs[count].count <= 2 * total):
        total += runs[count].count
        count += 1
    return runs[:count]
