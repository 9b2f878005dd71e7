"""One request and its response at a server process: what uvicorn does for each, in fewer steps.

Law of this room: it is uvicorn's own cycle but for how a response is written. The head waits for the first part of the
body and goes with it; headers are looked at once, whole, since all of them come from this package. Nothing of the
protocol is known here. Event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

JOINED_BYTES_MAX: Final = 64 * 2**10
"""A part of a body that is longer is not copied to stand behind the head."""

_LENGTH: Final = b"\ncontent-length: "


class Signal:
    """What ``asyncio.Event`` is, for one who waits: that makes it a tenth of the size, and each request has one."""

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._is_set = loop, False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Whoever waits goes on, now and from now on."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Whoever waits from now on does wait."""
        self._is_set = False

    async def wait(self) -> None:
        """Until it is set."""
        if not self._is_set:
            self._waiter = self._loop.create_future()
            await self._waiter


def _nothing() -> None:
    """Nobody waits for the end of this response any more."""


class Cycle(RequestResponseCycle):
    """See uvicorn's. What is the same for most of a response's life is not kept with each."""

    _head = b""
    disconnected = response_started = response_complete = chunked_encoding = False
    more_body = True

    def __init__(self, connection: HttpToolsProtocol, *, keep_alive: bool) -> None:
        self.scope, self.transport, self.flow = connection.scope, connection.transport, connection.flow
        self.logger, self.on_response = connection.logger, connection.on_response_complete
        self.default_headers = connection.server_state.default_headers
        self.message_event = Signal(connection.loop)  # type: ignore[assignment] # all of an event that is used
        self.body = bytearray()
        self.keep_alive, self.waiting_for_100_continue = keep_alive, connection.expect_100_continue

    async def send(self, message: Any) -> None:
        """Send a part of the response; of its head alone, nothing yet."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._begin(message["status"], message["headers"])
            return
        if self.response_complete:
            raise RuntimeError("a response has ended and goes on")
        more = message.get("more_body", False)
        self._write(message.get("body", b""), more)
        if not more:
            self._end()

    def respond(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a whole response that is short: without waiting, even if the client is behind."""
        if not self.disconnected:
            self._begin(status, headers)
            self._write(body, more=False)
            self._end()

    def _end(self) -> None:
        self.response_complete = True
        self.message_event.set()
        # Neither refers to this any more: else every request would wait for the collector.
        self.scope.pop("extensions", None)
        on_response, self.on_response = self.on_response, _nothing
        if not self.keep_alive:
            self.transport.close()
        on_response()

    def write_now(self, body: bytes) -> bool:
        """Send a part of the body without waiting; False, and nothing is sent, if the client is behind or gone."""
        if self.flow.write_paused or self.disconnected or self.response_complete or self._head:
            return False
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body) if self.chunked_encoding else body)
        return True

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started, self.waiting_for_100_continue = True, False
        lines = [b": ".join(header) for header in (*self.default_headers, *headers)]
        if not self.keep_alive:
            lines.append(b"connection: close")
        head = b"\r\n".join((*lines, b""))
        if head.count(b"\n") != len(lines) or b"\0" in head:
            raise RuntimeError("a header of the response holds the end of a line")
        chunks = self.scope["http_version"] == "1.1"  # older clients read to the end of the connection
        if chunks and status not in (204, 304) and self.scope["method"] != "HEAD" and _LENGTH not in b"\n" + head:
            self.chunked_encoding = True
            head += b"transfer-encoding: chunked\r\n"
        self._head = b"%b%b\r\n" % (STATUS_LINE[status], head)

    def _write(self, body: bytes, more: bool) -> None:
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.chunked_encoding:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else b"0\r\n\r\n")
        head, self._head = self._head, b""
        if len(body) > JOINED_BYTES_MAX and head:
            self.transport.writelines((head, body))
        elif head or body:
            self.transport.write(head + body if head else body)
