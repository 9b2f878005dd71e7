"""Appends that a server process answers without a task of their own: the answers are those of the longer way."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn
from transports import Transport
from uvicorn.server import ServerState

import durable_log
from durable_log import asgi
from durable_log._cli.connections import Connection
from durable_log._cli.cycle import Cycle
from durable_log.access import Allow
from durable_log.aio import AsyncStore

TEXT = "Content-Type: text/plain"
RECORD_BYTES_MAX = 4096
JSON = "Content-Type: application/json"


def post(name: str, body: str, *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST /{name} HTTP/{version}", "Host: h", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def claim(epoch: int, seq: int) -> list[str]:
    return ["Producer-Id: p", f"Producer-Epoch: {epoch}", f"Producer-Seq: {seq}"]


class World:
    """A store behind one connection, the shorter way open or not."""

    def __init__(self, store: durable_log.Store, *, short: bool, **options: Any) -> None:
        self.app = asgi.app(store, subscriptions=None, gap_seconds=0.0, **options)
        self.tasks: list[object] = []
        config = uvicorn.Config(self._answer, log_config=None, ws="none", proxy_headers=False, interface="asgi3")
        config.load()
        way: dict[str, Any] = {"begin_append": self.app.begin_append} if short else {}
        state = ServerState()
        self.connection = Connection(config=config, server_state=state, app_state={}, connections_max=10, **way)
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        self.tasks.append(scope["path"])
        await self.app(scope, receive, send)

    async def exchange(self, request: bytes, answers: int = 1) -> bytes:
        """What is written back."""
        before = self.connection.server_state.total_requests
        self.transport.written.clear()
        self.connection.data_received(request)
        while self.connection.server_state.total_requests < before + answers:
            self.transport.wrote.clear()
            await self.transport.wrote.wait()
        return b"".join(self.transport.written)


def in_a_world(tmp_path: Any, run: Callable[[World], Awaitable[Any]], *, short: bool = True, **options: Any) -> Any:
    """What ``run`` returns, with the streams ``text`` and ``json`` there."""

    async def within(store: durable_log.Store) -> Any:
        return await asyncio.wait_for(run(World(store, short=short, **options)), 30)

    with durable_log.open(tmp_path, options=durable_log.Options(record_bytes_max=RECORD_BYTES_MAX)) as store:
        store.create("text", content_type="text/plain")
        store.create("json", content_type="application/json")
        return asyncio.run(within(store))


PLAIN = [post("text", "token", TEXT), post("json", "[1, 2]", JSON), post("json", '{"a": 1}', JSON)]
CLAIMED = [
    post("text", "x", TEXT, *claim(0, 0)),
    post("text", "y", TEXT, *claim(0, 1)),
    post("text", "x", TEXT, *claim(0, 0)),
]
CLOSING = [
    post("text", "end", TEXT, "Stream-Closed: true"),
    post("text", "more", TEXT),
    post("text", "", "Stream-Closed: true"),
]
REFUSED = [
    post("text", "token"),
    post("text", "", TEXT),
    post("text", "token", JSON),
    post("json", "[1", JSON),
    post("json", "[]", JSON),
    post("nothing", "token", TEXT),
    post("__ds/subscriptions/s", "{}", JSON),
    post("text", "x", TEXT, *claim(0, 7)),
    post("text", "x", TEXT, "Producer-Id: p"),
    post("text", "b", TEXT, "Stream-Seq: b"),
    post("text", "a", TEXT, "Stream-Seq: a"),
    post("text", "x", TEXT, "Content-Encoding: gzip"),
    post("text", "x" * (RECORD_BYTES_MAX + 1), TEXT),
    b"HEAD /text HTTP/1.1\r\nHost: h\r\n\r\n",
    post("text", "last", TEXT, "Connection: close"),
]  # fmt: skip


@pytest.mark.parametrize("script", [PLAIN, CLAIMED, CLOSING, REFUSED], ids=["plain", "claimed", "closing", "refused"])
@pytest.mark.parametrize("origins", [("*",), ("https://a.example",)], ids=["all origins", "one origin"])
def test_answers_streams_and_figures_are_those_of_the_longer_way(tmp_path, script, origins):
    async def run(world: World) -> tuple[Any, ...]:
        answers = [await world.exchange(request) for request in script]
        store, tally = world.app.parts.store, world.app.parts.tally
        contents = [(await store.stream(name).read()).data for name in ("text", "json")]
        return answers, contents, dict(tally.requests), tally.bytes_in, tally.bytes_out

    both = [in_a_world(tmp_path / str(short), run, short=short, cors=asgi.Cors(origins)) for short in (True, False)]
    assert both[0] == both[1]


def test_a_plain_append_and_that_of_a_producer_need_no_task(tmp_path):
    async def run(world: World) -> list[object]:
        for request in (*PLAIN, *CLAIMED):
            assert b" 20" in await world.exchange(request)
        return world.tasks

    assert in_a_world(tmp_path, run) == []


READ = [b"GET /text?offset=-1 HTTP/1.1\r\nHost: h\r\n\r\n", b"HEAD /text HTTP/1.1\r\nHost: h\r\n\r\n"]


def cycles() -> int:
    """How many requests take memory."""
    return sum(isinstance(each, Cycle) for each in gc.get_objects())


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Nothing goes away but what nobody refers to."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("script", [PLAIN, CLAIMED, CLOSING[:1], READ], ids=["plain", "claimed", "closing", "reading"])
@pytest.mark.parametrize("short", [True, False], ids=["the shorter way", "the longer way"])
def test_a_request_that_is_answered_leaves_nothing_to_be_collected(tmp_path, script, short):
    async def run(world: World) -> int:
        for request in script:
            await world.exchange(request)
            await asyncio.sleep(0)
        return cycles()

    assert in_a_world(tmp_path, run, short=short) == 1  # the connection's last


def test_a_request_that_comes_in_pieces_is_answered_the_longer_way(tmp_path):
    async def run(world: World) -> bytes:
        world.connection.data_received(PLAIN[0][:-2])
        await asyncio.sleep(0)
        return await world.exchange(PLAIN[0][-2:])

    assert in_a_world(tmp_path, run).startswith(b"HTTP/1.1 204")


def test_requests_sent_ahead_are_answered_in_their_order(tmp_path):
    async def run(world: World) -> bytes:
        written: bytes = await world.exchange(b"".join(post("text", each, TEXT) for each in "abc"), answers=3)
        assert written.count(b" 204 ") == 3
        return (await world.app.parts.store.stream("text").read()).data

    assert in_a_world(tmp_path, run) == b"abc"


def test_a_client_that_takes_no_answers_has_to_before_more_is_done_for_it(tmp_path):
    async def run(world: World) -> tuple[bytes, list[object], bytes]:
        world.connection.pause_writing()
        world.connection.data_received(PLAIN[0])
        stream = world.app.parts.store.stream("text")
        await stream.wait(0, 10)
        for _ in range(10):
            await asyncio.sleep(0)
        before = b"".join(world.transport.written)
        world.connection.resume_writing()
        while not world.transport.written:
            await world.transport.wrote.wait()
        return before, world.tasks, world.transport.written[0][:12]

    assert in_a_world(tmp_path, run) == (b"", ["/text"], b"HTTP/1.1 204")


def test_where_somebody_has_to_be_asked_the_application_asks(tmp_path):
    asked: list[str] = []

    def authorize(request: Any) -> Allow:
        asked.append(request.action)
        return Allow()

    async def run(world: World) -> bytes:
        return await world.exchange(PLAIN[0])

    assert in_a_world(tmp_path, run, authorize=authorize).startswith(b"HTTP/1.1 204")
    assert asked == ["append"]


def test_a_client_that_leaves_gets_nothing_and_its_append_is_there(tmp_path):
    async def run(world: World) -> tuple[bytes, bytes]:
        world.connection.data_received(PLAIN[0])
        world.connection.connection_lost(None)
        stream = world.app.parts.store.stream("text")
        await stream.wait(0, 10)
        await asyncio.sleep(0)
        return b"".join(world.transport.written), (await stream.read()).data

    assert in_a_world(tmp_path, run) == (b"", b"token")


def test_a_stream_that_is_not_in_memory_is_brought_there_by_the_application(tmp_path):
    with durable_log.open(tmp_path) as store:
        store.create("cold", content_type="text/plain")
        store.engine.upkeep.cluster()

    async def run(world: World) -> tuple[bytes, list[object]]:
        return await world.exchange(post("cold", "x", TEXT)), list(world.tasks)

    answer, tasks = in_a_world(tmp_path, run)
    assert answer.startswith(b"HTTP/1.1 204")
    assert tasks == ["/cold"]


def test_after_a_failed_commit_the_application_says_so(tmp_path, monkeypatch):
    async def run(world: World) -> bytes:
        store: AsyncStore = world.app.parts.store
        port = store.port()
        submit, failures = port.submit_together, [durable_log.CommitFailed("made up")]

        def failing(request: Any) -> Any:
            future = submit(request)
            if failures:
                failure = failures.pop()
                future = asyncio.get_running_loop().create_future()
                future.set_exception(failure)
            return future

        monkeypatch.setattr(port, "submit_together", failing)
        answer = await world.exchange(post("text", "x", TEXT, *claim(0, 0)))
        assert world.tasks == ["/text"]
        return answer

    assert in_a_world(tmp_path, run).startswith(b"HTTP/1.1 20")
