"""Small stores in memory whose every byte is known in advance, and what was acknowledged of each of their streams.

A clock that stands still, an identity that is given, no threads: the same calls make the same files. What a store has
to say is noted beside it, from the calls and not from the store.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, NamedTuple

import pytest
from twins import SMALL

from durable_log.engine import commit, keeper, log, manifest
from durable_log.engine.files import Directory, MemoryDirectory
from durable_log.engine.opening import open_in
from durable_log.errors import Corruption, StreamNotFound
from durable_log.model import Append, Create, Delete, Options, Producer, Request, StreamConfig, Trim
from durable_log.store import Store

NOW = 1_900_000_000.0
OPTIONS = replace(SMALL, cluster_at_close=False)
CLUSTERED_AT_CLOSE = replace(SMALL, cluster_at_close=True)
PAGE = 4096
Files = dict[str, bytes]


def quiet(monkeypatch: pytest.MonkeyPatch, uuid: bytes = bytes(range(16))) -> None:
    """Stores are opened without threads, and new ones have that identity. Callers commit for themselves."""
    monkeypatch.setattr(keeper.Background, "start", lambda background: None)
    monkeypatch.setattr(commit.Committer, "start", lambda committer: None)
    monkeypatch.setattr(manifest, "random_bytes", lambda count: uuid[:count])
    monkeypatch.setattr(keeper.time, "time", lambda: NOW)
    monkeypatch.setattr(log, "call_after_fork", lambda engine: None)
    monkeypatch.setattr(logging.getLogger("durable_log"), "disabled", True)


class Disk(MemoryDirectory):
    """Segments are recycled, as on file systems that write in place; they take no more room than was written."""

    grows_in_place = True

    def __init__(self) -> None:
        super().__init__()
        self.removed: Files = {}
        """What each file that is gone was last."""

    def remove(self, name: str) -> None:
        self.removed[name] = self.files[name].read(0, 2**30)
        super().remove(name)

    def files_now(self) -> Files:
        return {name: file.read(0, file.size()) for name, file in self.files.items()}


def disk_of(files: Files) -> Disk:
    disk = Disk()
    for name, content in files.items():
        disk.create(name).write(0, content)
    return disk


def tried(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the damage that it tells of."""
    try:
        return call(*arguments)
    except Corruption as error:
        return error


def open_quietly(disk: Directory, options: Options = OPTIONS) -> Store:
    return Store(open_in(disk, options, lambda: NOW))


def kill(store: Store) -> None:
    """The process is gone; what is in its files stays as it is."""
    atexit.unregister(store.engine.close)


def mark(store: Store) -> None:
    """What an idle store does: a block says that all before it is durable."""
    committer = store.engine._committer
    with committer.exclusive():
        committer._writer.mark(NOW)


class Stretch(NamedTuple):
    """Bytes ``start`` to ``end`` of a stream are those of stream number ``owner``."""

    owner: int
    start: int
    end: int


@dataclass
class Life:
    """One life of one name: what was acknowledged of it."""

    name: str
    number: int
    content_type: str
    content: bytes = b""
    ends: list[int] = field(default_factory=list)
    first: int = 0
    closed: bool = False
    seq: str | None = None
    claims: dict[str, tuple[int, int]] = field(default_factory=dict)
    inherited: list[Stretch] = field(default_factory=list)

    @property
    def base(self) -> int:
        return self.inherited[-1].end if self.inherited else 0

    @property
    def stretches(self) -> list[Stretch]:
        return [*self.inherited, Stretch(self.number, self.base, len(self.content))]

    def note(self, data: bytes) -> None:
        self.content += data
        if data:
            self.ends.append(len(self.content))

    def lost_by(self, lost: dict[int, list[tuple[int, int]]]) -> list[tuple[int, int]]:
        """Which of its bytes are gone if those are gone of the streams that hold them."""
        found = [
            (max(start, stretch.start), min(end, stretch.end))
            for stretch in self.stretches
            for start, end in lost.get(stretch.owner, [])
        ]
        return [*found, *lost.get(self.number, [])]


