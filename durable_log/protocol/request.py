"""From the parts of an HTTP request to what it asks for, or to why it cannot be.

Law of this room: everything that can be decided about a request without looking at a stream is decided here, and every
way to refuse one is a :class:`Refusal` with its status. Parsing happens in two steps, so that a request that is wrong
in its head is refused before its body is read: ``parse`` takes method, path, query and headers, ``to_create`` and
``to_append`` add the body. What repeats a header or a parameter, or is nearly right, is refused, never guessed at.
Pure; any thread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl

from durable_log.model import (
    CONTENT_TYPE_DEFAULT,
    EARLIEST,
    EXPIRES_AT_MAX,
    EXPIRES_AT_MIN,
    PRODUCER_INT_MAX,
    SEQ_BYTES_MAX,
    Append,
    Create,
    Delete,
    Producer,
    StreamConfig,
    is_json,
)
from durable_log.protocol import json_mode, subscriptions
from durable_log.protocol.names import UNMOUNTED, Mount, Reserved, stream_name
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.subscriptions import Control
from durable_log.protocol.tokens import parse_cursor, parse_offset

Live = Literal["long-poll", "sse"]
Headers = Iterable[tuple[bytes, bytes]]
NameOf = Callable[[bytes], str]

METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE")
CONTENT_TYPE_BYTES_MAX: Final = 256
CONTENT_TYPES_KEPT: Final = 1024
"""So many are not looked at again."""

_ONCE: Final = frozenset(
    (
        b"content-type",
        b"stream-ttl",
        b"stream-expires-at",
        b"stream-closed",
        b"stream-seq",
        b"stream-forked-from",
        b"stream-fork-offset",
        b"stream-fork-sub-offset",
        b"producer-id",
        b"producer-epoch",
        b"producer-seq",
    )
)
_FORK: Final = (b"stream-forked-from", b"stream-fork-offset", b"stream-fork-sub-offset")
_PRODUCER: Final = (b"producer-id", b"producer-epoch", b"producer-seq")
_PARAMETERS: Final = frozenset(("offset", "live", "cursor"))
_LIVE: Final[Mapping[str, Live]] = {"long-poll": "long-poll", "sse": "sse"}

_INTEGER: Final = re.compile(rb"0|[1-9][0-9]{0,15}")
_CONTENT_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\t\x20-\x7e]*)?")
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-5][0-9]))"
)


class Fork(NamedTuple):
    """Where a new stream leaves another one (PROTOCOL.md §4.2): ``sub_offset`` bytes, on JSON streams messages, past
    ``anchor``; at the tail if that is None.
    """

    source: str
    anchor: int | None
    sub_offset: int


class Put(NamedTuple):
    """Create a stream (PROTOCOL.md §5.1); the body is its first record.

    The content type of a fork is empty if it is to be that of the source; see :func:`resolve`.
    """

    name: str
    config: StreamConfig
    closed: bool
    fork: Fork | None = None


class Post(NamedTuple):
    """Append to a stream, close it, or both (PROTOCOL.md §5.2, §5.3).

    ``content_type`` is as sent and unchecked: whether it counts depends on whether there is a body.
    """

    name: str
    content_type: bytes | None
    producer: Producer | None
    seq: str | None
    close: bool


class Get(NamedTuple):
    """Read a stream (PROTOCOL.md §5.6 to §5.8). ``live`` is None for catch-up."""

    name: str
    offset: int
    live: Live | None
    cursor: int | None
    if_none_match: bytes | None


class Head(NamedTuple):
    """Ask for a stream's metadata (PROTOCOL.md §5.5)."""

    name: str


class Preflight(NamedTuple):
    """A browser asks what it may send."""


Parsed = Put | Post | Get | Head | Delete | Preflight | Control


def parse(method: str, path: bytes, query: bytes, headers: Headers, mount: Mount = UNMOUNTED) -> Parsed:
    """What a request asks for, judged by its head alone; ``path`` is percent-encoded, see :func:`names.stream_name`.

    Raises :class:`Refusal`, or :class:`InvalidProducer` for a claim that no stream can accept.
    """
    if method == "OPTIONS":
        return Preflight()
    try:
        name = stream_name(path, mount)
    except Reserved as reserved:
        return subscriptions.parse(method, reserved.rest, headers)
    parser = _PARSERS.get(method)
    if parser is None:
        allow = ", ".join(METHODS)
        refused = f"{method[:40]!r} is not a method of streams; use one of {allow}"
        raise Refusal(405, "method_not_allowed", refused, ((b"allow", allow.encode()),))
    return parser(name, query, headers, lambda path: stream_name(path, mount))


def needs_source(fork: Fork, content_type: str) -> bool:
    """Whether only the source's bytes can tell where the fork leaves it: JSON is never cut inside of a message."""
    return fork.sub_offset > 0 or is_json(content_type)


