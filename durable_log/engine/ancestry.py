"""Forks: who holds their inherited bytes, and who has to stay for them.

Law of this room: nothing is copied. A fork names its source and, as one flat list however deep forks nest, the streams
that hold the bytes below its own. A stream that is deleted while forks of it exist is kept for them, out of sight, and
goes with the last of them; that may free its own source in turn (PROTOCOL.md §4.2). Pure but for ``forks``, the count
that the holder of the commit lock keeps; rows of the catalog store it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from durable_log.engine.state import StreamState


class Fork(NamedTuple):
    """Where a stream comes from: ``source`` up to ``base``; each of ``ancestors`` holds the bytes below its offset."""

    source: StreamState
    base: int
    ancestors: tuple[tuple[StreamState, int], ...]


class Piece(NamedTuple):
    """The bytes ``start`` to ``end`` of a stream are those of ``owner``."""

    owner: StreamState
    start: int
    end: int


def fork_from(source: StreamState, base: int) -> Fork:
    """A fork that leaves ``source`` at ``base``. O(depth)."""
    return Fork(source, base, tuple((piece.owner, piece.end) for piece in pieces(source, 0, base)))


def pieces(state: StreamState, start: int, end: int) -> Iterator[Piece]:
    """Who holds the bytes ``start`` to ``end``, in order; nothing if there are none."""
    if state.fork is not None:
        for owner, limit in state.fork.ancestors:
            if start < min(limit, end):
                yield Piece(owner, start, min(limit, end))
                start = min(limit, end)
    if start < end:
        yield Piece(state, start, end)


def owner_at(state: StreamState, offset: int) -> Piece:
    """Whose byte the one at ``offset`` is, and what ``state`` has of that stream."""
    base = 0
    for owner, limit in () if state.fork is None else state.fork.ancestors:
        if offset < limit:
            return Piece(owner, base, limit)
        base = limit
    return Piece(state, base, state.tail)


def leave(state: StreamState, set_forks: Callable[[StreamState, int], None]) -> list[StreamState]:
    """``state`` goes for good: it, and the deleted sources that were kept for nobody else. Counts are told to
    ``set_forks``.
    """
    leaving = [state]
    while leaving[-1].fork is not None:
        source = leaving[-1].fork.source
        set_forks(source, source.forks - 1)
        if not source.deleted or source.forks:
            break
        leaving.append(source)
    return leaving
