"""From records back to states.

Law of this room: applies the records of the log to a catalog, in order, at open. What it makes of them must equal what
the commit made of the same requests. No I/O of its own, and no guesses: bytes that are missing become lost bytes of
their stream. The thread that opens, before anybody else sees the store.
"""

from __future__ import annotations

from durable_log.engine.ancestry import Fork, leave
from durable_log.engine.catalog import Catalog, ProducerState, StreamState, touch_interval
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

Row = tuple[int, ...]


class Lost:
    """Bytes of a stream that were acknowledged and are gone: ``start`` to ``end``."""

    __slots__ = ("end", "name", "start")

    def __init__(self, name: str, start: int, end: int) -> None:
        self.name, self.start, self.end = name, start, end


class Replay:
    """Feeds records to a catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._producers: dict[tuple[int, int], ProducerState] = {}
        self.lost: list[Lost] = []
        self.records_of_unknown_streams = 0
        self.records = 0

    def apply(self, segment: int, time_ms: int, rows: Rows) -> None:
        """The records of one block."""
        for row in rows.rows:
            self.records += 1
            kind = row[9]
            if kind == DATA:
                self._data(lsn_of(segment, row[2]), time_ms, rows, row)
            elif kind == CREATE:
                self._create(row[0], decode_create(rows.payload(row)))
            else:
                self._other(kind, rows, row)
            # Its CREATE may be damaged; the number must not be given to another stream all the same.
            self._catalog.next_number = max(self._catalog.next_number, row[0] + 1)

    def finish(self, now: float, *, clean: bool) -> None:
        """All records were applied: what was read is durable.

        Unless the store was closed in good order, a sliding TTL gets back what a crash may have taken: uses that were
        noted but not persisted yet. A stream that a client saw expire may then be there again for a while.
        """
        for state in self._catalog.states():
            state.durable = state.tail
            state.durable_closed = state.closed
            state.touch_saved = state.touched
            if state.config.ttl is not None and not clean:
                state.renew(min(now, state.touched + touch_interval(state.config.ttl)))

    def _create(self, number: int, creation: Creation) -> None:
        before = self._catalog.get(creation.name)
        if before is not None:
            self._remove(before)  # its DELETE is damaged
        fork, by_number = None, self._catalog.by_number
        if creation.source:
            owners = [(by_number(ancestor.number), ancestor.end) for ancestor in creation.ancestors]
            known = tuple((owner, end) for owner, end in owners if owner is not None)
            source = by_number(creation.source)
            if source is None or len(known) < len(owners):
                self._orphan(number, creation)
                return
            source.forks += 1
            fork = Fork(source, creation.base, known)
        self._catalog.add(StreamState(number, creation.name, creation.config, creation.created_ms, fork))

    def _orphan(self, number: int, creation: Creation) -> None:
        """A fork whose source was lost: its own bytes are all that is left."""
        state = StreamState(number, creation.name, creation.config, creation.created_ms)
        if creation.base:
            state.index.add(creation.base, LOST)
            state.tail = creation.base
            self.lost.append(Lost(state.name, 0, creation.base))
        self._catalog.add(state)

    def _delete(self, state: StreamState) -> None:
        state.deleted = state.gone = True
        if not state.forks:
            self._remove(state)

    def _remove(self, state: StreamState) -> None:
        for leaving in leave(state, _set_forks):
            self._catalog.remove(leaving)

    def _data(self, lsn: int, time_ms: int, rows: Rows, row: Row) -> None:
        stream, offset, _, epoch, seq, producer, _, length, _, _, flags = row
        state = self._catalog.by_number(stream)
        if state is None or offset < state.tail:
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
        state.renew(time_ms / 1000)

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

    def _other(self, kind: int, rows: Rows, row: Row) -> None:
        state = self._catalog.by_number(row[0])
        if state is None:
            self.records_of_unknown_streams += 1
        elif kind == DELETE:
            self._delete(state)
        elif kind == TOUCH:
            state.renew(decode_touch(rows.payload(row)) / 1000)
        elif kind == TRIM:
            state.first = state.trimmed = row[1]
        elif kind == PRODUCER:
            self._introduce(state, *decode_producer(rows.payload(row)))


def _set_forks(source: StreamState, forks: int) -> None:
    source.forks = forks
