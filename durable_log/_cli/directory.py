"""The commands on a store's own directory: ls, cat, tail, append, stat, rm.

Law of this room: each function opens the store, does one thing, and closes it; it creates no store unless it is asked
to, and makes no spare segments. Plain output has one line an item, ``--json`` one JSON object a line. Main thread only.
"""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO, Final

import click

import durable_log
from durable_log._cli.output import put, put_now, telling
from durable_log._cli.text import json_lines, last_lines, printable, readable, whole_characters
from durable_log.engine.files import LOCK_NAME, Directory, directory_to_look_at, is_forbidden
from durable_log.engine.opening import open_in
from durable_log.engine.overlay import OverlayDirectory
from durable_log.engine.reconstruct import expect_store
from durable_log.errors import StoreUnreadable, StreamNotFound
from durable_log.model import EARLIEST, Chunk, Options, StreamInfo, check_name, is_json
from durable_log.protocol.tokens import timestamp
from durable_log.store import Store, Stream

PIECE_BYTES: Final = 2**20
"""The most that ``append`` takes from stdin for one record."""

TEXT_DEFAULT: Final = "text/plain"
CALM: Final = Options(preallocate=False, sweep_seconds=30 * 86_400.0, cluster_at_close=False)
"""Without background work, for those who look and want to find everything as it was."""
_NOT_THERE: Final = (errno.ENOENT, errno.ENAMETOOLONG, errno.ELOOP)


def open_store(data: str, *, create: bool = False, calm: bool = False, clock: Callable[[], float] = time.time) -> Store:
    """The store in directory ``data``; a new one only if ``create``. Raises what :func:`durable_log.open` raises.

    ``calm``: see ``CALM``; where nothing can be written, the store is opened in an overlay then.
    """
    if not create:
        find_store(data)
    try:
        return durable_log.open(data, options=CALM if calm else Options(preallocate=False), clock=clock)
    except StoreUnreadable as error:
        if not calm or not is_forbidden(error.cause):
            raise
    directory = OverlayDirectory(directory_to_look_at(data))
    store = Store(open_in(directory, CALM, clock))
    tell_if_unlocked(directory)
    return store


def tell_if_unlocked(directory: Directory) -> None:
    """Say so if somebody may write to a store meanwhile: it has no lock, and none could be made."""
    if LOCK_NAME not in directory.names():
        what = f"there is no {LOCK_NAME} in {directory.path}, and none can be made"
        click.echo(f"Warning: {what}; see to it that nobody writes to the store meanwhile", err=True)


def find_store(data: str) -> None:
    """See to it that there is a store in the directory ``data``, before anything is written there, be it a lock. Raises
    ``ClickException`` if nothing is there, :class:`NotAStore`, :class:`StoreUnreadable`.
    """
    try:
        directory = directory_to_look_at(data)
        if set(directory.names()) - {LOCK_NAME}:
            return expect_store(directory)
    except OSError as error:
        if error.errno not in _NOT_THERE:
            raise StoreUnreadable(str(error.filename or data), error) from error
    raise click.ClickException(f"there is no store in {printable(data)}; name its directory with --data")


def facts(info: StreamInfo) -> dict[str, Any]:
    """What is known of a stream, for ``--json``."""
    return {
        "name": info.name,
        "first": info.first,
        "tail": info.tail,
        "closed": info.closed,
        "content_type": info.content_type,
        "created_at": timestamp(info.created_at).decode(),
        "ttl": info.ttl,
        "expires_at": None if info.expires_at is None else timestamp(info.expires_at).decode(),
    }


def list_streams(data: str, prefix: str, *, long: bool, as_json: bool) -> None:
    """The names that start with ``prefix``. Raises :class:`InvalidName` if none can."""
    if prefix:
        check_name(prefix)
    with open_store(data, calm=True) as store:
        for name in store.names(prefix):
            if not long and not as_json:
                put(printable(name) + "\n")
                continue
            info = store.stream(name).info()
            if as_json:
                put(json.dumps(facts(info), ensure_ascii=False) + "\n")
            else:
                state = "closed" if info.closed else "open"
                put(f"{info.tail:>12} {state:<6} {info.content_type:<24} {printable(name)}\n")


