"""Viewers among others: the streams that they keep alive, their departures, and the slow ones."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import Any

import pytest
from serving import CONNECTIONS, PATIENCE_SECONDS, Clock, EventClient, Served, serving, until

from durable_log import aio, asgi
from durable_log._http.live import EVENT_CHUNK_BYTES, EVENT_OVERHEAD, EventCache, Live, LiveSet, Viewer
from durable_log.errors import StreamNotFound
from durable_log.model import Chunk, StreamInfo


def test_a_read_of_one_life_of_a_name_is_never_of_the_next():
    async def read() -> None:
        async with aio.open(":memory:") as store:
            info = await (await store.create("s", data=b"old")).info()
            await store.delete("s")
            await store.create("s", data=b"new and longer")
            viewer = Viewer(None, store.stream("s"), info, 100)  # type: ignore[arg-type]
            with pytest.raises(StreamNotFound):
                await viewer.read(3)
            with pytest.raises(StreamNotFound):
                await viewer.wait(3, 10)

    asyncio.run(read())


# Time to live


def test_a_viewer_keeps_a_stream_alive_and_its_departure_lets_it_go(name: str):
    clock = Clock()
    with serving(clock=clock, heartbeat_seconds=0.02) as running:
        running.put(name, stream_ttl="100")
        with running.events(name) as viewer:
            viewer.control()
            for _ in range(5):
                clock.now += 60
                viewer.heartbeat()
                viewer.heartbeat()
            assert running.http.head(f"/{name}").status_code == 200
        until(lambda: running.app.live_responses == 0, "the departure")
        clock.now += 101
        assert running.http.head(f"/{name}").status_code == 404


def test_a_viewer_is_counted_at_least_every_half_window():
    def pulse(ttl: int | None) -> float:
        info = StreamInfo("s", 1, "text/plain", 0, False, ttl, None, 0.0)
        return Viewer(None, None, info, 1).pulse(15.0)  # type: ignore[arg-type]

    assert [pulse(ttl) for ttl in (None, 3600, 10, 1, 0)] == [15.0, 15.0, 5.0, 0.5, 0.5]


# Departures and slow viewers


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_a_departure_is_noticed_and_leaves_nothing_behind(patient: Served, name: str, live: str):
    patient.put(name)
    viewers = [
        patient.raw(f"GET /{name}?offset=now&live={live} HTTP/1.1\r\nHost: h\r\n\r\n".encode()) for _ in range(10)
    ]
    until(lambda: patient.app.live_responses == 10, "the arrival")
    for viewer in viewers:
        viewer.socket.close()
    until(lambda: patient.app.live_responses == 0, "the departure")


@pytest.mark.parametrize("http", CONNECTIONS)
def test_a_viewer_that_reads_nothing_is_cut_off_while_others_go_on(name: str, http: str):
    piece, pieces = b"x" * 2**18, 80
    with serving(http=CONNECTIONS[http], stall_seconds=0.3) as running:
        running.put(name, content_type="text/plain")
        with _deaf(running, name) as deaf, running.events(name) as viewer:
            viewer.control()
            until(lambda: running.app.live_responses == 2, "both viewers")
            seen = 0
            for _ in range(pieces):
                running.post(name, piece)
                while seen < running.tail(name):
                    seen += len(viewer.pair()[0])
            until(lambda: running.app.live_responses == 1, "the end of its response")
            until(lambda: not running.holds(deaf), "the end of its connection")
            running.post(name, b"still here")
            assert viewer.pair()[0] == "still here"
            received = _drain(deaf)
        assert received < pieces * len(piece)
        assert seen == pieces * len(piece)


def _deaf(running: Served, name: str) -> socket.socket:
    """A viewer that asks and then never reads, through a window as small as the system allows."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", running.port))
    client.sendall(f"GET /{name}?offset=-1&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    return client


def _drain(client: socket.socket) -> int:
    client.settimeout(10)
    size = 0
    try:
        while part := client.recv(2**20):
            size += len(part)
    except ConnectionResetError:
        pass
    return size


class Departed:
    """A client that has left, and a stream whose wait forgets that it was cancelled, as asyncio.wait_for may."""

    def __init__(self) -> None:
        self.waited = asyncio.Event()
        self.waits = 0

    async def receive(self) -> dict[str, str]:
        await self.waited.wait()
        return {"type": "http.disconnect"}

    async def wait(self, _offset: int, _seconds: float) -> bool:
        self.waits += 1
        self.waited.set()
        try:
            await asyncio.sleep(PATIENCE_SECONDS)
        except asyncio.CancelledError:
            return True
        return False


def test_a_response_ends_with_its_client_even_if_a_cancellation_is_lost():
    async def live() -> int:
        departed, members = Departed(), LiveSet()
        response = Live(members, departed.receive, None, 1.0, "sse")  # type: ignore[arg-type]

        async def pump() -> None:
            while await response.beyond(departed, 0, math.inf, 60, None):  # type: ignore[arg-type]
                pass

        await asyncio.wait_for(response.run(pump()), PATIENCE_SECONDS)
        assert len(members) == 0
        return departed.waits

    assert asyncio.run(live()) == 1


def test_a_send_that_never_returns_is_given_up():
    async def live() -> None:
        async def never(_message: object = None) -> dict[str, str]:
            await asyncio.Event().wait()
            return {}

        response = Live(LiveSet(), never, never, 0.01, "sse")
        await asyncio.wait_for(response.run(response.send(b"x")), PATIENCE_SECONDS)

    asyncio.run(live())


def test_an_event_stream_whose_place_is_trimmed_away_ends_at_an_event(caplog: pytest.LogCaptureFixture):
    async def watched() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def stay() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)
            if len(sent) == 2:
                await stream.trim(2 * EVENT_CHUNK_BYTES)

        async with aio.open(":memory:") as store:
            stream = await store.create("s", content_type="text/plain", data=b"x" * 3 * EVENT_CHUNK_BYTES)
            scope = {"type": "http", "method": "GET", "path": "/s", "query_string": b"offset=-1&live=sse"}
            await asgi.app(store)({**scope, "headers": [(b"host", b"h")]}, stay, send)
        return sent

    start, event, end = asyncio.run(watched())
    assert start["status"] == 200
    assert event["body"].endswith(b"}\n\n")
    assert end == {"type": "http.response.body", "body": b"", "more_body": False}
    assert not caplog.records


