"""One group commit before it is written: what was accepted, as frames and as changes that can be taken back.

Law of this room: used by the holder of the commit lock only. Admission decides, this room carries out: it lays out the
frames, moves the states that admission sees, and remembers how they were. Nothing that readers see changes here:
``publish`` does that after the sync, ``undo`` takes everything back if there was no room. No I/O.
"""

from __future__ import annotations

from typing import Final

from durable_log.engine.admission import admit_append, admit_create, admit_fork
from durable_log.engine.ancestry import fork_from, leave
from durable_log.engine.catalog import Catalog
from durable_log.engine.format import (
    BLOCK_HEADER,
    CREATE,
    DATA,
    DELETE,
    FLAG_CLOSE,
    FLAG_PRODUCER,
    FLAG_SEQ,
    FRAME_HEADER,
    PRODUCER,
    TOUCH,
    TRIM,
    Ancestor,
    Creation,
    encode_claim,
    encode_create,
    encode_producer,
    encode_seq,
    encode_touch,
    frame_head,
    stored_time,
)
from durable_log.engine.recent import Entry
from durable_log.engine.staging import Submission
from durable_log.engine.state import Expiry, ProducerState, StreamState
from durable_log.errors import (
    DurableLogError,
    OffsetOutOfRange,
    StoreUnreadable,
    StreamExists,
    StreamGone,
    StreamNotFound,
)
from durable_log.model import Append, Appended, Create, Created, Delete, Producer, Trim

_HEADER_ROOM: Final = bytes(BLOCK_HEADER)

Saved = tuple[int, bool, str | None, tuple[float, float, float] | None]


