"""The connections of a server process, and an end to those whose clients send or take nothing.

Law of this room: uvicorn and httptools read and write HTTP. Here is what they leave without a bound (how long a request
may take to come, how long a response to be taken, the size of a head, requests sent ahead, the number of connections),
and what they would mistake: trailers for headers, and a body behind ``Upgrade`` for another protocol. What a request
means is not known here. Event loop.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import httptools
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from durable_log._cli.cycle import Cycle
from durable_log.asgi import WRITE

HEAD_BYTES_MAX: Final = 64 * 2**10
"""How much may come, more or less, that is neither the end of a head nor part of a body."""

AHEAD_MAX: Final = 64
"""How many requests of a connection may wait for the answer to the one before them."""

BYTES_PER_SECOND_MIN: Final = 16
"""Each of so many bytes of a body earn its client another second: a body may be an answer, as slow as its model."""

NOTED: Final = frozenset((b"expect", b"host", b"transfer-encoding", b"x-forwarded-for", b"x-forwarded-proto"))
"""Headers that the server itself has to know of."""

STORE_DESCRIPTORS: Final = 256
"""How many descriptors are kept for everything that is no connection: a store that can't open a file fails."""


BeginAppend = Callable[
    [Any, bytes, Callable[[int, list[tuple[bytes, bytes]], bytes], None], Callable[[], object]], bool
]


def _never(*_: Any) -> bool:
    """An application without such a way."""
    return False


