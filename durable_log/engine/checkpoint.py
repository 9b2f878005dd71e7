"""From the log to clustered segments and the catalog's runs.

Law of this room: one checkpoint at a time, on the background thread. It reads sealed log segments, writes files that
nobody names yet, and only then has the manifest name them; the log segments are given back after that. A crash between
any two steps leaves either the old manifest or the new one, and files that the one in force does not name are removed
at open. The commit lock is held for short slices only; states are looked at, and their indexes replaced, inside them.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

from durable_log.engine.catalog import Catalog
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.cluster_build import LogSource, write_clustered
from durable_log.engine.commit import Committer
from durable_log.engine.files import Directory
from durable_log.engine.format import PAGE, lsn_of
from durable_log.engine.index import clustered_place, replaced
from durable_log.engine.keeper import Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.manifest import ClusteredFile, Manifest, save_manifest
from durable_log.engine.reader import Reader
from durable_log.engine.rows import encode_stream, encode_tombstone
from durable_log.engine.run import Run
from durable_log.engine.run_format import encode_row
from durable_log.engine.run_writer import write_run
from durable_log.engine.segment import LogSegment
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter
from durable_log.errors import Corruption
from durable_log.model import Options

EXPIRY_GROUP_MIN: Final = 1000
"""Fewer streams than this are not worth a file of their own."""

SETTLED_AT_ONCE: Final = 512
SLICE_STATES: Final = 128
"""How many streams are looked at under the commit lock at a time: well below a millisecond."""


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


class Epoch(NamedTuple):
    """What a checkpoint is about: all that was removed or changed since the one before, as of ``lsn``."""

    number: int
    lsn: int
    removed: list[StreamState]
    changed: list[StreamState]


class Lives:
    """The streams that had changed, by name; only few checkpoints need that."""

    def __init__(self, changed: list[StreamState]) -> None:
        self._changed = changed
        self._by_name: dict[str, StreamState] | None = None

    def of(self, name: str) -> StreamState | None:
        """The stream of that name that had changed."""
        if self._by_name is None:
            self._by_name = {state.name: state for state in self._changed}
        return self._by_name.get(name)


class Unfinished(NamedTuple):
    """A checkpoint whose indexes point into its clustered segments already, while its ``rows`` do not count yet."""

    sealed: Sealed
    rows: list[bytes]
    epoch: Epoch
    number: int
    closing: bool


class Rows:
    """Where a new clustered segment holds which bytes of which stream."""

    def __init__(self, segment: ClusteredSegment) -> None:
        self._number = segment.number
        self._streams, self._starts, self._ends = segment.streams()

    def of(self, stream: int) -> list[tuple[int, int, int]]:
        """Start, end and place of each range of that stream, in order. O(log n)."""
        found = []
        row = bisect_left(self._streams, stream)
        while row < len(self._streams) and self._streams[row] == stream:
            found.append((self._starts[row], self._ends[row], clustered_place(self._number, row)))
            row += 1
        return found


class Checkpointer:
    """Owns the manifest of an open store. ``unreadable`` is the first log segment whose header does not verify."""

    def __init__(
        self, directory: Directory, manifest: Manifest, catalog: Catalog, committer: Committer, writer: LogWriter,
        reader: Reader, live: LiveBytes, spares: Spares, options: Options, clock: Callable[[], float],
        unreadable: int | None,
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self._unreadable = 2**32 if unreadable is None else unreadable
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._live, self._spares, self._options, self._clock = reader, live, spares, options, clock
        self._sealed_since: float | None = None
        self._unfinished: Unfinished | None = None
        self._litter: list[str] = []

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
        segments = self._sealed(closing=closing)
        if not segments:
            return False
        self._catch_up()
        sealed = Sealed(segments)
        with self._committer.exclusive():
            catalog = self._catalog
            number, lsn = catalog.begin_epoch(), self._writer.end_lsn
            removed, states = catalog.removed(), catalog.states()
        # What changes from here on may come along; it stays changed.
        epoch = Epoch(number, lsn, removed, [state for state in states if state.epoch > 0])
        del states
        try:
            written = self._write_all(sealed, epoch)
        except Corruption as error:
            # What lies before it is clustered next time.
            for source in segments:
                source.damaged = source.damaged or source.file.name == error.file
            raise
        for segment in written:
            self.adopt(segment, live=0)
        rows = self._snapshot(epoch, sealed.below, [Rows(segment) for segment in written])
        self._unfinished = Unfinished(sealed, rows, epoch, self.new_number(), closing)
        self._finish(self._unfinished)
        return True

    def finish(self) -> None:
        """Finish a checkpoint that failed half-way: until then, streams of it have no rows, and its rows name files
        that have to stay. Raises ``OSError``.
        """
        if self._unfinished is not None:
            self._finish(self._unfinished)

    def accept_damage(self) -> None:
        """Cluster damaged segments, too, from now on: somebody has a copy of them."""
        for segment in self._reader.segments.values():
            segment.damaged = False

    def debt(self) -> int:
        """Bytes of the log that wait to be clustered."""
        return sum(segment.size for segment in self._sealed())

    def _sealed(self, *, closing: bool = False) -> list[LogSegment]:
        found = []
        end = self._writer.segment.number + (closing and self._writer.position > PAGE)
        for number, segment in sorted(self._reader.segments.copy().items()):
            # What can't be read stays, and whatever comes after it, until somebody repairs the store.
            if number >= end or number >= self._unreadable or segment.damaged:
                break
            found.append(segment)
        return found

    def _write_all(self, sealed: Sealed, epoch: Epoch) -> list[ClusteredSegment]:
        """All that is sealed, in one segment or one for each group of streams; nothing if one of them fails."""
        written: list[ClusteredSegment] = []
        try:
            for group in _by_expiry(epoch.changed):
                segment = self._write_clustered(sealed, group)
                written += [] if segment is None else [segment]
        except BaseException:
            for segment in written:
                segment.close()
                self._directory.remove(segment.file.name)
            raise
        return written

    def _catch_up(self) -> None:
        """Load the streams that the log had records of when the store was opened, so that all of them are seen."""
        catalog = self._catalog
        if catalog.catch_up is None:
            return
        streams = catalog.catch_up.streams()
        for first in range(0, len(streams), SLICE_STATES):
            with self._committer.exclusive():
                for stream in streams[first : first + SLICE_STATES]:
                    catalog.find_number(stream)
            pause()
        with self._committer.exclusive():
            catalog.catch_up = None

    def _write_clustered(self, sealed: Sealed, group: list[StreamState]) -> ClusteredSegment | None:
        """A segment of the streams in ``group``, which counts from the next manifest on once it is adopted."""
        sources = [
            LogSource(segment, list(zip(segment.bodies[::2], segment.bodies[1::2], strict=True)))
            for segment in sealed.segments
        ]
        only = array("Q", sorted(state.number for state in group))
        trimmed = [state for state in group if state.first]
        with self._committer.exclusive():  # a deletion of the last fork may be taken back as long as it is not durable
            trims = sorted((state.number, state.first) for state in trimmed if not state.forks)
        return write_clustered(
            self._directory, self.new_number(), self.manifest.uuid, sources, only=only, trims=trims, pause=pause
        )

    def _snapshot(self, epoch: Epoch, below: int, written: list[Rows]) -> list[bytes]:
        """The rows of the streams that changed; from here on their indexes point into what was written."""
        encoded = [
            encode_row(state.name, state.number, encode_tombstone(epoch.lsn), tombstone=True) for state in epoch.removed
        ]
        lives = Lives(epoch.changed)
        for start in range(0, len(epoch.changed), SLICE_STATES):
            states = epoch.changed[start : start + SLICE_STATES]
            places = [[place for rows in written for place in rows.of(state.number)] for state in states]
            with self._committer.exclusive():
                lsn = self._writer.end_lsn
                for state, found in zip(states, places, strict=True):
                    if not state.gone or state.forks:
                        state.index = replaced(state.index, below, found)
                        self._live.added(state, found)
                    if state.gone or state.fork is not None or self._catalog.find_resident(state.name) is not state:
                        encoded += self._rows_of(state, lives, lsn)
                    else:
                        encoded.append(encode_stream(state, lsn))
            pause()
        return encoded

    def _rows_of(self, state: StreamState, lives: Lives, lsn: int) -> Iterator[bytes]:
        """The row of a stream's name, and of those whose rows have to agree with it.

        If a life of the name ended meanwhile, its source has a fork less. If one began that is a fork, what it descends
        from may be as young, and have no row yet.
        """
        todo, seen = [state], {state}
        while todo:
            life = todo.pop()
            yield self._row(life, lsn)
            before, present = lives.of(life.name), self._catalog.get(life.name)
            for other in (life, before, present):
                if other is None or other.fork is None or other.fork.source in seen:
                    continue
                if (other is present is not before) or (other.gone and not other.forks):
                    todo.append(other.fork.source)
                    seen.add(other.fork.source)

    def _row(self, state: StreamState, lsn: int) -> bytes:
        """What the catalog has to say of a stream's name at ``lsn``: the stream may be gone, the name live again."""
        present = self._catalog.get(state.name)
        if present is None:
            return encode_row(state.name, state.number, encode_tombstone(lsn), tombstone=True)
        return encode_stream(present, lsn)

    def _finish(self, unfinished: Unfinished) -> None:
        """Have the manifest name what was written, and give the log segments back. May be tried again."""
        sealed, rows, epoch, number, closing = unfinished
        catalog, run = self._catalog, None
        if rows:
            run = write_run(self._directory, number, self.manifest.uuid, rows, pause=pause)
        previous = sealed.last or (self.manifest.previous_lsn, self.manifest.previous_crc)
        try:
            self.save(
                log_first=sealed.segments[-1].number + 1,
                previous_lsn=previous[0],
                previous_crc=previous[1],
                clean=closing and catalog.ends_well,
                runs=self.manifest.runs if run is None else (number, *self.manifest.runs),
            )
        except BaseException:
            if run is not None:
                run.close()
            raise
        with self._committer.exclusive():
            catalog.replace_runs((), run)
            for segment in sealed.segments:
                del self._reader.segments[segment.number]
        self._unfinished = self._sealed_since = None
        self.settle(epoch.changed, epoch.removed, epoch.number)
        for segment in sealed.segments:
            self._spares.give_back(segment, closing=closing and segment is sealed.segments[-1])

    def settle(self, written: list[StreamState], removed: list[StreamState], epoch: int) -> None:
        """Rows of these streams count now: see :meth:`Catalog.settle`."""
        for first in range(0, max(len(written), len(removed)), SETTLED_AT_ONCE):
            last = first + SETTLED_AT_ONCE
            with self._committer.exclusive():
                self._catalog.settle(written[first:last], removed[first:last], epoch)

    def new_number(self) -> int:
        """The number of a new file. None is given twice, as a save that failed may have named its file all the same."""
        number = self.manifest.next_file
        self.manifest = self.manifest._replace(next_file=number + 1)
        return number

    def adopt(self, segment: ClusteredSegment, live: int) -> None:
        """Indexes are going to point into a new segment: it counts from the next manifest on, whatever fails before."""
        self._live[segment.number] = live
        self._reader.clustered[segment.number] = segment
        file = ClusteredFile(segment.number, segment.payload_bytes)
        self.manifest = self.manifest._replace(clustered=(*self.manifest.clustered, file))

    def save(self, **changes: Any) -> None:
        """Replace the manifest by one with these changes. Raises ``OSError``; the old one counts then."""
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
        save_manifest(self._directory, manifest, int(self._clock() * 1000))
        self.manifest = manifest
        with suppress(OSError):  # the new manifest counts, whatever becomes of them
            while self._litter:
                self._directory.remove(self._litter.pop())

    def discard(self, run: Run) -> None:
        """A run whose save has failed. Nobody knows which manifest counts, so the file stays until another does."""
        run.close()
        self._litter.append(run.file.name)


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