def resolve(put: Put, content_type: str, point: int | None) -> Put:
    """A fork in terms of the store: its content type is that of the source unless one was sent, and it leaves the
    source at ``point``, at its tail if that is None.
    """
    assert put.fork is not None
    config = put.config if put.config.content_type else put.config._replace(content_type=content_type)
    return put._replace(config=config, fork=Fork(put.fork.source, point, 0))


def to_create(put: Put, body: bytes) -> Create:
    """The request to the store; a fork has been resolved. Raises :class:`InvalidData` if JSON is due and none there."""
    name, config, closed, fork = put
    if body and is_json(config.content_type):
        body, _ = json_mode.split(body)
    if fork is None:
        return Create(name, config, body, closed)
    return Create(name, config, body, closed, fork.source, fork.anchor)


def to_append(post: Post, body: bytes) -> Append:
    """The request to the store. Raises :class:`Refusal` for a body or a content type that is missing.

    A request that only closes has no body, and its content type counts for nothing (PROTOCOL.md §5.2).
    """
    name, content_type, producer, seq, close = post
    if not body:
        if not close:
            raise Refusal(
                400, "empty_body", "an append needs a body; without one, Stream-Closed: true closes the stream"
            )
        return Append(name, b"", producer, seq, True)
    if content_type is None:
        raise Refusal(400, "missing_content_type", "an append needs a Content-Type: that of the stream")
    given = _content_type(content_type)
    if is_json(given):
        body, count = json_mode.split(body)
        if not count:
            raise Refusal(400, "empty_array", "an append of [] holds no message; send at least one")
    return Append(name, body, producer, seq, close, content_type=given)


def _put(name: str, _query: bytes, headers: Headers, name_of: NameOf) -> Put:
    found = _pick(headers)
    fork = _fork(found, name_of)
    content_type = found.get(b"content-type")
    ttl, expires_at = found.get(b"stream-ttl"), found.get(b"stream-expires-at")
    if ttl is not None and expires_at is not None:
        raise Refusal(400, "invalid_expiry", "Stream-TTL and Stream-Expires-At exclude each other; send one of them")
    default = CONTENT_TYPE_DEFAULT if fork is None else ""
    config = StreamConfig(
        default if content_type is None else _content_type(content_type),
        None if ttl is None else _integer("Stream-TTL", ttl),
        None if expires_at is None else _timestamp("Stream-Expires-At", expires_at),
    )
    return Put(name, config, _closed(found), fork)


def _post(name: str, _query: bytes, headers: Headers, _name_of: NameOf) -> Post:
    found = _pick(headers)
    seq = found.get(b"stream-seq")
    if seq is not None and not 1 <= len(seq) <= SEQ_BYTES_MAX:
        raise Refusal(400, "invalid_seq", f"Stream-Seq is 1 to {SEQ_BYTES_MAX} bytes, not {len(seq)}")
    return Post(
        name,
        found.get(b"content-type"),
        _producer(found),
        None if seq is None else _text("Stream-Seq", seq),
        _closed(found),
    )


def _get(name: str, query: bytes, headers: Headers, _name_of: NameOf) -> Get:
    parameters = _parameters(query)
    live, token = parameters.get("live"), parameters.get("offset")
    mode: Live | None = None
    if live is not None:
        mode = _LIVE.get(live)
        if mode is None:
            raise Refusal(400, "invalid_live", f"live is 'long-poll' or 'sse', not {live[:40]!r}")
        if token is None:
            raise Refusal(400, "missing_offset", f"live={live} needs an offset; -1 is the start, now the tail")
    offset = EARLIEST if token is None else parse_offset(token)
    if offset is None:
        raise Refusal(
            400, "invalid_offset", f"{(token or '')[:80]!r} is no offset; use one that the server gave you, -1 or now"
        )
    conditions = [value for key, value in headers if key == b"if-none-match"]
    return Get(
        name, offset, mode, parse_cursor(parameters.get("cursor", "")), b", ".join(conditions) if conditions else None
    )


def _head(name: str, _query: bytes, _headers: Headers, _name_of: NameOf) -> Head:
    return Head(name)


def _delete(name: str, _query: bytes, _headers: Headers, _name_of: NameOf) -> Delete:
    return Delete(name)


_PARSERS: Final[Mapping[str, Callable[[str, bytes, Headers, NameOf], Parsed]]] = {
    "PUT": _put,
    "POST": _post,
    "GET": _get,
    "HEAD": _head,
    "DELETE": _delete,
}


def _pick(headers: Headers) -> dict[bytes, bytes]:
    """The headers of this protocol, each of which may occur once."""
    found: dict[bytes, bytes] = {}
    for key, value in headers:
        if key in _ONCE:
            if key in found:
                raise Refusal(400, "repeated_header", f"{key.decode().title()} occurs more than once; send it once")
            found[key] = value.strip(b" \t")
        elif key == b"content-encoding" and value.strip(b" \t").lower() not in (b"", b"identity"):
            refused = f"Content-Encoding {value[:40].decode('latin-1')!r} is not undone here; send the body as it is"
            raise Refusal(415, "unsupported_encoding", refused, ((b"accept-encoding", b"identity"),))
    return found


