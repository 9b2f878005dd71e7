"""Group commit: the one way in which anything changes.

Law of this room: whoever holds the commit lock owns the log's end, the catalog and every stream's state, and nobody
else changes them. A group is whatever waits when the lock is taken: admit, write, sync, publish, tell, in that order;
nothing is told before the sync that covers it has returned. A synchronous caller that finds the lock free commits on
its own thread, its own request and all that wait; one that finds it taken waits for its result. Asynchronous requests
are committed by the committer thread, which also keeps the times: ``written`` data is synced soon, an idle log is
marked. After a failed write or sync the store latches (see ``CommitFailed``).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, Final

from durable_log.engine.catalog import Catalog
from durable_log.engine.counters import Counters
from durable_log.engine.expiry import ExpiryQueue
from durable_log.engine.files import WriteFailed, is_out_of_space
from durable_log.engine.group import Group, admit_all, wants_sync
from durable_log.engine.index import entry_of
from durable_log.engine.live import LiveBytes
from durable_log.engine.pace import Pace
from durable_log.engine.recent import RecentBytes
from durable_log.engine.staging import PENDING, Batch, Refusal, Staging, Submission
from durable_log.engine.state import StreamState
from durable_log.engine.turns import Attended, Bell, CommitLock, Turn
from durable_log.engine.watermark import Deliveries, Gates, Port, Watermarks
from durable_log.engine.writer import LogWriter
from durable_log.errors import CommitFailed, StoreClosed, StoreFull, StoreUnreadable
from durable_log.model import Delete, Options, Request, Trim

WRITTEN_SECONDS_MAX: Final = 0.010
"""When ``written`` data is synced: half of what is promised, as the sync takes time, too."""
IDLE_SECONDS: Final = 0.050
PATIENCE_SECONDS: Final = 0.1
_RESULT: Final = attrgetter("result")
_REFUSALS: Final = (StoreFull, StoreUnreadable)
"""What a group is refused with before anything of it is written: no room for it, or no segment to be had."""

_log = logging.getLogger("durable_log")


class Committer:
    """Takes requests from any thread and commits them in groups; ``used`` is called after each, with the lock held."""

    def __init__(
        self, writer: LogWriter, catalog: Catalog, options: Options, clock: Callable[[], float],
        used: Callable[[LogWriter], None], live: LiveBytes,
    ) -> None:  # fmt: skip
        self.recent = RecentBytes(options.recent_bytes_max, options.stream_recent_bytes_max)
        self.watermarks = Watermarks()
        self.expiries = ExpiryQueue()
        self.counters = Counters()
        self.pace = Pace()
        self._writer, self._catalog, self._clock, self._used, self._live = writer, catalog, clock, used, live
        self._staging = Staging(options.staged_bytes_max)
        self._touches: dict[StreamState, None] = {}
        self._unpublished: set[StreamState] = set()
        self._gates = Gates()
        self._lock = CommitLock()
        self.attended = partial(Attended, self._lock)
        """Around what has turns on a thread that may be interrupted."""
        self._bell = Bell()
        self._due: float | None = None
        """When the committer thread looks again by itself, in monotonic seconds; None if never."""
        self._stopping = self.has_stopped = False
        self._thread = threading.Thread(target=self._run, name="durable_log committer", daemon=True)

    # --- any thread -----------------------------------------------------------------------------------------------

    @property
    def failure(self) -> Refusal | None:
        """Why nothing is accepted any more, if that is so."""
        return self._staging.refusal

    def start(self) -> None:
        """Begin committing asynchronous requests, and keeping the times."""
        self._thread.start()
        if self._writer.unmarked:
            self.ring()

    def submit(self, request: Request, port: Port, token: Any) -> None:
        """Have ``request`` committed, in the order of the calls; its result is delivered to ``port`` with ``token``.

        Raises :class:`CommitFailed` or :class:`StoreClosed`.
        """
        self._staging.put(Submission(request, port, token))
        self.ring()

    def stage(self, request: Request, port: Port, token: Any) -> None:
        """The same, but it waits until somebody rings; so that many can be one group."""
        self._staging.put(Submission(request, port, token))

    def ring(self) -> None:
        """Call the committer thread: something is staged, or due."""
        self._bell.ring()

    def execute(self, request: Request) -> Any:
        """Commit ``request`` and return its result, or raise it. Blocks."""
        gate = threading.Lock()
        gate.acquire()
        self._staging.put(submission := Submission(request, self._gates, gate))
        # Whoever lets go of the lock looks at the queue, unless an interrupt comes between: who waits long looks again.
        self._try_to_lead(submission)
        while not gate.acquire(timeout=PATIENCE_SECONDS):
            self._try_to_lead(submission)
        if isinstance(submission.result, BaseException):
            raise submission.result
        return submission.result

    def save_use(self, state: StreamState) -> None:
        """Persist the last use of a stream, as far as that is possible now."""
        if state.expiry is not None and self.failure is None:
            self._touches[state] = None  # not saved before it is laid out, so that it stays in memory until then

    def flush_touches(self) -> None:
        """See to it that noted uses are persisted though nobody commits anything else."""
        if self._touches:
            self.ring()

    def exclusive(self) -> Turn:
        """Hold the commit lock for a moment in which all that was written is durable and visible. Raises what
        :meth:`submit` raises if the store takes no changes any more.
        """
        return Turn(self._lock, self._begin_turn, self._look_after)

    def _begin_turn(self) -> None:
        if self._writer.unsynced and not self._latched():
            self._guard(self._sync_written)
        if isinstance(self.failure, CommitFailed):
            raise self.failure.again()

    def roll(self, *, shrink: bool = False) -> None:
        """Go on in a new log segment; see :meth:`LogWriter.following`. Raises ``OSError``, which latches nothing."""
        with self.exclusive():
            segment = self._writer.following(shrink=shrink)
            if segment is not None:
                self._guard(self._writer.enter, segment, self._clock())

    def stop(self, touched: Callable[[], list[StreamState]]) -> None:
        """Commit what waits, persist last uses, mark the end, refuse what comes later. Raises :class:`CommitFailed`.

        Once it ``has_stopped``, nobody writes any more. An interrupt may come before that: then it is to be done again.
        """
        self.quit()
        with self._lock:
            try:
                if self.failure is None:
                    self._staging.refuse(StoreClosed("the store is closed; open it again"))
                    self._touches.update(dict.fromkeys(touched()))
                    self._commit_waiting()
                if not self._latched():
                    # Uses that found no room are known to nobody: that is no good end.
                    self._guard(partial(self._mark_end, clean=self._catalog.ends_well and not touched()))
            finally:
                self._tell_the_end()
            self.has_stopped = True
        if isinstance(self.failure, CommitFailed) and self._unpublished:  # acknowledged as written, and never synced
            raise self.failure.again()

    def quit(self) -> None:
        """Let the committer thread end, and wait until it has."""
        self._stopping = True
        self.ring()
        if self._thread.is_alive():
            self._thread.join()

    def abandon(self, reason: StoreClosed) -> None:
        """In the child of a fork: refuse everything and take no lock, as its holder may not be here."""
        self._staging.refusal = reason

    def _try_to_lead(self, submission: Submission) -> None:
        lock, leads = self._lock, False
        self.pace.wait()
        if lock.wanted() or lock.is_mine():
            return
        try:
            try:
                leads = lock.attempt()
                while leads and submission.result is PENDING and self._staging:
                    self._commit_group()
            finally:
                lock.let_go()
        finally:
            lock.let_go()
            if leads:
                self._look_after()

    def _look_after(self) -> None:
        """The lock was let go: see to what has come meanwhile, and to what is due."""
        due = self._next_due()
        if self._staging or (due is not None and (self._due is None or due < self._due)):
            self.ring()

    def _latched(self) -> bool:
        return isinstance(self.failure, CommitFailed)

    # --- one group; the commit lock is held -----------------------------------------------------------------------

    def _commit_waiting(self) -> None:
        """Until nothing waits, or somebody else wants the lock, or the next group has to wait."""
        while self._staging or (self._touches and not self._latched()):
            if self.pace.left() and not self._stopping:
                return
            self._commit_group()
            if self._lock.wanted() and not self._stopping:
                return

    def _commit_group(self) -> None:
        batch, deliveries = Batch(), Deliveries()
        try:
            self._staging.take(batch)
            if not self._latched():
                self._guard(self._commit, batch, deliveries)
        finally:
            try:
                self._settle(batch, deliveries)
            except BaseException:
                self._settle(batch, deliveries)  # after an interrupt, too, nobody may wait for ever
                raise

    def _settle(self, batch: Batch, deliveries: Deliveries) -> None:
        """Deliver the results of a batch. Doing it twice is harmless."""
        if not self._latched() and PENDING in map(_RESULT, batch):
            self._latch("a commit was broken off before it began", None)
        if isinstance(self.failure, CommitFailed):
            for submission in batch:
                submission.result = self.failure.again()
        deliveries.add_all(batch)
        self._staging.release(batch)
        deliveries.send()

    def _guard(self, step: Callable[..., None], *arguments: Any) -> None:
        """Run a step of a commit; latch if it fails, as nobody knows then what is on disk."""
        try:
            step(*arguments)
        except OSError as error:
            self._latch(f"{error.filename or 'the log'}: {error.strerror or error}", error)
        except BaseException as error:
            self._latch(f"a commit was broken off by {error!r}", error)
            raise

    def _latch(self, reason: str, cause: BaseException | None) -> None:
        failure = CommitFailed(reason)
        failure.__cause__ = cause
        self._touches.clear()
        self._staging.refuse(failure)
        _log.error("%s", failure)

    def _commit(self, batch: list[Submission], deliveries: Deliveries) -> None:
        sync = any(map(wants_sync, batch)) or not batch
        try:
            self._attempt(batch, deliveries, sync=sync, reserved=False)
        except _REFUSALS as refusal:
            # What was refused may have been refused for the sake of something that had no room.
            deletions = []
            for submission in batch:
                submission.result = refusal
                if isinstance(submission.request, Delete | Trim):
                    deletions.append(submission)
            self._commit_deletions(deletions, deliveries)

    def _commit_deletions(self, deletions: list[Submission], deliveries: Deliveries) -> None:
        try:
            self._attempt(deletions, deliveries, sync=True, reserved=True)
        except _REFUSALS as refusal:
            for submission in deletions:
                submission.result = refusal

    def _attempt(self, batch: list[Submission], deliveries: Deliveries, *, sync: bool, reserved: bool) -> None:
        now = self._clock()
        group = self._lay_out(batch, now)
        sync = sync or group.owes_sync
        while self._touches and not reserved:
            group.touch(self._touches.popitem()[0])
        try:
            self._write(group, now, sync=sync, reserved=reserved)
        except _REFUSALS:
            group.undo()
            raise
        self._unpublished.update(group.changed)
        if sync:
            self._publish(group, deliveries)

    def _lay_out(self, batch: list[Submission], now: float) -> Group:
        """Admit all that can be. A request that breaks something is thrown out alone: nothing is written yet."""
        while True:
            group = Group(self._catalog, now)
            broken = admit_all(group, batch)
            if broken is None:
                return group
            group.undo()
            batch = [submission for submission in batch if submission is not broken]

    def _write(self, group: Group, now: float, *, sync: bool, reserved: bool) -> None:
        writer = self._writer
        if not group.length:
            if sync and writer.unsynced:
                writer.sync()
            return
        writer.make_room(group.length, reserved=reserved)
        try:
            body, sync_ns = writer.write(group.parts, group.length, sync=sync, now=now)
        except WriteFailed as error:
            if not is_out_of_space(error):
                raise
            raise StoreFull(str(error.filename), group.length) from error
        self._note(group, body, sync_ns)
        self._used(writer)

    def _note(self, group: Group, body: int, sync_ns: int) -> None:
        for state, offset, position, data in group.entries:
            state.index += entry_of(body + position, offset + len(data))
        appended = self.recent.add(group.entries)
        self.counters.committed(len(group.entries), appended, group.length, sync_ns)
        self.pace.spend(group.length)

    def _publish(self, group: Group, deliveries: Deliveries) -> None:
        """A sync has covered all that was written: readers see it from here on."""
        moved, self._unpublished = self._unpublished, set()
        for state in moved:
            state.durable = state.tail
            state.durable_closed = state.closed
        group.publish()
        for state in group.created:
            self.expiries.add(state)
        for state in group.removed:
            self.recent.drop(state)
            self.expiries.removed(state)
        self._live.removed(group.removed)
        for state, before in group.trims:
            self._live.trimmed(state, before)
        for listener in self.watermarks.listeners:
            listener.changed(moved, group.created, group.hidden)
        self.watermarks.tell(moved, deliveries)
        self.watermarks.tell(group.hidden, deliveries)

    def _sync_written(self) -> None:
        self._writer.sync()
        with Deliveries() as deliveries:
            self._publish(Group(self._catalog, self._clock()), deliveries)

    def _mark_end(self, *, clean: bool = False) -> None:
        """Have the newest block on disk say that all before it is durable."""
        if self._writer.unsynced:
            self._sync_written()
        if self._writer.unmarked or (clean and not self._writer.clean):
            try:
                self._writer.mark(self._clock(), clean=clean)
            except WriteFailed as error:
                if not is_out_of_space(error):
                    raise

    def _tell_the_end(self) -> None:
        if self._staging and not self._latched():
            self._staging.refuse(CommitFailed("closing the store was broken off"))
        while self._staging:
            self._commit_group()
        with Deliveries() as deliveries:
            self.watermarks.close(self.failure or StoreClosed("the store is closed; open it again"), deliveries)

    # --- the committer thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._stopping:
            self._bell.wait(self._due)
            self._due = 0.0
            try:
                with self._lock:
                    self._commit_waiting()
                    self._due = self._keep_time()
            except Exception:  # noqa: BLE001 - the thread must live on to refuse what comes
                _log.exception("a commit met an error that it does not know; the store has latched")
                self._due = None
            if self._staging or self._touches:
                self._due = min(self._due or math.inf, time.monotonic() + self.pace.left())

    def _next_due(self) -> float | None:
        writer = self._writer
        if self.failure is not None:
            return None
        if writer.unsynced:
            return writer.unsynced_since + WRITTEN_SECONDS_MAX
        return writer.written_at + IDLE_SECONDS if writer.unmarked else None

    def _keep_time(self) -> float | None:
        """Do what is due; returns when to look again."""
        due = self._next_due()
        while due is not None and due <= time.monotonic():
            self._guard(self._sync_written if self._writer.unsynced else self._mark_end)
            due = self._next_due()
        return due
