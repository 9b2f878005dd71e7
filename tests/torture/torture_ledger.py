"""What is known of the streams of one store, outside of it: every byte that anybody was told of, and every promise.

The process that is killed has no part in this. All knowledge goes through :meth:`Stream.know`, and the first thing that
contradicts it is a :class:`Violation`.
"""

from __future__ import annotations

import base64
import json
import random
import re
import zlib
from collections.abc import Iterator
from typing import Any

from durable_log.store import Store

_PADDING = base64.b64encode(random.Random(0).randbytes(96 * 1024))
_RECORD = re.compile(rb"<([^/<>]+)/([0-9]+)/[A-Za-z0-9+/]*>")
_MESSAGE = re.compile(rb'\{"by":"([^"]+)","seq":([0-9]+),"padding":"[A-Za-z0-9+/]*"\},')
CONTENT_TYPES = {"binary": "application/octet-stream", "text": "text/plain", "json": "application/json"}


class Violation(AssertionError):
    """The store broke a promise."""


def record(kind: str, writer: str, seq: int, size: int) -> bytes:
    """What ``writer`` appends as its ``seq``-th record, as it is sent; ``size`` is about its length."""
    start = zlib.crc32(f"{writer}/{seq}".encode()) % 65536
    padding = _PADDING[start : start + size].decode()
    if kind == "json":
        return json.dumps({"by": writer, "seq": seq, "padding": padding}, separators=(",", ":")).encode()
    return f"<{writer}/{seq}/{padding}>".encode()


def stored(kind: str, sent: bytes) -> bytes:
    """The same in the form that is kept."""
    return sent + b"," if kind == "json" else sent


class Writer:
    """One of those who append to a stream. ``exact``: what it sends is there once, and without a gap."""

    def __init__(self, stream: Stream, name: str, *, exact: bool) -> None:
        self.stream, self.name, self.exact = stream, name, exact
        self.asked: dict[int, int] = {}
        self.found = -1
        self.missing: set[int] = set()

    def ask(self, seq: int, size: int) -> bytes:
        """It is about to send this."""
        self.asked[seq] = size
        return record(self.stream.kind, self.name, seq, size)

    def acknowledge(self, seq: int, end: int | None) -> None:
        """It was told that this is there, and, unless it had been there already, where it ends."""
        if end is not None:
            data = self._stored(seq)
            self.stream.know(end - len(data), data, f"the acknowledgement of {self.name}/{seq}")
            self.stream.ends.append(end)
        if seq > self.found:
            self.missing.add(seq)

    def find(self, seq: int, data: bytes, at: int) -> None:
        """That is what the stream holds next of it."""
        say = self.stream.violation
        if seq not in self.asked or data != self._stored(seq):
            say(at, "a record as it was sent", self._stored(seq) if seq in self.asked else b"", data)
        if (self.exact and seq != self.found + 1) or seq <= self.found:
            say(at, f"records of {self.name} once and in order", b"%d" % (self.found + 1), b"%d" % seq)
        self.found = seq
        self.missing.discard(seq)

    def _stored(self, seq: int) -> bytes:
        return stored(self.stream.kind, record(self.stream.kind, self.name, seq, self.asked[seq]))


class Stream:
    """One life of one name. ``private``: nobody reads it but who made it. ``ends``: where records are known to end."""

    def __init__(self, name: str, kind: str, source: Stream | None = None, base: int = 0) -> None:
        self.name, self.kind, self.source, self.base = name, kind, source, base
        self.history = bytearray(source.history[:base] if source else b"")
        self.writers: dict[str, Writer] = {}
        self.private = False
        self.created = self.closing = self.deleting = self.deleted = False
        self.closed_at: int | None = None
        self.expires_at: float | None = None
        self.length = base
        self.ends = [base]
        self._pieces: list[tuple[int, bytes, str]] = []
        self._parsed = base

    def writer(self, name: str, *, exact: bool) -> Writer:
        return self.writers.setdefault(name, Writer(self, name, exact=exact))

    def violation(self, offset: int, what: str, expected: bytes, found: bytes) -> None:
        known = f"{self.kind}, known up to {len(self.history)}, at least {self.length} long"
        raise Violation(
            f"{what}: stream {self.name} ({known}) at {offset}: expected {len(expected)} bytes "
            f"{bytes(expected[:120])!r}, found {len(found)} {bytes(found[:120])!r}"
        )

    def know(self, offset: int, data: bytes, who: str) -> None:
        """Somebody has seen these bytes there, or was told that they are."""
        end = offset + len(data)
        if self.closed_at is not None and end > self.closed_at:
            self.violation(self.closed_at, f"{who}: nothing beyond the close", b"", data[self.closed_at - offset :])
        overlap = self.history[offset:end]
        if overlap != data[: len(overlap)]:
            first = next(i for i, (old, new) in enumerate(zip(overlap, data, strict=False)) if old != new)
            self.violation(offset + first, f"{who}: bytes that were seen stay", overlap[first:], data[first:])
        self.length = max(self.length, end)
        if offset > len(self.history):
            self._pieces.append((offset, data, who))
        elif len(overlap) < len(data):
            self.history += data[len(overlap) :]
            pieces, self._pieces = self._pieces, []
            for piece in pieces:
                self.know(*piece)

    def know_length(self, length: int) -> None:
        """Somebody was told that the stream is at least so long."""
        if self.closed_at is not None and length > self.closed_at:
            self.violation(length, "a tail not beyond the close", b"%d" % self.closed_at, b"%d" % length)
        self.length = max(self.length, length)

    def know_closed(self, at: int) -> None:
        """Somebody was told that the stream is closed there."""
        if not self.closing or self.closed_at not in (None, at) or at < self.length:
            expected = b"%d" % (self.closed_at or self.length) if self.closing else b"open"
            self.violation(at, "a close where one was asked for, once", expected, b"closed")
        self.closed_at = self.length = at

    def check(self, content: bytes, *, closed: bool) -> None:
        """All that the store holds of it."""
        self.know(0, content, "a check")
        if len(content) < self.length:
            self.violation(len(content), "bytes that were seen stay", self.history[len(content) :], b"")
        if closed:
            self.know_closed(len(content))
        elif self.closed_at is not None:
            self.violation(len(content), "closed stays closed", b"closed", b"open")
        self.parse()

    def parse(self) -> None:
        """Everything from its base on is whole records, each where its writer's order has it."""
        pattern, own = _MESSAGE if self.kind == "json" else _RECORD, self._parsed
        while own < len(self.history):
            match = pattern.match(self.history, own)
            if match is None:
                self.violation(own, "whole records", b"", self.history[own:])
            writer = self.writers.get(match[1].decode())
            if writer is None:
                self.violation(own, "records of its own writers", b"", match[0])
            writer.find(int(match[2]), match[0], own)
            own = self._parsed = match.end()
        for writer in self.writers.values():
            if writer.missing:
                say = f"what was acknowledged to {writer.name} is there"
                self.violation(own, say, str(sorted(writer.missing)[:10]).encode(), b"")


