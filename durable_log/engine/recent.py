"""The last bytes of active streams, in memory once for all viewers.

Law of this room: the holder of the commit lock appends and evicts; readers on any thread take ``state.recent``, a pair
of the offset that its bytes start at and the bytes, in one load. Bytes are only ever added at the end of the same
bytearray; eviction replaces the pair. Readers never look beyond the durable tail. No I/O.
"""

from __future__ import annotations

from collections import OrderedDict

from durable_log.engine.state import StreamState


class RecentBytes:
    """A budget of ``total_max`` bytes over all streams, least recently appended to evicted first, and of
    ``stream_max`` for each.
    """

    def __init__(self, total_max: int, stream_max: int) -> None:
        self._total_max, self._stream_max = total_max, stream_max
        self._order: OrderedDict[StreamState, None] = OrderedDict()
        self.total = 0

    def add(self, state: StreamState, offset: int, data: bytes) -> None:
        """Bytes that were appended at ``offset``. Amortised O(len(data))."""
        recent = state.recent
        if recent is None:
            state.recent = (offset, bytearray(data))
            self._order[state] = None
        else:
            recent[1].extend(data)
            self._order.move_to_end(state)
            if len(recent[1]) > 2 * self._stream_max:
                self._trim(state, recent[0], recent[1])
        self.total += len(data)
        if self.total > self._total_max:
            self._evict()

    def drop(self, state: StreamState) -> None:
        """Forget the bytes of a stream."""
        if state.recent is not None:
            self.total -= len(state.recent[1])
            state.recent = None
            del self._order[state]

    def _trim(self, state: StreamState, start: int, recent: bytearray) -> None:
        surplus = len(recent) - self._stream_max
        state.recent = (start + surplus, recent[surplus:])
        self.total -= surplus

    def _evict(self) -> None:
        while self.total > self._total_max and self._order:
            self.drop(next(iter(self._order)))


def read_recent(state: StreamState, start: int, end: int) -> bytes | None:
    """The stream bytes ``start`` to ``end`` if all of them are in memory, else None. Any thread."""
    recent = state.recent
    if recent is None or start < recent[0]:
        return None
    return bytes(recent[1][start - recent[0] : end - recent[0]])
