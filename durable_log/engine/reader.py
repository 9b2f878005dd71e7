"""Reading durable bytes.

Law of this room: any thread, no lock. A read takes the watermark first and never looks beyond it; what is still in
memory comes from there, the rest from the segments by the index, verified. Bytes that do not verify are never
returned: a read ends before them, and one that starts at them raises :class:`Corruption`.
"""

from __future__ import annotations

from durable_log.engine.ancestry import Piece, pieces
from durable_log.engine.catalog import StreamState
from durable_log.engine.format import position_of
from durable_log.engine.index import Run
from durable_log.engine.recent import read_recent
from durable_log.engine.segment import LogSegment, segment_name
from durable_log.errors import Corruption, OffsetOutOfRange
from durable_log.model import NOW, Chunk


def read(state: StreamState, segments: dict[int, LogSegment], offset: int, limit: int) -> Chunk:
    """At most ``limit`` bytes from ``offset``. Raises :class:`OffsetOutOfRange`, :class:`Corruption`, ``OSError``."""
    closed, offset, end = _bounds(state, offset, limit)
    found: list[bytes] = []
    for piece in pieces(state, offset, end):
        data = read_recent(*piece)
        if data is None:
            data = _read_segments(piece, segments, first=not found)
        found.append(data)
        if len(data) < piece.end - piece.start:
            break
    return _chunk(state, found[0] if len(found) == 1 else b"".join(found), offset, closed)


def read_from_memory(state: StreamState, offset: int, limit: int) -> Chunk | None:
    """Like :func:`read`, but None where it would have to read a file."""
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


def _read_segments(piece: Piece, segments: dict[int, LogSegment], *, first: bool) -> bytes:
    """As much of ``piece`` as verifies; raises what is wrong with it if that is nothing and it comes ``first``."""
    found: list[bytes] = []
    for run in piece.owner.index.runs(piece.start, piece.end):
        start, end = max(piece.start, run.offsets[0]), min(piece.end, run.offsets[-1])
        data = _read_run(piece.owner, segments, run, start, end)
        if isinstance(data, Corruption):
            if first and not found:
                raise data
            break
        found.append(data)
        if len(data) < end - start:
            break
    return b"".join(found)


def _read_run(
    state: StreamState, segments: dict[int, LogSegment], run: Run, first: int, last: int
) -> bytes | Corruption:
    segment = segments.get(run.segment)
    if segment is None:
        reason = f"stream bytes {first} to {last} were acknowledged and are lost"
        return Corruption("the log", position_of(run.positions[0]), reason, name=state.name)
    found = segment.file.gather(segment.nonce, state.number, run.positions, run.offsets, (first, last))
    if isinstance(found, bytes):
        return found
    if run.offsets[found] > first:
        whole = Run(run.segment, run.positions[:found], run.offsets[: found + 1])
        return _read_run(state, segments, whole, first, run.offsets[found])
    reason = f"the record at offset {run.offsets[found]} fails its checksum"
    return Corruption(segment_name(run.segment), run.positions[found], reason, name=state.name)
