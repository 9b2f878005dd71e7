"""A server that knows just enough of the protocol to be put under load, and does wrong what it is told to.

Law of this room: everything in memory, on one event loop of a thread of its own, so that a pause is a pause for all.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Stub:
    """Methods are there to be replaced by worse ones."""

    def __init__(self) -> None:
        self.streams: dict[str, list[bytes]] = {}
        self.piece = 1 << 20
        """What is sent at once."""
        self.pauses: list[float] = []
        """Before so many of the next appends, for how long everything stands still."""
        self.port = 0
        self._moved = asyncio.Condition()

    def status(self, _appended: int) -> int:
        """Of an append."""
        return 204

    def kept(self, body: bytes, _appended: int) -> list[bytes]:
        """What an append adds to the stream."""
        return [body]

    def shown(self, body: bytes, _viewer: int, _number: int) -> bytes:
        """What a viewer gets of what was appended."""
        return body

    async def before_event(self) -> None:
        """Viewers wait for it."""

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = head.partition("content-length: ")[2].partition("\r")[0]
                body = await reader.readexactly(int(length or 0))
                method, target = head.split()[:2]
                await self._answer(writer, method, *target.partition("?")[::2], body)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, method: str, path: str, query: str, body: bytes) -> None:
        if method == "put":
            self.streams[path] = []
            await self._send(writer, b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        elif method == "post":
            if self.pauses:
                time.sleep(self.pauses.pop(0))  # noqa: ASYNC251 - for everybody
            bodies = self.streams[path]
            status = self.status(len(bodies))
            bodies += self.kept(body, len(bodies))
            end = b"\r\n\r\n" if status == 204 else b"\r\nContent-Length: 0\r\n\r\n"
            await self._send(writer, b"HTTP/1.1 %d Whatever" % status + end)
            async with self._moved:
                self._moved.notify_all()
        elif "live=sse" in query:
            await self._show(writer, self.streams[path])
        else:
            await self._page(writer, self.streams[path], query)

    async def _page(self, writer: asyncio.StreamWriter, bodies: list[bytes], query: str) -> None:
        """Half of what there is, chunked, then the other half with its length."""
        content, first = b"".join(bodies), "offset=-1" in query
        half = len(content) // 2
        head = b"HTTP/1.1 200 OK\r\nstream-next-offset: %d\r\n" % (half if first else len(content))
        if first:
            parts = [content[at : min(at + 1000, half)] for at in range(0, half, 1000)]
            chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(part), part) for part in parts)
            await self._send(writer, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\na: b\r\n\r\n")
        else:
            rest = content[half:]
            await self._send(writer, head + b"Stream-Up-To-Date: true\r\nContent-Length: %d\r\n\r\n" % len(rest) + rest)

    async def _show(self, writer: asyncio.StreamWriter, bodies: list[bytes]) -> None:
        viewer = self._viewers = getattr(self, "_viewers", -1) + 1
        await self._send(writer, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n")
        for number in itertools.count():
            async with self._moved:
                while number >= len(bodies):
                    await self._moved.wait()
            await self.before_event()
            token = self.shown(bodies[number], viewer, number)
            event = b"event: data\ndata: " + token[:7] + b"\ndata:" + token[7:] + b"\n\nevent: control\ndata:{}\n\n"
            await self._send(writer, b"%x\r\n%b\r\n" % (len(event), event))

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), self.piece):
            writer.write(data[at : at + self.piece])
            if self.piece < len(data):
                await asyncio.sleep(0)
        await writer.drain()


@contextmanager
def serving(make: Callable[[], Stub]) -> Iterator[Stub]:
    """A stub on a free port, until the end of the block."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stubs: list[Stub] = []

    async def serve() -> None:
        stub = make()
        server = await asyncio.start_server(stub.connected, "127.0.0.1", 0)
        stub.port = server.sockets[0].getsockname()[1]
        stubs.append(stub)
        ready.set()
        await server.serve_forever()

    def run() -> None:
        asyncio.set_event_loop(loop)
        task = loop.create_task(serve())
        stop.append(lambda: loop.call_soon_threadsafe(task.cancel))
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        left = asyncio.all_tasks(loop)
        for each in left:
            each.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    stop: list[Callable[[], object]] = []
    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(10)
    try:
        yield stubs[0]
    finally:
        stop[0]()
        thread.join()
