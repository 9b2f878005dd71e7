"""What a client can learn of a store's identity: nothing that tells the seeds of its checksums.

They follow from the UUID. A client that knew one could append payloads that look like blocks of the log.
"""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest

from durable_log import aio, asgi
from durable_log.engine import manifest
from durable_log.engine.format import crc32c, nonce_of

REQUESTS = [
    ("PUT", "a", {"Content-Type": "text/plain"}, b"first"),
    ("PUT", "a", {"Content-Type": "application/json"}, b"[1]"),
    ("POST", "a", {"Content-Type": "text/plain"}, b"second"),
    ("POST", "a", {"Content-Type": "text/plain", "Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "0"}, b"x"),
    ("POST", "a", {"Content-Type": "text/plain", "Producer-Id": "p", "Producer-Epoch": "0", "Producer-Seq": "7"}, b"x"),
    ("POST", "a", {"Content-Type": "text/plain", "Stream-Seq": "1"}, b"in order"),
    ("PUT", "fork", {"Content-Type": "text/plain", "Stream-Forked-From": "/a"}, b""),
    ("HEAD", "a", {}, b""),
    ("GET", "a", {}, b""),
    ("GET", "a?offset=-1", {}, b""),
    ("GET", "a?offset=now", {}, b""),
    ("GET", "a?offset=0000000000000000_0000000000000005", {}, b""),
    ("GET", "a?offset=wrong", {}, b""),
    ("GET", "fork", {}, b""),
    ("GET", "nobody", {}, b""),
    ("PATCH", "a", {}, b""),
    ("POST", "a", {"Content-Type": "text/plain", "Stream-Closed": "true"}, b"last"),
    ("GET", "a?offset=-1", {}, b""),
    ("DELETE", "a", {}, b""),
]


async def answers(uuid: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], str]:
    """Everything that a client is told by a store of that identity, and what stands in its entity tags."""
    monkeypatch.setattr(manifest, "random_bytes", lambda count: uuid[:count])
    told = []
    async with aio.open(":memory:", clock=lambda: 1_900_000_000.0) as store:
        transport = httpx.ASGITransport(asgi.app(store))
        async with httpx.AsyncClient(transport=transport, base_url="http://store") as client:
            for method, path, headers, body in REQUESTS:
                answer = await client.request(method, f"/{path}", headers=headers, content=body)
                told.append(f"{answer.status_code} {sorted(answer.headers.items())} {answer.content!r}")
        return told, store.store_id


def test_two_stores_that_did_the_same_tell_the_same_but_for_the_hash_of_their_identity(monkeypatch):
    identities = [bytes(range(16)), bytes(range(100, 116))]
    one, other = (asyncio.run(answers(uuid, monkeypatch)) for uuid in identities)
    assert one[1] != other[1]
    assert any(one[1] in answer for answer in one[0])
    assert [answer.replace(one[1], "id") for answer in one[0]] == [
        answer.replace(other[1], "id") for answer in other[0]
    ]
    for uuid, (told, identity) in zip(identities, (one, other), strict=True):
        seeds = {crc32c(0, uuid), *(nonce_of(uuid, number) for number in range(100))}
        assert not {int(part, 16) for part in re.findall("(?=([0-9a-f]{8}))", identity)} & seeds
        shown = "".join(told)
        assert not [seed for seed in seeds if f"{seed:08x}" in shown or str(seed) in shown]


def test_the_hash_of_an_identity_is_not_linear_in_it(monkeypatch):
    """Checksums are: the one of UUIDs that differ alike differs alike, whatever they are."""
    uuids = [bytes(16), bytes([1] * 16), bytes([2] * 16), bytes([3] * 16)]
    zero, one, two, both = (int(asyncio.run(answers(uuid, monkeypatch))[1], 16) for uuid in uuids)
    assert zero ^ one ^ two != both
    sums = [crc32c(0, uuid) for uuid in uuids]
    assert sums[0] ^ sums[1] ^ sums[2] == sums[3]
