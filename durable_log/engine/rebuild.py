"""Rows of the catalog out of what is left of a damaged store.

Law of this room: pure reading; it makes rows, and whoever asks writes them down. A row that verifies counts as it is,
but for places that are gone: what nothing holds any more is lost. A row that is lost is made anew from an older one,
from its name, from the clustered bytes of its stream. What nobody can know any more is decided for the sake of what was
promised: such a stream is closed, so that it accepts nothing that it had accepted before, or refused; and it may have
been deleted. What the log has comes on top when the store is opened. The thread that repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from durable_log.engine.ancestry import pieces
from durable_log.engine.check import MISSING
from durable_log.engine.cluster import ClusteredSegment, cluster_name
from durable_log.engine.index import (
    clustered_segment,
    end_of,
    index_of,
    is_clustered,
    lost_in,
    marked,
    places_of,
    relocated,
    start_of,
)
from durable_log.engine.quarantine import Finding
from durable_log.engine.rows import decode_state, encode_state, encode_stream, encode_tombstone, needed_of, source_of
from durable_log.engine.run import Run
from durable_log.engine.run_format import NEVER, NameEntry, Row, decode_row, encode_row, hash_of, run_name
from durable_log.engine.salvage_run import SalvagedRun
from durable_log.engine.snapshot import Rows
from durable_log.engine.state import StreamState
from durable_log.model import StreamConfig

REVIVED: Final = "lost+found/"
UNKNOWN_TYPE: Final = "application/octet-stream"


class Ground(NamedTuple):
    """What rows are made from. ``layers``: the runs, newest first. ``clustered``: the segments that count from now on;
    ``moved`` those that were made for others, which do not count any more. ``created``, ``deleted``, ``logged``:
    streams that the log creates, deletes, and has records of. ``lsn`` is where the log begins, ``report`` the number of
    the repair, ``now`` its time in seconds since the epoch, ``damage`` what is known to be wrong with the clustered
    segments.
    """

    layers: list[Run | SalvagedRun]
    clustered: list[ClusteredSegment]
    moved: list[ClusteredSegment]
    created: dict[int, str]
    deleted: set[int]
    logged: set[int]
    lsn: int
    report: int
    now: float
    damage: list[Finding]


class Rebuilt(NamedTuple):
    """Rows to write: those of each damaged run, by its number, and newer ones of single streams."""

    salvaged: dict[int, list[bytes]]
    newer: dict[str, bytes]
    findings: list[Finding]


def rebuild(ground: Ground) -> Rebuilt:
    """All rows that have to be written. O(rows). Raises ``OSError``."""
    return _Rebuilding(ground).run()


class _Rebuilding:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._made = Rebuilt({}, {}, [])
        self._moved = [Rows(segment) for segment in ground.moved]
        self._there = {segment.number for segment in ground.clustered}
        self._all: list[Rows] | None = None
        self._forks: Counter[int] | None = None

    def run(self) -> Rebuilt:
        for depth, layer in enumerate(self._ground.layers):
            if isinstance(layer, SalvagedRun):
                self._made.salvaged[layer.number] = [*layer.rows.values(), *self._tombstones(layer)]
                self._replace_lost(depth, layer)
        self._look_through()
        self._revive()
        return self._made

    def _tombstones(self, layer: SalvagedRun) -> Iterator[bytes]:
        for name, entry in layer.lost.items():
            if entry.tombstone:
                yield encode_row(name, entry.number, encode_tombstone(self._ground.lsn), tombstone=True)

    def _replace_lost(self, depth: int, layer: SalvagedRun) -> None:
        for name, entry in layer.lost.items():
            if entry.tombstone or entry.number in self._ground.created or self._known(name, depth):
                continue
            self._make(name, entry, self._older(name, depth, entry.number), run_name(layer.number))

    def _look_through(self) -> None:
        """Rows that name what is gone, and rows of which newer ones may have been lost."""
        suspect = False
        for depth, layer in enumerate(self._ground.layers):
            for row in _rows(layer):
                if row.tombstone or row.name in self._made.newer or self._known(row.name, depth):
                    continue
                if suspect:
                    entry = NameEntry(row.name, row.number, False, row.hidden, row.deadline)
                    self._make(row.name, entry, row, "a run of the catalog")
                elif gone := self._gone(row):
                    self._made.newer[row.name] = self._relocated(row, gone)
            suspect = suspect or (isinstance(layer, SalvagedRun) and (not layer.complete))

    def _gone(self, row: Row) -> frozenset[int]:
        """The clustered segments that a row names and that do not count any more."""
        places = (place for _, _, place in places_of(needed_of(row.payload).places))
        return frozenset(map(clustered_segment, filter(is_clustered, places))) - self._there

    def _relocated(self, row: Row, gone: frozenset[int]) -> bytes:
        state, lsn = decode_state(row.name, row.number, row.payload, _stub)
        places = [place for rows in self._moved for place in rows.of(row.number)]
        index = relocated(state.index, gone, places)
        self._note_losses(state, index)
        state.index = marked(index, self._ground.report, 0 if state.forks else state.first)
        return encode_row(row.name, row.number, encode_state(state, lsn), hidden=row.hidden, deadline=row.deadline)

    def _note_losses(self, state: StreamState, index: bytearray) -> None:
        """What is to blame for what ``index`` has lost of that of ``state``."""
        before = list(places_of(state.index))
        for start, end, place in lost_in(index, state.first):
            held = [old for begin, stop, old in before if begin < end and start < stop and is_clustered(old)]
            if place or not held:
                continue
            file = cluster_name(clustered_segment(held[0]))
            found = [one for one in self._ground.damage if one.file == file]
            whose = f"(stream number {state.number})"
            exact = [one for one in found if one.reason.endswith(whose) and one.start < end and start < one.end]
            cause = (exact or found or [Finding("damage", file, 0, MISSING)])[0]
            reason = cause.reason.removesuffix(f" {whose}")
            self._made.findings.append(Finding("lost", file, cause.position, reason, state.name, start, end))

    def _make(self, name: str, entry: NameEntry, older: Row | None, file: str) -> None:
        """A row for a stream whose newest one is lost."""
        ground = self._ground
        places = sorted(place for rows in self._rows_of_all() for place in rows.of(entry.number))
        if older is None:
            state = StreamState(entry.number, name, StreamConfig(UNKNOWN_TYPE), 0)
            lsn, start = ground.lsn, places[0][0] if places else 0
            state.first = start
        else:
            state, lsn = decode_state(name, older.number, older.payload, _stub)
            start = start_of(state.index)
            if state.expiry is not None:
                state.expiry.renew(ground.now)  # nobody knows when it was used last
        end = max((stop for _, stop, _ in places), default=start)
        known = end_of(state.index) if older is not None else start
        state.index = marked(index_of(start, max(end, known), places), ground.report, state.first)
        state.durable = state.tail = max(end, state.durable)
        state.durable_closed, state.gone = True, entry.hidden
        state.forks = max(state.forks, self._forks_of(entry.number))
        self._made.newer[name] = encode_stream(state, lsn)
        reason = "the newest row of the stream is lost: it is closed, as nobody knows what it may accept"
        if older is None and entry.deadline != NEVER:
            reason += ", and does not expire, as nobody knows whether its use would put that off"
        if older is None and start:
            reason += (
                f"; bytes before {start}, if it had any, trimmed or those of a stream that it was forked from, are lost"
            )
        self._made.findings.append(Finding("closed", file, 0, reason, name, state.first, state.tail))

    def _revive(self) -> None:
        """Streams that have bytes and no name. Only where a row may be missing: else they were deleted."""
        damaged = [layer for layer in self._ground.layers if isinstance(layer, SalvagedRun)]
        if all(layer.complete for layer in damaged):
            return
        held = {number for segment in self._ground.clustered for number in segment.streams()[0] if number}
        numbers = (held | self._ground.logged) - self._ground.created.keys() - self._ground.deleted - self._numbers()
        unnamed = {number for layer in damaged for number in layer.unnamed}
        for number in sorted(numbers):
            name = f"{REVIVED}{number}"
            self._make(name, NameEntry(name, number, False, False, NEVER), None, "a run of the catalog")
            known = "its name is lost" if number in unnamed else "its name is lost, if it was not deleted"
            self._made.findings.append(Finding("revived", "a run of the catalog", 0, known, name))

    def _numbers(self) -> set[int]:
        known = {row.number for layer in self._ground.layers for row in _rows(layer)}
        for layer in self._ground.layers:
            if isinstance(layer, SalvagedRun):
                known.update(entry.number for entry in layer.lost.values())
        return known

    def _known(self, name: str, depth: int) -> bool:
        """Whether a newer run has the last word on a name."""
        return any(_has(layer, name) for layer in self._ground.layers[:depth])

    def _older(self, name: str, depth: int, number: int) -> Row | None:
        for layer in self._ground.layers[depth + 1 :]:
            row = _row(layer, name)
            if row is not None:
                return row if row.number == number and not row.tombstone else None
        return None

    def _rows_of_all(self) -> list[Rows]:
        if self._all is None:
            self._all = [Rows(segment) for segment in self._ground.clustered]
        return self._all

    def _forks_of(self, number: int) -> int:
        """How many streams say that they are forks of it; those that the log creates are counted when it is opened."""
        if self._forks is None:
            self._forks = Counter()
            for depth, layer in enumerate(self._ground.layers):
                for row in _rows(layer):
                    if row.tombstone or row.number in self._ground.created or self._known(row.name, depth):
                        continue
                    fork = decode_state(row.name, row.number, row.payload, _stub).state.fork
                    if fork is not None:
                        self._forks[fork.source.number] += 1
        return self._forks[number]


Holes = dict[int, list[tuple[int, int, int]]]


def holes_in(runs: Sequence[Run]) -> Holes:
    """What rows say to be lost of what is needed, by the stream's number: start, end and report, 0 if no repair knows
    it yet. ``runs`` are newest first. O(rows). Raises :class:`Corruption`, ``OSError``.
    """
    holes: Holes = {}
    for depth, run in enumerate(runs):
        for row in run.rows():
            if not row.tombstone:
                lost = list(lost_in(*needed_of(row.payload)))
                if lost and not any(_has(layer, row.name) for layer in runs[:depth]):
                    holes[row.number] = lost
    return holes


def losses(runs: Sequence[Run]) -> Iterator[tuple[str, int, int, int]]:
    """Name, start, end and report of all bytes that rows say to be lost, of forks also what they have from others.

    ``runs`` are newest first. O(rows). Raises :class:`Corruption`, ``OSError``.
    """
    holes = holes_in(runs)
    if not holes:
        return
    for depth, run in enumerate(runs):
        for row in run.rows():
            if row.tombstone or row.hidden or any(_has(layer, row.name) for layer in runs[:depth]):
                continue
            if row.number in holes or source_of(row.payload, row.number):
                state = decode_state(row.name, row.number, row.payload, _stub).state
                yield from ((row.name, *each) for each in _lost_of(state, holes))


def _lost_of(state: StreamState, holes: Holes) -> Iterator[tuple[int, int, int]]:
    for piece in pieces(state, state.first, state.tail):
        for start, end, report in holes.get(piece.owner.number, ()):
            if start < piece.end and piece.start < end:
                yield max(start, piece.start), min(end, piece.end), report


def names_in(runs: Sequence[Run]) -> Iterator[str]:
    """The names that have a stream by the newest of their rows; ``runs`` are newest first. O(rows)."""
    for depth, run in enumerate(runs):
        for row in run.rows():
            if not row.tombstone and not any(_has(layer, row.name) for layer in runs[:depth]):
                yield row.name


def _rows(layer: Run | SalvagedRun) -> Iterator[Row]:
    if isinstance(layer, Run):
        return layer.rows()
    return (decode_row(row, 0) for row in layer.rows.values())


def _row(layer: Run | SalvagedRun, name: str) -> Row | None:
    if isinstance(layer, Run):
        return layer.find(hash_of(name), name)
    row = layer.rows.get(name)
    return None if row is None else decode_row(row, 0)


def _has(layer: Run | SalvagedRun, name: str) -> bool:
    return _row(layer, name) is not None or (isinstance(layer, SalvagedRun) and name in layer.lost)


def _stub(number: int) -> StreamState:
    return StreamState(number, "", StreamConfig(), 0)
