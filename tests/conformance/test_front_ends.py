"""Where servers of several makers could differ: what they make of paths, bodies, departures and their own end."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from front_ends import FRONT_ENDS, Server, running
from serving import EventClient, RawClient, until

ROOT = "/v1/stream"
TEXT = {"Content-Type": "text/plain"}
COUNTED = [name for name in FRONT_ENDS if "WSGI" not in name and name != "durable-log serve"]
"""Those that tell at /live how many live responses there are. WSGI tells its applications of no departure."""

STOP_SECONDS = 5
VIEWERS = 90


@pytest.fixture(scope="module", params=FRONT_ENDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(request.param, tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def path(request: pytest.FixtureRequest) -> str:
    return f"{ROOT}/{request.node.name.partition('[')[0]}"


def put(server: Server, path: str, body: bytes = b"") -> httpx.Response:
    return httpx.put(server.url + path, content=body, headers=TEXT)


def live(server: Server) -> int:
    return int(httpx.get(f"{server.url}/live").text)


def test_an_escaped_slash_is_the_slash_and_the_address_is_that_of_the_client(server: Server, path: str):
    with RawClient(server.port, f"PUT {path}%2Fx%20y HTTP/1.1\r\nHost: logs.example:81\r\n".encode()) as client:
        client.send(b"CONTENT-TYPE: text/plain\r\nSTREAM-TTL: 60\r\nContent-Length: 3\r\n\r\nabc")
        status, headers, _ = client.response()
    # WSGI passes paths decoded, with which slash is lost.
    assert (status, headers["location"].replace("%2F", "/")) == (201, f"http://logs.example:81{path}/x%20y")
    assert headers["stream-ttl"] == "60"
    assert httpx.get(f"{server.url}{path}/x%20y").content == b"abc"


def test_a_chunked_body_is_one_append(server: Server, path: str):
    put(server, path)
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    with RawClient(server.port, head.encode()) as client:
        client.send(b"3\r\none\r\n")
        client.send(b"4\r\n two\r\n0\r\n\r\n")
        assert client.response()[0] == 204
    assert httpx.get(server.url + path).content == b"one two"


def test_answers_without_a_body_leave_the_connection_usable(server: Server, path: str):
    put(server, path, b"abc")
    tag = httpx.get(server.url + path).headers["etag"]
    with RawClient(server.port, b"") as client:
        for method, more, status in (
            ("HEAD", "", 200),
            ("GET", f"If-None-Match: {tag}\r\n", 304),
            ("HEAD", "", 200),
            ("POST", "Stream-Closed: true\r\nContent-Length: 0\r\n", 204),
        ):
            client.send(f"{method} {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n".encode())
            answered, headers, _ = client.response() if method != "HEAD" else client.response(bodiless=True)
            assert (answered, headers["stream-next-offset"][-3:]) == (status, "003")
        client.send(f"HEAD {path}/missing HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert client.response(bodiless=True)[0] == 404
        client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        assert client.response()[2] == b"abc"


def test_a_body_over_the_limit_is_413_before_it_is_sent(server: Server, path: str):
    head = f"PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: {2**40}\r\n\r\n"
    with RawClient(server.port, head.encode()) as client:
        status, _, body = client.response()
    assert (status, json.loads(body)["error"]["code"]) == (413, "record_too_large")


def test_a_client_that_leaves_within_its_body_has_sent_nothing(server: Server, path: str):
    put(server, path, b"abc")
    head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n"
    with RawClient(server.port, head.encode() + b"half"):
        pass
    assert httpx.post(server.url + path, content=b"d", headers=TEXT).status_code == 204
    assert httpx.get(server.url + path).content == b"abcd"


def test_events_arrive_when_they_are_written(server: Server, path: str):
    put(server, path)
    with EventClient(server.port, path, {"offset": "-1", "live": "sse"}) as viewer:
        viewer.control()
        for word in ("one", "two", "three"):
            httpx.post(server.url + path, content=word.encode(), headers=TEXT)
            assert viewer.pair()[0] == word
        httpx.post(server.url + path, headers={"Stream-Closed": "true"})
        assert viewer.control()["streamClosed"] is True
        assert viewer.event() is None


def test_the_steps_of_a_quickstart_work_with_curl(server: Server, path: str):
    url, text = server.url + path, ["-H", "Content-Type: text/plain"]

    def curl(*arguments: str) -> str:
        return subprocess.run(["curl", "-sSf", *arguments], capture_output=True, timeout=20, check=True).stdout.decode()

    assert " 201 " in curl("-i", "-X", "PUT", url, *text)
    curl("-X", "POST", url, *text, "-d", "Hello, Durable Streams!")
    assert curl(f"{url}?offset=-1") == "Hello, Durable Streams!"
    following = ["curl", "-sSfN", f"{url}?offset=-1&live=sse"]
    with subprocess.Popen(following, stdout=subprocess.PIPE, text=True) as tail:
        assert tail.stdout is not None
        assert "data:Hello, Durable Streams!\n" in iter(tail.stdout.readline, "")
        curl("-X", "POST", url, *text, "-d", "This appears in real time!")
        assert "data:This appears in real time!\n" in iter(tail.stdout.readline, "")
        curl("-X", "POST", url, "-H", "Stream-Closed: true")
        assert '"streamClosed":true' in tail.stdout.read()
    assert tail.returncode == 0


@pytest.mark.parametrize("server", ["granian", "hypercorn"], indirect=True)
def test_many_viewers_share_one_connection_of_http_2(server: Server, path: str):
    async def main() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=server.url, http1=False, http2=True, timeout=20) as http:
            await http.put(path, content=b"one", headers=TEXT)
            viewers = [asyncio.create_task(http.get(f"{path}?offset=-1&live=sse")) for _ in range(VIEWERS)]
            await http.post(path, content=b"two", headers={"Stream-Closed": "true", **TEXT})
            return await asyncio.gather(*viewers)

    for response in asyncio.run(main()):
        assert response.http_version == "HTTP/2"
        assert "".join(re.findall("^data:(one|two|onetwo)$", response.text, re.MULTILINE)) == "onetwo"


@pytest.mark.parametrize("server", COUNTED, indirect=True)
def test_departures_are_noticed(server: Server, path: str):
    put(server, path)
    viewers = [
        RawClient(server.port, f"GET {path}?offset=now&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        for _ in range(10)
    ]
    until(lambda: live(server) == 10, "the arrival")
    for viewer in viewers:
        viewer.socket.close()
    until(lambda: live(server) == 0, "the departure")


@pytest.mark.parametrize("server", COUNTED, indirect=True)
def test_a_viewer_that_reads_nothing_is_let_go_while_others_go_on(server: Server, path: str):
    put(server, path)
    with socket.socket() as deaf, EventClient(server.port, path, {"offset": "-1", "live": "sse"}) as viewer:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", server.port))
        deaf.sendall(f"GET {path}?offset=-1&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        viewer.control()
        until(lambda: live(server) == 2, "both viewers")
        size, seen = 16 * 2**20, 0
        httpx.post(server.url + path, content=b"x" * size, headers=TEXT)
        while seen < size:
            seen += len(viewer.pair()[0])
        until(lambda: live(server) == 1, "the end of its response")


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_server_with_viewers_ends_in_time_and_at_the_end_of_an_event(front_end: str, tmp_path):
    server = Server(FRONT_ENDS[front_end], tmp_path)
    server.start()
    path = f"{ROOT}/s"
    put(server, path, b"abc")
    viewers = [EventClient(server.port, path, {"offset": "-1", "live": "sse"}) for _ in range(3)]
    for viewer in viewers:
        viewer.pair()
    took = server.stop()
    for viewer in viewers:
        with viewer:
            assert viewer.event() is None
    assert took < STOP_SECONDS
