"""One stream in memory.

Law of this room: plain fields. ``tail``, ``closed``, ``deleted``, ``trimmed``, ``forks``, ``producers`` and
``last_seq`` are what admission sees; they run ahead of the disk during a commit and belong to the holder of the commit
lock. ``durable``, ``durable_closed``, ``gone`` and ``first`` follow once the sync has returned, and with ``index`` and
``recent`` they are all that readers see. Only ``expiry`` may be moved by readers, and only forwards.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

from durable_log.engine.ancestry import Fork
from durable_log.engine.index import LOST, add_place, new_index
from durable_log.engine.untracked import untrack
from durable_log.model import StreamConfig, StreamInfo

TOUCH_SECONDS_MIN: Final = 60.0
LET_GO: Final = -1
"""The epoch of a state that is not in memory any more, for those who still hold it."""
OFFSET_MAX: Final = 2**63 - 1

Watcher = tuple[Any, Any]


@lru_cache(maxsize=1024)
def shared_config(content_type: str, ttl: int | None, expires_at: float | None) -> StreamConfig:
    """One object for streams that are configured alike, as most are."""
    return StreamConfig(content_type, ttl, expires_at)


def touch_interval(ttl: float) -> float:
    """How much of a sliding TTL's renewal may be lost in a crash, in seconds."""
    return max(ttl / 8, TOUCH_SECONDS_MIN)


class ProducerState:
    """The last accepted claim of one producer on one stream. ``number`` stands for its id in frames.

    A stream's producers are keyed by id, in the order of their numbers; one whose id was lost, by its number.
    """

    __slots__ = ("epoch", "number", "seq")

    def __init__(self, number: int, epoch: int, seq: int) -> None:
        self.number, self.epoch, self.seq = number, epoch, seq


class Expiry:
    """When a stream expires: at ``deadline``, in seconds since the epoch.

    A sliding ``ttl`` counts from ``touched``, the last use; ``saved`` is the last use that the log knows of.
    """

    __slots__ = ("deadline", "saved", "touched", "ttl")

    def __init__(self, config: StreamConfig, touched: float) -> None:
        untrack(self)
        self.ttl = config.ttl
        self.touched = self.saved = touched
        self.deadline = math.inf if config.expires_at is None else config.expires_at
        if self.ttl is not None:
            self.deadline = touched + self.ttl

    def renew(self, now: float) -> None:
        """Have a sliding TTL begin anew at ``now``; never earlier than it does already."""
        if self.ttl is not None and now >= self.touched:
            self.touched = now
            self.deadline = now + self.ttl

    def touch(self, now: float) -> bool:
        """Note a use. True if it should be persisted: at most every eighth of the TTL or minute, the longer of them."""
        if self.ttl is None:
            return False
        self.renew(now)
        return now - self.saved >= touch_interval(self.ttl)


class StreamState:
    """One life of one name. ``epoch`` is that of the last change since its row in the catalog; 0 if there is none."""

    __slots__ = (
        "closed",
        "config",
        "created_ms",
        "deleted",
        "durable",
        "durable_closed",
        "epoch",
        "expiry",
        "first",
        "fork",
        "forks",
        "gone",
        "index",
        "last_seq",
        "name",
        "number",
        "pins",
        "producers",
        "recent",
        "tail",
        "trimmed",
        "watchers",
    )

    def __init__(
        self, number: int, name: str, config: StreamConfig, created_ms: int, fork: Fork | None = None,
        index: bytearray | None = None,
    ) -> None:  # fmt: skip
        untrack(self)
        self.number, self.name, self.created_ms, self.fork = number, name, created_ms, fork
        self.config = shared_config(*config)
        self.epoch = self.pins = self.forks = 0
        base = 0 if fork is None else fork.base
        self.tail = self.durable = base
        self.trimmed: int = 0 if fork is None else fork.source.trimmed
        self.first = self.trimmed
        self.closed = self.deleted = self.durable_closed = self.gone = False
        self.last_seq: str | None = None
        self.producers: dict[str | int, ProducerState] | None = None
        self.index = new_index(base) if index is None else index
        self.recent: bytearray | None = None
        self.watchers: dict[Watcher, None] | None = None
        self.expiry: Expiry | None = None
        if config.ttl is not None or config.expires_at is not None:
            self.expiry = Expiry(self.config, created_ms / 1000)

    @property
    def deadline(self) -> float:
        """When the stream expires, in seconds since the epoch; infinity if never."""
        return math.inf if self.expiry is None else self.expiry.deadline

    def info(self) -> StreamInfo:
        """What readers may know of it."""
        config, fork = self.config, self.fork
        return StreamInfo(
            self.name, self.number, config.content_type, self.durable, self.durable_closed, config.ttl,
            config.expires_at, self.created_ms / 1000, self.first, fork and fork.source.name, fork and fork.base,
        )  # fmt: skip


def lost_ancestor(number: int) -> StreamState:
    """What stands for an ancestor that has no row: the log is about to say that its fork is gone, too; or else the
    bytes that the fork had of it are lost.
    """
    state = StreamState(number, "", StreamConfig(), 0)
    add_place(state.index, OFFSET_MAX, LOST)
    state.tail = state.durable = OFFSET_MAX
    return state
