"""Bytes that are no HTTP, or nearly: each is refused or its connection ended, and the next client is served."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from attacked import LAST, LONG, ROOT, Attacked, seeded
from serving import until

HEAD = f"PUT {ROOT}/raw HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "no request at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
    "HTTP/2 by prior knowledge": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": f"PUT {ROOT}/raw\r\n\r\n".encode(),
    "HTTP/0.9 that reads": f"GET {ROOT}/raw\r\n\r\n".encode(),
    "HTTP/1.2": HEAD.replace(b"HTTP/1.1", b"HTTP/1.2") + b"\r\n",
    "HTTP/9.9": HEAD.replace(b"HTTP/1.1", b"HTTP/9.9") + b"\r\n",
    "a small http": HEAD.replace(b"HTTP/1.1", b"http/1.1") + b"\r\n",
    "no path": HEAD.replace(f" {ROOT}/raw".encode(), b"") + b"\r\n",
    "a space in the path": HEAD.replace(b"/raw", b"/r aw") + b"\r\n",
    "a tab in the path": HEAD.replace(b"/raw", b"/r\taw") + b"\r\n",
    "a NUL in the path": HEAD.replace(b"/raw", b"/r\x00aw") + b"\r\n",
    "a path that is not ASCII": HEAD.replace(b"/raw", b"/r\xc3\xa4w") + b"\r\n",
    "a fragment in the path": HEAD.replace(b"/raw", b"/raw#x") + b"\r\n",
    "authority-form": HEAD.replace(f"PUT {ROOT}/raw".encode(), b"CONNECT h:80") + b"\r\n",
    "asterisk-form": HEAD.replace(f"{ROOT}/raw".encode(), b"*") + b"\r\n",
    "a method that nobody knows": HEAD.replace(b"PUT", b"STORE") + b"\r\n",
    "a method that only others know": HEAD.replace(b"PUT", b"PATCH") + b"\r\n",
    "a small method": HEAD.replace(b"PUT", b"put") + b"\r\n",
    "a line before the method": b"\x00\r\n" + HEAD + b"\r\n",
    "a path of a megabyte": HEAD.replace(b"/raw", b"/" + b"r" * 2**20) + b"\r\n",
    "a header of a megabyte": HEAD + b"X: " + b"x" * 2**20 + b"\r\n\r\n",
    "a megabyte of headers": HEAD + b"X-Header: value\r\n" * 2**16 + b"\r\n",
    "a header without a name": HEAD + b": value\r\n\r\n",
    "a header without a colon": HEAD + b"value\r\n\r\n",
    "a space before the colon": HEAD + b"X : value\r\n\r\n",
    "a NUL in a header": HEAD + b"X: va\x00lue\r\n\r\n",
    "a NUL in the name of a header": HEAD + b"X\x00: value\r\n\r\n",
    "a bell in a header": HEAD + b"X: va\x07lue\r\n\r\n",
    "a CR alone in a header": HEAD + b"X: va\rlue\r\n\r\n",
    "a folded header": HEAD + b"X: value\r\n more\r\n\r\n",
    "a name that is not ASCII": HEAD + b"X\xe4: value\r\n\r\n",
    "a length twice": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "a list of lengths": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length with a sign": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a hexadecimal length": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a point": HEAD + b"Content-Length: 5.0\r\n\r\nhello",
    "a length that is empty": HEAD + b"Content-Length: \r\n\r\nhello",
    "a length of more than 64 bits": HEAD + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "a huge length": HEAD + b"Content-Length: 9223372036854775807\r\n\r\nhello",
    "a length of five thousand digits": HEAD + b"Content-Length: " + b"0" * 5000 + b"5\r\n\r\nhello",
    "no host": HEAD.replace(b"Host: h\r\n", b"") + b"\r\n",
    "two hosts": HEAD + b"Host: i\r\n\r\n",
    "two hosts of an old client": HEAD.replace(b"HTTP/1.1", b"HTTP/1.0") + b"Host: h\r\n\r\n",
    "gzip, then chunked": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip and chunked in two headers": HEAD
    + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "an encoding that nobody knows": HEAD + b"Transfer-Encoding: rot13\r\n\r\nhello",
    "chunked, but not at the end": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked with a vertical tab": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a chunk of no size": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk of negative size": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "a chunk of 0x size": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk of more than 64 bits": CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "a chunk that is longer than its size": CHUNKED + b"4\r\nhello\r\n0\r\n\r\n",
    "a chunk that never ends": CHUNKED + b"ffffffff\r\nhello",
    "an extension of a megabyte": CHUNKED + b"5;" + b"x" * 2**20 + b"\r\nhello\r\n0\r\n\r\n",
    "a trailer of a megabyte": CHUNKED + b"5\r\nhello\r\n0\r\nX: " + b"x" * 2**20 + b"\r\n\r\n",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 500\r\n\r\nhello",
    "half a body, once it is asked for": HEAD + b"Expect: 100-continue\r\nContent-Length: 500\r\n\r\nhello",
}
"""What may not be stored. Some are ended only by the time-out for what is missing."""


def test_what_is_no_http_is_refused_or_ended_and_changes_nothing(server: Attacked):
    before = server.figures()
    with ThreadPoolExecutor(16) as clients:
        answers = dict(zip(REFUSED, clients.map(server.replies, REFUSED.values()), strict=True))
    for what, statuses in answers.items():
        first = [status for status in statuses if status != 100][:1]
        assert not first or 400 <= first[0] < 500, (what, statuses)
    assert server.figures() == before
    server.serves()


@pytest.mark.parametrize("headers", [100, 3000])
def test_many_small_headers_are_none_of_ours(server: Attacked, headers: int):
    assert server.replies(HEAD.replace(b"/raw", b"/many") + b"X: v\r\n" * headers + b"\r\n") in ([201, 200], [200, 200])


def test_a_length_of_five_thousand_digits_is_not_an_error_of_the_server(server: Attacked):
    assert server.replies(REFUSED["a length of five thousand digits"])[0] == 400


def test_a_body_behind_an_upgrade_is_stored_and_not_taken_for_requests(server: Attacked):
    body = f"PUT {ROOT}/smuggled HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
    head = HEAD.replace(b"/raw", b"/upgraded") + wish
    assert server.replies(head + b"Content-Length: %d\r\n\r\n" % len(body) + body) == [201, 200]
    assert server.read("upgraded") == body
    chunked = head.replace(b"/upgraded", b"/chunked") + b"Transfer-Encoding: chunked\r\n\r\n"
    with server.raw(chunked) as client:
        client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert client.response()[0] == 201
    assert server.read("chunked") == body
    assert server.http.head("/smuggled").status_code == 404


def test_a_websocket_is_a_request_like_any_other(server: Attacked):
    server.put("ws", b"text")
    wish = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
    read = f"GET {ROOT}/ws HTTP/1.1\r\nHost: h\r\n".encode() + wish
    assert server.replies(read * 60) == [200] * 61


def test_trailers_are_no_headers(server: Attacked):
    head = CHUNKED.replace(b"/raw", b"/trailed")
    assert server.replies(head + b"5\r\nhello\r\n0\r\nStream-Closed: true\r\nStream-TTL: 1\r\n\r\n") == [201, 200]
    described = server.http.head("/trailed").headers
    assert "stream-closed" not in described
    assert "stream-ttl" not in described


def test_requests_sent_ahead_are_answered_in_order_up_to_a_bound(server: Attacked):
    server.put("ahead", b"x")
    read = f"GET {ROOT}/ahead HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    assert server.replies(read * 50) == [200] * 51
    before = server.resident_bytes()
    poll = f"GET {ROOT}/ahead?offset=now&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    assert len(server.replies(poll + read * 5000)) < 100
    assert server.resident_bytes() - before < 8 * 2**20


def test_a_client_that_leaves_requests_sent_ahead_takes_all_of_them_with_it(server: Attacked):
    server.put("left", b"x")
    watch = f"GET {ROOT}/left?offset=-1&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    for _ in range(20):
        with server.raw(watch + watch) as client:
            client.socket.recv(1)
    until(lambda: server.viewers() == 0, "the end of their responses")


def test_what_is_no_http_behind_a_response_under_way_ends_both(server: Attacked):
    server.put("broken", b"x")
    watch = f"GET {ROOT}/broken?offset=-1&live=sse HTTP/1.1\r\nHost: h\r\n\r\n".encode()
    with server.raw(watch) as client:
        client.socket.recv(1)
        client.send(b"\x00\r\n\r\n")
        assert b"HTTP/1.1 400" not in client.rest()
    until(lambda: server.viewers() == 0, "the end of the response")


def test_what_is_no_http_behind_a_whole_request_is_not_taken_for_that_request(server: Attacked):
    server.put("whole", b"x")
    append = f"POST {ROOT}/whole HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\ny"
    with server.raw(append.encode() + b"\x00\r\n\r\n") as client:
        assert b"HTTP/1.1 400" not in client.rest()


def test_a_body_that_waits_to_be_asked_for_is(server: Attacked):
    head = HEAD.replace(b"/raw", b"/asked") + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    with server.raw(head) as client:
        assert client.response()[0] == 100
        client.send(b"hello")
        assert client.response()[0] == 201
    too_large = HEAD + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n"
    with server.raw(too_large) as client:
        assert client.response()[0] == 413


def test_absolute_targets_mean_the_same_stream_whatever_host_they_name(server: Attacked):
    server.put("absolute", b"text")
    for target in (f"http://elsewhere{ROOT}/absolute", f"https://a:b@c:99{ROOT}/absolute"):
        assert server.replies(f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()) in ([200, 200], [400])


PIECES = (
    b"\r\n",
    b"\r",
    b"\n",
    b" ",
    b"\t",
    b"\x00",
    b":",
    b"\xff",
    b"%",
    b"0",
    b"-1",
    b"chunked",
    b"Content-Length: 3\r\n",
)
SOUND = (
    f"PUT {ROOT}/fuzz HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello".encode(),
    f"POST {ROOT}/fuzz HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nProducer-Id: p\r\nProducer-Epoch: 1\r\n"
    f"Producer-Seq: 0\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode(),
    f"GET {ROOT}/fuzz?offset=-1&live=long-poll&cursor=1 HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n".encode(),
    f"PUT {ROOT}/forked HTTP/1.1\r\nHost: h\r\nStream-Forked-From: {ROOT}/fuzz\r\nStream-TTL: 60\r\n\r\n".encode(),
    f"DELETE {ROOT}/fuzz HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\n\r\n".encode(),
    f"PUT {ROOT}/__ds/subscriptions/s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n{{}}".encode(),
)


def mutated(random: random.Random) -> bytes:
    """A sound request with a few bytes lost, doubled, flipped or put in."""
    text = bytearray(random.choice(SOUND))
    for _ in range(random.choice((1, 1, 2, 5))):
        at, size = random.randrange(len(text)), random.choice((1, 2, 8))
        kind = random.randrange(4)
        if kind == 0:
            del text[at : at + size]
        elif kind == 1:
            text[at:at] = text[at : at + size]
        elif kind == 2:
            text[at] ^= 1 << random.randrange(8)
        else:
            text[at:at] = random.choice(PIECES)
    return bytes(text)


def test_damaged_requests_are_answered_or_ended_and_nothing_breaks(server: Attacked):
    numbers = seeded("damaged requests")
    requests = [mutated(numbers) for _ in range(20_000 if LONG else 600)]
    with ThreadPoolExecutor(48) as clients:
        # a length that is damaged swallows the last request, maybe just so much of it that the connection is kept
        answers = clients.map(server.replies, [request + LAST for request in requests])
        for request, statuses in zip(requests, answers, strict=True):
            assert all(status < 500 for status in statuses), (request, statuses)
    server.serves()
