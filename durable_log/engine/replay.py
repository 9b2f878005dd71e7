"""From records back to states.

Law of this room: applies the records of the log to states, each stream's in their order. What it makes of them must
equal what the commit made of the same requests. A row of the catalog knows the log up to its LSN: records below that
are in it already and are passed over. No guesses: bytes that are missing become lost bytes of their stream. Creations
and deletions are applied at open, by the thread that opens; all other records of a stream when it is looked up first,
by whoever does that: to a state that nobody else knows yet, and that may be thrown away.
"""

from __future__ import annotations

from array import array
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from durable_log.engine.ancestry import Fork, leave
from durable_log.engine.backlog import Backlog, Record, StreamRecords
from durable_log.engine.catalog import Catalog
from durable_log.engine.format import (
    CREATE,
    DATA,
    FLAG_CLOSE,
    FLAG_PRODUCER,
    FLAG_SEQ,
    PRODUCER,
    TOUCH,
    TRIM,
    Creation,
    decode_create,
    decode_producer,
    decode_touch,
)
from durable_log.engine.index import ENTRY, LOST, add_place, end_of
from durable_log.engine.loading import Note
from durable_log.engine.state import OFFSET_MAX, ProducerState, StreamState
from durable_log.errors import Corruption


class Lost(NamedTuple):
    """Bytes of a stream that were acknowledged and are gone: ``start`` to ``end``."""

    name: str
    start: int
    end: int


