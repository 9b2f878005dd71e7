"""The streams in memory, by name and in the order of their names.

Law of this room: a stream is in memory or it is not, whenever an interrupt comes: who looks one up asks a dict, which
changes in one step. The order is kept beside it and may be lost by an interrupt; whoever asks for it then makes it
anew. Changed and listed with the catalog's lock held; any thread may look up.
"""

from __future__ import annotations

from sortedcontainers import SortedList

from durable_log.engine.state import StreamState
from durable_log.engine.untracked import untrack


class Residents(dict[str, StreamState]):
    """States by name. To be changed by ``enter`` and ``leave`` only."""

    def __init__(self) -> None:
        super().__init__()
        self._names: SortedList[str] | None = SortedList()
        """None while it is changed, and from an interrupt in that on."""

    def enter(self, state: StreamState) -> None:
        """A stream that is in memory from here on, or another one of its name. O(log n)."""
        names, self._names = self._names, None
        if names is not None and state.name not in self:
            names.add(state.name)
        self[state.name] = state
        untrack(self)
        self._names = names

    def leave(self, state: StreamState) -> None:
        """A stream that no longer is. O(log n)."""
        names, self._names = self._names, None
        if names is not None:
            names.remove(state.name)
        del self[state.name]
        self._names = names

    def page(self, prefix: str, after: str, limit: int) -> list[StreamState]:
        """The first ``limit`` with that prefix beyond ``after``."""
        if self._names is None:
            self._names = SortedList(self)
        states: list[StreamState] = []
        for name in self._names.irange(max(prefix, after), inclusive=(after < prefix, False)):
            if len(states) == limit or not name.startswith(prefix):
                break
            states.append(self[name])
        return states

    def check(self) -> None:
        """Raises ``AssertionError`` unless both are of the same names. For tests."""
        assert self._names is None or list(self._names) == sorted(self)
