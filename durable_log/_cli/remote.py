"""A stream of a running server, over plain HTTP: what ``cat URL``, ``tail URL`` and the demonstration use.

Law of this room: blocking calls of the standard library, one connection each. It never retries: what to do about a
server that is not there is for the caller to say. An object belongs to one thread, but any may call ``hang_up``.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

from durable_log.model import Producer

if TYPE_CHECKING:
    from typing_extensions import Self

START: Final = "-1"
AWAY: Final = (OSError, http.client.HTTPException)
"""What a server that is not there, or goes away, makes of a call."""

TIMEOUT_SECONDS: Final = 60.0
"""Longer than servers wait between two signs of life."""


class Refused(Exception):
    """The server answered, and refused."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{reason} (HTTP {status})")
        self.status, self.reason = status, reason


class Page(NamedTuple):
    """A piece of a stream, and the token of the offset after it."""

    data: bytes
    next_offset: str
    up_to_date: bool
    closed: bool
    content_type: str


class RemoteStream:
    """The stream at an http or https URL, in a ``with`` block. Calls raise :class:`Refused`, or one of ``AWAY``.

    ``token`` is sent along, if the server asks for one.
    """

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS, token: str | None = None) -> None:
        self._credentials = {} if token is None else {"Authorization": f"Bearer {token}"}
        parts = urlsplit(url)
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._path, self._timeout = parts.netloc.rpartition("@")[2], parts.path or "/", timeout_seconds
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def create(self, content_type: str) -> None:
        """Create the stream, or find it as it was asked for."""
        self._call("PUT", {}, {"Content-Type": content_type})

    def append(self, data: bytes, content_type: str, producer: Producer | None = None, *, close: bool = False) -> bool:
        """Append ``data``, close the stream, or both. False if the server had it already."""
        headers = {"Content-Type": content_type} if data else {}
        if producer is not None:
            claim = {"Producer-Id": producer.id, "Producer-Epoch": producer.epoch, "Producer-Seq": producer.seq}
            headers |= {key: str(value) for key, value in claim.items()}
        if close:
            headers["Stream-Closed"] = "true"
        response, _ = self._call("POST", {}, headers, data)
        return producer is None or response.status == http.client.OK or not data

    def tail(self) -> str:
        """The token of the offset after the last byte."""
        return self._call("HEAD", {}, {})[0].getheader("Stream-Next-Offset", START)

    def read(self, offset: str, *, wait: bool = False, cursor: str | None = None) -> Page:
        """What there is from ``offset`` on; with ``wait``, by long-poll."""
        query = {"offset": offset} | ({"live": "long-poll"} if wait else {})
        if cursor is not None:
            query["cursor"] = cursor
        response, body = self._call("GET", query, {})
        flag = response.getheader
        return Page(
            body,
            flag("Stream-Next-Offset", offset),
            flag("Stream-Up-To-Date") == "true",
            flag("Stream-Closed") == "true",
            flag("Content-Type", ""),
        )

    def events(self, offset: str) -> Iterator[Page]:
        """What a text stream has from ``offset`` on and what follows, by server-sent events, until the connection ends.

        A page is what one control event vouches for: data whose offset did not arrive is not given out.
        """
        with self._send("GET", {"offset": offset, "live": "sse"}, {}) as response:
            if response.status != http.client.OK:
                raise _refusal(response.status, response.read())
            data: list[str] = []
            for name, text in parse_events(response):
                if name == "data":
                    data.append(text)
                    continue
                control = json.loads(text)
                closed = control.get("streamClosed", False)
                up_to_date = control.get("upToDate", False)
                yield Page("".join(data).encode(), control["streamNextOffset"], up_to_date, closed, "")
                data.clear()

    def hang_up(self) -> None:
        """Cut the connection, whatever it is doing. Any thread."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _call(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        response = self._send(method, query, headers, body)
        try:
            answer = response.read()
        except AWAY:
            self.close()
            raise
        if response.status >= http.client.MULTIPLE_CHOICES:
            raise _refusal(response.status, answer)
        return response, answer

    def _send(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes | None = None
    ) -> http.client.HTTPResponse:
        if self._connection is None:
            self._connection = self._kind(self._host, timeout=self._timeout)
        target = self._path + ("?" + urlencode(query) if query else "")
        try:
            self._connection.request(method, target, body, {**headers, **self._credentials})
            return self._connection.getresponse()
        except AWAY:
            # What is left on a connection that failed would be taken for the answer to the next request.
            self.close()
            raise


def reason_of(error: Exception) -> str:
    """What to tell people of a :class:`Refused` or one of ``AWAY``."""
    return (isinstance(error, OSError) and error.strerror) or str(error) or "the connection ended"


def _refusal(status: int, body: bytes) -> Refused:
    try:
        reason = str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        reason = " ".join(body[:200].decode("utf-8", "replace").split()) or "the server gave no reason"
    return Refused(status, reason)


def parse_events(lines: Any) -> Iterator[tuple[str, str]]:
    """Name and data of each whole event; what the connection cuts off is not one."""
    name, data = "message", list[str]()
    for raw in lines:
        line = raw.rstrip(b"\r\n")
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
        elif line.startswith(b"event:"):
            name = line[6:].strip().decode()
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" ").decode("utf-8"))
