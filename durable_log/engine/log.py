"""The engine as the faces see it: submit, read, watch, info, names, close.

Law of this room: it puts the other rooms of the engine together and holds no logic of its own. Another engine that has
these methods can stand in its place. Any thread may call anything here.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from hashlib import sha256
from typing import Any

from durable_log.engine.ancestry import owner_at
from durable_log.engine.catalog import Catalog
from durable_log.engine.commit import Committer
from durable_log.engine.figures import Stats, figures_of
from durable_log.engine.files import Directory, call_after_fork, process_id
from durable_log.engine.format import PAGE
from durable_log.engine.index import place_at
from durable_log.engine.keeper import Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.manifest import Manifest, load_manifest
from durable_log.engine.reader import Reader, read_from_memory
from durable_log.engine.recovery import Recovered, Report, next_file, recover
from durable_log.engine.segment import LogSegment
from durable_log.engine.state import LET_GO, StreamState
from durable_log.engine.upkeep import Upkeep
from durable_log.engine.watermark import Port
from durable_log.engine.writer import LogWriter, Tail
from durable_log.errors import (
    Corruption,
    DurableLogError,
    StoreClosed,
    StoreUnreadable,
    StreamGone,
    StreamNotFound,
)
from durable_log.model import NOW, Chunk, Options, Request, StreamInfo

Clock = Callable[[], float]


class LogEngine:
    """A store's log, catalog and threads. Made by ``opening``."""

    def __init__(self, directory: Directory, options: Options, clock: Clock) -> None:
        self.options, self.clock = options, clock
        self.path = directory.path
        self._directory = directory
        self._pid = process_id()
        self._closed = self._has_ended = False
        self._begun: list[Callable[[], object]] = []
        """How to end what opening has begun so far."""

    def start(self) -> None:
        """Recover, find the end of the log and begin. Raises ``OSError``, :class:`Corruption`."""
        manifest = load_manifest(self._directory, int(self.clock() * 1000))
        # In every ETag; of a hash, as CRCs are linear and would tell the seed of the log's checksums.
        self.store_id = sha256(b"durable_log store" + manifest.uuid).hexdigest()[:16]
        self._catalog = Catalog(self.clock)
        recovered = recover(self._directory, manifest, self._catalog, self.clock)
        self.report: Report = recovered.report
        self._reader = Reader(recovered.segments, recovered.clustered)
        self._live = LiveBytes(manifest.clustered)
        self._live.removed(self._catalog.removed())
        self._spares = Spares(self._directory, manifest.uuid, self.options, recovered.spares, recovered.last_number)
        self._begun.append(self._close_files)
        manifest = manifest._replace(next_file=next_file(self._directory, manifest))
        self._begin_log(recovered)
        self._begin_work(manifest, recovered)
        call_after_fork(self)
        atexit.register(self.close)

    def give_up(self) -> None:
        """End what an opening has begun that came to nothing, and then let go of the directory.

        If this is interrupted, the lock is kept for good: better nobody writes than two.
        """
        atexit.unregister(self.close)
        while self._begun:
            self._begun[-1]()
            self._begun.pop()
        self._directory.close()

    def _begin_log(self, recovered: Recovered) -> None:
        for name in recovered.surplus:
            self._directory.remove(name)
        self._writer = LogWriter(self._tail(recovered), self._next_segment)
        sliding = any(state.config.ttl is not None for state in self._catalog.expiring())
        empty = not recovered.report.blocks
        if recovered.report.cut or ((empty or self._writer.clean) and (sliding or self._catalog.runs)):
            # From here on, uses may be noted that no record tells of: a kill must not look like a good end.
            if self._writer.is_full:
                self._writer.enter(self._next_segment(self._writer.segment.number + 1, 2 * PAGE), self.clock())
            self._writer.mark(self.clock())

    def _tail(self, recovered: Recovered) -> Tail:
        if recovered.tail is not None:
            return recovered.tail
        segment = self._next_segment(recovered.last_used + 1, 2 * PAGE)
        if recovered.report.cut:
            segment.begin_after(recovered.previous_lsn or 1)
        return Tail(segment, PAGE, recovered.previous_lsn, recovered.previous_crc)

    def _begin_work(self, manifest: Manifest, recovered: Recovered) -> None:
        catalog, writer, live = self._catalog, self._writer, self._live
        self._committer = Committer(writer, catalog, self.options, self.clock, self._look_ahead, live)
        self.submit: Callable[[Request, Port, Any], None] = self._committer.submit
        self.stage, self.ring = self._committer.stage, self._committer.ring
        """Have a request committed and its result delivered to a port, with a token."""
        self.watermarks = self._committer.watermarks
        for state in catalog.expiring():
            self._committer.expiries.add(state)
        self.upkeep = Upkeep(
            self._directory, manifest, recovered, catalog, self._committer, writer, self._reader, live, self._spares,
            self.options, self.clock, self._check_open,
        )  # fmt: skip
        self._begun += (self._committer.quit, self.upkeep.stop)
        self._committer.start()
        self.upkeep.start()

    # --- changes --------------------------------------------------------------------------------------------------

    def execute(self, request: Request) -> Any:
        """Commit ``request`` on this thread or wait for it. Returns its result or raises it."""
        return self._committer.execute(request)

    # --- reads ----------------------------------------------------------------------------------------------------

    def load(self, names: Iterable[str]) -> dict[str, DurableLogError]:
        """Bring streams into memory, which takes much less for many than for each. Of those that are not there then:
        :class:`StreamNotFound`, or what keeps them from it. Raises :class:`StoreClosed`.
        """
        self._check_open()
        absent = self._catalog.load_many(names)
        return {name: StreamNotFound(name) if error is None else self._told(error) for name, error in absent.items()}

    def check_loaded(self, name: str) -> None:
        """Raise ``BlockingIOError`` if a commit of something about that stream would have to read the disk."""
        self._catalog.get(name, wait=False)

    def content_type(self, name: str, *, wait: bool = True) -> str:
        """The content type of a stream. Raises :class:`StreamNotFound`.

        Without ``wait``, this and others raise ``BlockingIOError`` if the stream is not in memory: see :meth:`load`.
        """
        state = self._catalog.find_resident(name)
        if state is None and not wait:
            state = self._catalog.get(name, wait=False)
        if state is None or state.expiry is not None or state.gone or self._committer.failure is not None:
            state = self._state(name, wait=wait)
        return state.config.content_type

    def info(self, name: str, *, wait: bool = True) -> StreamInfo:
        """What is known of a stream. Raises :class:`StreamNotFound`."""
        return self._state(name, wait=wait).info()

    def touch(self, name: str, *, wait: bool = True) -> None:
        """Count a use, which renews a sliding TTL. Raises :class:`StreamNotFound`."""
        self._used(name, wait=wait)

    def read(self, name: str, offset: int, limit: int, number: int | None = None) -> Chunk:
        """At most ``limit`` durable bytes from ``offset`` on, maybe from disk. Counts as a use.

        With ``number``, another life of the name is :class:`StreamGone`; without, none is :class:`StreamNotFound`.
        """
        while True:
            state = self._used(name, number)
            try:
                return self._reader.read(state, offset, limit)
            except (OSError, Corruption) as error:
                self._explain(state, error)

    def read_from_memory(self, name: str, offset: int, limit: int, number: int | None = None) -> Chunk | None:
        """Like :meth:`read`, but None where it would have to read a file."""
        try:
            state = self._used(name, number, wait=False)
        except BlockingIOError:
            return None
        return read_from_memory(state, offset, limit)

    def record_bounds(self, name: str, offset: int, number: int | None = None, *, wait: bool = True) -> tuple[int, int]:
        """Where what is left of the record with the byte at ``offset`` starts and ends; at the tail, it twice."""
        while True:
            state = self._state(name, number, wait=wait)
            if offset >= state.durable:
                return offset, offset
            try:
                start, end = self._reader.record_bounds(state, offset, wait=wait)
                return max(state.first, start), end
            except BlockingIOError:
                raise
            except (OSError, Corruption) as error:
                self._explain(state, error)

    def _explain(self, state: StreamState, error: OSError | Corruption) -> None:
        """Raise what a failed read means. Returns if it means nothing: the state was let go meanwhile, or its stream
        deleted, and the files that it names may have gone since.
        """
        self._check_open()  # the files may have been closed under it
        if state.epoch == LET_GO or state.gone:
            return
        raise self._told(error)

    def _told(self, error: OSError | Corruption) -> Corruption | StoreUnreadable:
        """What a caller is told of what a file said."""
        if isinstance(error, Corruption):
            return error
        refusal = StoreUnreadable(str(error.filename or self.path), error)
        refusal.__cause__ = error
        return refusal

    def place_end(self, name: str, offset: int) -> int:
        """Where the bytes end that lie in one place with the one at ``offset``: a record, or a row of a segment."""
        owner, _, limit = owner_at(self._state(name), offset)
        return min(limit, place_at(owner.index, offset)[1])

    def name_of(self, number: int) -> str | None:
        """The name of the stream of that number, if the catalog's runs know it and can be read."""
        with suppress(Corruption):
            state = self._catalog.find_number(number) if number else None
            return None if state is None else state.name
        return None

    def watch(
        self, name: str, offset: int, port: Port, token: Any, number: int | None = None, *, wait: bool = True
    ) -> Any:
        """Have ``token`` delivered to ``port`` once ``name`` has durable bytes beyond ``offset``, is closed or gone.

        Returns a handle for :meth:`unwatch`, or None if it is so already. ``number`` as in :meth:`read`.
        """
        while True:
            state = self._state(name, number, wait=wait)
            with self._catalog.lock:  # what is watched is not let go
                if self._catalog.find_resident(name) is not state:
                    continue
                if offset < 0:
                    offset = state.durable if offset == NOW else state.first
                watching = self.watermarks.watch(state, offset, port, token)
            return (state, port, token) if watching else None

    def unwatch(self, handle: Any) -> None:
        """Stop watching."""
        self.watermarks.cancel(*handle)

    def check_alive(self, name: str, number: int, *, wait: bool = True) -> None:
        """Raise :class:`StreamGone` unless ``name`` still leads its life ``number``."""
        self._state(name, number, wait=wait)

    def names(self, prefix: str = "") -> Iterator[str]:
        """The names that start with ``prefix``, in order."""
        self._check_open()
        return self._listed(self._catalog.names(prefix))

    def _listed(self, names: Iterator[str]) -> Iterator[str]:
        try:
            yield from names
        except (OSError, Corruption) as error:
            self._check_open()
            raise self._told(error) from None

    # --- the store ------------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Figures of this moment; see :func:`figures_of`."""
        return figures_of(
            self._directory, self._catalog, self._reader, self._committer, self.upkeep.checkpointer, self._live,
            self._spares, self.report,
        )  # fmt: skip

    def close(self) -> None:
        """Commit what waits, mark the log's end and let go of the directory. Closing twice is harmless; one that was
        interrupted is gone on with.
        """
        if self._has_ended or process_id() != self._pid:
            return
        self._closed = True
        with self.upkeep.stop():
            self._end()

    def _end(self) -> None:
        if self._has_ended:
            return  # by another thread
        try:
            with self._committer.attended():
                self.upkeep.save_crash()
                self._committer.stop(self._used_since_saved)
                if self.options.cluster_at_close:
                    self.upkeep.cluster_at_close()
        finally:
            # Else somebody may be in the middle of a write: his file's number would be another file's.
            if self._committer.has_stopped:
                self.upkeep.checkpointer.close()
                self._close_files()
                self._directory.close()
                self._has_ended = True
                atexit.unregister(self.close)

    def __len__(self) -> int:
        return len(self._catalog)

    def _used_since_saved(self) -> list[StreamState]:
        return [each for each in self._catalog.expiring() if each.expiry and each.expiry.touched > each.expiry.saved]

    def _close_files(self) -> None:
        self._spares.close()
        self._reader.close()
        for run in self._catalog.runs:
            run.close()

    def forked(self) -> None:
        """This process is a child of the one that opened the store: refuse to work here.

        The child lets go of its copy of the lock, so that it does not outlive the parent's.
        """
        reason = (
            f"the store was opened by process {self._pid} and can't be used by its child {process_id()}; "
            "once the parent has closed it, open it here"
        )
        self._committer.abandon(StoreClosed(reason))
        self._directory.close()

    def check(self) -> None:
        """Walk the invariants, between two commits. Raises ``AssertionError``, :class:`CommitFailed`. For tests."""
        with self._committer.attended(), self._committer.exclusive():
            self._catalog.check()
            for state in self._catalog.changed():
                assert state.durable == state.tail, (state.name, state.durable, state.tail)
                assert state.durable_closed == state.closed, state.name

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosed("the store is closed; open it again")
        if isinstance(self._committer.failure, StoreClosed):
            raise self._committer.failure.again()

    def _state(self, name: str, number: int | None = None, *, wait: bool = True) -> StreamState:
        if self._committer.failure is not None:
            self._check_open()
        try:
            state = self._catalog.live(name, wait=wait)
        except BlockingIOError:
            raise
        except OSError as error:
            self._check_open()
            raise StoreUnreadable(str(error.filename or self.path), error) from error
        if state is not None and (state.gone or number not in (None, state.number)):
            raise StreamGone(name)
        if number is not None and state is None:
            raise StreamGone(name)
        if state is None:
            raise StreamNotFound(name)
        return state

    def _used(self, name: str, number: int | None = None, *, wait: bool = True) -> StreamState:
        """The stream, used once more."""
        while True:
            state = self._state(name, number, wait=wait)
            expiry = state.expiry
            if expiry is None:
                return state
            if expiry.touch(self.clock()):
                self._committer.save_use(state)
            if state.epoch != LET_GO:
                return state

    def _next_segment(self, number: int, size: int) -> LogSegment:
        segment = self._spares.take(number, size)
        self._reader.segments[segment.number] = segment
        return segment

    def _look_ahead(self, writer: LogWriter) -> None:
        self.upkeep.look_ahead(writer)
