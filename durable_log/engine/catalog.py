"""The directory of streams: names and numbers → state.

Law of this room: the catalog holds what is durable; a stream enters it when its CREATE is, and leaves it when its
DELETE is. Only the holder of the commit lock changes anything here, except that readers move ``touched`` forwards.
Readers on any thread may look names up and read the fields under "what readers see". No I/O.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from typing import Final

from sortedcontainers import SortedDict

from durable_log.engine.ancestry import Fork
from durable_log.engine.index import StreamIndex
from durable_log.model import StreamConfig, StreamInfo

TOUCH_SECONDS_MIN: Final = 60.0


class ProducerState:
    """The last accepted claim of one producer on one stream. ``number`` stands for its id in frames.

    A stream's producers are keyed by id, in the order of their numbers; one whose id was lost, by its number.
    """

    __slots__ = ("epoch", "number", "seq")

    def __init__(self, number: int, epoch: int, seq: int) -> None:
        self.number, self.epoch, self.seq = number, epoch, seq


class StreamState:
    """One life of one name.

    ``tail`` and ``closed`` run ahead of the disk during a commit; ``durable`` and ``durable_closed`` follow once the
    sync has returned, and are all that readers see. So with ``deleted`` and ``gone``; a stream that is both and still
    in the catalog is kept for its ``forks``.
    """

    __slots__ = (
        "closed",
        "config",
        "created_ms",
        "deadline",
        "deleted",
        "durable",
        "durable_closed",
        "first",
        "fork",
        "forks",
        "gone",
        "index",
        "last_seq",
        "name",
        "number",
        "producers",
        "recent",
        "tail",
        "touch_saved",
        "touched",
        "trimmed",
        "watchers",
    )

    def __init__(self, number: int, name: str, config: StreamConfig, created_ms: int, fork: Fork | None = None) -> None:
        self.number, self.name, self.config, self.created_ms, self.fork = number, name, config, created_ms, fork
        base = 0 if fork is None else fork.base
        # what admission sees
        self.tail = base
        self.trimmed: int = 0 if fork is None else fork.source.trimmed
        self.closed = self.deleted = False
        self.forks = 0
        self.last_seq: str | None = None
        self.producers: dict[str | int, ProducerState] | None = None
        # what readers see
        self.durable = base
        self.first = self.trimmed
        self.durable_closed = self.gone = False
        self.index = StreamIndex(base)
        self.recent: tuple[int, bytearray] | None = None
        self.watchers: list[Watcher] | None = None
        self.touched = self.touch_saved = created_ms / 1000
        self.deadline = math.inf if config.expires_at is None else config.expires_at
        """When the stream expires, in seconds since the epoch; infinity if never."""
        if config.ttl is not None:
            self.renew(self.touched)

    def renew(self, now: float) -> None:
        """Have a sliding TTL begin anew at ``now``; never earlier than it does already."""
        if self.config.ttl is not None and now >= self.touched:
            self.touched = now
            self.deadline = now + self.config.ttl

    def touch(self, now: float) -> bool:
        """Note a use. True if it should be persisted: at most every eighth of the TTL or minute, the longer of them."""
        if self.config.ttl is None:
            return False
        self.renew(now)
        return now - self.touch_saved >= touch_interval(self.config.ttl)

    def info(self) -> StreamInfo:
        """What readers may know of it."""
        config = self.config
        return StreamInfo(
            self.name, self.number, config.content_type, self.durable, self.durable_closed,
            config.ttl, config.expires_at, self.created_ms / 1000, self.first,
            None if self.fork is None else self.fork.source.name, None if self.fork is None else self.fork.base,
        )  # fmt: skip


Watcher = tuple[object, object]


def touch_interval(ttl: float) -> float:
    """How much of a sliding TTL's renewal may be lost in a crash, in seconds."""
    return max(ttl / 8, TOUCH_SECONDS_MIN)


class Catalog:
    """All streams of a store, in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._names: SortedDict[str, StreamState] = SortedDict()
        self._numbers: dict[int, StreamState] = {}
        self._listing = threading.Lock()
        """The names keep their order while somebody walks them."""
        self.next_number = 1

    def __len__(self) -> int:
        return len(self._names)

    def add(self, state: StreamState) -> None:
        """A stream whose CREATE is durable. O(log n)."""
        with self._listing:
            self._names[state.name] = state
        self._numbers[state.number] = state
        self.next_number = max(self.next_number, state.number + 1)

    def remove(self, state: StreamState) -> None:
        """A stream whose DELETE is durable. O(log n)."""
        state.gone = True
        self._numbers.pop(state.number, None)
        with self._listing:
            if self._names.get(state.name) is state:
                del self._names[state.name]

    def get(self, name: str) -> StreamState | None:
        """The stream of that name, expired or not. O(1)."""
        state: StreamState | None = self._names.get(name)
        return state

    def live(self, name: str) -> StreamState | None:
        """The stream of that name, unless it has expired; one that is kept for its forks stays what it is. O(1)."""
        state: StreamState | None = self._names.get(name)
        if state is None or (state.deadline != math.inf and not state.gone and state.deadline <= self._clock()):
            return None
        return state

    def by_number(self, number: int) -> StreamState | None:
        """The stream of that number. O(1)."""
        return self._numbers.get(number)

    def names(self, prefix: str) -> Iterator[str]:
        """The names of readable streams that start with ``prefix``, in order, as they were at the call."""
        now = self._clock()
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix and prefix[-1] != chr(0x10FFFF) else None
        with self._listing:
            found = list(self._names.irange(prefix, end, inclusive=(True, False)))
        return (name for name in found if name.startswith(prefix) and self._alive(name, now))

    def _alive(self, name: str, now: float) -> bool:
        state = self._names.get(name)
        return state is not None and not state.gone and state.deadline > now

    def states(self) -> Iterator[StreamState]:
        """All streams as they were at the call, expired ones included."""
        return iter(list(self._numbers.values()))

    def check(self) -> None:
        """Walk the invariants. Raises ``AssertionError``. For tests."""
        assert len(self._names) == len(self._numbers)
        for number, state in self._numbers.items():
            assert state.number == number < self.next_number
            assert self._names[state.name] is state
            assert 0 <= state.durable <= state.tail
            assert state.forks == sum(
                1 for other in self._numbers.values() if other.fork and other.fork.source is state
            )
            assert state.deleted == state.gone == (state.deleted and state.forks > 0), state.name
            assert not (state.durable_closed and not state.closed)
            if state.recent is not None:
                start, recent = state.recent
                assert start + len(recent) == state.tail
