"""The HTTP face: an ASGI 3 application that reads requests, runs them on a store and sends what comes back.

Law of this room: it decides nothing. What a request means and what a result looks like is ``protocol``'s business, what
happens to a stream the store's; here are only bodies, waiting, departures and the end of the process. Everything runs
on one event loop, that of the server; only ``App.begin_shutdown`` may be called from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from durable_log._http.access_log import write as write_access_log
from durable_log._http.at_once import BYTES_MAX, AtOnce, Otherwise, Respond
from durable_log._http.audience import WRITE
from durable_log._http.authorize import Gate
from durable_log._http.exchange import Exchange
from durable_log._http.live import EventFeed, Events, Limits, Live, LiveSet, Viewer, event_chunk_bytes, long_poll
from durable_log._http.settings import check_seconds, responses
from durable_log._http.tally import Tally
from durable_log._subscriptions.api import SubscriptionApi
from durable_log._subscriptions.options import Subscriptions
from durable_log.access import Authorize
from durable_log.aio import AsyncStore
from durable_log.errors import DurableLogError, InvalidOption, StreamGone, StreamNotFound
from durable_log.model import Delete
from durable_log.protocol import request as requests
from durable_log.protocol.body import declared_length, incomplete, too_large
from durable_log.protocol.cors import Cors
from durable_log.protocol.names import RESERVED_SEGMENT, Mount
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import Fork, Get, Head, Parsed, Post, Preflight, Put
from durable_log.protocol.response import CacheScope, Response, Responses, address, location
from durable_log.protocol.subscriptions import BODY_BYTES_MAX, Control
from durable_log.protocol.tokens import JITTER_SECONDS_MAX, cursor

if TYPE_CHECKING:
    from durable_log._http.exchange import Message, Receive, Send
    from durable_log.store import Store

SHUTDOWN_SECONDS: Final = 2.0
ALL_ORIGINS: Final = Cors()
SUBSCRIPTIONS_DEFAULT: Final = Subscriptions()
_HOST: Final = re.compile(rb"[0-9A-Za-z._-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?")

__all__ = ["ALL_ORIGINS", "WRITE", "App", "Cors", "Otherwise", "Respond", "Subscriptions", "app"]

log: Final = logging.getLogger("durable_log")


class Parts(NamedTuple):
    """What an application is made of, for those who watch it."""

    store: AsyncStore
    gate: Gate
    live: LiveSet
    tally: Tally


Handler = Callable[[Any, Exchange], Awaitable[Response | None]]
HeadT = TypeVar("HeadT")
RequestT = TypeVar("RequestT")


def app(
    store: Store | AsyncStore,
    *,
    prefix: str = "",
    long_poll_seconds: float = 20.0,
    sse_seconds: float = 60.0,
    heartbeat_seconds: float = 15.0,
    stall_seconds: float = 30.0,
    gap_seconds: float = 1.0,
    authorize: Authorize | None = None,
    cache_control: CacheScope = "private",
    cors: Cors | None = ALL_ORIGINS,
    access_log: bool = False,
    subscriptions: Subscriptions | None = SUBSCRIPTIONS_DEFAULT,
) -> App:
    """The Durable Streams protocol (PROTOCOL.md §5 to §7) on a store, as an ASGI application. Times in seconds.

    It runs by itself or mounted under any path of another application, with lifespan events or without. Streams are at
    ``prefix`` + ``/<name>`` below the mount point.

    ``long_poll_seconds``: how long a long-poll waits before it answers 204. ``sse_seconds``: how long an event stream
    lasts before its client has to come back. ``heartbeat_seconds``: how often an idle event stream sends a comment.
    ``stall_seconds``: a viewer that takes nothing for so long is cut off. ``gap_seconds``: how long an idempotent
    producer's append waits for the ones before it, since requests overtake one another.
    ``authorize``: who may do what, see :mod:`durable_log.access`; without, everybody may do everything. With it, every
    use of what a browser stored is asked for again. ``cache_control``: "public" if shared caches may store what anyone
    reads. ``cors``: which pages of other origins may use the streams, None for none. ``access_log``: log each request
    as a line of JSON to ``durable_log.access``. ``subscriptions``: how they are run, None for none at all.

    Raises :class:`InvalidOption` for a prefix that does not begin with a slash, for times that are not positive, for
    origins that are none, and for public caching of what ``authorize`` guards.
    """
    check_seconds(
        gap_seconds, long_poll_seconds=long_poll_seconds, sse_seconds=sse_seconds,
        heartbeat_seconds=heartbeat_seconds, stall_seconds=stall_seconds,
    )  # fmt: skip
    answers = responses(prefix, authorize, cache_control, cors)
    return App(
        Parts(AsyncStore.of(store), Gate(authorize), LiveSet(), Tally()),
        prefix,
        gap_seconds,
        Limits(long_poll_seconds, sse_seconds, heartbeat_seconds, stall_seconds),
        answers,
        cors,
        subscriptions,
        access_log=access_log,
    )


class App:
    """The application; made by :func:`app`."""

    def __init__(
        self, parts: Parts, prefix: str, gap_seconds: float, limits: Limits, responses: Responses, cors: Cors | None,
        subscriptions: Subscriptions | None, *, access_log: bool,
    ) -> None:  # fmt: skip
        self.parts, self._prefix, self._gap, self._limits = parts, prefix, gap_seconds, limits
        self._responses, self._logs = responses, access_log
        self._cors = None if cors is None or "*" in cors.origins else cors
        self._store, self._live, self._events = parts.store, parts.live, Events(parts.store)
        self._subscriptions = None if subscriptions is None else SubscriptionApi(parts.store, subscriptions, responses)
        self._at_once = AtOnce(
            parts.store, parts.gate, parts.tally, self._parse, responses, self._cors, logs=access_log
        )
        self._handlers: Mapping[type[Parsed], Handler] = {
            Put: self._create,
            Post: self._append,
            Get: self._read,
            Head: self._describe,
            Delete: self._delete,
            Preflight: self._preflight,
            Control: self._control,
        }

    @property
    def live_responses(self) -> int:
        """How many long-polls and event streams there are at the moment."""
        return len(self._live)

    def begin_shutdown(self) -> None:
        """End all live responses soon: long-polls answer 204, event streams end after what is there by now.

        Returns at once and may be called from any thread and from a signal handler. Servers that wait for open
        connections before they tell the application of the shutdown, as uvicorn does, need this to end in time.
        """
        self._live.begin_shutdown()

    async def shutdown(self) -> None:
        """The same, and wait until they have ended, at most two seconds; subscriptions stop, for two more at most. The
        startup of another lifespan begins both again.
        """
        await self._live.shutdown(SHUTDOWN_SECONDS)
        if self._subscriptions is not None:
            await self._subscriptions.stop(SHUTDOWN_SECONDS)

    async def rotate_signing_key(self) -> str:
        """Sign webhooks with a new key from now on; returns its id. The old public key stays published for a day."""
        if self._subscriptions is None:
            raise InvalidOption("this application has no subscriptions")
        return await self._subscriptions.rotate_signing_key()

    def begin_append(self, scope: Message, body: bytes, respond: Respond, otherwise: Otherwise) -> bool:
        """A shorter way than ASGI for a plain append whose request is whole: ``respond`` is called with the status, the
        headers and the body of the response. True if it is under way.

        If it is not, or if ``otherwise`` is called later, nothing has happened, and the request is for ``__call__``.
        """
        return self._at_once.begin(scope, body, respond, otherwise)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, in the terms of ASGI 3."""
        if scope["type"] == "http":
            await self._http(Exchange(scope, receive, send, self._cors))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": f"{scope['type']}.close"})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            if kind == "lifespan.startup":
                self._live.restart()
                if self._subscriptions is not None:
                    self._subscriptions.restart()
                    self._subscriptions.start()
            if kind == "lifespan.shutdown":
                await self.shutdown()
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _http(self, exchange: Exchange) -> None:
        if self._subscriptions is not None:
            self._subscriptions.start()
        try:
            response = await self._response(exchange)
            if response is not None:
                await exchange.respond(response)
        finally:
            self.parts.tally.add(exchange)
            if self._logs:
                write_access_log(exchange)

    async def _response(self, exchange: Exchange) -> Response | None:
        """The response; None if it was sent already, or if nobody is there to get it."""
        try:
            parsed = self._parse(exchange)
            if self.parts.gate.asks:
                exchange.seconds = await self.parts.gate.check(parsed, exchange.scope)
            return await self._handlers[type(parsed)](parsed, exchange)
        except Refusal as refusal:
            return self._responses.refused(refusal)
        except DurableLogError as error:
            return self._failed(exchange, error)
        except Exception:
            log.exception("%s %s", exchange.scope["method"], quote(exchange.scope["path"]))
            return self._responses.broken()

    def _failed(self, exchange: Exchange, error: DurableLogError) -> Response:
        response = self._responses.failed(error, exchange.scope["method"])
        if response.status >= 500:
            log.error("%s %s: %s", exchange.scope["method"], quote(exchange.scope["path"]), error)
        return response

    def _parse(self, exchange: Exchange) -> Parsed:
        scope = exchange.scope
        method, query, mount = scope["method"], scope["query_string"], self._mount(scope)
        exchange.parsed = parsed = requests.parse(method, _path(scope), query, scope["headers"], mount)
        return parsed

    def _mount(self, scope: Message) -> Mount:
        """Where clients find the application. ``app_root_path`` is from Starlette and FastAPI: their own root path, of
        which the server may have left nothing in the path.
        """
        return Mount.below(scope.get("app_root_path"), scope.get("root_path", ""), self._prefix)

    async def _preflight(self, _parsed: Preflight, _exchange: Exchange) -> Response:
        return self._responses.preflight()

    async def _control(self, control: Control, exchange: Exchange) -> Response | None:
        if self._subscriptions is None:
            raise Refusal(404, "reserved", f"this server has nothing below {RESERVED_SEGMENT}/, which is reserved")
        body = await self._body(exchange, BODY_BYTES_MAX)
        return None if body is None else await self._subscriptions.answer(control, body, self._base_url(exchange.scope))

    def _base_url(self, scope: Message) -> str:
        """The address of the control API, by the address that the client used."""
        host = _host(scope)
        if not _HOST.fullmatch(host):
            raise Refusal(400, "invalid_header", "Host is not the name of a host and a port")
        return address(scope.get("scheme", "http"), host, self._mount(scope), RESERVED_SEGMENT).decode()

    async def _create(self, put: Put, exchange: Exchange) -> Response | None:
        body = await self._body(exchange)
        if body is None:
            return None
        number = None
        if put.fork is not None:
            put, number = await self._resolve(put, put.fork)
        request = (await _parse_body(requests.to_create, put, body))._replace(fork_number=number)
        result = await self._store.submit(request)
        scope = exchange.scope
        url = location(scope.get("scheme", "http"), _host(scope), _path(scope), self._mount(scope), put.name)
        return self._responses.created(request, result, url)

    async def _resolve(self, put: Put, fork: Fork) -> tuple[Put, int]:
        try:
            return await self._resolve_by(fork.source, put, fork)
        except (StreamNotFound, StreamGone):
            # A fork outlives its source and knows the same of itself: creating it again is still answered.
            with contextlib.suppress(StreamNotFound, StreamGone):
                return (await self._resolve_by(put.name, put, fork))[0], 0
            raise

    async def _resolve_by(self, name: str, put: Put, fork: Fork) -> tuple[Put, int]:
        info = await self._store.stream(name).info()
        point = fork.anchor
        if point is not None and requests.needs_source(fork, info.content_type):
            point = await self._store.fork_point(name, point, fork.sub_offset, info.number)
        return requests.resolve(put, info.content_type, point), info.number

    async def _append(self, post: Post, exchange: Exchange) -> Response | None:
        body = await self._body(exchange)
        if body is None:
            return None
        request = await _parse_body(requests.to_append, post, body)
        if request.producer is None:
            result = await self._store.commit(request)
        else:
            result = await self._store.append_in_order(request, self._gap)
        return self._responses.appended(request, result)

    async def _delete(self, request: Delete, _exchange: Exchange) -> Response:
        await self._store.commit(request)
        return self._responses.deleted()

    async def _describe(self, head: Head, _exchange: Exchange) -> Response:
        return self._responses.described(await self._store.stream(head.name).info())

    async def _read(self, get: Get, exchange: Exchange) -> Response | None:
        stream = self._store.stream(get.name)
        # Asked before the read: if the name gets another life between, the tag is one of a stream that is gone.
        info = await stream.info()
        now, options = self._store.clock(), self._store.options
        if get.live is None:
            chunk = await stream.read(get.offset)
            return self._responses.page(get, info, chunk, self._store.store_id, now, 0)
        position = cursor(now, get.cursor, 1 + secrets.randbelow(JITTER_SECONDS_MAX))
        limits = self._limits.within(exchange.seconds)
        live = Live(self._live, exchange.receive, exchange.send, limits.stall, get.live)
        if get.live == "sse":
            viewer = Viewer(live, stream, info, event_chunk_bytes(options))
            chunk = await viewer.read(get.offset)
            feed = EventFeed(viewer, self._events, limits, exchange.scope.get("extensions", {}).get(WRITE))
            await live.run(feed.run(self._responses.events(info.content_type), chunk, position, self._live))
            exchange.bytes_out += feed.bytes_written
            return None
        viewer = Viewer(live, stream, info, options.chunk_bytes_max)
        chunk = await viewer.read(get.offset)
        if not chunk.data and not chunk.closed:
            polled = await live.run(long_poll(viewer, chunk, limits.long_poll))
            if polled is None:
                return None
            chunk = polled
        return self._responses.page(get, info, chunk, self._store.store_id, self._store.clock(), position)

    async def _body(self, exchange: Exchange, limit: int | None = None) -> bytes | None:
        """The request's body; None if the client left before its end. Raises :class:`Refusal` if it is too large."""
        limit = self._store.options.record_bytes_max if limit is None else limit
        declared = declared_length(exchange.scope["headers"])
        if declared > limit:
            raise too_large(limit)
        parts, size, more = [], 0, True
        while more:
            message = await exchange.receive()
            if message["type"] != "http.request":
                return None
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            exchange.bytes_in = size
            if size > limit:
                raise too_large(limit)
            parts.append(part)
        if size < declared:  # servers drop what follows an Upgrade
            raise incomplete(declared - size)
        return b"".join(parts)


async def _parse_body(parse: Callable[[HeadT, bytes], RequestT], head: HeadT, body: bytes) -> RequestT:
    if len(body) <= BYTES_MAX:
        return parse(head, body)
    return await asyncio.to_thread(parse, head, body)


def _path(scope: Message) -> bytes:
    """The path as it was sent, percent-encoded; servers need not pass that on."""
    raw: bytes | None = scope.get("raw_path")
    return quote(scope["path"]).encode() if raw is None else raw


def _host(scope: Message) -> bytes:
    """The address that the client used."""
    for key, value in scope["headers"]:
        if key == b"host":
            return bytes(value)
    host, port = scope.get("server") or ("localhost", None)
    return (host if port is None else f"{host}:{port}").encode()