def _parameters(query: bytes) -> dict[str, str]:
    """The query parameters of this protocol, each of which may occur once; others are ignored."""
    found: dict[str, str] = {}
    if not query:
        return found
    for key, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if key in _PARAMETERS:
            if key in found:
                raise Refusal(400, "repeated_parameter", f"the parameter {key} occurs more than once; send it once")
            found[key] = value
    return found


def _text(header: str, value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "invalid_header", f"{header} is not valid UTF-8 at byte {error.start}") from error


def _integer(header: str, value: bytes) -> int:
    if not _INTEGER.fullmatch(value) or int(value) > PRODUCER_INT_MAX:
        raise Refusal(
            400,
            "invalid_integer",
            f"{header} is an integer from 0 to 2^53-1, without sign, point, exponent or leading zeros, "
            f"not {value[:40].decode('latin-1')!r}",
        )
    return int(value)


def _timestamp(header: str, value: bytes) -> float:
    """Seconds since the epoch of an RFC 3339 timestamp, to the millisecond; what is finer is cut off."""
    text = value.decode("latin-1")
    match = _TIMESTAMP.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        year, month, day, hour, minute, second, fraction, zulu, sign, ahead_hours, ahead_minutes = match.groups()
        offset = timedelta() if zulu else timedelta(hours=int(ahead_hours), minutes=int(ahead_minutes))
        zone = timezone(-offset if sign == "-" else offset)
        micros = int((fraction or "0").ljust(3, "0")[:3]) * 1000
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micros, zone)
        seconds = moment.timestamp()
        if not EXPIRES_AT_MIN <= seconds <= EXPIRES_AT_MAX:
            raise ValueError(text)
        return seconds
    except (ValueError, OverflowError) as error:
        refused = f"{header} is an RFC 3339 timestamp such as 2030-01-31T12:00:00Z, not {text[:40]!r}"
        raise Refusal(400, "invalid_timestamp", refused) from error


@lru_cache(CONTENT_TYPES_KEPT)
def _content_type(value: bytes) -> str:
    text = value.decode("latin-1")
    if len(value) > CONTENT_TYPE_BYTES_MAX or not _CONTENT_TYPE.fullmatch(text):
        raise Refusal(
            400,
            "invalid_content_type",
            f"Content-Type is type/subtype and parameters, at most {CONTENT_TYPE_BYTES_MAX} bytes, not {text[:80]!r}",
        )
    return text


def _closed(found: Mapping[bytes, bytes]) -> bool:
    """Only ``true`` closes; every other value counts as absent (PROTOCOL.md §4.1)."""
    return found.get(b"stream-closed", b"").lower() == b"true"


def _producer(found: Mapping[bytes, bytes]) -> Producer | None:
    """The claim of an idempotent producer, whose three headers go together (PROTOCOL.md §5.2.1)."""
    if found.keys().isdisjoint(_PRODUCER):
        return None
    missing = [key for key in _PRODUCER if key not in found]
    if missing:
        names = ", ".join(key.decode().title() for key in missing)
        raise Refusal(400, "invalid_producer", f"Producer-Id, Producer-Epoch and Producer-Seq go together; add {names}")
    producer = Producer(
        _text("Producer-Id", found[b"producer-id"]),
        _integer("Producer-Epoch", found[b"producer-epoch"]),
        _integer("Producer-Seq", found[b"producer-seq"]),
    )
    producer.check()
    return producer


def _fork(found: Mapping[bytes, bytes], name_of: NameOf) -> Fork | None:
    """Where the stream forks from; the source is a path of this server, decoded as the request's own is."""
    path, token, sub_offset = (found.get(key) for key in _FORK)
    if path is None:
        if token is None and sub_offset is None:
            return None
        raise Refusal(400, "invalid_fork", "Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From")
    if not path.startswith(b"/") or b"?" in path or b"#" in path:
        refused = f"Stream-Forked-From is the path of a stream of this server, not {path[:80].decode('latin-1')!r}"
        raise Refusal(400, "invalid_fork", refused)
    anchor = None if token is None else _anchor(token)
    past = 0 if sub_offset is None else _integer("Stream-Fork-Sub-Offset", sub_offset)
    if past and anchor is None:
        raise Refusal(400, "invalid_fork", "Stream-Fork-Sub-Offset counts from Stream-Fork-Offset; send both")
    return Fork(name_of(path), anchor, past)


def _anchor(token: bytes) -> int:
    """An offset that a server gave out, which -1 and now never are (PROTOCOL.md §8)."""
    text = token.decode("latin-1")
    offset = parse_offset(text)
    if offset is None or offset < 0:
        refused = f"Stream-Fork-Offset is an offset that the server gave you, not {text[:80]!r}"
        raise Refusal(400, "invalid_offset", refused)
    return offset
