"""Requests as they arrive: names, methods, bodies, and everything malformed."""

from __future__ import annotations

import json
import socket

import pytest
from serving import Served, serving, token, until

from durable_log.model import Options

# Names


def test_an_escaped_slash_and_a_slash_are_one_name(served: Served, name: str):
    head, _, rest = name.partition("/")
    served.put(name, b"one")
    with served.raw(f"GET /{head}%2F{rest} HTTP/1.1\r\nHost: h\r\n\r\n".encode()) as client:
        assert client.response()[2] == b"one"


def test_names_hold_any_utf_8_and_are_case_sensitive(served: Served, name: str):
    served.put(f"{name}/€ 100%25", b"money")
    assert served.http.get(f"/{name}/%E2%82%AC%20100%25").content == b"money"
    assert served.http.get(f"/{name}/%E2%82%AC%20100%25".upper()).status_code in {400, 404}


def test_a_location_is_the_address_that_the_client_used(served: Served, name: str):
    with served.raw(
        f"PUT /{name}%2Fx HTTP/1.1\r\nHost: logs.example:81\r\nContent-Length: 0\r\n\r\n".encode()
    ) as client:
        status, headers, _ = client.response()
    assert (status, headers["location"]) == (201, f"http://logs.example:81/{name}%2Fx")


# Malformed requests

GET, PUT, POST = "GET", "PUT", "POST"
TEXT = "Content-Type: text/plain\r\n"
MALFORMED = [
    (GET, "?offset=", "", b"", 400, "invalid_offset"),
    (GET, "?offset=0,1", "", b"", 400, "invalid_offset"),
    (GET, "?offset=0%201", "", b"", 400, "invalid_offset"),
    (GET, "?offset=-1%00", "", b"", 400, "invalid_offset"),
    (GET, "?offset=now%0A", "", b"", 400, "invalid_offset"),
    (GET, f"?offset={token(0)}%0A", "", b"", 400, "invalid_offset"),
    (GET, "?offset=..%2F..", "", b"", 400, "invalid_offset"),
    (GET, "?offset=%FF%FE", "", b"", 400, "invalid_offset"),
    (GET, "?offset=-1&offset=-1", "", b"", 400, "repeated_parameter"),
    (GET, "?live=sse", "", b"", 400, "missing_offset"),
    (GET, "?live=long-poll", "", b"", 400, "missing_offset"),
    (GET, "?offset=-1&live=websocket", "", b"", 400, "invalid_live"),
    (GET, f"?offset={token(3)}", "", b"", 400, "offset_out_of_range"),
    (GET, "?offset=9999999999999999_9999999999999999", "", b"", 400, "offset_out_of_range"),
    (GET, f"?offset={token(3)}&live=sse", "", b"", 400, "offset_out_of_range"),
    (GET, f"?offset={token(3)}&live=long-poll", "", b"", 400, "offset_out_of_range"),
    (PUT, "", "Stream-TTL: 060\r\n", b"", 400, "invalid_integer"),
    (PUT, "", "Stream-TTL: +60\r\n", b"", 400, "invalid_integer"),
    (PUT, "", "Stream-TTL: 60.5\r\n", b"", 400, "invalid_integer"),
    (PUT, "", "Stream-TTL: 1e3\r\n", b"", 400, "invalid_integer"),
    (PUT, "", "Stream-TTL: -1\r\n", b"", 400, "invalid_integer"),
    (PUT, "", "Stream-TTL: 6\r\nStream-TTL: 6\r\n", b"", 400, "repeated_header"),
    (PUT, "", "Stream-Expires-At: tomorrow\r\n", b"", 400, "invalid_timestamp"),
    (PUT, "", "Stream-Expires-At: 9999-12-31T23:59:59-23:59\r\n", b"", 400, "invalid_timestamp"),
    (PUT, "", "Stream-TTL: 60\r\nStream-Expires-At: 2099-01-01T00:00:00Z\r\n", b"", 400, "invalid_expiry"),
    (PUT, "", "Content-Type: nonsense\r\n", b"", 400, "invalid_content_type"),
    (PUT, "", "Content-Type: application/json\r\n", b"{", 400, "invalid_data"),
    (PUT, "", "Stream-Fork-Sub-Offset: 0\r\n", b"", 400, "invalid_fork"),
    (PUT, "", f"Stream-Fork-Offset: {token(0)}\r\n", b"", 400, "invalid_fork"),
    (PUT, "", "Stream-Forked-From: x\r\n", b"", 400, "invalid_fork"),
    (PUT, "", "Stream-Forked-From: /%zz\r\n", b"", 400, "invalid_name"),
    (PUT, "", "Stream-Forked-From: /x\r\nStream-Fork-Offset: -1\r\n", b"", 400, "invalid_offset"),
    (PUT, "", "Stream-Forked-From: /x\r\nStream-Fork-Offset: now\r\n", b"", 400, "invalid_offset"),
    (PUT, "", "Stream-Forked-From: /x\r\nStream-Fork-Sub-Offset: 01\r\n", b"", 400, "invalid_integer"),
    (PUT, "", "Stream-Forked-From: /x\r\nStream-Fork-Sub-Offset: 1\r\n", b"", 400, "invalid_fork"),
    (PUT, "", "Stream-Forked-From: /x\r\n", b"", 409, "stream_exists"),
    (POST, "", TEXT, b"", 400, "empty_body"),
    (POST, "", "", b"x", 400, "missing_content_type"),
    (POST, "", "Content-Type: /\r\n", b"x", 400, "invalid_content_type"),
    (POST, "", "Content-Type: text/html\r\n", b"x", 409, "content_type_mismatch"),
    (POST, "", "Content-Type: application/json\r\n", b"[]", 400, "empty_array"),
    (POST, "", "Content-Type: application/json\r\n", b'"\xff"', 400, "invalid_data"),
    (POST, "", "Content-Type: application/json\r\n", b"[" * 10_000, 400, "invalid_data"),
    (POST, "", TEXT + "Stream-Seq:\r\n", b"x", 400, "invalid_seq"),
    (POST, "", TEXT + f"Stream-Seq: {'x' * 1025}\r\n", b"x", 400, "invalid_seq"),
    (POST, "", TEXT + "Producer-Id: p\r\n", b"x", 400, "invalid_producer"),
    (POST, "", TEXT + "Producer-Id:\r\nProducer-Epoch: 0\r\nProducer-Seq: 0\r\n", b"x", 400, "invalid_producer"),
    (POST, "", TEXT + "Producer-Id: p\r\nProducer-Epoch: 1e0\r\nProducer-Seq: 0\r\n", b"x", 400, "invalid_integer"),
    (POST, "", TEXT + "Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: 00\r\n", b"x", 400, "invalid_integer"),
    (
        POST,
        "",
        TEXT + f"Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: {2**53}\r\n",
        b"x",
        400,
        "invalid_integer",
    ),
    (POST, "", TEXT + "Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: 5\r\n", b"x", 409, "sequence_gap"),
    ("PATCH", "", TEXT, b"x", 405, "method_not_allowed"),
    ("TRACE", "", "", b"", 405, "method_not_allowed"),
    (PUT, "/%FF", "", b"", 400, "invalid_name"),
    (PUT, "/a%zz", "", b"", 400, "invalid_name"),
    (PUT, "/" + "n" * 1025, "", b"", 400, "invalid_name"),
]


