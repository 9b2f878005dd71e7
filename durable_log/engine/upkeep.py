"""What goes on beside the commits: expiry, clustering, compaction, backups.

Law of this room: it says when and in which order; how is said in the rooms that it calls. Two threads
of its own: the keeper makes spare segments and sweeps streams in memory, the clusterer does all that adds and removes
files, one thing at a time under one lock, which callers of ``cluster``, ``compact`` and ``backup`` take as well. Both
are stopped before the log is closed. Nothing here holds the commit lock longer than a slice of streams takes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

from durable_log.engine.audit import Discord, audit
from durable_log.engine.backup import Backups
from durable_log.engine.catalog import Catalog
from durable_log.engine.check import FileFault, check_shape, check_tables
from durable_log.engine.checkpoint import Checkpointer
from durable_log.engine.commit import Committer
from durable_log.engine.compaction import Compactor
from durable_log.engine.expiry import Dormant
from durable_log.engine.files import Directory, StorePath, is_out_of_space
from durable_log.engine.format import PAGE
from durable_log.engine.idle import let_go
from durable_log.engine.keeper import Background, Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.manifest import Manifest, load_manifest
from durable_log.engine.pace import RATE_MIN
from durable_log.engine.reader import Reader
from durable_log.engine.rebuild import losses
from durable_log.engine.reclaim import Reclaimer
from durable_log.engine.recovery import Recovered
from durable_log.engine.watermark import Crowd
from durable_log.engine.writer import LogWriter
from durable_log.errors import CommitFailed, Corruption, DurableLogError, StoreFull, StoreUnreadable
from durable_log.model import Backup, Delete, Options

SWEPT_AT_ONCE: Final = 256
"""How many expired streams are loaded together, and deleted in one group."""

_log = logging.getLogger("durable_log")


class Upkeep:
    """The background of one open store. ``check_open`` raises if the store is closed."""

    def __init__(
        self, directory: Directory, manifest: Manifest, recovered: Recovered, catalog: Catalog, committer: Committer,
        writer: LogWriter, reader: Reader, live: LiveBytes, spares: Spares, options: Options,
        clock: Callable[[], float], check_open: Callable[[], None],
    ) -> None:  # fmt: skip
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._spares, self._options, self._clock, self._check_open = (
            reader,
            spares,
            options,
            clock,
            check_open,
        )
        self._clustering = threading.Lock()
        self._stopping = False
        self._asked_in = 0
        self._speed = 0.0
        """How fast the log was clustered last time, in bytes a second."""
        self.checkpointer = Checkpointer(
            directory, manifest, catalog, committer, writer, reader, live, spares, options, clock, recovered.held_from
        )
        self._compactor = Compactor(directory, catalog, committer, writer, reader, self.checkpointer, live)
        self._reclaimer = Reclaimer(
            directory, catalog, committer, reader, self.checkpointer, self._compactor, live, spares
        )
        self.backups = Backups(
            directory, catalog, committer, writer, reader, recovered.report.unreadable_segments, self._clustering,
            check_open, clock,
        )  # fmt: skip
        self._dormant = Dormant(catalog)
        seconds = options.sweep_seconds
        self._keeper = Background("keeper", seconds, spares.refill, self._sweep_resident)
        self._clusterer = Background("clusterer", seconds, self._sweep_dormant, self._cluster_if_due)

    def start(self) -> None:
        """Begin."""
        self._keeper.start()
        self._clusterer.start()

    def stop(self) -> threading.Lock:
        """End, and wait for what is under way. Returns the lock that keeps others from beginning anything."""
        self._stopping = True
        self._clusterer.stop()
        self._keeper.stop()
        return self._clustering

    def look_ahead(self, writer: LogWriter) -> None:
        """Called after each commit, with the commit lock held: a new segment may be needed soon."""
        if writer.position > writer.segment.size // 2 and self._asked_in != writer.segment.number:
            self._asked_in = writer.segment.number
            self._spares.want()
            self._keeper.wake()
            self._clusterer.wake()
            self._set_pace()

    def _set_pace(self) -> None:
        """Slow appends down to half of what clustering can do if the log is too far ahead of it; never to a stop."""
        debt, pace = self.checkpointer.debt(), self._committer.pace
        is_too_long = debt > self._options.log_bytes_max
        if is_too_long and pace.rate is None:
            _log.warning(
                "%s: %d MiB of the log wait to be clustered, more than log_bytes_max; appends are slowed down",
                self._directory.path, debt >> 20,
            )  # fmt: skip
        pace.rate = max(RATE_MIN, self._speed / 2) if is_too_long else None

    # --- expiry ---------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Delete what has expired, persist noted uses, let go of idle streams. Blocks."""
        self._sweep_resident()
        self._sweep_dormant()

    def _sweep_resident(self) -> None:
        committer = self._committer
        for state in committer.expiries.due(self._clock()):
            committer.execute(Delete(state.name, state.number, expired=True))
        committer.flush_touches()
        while not self._stopping:
            with committer.exclusive():
                any_went = let_go(self._catalog, committer)
            if not any_went:
                break

    def _sweep_dormant(self) -> None:
        with self._clustering:
            for streams in self._dormant.due(self._clock()):
                for first in range(0, len(streams), SWEPT_AT_ONCE):
                    if not self._stopping:
                        self._delete_expired(streams[first : first + SWEPT_AT_ONCE])

    def _delete_expired(self, streams: list[tuple[str, int]]) -> None:
        committer, crowd = self._committer, Crowd(len(streams))
        # Else the commit would read a page for each. What can't be read, it finds out for itself.
        self._catalog.load_many(name for name, _ in streams)
        for name, number in streams:
            committer.submit(Delete(name, number, expired=True), crowd, None)
        crowd.wait()
        for name, number in streams:
            state = self._catalog.find_resident(name)
            if state is not None and state.number == number and not state.gone:
                committer.expiries.add(state)  # it was used since its row was written

    # --- clustering -----------------------------------------------------------------------------------------------

    def _cluster_if_due(self) -> None:
        with self._clustering:
            if self._committer.failure is not None:
                return
            if self.checkpointer.due():
                self._checkpoint()
            while not self._stopping and self._compactor.step():
                pass

    def _checkpoint(self) -> None:
        debt, began = self.checkpointer.debt(), time.monotonic()
        self.checkpointer.run()
        self._speed = debt / max(time.monotonic() - began, 0.001)
        self._set_pace()

    def cluster(self) -> None:
        """Cluster all that is in the log, now. Blocks. Raises ``OSError``, :class:`CommitFailed`."""
        with self._clustering, self._committer.attended():
            self._check_open()
            self._committer.roll()
            self.checkpointer.run()

    def cluster_damaged(self, prepare: Callable[[Catalog], None]) -> None:
        """The same, over all damage: what can't be read of the log is lost then. ``prepare`` is called before, with
        the commit lock held. Raises :class:`Corruption`, too.
        """
        with self._clustering:
            self._check_open()
            self._committer.roll()
            with self._committer.exclusive():
                prepare(self._catalog)
            self.checkpointer.accept_damage()
            self.checkpointer.run()

    def save_crash(self) -> None:
        """Have the manifest know of a crash, so that the store can end well."""
        with suppress(OSError, DurableLogError):
            if self._catalog.forgets_crash:
                self.checkpointer.edits.save()

    def cluster_at_close(self) -> None:
        """Leave nothing to replay, once nothing is written any more. What can't be clustered now will be later."""
        if isinstance(self._committer.failure, CommitFailed):
            return
        try:
            if self._catalog.has_changed and self.checkpointer.run(closing=True):
                while self._compactor.tidy():
                    pass
        except (OSError, DurableLogError) as error:
            _log.warning("%s: the log could not be clustered at the close: %s", self._directory.path, error)

    def compact(self) -> None:
        """Give back all the space that can be given back, now. Blocks. Raises :class:`StoreFull`,
        :class:`StoreUnreadable`, :class:`Corruption`, :class:`CommitFailed`, :class:`StoreClosed`.
        """
        self._check_open()
        failures = [failure for step in (self.sweep, self._reclaim) if (failure := self._attempt(step)) is not None]
        if failures:  # what can't be swept keeps nothing else from being given back
            raise failures[0]

    def _attempt(self, step: Callable[[], object]) -> DurableLogError | None:
        """What is to be said of a step of :meth:`compact` that the files did not let be taken."""
        path = self._directory.path
        try:
            with self._committer.attended():
                step()
        except Corruption as error:
            return error
        except OSError as error:
            if is_out_of_space(error):
                failure: DurableLogError = StoreFull(path, PAGE)
            else:
                failure = StoreUnreadable(str(error.filename or path), error)
            failure.__cause__ = error
            return failure
        return None

    def _reclaim(self) -> None:
        with self._clustering:
            self._check_open()
            try:
                self._reclaimer.run()
            finally:
                self._asked_in = 0  # whoever appends from here on may want spares again

    # --- copies and checks ----------------------------------------------------------------------------------------

    def backup(self, path: StorePath, *, verify: bool = True) -> Backup:
        """A consistent copy in a new or empty directory; see :class:`Backups`. Blocks; appends go on."""
        with self._committer.attended():
            return self.backups.make(path, verify=verify)

    def check_files(self, *, deep: bool = True) -> list[FileFault]:
        """Read the clustered segments, the runs and the manifest; what is not as it was written. Blocks.

        If it is not ``deep``, without stream bytes.
        """
        with self._clustering:
            self._check_open()
            check = check_tables if deep else check_shape
            return list(check(self._directory, load_manifest(self._directory, 0)))

    def audit(self) -> Iterator[Discord]:
        """What does not agree with each other, in a store that nobody changes meanwhile. Blocks.

        Raises :class:`Corruption` of the catalog, ``OSError``.
        """
        with self._clustering:
            self._check_open()
            yield from audit(self._catalog, self._reader, self._committer, self.checkpointer.manifest)

    def losses(self) -> list[tuple[str, int, int, int]]:
        """Name, start, end and report of bytes that are known to be lost. Raises :class:`Corruption`, ``OSError``."""
        with self._clustering:
            self._check_open()
            return list(losses(self._catalog.runs))
