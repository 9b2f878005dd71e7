"""The stores that are damaged here: each has about 64 KiB, and together they have everything that a store can have.

``log``: two segments, killed after its last block, of which no other block says that it is durable. ``clustered``: what
a store at work has, with two clustered segments, three runs, a log that goes on in a segment that was recycled, and an
idle mark at its end. ``closed``: closed in good order, clustered, with an empty log whose file is full of old blocks.
"""

from __future__ import annotations

from random import Random

from stores import CLUSTERED_AT_CLOSE, Book, Disk, Shape, kill, mark, open_quietly, shape

from durable_log.model import Producer

JSON = "application/json"


def write_all_kinds(book: Book, chance: Random, size: int) -> None:
    """Every type of record; bytes that no two places share."""
    with book.together():
        book.create("text", b"first words ")
        book.create("json", b'{"one": 1},', JSON)
        book.append("json", b'"two",{"three": 3},')
        book.create("produced")
        for number in range(4):
            who = Producer("ab"[number % 2], number // 2, 0)
            book.append("produced", chance.randbytes(40), who, f"s{number}")
        for name in ("large", "small", "trimmed"):
            book.create(name)
        book.create("mortal", ttl=86_400)
    for turn in range(3):
        book.append("large", chance.randbytes(size))
        with book.together():
            for name in ("small", "trimmed", "mortal", "text"):
                book.append(name, chance.randbytes(100 * turn + 70))
    book.append("trimmed", chance.randbytes(60))
    with book.together():
        book.create("fork", chance.randbytes(300), fork_of="large", at=size + size // 2)
        book.create("fork of the fork", b"third", fork_of="fork", at=size + size // 2 + 300)
        book.trim("trimmed", 300)
        book.create("deleted", b"nobody sees this")
        book.create("again", b"first life")
        book.create("closed", b"all there is ")
        book.create("closed later", b"said")
    with book.together():
        book.delete("deleted")
        book.delete("again")
        book.append("closed", b"to say", close=True)
        book.append("closed later", b"", close=True)
    book.create("again", b"second life")


def log() -> Shape:
    disk, chance = Disk(), Random(1)
    store = open_quietly(disk)
    book = Book(store)
    write_all_kinds(book, chance, 2100)
    with book.together():
        book.append("small", b"in the next segment")
        book.append("large", chance.randbytes(10_000))
    book.append("small", b"the last record of all")
    kill(store)
    return shape("log", disk, book)


def clustered() -> Shape:
    disk, chance = Disk(), Random(2)
    store = open_quietly(disk)
    book = Book(store)
    write_all_kinds(book, chance, 2900)
    store.engine.upkeep.cluster()
    with book.together():
        book.append("large", chance.randbytes(7_000))
        book.append("small", b"between")
        book.delete("text")
    book.create("text", b"a later life")
    store.engine.upkeep.cluster()
    with book.together():
        book.append("small", b"in the log")
        book.append("produced", b"in the log", Producer("a", 1, 1), "t")
        book.append("fork", b"in the log")
    with book.together():
        book.create("fork of all", fork_of="small", at=len(book.alive["small"].content))
        book.create("young", b"in the log", closed=True)
        book.trim("large", 4_000)
        book.delete("mortal")
    mark(store)
    kill(store)
    return shape("clustered", disk, book)


def closed() -> Shape:
    disk, chance = Disk(), Random(3)
    store = open_quietly(disk, CLUSTERED_AT_CLOSE)
    book = Book(store)
    write_all_kinds(book, chance, 2400)
    store.close()
    return shape("closed", disk, book)


SHAPES = {made.__name__: made for made in (log, clustered, closed)}
