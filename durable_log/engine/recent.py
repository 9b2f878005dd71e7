"""The last bytes of active streams, in memory once for all viewers.

Law of this room: the holder of the commit lock appends and evicts; readers on any thread take ``state.recent`` in one
load. It is a bytearray: the offset of its first byte in 8 bytes, then the bytes; one object a stream, which the garbage
collector does not visit. Bytes are only ever added at its end; eviction puts another one in its place. Readers never
look beyond the durable tail. No I/O.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from durable_log.engine.state import StreamState
from durable_log.engine.untracked import untrack

_START: Final = struct.Struct("<Q")
_HEAD: Final = _START.size

Entry = tuple[StreamState, int, int, bytes]
"""Data that was accepted: stream, offset, position of its frame in the block's body, payload."""


class RecentBytes:
    """A budget of ``total_max`` bytes over all streams, least recently appended to evicted first. Of each, the last
    ``stream_max`` are kept, or all if it has no more, and never more than twice as many.
    """

    def __init__(self, total_max: int, stream_max: int) -> None:
        self._total_max, self._stream_max = total_max, stream_max
        self._room = bytes(stream_max)
        self._order: OrderedDict[StreamState, None] = OrderedDict()
        self.total = 0

    def __len__(self) -> int:
        return len(self._order)

    def add(self, entries: Iterable[Entry]) -> int:
        """Bytes that were appended; returns how many. Amortised O(bytes)."""
        used, large, total = self._order.move_to_end, 2 * self._stream_max, 0
        for state, offset, _, data in entries:
            recent = state.recent
            if recent is None:
                if len(data) > large:
                    self._renew(state, bytearray(_START.pack(offset)), data)
                else:
                    state.recent = bytearray(_START.pack(offset) + data)
                self._order[state] = None
                untrack(self._order)
            else:
                used(state)
                if len(recent) - _HEAD + len(data) > large:
                    self._renew(state, recent, data)
                else:
                    recent += data
            total += len(data)
        self.total += total
        while self.total > self._total_max and self._order:
            self.drop(next(iter(self._order)))
        return total

    def drop(self, state: StreamState) -> None:
        """Forget the bytes of a stream."""
        if state.recent is not None:
            self.total -= len(state.recent) - _HEAD
            state.recent = None
            del self._order[state]

    def _renew(self, state: StreamState, recent: bytearray, data: bytes) -> None:
        """The last ``stream_max`` bytes of both, in another place, which has room for as many again: to grow into it
        step by step would copy them eight times. Both together are more.
        """
        surplus = len(recent) - _HEAD + len(data) - self._stream_max
        start = _START.pack(start_of(recent) + surplus)
        kept = memoryview(recent)[_HEAD + surplus :], data[-self._stream_max :]
        renewed = bytearray().join((start, *kept, self._room))
        del renewed[-self._stream_max :]
        state.recent = renewed
        self.total -= surplus


def start_of(recent: bytearray) -> int:
    """The offset of the first byte that is in memory."""
    start: int = _START.unpack_from(recent)[0]
    return start


def read_recent(state: StreamState, start: int, end: int) -> bytes | None:
    """The stream bytes ``start`` to ``end`` if all of them are in memory, else None. Any thread."""
    recent = state.recent
    if recent is None:
        return None
    first = start_of(recent)
    if start < first:
        return None
    return bytes(recent[_HEAD + start - first : _HEAD + end - first])
