"""Bodies that were compressed: nothing is unpacked here, so a bomb costs nothing, and nothing packed is stored."""

from __future__ import annotations

import gzip
import zlib

import pytest
from attacked import Attacked

BOMB = gzip.compress(bytes(64 * 2**20))


@pytest.mark.parametrize(
    "coding", ["gzip", "br", "deflate", "zstd", "compress", "x-gzip", "identity, gzip", "nonsense"]
)
@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_an_encoded_body_is_refused_as_such_and_changes_nothing(server: Attacked, method: str, coding: str):
    server.put("plain", b"kept")
    before = server.figures()
    headers = {"content-type": "text/plain", "content-encoding": coding}
    for name in ("plain", "packed"):
        answer = server.http.request(method, f"/{name}", content=zlib.compress(b"text"), headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_encoding")
        assert answer.headers["accept-encoding"] == "identity"
    assert server.figures() == before


def test_a_bomb_costs_no_more_than_its_bytes(server: Attacked):
    server.put("bombed", b"kept")
    resident, spent = server.resident_bytes(), server.cpu_seconds()
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    for _ in range(50):
        assert server.http.post("/bombed", content=BOMB, headers=headers).status_code == 415
    assert server.resident_bytes() - resident < 8 * 2**20
    assert server.cpu_seconds() - spent < 1
    assert server.read("bombed") == b"kept"


def test_a_body_that_is_packed_without_saying_so_is_stored_to_the_byte(server: Attacked):
    packed = gzip.compress(b"text", mtime=0)
    server.put("archive", packed, "application/gzip")
    answer = server.http.get("/archive", headers={"accept-encoding": "gzip"})
    assert answer.content == packed
    assert "content-encoding" not in answer.headers
