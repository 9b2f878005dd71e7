"""Everything at once on one store, by threads of its own process: appends, reads, forks, deletions, trims, clustering.

What is about to be done, and what was acknowledged, is written to the ledger, one line each, which outlives a kill.
Whatever is read is compared with what has to be there: the bytes of a stream follow from its number, those of a fork
below its base from its source's. What producers append to the one stream that all generations share, from theirs.
"""

from __future__ import annotations

import os
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from durable_log.engine import catalog, checkpoint, compaction, snapshot
from durable_log.errors import OffsetOutOfRange, StoreClosed, StreamGone, StreamNotFound
from durable_log.model import Options, Producer
from durable_log.store import Store

OPTIONS = Options(
    segment_bytes=64 * 1024, record_bytes_max=32 * 1024, recent_bytes_max=40_000, stream_recent_bytes_max=5000,
    sweep_seconds=0.02, cluster_segments=2, cluster_seconds=0.05,
)  # fmt: skip
CONTENT_MAX = 200_000
WRITERS, READERS, FOLLOWERS, PRODUCERS = 3, 3, 2, 2
PAUSE_SECONDS = 0.001
"""Between two reads: most of them never wait, so they would keep the interpreter's lock from those who write."""
SHARED = "produced"
GONE = (StreamNotFound, StreamGone)


def small() -> None:
    """Idle streams are let go, and checkpoints interrupted, all the time."""
    catalog.IDLE_MAX = 3
    for module in (checkpoint, compaction, snapshot):
        module.SLICE_STATES = 2


class Life(NamedTuple):
    name: str
    number: int
    source: int
    base: int


@lru_cache(maxsize=256)
def own_bytes(number: int) -> bytes:
    """The bytes that a stream would have of its own, from offset 0 on."""
    return random.Random(number).randbytes(CONTENT_MAX)


def content(lives: dict[int, Life], number: int, length: int) -> bytes:
    """The first bytes of a stream."""
    life = lives[number]
    inherited = content(lives, life.source, min(life.base, length)) if life.source else b""
    return inherited + own_bytes(number)[len(inherited) : length]


def produced(producer: str, seq: int) -> bytes:
    """What a producer appends as its ``seq``-th record: of many sizes, and recognisable."""
    return f"<{producer}/{seq}{'.' * (seq * 37 % 701)}>".encode()


