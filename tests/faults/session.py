"""A store under faults, and the truth about it: what every call may answer, and what has to be there afterwards.

Law of this file: a call returns, or raises an error that is documented for it, and then one of the armed calls has come
in it. What was acknowledged is true; what met ``CommitFailed`` first is whole or absent, and readers do not see it
until the store has been opened again; everything else did not happen. Nothing here arms anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from shim import Shim
from twins import Clock, open_files

import durable_log
from durable_log.engine.files import LOCK_NAME
from durable_log.engine.manifest import MANIFEST_NAME, load_manifest
from durable_log.engine.segment import segment_number
from durable_log.errors import BackupFailed, CommitFailed, StoreFull, StoreUnreadable, StreamNotFound
from durable_log.model import EARLIEST, Options, Producer

OPTIONS = Options(
    segment_bytes=64 * 1024, record_bytes_max=32 * 1024, recent_bytes_max=1, stream_recent_bytes_max=1,
    sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9,
)  # fmt: skip
"""Segments that are full after a few appends, reads that come from files, and nothing that happens by itself."""

REFUSED = (StoreFull, StoreUnreadable)
"""What a call may raise that changed nothing and latched nothing."""


class Ended(Exception):
    """The faults leave nothing of the workload to do."""


class Life(NamedTuple):
    """A stream as it should be."""

    content: bytes = b""
    first: int = 0
    closed: bool = False
    producers: tuple[tuple[str, int, bytes], ...] = ()
    """Of each: its id, its last sequence number and what it sent with it."""

    def plus(self, data: bytes, *, close: bool = False) -> Life:
        return self._replace(content=self.content + data, closed=self.closed or close)

    def sent(self, producer: str, seq: int, data: bytes) -> Life:
        others = tuple(known for known in self.producers if known[0] != producer)
        return self.plus(data)._replace(producers=(*others, (producer, seq, data)))

    def claim(self, producer: str) -> tuple[int, bytes] | None:
        return next((known[1:] for known in self.producers if known[0] == producer), None)


Truth = dict[str, list[Life | None]]
"""What each name may lead to: the first is what readers see, another one what a failed call may have left."""


class Session:
    """One store in one directory. Any thread may call, each on streams of its own."""

    def __init__(self, path: Path, shim: Shim, truth: Truth | None = None, clock: Clock | None = None) -> None:
        self.path, self.shim, self.options = path, shim, OPTIONS
        self.truth = copied(truth or {})
        self.clock = clock or Clock()
        self.store: Any = None
        self.is_alone = True
        """Whether calls of other threads may be under way; if not, more can be asserted."""
        self.latched = threading.Event()
        self.unsynced: set[str] = set()
        """Streams of which readers may not see all yet."""
        self.refused = 0
        self.backups: list[tuple[Path, Truth]] = []
        """Backups that were made, or begun, and what has to be in them."""

    # --- the store ------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the store. One attempt more if it fails: what failed once has to work then."""
        if not self._opens() and not self._opens():
            raise Ended
        if any(len(lives) > 1 for lives in self.truth.values()):
            self.settle()

    def _opens(self) -> bool:
        files, hit = open_files(), self.shim.hit
        try:
            self.store = durable_log.open(self.path, options=self.options, clock=self.clock)
        except REFUSED as error:
            self._has_cause(error, hit)
            assert open_files() == files, "an open that failed leaves files open"
            return False
        self.latched.clear()
        self.unsynced.clear()
        report = self.store.report
        assert report.damage == report.lost == report.unreadable_segments == [], report
        assert report.records_of_unknown_streams == 0, report
        return True

    def close(self) -> None:
        """Close the store, which fails only to say that what was acknowledged as written is not durable."""
        store, self.store = self.store, None
        try:
            store.close()
        except CommitFailed:
            assert self.unsynced, "all that was acknowledged is durable"
            assert self.latched.is_set() or self.shim.hit, "the store latched without a cause"

    def settle(self) -> None:
        """Find out which of the possible truths is the one."""
        present = set(self.names())
        assert present <= set(self.truth), f"{sorted(present - set(self.truth))} were never created"
        for name, lives in self.truth.items():
            if len(lives) > 1:
                matching: list[Life | None] = [None]
                if name in present:
                    self.truth[name] = [life for life in lives if life is not None]
                    found, closed = self.read(name), self.store.stream(name).info().closed
                    matching = [life for life in lives if life and (life.first, life.content[life.first :]) == found]
                    matching = [life for life in matching if life and life.closed == closed]
                assert matching, f"{name} is neither as before the call that failed nor as after it"
                self.truth[name] = matching[:1]

    def life(self, name: str) -> Life | None:
        """What readers see."""
        return self.truth.get(name, [None])[0]

    # --- calls that change something ------------------------------------------------------------------------------

    def create(self, name: str, data: bytes = b"", **config: Any) -> None:
        if self.life(name) is None:
            after = Life(data)
            if "fork_of" in config:
                source = self.life(config["fork_of"])
                if source is None:
                    return
                after = Life(source.content[: config.get("fork_at")] + data, source.first)
            self._change({name: after}, lambda: self.store.create(name, data=data, **config))

    def append(self, name: str, data: bytes, *, close: bool = False, durability: str = "sync") -> None:
        life = self.life(name)
        if life is not None and not life.closed:
            call = lambda: self.store.stream(name).append(data, close=close, durability=durability)  # noqa: E731
            made = self._change({name: life.plus(data, close=close)}, call, synced=durability == "sync" or close)
            assert made is None or made[:3] == (len(life.content), len(life.content) + len(data), False), made

    def append_many(self, name: str, items: list[bytes]) -> None:
        life = self.life(name)
        if life is not None:
            self._change({name: life.plus(b"".join(items))}, lambda: self.store.stream(name).append_many(items))

    def append_json(self, name: str, *values: Any, stored: bytes) -> None:
        life = self.life(name)
        if life is not None:
            self._change({name: life.plus(stored)}, lambda: self.store.stream(name).append_json(*values))

    def send(self, name: str, producer: str, data: bytes) -> None:
        """The next append of a producer; if it fails, once more, as producers do."""
        life = self.life(name)
        if life is not None:
            last = life.claim(producer)
            seq = 0 if last is None else last[0] + 1
            call = lambda: self.store.stream(name).append(data, producer=Producer(producer, 0, seq))  # noqa: E731
            for _ in range(2):
                if self._change({name: life.sent(producer, seq, data)}, call) is not None:
                    break

    def close_stream(self, name: str) -> None:
        life = self.life(name)
        if life is not None:
            self._change({name: life._replace(closed=True)}, lambda: self.store.stream(name).close())

    def trim(self, name: str, before: int) -> None:
        life = self.life(name)
        if life is not None and life.first <= before <= len(life.content):
            self._change({name: life._replace(first=before)}, lambda: self.store.stream(name).trim(before))

    def delete(self, name: str) -> None:
        if self.life(name) is not None:
            self._change({name: None}, lambda: self.store.delete(name))

    def _change(self, after: dict[str, Life | None], call: Callable[[], Any], *, synced: bool = True) -> Any:
        """What ``call`` returned; None if it was refused or failed."""
        was_latched, hit = self.latched.is_set(), self.shim.hit
        try:
            result = call()
        except CommitFailed:
            if not was_latched:
                assert self.shim.hit, "the store latched without a cause"
                for name, life in after.items():
                    self.truth[name] = [self.life(name), life]
            self.latched.set()
            return None
        except REFUSED as error:
            self._has_cause(error, hit)
            self.refused += 1
            return None
        assert not was_latched, "a store that has latched took a change"
        if self.is_alone and synced:
            assert self.shim.dirty(".log") == 0, "a change was acknowledged before its sync, or in spite of it"
        for name, life in after.items():
            self.truth[name] = [life]
        if not synced:
            self.unsynced.update(after)
        elif self.is_alone:
            self.unsynced.clear()
        return result

    def _has_cause(self, error: Exception, hit: int) -> None:
        assert self.shim.hit > (hit if self.is_alone else 0), f"nothing failed, but the store said: {error!r}"

    # --- calls that read ------------------------------------------------------------------------------------------

    def read(self, name: str, size: int = 7000) -> tuple[int, bytes] | None:
        """Where a stream begins and what it holds, compared with the truth as far as it can be read; None if it can't
        be, or is not there.
        """
        if self.life(name) is None:
            return None
        first, found, offset = 0, b"", EARLIEST
        possible = [life for life in self.truth[name] if life is not None]
        while True:
            hit = self.shim.hit
            try:
                chunk = self.store.stream(name).read(offset, limit=size)
            except StoreUnreadable as error:
                self._has_cause(error, hit)
                return None
            except StreamNotFound:
                assert len(self.truth[name]) > 1, f"{name} is gone"
                return None
            if offset == EARLIEST:
                first = chunk.offset
                possible = [life for life in possible if life.first == first]
            possible = [life for life in possible if life.content[chunk.offset : chunk.next_offset] == chunk.data]
            assert possible, f"{name} reads otherwise from {chunk.offset} on than it was written"
            found, offset = found + chunk.data, chunk.next_offset
            if chunk.up_to_date:
                whole = name in self.unsynced or any(offset == len(life.content) for life in possible)
                assert whole, f"{name} ends at {offset}"
                return first, found
            assert chunk.data, f"{name} ends at {offset} and says that it does not"

    def read_all(self) -> None:
        """Every stream, once by what its name leads to, and the names."""
        for name in self.truth:
            self.read(name)
        self.names()

    def names(self) -> list[str]:
        """All names; those of the truth, if they can't be read."""
        hit = self.shim.hit
        known = sorted(name for name in self.truth if self.life(name) is not None)
        try:
            names = list(self.store.names())
        except StoreUnreadable as error:
            self._has_cause(error, hit)
            return known
        certain = [name for name in known if len(self.truth[name]) == 1]
        possible = {name for name, lives in self.truth.items() if any(life is not None for life in lives)}
        assert set(certain) <= set(names) <= possible, (names, certain)
        return names

    # --- upkeep ---------------------------------------------------------------------------------------------------

    def cluster(self) -> None:
        """A checkpoint now."""
        self._maintain(self.store.engine.upkeep.cluster, OSError)

    def step(self) -> None:
        """Whatever the background would do, one thing after the other."""
        self._maintain(self.store.engine.upkeep._cluster_if_due, OSError)

    def refill(self) -> None:
        """Spares, made ahead."""
        spares = self.store.engine._spares
        spares.want()
        self._maintain(spares.refill, OSError)

    def sweep(self, *expired: str) -> None:
        """Delete what has expired. It is gone for readers before that."""
        for name in expired:
            self.truth[name] = [None]
        self._maintain(self.store.engine.upkeep.sweep, OSError, *REFUSED)

    def compact(self) -> None:
        self._maintain(self.store.compact, *REFUSED)

    def verify(self) -> None:
        """Read all files; nothing is wrong with them."""
        faults = self._maintain(self.store.engine.upkeep.check_files, OSError)
        assert not faults, faults

    def stats(self) -> None:
        self._maintain(self.store.stats, *REFUSED)

    def backup(self, target: Path) -> None:
        """A backup, which is whole or does not open."""
        self.backups.append((target, copied(self.truth)))
        if self._maintain(lambda: self.store.backup(target), BackupFailed) is not None:
            assert (target / MANIFEST_NAME).exists()

    def _maintain(self, call: Callable[[], Any], *documented: type[Exception]) -> Any:
        hit = self.shim.hit
        try:
            return call()
        except CommitFailed:
            assert self.shim.hit, "the store latched without a cause"
            self.latched.set()
        except documented as error:
            self._has_cause(error, hit)
            self.refused += 1
        return None

    # --- afterwards -----------------------------------------------------------------------------------------------

    def check_latch(self) -> None:
        """A store that has latched says so, refuses every change, and reads."""
        failure = self.store.stats()["failure"]
        assert bool(failure) == self.latched.is_set(), f"the store says {failure!r}"
        if failure:
            for name in ("after the latch", *self.truth):
                self.create(name)
                self.append(name, b"x")
        self.read_all()

    def check_works(self, turn: str) -> None:
        """The store takes changes, and producers that repeat themselves are found out."""
        for name in list(self.truth):
            life = self.life(name)
            if life is None or life.closed:
                continue
            for producer, seq, data in life.producers:
                again = self.store.stream(name).append(data, producer=Producer(producer, 0, seq))
                assert again.duplicate, (name, producer, seq)
                self.send(name, producer, data)
        self.create(f"new {turn}", b"1")
        self.append(f"new {turn}", b"2")
        assert self.life(f"new {turn}") == Life(b"12")
        self.store.engine.check()

    def check_files(self) -> None:
        """No file is there that the manifest does not name."""
        directory = self.store.engine._directory
        manifest = load_manifest(directory, 0)
        named = {f"{file.number:08x}.seg" for file in manifest.clustered} | {f"{run:08x}.run" for run in manifest.runs}
        named |= {LOCK_NAME, MANIFEST_NAME}
        logs = {name for name in directory.names() if (segment_number(name) or 0) >= manifest.log_first}
        assert set(directory.names()) == named | logs


def copied(truth: Truth) -> Truth:
    """The same, to go its own way."""
    return {name: list(lives) for name, lives in truth.items()}


@contextmanager
def checked(session: Session) -> Iterator[Session]:
    """The session's store, open, as it has to be found: complete, settled, and without a descriptor left at the end."""
    files, threads = open_files(), threading.active_count()
    assert session._opens(), "the store does not open"
    session.settle()
    session.read_all()
    session.check_files()
    session.store.engine.check()
    yield session
    session.close()
    assert open_files() == files, "the store left files open"
    assert threading.active_count() == threads, "the store left threads behind"