class CatchUp:
    """What the log has of streams beyond their rows. ``lost`` is what was found to be missing so far."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog
        self._tails_min: dict[int, int] = {}
        self.lost: list[Lost] = []
        self.out_of_place = 0
        """Records that overlap others of their stream."""

    def reaches(self, stream: int, tail: int) -> None:
        """The stream had that tail once, as a fork of it shows; what of that no record tells of is lost."""
        self._tails_min[stream] = max(tail, self._tails_min.get(stream, 0))

    def streams(self) -> array[int]:
        """The numbers of all streams that the log has records of, ascending."""
        return self._backlog.streams()

    def apply(self, state: StreamState, lsn: int) -> Note | None:
        """Apply a stream's records from ``lsn`` on, and note where those below lie. What has to be called once the
        state is that of the stream; None if there is nothing. Raises :class:`Corruption`, ``OSError``.
        """
        records, tail_min = self._backlog.of(state.number), self._tails_min.get(state.number, 0)
        if not records and state.tail >= tail_min:
            return None
        application, known = _Application(state, self._backlog, records), records.since(lsn)
        application.place(known)
        application.apply(known)
        application.reach(tail_min)
        state.durable, state.durable_closed, state.first = state.tail, state.closed, state.trimmed
        return partial(self._note, application)

    def extend(self, state: StreamState) -> Note | None:
        """Have a state to which all of its records were applied reach the tail that its stream had."""
        tail_min = self._tails_min.get(state.number, 0)
        if state.tail >= tail_min:
            return None
        application = _Application(state, self._backlog, self._backlog.of(state.number))
        application.reach(tail_min)
        state.durable = state.tail
        return partial(self._note, application)

    def _note(self, application: _Application) -> None:
        self.lost += application.lost
        self.out_of_place += application.out_of_place


class Replay:
    """Brings a catalog up to date. ``counted_lsn`` is where the catalog's count of streams was taken: what was there
    then has a row, or its creation is in the log, unless the log is ``damaged``.
    """

    def __init__(self, catalog: Catalog, backlog: Backlog, counted_lsn: int = 0, *, damaged: bool = False) -> None:
        self._catalog, self._backlog, self._counted_lsn = catalog, backlog, counted_lsn
        self._complete_until = 0 if damaged else counted_lsn
        self._catch_up = catalog.catch_up = CatchUp(backlog)
        self._known_below = catalog.next_number
        self._states: dict[int, StreamState | None] = {}
        self._row_lsns: dict[int, int] = {}
        self._deleted: set[int] = set()
        """The numbers of streams that the log deletes, and that nobody knows."""
        self._shadows: set[int] = set()
        """Lives that the log tells of and that are over by what the rows say; they are not in the catalog."""
        self.removed: list[StreamState] = []
        """Those that were there when streams, and their live bytes, were counted."""
        self._born: list[StreamState] = []
        self._unknown = 0
        self.held: list[tuple[int, Corruption]] = []
        """Creations and deletions that could not be applied, as the catalog can't be read there, by LSN."""
        self._names_held: dict[int, str] = {}
        """What such creations call their streams, by number."""

    @property
    def lost(self) -> list[Lost]:
        """Bytes of streams that are missing."""
        return self._catch_up.lost

    @property
    def records_of_unknown_streams(self) -> int:
        """Records that nobody can say what they are of, or that overlap others."""
        return self._unknown + self._catch_up.out_of_place

    def run(self) -> None:
        """Apply creations and deletions, and all records of the streams that have no row yet."""
        # A CREATE may be damaged; its number must not be given to another stream all the same.
        self._catalog.next_number = max(self._catalog.next_number, self._backlog.greatest_stream + 1)
        for record in self._backlog.lives():
            try:
                if record.kind == CREATE:
                    self._create(record)
                else:
                    self._delete(record)
            except Corruption as error:
                self._hold(record, error)
        if not self._backlog.count:
            self._catalog.catch_up = None
        for state in self._born:
            if not state.gone or state.forks:
                note = self._catch_up.apply(state, 0)
                if note is not None:
                    note()
                self._catalog.forgive(state)

    def look_up_all(self) -> None:
        """Apply all that there is: the log is damaged, and somebody wants to know what was lost."""
        for stream in self._catch_up.streams():
            with suppress(Corruption):  # whoever looks it up will be told
                if self._find(stream) is None and stream not in self._row_lsns and stream not in self._deleted:
                    self._unknown += len(self._backlog.of(stream))

    def _hold(self, record: Record, error: Corruption) -> None:
        """It can't be applied, as long as the catalog can't be read there: nobody may look the stream up until then.

        Streams that it creates are listed, those that it deletes are not.
        """
        self.held.append((record.lsn, error))
        self._catalog.unreadable_numbers[record.stream] = error
        if record.kind == CREATE:
            with suppress(Corruption):  # if it can't be understood itself, nobody knows its name
                name = self._names_held[record.stream] = self._backlog.decoded(record, decode_create).name
                self._catalog.unreadable[name] = error
        elif record.stream in self._names_held:
            del self._catalog.unreadable[self._names_held.pop(record.stream)]

    def _find(self, number: int) -> StreamState | None:
        if number in self._catalog.unreadable_numbers:
            raise self._catalog.unreadable_numbers[number].again()
        if number not in self._states:
            self._states[number], lsn = self._catalog.load_number(number)
            if lsn:
                self._row_lsns[number] = lsn
        return self._states[number]

    def _create(self, record: Record) -> None:
        creation = self._backlog.decoded(record, decode_create)
        source = self._find(creation.source) if creation.source else None
        owners = [(self._find(ancestor.number), ancestor.end) for ancestor in creation.ancestors]
        for number, end in ((creation.source, creation.base), *creation.ancestors):
            self._reaches(number, end)
        if self._catalog.row_lsn(creation.name) > record.lsn or self._is_over(record.lsn, creation):
            self._shadow(record, creation, source)
            return
        before = self._catalog.get(creation.name)
        if before is not None:
            self._remove(before, record.lsn)  # its DELETE is damaged
        fork = None
        if creation.source:
            known = tuple((owner, end) for owner, end in owners if owner is not None)
            if source is None or len(known) < len(owners):
                self._add(record.lsn, self._orphan(record.stream, creation))
                return
            self._set_forks(source, source.forks + 1, record.lsn)
            fork = Fork(source, creation.base, known)
        state = StreamState(record.stream, creation.name, creation.config, creation.created_ms, fork)
        state.trimmed = state.first = record.offset
        self._add(record.lsn, state)

    def _reaches(self, number: int, end: int) -> None:
        """The fork that is being created has the bytes of that stream up to ``end``."""
        self._catch_up.reaches(number, end)
        state = self._states.get(number)
        if state is not None and number in self._row_lsns and number not in self._shadows:
            note = self._catch_up.extend(state)  # its records were applied before anybody knew that
            if note is not None:
                self._catalog.change(state)
                note()

    def _is_over(self, lsn: int, creation: Creation) -> bool:
        """Whether something is gone by what the rows say that the fork needs; then the fork was gone before it."""
        needed = [creation.source, *(ancestor.number for ancestor in creation.ancestors)] if creation.source else []
        return any(
            number in self._shadows
            or (self._states[number] is None and max(self._row_lsns.get(number, 0), self._complete_until) > lsn)
            for number in needed
        )

    def _shadow(self, record: Record, creation: Creation, source: StreamState | None) -> None:
        """A life of which a row knows more, or that is over, while the row of its source may know less.

        What is not there any more is followed to its end all the same, for the sake of those that it descends from.
        """
        state = self._find(record.stream)
        if state is None:
            fork = None if source is None else Fork(source, creation.base, ())
            state = StreamState(record.stream, creation.name, creation.config, creation.created_ms, fork)
            self._states[record.stream] = state
            self._shadows.add(record.stream)
        elif source is not None and state.fork is not None:
            state.fork = state.fork._replace(source=source)
        if source is not None:
            self._set_forks(source, source.forks + 1, record.lsn)

    def _add(self, lsn: int, state: StreamState) -> None:
        self._states[state.number] = state
        self._born.append(state)
        self._catalog.add(state, counted=lsn < self._counted_lsn)

    def _orphan(self, number: int, creation: Creation) -> StreamState:
        """A fork whose source was lost: its own bytes are all that is left."""
        state = StreamState(number, creation.name, creation.config, creation.created_ms)
        if creation.base:
            add_place(state.index, creation.base, LOST)
            state.tail = state.durable = creation.base
            self._catch_up.lost.append(Lost(state.name, 0, creation.base))
        return state

    def _delete(self, record: Record) -> None:
        state = self._find(record.stream)
        if state is None:
            known = record.stream < self._known_below or record.stream in self._row_lsns
            self._unknown += not known
            self._deleted.add(record.stream)
        elif self._begins(state, record.lsn):
            state.deleted = state.gone = True
            if not state.forks:
                self._remove(state, record.lsn)

    def _remove(self, state: StreamState, lsn: int) -> None:
        for leaving in leave(state, lambda source, forks: self._set_forks(source, forks, lsn)):
            self._states[leaving.number] = None
            self._row_lsns.setdefault(leaving.number, lsn)
            if leaving.number not in self._shadows:
                self._catalog.remove(leaving, counted=lsn < self._counted_lsn)
                if lsn >= self._counted_lsn:
                    self.removed.append(leaving)

    def _set_forks(self, source: StreamState, forks: int, lsn: int) -> None:
        self._find(source.number)
        if self._begins(source, lsn):
            source.forks = forks

    def _begins(self, state: StreamState, lsn: int) -> bool:
        """Whether what happens to a stream at ``lsn`` is not in its row already."""
        if state.number in self._shadows:
            return True
        if lsn < self._row_lsns.get(state.number, 0):
            return False
        self._catalog.change(state)
        return True


