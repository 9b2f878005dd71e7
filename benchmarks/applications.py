"""Applications that servers of other makers, or of none, run for the benchmarks. ``DATA`` names their directory.

Law of this room: nothing of this package. ``bare`` is what Python can reach at most: the same server program as ours,
and an application that keeps bytes in memory, checks nothing and knows just enough of the protocol to be measured.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class _Stream:
    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.event = b""

    def append(self, body: bytes) -> None:
        self.bodies.append(body)
        self.event = b"event: data\ndata:" + body + b"\n\n"
        moved, self.moved = self.moved, asyncio.get_running_loop().create_future()
        moved.set_result(None)


_streams: dict[str, _Stream] = {}


async def bare(scope: Message, receive: Receive, send: Send) -> None:
    """An ASGI application without a store."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    method, path = scope["method"], scope["path"]
    if method == "POST":
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        _streams[path].append(body)
        await _answer(send, 204)
    elif method == "PUT":
        _streams[path] = _Stream()
        await _answer(send, 201)
    elif b"live=sse" in scope["query_string"]:
        await _show(_streams[path], send)
    else:
        await _answer(send, 200, b"".join(_streams[path].bodies))


async def _answer(send: Send, status: int, body: bytes = b"") -> None:
    headers = [(b"stream-next-offset", b"0"), (b"stream-up-to-date", b"true")]
    if status != 204:
        headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _show(stream: _Stream, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
    shown = len(stream.bodies)
    while True:
        if shown == len(stream.bodies):
            await stream.moved
        behind = len(stream.bodies) - shown
        event = stream.event if behind == 1 else b"event: data\ndata:" + b"".join(stream.bodies[shown:]) + b"\n\n"
        shown += behind
        await send({"type": "http.response.body", "body": event, "more_body": True})


def rakaia_memory() -> Any:
    """``rakaia-streams`` with its memory store."""
    from rakaia import create_app  # only this contestant needs it  # noqa: PLC0415

    return create_app()


def rakaia_jsonl() -> Any:
    """``rakaia-streams`` with its JSONL store, which syncs each append unless it is told not to."""
    from rakaia import JsonlStreamStore, create_app  # only this contestant needs it  # noqa: PLC0415

    return create_app(store=JsonlStreamStore(os.environ["DATA"]))