@pytest.fixture(scope="module")
def strict():
    with serving(gap_seconds=0.0) as running:
        yield running


@pytest.mark.parametrize(
    ("method", "suffix", "headers", "body", "status", "code"), MALFORMED, ids=lambda value: repr(value)[:40]
)
def test_what_is_malformed_is_answered_in_one_line_and_changes_nothing(
    strict: Served, name: str, method: str, suffix: str, headers: str, body: bytes, status: int, code: str
):
    strict.put(name, b"ab")
    before = _state(strict, name)
    head = f"{method} /{name}{suffix} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    with strict.raw(head.encode() + body) as client:
        got_status, got_headers, got_body = client.response()
    assert (got_status, json.loads(got_body)["error"]["code"]) == (status, code)
    assert got_body.count(b"\n") == 1
    assert b"Traceback" not in got_body
    assert got_headers["content-type"] == "application/json"
    assert got_headers["x-content-type-options"] == "nosniff"
    assert _state(strict, name) == before


def _state(served: Served, name: str) -> tuple[bytes, dict[str, str]]:
    head = served.http.head(f"/{name}").headers
    return served.http.get(f"/{name}").content, {key: head[key] for key in head if key.startswith("stream-")}


@pytest.mark.parametrize("path", ["/", "", "/__ds", "/__ds/subscriptions", "/__ds/keys", "/__ds/x/y"])
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "HEAD", "DELETE"])
def test_paths_that_name_no_stream_are_not_found(served: Served, method: str, path: str):
    assert served.http.request(method, path, content=b"x").status_code == 404


@pytest.mark.parametrize(("method", "body"), [("GET", b""), ("HEAD", b""), ("POST", b"x"), ("DELETE", b"")])
def test_a_stream_that_is_not_there_is_not_found(served: Served, name: str, method: str, body: bytes):
    response = served.http.request(method, f"/{name}", content=body, headers={"content-type": "text/plain"})
    assert response.status_code == 404
    assert method == "HEAD" or response.json()["error"]["code"] == "stream_not_found"


