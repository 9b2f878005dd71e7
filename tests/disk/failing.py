"""Syncs that fail: what the disk keeps of what they were to cover, what the page cache shows of it, and for ever.

Law of this room: one call of a script's disk fails, the n-th sync of a file or of the directory. All chance comes from
a seed. What is demanded afterwards is what was promised, whatever happened: nothing that was acknowledged is missing
from any image, and nothing that was not is shown by a store that goes on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from random import Random
from typing import Final, NamedTuple

import pytest
from expected import World
from media import SECTOR
from script import Script, WatchedDirectory

from durable_log.errors import CommitFailed, OffsetOutOfRange, StreamGone
from durable_log.model import Append

ERRORS: Final = (errno.EIO, errno.ENOSPC, errno.EDQUOT)
KEPT: Final = ("nothing", "all", "some")


class Failure(NamedTuple):
    """The ``number``-th sync fails with ``error``. Of a file, ``kept`` is how much of what it was to cover has reached
    the disk all the same; it is clean, and ``shown`` says whether the page cache goes on showing the rest. Of the
    directory, nothing is sure until another sync.
    """

    number: int
    error: int
    kept: str
    shown: bool

    def word(self) -> str:
        return f"{self.number},{errno.errorcode[self.error]},{self.kept},{'shown' if self.shown else 'dropped'}"

    @classmethod
    def of(cls, word: str) -> Failure:
        number, error, kept, shown = word.split(",")
        return cls(int(number), int(getattr(errno, error)), kept, shown == "shown")


class FailingDirectory(WatchedDirectory):
    """One of its syncs fails. ``random`` decides what ``some`` are."""

    def __init__(self, failure: Failure, random: Random) -> None:
        super().__init__()
        self.failure, self.random, self.syncs = failure, random, 0
        self.faults = self._count

    def _count(self, what: str, name: str) -> None:
        if what not in ("sync", "sync directory"):
            return
        self.syncs += 1
        if self.syncs != self.failure.number:
            return
        if what == "sync":
            self._lose_sectors(name)
        self.failed_at = len(self.trace)
        raise OSError(self.failure.error, os.strerror(self.failure.error), name)

    def _lose_sectors(self, name: str) -> None:
        file = self.files[name]
        kept = self._kept(self.media.dirty_sectors(file.inode))
        durable = len(self.media.durable(file.inode))
        length = {"nothing": durable, "all": None}.get(self.failure.kept, self.random.choice((durable, None)))
        if length is not None and not self.failure.shown:
            kept = frozenset(sector for sector in kept if sector * SECTOR < length)
        file.lose(kept, shown=self.failure.shown, length=length)

    def _kept(self, choices: Sequence[int]) -> frozenset[int]:
        if self.failure.kept == "some":
            return frozenset(choice for choice in choices if self.random.random() < 0.5)
        return frozenset(choices if self.failure.kept == "all" else ())


def assert_shows_only_what_is_sure(script: Script) -> None:
    """A store whose sync has failed shows what it acknowledged, all of it, and nothing else; and takes no changes."""
    store, world = script.store, script.steps[script.sure].world
    alive = {
        name: life
        for name, life in world.items()
        if not life.deleted and store.engine._catalog.live(name) is not None  # time may have passed before the sweep
    }
    assert all(life.deleted or life.ttl or life.expires_at for name, life in world.items() if name not in alive)
    for name, life in alive.items():
        chunk = store.stream(name).read(life.first, limit=2**22)
        assert (chunk.data, chunk.closed) == (life.content, life.closed), name
        with pytest.raises(OffsetOutOfRange):
            store.stream(name).read(life.tail + 1)
    for name, life in world.items():
        if life.deleted:
            with pytest.raises(StreamGone):
                store.stream(name).info()
    assert list(store.names()) == sorted(alive)


def assert_latched(script: Script) -> None:
    """The store takes no changes any more."""
    world: World = script.steps[script.sure].world
    for name in world:
        with pytest.raises(CommitFailed):
            script.store.engine.execute(Append(name, b"more"))
