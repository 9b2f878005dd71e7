"""How a server process writes responses, and when it ends connections on which nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn
from transports import Transport
from uvicorn.server import ServerState

from durable_log._cli.connections import Connection, cut_off

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
Send = Callable[[dict[str, Any]], Awaitable[None]]


def answered(
    respond: Callable[[Send], Awaitable[None]], request: bytes = GET, then: Callable[[Connection], None] | None = None
) -> Transport:
    """What goes out when a request comes in."""

    async def application(_scope: Any, _receive: Any, send: Send) -> None:
        await respond(send)

    async def run() -> Transport:
        config = uvicorn.Config(application, log_config=None, ws="none", timeout_keep_alive=75, proxy_headers=False)
        config.load()
        state = ServerState()
        state.default_headers = [(b"date", b"today")]
        connection = Connection(config=config, server_state=state, app_state={}, connections_max=10)
        transport = Transport()
        connection.connection_made(transport)
        connection.data_received(request)
        await asyncio.gather(*state.tasks)
        if then is not None:
            then(connection)
        return transport

    return asyncio.run(run())


def start(status: int, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(part: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": part, "more_body": more}


def responding(*messages: dict[str, Any]) -> Callable[[Send], Awaitable[None]]:
    async def respond(send: Send) -> None:
        for message in messages:
            await send(message)

    return respond


def test_a_whole_response_is_one_write():
    transport = answered(responding(start(200, (b"content-length", b"2")), body(b"ok")))
    assert transport.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\nok"]


def test_a_large_body_goes_with_its_head():
    large = b"x" * 2**20
    transport = answered(responding(start(200, (b"content-length", b"%d" % len(large))), body(large)))
    assert transport.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 1048576\r\n\r\n" + large]


def test_a_body_of_unknown_length_comes_in_chunks_the_first_with_the_head():
    transport = answered(responding(start(200), body(b"a" * 17, more=True), body(b"", more=True), body(b"b")))
    head = b"HTTP/1.1 200 OK\r\ndate: today\r\ntransfer-encoding: chunked\r\n\r\n"
    assert transport.written == [head + b"11\r\n" + b"a" * 17 + b"\r\n", b"1\r\nb\r\n0\r\n\r\n"]


def test_an_answer_to_head_and_one_without_content_have_no_body():
    head = answered(responding(start(200, (b"content-length", b"2")), body(b"ok")), GET.replace(b"GET", b"HEAD"))
    assert head.written == [b"HTTP/1.1 200 OK\r\ndate: today\r\ncontent-length: 2\r\n\r\n"]
    assert answered(responding(start(204), body(b""))).written == [b"HTTP/1.1 204 No Content\r\ndate: today\r\n\r\n"]


def test_an_old_client_gets_no_chunks_and_is_not_asked_to_go_on():
    old = b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"
    transport = answered(responding(start(200), body(b"a" * 17, more=True), body(b"b")), old)
    head = b"HTTP/1.1 200 OK\r\ndate: today\r\nconnection: close\r\n\r\n"
    assert transport.written == [head + b"a" * 17, b"b"]
    assert transport.closed


def test_a_client_that_wants_to_leave_is_let_go_behind_the_response():
    transport = answered(responding(start(204), body(b"")), GET.replace(b"Host: h", b"Host: h\r\nConnection: close"))
    assert transport.written == [b"HTTP/1.1 204 No Content\r\ndate: today\r\nconnection: close\r\n\r\n"]
    assert transport.closed


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\0b"])
def test_a_header_that_holds_the_end_of_a_line_is_not_sent(value: bytes):
    transport = answered(responding(start(200, (b"www-authenticate", value)), body(b"")))
    assert all(b"www-authenticate" not in written for written in transport.written)


def test_a_connection_is_kept_for_its_time_and_ended_after_it():
    def look(connection: Connection) -> None:
        for seconds, closed in ((0, False), (74, False), (76, True)):
            cut_off([connection], connection.loop.time() + seconds, 45)
            assert connection.transport.is_closing() == closed

    answered(responding(start(204), body(b"")), then=look)


@pytest.mark.parametrize("parts", [(b"hello",), (b"h", b"ello")])
def test_a_connection_whose_request_was_answered_before_its_end_is_ended_like_others(parts: tuple[bytes, ...]):
    def look(connection: Connection) -> None:
        for part in parts:
            connection.data_received(part)
        cut_off([connection], connection.loop.time() + 44, 45)
        assert not connection.transport.is_closing()
        cut_off([connection], connection.loop.time() + 76, 45)
        assert connection.transport.is_closing()

    answered(responding(start(401), body(b"")), GET[:-2] + b"Content-Length: 5\r\n\r\n", then=look)


@pytest.mark.parametrize(
    ("first", "then"), [(GET, GET), (GET[:-2] + b"Content-Length: 5\r\n\r\n", b"hello" + GET)], ids=["whole", "early"]
)
def test_a_connection_whose_response_is_under_way_is_not_idle(first: bytes, then: bytes):
    def look(connection: Connection) -> None:
        connection.data_received(then)
        cut_off([connection], connection.loop.time() + 1000, 45)
        assert not connection.transport.is_closing()

    answered(responding(start(204), body(b"")), first, then=look)


def test_what_a_proxy_on_this_machine_says_of_a_request_counts_for_that_request_alone():
    seen: list[tuple[str, Any]] = []

    async def application(scope: Any, _receive: Any, send: Send) -> None:
        seen.append((scope["scheme"], scope["client"]))
        await responding(start(204), body(b""))(send)

    async def run() -> None:
        config = uvicorn.Config(application, log_config=None, ws="none")
        config.load()
        state = ServerState()
        connection = Connection(config=config, server_state=state, app_state={}, connections_max=10)
        connection.connection_made(Transport())
        said = b"Host: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 192.0.2.7"
        connection.data_received(2 * (GET + GET.replace(b"Host: h", said)))
        while len(seen) < 4:
            await asyncio.gather(*state.tasks)
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(run(), 10))
    assert seen == 2 * [("http", ("127.0.0.1", 9)), ("https", ("192.0.2.7", 0))]
