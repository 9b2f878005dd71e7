"""The paths that everything depends on, each to be gone so many times by a process that does nothing else.

python -m benchmarks.hot_paths NAME TIMES FOLDER

Law of this room: the same instructions every time. What begins by the clock is put off, what depends on addresses or on
the collector of garbage is switched off; times are not taken here.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.server import ServerState

import durable_log
from durable_log import asgi
from durable_log._cli.connections import Connection
from durable_log.aio import AsyncStore
from durable_log.model import Options

RECORD = b"x" * 100
MESSAGES = [b'{"token":"so many characters"}'] * 1000
PAGE = 64 * 2**10
WRITERS = 64
VIEWERS = 50
CRASHED_RECORDS = 2000
NEVER = 1e9
OPTIONS = Options(
    preallocate=False, sweep_seconds=NEVER, cluster_segments=2**30, cluster_seconds=NEVER, cluster_at_close=False
)

Times = Callable[[int], None]
"""Goes the path so many times."""


@contextmanager
def open_store(folder: Path, options: Options = OPTIONS) -> Iterator[durable_log.Store]:
    with durable_log.open(folder / "store", options=options) as store:
        yield store


def repeated(step: Callable[[], object]) -> Times:
    def times(count: int) -> None:
        for _ in range(count):
            step()

    return times


@contextmanager
def on_a_loop() -> Iterator[Callable[[Callable[[], Coroutine[Any, Any, object]]], Times]]:
    """The same for what awaits; all of it runs on one event loop."""
    loop = asyncio.new_event_loop()

    async def go(step: Callable[[], Coroutine[Any, Any, object]], count: int) -> None:
        for _ in range(count):
            await step()

    yield lambda step: lambda count: loop.run_until_complete(go(step, count))
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@contextmanager
def append(folder: Path) -> Iterator[Times]:
    """One synced append of 100 bytes."""
    with open_store(folder) as store:
        stream = store.create("stream")
        yield repeated(lambda: stream.append(RECORD))


@contextmanager
def append_many(folder: Path) -> Iterator[Times]:
    """One synced batch of 1,000 records of 100 bytes."""
    with open_store(folder) as store:
        stream = store.create("stream")
        yield repeated(lambda: stream.append_many([RECORD] * 1000))


@contextmanager
def append_json(folder: Path) -> Iterator[Times]:
    """The same of 1,000 JSON messages."""
    with open_store(folder) as store:
        stream = store.create("stream", content_type="application/json")
        yield repeated(lambda: stream.append_many(MESSAGES))


@contextmanager
def read_log(folder: Path) -> Iterator[Times]:
    """A read of 64 KiB of records of 100 bytes that lie in the log, each in a block of its own."""
    with open_store(folder, replace(OPTIONS, stream_recent_bytes_max=1)) as store:
        stream = store.create("stream")
        for _ in range(1000):
            stream.append(RECORD, durability="written")
        yield repeated(lambda: stream.read(0, limit=PAGE))


@contextmanager
def read_clustered(folder: Path) -> Iterator[Times]:
    """A read of 64 KiB of a clustered stream."""
    with open_store(folder) as store:
        stream = store.create("stream")
        for _ in range(20):
            stream.append(bytes(PAGE), durability="written")
        store.engine.upkeep.cluster()
        yield repeated(lambda: stream.read(0, limit=PAGE))


@contextmanager
def iterate(folder: Path, what: str = "items") -> Iterator[Times]:
    """1,000 JSON messages, read, and parsed or as bytes."""
    with open_store(folder) as store:
        stream = store.create("stream", content_type="application/json")
        stream.append_many(MESSAGES)
        yield repeated(lambda: sum(len(item) for item in getattr(stream.read(), what)))


@contextmanager
def commit_64(folder: Path) -> Iterator[Times]:
    """64 appends that asyncio tasks await together: one commit, one wake-up."""
    with open_store(folder) as store, on_a_loop() as times:
        face = AsyncStore.of(store)
        streams = [store.create(f"stream/{number}").name for number in range(WRITERS)]

        async def step() -> None:
            await asyncio.gather(*[face.stream(name).append(RECORD) for name in streams])

        yield times(step)


@contextmanager
def open_crashed(folder: Path) -> Iterator[Times]:
    """Opening a store that a process with 2,000 records in its log left open, and closing it."""
    crashed, again = folder / "crashed", folder / "again"
    with open_store(folder) as store:
        stream = store.create("stream")
        for _ in range(CRASHED_RECORDS):
            stream.append(RECORD, durability="written")
        stream.append(RECORD)
        shutil.copytree(folder / "store", crashed)

    def step() -> None:
        shutil.copytree(crashed, again)
        with durable_log.open(again, options=OPTIONS) as store:
            assert store.report.records > CRASHED_RECORDS
        shutil.rmtree(again)

    yield repeated(step)


class Client:
    """Requests to an ASGI application in this process."""

    def __init__(self, store: durable_log.Store) -> None:
        self._app = asgi.app(store, sse_seconds=NEVER, heartbeat_seconds=NEVER, stall_seconds=NEVER)

    async def request(
        self, method: str, body: bytes = b"", query: bytes = b"", heard: Callable[[bytes], None] | None = None
    ) -> None:
        """One request to its end; ``heard`` gets each part of the body."""
        headers = [(b"host", b"localhost"), (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": "/stream", "raw_path": b"/stream", "query_string": query, "root_path": "", "headers": headers,
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        bodies = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            for message in bodies:
                return message
            return await asyncio.get_running_loop().create_future()  # it stays until the end

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                assert message["status"] < 300, message
            elif heard is not None:
                heard(message["body"])

        await self._app(scope, receive, send)


@contextmanager
def asgi_post(folder: Path) -> Iterator[Times]:
    """One POST of a token, synced."""
    with open_store(folder) as store, on_a_loop() as times:
        store.create("stream", content_type="text/plain")
        client = Client(store)
        yield times(lambda: client.request("POST", RECORD))


class Answers(asyncio.Transport):
    """The end of a connection that writes nowhere; ``answered`` is called with each answer."""

    def __init__(self, answered: Callable[[bytes], None]) -> None:
        super().__init__()
        self._answered = answered

    def write(self, data: Any) -> None:
        """An answer."""
        self._answered(data)

    def get_extra_info(self, _name: str, default: Any = None) -> Any:
        """Nothing is known of the other end."""
        return default

    def is_closing(self) -> bool:
        """It stays."""
        return False

    def resume_reading(self) -> None:
        """Everything has come already."""


@contextmanager
def served_64(folder: Path) -> Iterator[Times]:
    """64 POSTs of a token that come to a server process at once, each by its connection."""
    head = b"POST /stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
    answers: list[bytes] = []
    done = asyncio.Event()
    connections: list[Connection] = []

    def answered(answer: bytes) -> None:
        answers.append(answer)
        if len(answers) == WRITERS:
            done.set()

    with open_store(folder) as store, on_a_loop() as times:
        store.create("stream", content_type="text/plain")
        app = asgi.app(store)
        config = uvicorn.Config(app, log_config=None, ws="none", proxy_headers=False)
        config.load()

        async def step() -> None:
            while len(connections) < WRITERS:
                connections.append(
                    Connection(
                        config=config, server_state=ServerState(), app_state={}, connections_max=WRITERS,
                        begin_append=app.begin_append,
                    )
                )  # fmt: skip
                connections[-1].connection_made(Answers(answered))
            answers.clear()
            done.clear()
            for connection in connections:
                connection.data_received(head % len(RECORD) + RECORD)
            await done.wait()
            assert all(b" 204 " in answer for answer in answers), answers

        yield times(step)


@contextmanager
def asgi_get(folder: Path) -> Iterator[Times]:
    """One GET of ten tokens."""
    with open_store(folder) as store, on_a_loop() as times:
        stream = store.create("stream", content_type="text/plain")
        for _ in range(10):
            stream.append(RECORD)
        client = Client(store)
        yield times(lambda: client.request("GET", query=b"offset=-1"))


@contextmanager
def asgi_sse_50(folder: Path) -> Iterator[Times]:
    """One token to 50 viewers, each an event stream."""
    with open_store(folder) as store, on_a_loop() as times:
        stream = AsyncStore.of(store).stream(store.create("stream", content_type="text/plain").name)
        client, viewers, seen, all_saw = Client(store), list[asyncio.Task[None]](), 0, asyncio.Event()

        def heard(part: bytes) -> None:
            nonlocal seen
            seen += part.count(b"event: data")
            if seen == VIEWERS:
                all_saw.set()

        async def step() -> None:
            nonlocal seen
            if not viewers:
                for _ in range(VIEWERS):
                    request = client.request("GET", query=b"offset=-1&live=sse", heard=heard)
                    viewers.append(asyncio.create_task(request))
            await stream.append(RECORD)
            await all_saw.wait()
            seen = 0
            all_saw.clear()

        yield times(step)


PATHS: dict[str, Callable[[Path], Any]] = {
    "append": append,
    "append_many 1000": append_many,
    "append_many 1000 JSON": append_json,
    "read 64 KiB in the log": read_log,
    "read 64 KiB clustered": read_clustered,
    "iterate 1000": iterate,
    "iterate 1000 as bytes": partial(iterate, what="messages"),
    "asyncio commit of 64": commit_64,
    "open after a crash": open_crashed,
    "64 POSTs at a server": served_64,
    "ASGI POST": asgi_post,
    "ASGI GET": asgi_get,
    "ASGI SSE to 50": asgi_sse_50,
}


def main() -> None:
    """Go one path, after a few times to warm up."""
    name, times, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    gc.disable()
    with PATHS[name](folder) as go:
        go(times)


if __name__ == "__main__":
    main()
