"""As little of an HTTP client as it takes, and as fast: one connection, one request at a time, no library between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import NamedTuple
from urllib.parse import quote

ROOT = "/v1/stream/"


class Gone(Exception):
    """The server went away. Whether it has done what it was asked to, nobody knows."""


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def next_offset(self) -> int:
        return offset_of(self.headers["stream-next-offset"])

    @property
    def closed(self) -> bool:
        return self.headers.get("stream-closed") == "true"


class Event(NamedTuple):
    name: str
    data: str


def token(offset: int) -> str:
    return f"{0:016}_{offset:016}"


def offset_of(text: str) -> int:
    return int(text[17:])


class Connection:
    """Connects when it has to. Whatever breaks is :class:`Gone`, and the next request begins anew."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None

    async def ask(
        self, method: str, name: str, headers: dict[str, str] | None = None, body: bytes = b"", query: str = ""
    ) -> Response:
        try:
            status, found = await self._begin(method, name, headers or {}, body, query)
            length = 0 if method == "HEAD" or status in (204, 304) else int(found["content-length"])
            assert self._reader is not None
            return Response(status, found, await self._reader.readexactly(length))
        except (OSError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Gone from error
        except BaseException:
            self.close()  # what was asked may still be answered, to nobody
            raise

    async def events(self, name: str, query: str) -> AsyncGenerator[Event | Response, None]:
        """The events of a stream until the server ends it; or one response that is something else."""
        try:
            status, headers = await self._begin("GET", name, {}, b"", query)
            assert self._reader is not None
            if status != 200:
                yield Response(status, headers, await self._reader.readexactly(int(headers.get("content-length", 0))))
                return
            rest = b""
            while size := int(await self._reader.readline() or b"x", 16):
                *blocks, rest = (rest + (await self._reader.readexactly(size + 2))[:-2]).split(b"\n\n")
                for block in blocks:
                    if block != b":":
                        yield _event(block.decode())
            await self._reader.readexactly(2)
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.close()
            raise Gone from error
        except BaseException:
            self.close()
            raise

    async def _begin(
        self, method: str, name: str, headers: dict[str, str], body: bytes, query: str
    ) -> tuple[int, dict[str, str]]:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
        assert self._reader is not None
        lines = [f"{method} {ROOT}{quote(name)}{query} HTTP/1.1", "host: x"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        if body or method in ("POST", "PUT"):
            lines.append(f"content-length: {len(body)}")
        self._writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.split("\r\n")[:-2]
        return int(first.split(" ")[1]), {
            key.lower(): value for key, _, value in (line.partition(": ") for line in rest)
        }


def _event(block: str) -> Event:
    first, *lines = block.split("\n")
    assert first.startswith("event: "), block[:200]
    assert all(line.startswith("data:") for line in lines), block[:200]
    return Event(
        first.removeprefix("event: "), "\n".join(line.removeprefix("data:").removeprefix(" ") for line in lines)
    )
