"""From the log to clustered segments and the catalog's runs.

Law of this room: one checkpoint at a time, on the background thread. It reads sealed log segments, writes files that
nobody names yet, and only then has the manifest name them; the log segments are given back after that. A crash between
any two steps leaves either the old manifest or the new one, and files that the one in force does not name are removed
at open. The commit lock is held for short slices only; states are looked at, and their indexes replaced, inside them.
"""

from __future__ import annotations

import logging
import time
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from durable_log.engine.catalog import Catalog
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.cluster_build import LogSource, write_clustered
from durable_log.engine.commit import Committer
from durable_log.engine.edits import Edits
from durable_log.engine.files import Directory
from durable_log.engine.format import PAGE, lsn_of
from durable_log.engine.index import end_before_log
from durable_log.engine.keeper import Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.manifest import Manifest
from durable_log.engine.reader import Reader
from durable_log.engine.run import Run
from durable_log.engine.run_writer import write_run
from durable_log.engine.segment import LogSegment
from durable_log.engine.snapshot import SLICE_STATES, Epoch, Rows, Snapshot, row_or_none
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter
from durable_log.errors import Corruption
from durable_log.model import Options

EXPIRY_GROUP_MIN: Final = 1000
"""Fewer streams than this are not worth a file of their own."""

_log = logging.getLogger("durable_log")


class Sealed(NamedTuple):
    """Log segments that are complete."""

    segments: list[LogSegment]

    @property
    def below(self) -> int:
        """The LSN that all of them lie below."""
        return lsn_of(self.segments[-1].number + 1, 0)

    @property
    def last(self) -> tuple[int, int] | None:
        """LSN and checksum of the last block; None if there is none, as after a cut before the first of a segment."""
        return next((segment.last for segment in reversed(self.segments) if segment.last is not None), None)


class Unfinished(NamedTuple):
    """A checkpoint whose clustered segments are ``written``, and count from the next manifest on. So does the ``run``
    of its rows, which is written once.
    """

    sealed: Sealed
    epoch: Epoch
    written: list[ClusteredSegment]
    snapshot: Snapshot
    closing: bool
    run: Run | None = None


