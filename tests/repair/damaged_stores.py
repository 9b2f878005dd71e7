"""Stores whose content is known, damage to their files, and what to demand of them after a repair."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from twins import SMALL, Clock, copy_of, open_store

from durable_log.engine.files import Directory, MemoryDirectory
from durable_log.engine.format import crc32c
from durable_log.engine.index import places_of
from durable_log.engine.repair import Outcome, repair
from durable_log.errors import Corruption
from durable_log.model import Producer
from durable_log.store import Store

PAGE = 4096
_HEADER_BYTES = 84  # of a file's first page, the checksum included
CLOCK = Clock()


class Truth(NamedTuple):
    """What a stream has: its number, all its bytes from 0 on, the first that was not trimmed, whether it is closed."""

    number: int
    content: bytes
    first: int = 0
    closed: bool = False


class Known(NamedTuple):
    """A store in memory, not open, and what was acknowledged of it."""

    directory: MemoryDirectory
    streams: dict[str, Truth]
    deleted: set[str]

    def copy(self) -> Known:
        return Known(copy_of(self.directory), self.streams, self.deleted)

    def names(self, suffix: str) -> list[str]:
        return [name for name in self.directory.names() if name.endswith(suffix)]


class Writer:
    """Writes to a store and remembers what was acknowledged."""

    def __init__(self, store: Store, chance: random.Random) -> None:
        self.store, self._chance = store, chance
        self.content: dict[str, bytearray] = {}
        self.first: dict[str, int] = {}
        self.closed: set[str] = set()
        self.deleted: set[str] = set()
        self._seqs: dict[str, int] = {}

    def create(self, name: str, **config: object) -> None:
        self.store.create(name, **config)
        self.content[name] = bytearray()

    def append(self, name: str, size: int) -> None:
        data = self._chance.randbytes(size)
        seq = self._seqs.get(name, 0)
        self.store.stream(name).append(data, producer=Producer("p", 0, seq))
        self._seqs[name] = seq + 1
        self.content[name] += data

    def fork(self, name: str, source: str, at: int) -> None:
        self.store.create(name, fork_of=source, fork_at=at)
        self.content[name] = self.content[source][:at]
        self.first[name] = self.first.get(source, 0)

    def trim(self, name: str, before: int) -> None:
        self.store.stream(name).trim(before)
        self.first[name] = self.store.stream(name).info().first

    def close(self, name: str) -> None:
        self.store.stream(name).close()
        self.closed.add(name)

    def delete(self, name: str) -> None:
        self.store.delete(name)
        del self.content[name]
        self.first.pop(name, None)
        self.closed.discard(name)
        self._seqs.pop(name, None)
        self.deleted.add(name)

    def _number(self, name: str) -> int:
        return self.store.stream(name).info().number

    def truth(self) -> dict[str, Truth]:
        return {
            name: Truth(self._number(name), bytes(content), self.first.get(name, 0), name in self.closed)
            for name, content in self.content.items()
        }


@cache
def built(seed: int = 1) -> Known:
    """The same store for all who ask; take a copy."""
    return build(seed)


def build(seed: int = 1, streams: int = 30) -> Known:
    """Checkpoints, a fork, trimmed, closed and deleted streams, and a log of a few segments that is not clustered."""
    chance = random.Random(seed)
    directory = MemoryDirectory()
    store = open_store(directory, SMALL, CLOCK)
    store.engine.upkeep._clusterer.stop()  # it would cluster and merge by the pace of the machine
    writer = Writer(store, chance)
    names = [f"s{number:02}" for number in range(streams)]
    for name in names[: streams * 2 // 3]:
        writer.create(name, content_type=chance.choice(["text/plain", "application/x-log"]))
    _write(writer, chance, 4 * streams)
    store.engine.upkeep.cluster()
    writer.trim("s03", len(writer.content["s03"]) // 2)
    writer.close("s04")
    writer.delete("s05")
    writer.fork("fork", "s06", len(writer.content["s06"]) // 2)
    for name in names[streams * 2 // 3 :]:
        writer.create(name)
    _write(writer, chance, 4 * streams)
    store.engine.upkeep.cluster()
    writer.delete("s07")
    writer.create("s05")
    writer.create("young")
    _write(writer, chance, 2 * streams)
    writer.close("s08")
    writer.append("young", 700)
    for name in ("s00", "s01"):
        writer.append(name, 10)
    known = Known(copy_of(directory), writer.truth(), writer.deleted - writer.content.keys())
    store.close()
    return known


def _write(writer: Writer, chance: random.Random, count: int) -> None:
    for _ in range(count):
        name = chance.choice(sorted(writer.content.keys() - writer.closed))
        writer.append(name, chance.choice([5, 300, 3000, 9000]))


def flip(directory: MemoryDirectory, name: str, position: int) -> None:
    file = directory.files[name]
    file.write(position, bytes([file.read(position, 1)[0] ^ 0x40]))


def zero(directory: MemoryDirectory, name: str, page: int) -> None:
    file = directory.files[name]
    length = min(PAGE, file.size() - page * PAGE)
    file.write(page * PAGE, bytes(length))


def truncate(directory: MemoryDirectory, name: str, size: int) -> None:
    content = directory.files[name].read(0, size)
    directory.create(name).write(0, content)


def make_newer(directory: MemoryDirectory, name: str) -> None:
    """As if a later version, with another format, had written the file."""
    header = bytearray(directory.files[name].read(0, _HEADER_BYTES))
    struct.pack_into("<I", header, 12, 9)
    struct.pack_into("<I", header, _HEADER_BYTES - 4, crc32c(0, bytes(header[:-4])))
    directory.files[name].write(0, header)


def double(directory: MemoryDirectory, name: str, source: int, target: int) -> None:
    """A page written to another place as well."""
    file = directory.files[name]
    file.write(target * PAGE, file.read(source * PAGE, PAGE))


def mend(directory: Directory) -> Outcome:
    return repair(directory, CLOCK, lambda outcome: (repr(outcome).encode(), b"{}"))


def opened(known: Known) -> Store:
    return open_store(known.directory, SMALL, CLOCK)


def places(known: Known, name: str) -> list[tuple[int, int, int]]:
    """Start, end and place of everything that a stream has, in the store as it is."""
    with opened(known.copy()) as store:
        state = store.engine._catalog.get(name)
        assert state is not None
        return list(places_of(state.index))


def readable(store: Store, name: str, truth: Truth) -> set[int]:
    """The offsets of a stream that can be read, each of which has to hold what was acknowledged."""
    found: set[int] = set()
    info = store.stream(name).info()
    offset = info.first
    assert info.tail <= len(truth.content), (name, info, len(truth.content))
    while offset < info.tail:
        try:
            chunk = store.stream(name).read(offset)
        except Corruption:
            offset = store.engine.place_end(name, offset)  # after a repair, what is lost has a place of its own
            continue
        assert chunk.data == truth.content[offset : chunk.next_offset], (name, offset, chunk.next_offset)
        found.update(range(offset, chunk.next_offset))
        offset = chunk.next_offset
    return found


def missing(store: Store, known: Known) -> dict[str, set[int]]:
    """The offsets of each stream that can't be read; no byte may be wrong."""
    found = {}
    names = set(store.names())
    for name, truth in known.streams.items():
        wanted = set(range(truth.first, len(truth.content)))
        there = name in names and store.stream(name).info().number == truth.number
        lost = wanted - readable(store, name, truth) if there else wanted
        if lost or not there:
            found[name] = lost
    return found


def assert_works(store: Store, names: Iterable[str]) -> None:
    """The store does all that a store does, to streams that are not closed, too."""
    for number, name in enumerate(sorted(names)):
        stream = store.stream(name)
        tail = stream.info().tail
        if not stream.info().closed:
            assert stream.append(b"after the repair").offset == tail
            assert stream.read(tail).data == b"after the repair"
            if number % 3 == 0:
                stream.close()
        if number % 5 == 4:
            stream.delete()
    store.create("quite new", data=b"new")
    store.engine.upkeep.cluster()
    store.compact()
    store.engine.check()
