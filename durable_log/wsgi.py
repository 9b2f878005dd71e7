"""The HTTP face for servers with threads: a WSGI application that reads requests, runs them on a store and sends what
comes back.

Law of this room: it decides nothing, as ``asgi``, whose twin it is: ``protocol`` says what a request means and what a
result looks like, the store what happens to a stream. A request runs on the server's thread for it, and a live one
keeps that thread for as long as it waits. WSGI tells nobody of a departure: it is noticed by the heartbeat that can't
be sent. Any number of threads may call the application.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

from durable_log._http.blocking_gate import BlockingGate
from durable_log._http.settings import check_seconds, responses
from durable_log.access import Authorize
from durable_log.errors import DurableLogError, OffsetOutOfRange, StreamGone, StreamNotFound
from durable_log.model import Chunk, Delete, StreamInfo
from durable_log.protocol import request as requests
from durable_log.protocol import sse
from durable_log.protocol.body import declared_length, incomplete, too_large
from durable_log.protocol.cors import Cors
from durable_log.protocol.names import Mount
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import Fork, Get, Head, Parsed, Post, Preflight, Put
from durable_log.protocol.response import CacheScope, Response, Responses, location
from durable_log.protocol.subscriptions import Control
from durable_log.protocol.tokens import JITTER_SECONDS_MAX, cursor

if TYPE_CHECKING:
    from durable_log.store import Store, Stream

Environ = dict[str, Any]
Answer = tuple[Response, Iterable[bytes]]
Handler = Callable[[Any, "Request"], Answer]

EVENT_CHUNK_BYTES: Final = 256 * 2**10
ALL_ORIGINS: Final = Cors()
CLOSING_SECONDS: Final = 0.5
"""How often a thread that waits looks whether the server is to end."""

log: Final = logging.getLogger("durable_log")


def app(
    store: Store,
    *,
    prefix: str = "",
    long_poll_seconds: float = 20.0,
    sse_seconds: float = 60.0,
    heartbeat_seconds: float = 15.0,
    gap_seconds: float = 1.0,
    authorize: Authorize | None = None,
    cache_control: CacheScope = "private",
    cors: Cors | None = ALL_ORIGINS,
) -> App:
    """The Durable Streams protocol (PROTOCOL.md §5) on a store, as a WSGI application. Its settings are those of
    :func:`durable_log.asgi.app`; there are no subscriptions. ``authorize`` is called on the thread of the request, so
    it may wait; what it returns to be awaited is awaited on an event loop on a thread of its own.

    Each live viewer takes a thread of the server: give it as many as there may be viewers, and a time-out after which a
    client that takes nothing is cut off. Raises :class:`InvalidOption` as that one does.
    """
    check_seconds(
        gap_seconds, long_poll_seconds=long_poll_seconds, sse_seconds=sse_seconds, heartbeat_seconds=heartbeat_seconds
    )
    limits = Limits(long_poll_seconds, sse_seconds, heartbeat_seconds, gap_seconds)
    answers = responses(prefix, authorize, cache_control, cors)
    return App(store, BlockingGate(authorize), prefix, limits, answers, cors)


class Limits(NamedTuple):
    """How long things last, in seconds; see :func:`app`."""

    long_poll: float
    sse: float
    heartbeat: float
    gap: float

    def within(self, seconds: float | None) -> Limits:
        """The same, but no live response lasts longer than ``seconds``."""
        if seconds is None:
            return self
        return self._replace(long_poll=min(self.long_poll, seconds), sse=min(self.sse, seconds))


class Request:
    """What WSGI gives an application for one request, in the terms of ``protocol``. ``seconds``: for how long it is
    allowed, None for as long as it takes.
    """

    def __init__(self, environ: Environ, prefix: str) -> None:
        self.seconds: float | None = None
        self._environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.mount = Mount(environ.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace"), prefix)
        # Servers pass the path decoded; a slash and an escaped one are the same here anyway.
        self.path = quote((environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]).encode("latin-1")).encode()
        self.query: bytes = environ.get("QUERY_STRING", "").encode("latin-1")
        self.headers = [
            (key[5:].replace("_", "-").lower().encode(), value.encode("latin-1"))
            for key, value in environ.items()
            if key.startswith("HTTP_")
        ]
        for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            if environ.get(key):
                self.headers.append((key.replace("_", "-").lower().encode(), environ[key].encode("latin-1")))

    def ask(self, gate: BlockingGate, parsed: Parsed) -> None:
        """Raises :class:`Refusal` or :class:`StreamNotFound` if it is not allowed."""
        self.seconds = gate.check(parsed, self._environ, self.headers)

    def url(self, name: str) -> bytes:
        """The address of the stream that it is about, as the client used it."""
        environ = self._environ
        host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
        return location(environ["wsgi.url_scheme"], host.encode("latin-1"), self.path, self.mount, name)

    def body(self, limit: int) -> bytes:
        """Raises :class:`Refusal` if there is more of it than ``limit``, if the client left before its end, or if only
        the server could tell where it ends, and does not.
        """
        declared, ends = declared_length(self.headers), self._environ.get("wsgi.input_terminated")
        if "HTTP_TRANSFER_ENCODING" in self._environ:
            declared = 0
            if not ends:
                raise Refusal(411, "length_required", "this server takes no chunked bodies; send Content-Length")
        if declared > limit:
            raise too_large(limit)
        if not declared and not ends:
            return b""
        source, parts, left = self._environ["wsgi.input"], [], declared or limit + 1
        while left and (part := source.read(left)):
            parts.append(part)
            left -= len(part)
        if declared and left:
            raise incomplete(left)
        if not declared and not left:
            raise too_large(limit)
        return b"".join(parts)


class App:
    """The application; made by :func:`app`."""

    def __init__(
        self, store: Store, gate: BlockingGate, prefix: str, limits: Limits, responses: Responses, cors: Cors | None
    ) -> None:
        self._store, self._gate, self._prefix, self._limits, self._responses = store, gate, prefix, limits, responses
        self._cors = cors
        self._closing = threading.Event()
        self._handlers: Mapping[type[Parsed], Handler] = {
            Put: self._create,
            Post: self._append,
            Get: self._read,
            Head: self._describe,
            Delete: self._delete,
            Preflight: lambda _parsed, _request: (self._responses.preflight(), ()),
            Control: self._refuse,
        }

    def begin_shutdown(self) -> None:
        """End all live responses soon: long-polls answer 204, event streams end after what is there by now. Returns at
        once and may be called from any thread and from a signal handler.
        """
        self._closing.set()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request, in the terms of WSGI."""
        method = environ["REQUEST_METHOD"]
        try:
            response, body = self._answer(Request(environ, self._prefix))
        except Exception as error:  # noqa: BLE001 - whatever happens inside, the client gets an answer
            response = self._failed(environ, error)
            body = (response.body,)
        if self._cors is not None:
            response.headers.extend(self._cors.of_origin(environ.get("HTTP_ORIGIN", "").encode("latin-1")))
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
        return () if method == "HEAD" else body

    def _failed(self, environ: Environ, error: Exception) -> Response:
        method, path = environ["REQUEST_METHOD"], quote(environ["PATH_INFO"].encode("latin-1"))
        if isinstance(error, Refusal):
            return self._responses.refused(error)
        if not isinstance(error, DurableLogError):
            log.error("%s %s", method, path, exc_info=error)
            return self._responses.broken()
        response = self._responses.failed(error, method)
        if response.status >= 500:
            log.error("%s %s: %s", method, path, error)
        return response

    def _answer(self, request: Request) -> Answer:
        parsed = requests.parse(request.method, request.path, request.query, request.headers, request.mount)
        request.ask(self._gate, parsed)
        return self._handlers[type(parsed)](parsed, request)

    def _create(self, put: Put, request: Request) -> Answer:
        body = request.body(self._store.options.record_bytes_max)
        number = None
        if put.fork is not None:
            put, number = self._resolve(put, put.fork)
        create = requests.to_create(put, body)._replace(fork_number=number)
        return self._responses.created(create, self._store.submit(create), request.url(put.name)), ()

    def _resolve(self, put: Put, fork: Fork) -> tuple[Put, int]:
        try:
            return self._resolve_by(fork.source, put, fork)
        except (StreamNotFound, StreamGone):
            # A fork outlives its source and knows the same of itself: creating it again is still answered.
            with contextlib.suppress(StreamNotFound, StreamGone):
                return self._resolve_by(put.name, put, fork)[0], 0
            raise

    def _resolve_by(self, name: str, put: Put, fork: Fork) -> tuple[Put, int]:
        info = self._store.stream(name).info()
        point = fork.anchor
        if point is not None and requests.needs_source(fork, info.content_type):
            point = self._store.fork_point(name, point, fork.sub_offset, info.number)
        return requests.resolve(put, info.content_type, point), info.number

    def _append(self, post: Post, request: Request) -> Answer:
        append = requests.to_append(post, request.body(self._store.options.record_bytes_max))
        patience = 0.0 if append.producer is None else self._limits.gap
        return self._responses.appended(append, self._store.append_in_order(append, patience)), ()

    def _delete(self, delete: Delete, _request: Request) -> Answer:
        self._store.submit(delete)
        return self._responses.deleted(), ()

    def _refuse(self, _control: Control, _request: Request) -> Answer:
        raise Refusal(404, "reserved", "control APIs are not among what a server with threads has")

    def _describe(self, head: Head, _request: Request) -> Answer:
        return self._responses.described(self._store.stream(head.name).info()), ()

    def _read(self, get: Get, request: Request) -> Answer:
        store, limits = self._store, self._limits.within(request.seconds)
        stream = store.stream(get.name)
        # Asked before the read: if the name gets another life between, the tag is one of a stream that is gone.
        info, now = stream.info(), store.clock()
        position = cursor(now, get.cursor, 1 + secrets.randbelow(JITTER_SECONDS_MAX))
        page_bytes = store.options.chunk_bytes_max
        if get.live == "sse":
            viewer = Viewer(stream, info, self._closing, min(EVENT_CHUNK_BYTES, page_bytes))
            chunk = viewer.read(get.offset)
            return self._responses.events(info.content_type), self._events(viewer, chunk, position, limits)
        if get.live is None:
            chunk = stream.read(get.offset)
        else:
            chunk = Viewer(stream, info, self._closing, page_bytes).poll(get.offset, limits.long_poll)
        response = self._responses.page(get, info, chunk, store.store_id, store.clock(), position)
        return response, (response.body,)

    def _events(self, viewer: Viewer, chunk: Chunk, first_cursor: int, limits: Limits) -> Iterator[bytes]:
        """The body of one event stream; an error can only end it, and the client comes back for more."""
        try:
            yield from self._follow(viewer, chunk, first_cursor, limits)
        except (StreamNotFound, StreamGone, OffsetOutOfRange):
            pass  # deleted or trimmed under its viewers: their next request says so
        except Exception:
            log.exception("stream %r: an event stream ends early", viewer.info.name)

    def _follow(self, viewer: Viewer, chunk: Chunk, first_cursor: int, limits: Limits) -> Iterator[bytes]:
        until = time.monotonic() + limits.sse
        kind, pulse = sse.encoding(viewer.info.content_type), viewer.pulse(limits.heartbeat)
        greeted = last = False
        while True:
            event, taken = sse.data_event(kind, chunk.data, chunk.closed)
            sent = chunk.offset + taken
            if event or chunk.closed or not greeted:
                greeted = True
                position = max(first_cursor, cursor(self._store.clock(), None, 0))
                yield event + sse.control_event(sent, position, chunk.up_to_date, chunk.closed)
            if chunk.closed or last:
                return
            last = viewer.is_over(until)
            # What is held back is not waited for again: only what comes after it can release it.
            while chunk.up_to_date and not last and not viewer.wait(chunk.next_offset, until, pulse):
                viewer.touch()
                yield sse.HEARTBEAT
                last = viewer.is_over(until)
            chunk = viewer.read(sent)