class Ledger:
    """All streams of one store, by name; and those whose names have had another life since."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}

    def open(self, name: str, kind: str, source: Stream | None = None, base: int = 0) -> Stream:
        stream = self.streams[name] = Stream(name, kind, source, base)
        return stream

    def living(self) -> list[Stream]:
        """Those that exist for everybody, and that nobody has asked to delete."""
        known = self.streams.values()
        return [stream for stream in known if stream.created and not stream.deleting and not stream.private]

    def check(self, store: Store, now: float) -> int:
        """The store holds what is known, and nothing else. Returns how many bytes were compared."""
        report = store.report
        if (report.damage, report.lost, report.unreadable_segments) != ([], [], []):
            raise Violation(f"no damage: the store reports {report}")
        listed, compared = set(store.names()), 0
        for stream in self.streams.values():
            if stream.name in listed:
                if stream.deleted:
                    raise Violation(f"deleted stays deleted: stream {stream.name} is there")
                info, content = store.stream(stream.name).info(), read_all(store, stream.name)
                if info.tail != len(content):
                    stream.violation(
                        len(content), "a stream is as long as its tail says", b"%d" % info.tail, content[-9:]
                    )
                stream.check(content, closed=info.closed)
                compared += len(content)
            elif stream.created and not stream.deleting and not (stream.expires_at and now >= stream.expires_at):
                raise Violation(f"what was created is there: stream {stream.name} of {stream.length} bytes is not")
        unknown = listed - set(self.streams)
        if unknown:
            raise Violation(f"only streams that were asked for: {sorted(unknown)[:10]} were not")
        return compared

    def promised(self) -> dict[str, Any]:
        """What a backup that begins from here on has to hold: the length of each stream, whether it is closed."""
        return {stream.name: (stream, stream.length, stream.closed_at is not None) for stream in self.living()}

    def check_backup(self, store: Store, promised: dict[str, Any], now: float) -> None:
        """A backup holds what was promised, and what it holds beyond that is what the store held."""
        listed = set(store.names())
        for name, (stream, length, closed) in promised.items():
            if name not in listed:
                if not stream.deleting and not (stream.expires_at and now >= stream.expires_at):
                    raise Violation(f"a backup holds what was there: stream {name} is not in it")
                continue
            content = read_all(store, name)
            if len(content) < length:
                stream.violation(
                    len(content), "a backup holds what was acknowledged", stream.history[len(content) :], b""
                )
            if closed and not store.stream(name).info().closed:
                stream.violation(len(content), "a backup holds closes", b"closed", b"open")
            stream.know(0, content, "a backup")

    def as_list(self) -> list[dict[str, Any]]:
        """For those who have to find out what went wrong."""
        return [
            {
                "name": stream.name, "kind": stream.kind, "source": stream.source and stream.source.name,
                "base": stream.base, "created": stream.created, "closing": stream.closing,
                "closed_at": stream.closed_at, "deleting": stream.deleting, "deleted": stream.deleted,
                "length": stream.length, "expires_at": stream.expires_at,
                "writers": {name: [len(w.asked), w.found, sorted(w.missing)] for name, w in stream.writers.items()},
                "history": stream.history.decode("latin-1"),
            }
            for stream in self.streams.values()
        ]  # fmt: skip


def read_all(store: Store, name: str) -> bytes:
    return b"".join(_pages(store, name))


def _pages(store: Store, name: str) -> Iterator[bytes]:
    chunk = store.stream(name).read()
    yield chunk.data
    while not chunk.up_to_date:
        chunk = store.stream(name).read(chunk.next_offset)
        yield chunk.data
