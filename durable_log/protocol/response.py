"""From results and errors to HTTP responses.

Law of this room: every status, header and error body that leaves the server is made here. What a client may know of an
error is its code and a message; messages of errors that are the server's own are fixed texts, so that no path, no file
name and no traceback travels. ``Responses`` is immutable after construction. Pure; any thread.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from xxhash import xxh3_64_hexdigest

from durable_log import errors
from durable_log.errors import DurableLogError, OffsetOutOfRange
from durable_log.model import NOW, Append, Appended, Chunk, Create, Created, StreamInfo, is_json, is_text
from durable_log.protocol import json_mode, sse
from durable_log.protocol.cors import Cors, Header
from durable_log.protocol.names import Mount
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import METHODS, Get
from durable_log.protocol.tokens import offset_token, timestamp

CacheScope = Literal["public", "private"]

MAX_AGE_SECONDS: Final = 60
STALE_SECONDS: Final = 300
"""How much longer a cache may use what it has while it asks for something newer."""

_CLOSED: Final[Header] = (b"stream-closed", b"true")
_UP_TO_DATE: Final[Header] = (b"stream-up-to-date", b"true")
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_REVALIDATE: Final[Header] = (b"cache-control", b"private, no-cache")
_EMPTY: Final[Header] = (b"content-length", b"0")
_ENTITY_TAG: Final = re.compile(rb'"[^"]*"')

_STATUS: Final[Mapping[type[DurableLogError], int]] = {
    errors.InvalidName: 400,
    errors.InvalidData: 400,
    errors.InvalidProducer: 400,
    errors.OffsetOutOfRange: 400,
    errors.StaleEpoch: 403,
    errors.StreamNotFound: 404,
    errors.StreamExists: 409,
    errors.StreamClosed: 409,
    errors.ContentTypeMismatch: 409,
    errors.SequenceConflict: 409,
    errors.SequenceGap: 409,
    errors.StreamGone: 410,
    errors.RecordTooLarge: 413,
    errors.Corruption: 500,
    errors.CommitFailed: 503,
    errors.StoreClosed: 503,
    errors.StoreFull: 507,
}
_PUT_STATUS: Final[Mapping[type[DurableLogError], int]] = {
    errors.InvalidOption: 400,
    errors.OffsetOutOfRange: 400,
    errors.StreamGone: 409,
}
"""What is another answer to a PUT than to anything else: there it is about a fork's source (PROTOCOL.md §4.2)."""

_SERVER_MESSAGES: Final[Mapping[int, str]] = {
    500: "the server could not carry out the request; its log says why",
    503: "the store takes no changes until it is opened again; retry later, with a producer id to be safe",
    507: "the store has no room left; nothing was appended; delete streams or retry later",
}
_CORRUPTION: Final = "stored bytes of this stream are damaged; the server's log says where"


def _producer_state(error: Any) -> list[Header]:
    return [
        (b"producer-expected-seq", b"%d" % error.expected),
        (b"producer-received-seq", b"%d" % error.received),
    ]


_ERROR_HEADERS: Final[Mapping[type[DurableLogError], Callable[[Any], list[Header]]]] = {
    errors.StreamClosed: lambda error: [_CLOSED, (b"stream-next-offset", offset_token(error.tail))],
    errors.StaleEpoch: lambda error: [(b"producer-epoch", b"%d" % error.current)],
    errors.SequenceGap: _producer_state,
    errors.CommitFailed: lambda _: [(b"retry-after", b"5")],
    errors.StoreClosed: lambda _: [(b"retry-after", b"5")],
}


class Response(NamedTuple):
    """A whole response; ``body`` is empty where the status or the method allows none."""

    status: int
    headers: list[Header]
    body: bytes = b""


def entity_tag(store_id: str, number: int, chunk: Chunk) -> bytes:
    """The ETag of a chunk: the stream's life, both ends, the bytes and what else is said of it (PROTOCOL.md §10.1)."""
    # A backup is the same store, and goes on with other bytes: only a hash of them tells what a client has.
    hashed = xxh3_64_hexdigest(chunk.data).encode()
    state = b":c" if chunk.closed else b":t" if chunk.up_to_date else b""
    return b'"%b-%d:%d:%d:%b%b"' % (store_id.encode(), number, chunk.offset, chunk.next_offset, hashed, state)


def matches(condition: bytes, tag: bytes) -> bool:
    """Whether an ``If-None-Match`` of ``*`` or a list, weak or strong, names ``tag`` (RFC 9110 §13.1.2)."""
    return condition.strip() == b"*" or tag in _ENTITY_TAG.findall(condition)


