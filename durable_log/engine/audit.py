"""Whether what a store says in one place agrees with what it says in others.

Law of this room: it looks at states and tables of an open store and changes nothing. That bytes hold is seen by those
who read them; here it is asked whether each place that a stream names is there and is the stream's own, whether its
ranges follow each other from its first byte to its tail, whether those that it descends from exist, and whether counts
can be right. One thread; nobody may change the store meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from durable_log.engine.ancestry import pieces
from durable_log.engine.catalog import Catalog
from durable_log.engine.cluster import ClusteredSegment, cluster_name
from durable_log.engine.commit import Committer
from durable_log.engine.format import segment_of
from durable_log.engine.idle import let_go
from durable_log.engine.index import (
    clustered_row,
    clustered_segment,
    end_of,
    is_clustered,
    is_lost,
    places_of,
    start_of,
)
from durable_log.engine.manifest import MANIFEST_NAME, ClusteredFile, Manifest
from durable_log.engine.reader import Reader
from durable_log.engine.rebuild import names_in
from durable_log.engine.segment import segment_name
from durable_log.engine.state import StreamState


class Discord(NamedTuple):
    """Two places that do not agree: what is wrong, with which stream if it is one's, and by which file."""

    file: str
    reason: str
    name: str = ""
    start: int = 0
    end: int = 0


def audit(catalog: Catalog, reader: Reader, committer: Committer, manifest: Manifest) -> Iterator[Discord]:
    """What does not agree in a store. Raises :class:`Corruption` of the catalog, ``OSError``."""
    of = _Audit(reader)
    yield from of.of_files(manifest.clustered)
    states = catalog.states()
    for state in states:
        yield from of.of_stream(state)
    count, seen = len(states), {state.name for state in states}
    for name in names_in(catalog.runs):
        found = None if name in seen else catalog.get(name)
        if found is not None:
            count += 1
            yield from of.of_stream(found)
            with committer.exclusive():
                let_go(catalog, committer)
    if count != len(catalog):
        yield Discord(MANIFEST_NAME, f"there are {count} streams, and {len(catalog)} are counted")


class _Audit:
    """Asks each table once, however many streams name it."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._rows: dict[int, list[tuple[int, int, int]]] = {}

    def of_stream(self, state: StreamState) -> Iterator[Discord]:
        """What does not agree about a stream."""
        name, index, before = state.name, state.index, start_of(state.index)
        if end_of(index) != state.tail:
            yield Discord("", f"its ranges end at {end_of(index)}, not at its tail {state.tail}", name)
        if state.first > state.tail:
            yield Discord("", f"its first byte {state.first} is behind its tail {state.tail}", name)
        if not state.fork and before > state.first:
            yield Discord("", f"its ranges begin at {before}, not at its first byte {state.first}", name)
        for start, end, place in places_of(index):
            if end <= start:
                yield Discord("", f"a range ends at {end}, before it begins", name, start, end)
            if end > state.first or state.forks:
                yield from self._of_place(state, start, end, place)
        if state.fork is not None:
            if not state.fork.source.name:
                yield Discord("", f"it is a fork of stream number {state.fork.source.number}, which is not there", name)
            for owner, start, end in pieces(state, 0, state.fork.base):
                if not owner.name:
                    reason = f"bytes of stream number {owner.number}, which is not there"
                    yield Discord("", reason, name, start, end)

    def of_files(self, files: tuple[ClusteredFile, ...]) -> Iterator[Discord]:
        """What can't be right about the files that the manifest names."""
        for number, live in files:
            segment = self._reader.clustered.get(number)
            if segment is not None and live > segment.payload_bytes:
                reason = f"{live} bytes of {cluster_name(number)} are said to be needed; it has {segment.payload_bytes}"
                yield Discord(MANIFEST_NAME, reason)

    def _of_place(self, state: StreamState, start: int, end: int, place: int) -> Iterator[Discord]:
        if is_lost(place):
            return
        if not is_clustered(place):
            if segment_of(place) not in self._reader.segments:
                yield Discord(segment_name(segment_of(place)), "the log segment is not there", state.name, start, end)
            return
        number, row = clustered_segment(place), clustered_row(place)
        segment = self._reader.clustered.get(number)
        if segment is None:
            yield Discord(cluster_name(number), "the manifest does not name the file", state.name, start, end)
            return
        rows = self._rows_of(number, segment)
        if row >= len(rows):
            reason = f"row {row} of {len(rows)} is named"
            yield Discord(cluster_name(number), reason, state.name, start, end)
            return
        stream, row_start, row_end = rows[row]
        if row_end and not (stream == state.number and row_start <= start <= end <= row_end):
            reason = f"row {row} has the bytes {row_start} to {row_end} of stream number {stream}"
            yield Discord(cluster_name(number), reason, state.name, start, end)

    def _rows_of(self, number: int, segment: ClusteredSegment) -> list[tuple[int, int, int]]:
        if number not in self._rows:
            self._rows[number] = list(zip(*segment.streams(), strict=True))
        return self._rows[number]