class Viewer(NamedTuple):
    """What a live response follows: one life of one stream, in chunks of at most ``chunk_bytes``."""

    stream: Stream
    info: StreamInfo
    closing: threading.Event
    chunk_bytes: int

    def read(self, offset: int) -> Chunk:
        """A chunk of this life. When it is over, raises :class:`StreamNotFound`, or :class:`StreamGone` if the stream
        is kept for its forks.
        """
        try:
            return self.stream.read(offset, limit=self.chunk_bytes, number=self.info.number)
        except StreamGone as error:
            self.stream.info()
            raise StreamNotFound(self.info.name) from error

    def is_over(self, until: float) -> bool:
        """Whether its time is, or that of the server."""
        return self.closing.is_set() or time.monotonic() >= until

    def wait(self, offset: int, until: float, pulse: float) -> bool:
        """Whether there is something beyond ``offset`` before it is over, within ``pulse`` seconds. Raises as ``read``
        does.
        """
        until = min(until, time.monotonic() + pulse)
        try:
            while not self.is_over(until):
                left = min(until - time.monotonic(), CLOSING_SECONDS)
                if self.stream.wait(offset, left, number=self.info.number):
                    return True
        except StreamGone as error:
            self.stream.info()
            raise StreamNotFound(self.info.name) from error
        return False

    def poll(self, offset: int, seconds: float) -> Chunk:
        """The first chunk that says something, or an empty one after ``seconds``."""
        until = time.monotonic() + seconds
        chunk = self.read(offset)
        while not chunk.data and not chunk.closed and not self.is_over(until):
            if self.wait(chunk.next_offset, until, self.pulse(seconds)):
                chunk = self.read(chunk.next_offset)
            else:
                self.touch()
        return chunk

    def pulse(self, seconds: float) -> float:
        """At most ``seconds``, and at most half a sliding time to live, which a viewer keeps from running out."""
        return seconds if self.info.ttl is None else min(seconds, max(self.info.ttl, 1) / 2)

    def touch(self) -> None:
        """A viewer's presence is use (PROTOCOL.md §5.1)."""
        if self.info.ttl is not None:
            self.stream.touch()
