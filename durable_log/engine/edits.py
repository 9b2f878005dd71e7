"""Which files count: the manifest of an open store, and how it is changed.

Law of this room: files are written first, then the manifest names them, then what it does not name any more goes. A
failure between any two steps, or an interrupt, leaves something that ``finish`` brings to its end; nothing else may be
begun before. Called by whoever holds the clustering lock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from durable_log.engine.catalog import Catalog
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.commit import Committer
from durable_log.engine.files import Directory
from durable_log.engine.keeper import Litter
from durable_log.engine.live import LiveBytes
from durable_log.engine.manifest import ClusteredFile, Manifest, install_manifest, write_manifest
from durable_log.engine.reader import Reader
from durable_log.engine.run import Run
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter

SETTLED_AT_ONCE: Final = 512


class Change(NamedTuple):
    """A ``run`` in place of ``runs``, or before all of them; and clustered ``segments`` that go. ``moved`` are the
    streams whose rows are in the run, as of ``epoch``.
    """

    run: Run | None
    runs: tuple[Run, ...]
    segments: tuple[ClusteredSegment, ...]
    moved: list[StreamState]
    epoch: int

    @property
    def old(self) -> list[Run | ClusteredSegment]:
        """What is not needed afterwards."""
        return [*self.runs, *self.segments]


class Edits:
    """Owns the ``manifest`` of an open store."""

    def __init__(
        self, directory: Directory, manifest: Manifest, catalog: Catalog, committer: Committer, writer: LogWriter,
        reader: Reader, live: LiveBytes, litter: Litter, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._live, self._litter, self._clock = reader, live, litter, clock
        self._change: Change | None = None
        self._unnamed: list[str] = []
        self._in_doubt = False
        """Whether nobody knows which manifest is in force: this one, or one that could not be saved."""

    def new_number(self) -> int:
        """The number of a new file. None is given twice, as a save that failed may have named its file all the same."""
        number = self.manifest.next_file
        self.manifest = self.manifest._replace(next_file=number + 1)
        return number

    def adopt(self, segment: ClusteredSegment, live: int) -> None:
        """Indexes are going to point into a new segment: it counts from the next manifest on, whatever fails before."""
        if segment.number in self._reader.clustered:
            return
        self._live[segment.number] = live
        others = [file for file in self.manifest.clustered if file.number != segment.number]
        file = ClusteredFile(segment.number, segment.payload_bytes)
        self.manifest = self.manifest._replace(clustered=(*others, file))
        self._reader.clustered[segment.number] = segment

    def save(self, **changes: Any) -> None:
        """Replace the manifest by one with these changes. Raises ``OSError``; the old one counts then, or nobody knows
        which: that is found out by ``finish``.
        """
        catalog, manifest = self._catalog, self.manifest._replace(**changes)
        with self._committer.exclusive():
            # All counts are those of one moment, of which replay knows what came after it.
            manifest = manifest._replace(
                lsn=self._writer.end_lsn,
                streams=catalog.count,
                next_stream=catalog.next_number,
                clustered=tuple(
                    ClusteredFile(file.number, max(0, self._live[file.number])) for file in manifest.clustered
                ),
            )
        if catalog.crashed_at is not None and catalog.forgets_crash:
            crashed_ms = math.ceil(catalog.crashed_at * 1000)
            manifest = manifest._replace(crashed_ms=crashed_ms, crashed_lsn=catalog.crashed_lsn)
        write_manifest(self._directory, manifest, int(self._clock() * 1000))
        self._in_doubt = True
        install_manifest(self._directory)
        self.manifest, self._in_doubt = manifest, False
        catalog.forgets_crash = False

    def make(self, change: Change) -> None:
        """Save a manifest with that change, and do in memory and on disk what follows from it. Raises ``OSError``."""
        self._change = change
        gone = {segment.number for segment in change.segments}
        clustered = tuple(file for file in self.manifest.clustered if file.number not in gone)
        replaced = {run.number for run in change.runs}
        at = self.manifest.runs.index(change.runs[0].number) if change.runs else 0
        runs = [number for number in self.manifest.runs if number not in replaced]
        runs[at:at] = [] if change.run is None else [change.run.number]
        try:
            self.save(clustered=clustered, runs=tuple(runs))
        finally:
            self._complete()

    def finish(self) -> None:
        """Bring to its end what was broken off. Raises ``OSError``."""
        self._complete()
        if self._in_doubt:
            self.save()
        self.remove(())

    def close(self) -> None:
        """Close the files of a change that was broken off. Closing twice is harmless."""
        if self._change is not None:
            for file in [*self._change.old, *([] if self._change.run is None else [self._change.run])]:
                file.close()

    def remove(self, names: Iterable[str]) -> None:
        """Remove what no manifest names that may be in force."""
        self._unnamed += names
        if not self._in_doubt:
            unnamed, self._unnamed = self._unnamed, []
            self._litter.drop(*unnamed)

    def settle(self, written: list[StreamState], removed: list[StreamState], epoch: int) -> None:
        """Rows of these streams count now: see :meth:`Catalog.settle`."""
        for first in range(0, max(len(written), len(removed)), SETTLED_AT_ONCE):
            last = first + SETTLED_AT_ONCE
            with self._committer.exclusive():
                self._catalog.settle(written[first:last], removed[first:last], epoch)

    def _complete(self) -> None:
        """What follows from a change that was saved, or was not. Doing it twice is harmless."""
        change = self._change
        if change is None:
            return
        run = change.run
        if self._is_saved(change):
            with self._committer.exclusive():
                if run is not None and run not in self._catalog.runs:
                    self._catalog.replace_runs(change.runs, run)
                for segment in change.segments:
                    self._reader.clustered.pop(segment.number, None)
            self.settle(change.moved, [], change.epoch)
            change.moved.clear()
            for old in change.old:
                old.close()
            self.remove(old.file.name for old in change.old)
        elif run is not None:
            run.close()
            self.remove((run.file.name,))
        self._change = None

    def _is_saved(self, change: Change) -> bool:
        if change.run is not None:
            return change.run.number in self.manifest.runs
        return not {each.number for each in change.segments} & {each.number for each in self.manifest.clustered}