def test_many_viewers_see_the_same(patient: Served, name: str):
    patient.put(name)
    viewers = [patient.events(name, "now") for _ in range(30)]
    for viewer in viewers:
        viewer.control()
    for number in range(10):
        patient.post(name, f"{number} ".encode())
    patient.close(name)
    assert {_text(viewer) for viewer in viewers} == {"0 1 2 3 4 5 6 7 8 9 "}


def _text(viewer: EventClient) -> str:
    with viewer:
        seen = ""
        while event := viewer.event():
            seen += event.data if event.name == "data" else ""
        return seen


def test_the_cache_of_events_is_bounded_and_never_mixes_streams():
    cache = EventCache(bytes_max=5000)
    for number in range(50):
        chunk = Chunk(b"%02d" % number * 50, 0, 100, True, False)
        for _ in range(2):
            assert cache.event(number, "text", chunk) == (b"event: data\ndata:" + chunk.data + b"\n\n", 100)
    assert sum(len(event) + EVENT_OVERHEAD for event, _ in cache._events.values()) == cache._bytes <= 5000
    assert len(cache._events) == 9
    closed = Chunk(b"\xf0\x9f", 0, 2, True, True)
    assert cache.event(99, "text", closed._replace(closed=False)) == (b"", 0)
    assert cache.event(99, "text", closed)[1] == 2


def test_events_of_no_bytes_or_few_do_not_pile_up_in_the_cache():
    """Idle viewers of thousands of streams left an entry each, which counted nothing, for ever."""
    cache = EventCache(bytes_max=10 * EVENT_OVERHEAD)
    for number in range(100):
        assert cache.event(number, "text", Chunk(b"", 7, 7, True, False)) == (b"", 7)
    assert len(cache._events) == 0
    for number in range(100):
        cache.event(number, "text", Chunk(b"x", 7, 8, True, False))
    assert 0 < len(cache._events) < 10


def test_a_write_reaches_its_viewers_without_waiting_for_a_heartbeat(patient: Served, name: str):
    patient.put(name)
    with patient.events(name) as viewer:
        viewer.control()
        began = time.monotonic()
        for number in range(20):
            patient.post(name, b"%d" % number)
            viewer.pair()
        assert time.monotonic() - began < 10
