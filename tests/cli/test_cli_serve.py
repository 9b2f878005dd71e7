"""durable-log serve: when it is ready, how it ends, and what it says when it cannot begin."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time

import pytest

import durable_log
from durable_log import asgi
from durable_log._cli.serve import Front, Page, Server
from durable_log.operations import Operations

SHUTDOWN_SECONDS_MAX = 2.0


def test_the_line_that_says_ready_names_directory_and_address(serve):
    server = serve("chats")
    assert server.line.startswith("durable-log serves chats at http://127.0.0.1:")
    assert server.put("a", b"hello") == 201
    assert server.get("a") == b"hello"


def test_nothing_but_that_line_is_printed(serve):
    server = serve()
    server.put("a", b"hello")
    assert server.stop() == 0
    assert server.process.stdout.read() == b""
    assert server.process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_open_viewers_and_the_server_in_order(serve, data, number):
    server = serve(data)
    server.put("chat", b"token ")
    viewers = []
    with contextlib.ExitStack() as stack:
        for query in ("?offset=-1&live=sse", "?offset=now&live=sse", "?offset=now&live=long-poll"):
            connection = stack.enter_context(contextlib.closing(server.connect()))
            connection.request("GET", "/v1/stream/chat" + query)
            viewers.append(connection)
        events = [viewers[0].getresponse(), viewers[1].getresponse()]
        assert events[0].readline() == b"event: data\n"
        assert server.post("chat", b"more") == 204
        started = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - started < SHUTDOWN_SECONDS_MAX
        # Both event streams end as HTTP has it, not by a connection that breaks.
        assert all(b"streamNextOffset" in response.read() for response in events)
        assert viewers[2].getresponse().status == 200
    with durable_log.open(data) as store:
        assert store.stream("chat").read().data == b"token more"


def test_a_waiting_long_poll_is_answered_when_the_server_stops(serve):
    server = serve()
    server.put("chat", b"token")
    with contextlib.closing(server.connect()) as connection, contextlib.closing(server.connect()) as other:
        connection.request("GET", "/v1/stream/chat?offset=now&live=long-poll")
        # Requests are read in the order of their arrival, so the poll waits once this is answered.
        other.request("GET", "/healthz")
        other.getresponse().read()
        assert server.stop() == 0
        assert connection.getresponse().status == 204


def test_a_request_that_never_ends_does_not_hold_the_server(serve, data):
    server = serve(data)
    server.put("chat", b"token")
    with contextlib.closing(server.connect()) as connection:
        connection.putrequest("POST", "/v1/stream/chat")
        connection.putheader("Content-Type", "text/plain")
        connection.putheader("Content-Length", "1000")
        connection.endheaders()
        connection.send(b"half a body")
        server.request("GET", "/healthz")
        assert server.stop() == 0
    with durable_log.open(data) as store:
        assert store.stream("chat").read().data == b"token"


def test_a_second_signal_ends_the_server_at_once(tmp_path):
    import uvicorn

    with durable_log.open(tmp_path / "store") as store:
        server = Server(uvicorn.Config(None), asgi.app(store), "ready", 45)
        server.handle_exit(signal.SIGTERM, None)
        assert server.should_exit
        assert not server.force_exit
        server.handle_exit(signal.SIGTERM, None)
        assert server.force_exit


def test_what_was_acknowledged_before_a_kill_is_served_after_it(serve, data):
    server = serve(data)
    server.put("chat")
    for number in range(20):
        assert server.post("chat", b"%d " % number) == 204
    server.process.kill()
    server.process.wait()
    again = serve(data, server.port)
    assert again.get("chat") == b"".join(b"%d " % number for number in range(20))


def test_a_second_server_is_told_who_holds_the_store(serve, run, data):
    server = serve(data)
    refused = run("serve", "--data", data, "--port", 0)
    assert refused.returncode == 1
    assert refused.stdout == b""
    message = refused.stderr.decode()
    assert message.startswith(f"Error: {data} is open in process {server.process.pid} on {socket.gethostname()};")
    assert message.count("\n") == 1


def test_a_busy_port_is_said_in_one_line(serve, run):
    server = serve("one")
    refused = run("serve", "--data", "two", "--port", server.port)
    assert refused.returncode == 1
    message = refused.stderr.decode()
    assert message.startswith(
        f"Error: cannot listen on 127.0.0.1:{server.port}: {os.strerror(errno.EADDRINUSE)}; choose another"
    )
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "full", "--port", 0), "full is not a durable_log store: it has no MANIFEST but 'letter.txt'"),
        (("--data", "new", "--host", "x" * 64), f"cannot listen on '{'x' * 64}'"),
        (("--data", "new", "--host", "192.0.2.1", "--port", 0), "cannot listen on 192.0.2.1:0"),
        (
            ("--data", "new", "--host", "192.0.2.1", "--port", 0),
            "; '192.0.2.1' is no address of this machine: choose another --host, or --host 0.0.0.0 for all\n",
        ),
        (("--data", "", "--port", 0), "the path is empty; name the directory of the store"),
        (("--data", "full/letter.txt", "--port", 0), "full/letter.txt"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(run, tmp_path, arguments, said):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("no store")
    refused = run("serve", *arguments)
    assert refused.returncode == 1
    assert refused.stdout == b""
    message = refused.stderr.decode()
    assert message.startswith("Error: ")
    assert said in message
    assert message.count("\n") == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["letter.txt"]


def test_an_unknown_option_is_a_usage_error(run):
    refused = run("serve", "--prot", "1")
    assert refused.returncode == 2
    assert b"--prot" in refused.stderr


def test_long_polls_last_as_long_as_was_asked_for(serve):
    server = serve("store", 0, "--long-poll-timeout", "0.05")
    server.put("chat", b"token")
    status, headers, body = server.request("GET", "/v1/stream/chat?offset=now&live=long-poll")
    assert (status, body) == (204, b"")
    assert headers["stream-up-to-date"] == "true"


def test_the_health_of_a_sound_server_is_ok(serve):
    server = serve()
    assert server.request("GET", "/healthz")[::2] == (200, b'{"status":"ok"}\n')
    assert server.request("HEAD", "/healthz")[::2] == (200, b"")


def ask(front, method, path):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
    asyncio.run(front(scope, None, send))
    return sent[0]["status"], sent[1]["body"]


def test_a_page_beside_the_streams_is_served_whole():
    with durable_log.open(":memory:") as store:
        streams = asgi.app(store)
        front = Front(streams, Operations(streams), {"/": Page("text/html", b"<p>hello")})
        assert ask(front, "GET", "/") == (200, b"<p>hello")
        assert ask(front, "HEAD", "/") == (200, b"")