class Group:
    """The frames of one block and the tentative changes that they stand for."""

    def __init__(self, catalog: Catalog, now: float) -> None:
        self._catalog = catalog
        self._find_resident = catalog.find_resident
        self._now = now
        self._next_number = catalog.next_number
        self._overlay: dict[str, StreamState | None] = {}
        self._claims: list[tuple[StreamState, str, ProducerState, int, int]] = []
        self._saved: dict[StreamState, Saved] = {}
        self.trims: list[tuple[StreamState, int]] = []
        self._kept: list[tuple[StreamState, bool, int]] = []
        self._touched: list[tuple[Expiry, float]] = []
        self.parts: list[bytes] = [_HEADER_ROOM]
        self.length = 0
        self.entries: list[Entry] = []
        self.created: list[StreamState] = []
        self.hidden: list[StreamState] = []
        """Deleted for whoever asks; those of them that no fork needs, and what was kept for them, are ``removed``."""
        self.removed: list[StreamState] = []
        self.owes_sync = False
        """Whether it acknowledges duplicates, at whatever level, of what may not be durable yet."""

    @property
    def changed(self) -> dict[StreamState, Saved]:
        """The streams whose tail or closure moved."""
        return self._saved

    def append(self, request: Append) -> Appended:
        """Admit an append and lay it out. Raises what refuses it."""
        state = self._live(request.name)
        known = admit_append(state, request)
        if known is None:
            return self._append(state, request)
        self.owes_sync = self.owes_sync or state.tail != state.durable
        return known

    def create(self, request: Create) -> Created:
        """Create a stream, or find it as it was asked for. Raises what refuses it, or its fork."""
        name = request.name
        state = self._find(name)
        if state is not None and not state.deleted:
            if state.deadline > self._now:
                return admit_create(state, request)
            self._delete(state)
        if state is not None and state.deleted and state.forks:
            raise StreamExists(name, "state", "deleted but kept for its forks", "open")
        state = self._new(request)
        self._next_number += 1
        self._overlay[name] = state
        self.created.append(state)
        if request.data or request.closed:
            self._append(state, Append(name, request.data, close=request.closed))
        return Created(False, state.tail, state.closed, state.config.content_type)

    def delete(self, request: Delete) -> None:
        """Delete a stream; one with forks stays for them. A sweep that finds it used, gone or deleted does nothing.

        Raises :class:`StreamNotFound`, :class:`StreamGone`.
        """
        if not request.expired:
            self._delete(self._live(request.name))
            return
        state = self._find(request.name)
        if state is not None and state.number == request.number and not state.deleted and state.deadline <= self._now:
            self._delete(state)

    def trim(self, request: Trim) -> int:
        """Give up a stream's oldest bytes; returns the first that stays. Raises as ``append`` does, and
        :class:`OffsetOutOfRange` beyond the tail.
        """
        state = self._live(request.name)
        if request.number not in (None, state.number):
            raise StreamGone(request.name)
        if request.before > state.tail:
            raise OffsetOutOfRange(state.name, request.before, state.trimmed, state.tail)
        if request.before > state.trimmed:
            self._catalog.change(state)
            self.trims.append((state, state.trimmed))
            state.trimmed = request.before
            self.parts += (frame_head(TRIM, 0, state.number, request.before, 0),)
            self.length += FRAME_HEADER
        return state.trimmed

    def touch(self, state: StreamState) -> None:
        """Persist when a stream was last used."""
        if state.expiry is not None and not state.deleted and self._catalog.find_resident(state.name) is state:
            self._catalog.change(state)
            self._touched.append((state.expiry, state.expiry.saved))
            state.expiry.saved = state.expiry.touched
            self._frame(TOUCH, 0, state, encode_touch(int(state.expiry.touched * 1000)))

    def undo(self) -> None:
        """Nothing of this was written: put back what admission sees."""
        for expiry, saved in reversed(self._touched):
            expiry.saved = saved
        for state, (tail, closed, last_seq, uses) in self._saved.items():
            state.tail, state.closed, state.last_seq = tail, closed, last_seq
            if state.expiry is not None and uses is not None:
                state.expiry.touched, state.expiry.saved, state.expiry.deadline = uses
        for state, producer_id, producer, epoch, seq in reversed(self._claims):
            producer.epoch, producer.seq = epoch, seq
            if epoch < 0 and state.producers is not None:
                del state.producers[producer_id]
        for state, trimmed in reversed(self.trims):
            state.trimmed = trimmed
        for state, deleted, forks in reversed(self._kept):
            state.deleted, state.forks = deleted, forks

    def publish(self) -> None:
        """The block is durable: creations and deletions come into force."""
        for state in self.created:
            self._catalog.add(state)
        for state, _ in self.trims:
            state.first = state.trimmed
        for state in self.hidden:
            state.gone = True
        for state in self.removed:
            self._catalog.remove(state)

    def _find(self, name: str) -> StreamState | None:
        if name in self._overlay:
            return self._overlay[name]
        state = self._find_resident(name)
        if state is not None:
            return state
        try:
            return self._catalog.get(name)
        except OSError as error:
            raise StoreUnreadable(str(error.filename or "a run"), error) from error

    def _live(self, name: str) -> StreamState:
        state = self._find_resident(name) if name not in self._overlay else None
        if state is None:
            state = self._find(name)
            if state is None:
                raise StreamNotFound(name)
        if state.deleted:
            raise StreamGone(name)
        if state.expiry is not None and state.expiry.deadline <= self._now:
            raise StreamNotFound(name)
        return state

    def _new(self, request: Create) -> StreamState:
        number, created_ms, fork = self._next_number, int(self._now * 1000), None
        config = request.config._replace(expires_at=stored_time(request.config.expires_at))
        if request.fork_of is not None:
            source = self._find(request.fork_of)
            if source is None or (source.deadline <= self._now and not source.deleted):
                raise StreamNotFound(request.fork_of)
            if request.fork_number not in (None, source.number):
                raise StreamGone(request.fork_of)
            fork = fork_from(source, admit_fork(source, request))
            if config.ttl is None and config.expires_at is None:
                config = config._replace(ttl=source.config.ttl, expires_at=source.config.expires_at)
            self._keep(source, source.deleted, source.forks + 1)
        state = StreamState(number, request.name, config, created_ms, fork)
        creation = Creation(request.name, config, created_ms)
        if fork is not None:
            ancestors = tuple(Ancestor(owner.number, end) for owner, end in fork.ancestors)
            creation = creation._replace(source=fork.source.number, base=fork.base, ancestors=ancestors)
        payload = encode_create(creation)
        self.parts += (frame_head(CREATE, 0, number, state.trimmed, len(payload)), payload)
        self.length += FRAME_HEADER + len(payload)
        return state

    def _append(self, state: StreamState, request: Append) -> Appended:
        _, data, producer, seq, close, _, _ = request
        offset, expiry = state.tail, state.expiry
        if state.epoch != self._catalog.epoch:
            self._catalog.change(state)
        if state not in self._saved:
            uses = None if expiry is None else (expiry.touched, expiry.saved, expiry.deadline)
            self._saved[state] = (offset, state.closed, state.last_seq, uses)
        flags, extension, producer_seq = 0, b"", None
        if producer is not None:
            flags, extension, producer_seq = FLAG_PRODUCER, self._claim(state, producer), producer.seq
        if seq is not None:
            flags |= FLAG_SEQ
            extension += encode_seq(seq.encode("utf-8", "surrogatepass"))
            state.last_seq = seq
        if close:
            flags |= FLAG_CLOSE
            state.closed = True
        size, position = len(data), self.length
        length = len(extension) + size
        self.parts += (frame_head(DATA, flags, state.number, offset, length), extension, data)
        self.length = position + FRAME_HEADER + length
        if size:
            self.entries.append((state, offset, position, data))
            state.tail = offset + size
        if expiry is not None:
            expiry.renew(self._now)
            expiry.saved = expiry.touched
        return Appended(offset, offset + size, False, state.closed, producer_seq)

    def _claim(self, state: StreamState, producer: Producer) -> bytes:
        if state.producers is None:
            state.producers = {}
        known = state.producers.get(producer.id)
        if known is None:
            newest = next(reversed(state.producers.values()), None)
            number = 0 if newest is None else newest.number + 1
            known = state.producers[producer.id] = ProducerState(number, -1, -1)
            self._frame(PRODUCER, 0, state, encode_producer(known.number, producer.id))
        self._claims.append((state, producer.id, known, known.epoch, known.seq))
        known.epoch, known.seq = producer.epoch, producer.seq
        return encode_claim(known.number, producer)

    def _delete(self, state: StreamState) -> None:
        self._frame(DELETE, 0, state, b"")
        self._keep(state, True, state.forks)
        self.hidden.append(state)
        if state.forks:
            return
        for leaving in leave(state, lambda source, forks: self._keep(source, source.deleted, forks)):
            self._overlay[leaving.name] = None
            self.removed.append(leaving)

    def _keep(self, state: StreamState, deleted: bool, forks: int) -> None:
        self._catalog.change(state)
        self._kept.append((state, state.deleted, state.forks))
        state.deleted, state.forks = deleted, forks

    def _frame(self, kind: int, flags: int, state: StreamState, payload: bytes) -> None:
        self.parts += (frame_head(kind, flags, state.number, state.tail, len(payload)), payload)
        self.length += FRAME_HEADER + len(payload)


def wants_sync(submission: Submission) -> bool:
    """Whether it may be acknowledged only after a sync: everything but an append that is content with less."""
    request = submission.request
    return not isinstance(request, Append) or request.durability == "sync" or request.close


def admit_all(group: Group, batch: list[Submission]) -> Submission | None:
    """Admit the requests in order, up to one that fails in a way that is no refusal, which is returned."""
    for submission in batch:
        request = submission.request
        try:
            if isinstance(request, Append):
                submission.result = group.append(request)
            elif isinstance(request, Create):
                submission.result = group.create(request)
            elif isinstance(request, Trim):
                submission.result = group.trim(request)
            else:
                group.delete(request)
                submission.result = None
        except DurableLogError as refusal:
            submission.result = refusal
        except Exception as error:  # noqa: BLE001 - whatever it is, it is that request's own
            submission.result = error
            return submission
    return None
