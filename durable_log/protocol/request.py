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
from typing import Final, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from durable_log.errors import InvalidName
from durable_log.model import (
    CONTENT_TYPE_DEFAULT,
    PRODUCER_INT_MAX,
    SEQ_BYTES_MAX,
    START,
    Append,
    Create,
    Delete,
    Producer,
    StreamConfig,
    check_name,
    is_json,
)
from durable_log.protocol import json_mode
from durable_log.protocol.tokens import parse_cursor, parse_offset

Live = Literal["long-poll", "sse"]
Headers = Iterable[tuple[bytes, bytes]]

METHODS: Final = ("GET", "HEAD", "OPTIONS", "PUT", "POST", "DELETE")
RESERVED_SEGMENT: Final = "__ds"
"""No stream has this first path segment: it belongs to the control APIs (PROTOCOL.md §6)."""

CONTENT_TYPE_BYTES_MAX: Final = 256

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
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTENT_TYPE: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+[ \t]*(;[\t\x20-\x7e]*)?")
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-5][0-9]))"
)


class Refusal(Exception):
    """The request cannot be carried out; ``status`` and ``code`` say why to programs, ``message`` to people."""

    def __init__(self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers


class Put(NamedTuple):
    """Create a stream (PROTOCOL.md §5.1); the body is its first record."""

    name: str
    config: StreamConfig
    closed: bool


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


Parsed = Put | Post | Get | Head | Delete | Preflight


def stream_name(path: bytes, root: str = "", prefix: str = "") -> str:
    """The name of the stream that a percent-encoded path addresses below ``root`` and ``prefix``.

    ``root`` is where the application is mounted; servers differ in whether ``path`` still begins with it, and both are
    understood. ``a%2Fb`` and ``a/b`` are one name. Raises :class:`Refusal`: 400 for what is not percent-encoded UTF-8
    of 1 to 1,024 bytes, 404 for a path outside the prefix, for an empty name and for the reserved ``__ds``.
    """
    full = _decode_path(path)
    below = _below(full, root.rstrip("/"))
    rest = _below(full if below is None else below, prefix.rstrip("/"))
    if not rest or rest == "/":
        raise Refusal(404, "not_found", f"{full!r} addresses no stream; streams are at {root}{prefix}/<name>")
    name = rest[1:]
    if name.partition("/")[0] == RESERVED_SEGMENT:
        raise Refusal(
            404, "reserved", f"paths below {RESERVED_SEGMENT}/ are reserved for control APIs, which this server has not"
        )
    try:
        return check_name(name)
    except InvalidName as error:
        raise Refusal(400, error.code, str(error)) from error


def _decode_path(path: bytes) -> str:
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise Refusal(400, "invalid_name", "the path holds a '%' that two hexadecimal digits do not follow")
        path = unquote_to_bytes(path)
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal(400, "invalid_name", f"the path is not valid UTF-8 at byte {error.start}") from error


def _below(path: str, parent: str) -> str | None:
    """What follows ``parent`` in ``path``, from the slash on; None if the path is somewhere else."""
    if not path.startswith(parent):
        return None
    rest = path[len(parent) :]
    return rest if not rest or rest[0] == "/" else None


def parse(method: str, path: bytes, query: bytes, headers: Headers, *, root: str = "", prefix: str = "") -> Parsed:
    """What a request asks for, judged by its head alone; ``path`` is percent-encoded, see :func:`stream_name`.

    Raises :class:`Refusal`, or :class:`InvalidProducer` for a claim that no stream can accept.
    """
    if method == "OPTIONS":
        return Preflight()
    parser = _PARSERS.get(method)
    if parser is None:
        allow = ", ".join(METHODS)
        refused = f"{method[:40]!r} is not a method of streams; use one of {allow}"
        raise Refusal(405, "method_not_allowed", refused, ((b"allow", allow.encode()),))
    return parser(stream_name(path, root, prefix), query, headers)


def declared_length(headers: Headers) -> int:
    """What ``Content-Length`` says, in bytes; 0 if it says nothing, as chunked bodies do."""
    for key, value in headers:
        if key == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


def too_large(limit: int) -> Refusal:
    """The answer to a body of more than ``limit`` bytes, declared or arriving."""
    return Refusal(
        413, "record_too_large", f"the body is over the limit of {limit} bytes; split it into several appends"
    )


def to_create(put: Put, body: bytes) -> Create:
    """The request to the store. Raises :class:`InvalidData` if the type is JSON and the body is not."""
    if body and is_json(put.config.content_type):
        body, _ = json_mode.split(body)
    return Create(put.name, put.config, body, put.closed)


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


def _put(name: str, _query: bytes, headers: Headers) -> Put:
    found = _pick(headers)
    _refuse_forks(found)
    content_type = found.get(b"content-type")
    ttl, expires_at = found.get(b"stream-ttl"), found.get(b"stream-expires-at")
    if ttl is not None and expires_at is not None:
        raise Refusal(400, "invalid_expiry", "Stream-TTL and Stream-Expires-At exclude each other; send one of them")
    config = StreamConfig(
        CONTENT_TYPE_DEFAULT if content_type is None else _content_type(content_type),
        None if ttl is None else _integer("Stream-TTL", ttl),
        None if expires_at is None else _timestamp("Stream-Expires-At", expires_at),
    )
    return Put(name, config, _closed(found))


def _post(name: str, _query: bytes, headers: Headers) -> Post:
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


def _get(name: str, query: bytes, headers: Headers) -> Get:
    parameters = _parameters(query)
    live, token = parameters.get("live"), parameters.get("offset")
    mode: Live | None = None
    if live is not None:
        mode = _LIVE.get(live)
        if mode is None:
            raise Refusal(400, "invalid_live", f"live is 'long-poll' or 'sse', not {live[:40]!r}")
        if token is None:
            raise Refusal(400, "missing_offset", f"live={live} needs an offset; -1 is the start, now the tail")
    offset = START if token is None else parse_offset(token)
    if offset is None:
        raise Refusal(
            400, "invalid_offset", f"{(token or '')[:80]!r} is no offset; use one that the server gave you, -1 or now"
        )
    conditions = [value for key, value in headers if key == b"if-none-match"]
    return Get(
        name, offset, mode, parse_cursor(parameters.get("cursor", "")), b", ".join(conditions) if conditions else None
    )


def _head(name: str, _query: bytes, _headers: Headers) -> Head:
    return Head(name)


def _delete(name: str, _query: bytes, _headers: Headers) -> Delete:
    return Delete(name)


_PARSERS: Final[Mapping[str, Callable[[str, bytes, Headers], Parsed]]] = {
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
    """Seconds since the epoch of an RFC 3339 timestamp."""
    text = value.decode("latin-1")
    match = _TIMESTAMP.fullmatch(text)
    try:
        if match is None:
            raise ValueError(text)
        year, month, day, hour, minute, second, fraction, zulu, sign, ahead_hours, ahead_minutes = match.groups()
        offset = timedelta() if zulu else timedelta(hours=int(ahead_hours), minutes=int(ahead_minutes))
        zone = timezone(-offset if sign == "-" else offset)
        micros = int((fraction or "0").ljust(6, "0")[:6])
        moment = datetime(int(year), int(month), int(day), int(hour), int(minute), int(second), micros, zone)
        return moment.timestamp()
    except (ValueError, OverflowError) as error:
        refused = f"{header} is an RFC 3339 timestamp such as 2030-01-31T12:00:00Z, not {text[:40]!r}"
        raise Refusal(400, "invalid_timestamp", refused) from error


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
    missing = [key for key in _PRODUCER if key not in found]
    if len(missing) == len(_PRODUCER):
        return None
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


def _refuse_forks(found: Mapping[bytes, bytes]) -> None:
    if not any(key in found for key in _FORK):
        return
    if b"stream-forked-from" not in found:
        raise Refusal(400, "invalid_fork", "Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From")
    raise Refusal(
        501, "forks_unsupported", "this server does not fork streams; create the stream and copy what it needs"
    )