def test_an_error_to_a_head_request_has_no_body(served: Served, name: str):
    with served.raw(f"HEAD /{name} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode()) as client:
        head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404")
    assert body == b""


def test_a_refused_request_leaves_the_connection_usable(served: Served, name: str):
    with served.raw(
        f"PUT /{name} HTTP/1.1\r\nHost: h\r\nStream-TTL: x\r\nContent-Length: 3\r\n\r\nabc".encode()
    ) as client:
        assert client.response()[0] == 400
        client.send(f"PUT /{name} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc".encode())
        assert client.response()[0] == 201


# Bodies

LIMIT = 64 * 2**10


@pytest.fixture(scope="module")
def small():
    with serving(options=Options(record_bytes_max=LIMIT)) as running:
        yield running


def test_the_largest_body_is_taken(small: Served, name: str):
    small.put(name)
    assert small.post(name, b"x" * LIMIT).status_code == 204
    assert small.tail(name) == LIMIT


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_declared_length_over_the_limit_is_413_before_any_of_it_is_sent(small: Served, name: str, method: str):
    small.put(f"{name}/POST")
    head = f"{method} /{name}/{method} HTTP/1.1\r\nHost: h\r\n{TEXT}Content-Length: {LIMIT + 1}\r\n\r\n"
    with small.raw(head.encode()) as client:
        status, _, body = client.response()
    assert (status, json.loads(body)["error"]["code"]) == (413, "record_too_large")
    assert str(LIMIT) in json.loads(body)["error"]["message"]
    assert small.http.head(f"/{name}/PUT").status_code == 404
    assert small.tail(f"{name}/POST") == 0


def test_a_chunked_body_over_the_limit_is_413_while_it_is_sent(small: Served, name: str):
    small.put(name)
    with small.raw(f"POST /{name} HTTP/1.1\r\nHost: h\r\n{TEXT}Transfer-Encoding: chunked\r\n\r\n".encode()) as client:
        for _ in range(LIMIT // 4096 + 1):
            client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        assert client.response()[0] == 413
        client.send(b"0\r\n\r\n")
    assert small.tail(name) == 0


def test_a_json_body_is_bounded_too(small: Served, name: str):
    small.put(name, content_type="application/json")
    assert small.post(name, b'"' + b"x" * LIMIT + b'"', "application/json").status_code == 413
    assert small.post(name, b'"' + b"x" * (LIMIT - 2) + b'"', "application/json").status_code == 204


def test_a_chunked_body_is_one_append(served: Served, name: str):
    served.put(name)
    with served.raw(f"POST /{name} HTTP/1.1\r\nHost: h\r\n{TEXT}Transfer-Encoding: chunked\r\n\r\n".encode()) as client:
        client.send(b"3\r\none\r\n")
        client.send(b"4\r\n two\r\n0\r\n\r\n")
        status, headers, _ = client.response()
    assert (status, headers["stream-next-offset"]) == (204, token(7))
    assert served.http.get(f"/{name}").content == b"one two"


def test_an_empty_chunked_body_closes(served: Served, name: str):
    served.put(name)
    head = f"POST /{name} HTTP/1.1\r\nHost: h\r\nStream-Closed: true\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    with served.raw(head.encode()) as client:
        status, headers, _ = client.response()
    assert (status, headers["stream-closed"]) == (204, "true")


@pytest.mark.parametrize(
    ("framing", "part"),
    [("Content-Length: 100", b"x" * 50), ("Transfer-Encoding: chunked", b"32\r\n" + b"x" * 50 + b"\r\n")],
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_a_client_that_leaves_within_its_body_has_sent_nothing(
    served: Served, name: str, method: str, framing: str, part: bytes
):
    served.put(f"{name}/POST")
    client = served.raw(f"{method} /{name}/{method} HTTP/1.1\r\nHost: h\r\n{TEXT}{framing}\r\n\r\n".encode() + part)
    until(lambda: served.holds(client.socket), "the connection")
    client.socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not served.holds(client.socket), "the departure")
    client.socket.close()
    assert served.http.head(f"/{name}/PUT").status_code == 404
    assert served.tail(f"{name}/POST") == 0


def test_a_body_that_the_server_has_dropped_behind_an_upgrade_is_missed(served: Served, name: str):
    wish = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
    with served.raw(f"PUT /{name} HTTP/1.1\r\nHost: h\r\n".encode() + wish) as client:
        status, _, body = client.response()
    assert (status, json.loads(body)["error"]["code"]) == (400, "incomplete_body")
    assert served.http.head(f"/{name}").status_code == 404


def test_a_large_json_body_is_checked_beside_the_event_loop(served: Served, name: str):
    served.put(name, content_type="application/json")
    messages = [{"n": n, "text": "x" * 90} for n in range(2000)]
    assert served.post(name, json.dumps(messages).encode(), "application/json").status_code == 204
    assert served.http.get(f"/{name}").json() == messages


# Browsers


def test_a_preflight_is_answered_for_every_path(served: Served, name: str):
    asked = {"origin": "https://a.example", "access-control-request-method": "GET"}
    for path in (f"/{name}", "/", "/__ds/x"):
        response = served.http.options(path, headers=asked)
        assert response.status_code == 204
        assert "if-none-match" in response.headers["access-control-allow-headers"].lower()
        assert "DELETE" in response.headers["access-control-allow-methods"]


def test_a_method_that_is_none_is_answered_with_those_that_are(served: Served, name: str):
    response = served.http.request("PATCH", f"/{name}")
    assert response.headers["allow"] == "GET, HEAD, OPTIONS, PUT, POST, DELETE"