class Checkpointer:
    """Makes checkpoints. Log segments are clustered up to ``held_from``, if that is not None."""

    def __init__(
        self, directory: Directory, manifest: Manifest, catalog: Catalog, committer: Committer, writer: LogWriter,
        reader: Reader, live: LiveBytes, spares: Spares, options: Options, clock: Callable[[], float],
        held_from: int | None,
    ) -> None:  # fmt: skip
        self.edits = Edits(directory, manifest, catalog, committer, writer, reader, live, spares.litter, clock)
        self.long: set[int] = set()
        """The numbers of streams that may have too many ranges in clustered segments, for whoever does something."""
        self._held_from = held_from
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._live, self._spares, self._options = reader, live, spares, options
        self._sealed_since: float | None = None
        self._unfinished: Unfinished | None = None
        self._leaving: deque[tuple[LogSegment, bool]] = deque()
        self._held: list[StreamState] = []
        self._not_loaded: list[int] = []
        self._kept_below = 0
        """The log below this LSN is clustered but for what is held, or could not be loaded, and is kept for that."""

    def due(self) -> bool:
        """Whether enough segments are sealed, or one for long enough; or a checkpoint failed half-way."""
        if self._unfinished is not None:
            return True
        sealed = len(self._sealed())
        if not sealed:
            self._sealed_since = None
            return False
        now = time.monotonic()
        self._sealed_since = self._sealed_since or now
        return sealed >= self._options.cluster_segments or now - self._sealed_since >= self._options.cluster_seconds

    def run(self, *, closing: bool = False) -> bool:
        """Cluster all sealed segments, up to one that is damaged. False if there is none. Raises ``OSError``.

        A checkpoint whose rows could not be written, or not be named, is finished first: nothing is clustered twice.
        ``closing``: nothing will be written any more, so the last segment is as good as sealed.
        """
        self.finish()
        if not self._sealed(closing=closing):
            return False
        self._catch_up()
        if self._kept_below and not self._keeps():
            self._kept_below = 0  # what held it up is gone: all of the log is clustered
        segments = self._sealed(closing=closing)
        sealed = Sealed(segments)
        with self._committer.exclusive():
            catalog = self._catalog
            number, lsn = catalog.begin_epoch(), self._writer.end_lsn
            removed, states = catalog.removed(), catalog.states()
        # What changes from here on may come along; it stays changed.
        epoch = Epoch(number, lsn, removed, [state for state in states if state.epoch > 0])
        del states
        snapshot, written = Snapshot(epoch, self._kept_below, sealed.below), list[ClusteredSegment]()
        try:
            self._write_all(sealed, epoch, written)
            unfinished = Unfinished(sealed, epoch, written, snapshot, closing)
        except BaseException as error:
            self._remove_all(written)
            for source in segments:  # what lies before one that is damaged is clustered next time
                source.damaged = source.damaged or (isinstance(error, Corruption) and source.file.name == error.file)
            raise
        self._unfinished = unfinished
        self._finish(unfinished)
        return True

    def finish(self) -> None:
        """Finish a checkpoint that failed half-way: until then, streams of it have no rows, and its rows name files
        that have to stay. Raises ``OSError``.
        """
        self.edits.finish()
        if self._unfinished is not None:
            self._finish(self._unfinished)
        self._give_back()

    @property
    def manifest(self) -> Manifest:
        """The one in force, and what the next one will have."""
        return self.edits.manifest

    def accept_damage(self) -> None:
        """Cluster damaged segments, too, from now on: somebody has a copy of them."""
        self._held_from = None
        for segment in self._reader.segments.values():
            segment.damaged = False

    def debt(self) -> int:
        """Bytes of the log that wait to be clustered."""
        return sum(segment.size for segment in self._sealed())

    def held(self) -> int:
        """How many streams can't be clustered, and keep the log from being given back."""
        return len(self._held) + len(self._not_loaded)

    def _sealed(self, *, closing: bool = False) -> list[LogSegment]:
        found = []
        end = self._writer.segment.number + (closing and self._writer.position > PAGE)
        for number, segment in sorted(self._reader.segments.copy().items()):
            # What can't be read stays, and whatever comes after it, until somebody repairs the store.
            held = self._held_from is not None and number >= self._held_from
            if number >= end or held or segment.damaged:
                break
            if lsn_of(number, 0) >= self._kept_below:
                found.append(segment)
        return found

    def _write_all(self, sealed: Sealed, epoch: Epoch, written: list[ClusteredSegment]) -> None:
        """All that is sealed, in one segment or one for each group of streams."""
        for group in _by_expiry(epoch.changed):
            segment = self._write_clustered(sealed, group)
            written += [] if segment is None else [segment]

    def _remove_all(self, written: list[ClusteredSegment]) -> None:
        for segment in written:
            segment.close()
        self.edits.remove(segment.file.name for segment in written)

    def _catch_up(self) -> None:
        """Load the streams that the log had records of when the store was opened, so that all of them are seen.

        Those that can't be loaded are left, and the log with them; they are tried again next time.
        """
        catalog = self._catalog
        if catalog.catch_up is None:
            return
        streams, left = self._not_loaded or catalog.catch_up.streams(), list[int]()
        for first in range(0, len(streams), SLICE_STATES):
            with self._committer.exclusive():
                left += [stream for stream in streams[first : first + SLICE_STATES] if not self._load(stream)]
            pause()
        self._not_loaded = left
        if not left:
            with self._committer.exclusive():
                catalog.catch_up = None

    def _load(self, stream: int) -> bool:
        try:
            self._catalog.find_number(stream)
        except (OSError, Corruption) as error:
            if stream not in self._not_loaded:
                _log.error("stream number %d can't be loaded and stays in the log: %s", stream, error)
            return False
        return True

    def _keeps(self) -> bool:
        """Whether there is still something that keeps the log from being given back."""
        with self._committer.exclusive():
            held = [state for state in self._held if not state.gone or state.forks]
            lsn = self._writer.end_lsn
            return bool(self._not_loaded) or any(row_or_none(state, lsn) is None for state in held)

    def _write_clustered(self, sealed: Sealed, group: list[StreamState]) -> ClusteredSegment | None:
        """A segment of the streams in ``group``, which counts from the next manifest on once it is adopted."""
        sources = [
            LogSource(segment, list(zip(segment.bodies[::2], segment.bodies[1::2], strict=True)))
            for segment in sealed.segments
        ]
        only = array("Q", sorted(state.number for state in group))
        with self._committer.exclusive():  # a deletion of the last fork may be taken back as long as it is not durable
            firsts = ((state.number, _first_needed(state)) for state in group)
            trims = sorted(pair for pair in firsts if pair[1])
        number, uuid = self.edits.new_number(), self.manifest.uuid
        return write_clustered(self._directory, number, uuid, sources, only=only, trims=trims, pause=pause)

    def _finish(self, unfinished: Unfinished) -> None:
        """Have the manifest name what was written, and give the log segments back. May be tried again."""
        sealed, epoch, snapshot = unfinished.sealed, unfinished.epoch, unfinished.snapshot
        for new in unfinished.written:
            self.edits.adopt(new, live=0)
        if not snapshot.is_whole:
            rows = [Rows(segment) for segment in unfinished.written]
            snapshot.take(rows, self._catalog, self._committer, self._writer, self._live, pause)
        released = [] if snapshot.held or self._not_loaded else sealed.segments
        self._name_rows(unfinished, released)
        with self._committer.exclusive():
            for segment in released:
                if self._reader.segments.pop(segment.number, None) is not None:
                    self._leaving.append((segment, unfinished.closing and segment is released[-1]))
        self.long.update(snapshot.long)
        self._held, self._kept_below = snapshot.held, 0 if released else sealed.below
        self._unfinished = self._sealed_since = None
        held = set(snapshot.held)
        self.edits.settle([state for state in epoch.changed if state not in held], epoch.removed, epoch.number)
        self._give_back()

    def _name_rows(self, unfinished: Unfinished, released: list[LogSegment]) -> None:
        """Write the run, and save the manifest, which names it, and the log from behind the segments that go."""
        catalog, run, rows = self._catalog, unfinished.run, unfinished.snapshot.rows
        if run in catalog.runs:
            return
        changes: dict[str, Any] = {}
        if released:
            last = Sealed(released).last or (self.manifest.previous_lsn, self.manifest.previous_crc)
            changes = {"log_first": released[-1].number + 1, "previous_lsn": last[0], "previous_crc": last[1]}
            changes["clean"] = unfinished.closing and catalog.ends_well
        if rows and run is None:
            # Not again, whatever fails from here on: a manifest that names it may be in force.
            run = write_run(self._directory, self.edits.new_number(), self.manifest.uuid, rows, pause=pause)
            self._unfinished = unfinished._replace(run=run)
        if run is not None:
            changes["runs"] = (run.number, *(number for number in self.manifest.runs if number != run.number))
        self.edits.save(**changes)
        if run is not None:
            with self._committer.exclusive():
                catalog.replace_runs((), run)

    def _give_back(self) -> None:
        """Give back log segments that nobody needs any more."""
        while self._leaving:
            segment, is_last = self._leaving.popleft()
            self._spares.give_back(segment, closing=is_last)

    def close(self) -> None:
        """Close what a failure has kept from getting to its place."""
        self.edits.close()
        for segment, _ in self._leaving:
            segment.close()
        if self._unfinished is not None and self._unfinished.run is not None:
            self._unfinished.run.close()


def _first_needed(state: StreamState) -> int:
    """The first byte of a stream that has to be copied out of the log: neither trimmed nor clustered already."""
    return max(0 if state.forks else state.first, end_before_log(state.index))


def _by_expiry(states: list[StreamState]) -> list[list[StreamState]]:
    """Streams that stay, and those that expire in up to three groups: what expires together lies together."""
    expiring = sorted((state for state in states if state.expiry is not None), key=lambda state: state.deadline)
    if not expiring:
        return [states]
    part = max(EXPIRY_GROUP_MIN, -(-len(expiring) // 3))
    groups = [expiring[first : first + part] for first in range(0, len(expiring), part)]
    return [[state for state in states if state.expiry is None], *groups]


def pause() -> None:
    """Let others have the processor and the interpreter's lock."""
    time.sleep(0.0002)
