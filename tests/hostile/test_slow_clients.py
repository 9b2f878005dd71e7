"""Clients that take their time: they are ended, others do not wait for them, and they cost little."""

from __future__ import annotations

import selectors
import socket
import time
from pathlib import Path

from attacked import CLIENT_SECONDS, PATIENCE_SECONDS, ROOT, Attacked, Neighbour
from serving import until

SLOW = 200
PAUSE_SECONDS = 0.25
HEAD = f"POST {ROOT}/slow HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n".encode()
DRIPPED = {
    "silence": b"",
    "an empty line": b"\r\n",
    "a head": HEAD + b"X: " + b"x" * 1000,
    "a body": HEAD + b"\r\n" + b"x" * 1000,
    "chunks": HEAD.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"\r\n" + b"1\r\nx\r\n" * 200,
}
"""What comes a byte at a time, as often as it may, until the server has enough of it."""


def drip(clients: dict[socket.socket, bytes], deadline: float) -> None:
    """Send each the rest of what it has a byte at a time until the server has ended all."""
    sent = dict.fromkeys(clients, 0)
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while sent:
            assert time.monotonic() < deadline, f"{len(sent)} slow clients are still there"
            for key, _ in selector.select(PAUSE_SECONDS):
                client = key.fileobj
                assert isinstance(client, socket.socket)
                try:
                    gone = not client.recv(65536)
                except ConnectionResetError:
                    gone = True
                if gone:
                    selector.unregister(client)
                    del sent[client]
            for client, at in sent.items():
                text = clients[client]
                try:
                    client.send(text[at : at + 1])
                except (BrokenPipeError, ConnectionResetError):
                    continue  # which shows when it is read
                sent[client] = at + 1


def test_slow_senders_are_ended_while_others_are_served_and_nothing_is_stored(server: Attacked):
    server.put("slow")
    before, resident = server.figures(), server.resident_bytes()
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(SLOW)]
    texts = list(DRIPPED.values())
    with Neighbour(server) as neighbour:
        # Four bytes a second earn a quarter of a second, so none lasts for longer than twice the time-out.
        drip({client: texts[at % len(texts)] for at, client in enumerate(clients)}, time.monotonic() + PATIENCE_SECONDS)
    for client in clients:
        client.close()
    assert neighbour.longest_seconds < CLIENT_SECONDS / 2
    assert server.resident_bytes() - resident < 16 * 2**20
    assert server.figures() == before


def test_an_answer_sent_on_as_slowly_as_a_model_makes_it_is_stored_whole(server: Attacked):
    server.put("slow")
    with server.raw(HEAD.replace(b"Content-Length: 100000", b"Transfer-Encoding: chunked") + b"\r\n") as client:
        began, sent = time.monotonic(), 0
        while time.monotonic() - began < 2 * CLIENT_SECONDS:
            client.send(b"4\r\nword\r\n")
            sent += 1
            time.sleep(0.05)  # this is what is tested: the request takes longer than the time-out
        client.send(b"0\r\n\r\n")
        assert client.response()[0] == 204
    assert server.read("slow") == b"word" * sent


def test_who_takes_nothing_of_a_response_is_ended_whatever_waits_behind_it(server: Attacked):
    server.put("large", b"x" * 3 * 2**20)
    at_rest = server.sockets()
    read = f"GET {ROOT}/large HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    deaf = []
    for text in (read, read * 20, read.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) * 5:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(text)
        deaf.append(client)
    until(lambda: server.sockets() >= at_rest + len(deaf), "the connections")
    until(lambda: server.sockets() <= at_rest + 1, "their end")
    for client in deaf:
        client.close()


def test_a_slow_reader_who_takes_something_now_and_then_gets_everything(server: Attacked):
    size = 3 * 2**20
    server.put("slowly", b"x" * size)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.settimeout(PATIENCE_SECONDS)
        client.sendall(f"GET {ROOT}/slowly HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        began, taken = time.monotonic(), 0
        while part := client.recv(65536):
            taken += len(part)
            if time.monotonic() - began < 2 * CLIENT_SECONDS:
                time.sleep(0.02)  # this is what is tested: the response takes longer than the time-out
    assert taken > size


def test_a_connection_that_is_kept_may_be_idle_for_longer_than_a_request_may_take(server: Attacked):
    server.put("kept", b"x")
    read = f"GET {ROOT}/kept HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    with server.raw(read) as client:
        client.response()
        with server.raw(HEAD) as slow:
            assert slow.rest() == b""  # so long does a request take
        client.send(read)
        assert client.response()[0] == 200


def test_viewers_may_wait_for_longer_than_a_request_may_take(server: Attacked):
    server.put("watched", b"x")
    with server.raw(f"GET {ROOT}/watched?offset=now&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode()) as viewer:
        with server.raw(HEAD) as slow:
            assert slow.rest() == b""
        server.http.post("/watched", content=b"news", headers={"content-type": "text/plain"})
        seen = b""
        while b"data:news" not in seen:
            seen += viewer.socket.recv(65536)


FLOOD = 400


def test_connections_by_the_hundred_leave_the_store_its_descriptors(tmp_path: Path):
    """A store that can't open a segment takes nothing any more; so connections may not have all descriptors."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 300)); "
    (tmp_path / "limited.py").write_text(
        limited + "from durable_log.cli import main; sys.argv[0] = 'durable-log'; main()"
    )
    command = "limited serve --port {port} --data {data} --client-timeout 20"
    server = Attacked(tmp_path, command)
    server._applications = tmp_path
    server.start()
    try:
        server.put("s")
        flood = []
        for _ in range(FLOOD):
            client = socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)
            flood.append(client)
        for _ in range(6):  # of 16 MiB: into the next segment of the log
            answer = server.http.post("/s", content=b"x" * 2**24, headers={"content-type": "text/plain"})
            assert answer.status_code == 204, answer.text
        for client in flood:
            client.close()
        server.serves()
        assert "Traceback" not in server.log(), server.log()
    finally:
        server.http.close()
        server.stop()
