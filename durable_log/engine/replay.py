"""From records back to states.

Law of this room: applies the records of the log to the catalog, in order, at open. What it makes of them must equal
what the commit made of the same requests. A row of the catalog knows the log up to its LSN: records below that are in
it already and are passed over. No guesses: bytes that are missing become lost bytes of their stream. The thread that
opens, before anybody else sees the store.
"""

from __future__ import annotations

from typing import NamedTuple

from durable_log.engine.ancestry import Fork, leave
from durable_log.engine.catalog import Catalog
from durable_log.engine.format import (
    CREATE,
    DATA,
    DELETE,
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
    lsn_of,
)
from durable_log.engine.index import LOST
from durable_log.engine.segment import Rows
from durable_log.engine.state import ProducerState, StreamState

Row = tuple[int, ...]


class Lost(NamedTuple):
    """Bytes of a stream that were acknowledged and are gone: ``start`` to ``end``."""

    name: str
    start: int
    end: int


class Replay:
    """Feeds records to a catalog. ``counted_lsn`` is where the catalog's count of streams was taken."""

    def __init__(self, catalog: Catalog, counted_lsn: int = 0) -> None:
        self._catalog, self._counted_lsn = catalog, counted_lsn
        self._known_below = catalog.next_number
        self._states: dict[int, StreamState | None] = {}
        self._producers: dict[tuple[int, int], ProducerState] = {}
        self._row_lsns: dict[int, int] = {}
        self.lost: list[Lost] = []
        self.records_of_unknown_streams = 0
        self.records = 0

    def apply(self, segment: int, time_ms: int, rows: Rows) -> None:
        """The records of one block."""
        for row in rows.rows:
            self.records += 1
            kind, lsn = row[9], lsn_of(segment, row[2])
            if kind == CREATE:
                self._create(lsn, row[0], decode_create(rows.payload(row)))
                continue
            state = self._find(row[0])
            # Its CREATE may be damaged; the number must not be given to another stream all the same.
            self._catalog.next_number = max(self._catalog.next_number, row[0] + 1)
            if state is None:
                self.records_of_unknown_streams += row[0] >= self._known_below
            elif lsn >= self._row_lsns.get(row[0], 0):
                self._catalog.change(state)
                if kind == DATA:
                    self._data(state, lsn, time_ms, rows, row)
                else:
                    self._other(state, lsn, rows, row)

    def finish(self, now: float, *, clean: bool) -> None:
        """All records were applied: what was read is durable.

        Unless the store was closed in good order, a sliding TTL gets back what a crash may have taken: uses that were
        noted but not persisted yet. A stream that a client saw expire may then be there again for a while.
        """
        self._catalog.crashed_at = None if clean else now
        for state in self._catalog.changed():
            state.durable = state.tail
            state.durable_closed = state.closed
            state.first = state.trimmed
            self._catalog.forgive(state)

    def _find(self, number: int) -> StreamState | None:
        if number not in self._states:
            self._states[number], lsn = self._catalog.load_number(number)
            if lsn:
                self._row_lsns[number] = lsn
                self._know_producers(number)
        return self._states[number]

    def _know_producers(self, number: int) -> None:
        state = self._states[number]
        for producer in ((state and state.producers) or {}).values():
            self._producers[number, producer.number] = producer

    def _create(self, lsn: int, number: int, creation: Creation) -> None:
        self._catalog.next_number = max(self._catalog.next_number, number + 1)
        row_lsn = self._catalog.row_lsn(creation.name)
        if row_lsn > lsn:
            # The row is of this life, and knows more, or of a later one, and this one is over.
            state, _ = self._catalog.load_number(number)
            self._states[number] = state
            self._row_lsns[number] = row_lsn
            self._know_producers(number)
            return
        before = self._catalog.get(creation.name)
        if before is not None:
            self._remove(before, lsn)  # its DELETE is damaged
        fork = None
        if creation.source:
            owners = [(self._find(ancestor.number), ancestor.end) for ancestor in creation.ancestors]
            known = tuple((owner, end) for owner, end in owners if owner is not None)
            source = self._find(creation.source)
            if source is None or len(known) < len(owners):
                self._add(lsn, self._orphan(number, creation))
                return
            if lsn >= self._row_lsns.get(creation.source, 0):
                self._catalog.change(source)
                source.forks += 1
            fork = Fork(source, creation.base, known)
        self._add(lsn, StreamState(number, creation.name, creation.config, creation.created_ms, fork))

    def _add(self, lsn: int, state: StreamState) -> None:
        self._states[state.number] = state
        self._catalog.add(state, counted=lsn < self._counted_lsn)

    def _orphan(self, number: int, creation: Creation) -> StreamState:
        """A fork whose source was lost: its own bytes are all that is left."""
        state = StreamState(number, creation.name, creation.config, creation.created_ms)
        if creation.base:
            state.index.add(creation.base, LOST)
            state.tail = creation.base
            self.lost.append(Lost(state.name, 0, creation.base))
        return state

    def _delete(self, state: StreamState, lsn: int) -> None:
        state.deleted = state.gone = True
        if not state.forks:
            self._remove(state, lsn)

    def _remove(self, state: StreamState, lsn: int) -> None:
        for leaving in leave(state, lambda source, forks: self._set_forks(source, forks, lsn)):
            self._states[leaving.number] = None
            self._row_lsns.setdefault(leaving.number, lsn)
            self._catalog.remove(leaving, counted=lsn < self._counted_lsn)

    def _set_forks(self, source: StreamState, forks: int, lsn: int) -> None:
        self._find(source.number)
        if lsn >= self._row_lsns.get(source.number, 0):
            self._catalog.change(source)
            source.forks = forks

    def _data(self, state: StreamState, lsn: int, time_ms: int, rows: Rows, row: Row) -> None:
        _, offset, _, epoch, seq, producer, _, length, _, _, flags = row
        if offset < state.tail:
            self.records_of_unknown_streams += 1
            return
        if offset > state.tail:
            self.lost.append(Lost(state.name, state.tail, offset))
            state.index.add(offset, LOST)
        if length:
            state.index.add(offset + length, lsn)
        state.tail = offset + length
        if flags:
            if flags & FLAG_PRODUCER:
                self._claim(state, producer, epoch, seq)
            if flags & FLAG_SEQ:
                state.last_seq = rows.seq(row).decode("utf-8", "surrogatepass")
            if flags & FLAG_CLOSE:
                state.closed = True
        if state.expiry is not None:
            state.expiry.renew(time_ms / 1000)

    def _claim(self, state: StreamState, number: int, epoch: int, seq: int) -> None:
        known = self._producers.get((state.number, number))
        if known is None:
            # Its introduction is damaged: nobody can say whose claim this is, but the number is taken.
            known = self._introduce(state, number, number)
        known.epoch, known.seq = epoch, seq

    def _introduce(self, state: StreamState, number: int, producer_id: str | int) -> ProducerState:
        if state.producers is None:
            state.producers = {}
        known = state.producers[producer_id] = ProducerState(number, -1, -1)
        self._producers[state.number, number] = known
        if isinstance(producer_id, int):
            ordered = sorted(state.producers.items(), key=lambda item: item[1].number)
            state.producers = dict(ordered)
        return known

    def _other(self, state: StreamState, lsn: int, rows: Rows, row: Row) -> None:
        kind = row[9]
        if kind == DELETE:
            self._delete(state, lsn)
        elif kind == TOUCH and state.expiry is not None:
            state.expiry.renew(decode_touch(rows.payload(row)) / 1000)
        elif kind == TRIM:
            state.trimmed = row[1]
        elif kind == PRODUCER:
            self._introduce(state, *decode_producer(rows.payload(row)))