def address(scheme: str, host: bytes, mount: Mount, name: str) -> bytes:
    """The absolute URL of what has that name below a mount point."""
    return b"%b://%b%b" % (scheme.encode(), host, quote(f"{mount.path}/{name}").encode())


def location(scheme: str, host: bytes, path: bytes, mount: Mount, name: str) -> bytes:
    """The absolute URL of a stream: the one that the client used, where (percent-encoded) ``path`` tells what it was.

    It does not where the server has taken the mount point off, and where that is escaped in a way of the client's own,
    as in ``/%761/stream/x``: then it is the stream's :func:`address`.
    """
    root = quote(mount.root.rstrip("/")).encode()
    if path.startswith(root) and path.startswith(b"/", len(root)):
        return b"%b://%b%b" % (scheme.encode(), host, path)
    return address(scheme, host, mount, name)


class Responses:
    """The responses of one application.

    ``cors``: which pages of other origins may use the streams, None for none. ``cache``: whether shared caches may
    store what catch-up and long-poll reads return (PROTOCOL.md §10.1); None if every use of it has to be asked for.
    """

    def __init__(self, *, cors: Cors | None, cache: CacheScope | None) -> None:
        methods = ", ".join(METHODS).encode()
        self._base: list[Header] = [(b"x-content-type-options", b"nosniff")]
        self._preflight: list[Header] = [(b"allow", methods)]
        if cors is None:
            self._base.append((b"cross-origin-resource-policy", b"same-origin"))
        else:
            self._base += cors.of_all()
            self._preflight += cors.of_preflight(methods)
        self._cache = None if cache is None else cache.encode()

    def preflight(self) -> Response:
        """What browsers may send."""
        return Response(204, self._base + self._preflight)

    def refused(self, refusal: Refusal) -> Response:
        """The request was wrong."""
        return self._error(refusal.status, refusal.code, refusal.message, list(refusal.headers), **refusal.details)

    def failed(self, error: DurableLogError, method: str) -> Response:
        """The store refused the request, or could not carry it out."""
        status = _STATUS.get(type(error), 500)
        if method == "PUT":
            status = _PUT_STATUS.get(type(error), status)
        elif isinstance(error, OffsetOutOfRange) and error.offset < error.first:
            status = 410
        message = _CORRUPTION if isinstance(error, errors.Corruption) else _SERVER_MESSAGES.get(status, str(error))
        more = _ERROR_HEADERS.get(type(error))
        return self._error(status, error.code, message, more(error) if more else [])

    def broken(self) -> Response:
        """Something happened that nobody foresaw."""
        return self._error(500, "internal_error", _SERVER_MESSAGES[500], [])

    def _error(self, status: int, code: str, message: str, more: list[Header], **details: object) -> Response:
        return self.json(status, {"error": {"code": code, "message": message, **details}}, more)

    def json(
        self, status: int, value: object, more: list[Header], content_type: bytes = b"application/json"
    ) -> Response:
        """A value as JSON; nobody stores it unless ``more`` says so."""
        body = json.dumps(value).encode() + b"\n"
        headers = [*self._base, *more, (b"content-type", content_type), (b"content-length", b"%d" % len(body))]
        if not any(key == b"cache-control" for key, _ in more):
            headers.append(_NO_STORE)
        return Response(status, headers, body)

    def created(self, request: Create, result: Created, location: bytes) -> Response:
        """201 for a new stream, 200 for one that was there with this configuration (PROTOCOL.md §5.1)."""
        headers = [
            *self._base,
            (b"content-type", result.content_type.encode("latin-1")),
            (b"stream-next-offset", offset_token(result.next_offset)),
            (b"location", location),
            *_lifetime(request.config.ttl, request.config.expires_at),
            _EMPTY,
        ]
        if result.closed:
            headers.append(_CLOSED)
        return Response(200 if result.existed else 201, headers)

    def appended(self, request: Append, result: Appended) -> Response:
        """200 for new data of an idempotent producer, 204 for everything else (PROTOCOL.md §5.2, §5.2.1)."""
        headers = [*self._base, (b"stream-next-offset", offset_token(result.next_offset))]
        if result.closed:
            headers.append(_CLOSED)
        producer = request.producer
        if producer is None:
            return Response(204, headers)
        highest = producer.seq if result.producer_seq is None else result.producer_seq
        headers.append((b"producer-epoch", b"%d" % producer.epoch))
        headers.append((b"producer-seq", b"%d" % highest))
        if result.duplicate or not request.data:
            return Response(204, headers)
        headers.append(_EMPTY)
        return Response(200, headers)

    def deleted(self) -> Response:
        """The stream is gone (PROTOCOL.md §5.4)."""
        return Response(204, list(self._base))

    def described(self, info: StreamInfo) -> Response:
        """A stream's metadata (PROTOCOL.md §5.5)."""
        headers = [
            *self._base,
            (b"content-type", info.content_type.encode("latin-1")),
            (b"stream-next-offset", offset_token(info.tail)),
            *_lifetime(info.ttl, info.expires_at),
            _NO_STORE,
        ]
        if info.closed:
            headers.append(_CLOSED)
        return Response(200, headers)

    def page(self, request: Get, info: StreamInfo, chunk: Chunk, store_id: str, now: float, cursor: int) -> Response:
        """A chunk, for catch-up and for a long-poll that has something to say (PROTOCOL.md §5.6, §5.7).

        304 without a body if the client has it already. ``now`` is in seconds since the epoch.
        """
        chunk = _whole_characters(chunk, info.content_type)
        headers = [*self._base, *_position(chunk)]
        if request.live is not None:
            if not chunk.data:
                return self._idle(headers, chunk, cursor)
            if not chunk.closed:
                headers.append((b"stream-cursor", b"%d" % cursor))
        if request.offset == NOW:
            headers.append(_NO_STORE)
        else:
            tag = entity_tag(store_id, info.number, chunk)
            headers += ((b"etag", tag), self._cache_control(info, now) if chunk.data else _REVALIDATE)
            if request.if_none_match is not None and matches(request.if_none_match, tag):
                return Response(304, headers)
        body = json_mode.to_array(chunk.data) if is_json(info.content_type) else chunk.data
        headers.append((b"content-type", info.content_type.encode("latin-1")))
        headers.append((b"content-length", b"%d" % len(body)))
        return Response(200, headers, body)

    def _idle(self, headers: list[Header], chunk: Chunk, cursor: int) -> Response:
        """A long-poll that ends at the tail, by time-out or because the stream is closed (PROTOCOL.md §5.7)."""
        headers.append(_NO_STORE)
        if not chunk.closed:
            headers.append((b"stream-cursor", b"%d" % cursor))
        return Response(204, headers)

    def _cache_control(self, info: StreamInfo, now: float) -> Header:
        """Never longer than the stream has left to live."""
        if self._cache is None:
            return _REVALIDATE
        lives = (info.ttl, None if info.expires_at is None else int(info.expires_at - now))
        left = min((MAX_AGE_SECONDS + STALE_SECONDS, *(life for life in lives if life is not None)))
        if left <= 0:
            return _NO_STORE
        if left <= MAX_AGE_SECONDS:
            return b"cache-control", b"%b, max-age=%d" % (self._cache, left)
        stale = left - MAX_AGE_SECONDS
        return b"cache-control", b"%b, max-age=%d, stale-while-revalidate=%d" % (self._cache, MAX_AGE_SECONDS, stale)

    def events(self, content_type: str) -> Response:
        """The head of an event stream (PROTOCOL.md §5.8); proxies are told neither to store nor to hold it back."""
        headers = [
            *self._base,
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-cache, no-store, no-transform"),
            (b"x-accel-buffering", b"no"),
        ]
        if sse.encoding(content_type) == "base64":
            headers.append((b"stream-sse-data-encoding", b"base64"))
        return Response(200, headers)


def _whole_characters(chunk: Chunk, content_type: str) -> Chunk:
    """A page of text less the character that only the next page completes: clients decode page by page."""
    if chunk.up_to_date or is_json(content_type) or not is_text(content_type):
        return chunk
    last = chunk.data[-4:]
    cut = len(last) - codecs.utf_8_decode(last, "replace")[1]
    if not 0 < cut < len(chunk.data):
        return chunk
    return chunk._replace(data=chunk.data[:-cut], next_offset=chunk.next_offset - cut)


def _position(chunk: Chunk) -> list[Header]:
    headers = [(b"stream-next-offset", offset_token(chunk.next_offset))]
    if chunk.up_to_date:
        headers.append(_UP_TO_DATE)
    if chunk.closed:
        headers.append(_CLOSED)
    return headers


def _lifetime(ttl: int | None, expires_at: float | None) -> list[Header]:
    headers: list[Header] = []
    if ttl is not None:
        headers.append((b"stream-ttl", b"%d" % ttl))
    if expires_at is not None:
        headers.append((b"stream-expires-at", timestamp(expires_at)))
    return headers
