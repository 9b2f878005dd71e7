"""The rows of a checkpoint: what the catalog is going to say of every stream that was removed or changed.

Law of this room: states are looked at, and their indexes replaced, with the commit lock held, some streams at a time.
It can stop anywhere and go on: a stream whose row was taken is not looked at again. A stream of which no row can be
made keeps its index, and with it the log, and does not keep the others from anything. No I/O but for streams that have
to be looked up. One thread.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from durable_log.engine import index as index_room
from durable_log.engine.catalog import Catalog
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.commit import Committer
from durable_log.engine.index import clustered_place, first_in_log, replaced
from durable_log.engine.live import LiveBytes
from durable_log.engine.rows import encode_stream, encode_tombstone
from durable_log.engine.run_format import encode_row
from durable_log.engine.state import StreamState
from durable_log.engine.writer import LogWriter

SLICE_STATES: Final = 128
"""How many streams are looked at under the commit lock at a time: well below a millisecond."""

_log = logging.getLogger("durable_log")

Places = list[tuple[int, int, int]]


class Epoch(NamedTuple):
    """What a checkpoint is about: all that was removed or changed since the one before, as of ``lsn``."""

    number: int
    lsn: int
    removed: list[StreamState]
    changed: list[StreamState]


class Rows:
    """Where a new clustered segment holds which bytes of which stream."""

    def __init__(self, segment: ClusteredSegment) -> None:
        self._number = segment.number
        self._streams, self._starts, self._ends = segment.streams()

    def of(self, stream: int) -> Places:
        """Start, end and place of each range of that stream, in order. O(log n)."""
        found = []
        row = bisect_left(self._streams, stream)
        while row < len(self._streams) and self._streams[row] == stream:
            found.append((self._starts[row], self._ends[row], clustered_place(self._number, row)))
            row += 1
        return found


class Snapshot:
    """The ``rows`` of an epoch. The log from LSN ``first`` to ``below`` is in clustered segments.

    ``held`` are the streams of which no row can be made, or that have bytes in the log before that.
    """

    def __init__(self, epoch: Epoch, first: int, below: int) -> None:
        self.epoch, self.held = epoch, list[StreamState]()
        self.long: list[int] = []
        """The numbers of those that may have too many ranges."""
        self.rows = [
            encode_row(state.name, state.number, encode_tombstone(epoch.lsn), tombstone=True) for state in epoch.removed
        ]
        self._first, self._below, self._taken = first, below, 0
        self._by_name: dict[str, StreamState] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no row is missing."""
        return self._taken == len(self.epoch.changed)

    def take(
        self, written: list[Rows], catalog: Catalog, committer: Committer, writer: LogWriter, live: LiveBytes,
        pause: Callable[[], None],
    ) -> None:  # fmt: skip
        """The rows that are missing; from here on indexes of these streams point into what was ``written``."""
        changed = self.epoch.changed
        while self._taken < len(changed):
            states = changed[self._taken : self._taken + SLICE_STATES]
            places = [[place for rows in written for place in rows.of(state.number)] for state in states]
            with committer.exclusive():
                lsn = writer.end_lsn
                for state, found in zip(states, places, strict=True):
                    self._take(state, found, catalog, live, lsn)
                    self._taken += 1
            pause()

    def _take(self, state: StreamState, places: Places, catalog: Catalog, live: LiveBytes, lsn: int) -> None:
        index, needed = state.index, not state.gone or state.forks > 0
        if self._first and needed and first_in_log(index) < self._first:
            self.held.append(state)
            return
        try:
            if needed:
                state.index = replaced(index, self._below, places)
            if state.gone or state.fork is not None or catalog.find_resident(state.name) is not state:
                self.rows += list(self._rows_of(state, catalog, lsn))
            else:
                self.rows.append(encode_stream(state, lsn))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is that stream's own
            state.index = index
            self.held.append(state)
            _log.error("the stream %r has no row in the catalog and stays in the log: %s", state.name, error)
            return
        if needed:
            live.added(state, places)
            if len(state.index) > 16 * index_room.RANGES_MAX:
                self.long.append(state.number)

    def _rows_of(self, state: StreamState, catalog: Catalog, lsn: int) -> Iterator[bytes]:
        """The row of a stream's name, and of those whose rows have to agree with it.

        If a life of the name ended meanwhile, its source has a fork less. If one began that is a fork, what it descends
        from may be as young, and have no row yet.
        """
        todo, seen = [state], {state}
        while todo:
            life = todo.pop()
            before, present = self._before(life.name), catalog.get(life.name)
            if present is None:
                # The stream is gone, and its name does not live again.
                yield encode_row(life.name, life.number, encode_tombstone(lsn), tombstone=True)
            else:
                yield encode_stream(present, lsn)
            for other in (life, before, present):
                if other is None or other.fork is None or other.fork.source in seen:
                    continue
                if (other is present is not before) or (other.gone and not other.forks):
                    todo.append(other.fork.source)
                    seen.add(other.fork.source)

    def _before(self, name: str) -> StreamState | None:
        """The stream of that name that had changed; only few checkpoints ask."""
        if self._by_name is None:
            self._by_name = {state.name: state for state in self.epoch.changed}
        return self._by_name.get(name)


def row_or_none(state: StreamState, lsn: int) -> bytes | None:
    """The row of a stream; None if none can be made."""
    try:
        return encode_stream(state, lsn)
    except Exception as error:  # noqa: BLE001 - as above
        _log.error("the stream %r has no row in the catalog: %s", state.name, error)
        return None