class Connection(HttpToolsProtocol):
    """One client. ``connections_max``: with more than so many, it is cut off at once. ``begin_append``: the shorter way
    to the application, see :meth:`durable_log.asgi.App.begin_append`.
    """

    def __init__(
        self, *arguments: Any, connections_max: int, begin_append: BeginAppend = _never, **named: Any
    ) -> None:  # fmt: skip
        super().__init__(*arguments, **named)
        self._connections_max, self._begin_append = connections_max, begin_append
        self._come: tuple[Cycle, Any] | None = None
        """The request that has just come, which nobody has begun to answer, and who would."""
        self._behind_proxies = self.app
        if isinstance(self.app, ProxyHeadersMiddleware):
            self.app = self.app.app
        del self.pipeline  # a deque, which takes 760 bytes empty
        self._ahead: list[tuple[Cycle, Any]] = []
        """Requests that wait for the answer to the one before them, and who answers them."""
        self._head_done = self._upgrades = self._forwarded = False
        self._unanswered: list[Cycle] = []
        self._owed_since: float | None = self.loop.time()
        """Since when the rest of a request is missing; None if none is."""
        self._idle_since: float | None = None
        """Since when the last response is whole; None if something came since then."""
        self._came = self._loose = self._hosts = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        if len(self.connections) > self._connections_max:
            self.cut_off()

    def connection_lost(self, exc: Exception | None) -> None:
        """All that is under way learns of it; uvicorn tells only the request that came last."""
        self._forget()
        super().connection_lost(exc)

    def cut_off(self) -> None:
        """End it at once, whatever is under way."""
        self._forget()
        self.transport.abort()

    def _forget(self) -> None:
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()

    def _refuse(self, why: str) -> None:
        """Answer and end it; without an answer, which could not be told from theirs, if others are under way."""
        unanswered = [cycle for cycle in self._unanswered if not cycle.response_complete]
        if len(unanswered) > 1 or any(cycle.response_started or not cycle.more_body for cycle in unanswered):
            self.cut_off()
        else:
            self._forget()
            self.send_400_response(why)

    def data_received(self, data: bytes) -> None:
        """Take what came; what is no HTTP ends the connection. Clients' mistakes are nothing to fill the log with."""
        self._idle_since = None
        self._owe()
        self._came += len(data)
        self._loose += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._answer()
            self._refuse("Invalid HTTP request received.")
            return
        self._answer()
        if self._loose > HEAD_BYTES_MAX:
            self._refuse("The head of the request is too large.")

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # The parser has dropped the body; a new one is shown the same request without the wish (RFC 9110 §7.8).
                self.parser = httptools.HttpRequestParser(self)
                data = self._head_without_upgrade() + data[upgrade.args[0] :]
            else:
                return

    def _head_without_upgrade(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self._method, self.url, self.scope["http_version"].encode())]
        lines += [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        """A request, maybe right behind another one."""
        self._owe()
        self._idle_since, self._hosts = None, 0
        self._head_done = self._forwarded = False
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the body, a trailer, which counts for nothing."""
        if not self._head_done:
            name = name.lower()
            self.headers.append((name, value))
            if name in NOTED:
                self._note(name, value)

    def _note(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"expect":
            self.expect_100_continue = value.lower() == b"100-continue"
        elif name == b"transfer-encoding":
            if value.strip(b" \t").lower() != b"chunked":
                raise ValueError(value)  # the parser undoes no other coding, and says nothing of it
        else:
            self._forwarded = True

    def on_headers_complete(self) -> None:
        """The head is there. Raises ``ValueError``, which ends the connection, for one that can't be meant."""
        self._head_done, self._loose = True, 0
        self._method: bytes = self.parser.get_method()
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1") or b"#" in self.url or len(self._unanswered) > AHEAD_MAX:
            raise ValueError(self.url)
        if self._hosts != 1 and (self._hosts or version == "1.1"):
            raise ValueError(f"{self._hosts} Host headers")  # RFC 9112 §3.2
        if version != "1.1":
            self.scope["http_version"] = version
            self.expect_100_continue = False
        self._upgrades = bool(self.parser.should_upgrade()) and self._method != b"CONNECT"
        if not self._upgrades:
            self._begin(keep_alive=version == "1.1" and self.parser.should_keep_alive())

    def _begin(self, *, keep_alive: bool) -> None:
        """Have the application answer, behind the requests that came before."""
        scope = self.scope
        if self.url.startswith(b"/"):
            raw_path, _, query = self.url.partition(b"?")
        else:
            url = httptools.parse_url(self.url)
            raw_path, query = url.path, url.query or b""
        path = raw_path.decode("ascii")
        scope["method"] = self._method.decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"], scope["query_string"] = raw_path, query
        cycle = Cycle(self, keep_alive=keep_alive)
        app = self._behind_proxies if self._forwarded else self.app
        others = [other for other in self._unanswered if not other.response_complete]
        self.cycle, self._unanswered = cycle, [*others, cycle]
        if others:
            self.flow.pause_reading()
            self._ahead.append((cycle, app))
        else:
            self._come = cycle, app

    def _answer(self) -> None:
        """Have the request answered that has come, if one has."""
        if self._come is None:
            return
        (cycle, app), self._come = self._come, None
        start = partial(self._start, cycle, app)
        # A client that takes no answers waits for room to give it one, before anything else is done for it.
        direct = app is self.app and not cycle.more_body and not self.flow.write_paused
        if not (direct and self._begin_append(cycle.scope, bytes(cycle.body), cycle.respond, start)):
            start()

    def _start(self, cycle: Cycle, app: Any) -> None:
        cycle.scope["extensions"] = {WRITE: cycle.write_now}  # type: ignore[dict-item]
        self._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self._ahead:
            self._start(*self._ahead.pop(0))
        else:
            self._idle_since = self.loop.time()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._loose = 0
        cycle = self.cycle
        if not self._upgrades and not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Nothing more is owed."""
        if not self._upgrades:
            self._owed_since, self._loose = None, 0
            if self.cycle.response_complete:
                self._idle_since = self.loop.time()  # it was answered before its end
            else:
                self.cycle.more_body = False
                self.cycle.message_event.set()

    def _owe(self) -> None:
        if self._owed_since is None:
            self._owed_since, self._came = self.loop.time(), 0

    def is_overdue(self, now: float, seconds: float) -> bool:
        """Whether the client has sent too little for so long."""
        if self._owed_since is None:
            return False
        last = self._unanswered[-1] if self._unanswered else None
        answered = last is not None and last.response_complete
        if self.flow.read_paused or (last is not None and not last.more_body and not answered):
            self._owed_since, self._came = now, 0  # it is the client that waits
            return False
        earned = 0 if answered else self._came / BYTES_PER_SECOND_MIN
        return now - self._owed_since >= seconds + earned

    def is_idle(self, now: float) -> bool:
        """Whether no request has come for as long as connections are kept."""
        return self._idle_since is not None and now - self._idle_since >= self.timeout_keep_alive


def cut_off(connections: Iterable[object], now: float, seconds: float) -> None:
    """Let go of those whose clients have sent too little for so long, or nothing for longer."""
    for connection in tuple(connections):
        if isinstance(connection, Connection):
            if connection.is_overdue(now, seconds):
                connection.cut_off()
            elif connection.is_idle(now):
                connection.transport.close()


def must_be_taken_within(seconds: float, listener: socket.socket) -> None:
    """Have the kernel end connections, all that ``listener`` accepts, of which nothing is taken for so long."""
    # Only it can tell a client that takes little from one that takes nothing: it holds megabytes for either.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(seconds * 1000)))


def connections_max() -> int:
    """How many connections this process may have, once it is allowed as many descriptors as it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(soft - STORE_DESCRIPTORS, soft // 2)
