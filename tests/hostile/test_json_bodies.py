"""JSON that is large, deep or nearly JSON: it is stored to the byte or refused, and nobody waits for it."""

from __future__ import annotations

import json

import pytest
from attacked import PATIENCE_SECONDS, Attacked, Neighbour

DELAY_SECONDS_MAX = 1.0
"""How long another request may take beside it on a busy machine; what held the event loop took longer."""

MIB = 2**20

STORED = {
    "nothing in an array": b"[[]]",
    "as deep as may be": b"[" * 512 + b"]" * 512,
    "a number of a million digits": b"[" + b"9" * MIB + b"]",
    "a number beyond all floats": b"[1e999999, -1E-999999, 1e400]",
    "a number with a long exponent": b"[1e" + b"9" * 100_000 + b"]",
    "a million empty arrays": b"[" + b",".join([b"[]"] * 1_000_000) + b"]",
    "a million members of one name": b'[{"a":1' + b',"a":1' * 1_000_000 + b"}]",
    "names that are the same": b'[{"a":1,"a":2,"\\u0061":3}]',
    "half a surrogate": b'["\\ud800", "\\udc00\\ud800"]',
    "every control character escaped": json.dumps([bytes(range(32)).decode()]).encode(),
    "white space": b"[" + b" \t\r\n" * 100_000 + b"1" + b" \t\r\n" * 100_000 + b"]",
    "a string of nearly 16 MiB": b'["' + b"x" * (16 * MIB - 1000) + b'"]',
    "escapes of nearly 16 MiB": b'["' + b"\\u0000" * ((16 * MIB - 1000) // 6) + b'"]',
    "characters beyond the basic plane": '["\U0010ffff\U0001f4a9"]'.encode(),
    "the separators of lines of Unicode": '["\u2028\u2029"]'.encode(),
}

REFUSED = {
    "deeper than may be": b"[" * 514 + b"]" * 514,
    "a hundred thousand arrays": b"[" * 100_000 + b"]" * 100_000,
    "a hundred thousand arrays, open": b"[" * 100_000,
    "a hundred thousand objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "16 MiB of brackets": b"[" * (16 * MIB - 1),
    "16 MiB of brackets that close": b"]" * (16 * MIB - 1),
    "a byte order mark": b"\xef\xbb\xbf[1]",
    "UTF-16": "[1]".encode("utf-16"),
    "UTF-16 without its mark": "[1]".encode("utf-16-le"),
    "bytes that are no UTF-8": b'["\xff"]',
    "overlong UTF-8": b'["\xc0\xaf"]',
    "a surrogate as UTF-8": b'["\xed\xa0\x80"]',
    "beyond Unicode": b'["\xf4\x90\x80\x80"]',
    "half a character": b'["\xe2\x82',
    "NaN": b"[NaN]",
    "infinity": b"[Infinity, -Infinity]",
    "a number with a plus": b"[+1]",
    "a number with a zero before it": b"[01]",
    "a number with no digit behind the point": b"[1.]",
    "a number with no digit before the point": b"[.5]",
    "a hexadecimal number": b"[0x1]",
    "a comma at the end": b"[1,]",
    "a comment": b"[1 /* one */]",
    "single quotes": b"['a']",
    "a name without quotes": b"[{a:1}]",
    "a NUL": b"[1]\x00",
    "a NUL in a string": b'["\x00"]',
    "a line in a string": b'["\n"]',
    "an escape that is none": b'["\\x41"]',
    "half an escape": b'["\\u12"]',
    "two values": b"1 2",
    "two arrays": b"[1][2]",
    "white space only": b" \n\t" * 1000,
    "white space of Unicode": "[\u00a01]".encode(),
    "a vertical tab": b"[\x0b1]",
    "True": b"[True]",
    "nothing in a list": b"[]",
}


@pytest.fixture
def name(server: Attacked, request: pytest.FixtureRequest) -> str:
    name = f"json/{request.node.callspec.id.replace(' ', '-')}"
    assert server.put(name, b"", "application/json").status_code == 201
    return name


def post(server: Attacked, name: str, body: bytes) -> tuple[int, float]:
    """The status, and how long somebody else waited meanwhile."""
    with Neighbour(server) as neighbour:
        answer = server.http.post(f"/{name}", content=body, headers={"content-type": "application/json"})
    assert answer.elapsed.total_seconds() < PATIENCE_SECONDS
    return answer.status_code, neighbour.longest_seconds


@pytest.mark.parametrize("body", STORED.values(), ids=STORED)
def test_odd_json_is_stored_to_the_byte_and_delays_nobody(server: Attacked, name: str, body: bytes):
    status, delay = post(server, name, body)
    assert status == 204
    assert delay < DELAY_SECONDS_MAX
    stored, offset = b"", "-1"
    while True:
        page = server.http.get(f"/{name}", params={"offset": offset})
        assert page.status_code == 200
        stored += b"," * bool(stored) + page.content[1:-1]
        offset = page.headers["stream-next-offset"]
        if "stream-up-to-date" in page.headers:
            break
    within = body[1:-1].strip()
    assert stored.replace(b", ", b",") == within.replace(b", ", b",")


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_no_json_is_refused_and_changes_nothing(server: Attacked, name: str, body: bytes):
    before = server.figures()
    status, delay = post(server, name, body)
    assert status == 400
    assert delay < DELAY_SECONDS_MAX
    answer = server.http.put(f"/{name}/new", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == (400 if body != b"[]" else 201)
    if body != b"[]":
        assert server.figures() == before
