"""Reading durable bytes.

Law of this room: any thread, no lock. A read takes the watermark first and never looks beyond it; what is still in
memory comes from there, the rest from the files by the index, verified. Bytes that do not verify are never returned: a
read ends before them, and one that starts at them raises :class:`Corruption`. Clustering may move bytes while they are
read; then the index is another object afterwards, and the read begins anew. So it does if a trim has overtaken it.
"""

from __future__ import annotations

import errno

from durable_log.engine.ancestry import Piece, owner_at, pieces
from durable_log.engine.cluster import ROW_SIZE, ClusteredSegment, Row, cluster_name
from durable_log.engine.format import position_of
from durable_log.engine.gather import gather
from durable_log.engine.index import (
    ClusteredRun,
    Run,
    clustered_row,
    clustered_segment,
    end_of,
    is_clustered,
    place_at,
    runs_of,
    start_of,
)
from durable_log.engine.quarantine import report_name
from durable_log.engine.recent import read_recent
from durable_log.engine.segment import LogSegment, segment_name
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption, OffsetOutOfRange
from durable_log.model import NOW, Chunk


class Reader:
    """Reads from the open files of a store. The tables are the engine's own; entries come and go."""

    def __init__(self, segments: dict[int, LogSegment], clustered: dict[int, ClusteredSegment]) -> None:
        self.segments, self.clustered = segments, clustered

    def close(self) -> None:
        """Close all files."""
        for segment in self.segments.values():
            segment.close()
        for clustered in self.clustered.values():
            clustered.close()

    def read(self, state: StreamState, offset: int, limit: int) -> Chunk:
        """At most ``limit`` bytes. Raises :class:`OffsetOutOfRange`, :class:`Corruption`, ``OSError``."""
        while True:
            closed, start, end = _bounds(state, offset, limit)
            found: list[bytes] = []
            try:
                for piece in pieces(state, start, end):
                    data = read_recent(*piece)
                    if data is None:
                        data = self._read_piece(piece, first=not found)
                    found.append(data)
                    if len(data) < piece.end - piece.start:
                        break
            except (OSError, Corruption):
                if start < state.first:
                    continue  # a trim came between, and whoever gives space back did not know of this read
                raise
            return _chunk(state, found[0] if len(found) == 1 else b"".join(found), start, closed)

    def record_bounds(self, state: StreamState, offset: int, *, wait: bool = True) -> tuple[int, int]:
        """Where the record that holds the byte at ``offset`` starts and ends, as far as the stream has it.

        Without ``wait``, raises ``BlockingIOError`` where a file would have to be read.
        """
        owner, base, limit = owner_at(state, offset)
        while True:
            index = owner.index
            start, end, place = place_at(index, offset)
            if is_clustered(place) and not wait:
                raise BlockingIOError(errno.EAGAIN, "the bounds of the record are not in memory")
            try:
                if is_clustered(place):
                    named = ClusteredRun(clustered_segment(place), clustered_row(place), start, end)
                    segment = self._clustered(named.segment)
                    start, end = segment.record_bounds(_row(segment, owner, named), offset)
                return max(base, start), min(limit, end)
            except (OSError, Corruption):
                if owner.index is index:
                    raise

    def _clustered(self, number: int) -> ClusteredSegment:
        segment = self.clustered.get(number)
        if segment is None:
            raise Corruption(cluster_name(number), 0, "the file is not open any more")
        return segment

    def _read_piece(self, piece: Piece, *, first: bool) -> bytes:
        """As much of ``piece`` as verifies; raises what is wrong with it if that is nothing and it comes ``first``."""
        while True:
            index = piece.owner.index
            found: list[bytes] = []
            wrong: Corruption | OSError | None
            try:
                wrong = self._collect(piece, runs_of(index, piece.start, piece.end), found)
            except OSError as error:
                wrong = error
            if wrong is not None and piece.owner.index is not index:
                continue  # the file was closed under the read, or is another one's by now
            if wrong is not None and first and not found:
                raise wrong
            return found[0] if len(found) == 1 else b"".join(found)

    def _collect(self, piece: Piece, runs: list[Run | ClusteredRun], found: list[bytes]) -> Corruption | None:
        for run in runs:
            if isinstance(run, ClusteredRun):
                start, end = run.start, run.end
                data = self._read_clustered(piece.owner, run)
            else:
                start, end = max(piece.start, start_of(run.entries)), min(piece.end, end_of(run.entries))
                data = self._read_log(piece.owner, run, start, end)
            if isinstance(data, Corruption):
                return data
            found.append(data)
            if len(data) < end - start:
                return Corruption(
                    "the log", 0, f"bytes {start + len(data)} to {end} do not verify", name=piece.owner.name
                )
        return None

    def _read_clustered(self, state: StreamState, run: ClusteredRun) -> bytes | Corruption:
        try:
            segment = self._clustered(run.segment)
            return segment.read(_row(segment, state, run), run.start, run.end)
        except Corruption as error:
            return Corruption(error.file, error.position, error.reason, name=state.name)

    def _read_log(self, state: StreamState, run: Run, first: int, last: int) -> bytes | Corruption:
        segment = self.segments.get(run.segment)
        start, _, place = place_at(run.entries, first)
        if segment is None:
            reason = f"stream bytes {first} to {last} were acknowledged and are lost"
            lost_in = report_name(place) if run.segment == 0 and place else "the log"
            return Corruption(lost_in, 0 if run.segment == 0 else position_of(place), reason, name=state.name)
        found = gather(segment.file, segment.nonce, state.number, run.entries, first, last)
        if found:
            return found
        reason = f"the record at offset {start} fails its checksum"
        return Corruption(segment_name(run.segment), position_of(place), reason, name=state.name)


def _row(segment: ClusteredSegment, state: StreamState, run: ClusteredRun) -> Row:
    """The row that an index names. Another one of the same file may have come to its place: it verifies there, too."""
    row = segment.row(run.row)
    if row.stream != state.number or not row.start <= run.start < run.end <= row.end:
        position = segment.trailer.rows_position + run.row * ROW_SIZE
        raise Corruption(segment.file.name, position, f"the row is one of stream number {row.stream} from {row.start}")
    return row


def read_from_memory(state: StreamState, offset: int, limit: int) -> Chunk | None:
    """Like ``Reader.read``, but None where it would have to read a file. Any thread."""
    closed, offset, end = _bounds(state, offset, limit)
    found = []
    for piece in pieces(state, offset, end):
        data = read_recent(*piece)
        if data is None:
            return None
        found.append(data)
    return _chunk(state, found[0] if len(found) == 1 else b"".join(found), offset, closed)


def _bounds(state: StreamState, offset: int, limit: int) -> tuple[bool, int, int]:
    # Closure is set after the last watermark: if it is seen here, the tail below is final.
    closed = state.durable_closed
    tail, first = state.durable, state.first
    if offset < 0:
        offset = tail if offset == NOW else first
    if not first <= offset <= tail:
        raise OffsetOutOfRange(state.name, offset, first, tail)
    return closed, offset, min(tail, offset + limit)


def _chunk(state: StreamState, data: bytes, offset: int, closed: bool) -> Chunk:
    end = offset + len(data)
    up_to_date = end >= state.durable
    return Chunk(data, offset, end, up_to_date, closed and up_to_date, state.config.content_type)
