"""A real server on a free port of this machine, and clients that see every byte of it."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPResponse
from typing import Any, NamedTuple

import httpx
import uvicorn

from durable_log import aio, asgi
from durable_log._cli.connections import Connection
from durable_log.model import Options

PATIENCE_SECONDS = 10.0
CONNECTIONS: dict[str, Any] = {"uvicorn's": "httptools", "durable-log serve": partial(Connection, connections_max=1000)}
"""Servers that ASGI says all of, and one that can be written to at once besides."""


def token(offset: int) -> str:
    return f"0000000000000000_{offset:016d}"


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that has to happen; fail loudly if it does not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_SECONDS} s"
        time.sleep(0.005)


class Clock:
    """A wall clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


class Served:
    """An application on its own thread and event loop."""

    def __init__(
        self,
        *,
        wrap: Callable[[Any], Any] | None = None,
        options: Options | None = None,
        clock: Callable[[], float] = time.time,
        store: Callable[[aio.AsyncStore], Any] | None = None,
        lifespan: str = "off",
        root_path: str = "",
        http: Any = "httptools",
        **settings: Any,
    ) -> None:
        self.app: asgi.App
        self.server: uvicorn.Server
        self._wrap, self._options, self._clock, self._store = wrap, options or Options(), clock, store
        self._lifespan, self._root_path, self._http, self._settings = lifespan, root_path, http, settings
        self._socket = socket.create_server(("127.0.0.1", 0))
        # asyncio does that only for sockets that say that they speak TCP; without, each answer waits 40 ms for an ACK
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        # without TLS; reading the certificates that it could trust takes longer than most tests
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_SECONDS, verify=False)
        self._ready, self._failure = threading.Event(), None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_SECONDS)
        assert self._failure is None, self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._ready.set()

    async def _main(self) -> None:
        async with aio.open(":memory:", options=self._options, clock=self._clock) as store:
            self.app = asgi.app(store if self._store is None else self._store(store), **self._settings)
            outer = self.app if self._wrap is None else self._wrap(self.app)
            config = uvicorn.Config(
                outer,
                log_config=None,
                lifespan=self._lifespan,
                ws="none",
                root_path=self._root_path,
                http=self._http,
            )
            self.server = uvicorn.Server(config)
            self._ready.set()
            await self.server.serve(sockets=[self._socket])

    def holds(self, client: socket.socket) -> bool:
        """Whether the server has a connection to that client."""
        connections = tuple(self.server.server_state.connections)
        return client.getsockname() in {connection.client for connection in connections}

    def exit(self) -> None:
        """What a signal does in ``durable-log serve``."""
        self.server.should_exit = True
        self.app.begin_shutdown()

    def join(self, seconds: float) -> bool:
        """Whether the server has ended within that time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def stop(self) -> None:
        self.http.close()
        self.exit()
        ended = self.join(PATIENCE_SECONDS)
        self._socket.close()
        assert ended, "the server did not end"

    def put(self, name: str, body: bytes = b"", content_type: str = "text/plain", **headers: str) -> httpx.Response:
        return self.http.put(f"/{name}", content=body, headers={"content-type": content_type, **_dashed(headers)})

    def post(self, name: str, body: bytes, content_type: str = "text/plain", **headers: str) -> httpx.Response:
        return self.http.post(f"/{name}", content=body, headers={"content-type": content_type, **_dashed(headers)})

    def close(self, name: str, **headers: str) -> httpx.Response:
        return self.http.post(f"/{name}", headers={"stream-closed": "true", **_dashed(headers)})

    def tail(self, name: str) -> int:
        return int(self.http.head(f"/{name}").headers["stream-next-offset"][17:])

    def events(self, name: str, offset: str = "-1", **parameters: str) -> EventClient:
        return EventClient(self.port, f"/{name}", {"offset": offset, "live": "sse", **parameters})

    def raw(self, text: bytes = b"") -> RawClient:
        return RawClient(self.port, text)


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    served = Served(**settings)
    try:
        yield served
    finally:
        served.stop()


def _dashed(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


class Event(NamedTuple):
    name: str
    data: str

    @property
    def control(self) -> dict[str, Any]:
        assert self.name == "control"
        parsed: dict[str, Any] = json.loads(self.data)
        return parsed


class EventClient:
    """An event source that reads one event at a time, and shows comments too."""

    def __init__(self, port: int, path: str, parameters: dict[str, str]) -> None:
        self._connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
        self._connection.request("GET", f"{path}?{httpx.QueryParams(parameters)}")
        self.response: HTTPResponse = self._connection.getresponse()

    def __enter__(self) -> EventClient:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        self.response.close()
        self._connection.close()

    def block(self) -> list[str]:
        """The lines up to the next empty one; none when the server has ended the response."""
        lines: list[str] = []
        while line := self.response.readline().decode():
            if line == "\n":
                return lines
            lines.append(line.removesuffix("\n"))
        return lines

    def heartbeat(self) -> None:
        """Skip to the next comment."""
        while (lines := self.block()) != [":"]:
            assert lines, "the server ended the response"

    def event(self) -> Event | None:
        """The next event; None when the server has ended the response."""
        while (lines := self.block()) == [":"]:
            pass
        if not lines:
            return None
        assert lines[0].startswith("event: ")
        assert all(line.startswith("data:") for line in lines[1:])
        return Event(lines[0].removeprefix("event: "), "\n".join(_value(line) for line in lines[1:]))

    def pair(self) -> tuple[str, dict[str, Any]]:
        """The next data event and its control event."""
        data, control = self.event(), self.event()
        assert data is not None
        assert data.name == "data"
        assert control is not None
        return data.data, control.control

    def control(self) -> dict[str, Any]:
        event = self.event()
        assert event is not None
        return event.control


def _value(line: str) -> str:
    return line.removeprefix("data:").removeprefix(" ")


class RawClient:
    """A TCP connection; what is sent and when is up to the test."""

    def __init__(self, port: int, text: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)
        self.send(text)

    def __enter__(self) -> RawClient:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, text: bytes) -> None:
        self.socket.sendall(text)

    def response(self, *, bodiless: bool = False) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next response, which has a declared length or none; to HEAD it has none."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._some(1)
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b""
        length = 0 if bodiless else int(headers.get("content-length", "0"))
        while len(body) < length:
            body += self._some(65536)
        return int(first.split(" ")[1]), headers, body

    def _some(self, most: int) -> bytes:
        data = self.socket.recv(most)
        assert data, "the server closed the connection"
        return data

    def rest(self) -> bytes:
        """Everything until the server ends the connection."""
        parts = []
        try:
            while part := self.socket.recv(65536):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)