def show(data: str, name: str, offset: int) -> None:
    """A stream's bytes from ``offset`` to its tail; from 0, all that were not trimmed."""
    with open_store(data, calm=True) as store:
        _show(store.stream(name), offset or EARLIEST)


def show_end(data: str, name: str, count: int) -> None:
    """The last ``count`` bytes of a stream, from a whole character or message on."""
    with open_store(data, calm=True) as store:
        stream = store.stream(name)
        info = stream.info()
        offset = max(info.first, info.tail - count)
        if is_json(info.content_type):
            pages = _pages(stream, store.engine.record_bounds(name, offset)[0])
            lines = json_lines(b"".join(page.data for page in pages))
            put(b"".join(last_lines(lines, count)))
        else:
            _show(stream, offset)


def _show(stream: Stream, offset: int) -> None:
    for chunk in _pages(stream, offset):
        inside = chunk.offset == offset > 0
        data = whole_characters(chunk.data, chunk.content_type) if inside else chunk.data
        put(readable(data, chunk.content_type))


def _pages(stream: Stream, offset: int) -> Iterator[Chunk]:
    while True:
        chunk = stream.read(offset)
        yield chunk
        offset = chunk.next_offset
        if chunk.up_to_date:
            return


def describe(data: str, name: str, *, as_json: bool) -> None:
    """What is known of a stream."""
    with open_store(data, calm=True) as store:
        known = facts(store.stream(name).info())
    if as_json:
        put(json.dumps(known, ensure_ascii=False) + "\n")
        return
    for key, value in known.items():
        put(f"{key:<13} {_plain(value)}\n")


def _plain(value: str | int | bool | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(str(value))


def remove(data: str, names: Iterable[str]) -> bool:
    """Delete streams; those that do not exist are told on stderr. False if there were any."""
    with open_store(data) as store:
        missing = [name for name in names if not _remove(store, name)]
    for name in missing:
        click.echo(f"Error: stream {printable(name)!r} does not exist", err=True)
    return not missing


def _remove(store: Store, name: str) -> bool:
    try:
        store.delete(name)
    except StreamNotFound:
        return False
    return True


def append(data: str, name: str, text: str | None, *, create: bool, content_type: str | None, close: bool) -> None:
    """Append ``text``, or stdin if it is "-"; nothing if None. Prints the offset after it."""
    if text == "-" and sys.stdin is None:
        raise click.ClickException("stdin is closed; nothing was appended: give TEXT, or something to read")
    with open_store(data, create=create) as store:
        stream = _writable(store, name, content_type) if create else store.stream(name)
        tail = stream.info().tail
        if text == "-":
            for piece in _pieces(sys.stdin.buffer, whole=is_json(stream.info().content_type)):
                tail = stream.append(piece).next_offset
        elif text is not None:
            tail = stream.append(text.encode("utf-8", "surrogateescape"), close=close).next_offset
        if close:
            tail = stream.close().next_offset
        with telling(f"the stream is stored up to offset {tail}"):
            put_now(f"{tail}\n")


def _writable(store: Store, name: str, content_type: str | None) -> Stream:
    if content_type is None:
        try:
            store.stream(name).info()
            return store.stream(name)
        except StreamNotFound:
            content_type = TEXT_DEFAULT
    return store.create(name, content_type=content_type)


def _pieces(source: BinaryIO, *, whole: bool) -> Iterable[bytes]:
    """What arrives, as it arrives, so that it is durable soon; all at once if it has to be parsed as one."""
    if whole:
        return [source.read()]
    read = getattr(source, "read1", source.read)
    return iter(lambda: read(PIECE_BYTES), b"")
