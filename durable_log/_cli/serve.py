"""A store behind HTTP, in a process of its own.

Law of this room: it puts store, application and uvicorn together, and makes the end of the process orderly: a signal
ends the live responses first, because uvicorn waits for open connections before it tells the application anything.
It decides nothing about streams. Main thread only.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, NamedTuple, cast

import click
import uvicorn

import durable_log
from durable_log import asgi
from durable_log._cli.connections import Connection, connections_max, cut_off, must_be_taken_within
from durable_log._cli.upkeep import summary
from durable_log.access import Authorize
from durable_log.errors import DurableLogError
from durable_log.operations import Operations
from durable_log.protocol.webhook_url import is_loopback
from durable_log.store import Store

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ROOT: Final = "/v1/stream"
GRACE_SECONDS: Final = 1
"""How long requests may take to finish after the first signal; live responses end at once."""

KEEP_ALIVE_SECONDS: Final = 75
"""Producers pause between tokens; their connections should outlive that."""

COLLECTED_EVERY: Final = 10_000
"""After so many new objects the collector looks for cycles among them."""

_log = logging.getLogger("durable_log.server")


class Page(NamedTuple):
    """A page beside the streams, whole in memory."""

    content_type: str
    body: bytes


class Settings(NamedTuple):
    """How to serve; see the options of the command.

    Unless ``local_webhooks`` says otherwise, a server that only this machine reaches counts as one for development.
    """

    long_poll_seconds: float = 20.0
    backups: str | None = None
    pages: Mapping[str, Page] = {}
    authorize: Authorize | None = None
    cors: asgi.Cors | None = asgi.ALL_ORIGINS
    metrics: bool = False
    access_log: bool = False
    local_webhooks: bool | None = None
    client_seconds: float = 45.0


class Front:
    """The streams, the pages for operations, and what pages there are beside them."""

    def __init__(self, streams: asgi.App, operations: Operations, pages: Mapping[str, Page]) -> None:
        self._streams, self._operations, self._pages = streams, operations, pages
        self._beside = frozenset((*operations.paths, *pages))

    def begin_append(self, scope: Message, body: bytes, respond: asgi.Respond, otherwise: asgi.Otherwise) -> bool:
        """See :meth:`durable_log.asgi.App.begin_append`."""
        return scope["path"] not in self._beside and self._streams.begin_append(scope, body, respond, otherwise)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, in the terms of ASGI 3."""
        if scope["type"] == "http" and scope["path"] in self._beside:
            if scope["path"] in self._operations.paths:
                await self._operations(scope, receive, send)
                return
            found = self._pages.get(scope["path"])
            if found is not None and scope["method"] in ("GET", "HEAD"):
                await _reply(scope, send, found)
                return
        await self._streams(scope, receive, send)


async def _reply(scope: Message, send: Send, page: Page) -> None:
    headers = [
        (b"content-type", page.content_type.encode()),
        (b"content-length", b"%d" % len(page.body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else page.body})


class Server(uvicorn.Server):
    """Says when it accepts connections, cuts off clients that send or take nothing for ``client_seconds``, and ends
    live responses as soon as it is asked to stop.
    """

    def __init__(self, config: uvicorn.Config, streams: asgi.App, ready_line: str, client_seconds: float) -> None:
        super().__init__(config)
        self._streams, self._ready_line, self._client_seconds = streams, ready_line, client_seconds
        self._looked = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept, then print the one line that says so."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            click.echo(self._ready_line)

    async def on_tick(self, counter: int) -> bool:
        """Look after the connections now and then. Called ten times a second."""
        now = asyncio.get_running_loop().time()
        if now - self._looked >= self._client_seconds / 8:
            self._looked = now
            cut_off(self.server_state.connections, now, self._client_seconds)
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends the server in order, a second at once. Called by the interpreter between two steps."""
        if self.should_exit:
            self.force_exit = True
            return
        self._streams.begin_shutdown()
        super().handle_exit(sig, frame)


class BackupsOnDemand:
    """Makes a backup whenever a signal asks for one, each in a new directory in ``parent``, on a thread of its own."""

    def __init__(self, store: Store, parent: str | None) -> None:
        self._store, self._parent = store, parent
        self._busy = threading.Lock()

    def handle(self, _sig: int, _frame: FrameType | None) -> None:
        """Called by the interpreter between two steps of the main thread."""
        if self._parent is None:
            _log.error("no backup was made: start the server with --backups DIR")
        elif not self._busy.acquire(blocking=False):
            _log.error("no backup was made: one is under way")
        else:
            name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
            threading.Thread(target=self._make, args=(str(Path(self._parent) / name),)).start()

    def _make(self, target: str) -> None:
        try:
            click.echo(f"durable-log made a backup: {summary(target, self._store.backup(target))}")
        except DurableLogError as error:
            _log.error("%s", error)
        finally:
            self._busy.release()


def serve(data: str, host: str, port: int, settings: Settings) -> None:
    """Serve the store in directory ``data`` until a signal comes, then close it.

    Raises what :func:`durable_log.open` raises, and :class:`click.ClickException` if nothing can listen there.
    """
    if settings.access_log:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger("durable_log.access")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    with durable_log.open(data) as store, listen(host, port) as listener:
        serve_store(store, listener, settings)


def serve_store(store: Store, listener: socket.socket, settings: Settings) -> None:
    """Serve an open store on a socket until a signal comes; closing both is left to the caller."""
    local_webhooks = settings.local_webhooks
    if local_webhooks is None:
        local_webhooks = is_loopback(listener.getsockname()[0])
    streams = asgi.app(
        store,
        prefix=ROOT,
        long_poll_seconds=settings.long_poll_seconds,
        authorize=settings.authorize,
        cors=settings.cors,
        access_log=settings.access_log,
        subscriptions=asgi.Subscriptions(webhook_development=local_webhooks),
    )
    front = Front(streams, Operations(streams, metrics=settings.metrics), settings.pages)
    connection = partial(Connection, connections_max=connections_max(), begin_append=front.begin_append)
    config = uvicorn.Config(
        front,
        loop="uvloop",
        http=cast("type[asyncio.Protocol]", connection),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    ready_line = f"durable-log serves {store.engine.path} at {url_of(listener)}"
    server = Server(config, streams, ready_line, settings.client_seconds)
    must_be_taken_within(settings.client_seconds, listener)
    # Once it is done uvicorn raises the signal again under the handlers that it found. With these that ends
    # nothing, so the store is closed and the process leaves with 0; and a signal before its start is not lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    signal.signal(signal.SIGUSR1, BackupsOnDemand(store, settings.backups).handle)
    # What is here by now stays, and need not be looked at again; what requests leave behind is hardly ever a cycle.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_EVERY)
    server.run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the first address of ``host``. Raises :class:`click.ClickException`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.ClickException(f"cannot listen on {host!r}: {reason}; choose another --host") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        advice = "choose another --port, or --port 0 for any free one"
        if error.errno == errno.EADDRNOTAVAIL:
            advice = f"{host!r} is no address of this machine: choose another --host, or --host 0.0.0.0 for all"
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}; {advice}") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """The address of the streams."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}{ROOT}/" if ":" in host else f"http://{host}:{port}{ROOT}/"
