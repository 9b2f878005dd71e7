"""One request and what is known of it so far.

Law of this room: everything that leaves goes through ``send``, which counts it, and adds what depends on the origin of
the page that asked. ``receive`` is the server's own, for ``live`` looks behind it. Event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

from durable_log.model import Delete
from durable_log.protocol.cors import Cors, Header
from durable_log.protocol.request import Get, Head, Parsed, Post, Preflight, Put
from durable_log.protocol.response import Response
from durable_log.protocol.subscriptions import Control

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ACTIONS: dict[type[Parsed], str] = {
    Put: "create",
    Post: "append",
    Get: "read",
    Head: "describe",
    Delete: "delete",
    Preflight: "preflight",
    Control: "control",
}


class Exchange:
    """What ASGI gives an application for one request, what was made of it, and what was sent.

    ``parsed`` is None until the request made sense, ``status`` until a response has begun. ``seconds``: for how long
    from the beginning of the answer it is allowed, None for as long as it takes.
    """

    __slots__ = ("_cors", "_send", "began", "bytes_in", "bytes_out", "parsed", "receive", "scope", "seconds", "status")

    def __init__(self, scope: Message, receive: Receive, send: Send, cors: Cors | None) -> None:
        self.scope, self.receive, self._send, self._cors = scope, receive, send, cors
        self.began = monotonic()
        self.parsed: Parsed | None = None
        self.seconds: float | None = None
        self.status: int | None = None
        self.bytes_in = self.bytes_out = 0

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._cors is not None:
                message["headers"] = self._with_cors(self._cors, message["headers"])
        else:
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)

    async def respond(self, response: Response) -> None:
        """Send a whole response."""
        status, headers, body = self.answered(response)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def answered(self, response: Response) -> tuple[int, list[Header], bytes]:
        """The response as it is to be sent, which is noted."""
        status, headers, body = response
        if self._cors is not None:
            headers = self._with_cors(self._cors, headers)
        if self.scope["method"] == "HEAD":
            body = b""
        self.status, self.bytes_out = status, len(body)
        return status, headers, body

    def _with_cors(self, cors: Cors, headers: list[Header]) -> list[Header]:
        origin = next((value for key, value in self.scope["headers"] if key == b"origin"), b"")
        return [*headers, *cors.of_origin(origin)]

    @property
    def action(self) -> str | None:
        """What was asked for, in one of a few words; None if it made no sense."""
        parsed = self.parsed
        if parsed is None:
            return None
        return "close" if isinstance(parsed, Post) and parsed.close else _ACTIONS[type(parsed)]

    @property
    def name(self) -> str | None:
        """The stream that it is about."""
        parsed = self.parsed
        return None if parsed is None or isinstance(parsed, Preflight | Control) else parsed.name

    @property
    def live(self) -> str | None:
        """The mode of a live read."""
        return self.parsed.live if isinstance(self.parsed, Get) else None

    def elapsed(self) -> float:
        """Seconds since it came."""
        return monotonic() - self.began