class _Application:
    """One stream on its way to its present state. Runs of plain records are taken by C, all others one by one."""

    def __init__(self, state: StreamState, backlog: Backlog, records: StreamRecords) -> None:
        self._state, self._backlog, self._records = state, backlog, records
        self._producers = {known.number: known for known in (state.producers or {}).values()}
        self.lost: list[Lost] = []
        self.out_of_place = 0

    def place(self, until: int) -> None:
        """The records before ``until``, which the row knows: only where they lie is news."""
        state, at = self._state, 0
        while at < until:
            entries = self._records.data(at, until, end_of(state.index), state.tail)
            state.index += entries
            at += len(entries) // ENTRY
            if at < until:
                self._place(self._records[at])
            at += 1
        self._lose(state.tail)

    def _place(self, record: Record) -> None:
        end = record.offset + record.length
        if record.kind == DATA and record.length and end_of(self._state.index) < end <= self._state.tail:
            self._lose(record.offset)
            add_place(self._state.index, end, record.lsn)

    def apply(self, first: int) -> None:
        """The records from ``first`` on, which are news."""
        state, records, at = self._state, self._records, first
        claims = records.claims(first, state.tail)
        while at < len(records):
            entries = records.data(at, len(records), state.tail, OFFSET_MAX, without=FLAG_CLOSE)
            if entries:
                state.index += entries
                state.tail = end_of(state.index)
                self._renew(at, len(entries) // ENTRY)
                at += len(entries) // ENTRY
            if at < len(records):
                self._apply(at)
            at += 1
        for record in claims:
            self._claim(record)

    def _apply(self, at: int) -> None:
        record, state = self._records[at], self._state
        kind = record.kind
        if kind == DATA and record.offset < state.tail:
            self.out_of_place += 1
        elif kind == DATA:
            self._data(record)
            self._renew(at, 1)
        elif kind == TRIM:
            state.trimmed = record.offset
        elif kind == TOUCH and state.expiry is not None:
            state.expiry.renew(self._backlog.decoded(record, decode_touch) / 1000)
        elif kind == PRODUCER:
            self._introduce(*self._backlog.decoded(record, decode_producer))

    def reach(self, tail: int) -> None:
        """The stream had that tail, whatever the records say."""
        self._lose(tail)
        self._state.tail = max(tail, self._state.tail)

    def _lose(self, end: int) -> None:
        state = self._state
        start = end_of(state.index)
        if start < end:
            add_place(state.index, end, LOST)
            if end > state.first:
                self.lost.append(Lost(state.name, max(start, state.first), end))

    def _data(self, record: Record) -> None:
        state, offset, length = self._state, record.offset, record.length
        self._lose(offset)
        if length:
            add_place(state.index, offset + length, record.lsn)
        state.tail = offset + length
        if record.flags & FLAG_CLOSE:
            state.closed = True

    def _renew(self, at: int, count: int) -> None:
        """So many appends renewed a sliding TTL."""
        expiry = self._state.expiry
        if expiry is not None and expiry.ttl is not None:
            expiry.renew(self._backlog.time_of(self._records, at, count))

    def _claim(self, record: Record) -> None:
        row, frame = self._backlog.frame(record)
        if record.flags & FLAG_PRODUCER:
            number = row[5]
            # If its introduction is damaged, nobody can say whose claim this is, but the number is taken.
            known = self._producers.get(number) or self._introduce(number, number)
            known.epoch, known.seq = row[3], row[4]
        if record.flags & FLAG_SEQ:
            self._state.last_seq = frame[row[6] - row[8] : row[6]].decode("utf-8", "surrogatepass")

    def _introduce(self, number: int, producer_id: str | int) -> ProducerState:
        state = self._state
        if state.producers is None:
            state.producers = {}
        known = state.producers[producer_id] = ProducerState(number, -1, -1)
        self._producers[number] = known
        if isinstance(producer_id, int):
            ordered = sorted(state.producers.items(), key=lambda item: item[1].number)
            state.producers = dict(ordered)
        return known
