"""What those who run a server ask it: is it alive, is it ready, what is it doing.

Law of this room: three pages beside the streams of one application, and the figures behind the third. They are no
streams, so they live outside of the streams' mount point; which path they have is for whoever mounts them to say. They
name no stream and no file. Event loop; what reads the disk does so on a thread.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from durable_log._http.authorize import request_of
from durable_log._http.metrics import Collector, exposition
from durable_log.errors import DurableLogError, StreamNotFound
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.response import Response, Responses

if TYPE_CHECKING:
    from durable_log._http.exchange import Message, Receive, Send
    from durable_log.asgi import App

_RESPONSES: Final = Responses(cors=None, cache=None)


def collector(streams: App) -> Collector:
    """The figures of an application, for ``prometheus_client.REGISTRY.register``.

    Raises :class:`InvalidOption` if the extra ``metrics`` is not installed.
    """
    return Collector(streams.parts.store, streams.parts.live, streams.parts.tally)


class Operations:
    """An ASGI application with ``/healthz``, ``/readyz`` and, if asked for, ``/metrics``, wherever it is mounted.

    The first two tell everybody who can reach them a word. The third asks the ``authorize`` of the streams' application
    about the action "metrics". Raises :class:`InvalidOption` if the extra ``metrics`` is needed and not installed.
    """

    def __init__(self, streams: App, *, metrics: bool = False) -> None:
        self._parts = streams.parts
        self._collector = collector(streams) if metrics else None

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of the pages, below the mount point."""
        return ("/healthz", "/readyz") if self._collector is None else ("/healthz", "/readyz", "/metrics")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection, in the terms of ASGI 3."""
        if scope["type"] == "lifespan":
            while (kind := (await receive())["type"]) != "lifespan.shutdown":
                await send({"type": f"{kind}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            await send({"type": f"{scope['type']}.close"})
            return
        try:
            status, headers, body = await self._page(scope)
        except Refusal as refusal:
            status, headers, body = _RESPONSES.refused(refusal)
        except StreamNotFound:
            status, headers, body = _RESPONSES.refused(_not_found())
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _page(self, scope: Message) -> Response:
        if scope["method"] not in ("GET", "HEAD"):
            raise Refusal(405, "method_not_allowed", "this page is for GET and HEAD", ((b"allow", b"GET, HEAD"),))
        path = "/" + scope["path"].rpartition("/")[2]
        if path in ("/healthz", "/readyz"):
            return _status(await asyncio.to_thread(self._hindrance, ready=path == "/readyz"))
        if path == "/metrics" and self._collector is not None:
            await self._parts.gate.ask(replace(request_of(scope), action="metrics"))
            return _page(200, *await asyncio.to_thread(exposition, self._collector))
        raise _not_found()

    def _hindrance(self, *, ready: bool) -> str | None:
        """Why the process had better be restarted or, to be ``ready``, requests had better go elsewhere for now."""
        try:
            figures = self._parts.store.stats()
        except DurableLogError as error:
            return error.code
        if figures["failure"] is not None:  # which names files: the log says it, and this does not
            return "store_failed"
        if not ready:
            return None
        if self._parts.live.closing():
            return "shutting_down"
        # The log grows by segments; a part of one may be left, but then it is soon.
        free = figures["disk_free_bytes"]
        return "disk_full" if free is not None and free < self._parts.store.options.segment_bytes else None


def _status(reason: str | None) -> Response:
    if reason is None:
        return _page(200, "application/json", b'{"status":"ok"}\n')
    body: dict[str, Any] = {"status": "unavailable", "reason": reason}
    return _page(503, "application/json", json.dumps(body, separators=(",", ":")).encode() + b"\n")


def _page(status: int, content_type: str, body: bytes) -> Response:
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
    ]
    return Response(status, headers, body)


def _not_found() -> Refusal:
    return Refusal(404, "not_found", "there is no such page")
