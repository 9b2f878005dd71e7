"""How much of each clustered segment is still needed.

Law of this room: a count a file, changed by the holder of the commit lock when streams are removed or trimmed. It is a
reason to look, never a reason to drop: what a rewrite keeps is decided by the indexes of the streams. No I/O.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from durable_log.engine.index import clustered_segment, is_clustered, places_of
from durable_log.engine.manifest import ClusteredFile
from durable_log.engine.state import StreamState


class LiveBytes:
    """How much of each clustered segment is still needed. Changed with the commit lock held."""

    def __init__(self, files: Iterable[ClusteredFile]) -> None:
        self._live = Counter({file.number: file.live_bytes for file in files})

    def __getitem__(self, number: int) -> int:
        return self._live[number]

    def __setitem__(self, number: int, live: int) -> None:
        self._live[number] = live

    def counted(self, number: int, live: int) -> None:
        """Somebody has counted, while bytes may have become dead."""
        self._live[number] = min(self._live[number], live)

    def added(self, state: StreamState, places: Iterable[tuple[int, int, int]]) -> None:
        """The stream's index names these places from now on."""
        first = 0 if state.forks else state.first
        for start, end, place in places:
            self._live[clustered_segment(place)] += max(0, end - max(start, first))

    def moved(self, state: StreamState, first: int, last: int) -> None:
        """The stream's bytes from offset ``first`` to ``last`` are elsewhere from now on."""
        self._subtract(state, first if state.forks else max(first, state.first), last)

    def removed(self, states: Iterable[StreamState]) -> None:
        """The bytes of these streams are needed by nobody any more."""
        for state in states:
            self._subtract(state, state.first, state.tail)

    def trimmed(self, state: StreamState, before: int) -> None:
        """The stream's bytes from offset ``before`` to its first one are needed by nobody, unless it has forks."""
        if not state.forks:
            self._subtract(state, before, state.first)

    def _subtract(self, state: StreamState, first: int, last: int) -> None:
        for start, end, place in places_of(state.index):
            if is_clustered(place) and start < last and end > first:
                self._live[clustered_segment(place)] -= min(end, last) - max(start, first)