class Ledger:
    """Lines to a file, each in one write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, *words: object) -> None:
        os.write(self._fd, (" ".join(map(str, words)) + "\n").encode())


class Stress:
    """All threads of one generation of one store. ``failure`` is what the first of them met that should not be."""

    def __init__(self, store: Store, ledger: Ledger, generation: str) -> None:
        self.store, self.ledger, self.generation = store, ledger, generation
        self.lives: dict[int, Life] = {}
        self.tails: dict[int, int] = {}
        self.failure: str | None = None
        self.counts = dict.fromkeys(("write", "read", "follow", "cluster", "produce"), 0)
        self.stopping = threading.Event()
        self._names = iter(range(10**9))

    def run(self, until: Callable[[], bool]) -> None:
        """Have all threads at work until then, or until one fails."""
        works = [self.write] * WRITERS + [self.read] * READERS + [self.follow] * FOLLOWERS + [self.cluster]
        works += [partial(self.produce, f"p{number}") for number in range(PRODUCERS)]
        threads = [threading.Thread(target=self._guarded, args=(work, seed)) for seed, work in enumerate(works)]
        for thread in threads:
            thread.start()
        while not until() and self.failure is None:
            time.sleep(0.01)
        self.stopping.set()
        for number in list(self.tails):
            self._end(number)
        for thread in threads:
            thread.join()

    def _end(self, number: int) -> None:
        try:
            self.store.stream(self.lives[number].name).close()  # lets followers go
        except (*GONE, StoreClosed):
            self.tails.pop(number, None)

    def _guarded(self, work: Callable[[random.Random], Iterator[None]], seed: int) -> None:
        chance = random.Random(f"{self.generation}/{seed}")
        try:
            for _ in work(chance):
                if self.stopping.is_set():
                    return
        except BaseException:  # noqa: BLE001 - it is what the test looks for
            self.failure = self.failure or traceback.format_exc()

    def write(self, chance: random.Random) -> Iterator[None]:
        """Appends to streams of its own, and what else may happen to them."""
        own: list[int] = []
        while True:
            if len(own) < 8:
                own.append(self._create(chance))
            number = chance.choice(own)
            what = chance.random()
            if what < 0.05:
                own.remove(number)
                self._delete(number)
            elif what < 0.15:
                self._trim(number, chance)
            else:
                self._append(number, chance)
            self.counts["write"] += 1
            yield

    def _create(self, chance: random.Random) -> int:
        name = f"{self.generation}-{next(self._names)}"
        sources = list(self.tails.items())
        source, base = chance.choice(sources) if sources and chance.random() < 0.5 else (0, 0)
        self.ledger.note("create?", name)
        try:
            if source:
                self.store.create(name, fork_of=self.lives[source].name, fork_at=base)
            else:
                self.store.create(name)
        except GONE:
            return self._create(chance)  # the source was deleted meanwhile
        number = self.store.stream(name).info().number
        self.lives[number] = Life(name, number, source, base)
        self.ledger.note("create", name, number, source, base)
        self.tails[number] = base
        return number

    def _append(self, number: int, chance: random.Random) -> None:
        tail = self.tails[number]
        end = min(CONTENT_MAX, tail + chance.choice((1, 50, 700, 5000, 20_000)))
        if end > tail:
            stream = self.store.stream(self.lives[number].name)
            appended = stream.append(own_bytes(number)[tail:end], durability=chance.choice(("sync", "written")))
            assert (appended.offset, appended.next_offset) == (tail, end)
            self.tails[number] = end
            self.ledger.note("append", number, end)

    def _trim(self, number: int, chance: random.Random) -> None:
        before = chance.randint(0, self.tails[number])
        self.ledger.note("trim?", number, before)
        self.ledger.note("trim", number, self.store.stream(self.lives[number].name).trim(before))

    def _delete(self, number: int) -> None:
        self.ledger.note("delete?", number)
        del self.tails[number]
        self.store.delete(self.lives[number].name)
        self.ledger.note("delete", number)

    def produce(self, producer: str, chance: random.Random) -> Iterator[None]:
        """Appends to the shared stream, at both durabilities; what was not acknowledged is sent again, first of all."""
        stream, seq = self.store.create(SHARED), 0
        for line in self.ledger.path.read_text().splitlines():
            if line.startswith(f"{SHARED} {producer} "):
                seq = int(line.split(" ")[2]) + 1
        while True:
            claim, durability = Producer(producer, 0, seq), chance.choice(("sync", "written"))
            appended = stream.append(produced(producer, seq), producer=claim, durability=durability)
            self.ledger.note(SHARED, producer, seq, -1 if appended.duplicate else appended.offset)
            self.counts["produce"] += 1
            seq += 1
            yield

    def read(self, chance: random.Random) -> Iterator[None]:
        """Reads of anything, from anywhere."""
        while True:
            yield
            time.sleep(PAUSE_SECONDS)
            if not self.tails:
                continue
            number = chance.choice(list(self.tails))
            stream = self.store.stream(self.lives[number].name)
            try:
                info = stream.info()
                offset = chance.randint(info.first, info.tail)
                chunk = stream.read(offset, limit=chance.choice((10, 3000, 100_000)))
            except (*GONE, OffsetOutOfRange):  # deleted or trimmed meanwhile
                continue
            if chunk.data:
                self._compare(number, chunk.offset, chunk.data)
            self.counts["read"] += 1

    def follow(self, chance: random.Random) -> Iterator[None]:
        """From the oldest byte of a stream on, as long as it is there, or for a while."""
        while True:
            yield
            time.sleep(PAUSE_SECONDS)
            if not self.tails:
                continue
            number = chance.choice(list(self.tails))
            stream, offset = self.store.stream(self.lives[number].name), -1
            try:
                offset = stream.info().first
                for chunk in stream.follow(offset):
                    assert chunk.offset == offset
                    self._compare(number, offset, chunk.data)
                    offset = chunk.next_offset
                    self.counts["follow"] += 1
                    if chance.random() < 0.1:
                        break
            except (*GONE, OffsetOutOfRange):
                continue

    def _compare(self, number: int, offset: int, data: bytes) -> None:
        expected = content(self.lives, number, offset + len(data))[offset:]
        assert data == expected, f"stream {number} at {offset}: {len(data)} bytes differ"

    def cluster(self, chance: random.Random) -> Iterator[None]:
        """What goes on beside the commits, more often than anybody would."""
        upkeep = self.store.engine.upkeep
        while True:
            chance.choice((upkeep.cluster, upkeep.cluster, upkeep.sweep, upkeep.compact, self._look))()
            self.counts["cluster"] += 1
            yield

    def _look(self) -> None:
        self.store.stats()
        listed = list(self.store.names())
        assert listed == sorted(listed)
