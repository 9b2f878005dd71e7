"""The subscription API and those who do not mean well: huge patterns, bodies that are none, tokens of others."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from attacked import Attacked, Neighbour, seeded

from durable_log.protocol.globs import parse_glob

JSON = {"content-type": "application/json"}
BASE = "/__ds/subscriptions"
DELAY_SECONDS_MAX = 1.0
NO_BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "an array": b"[]",
    "a number": b"1",
    "null": b"null",
    "a string": b'"type"',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "no UTF-8": b'{"type":"\xff"}',
    "a hundred thousand arrays": b"[" * 100_000,
    "a hundred thousand objects": b'{"type":' * 100_000,
    "a number of too many digits": b'{"type":' + b"9" * 100_000 + b"}",
    "other types": b'{"type":{},"pattern":[],"streams":{},"webhook":1,"wake_stream":[],"lease_ttl_ms":"x"}',
    "lists of other types": b'{"type":"pull-wake","streams":[[],{},1,null],"wake_stream":"w","worker":[],"acks":[1]}',
    "surrogates": b'{"type":"pull-wake","pattern":"\\ud800","wake_stream":"w","worker":"\\ud800","wake_id":"\\ud800"}',
    "no numbers": b'{"type":"pull-wake","pattern":"a","wake_stream":"w","lease_ttl_ms":NaN,"generation":1.5}',
    "true as a number": b'{"type":"pull-wake","pattern":"a","wake_stream":"w","lease_ttl_ms":true,"generation":true}',
    "a huge lease": b'{"type":"pull-wake","pattern":"a","wake_stream":"w","lease_ttl_ms":1e18,"generation":1e18}',
    "a star in a segment": b'{"type":"pull-wake","pattern":"a*b","wake_stream":"w"}',
    "a pattern that is too long": b'{"type":"pull-wake","pattern":"' + b"**/" * 1000 + b'","wake_stream":"w"}',
    "a pattern of slashes": b'{"type":"pull-wake","pattern":"////","wake_stream":"w"}',
    "what is reserved": b'{"type":"pull-wake","pattern":"a","wake_stream":"__ds/x","streams":["__ds/secrets"]}',
}


@pytest.fixture
def claimed(server: Attacked, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A subscription with a claim."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    server.put(f"{name}/s")
    created = server.http.put(
        f"{BASE}/{name}", json={"type": "pull-wake", "pattern": f"{name}/*", "wake_stream": f"wake/{name}"}
    )
    assert created.status_code == 201
    server.http.post(f"/{name}/s", content=b"x", headers={"content-type": "text/plain"})
    answer = server.http.post(f"{BASE}/{name}/claim", json={"worker": "w"})
    assert answer.status_code == 200, answer.text
    return {"name": name, **answer.json()}


def ack(server: Attacked, claim: dict[str, Any], token: str, **more: Any) -> Any:
    body = {"wake_id": claim["wake_id"], "generation": claim["generation"], "acks": [], **more}
    return server.http.post(f"{BASE}/{claim['name']}/ack", json=body, headers={"authorization": f"Bearer {token}"})


@pytest.mark.parametrize("body", NO_BODIES.values(), ids=NO_BODIES)
def test_a_body_that_can_not_be_meant_is_refused_everywhere_and_changes_nothing(
    server: Attacked, claimed: dict[str, Any], body: bytes
):
    before = server.figures()
    path = f"{BASE}/{claimed['name']}"
    bearer = JSON | {"authorization": f"Bearer {claimed['token']}"}
    for method, where in (("PUT", BASE + "/other"), ("POST", path + "/streams")):
        answer = server.http.request(method, where, content=body, headers=JSON)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST"), where
    for action in ("claim", "ack", "release"):
        answer = server.http.post(f"{path}/{action}", content=body, headers=bearer)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST"), action
    assert server.figures() == before


def test_acks_of_streams_that_are_no_text_are_refused(server: Attacked, claimed: dict[str, Any]):
    for stream in ([], {}, None, 1, [["a"]]):
        offset = "0000000000000000_0000000000000001"
        answer = ack(server, claimed, claimed["token"], acks=[{"stream": stream, "offset": offset}])
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST"), stream


def test_a_subscription_can_not_be_made_to_wake_itself(server: Attacked, claimed: dict[str, Any]):
    before = server.figures()
    for wake_stream in (f"wake/{claimed['name']}", f"/wake/{claimed['name']}"):
        answer = server.http.post(f"{BASE}/{claimed['name']}/streams", json={"streams": ["other", wake_stream]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_REQUEST")
    assert server.figures() == before


def test_a_body_of_more_than_a_megabyte_is_refused_unread(server: Attacked):
    body = b'{"type":"pull-wake","pattern":"' + b"x" * 2**21
    assert server.http.put(f"{BASE}/large", content=body, headers=JSON).status_code == 413


def test_ten_thousand_streams_by_name_delay_nobody(server: Attacked):
    names = [f"many/{number}" for number in range(10_000)]
    config = {"type": "pull-wake", "streams": names, "wake_stream": "wake/many"}
    with Neighbour(server) as neighbour:
        assert server.http.put(f"{BASE}/many", json=config).status_code == 201
        assert len(server.http.get(f"{BASE}/many").json()["streams"]) == 10_000
        assert server.http.delete(f"{BASE}/many").status_code == 204
    assert neighbour.longest_seconds < DELAY_SECONDS_MAX


STARS = ("**/*/" * 200)[:1000].rstrip("/*") + "/x"
CATASTROPHES = ("**/" * 300 + "x", "*/" * 500 + "x", "**/a/" * 200 + "b", "**/" + "a/" * 255 + "b", STARS)
"""Patterns that take those who try each way apart for ever."""


@pytest.mark.parametrize("pattern", CATASTROPHES, ids=range(len(CATASTROPHES)))
def test_no_pattern_takes_for_ever_on_any_name(pattern: str):
    glob = parse_glob(pattern)
    began = time.process_time()
    for path in ("a/" * 511 + "c", "/" * 1024, "a" * 1024, "a/" * 511 + "b", "x/" * 511 + "y"):
        glob.matches(path)
    assert time.process_time() - began < 1


def test_patterns_of_every_kind_delay_no_creation_for_long(server: Attacked):
    for number, pattern in enumerate(CATASTROPHES):
        config = {"type": "pull-wake", "pattern": pattern, "wake_stream": f"wake/{number}"}
        assert server.http.put(f"{BASE}/stars-{number}", json=config).status_code == 201, pattern
    with Neighbour(server) as neighbour:
        for number in range(20):
            assert server.put("a/" * 500 + f"c{number}").status_code == 201
    assert neighbour.longest_seconds < DELAY_SECONDS_MAX
    for number in range(len(CATASTROPHES)):
        assert server.http.delete(f"{BASE}/stars-{number}").status_code == 204


@pytest.mark.parametrize(
    "name",
    ["a b", "a%b", "a\u2028b", "\u00e9", "..", ".", "\x00", "\r\n", "'\"<>", "*", "**", "x" * 256, "-1", "\ufeff"],
)
def test_an_id_may_be_odd_and_is_that_of_one_subscription(server: Attacked, name: str):
    path = f"{BASE}/{quote(name, safe='')}"
    config = {"type": "pull-wake", "pattern": "odd/*", "wake_stream": "wake/odd"}
    if name in (".", ".."):
        path = path.replace(name, name.replace(".", "%2e"))
    body = json.dumps(config)
    head = f"PUT /v1/stream{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
    assert server.replies((head + body).encode())[0] == 201
    with server.raw(f"GET /v1/stream{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode()) as client:
        status, _, described = client.response()
    assert (status, json.loads(described)["id"]) == (200, name)
    assert server.replies(f"DELETE /v1/stream{path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())[0] == 204


@pytest.mark.parametrize("path", ["", "/", "//claim", "/" + "x" * 257, "/%ff", "/a/b/c/d", "/a/claim/x", "/a//claim"])
def test_an_id_that_is_none_is_refused(server: Attacked, path: str):
    before = server.figures()
    for method in ("PUT", "GET", "DELETE", "POST"):
        body = b'{"type":"pull-wake","pattern":"a","wake_stream":"w"}'
        head = f"{method} /v1/stream{BASE}{path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n"
        assert server.replies(head.encode() + body)[0] in (400, 401, 404, 405)
    assert server.figures() == before


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def forged(token: str) -> dict[str, str]:
    """What is nearly the token."""
    header, payload, signature = token.split(".")
    signed = f"{header}.{payload}"
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    return {
        "no algorithm": f"{part({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
        "no algorithm, signed": f"{part({'alg': 'none', 'typ': 'JWT'})}.{payload}.{signature}",
        "another algorithm": f"{part({'alg': 'HS512', 'typ': 'JWT'})}.{payload}.{signature}",
        "a key of its own": f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': '/dev/null'})}.{payload}.{signature}",
        "an empty key": f"{signed}.{part_of(hmac.digest(b'', signed.encode(), 'sha256'))}",
        "another generation": f"{header}.{part(claims | {'generation': claims['generation'] + 1})}.{signature}",
        "another expiry": f"{header}.{part(claims | {'exp': claims['exp'] + 86400})}.{signature}",
        "another subscription": f"{header}.{part(claims | {'sub': 'other'})}.{signature}",
        "no signature": f"{signed}.",
        "a part of the signature": f"{signed}.{signature[:-4]}",
        "more than the signature": f"{signed}.{signature}AAAA",
        "no payload": f"{header}..{signature}",
        "one part": header,
        "four parts": f"{token}.{signature}",
        "points": "...",
        "nothing": "x",
        "no base64": f"{signed}.\u00e4\u00e4\u00e4",
        "a long one": "A" * 30_000 + "." + "B" * 30_000 + ".C",
    }


def part_of(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_no_token_but_the_one_that_was_given_is_good(server: Attacked, claimed: dict[str, Any]):
    before = server.figures()
    for what, token in forged(claimed["token"]).items():
        answer = server.http.post(
            f"{BASE}/{claimed['name']}/ack",
            json={"wake_id": claimed["wake_id"], "generation": claimed["generation"], "done": True},
            headers=[(b"authorization", b"Bearer " + token.encode("latin-1"))],
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "TOKEN_INVALID"), what
    numbers = seeded("tokens")
    for _ in range(100):
        token = bytearray(claimed["token"].encode())
        at = numbers.randrange(len(token) - 1)  # the last character has bits that count for nothing
        token[at] = numbers.choice([each for each in b"AZaz09-_." if each != token[at]])
        assert ack(server, claimed, token.decode(), done=True).status_code == 401, token
    assert server.figures() == before
    assert ack(server, claimed, claimed["token"], done=True).status_code == 200


def test_the_token_of_a_former_life_is_fenced(server: Attacked, claimed: dict[str, Any]):
    path = f"{BASE}/{claimed['name']}"
    assert server.http.delete(path).status_code == 204
    config = {"type": "pull-wake", "pattern": f"{claimed['name']}/*", "wake_stream": f"wake/{claimed['name']}"}
    assert server.http.put(path, json=config).status_code == 201
    answer = ack(server, claimed, claimed["token"], done=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "FENCED")
