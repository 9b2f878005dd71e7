"""Which streams may have expired.

Law of this room: it finds them and decides nothing; they are deleted by ordinary requests, which look again. Streams in
memory wait in a queue by deadline. All others are found by the deadlines in their rows; such a deadline may be older
than the stream's, never younger. Any thread may use the queue, one at a time the dormant ones, and never beside a
compaction, which closes runs.
"""

from __future__ import annotations

import heapq
import math
import threading
from collections.abc import Iterator
from itertools import count
from typing import Final

from durable_log.engine.catalog import Catalog
from durable_log.engine.run_format import NEVER
from durable_log.engine.state import LET_GO, StreamState

EXPIRY_GONE_MIN: Final = 64


class ExpiryQueue:
    """Streams by the moment that they may expire at. A deadline that has moved is noticed when it comes up."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._heap: list[tuple[float, int, StreamState]] = []
        self._entries = count()
        """Orders entries of one deadline. A stream's number would not: when it has left memory and come back, what is
        left of its last stay has the same, and states have no order.
        """
        self._gone = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, state: StreamState) -> None:
        """Watch a stream that has a deadline. O(log n)."""
        if state.deadline != math.inf:
            with self._mutex:
                self._push(state.deadline, state)

    def removed(self, state: StreamState) -> None:
        """A stream is gone, or not in memory any more. Amortised O(1)."""
        if state.deadline == math.inf:
            return
        with self._mutex:
            self._gone += 1
            if self._gone > EXPIRY_GONE_MIN and 2 * self._gone > len(self._heap):
                self._heap = [entry for entry in self._heap if not (entry[2].gone or entry[2].epoch == LET_GO)]
                heapq.heapify(self._heap)
                self._gone = 0

    def due(self, now: float) -> list[StreamState]:
        """The streams that have expired by ``now``; they stay in the queue until they are gone."""
        found = []
        with self._mutex:
            while self._heap and self._heap[0][0] <= now:
                state = heapq.heappop(self._heap)[2]
                if state.gone or state.epoch == LET_GO:
                    continue
                if state.deadline <= now:
                    found.append(state)
                else:
                    self._push(state.deadline, state)
            for state in found:
                self._push(now + 60, state)
        return found

    def _push(self, moment: float, state: StreamState) -> None:
        heapq.heappush(self._heap, (moment, next(self._entries), state))


class Dormant:
    """The streams of the catalog's runs, resident or not."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._looked: dict[int, tuple[int, int]] = {}
        """Of each run: before when deadlines were looked for, and when the next one comes, in milliseconds."""

    def due(self, now: float) -> Iterator[list[tuple[str, int]]]:
        """Name and number of those whose row says that they have expired by ``now``, each once. A run is only read when
        one of its deadlines has come. Raises :class:`Corruption`, ``OSError``.
        """
        now_ms, runs = int(now * 1000), self._catalog.runs
        self._looked = {run.number: self._looked.get(run.number, (0, run.min_deadline)) for run in runs}
        for run in runs:
            from_ms, next_ms = self._looked[run.number]
            if next_ms <= now_ms:
                following = NEVER
                for streams, following in run.due(from_ms, now_ms):  # noqa: B007 - the last one tells of all
                    yield streams
                self._looked[run.number] = now_ms + 1, following