class Book:
    """Writes to a store and notes what was acknowledged. Requests that are made ``together`` share a block."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.alive: dict[str, Life] = {}
        self.gone: list[Life] = []
        self.history: list[Files] = []
        """The store's files after each request."""
        self._numbers = count(1)
        self._waiting: list[Request] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        self._waiting = waiting = []
        yield
        self._waiting = None
        committer, port = self.store.engine._committer, _Port()
        for request in waiting:
            self.store.engine.submit(request, port, None)
        with committer._lock:
            committer._commit_group()
        assert port.delivered == len(waiting)
        self.note_files()

    def note_files(self) -> None:
        directory = self.store.engine._directory
        assert isinstance(directory, Disk)
        self.history.append(directory.files_now())

    def _request(self, request: Request) -> None:
        if self._waiting is None:
            self.store.engine.execute(request)
            self.note_files()
        else:
            self._waiting.append(request)

    def create(
        self, name: str, data: bytes = b"", kind: str = "text/plain", *, ttl: int | None = None, closed: bool = False,
        fork_of: str | None = None, at: int = 0,
    ) -> None:  # fmt: skip
        """``data``, here and elsewhere, is in stored form."""
        fork_at = None if fork_of is None else at
        self._request(Create(name, StreamConfig(kind, ttl), data, closed, fork_of, fork_at))
        life = self.alive[name] = Life(name, next(self._numbers), kind)
        if fork_of is not None:
            source = self.alive[fork_of]
            life.content, life.first = source.content[:at], source.first
            life.inherited = [Stretch(*one[:2], min(one.end, at)) for one in source.stretches if one.start < at]
            life.ends = [end for end in source.ends if end < at] + [at]
        life.closed = closed
        life.note(data)

    def append(
        self, name: str, data: bytes, who: Producer | None = None, seq: str | None = None, *, close: bool = False
    ) -> None:
        self._request(Append(name, data, who, seq, close))
        life = self.alive[name]
        life.note(data)
        if who is not None:
            life.claims[who.id] = (who.epoch, who.seq)
        life.seq = seq or life.seq
        life.closed = life.closed or close

    def trim(self, name: str, before: int) -> None:
        self._request(Trim(name, before))
        self.alive[name].first = before

    def delete(self, name: str) -> None:
        self._request(Delete(name))
        self.gone.append(self.alive.pop(name))


class _Port:
    delivered = 0

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        for _, result in results:
            assert not isinstance(result, BaseException), result
        self.delivered += len(results)


class Seen(NamedTuple):
    """What a store says of a stream: its state, and which of its bytes it can't read."""

    number: int
    content_type: str
    first: int
    tail: int
    closed: bool
    seq: str | None
    claims: dict[str | int, tuple[int, int]]
    holes: list[tuple[int, int]]


def see(store: Store, name: str, lives: list[Life]) -> Seen | None:
    """What the store says of that stream; None if there is none. Every byte that it returns has to be one that was
    acknowledged at its offset of the life that has its number.
    """
    try:
        info = store.engine.info(name)
    except StreamNotFound:
        return None
    life = next((life for life in lives if (life.name, life.number) == (name, info.number)), None)
    assert life is not None, f"{name} has a life {info.number} that nobody began"
    state = store.engine._catalog.get(name)
    claims = {known: (producer.epoch, producer.seq) for known, producer in (state.producers or {}).items()}
    holes = _holes(store, info.first, info.tail, life)
    return Seen(info.number, info.content_type, info.first, info.tail, info.closed, state.last_seq, claims, holes)


def _holes(store: Store, offset: int, tail: int, life: Life) -> list[tuple[int, int]]:
    """Reads as a patient reader does: behind what can't be read it goes on at the next record or page."""
    holes: list[tuple[int, int]] = []
    while offset < tail:
        chunk = tried(store.engine.read, life.name, offset, 2**20)
        if isinstance(chunk, Corruption):
            assert chunk.file, chunk
            start, offset = offset, min([tail, *(stop for stop in _stops(life) if stop > offset)])
            if holes and holes[-1][1] == start:
                start = holes.pop()[0]
            holes.append((start, offset))
        else:
            assert chunk.offset == offset < chunk.next_offset
            wrong = chunk.data != life.content[offset : chunk.next_offset]
            assert not wrong, f"{life.name}: wrong bytes from {offset} on"
            offset = chunk.next_offset
    return holes


def _stops(life: Life) -> Iterator[int]:
    """Where a record ends, or a page of a clustered segment, wherever its row begins."""
    for end in [0, *life.ends]:
        yield from range(end, len(life.content), PAGE)
    yield from life.ends


def expected(life: Life) -> Seen:
    """What an undamaged store says of it."""
    return Seen(
        life.number, life.content_type, life.first, len(life.content), life.closed, life.seq, dict(life.claims), []
    )


class Shape(NamedTuple):
    """A store's files as they were at one moment, and what had been acknowledged until then."""

    name: str
    files: Files
    alive: dict[str, Life]
    gone: list[Life]
    history: list[Files]
    """The files as they were before, in the order of the writes."""

    @property
    def lives(self) -> list[Life]:
        return [*self.alive.values(), *self.gone]

    @property
    def names(self) -> list[str]:
        return sorted({life.name for life in self.lives})


def shape(name: str, disk: Disk, book: Book) -> Shape:
    return Shape(name, disk.files_now(), book.alive, book.gone, book.history)
