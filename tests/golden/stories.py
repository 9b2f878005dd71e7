"""What is written into the golden stores: the same calls, the same bytes, for ever.

A story that was released is never changed, as its stores could not be written again; a new one is added.
"""

from __future__ import annotations

import base64
import json
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stores import (
    CLUSTERED_AT_CLOSE,
    OPTIONS,
    Book,
    Disk,
    Files,
    disk_of,
    kill,
    mark,
    open_quietly,
    quiet,
    see,
)

from durable_log.model import Append, Producer

FOLDER = Path(__file__).resolve().parent
SHOWN_BYTES = 200
VERSION = "0.1.0"
"""The folder of the format that is written now."""


class Golden(NamedTuple):
    """A store's files, and what opening them has to find: of each stream what it is and holds; how many places are
    damaged; whether the log is cut.
    """

    name: str
    files: Files
    streams: dict[str, dict[str, Any]]
    damaged: int
    cut: bool


def words(count: int, of: str) -> bytes:
    return b"".join(b"%b %d " % (of.encode(), number) for number in range(count))


def tell_all(book: Book) -> None:
    """Streams of every kind."""
    book.create("text", words(10, "first"))
    book.create("events/json", b'{"event": "begin"},', "application/json")
    book.append("events/json", b'{"event": 1},"two",[3],')
    with book.together():
        book.create("produced", kind="application/octet-stream")
        book.append("produced", b"a", Producer("alpha", 0, 0), "2024-01")
        book.append("produced", b"b", Producer("beta", 3, 0))
        book.append("produced", b"c", Producer("alpha", 0, 1), "2024-02")
    book.create("long")
    for turn in range(3):
        book.append("long", words(170, f"part {turn} of a long text"))
    book.create("fork", fork_of="long", at=9000)
    book.append("fork", b"and another end")
    book.create("fork of the fork", fork_of="fork", at=9004)
    book.create("mortal", b"for a day", ttl=86_400)
    book.create("trimmed", b"0123456789")
    book.append("trimmed", b"abcdef")
    book.trim("trimmed", 10)
    book.create("closed", b"all of it", closed=True)
    book.create("ended")
    book.append("ended", b"the end", close=True)
    book.create("deleted", b"gone")
    book.delete("deleted")
    book.create("Ünïcode/名前", "grüße".encode())
    book.create("twice", b"first life")
    book.delete("twice")
    book.create("twice", b"second life")


def log() -> tuple[Files, Book]:
    """Nothing is clustered; an idle store, killed."""
    disk, book = begun()
    tell_all(book)
    mark(book.store)
    kill(book.store)
    return disk.files_now(), book


def clustered() -> tuple[Files, Book]:
    """Two checkpoints, a recycled log segment, and a log that goes on."""
    disk, book = begun()
    tell_all(book)
    book.store.engine.upkeep.cluster()
    book.append("long", words(60, "after the first checkpoint"))
    book.delete("text")
    book.store.engine.upkeep.cluster()
    book.append("long", b"in the log")
    book.append("produced", b"d", Producer("beta", 3, 1))
    book.create("young", b"in the log")
    mark(book.store)
    kill(book.store)
    return disk.files_now(), book


def closed() -> tuple[Files, Book]:
    """Closed in good order: nothing to replay."""
    disk, book = begun(CLUSTERED_AT_CLOSE)
    tell_all(book)
    book.store.close()
    return disk.files_now(), book


def torn() -> tuple[Files, Book]:
    """Killed while the last block was written: one of its pages had not arrived."""
    disk, book = begun()
    tell_all(book)
    mark(book.store)
    segment, position = book.store.engine._committer._writer.segment, book.store.engine._committer._writer.position
    book.store.engine.execute(Append("long", words(400, "never acknowledged")))
    kill(book.store)
    files = disk.files_now()
    return _zeroed(files, segment.file.name, position + 4096, 4096), book


def damaged() -> tuple[Files, Book]:
    """A record amid the log does not verify, nor does a page of a clustered segment."""
    files, book = clustered()
    log, table = _holding(files, b"in the log", ".log"), _holding(files, b"part 1 of a long text 100 ", ".seg")
    files = _zeroed(files, log, files[log].index(b"in the log"), 10)
    return _zeroed(files, table, files[table].index(b"part 1 of a long text 100 "), 10), book


def backup() -> tuple[Files, Book]:
    """A copy that was made of a store at work."""
    book = begun()[1]
    tell_all(book)
    book.store.engine.upkeep.cluster()
    book.append("long", b"in the log")
    with tempfile.TemporaryDirectory() as path:
        book.store.backup(path)
        files = {file.name: file.read_bytes() for file in sorted(Path(path).iterdir()) if file.name != "LOCK"}
    kill(book.store)
    assert len(files) > 3
    return files, book


STORIES: dict[str, Callable[[], tuple[Files, Book]]] = {
    story.__name__: story for story in (log, clustered, closed, torn, damaged, backup)
}


@contextmanager
def in_a_quiet_place() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        quiet(patch, uuid=b"golden, not gold")
        yield


def begun(options: Any = OPTIONS) -> tuple[Disk, Book]:
    disk = Disk()
    return disk, Book(open_quietly(disk, options))


def made(name: str) -> Golden:
    """The store as the engine writes it now, and what was acknowledged of it."""
    with in_a_quiet_place():
        files, book = STORIES[name]()
        streams = {key: _facts(life) for key, life in sorted(book.alive.items())}
        store = open_quietly(disk_of(files))
        for key, facts in streams.items():
            seen = see(store, key, [*book.alive.values(), *book.gone])
            assert seen is not None
            facts["tail"], facts["holes"] = seen.tail, seen.holes
        found = Golden(name, files, streams, len(store.report.damage), store.report.cut)
        kill(store)
    return found


def _facts(life: Any) -> dict[str, Any]:
    return {
        "number": life.number,
        "content_type": life.content_type,
        "first": life.first,
        "closed": life.closed,
        "seq": life.seq,
        "claims": {who: list(claim) for who, claim in life.claims.items()},
        "content": life.content,
    }


def _holding(files: Files, needle: bytes, end: str) -> str:
    return next(name for name, content in files.items() if name.endswith(end) and needle in content)


def _zeroed(files: Files, name: str, position: int, length: int) -> Files:
    content = files[name]
    return {**files, name: content[:position] + bytes(length) + content[position + length :]}


# ---- as text


def encoded(golden: Golden) -> str:
    """Short contents are shown as they are."""
    files = {name: packed(content) for name, content in golden.files.items()}
    streams = {
        name: {**facts, "content": facts["content"].decode()}
        if len(facts["content"]) < SHOWN_BYTES
        else {**facts, "content": None, "packed": packed(facts["content"])}
        for name, facts in golden.streams.items()
    }
    fields = {**golden._asdict(), "streams": streams, "files": files}
    return json.dumps(fields, ensure_ascii=False, indent=1) + "\n"


def decoded(text: str) -> Golden:
    fields = json.loads(text)
    files = {name: unpacked(content) for name, content in fields.pop("files").items()}
    for facts in fields["streams"].values():
        shown, hidden = facts["content"], facts.pop("packed", None)
        facts["content"] = shown.encode() if hidden is None else unpacked(hidden)
        facts["holes"] = [tuple(hole) for hole in facts["holes"]]
    return Golden(files=files, **fields)


def packed(content: bytes) -> str:
    return base64.b85encode(zlib.compress(content, 9)).decode()


def unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))
