"""Webhooks: what is sent, how it is signed, what is tried again and when."""

from __future__ import annotations

import hashlib
import json
import re
import time
from base64 import urlsafe_b64decode
from http.server import BaseHTTPRequestHandler
from typing import Any

import ed25519
import httpx
import pytest
from receivers import DONE, Delivery, Hanging, Receiver, answering
from worlds import World, ack_of, code, soon, world

from durable_log import asgi
from durable_log._subscriptions import active
from durable_log.errors import InvalidOption, StoreFull


def decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def signature(delivery: Delivery) -> tuple[int, str, bytes]:
    match = re.fullmatch(r"t=(\d+),kid=([^,]+),ed25519=([A-Za-z0-9_-]+)", delivery.headers["webhook-signature"])
    assert match is not None
    return int(match[1]), match[2], decoded(match[3])


def verified(delivery: Delivery, keys: dict[str, str]) -> bool:
    """Whether one of these keys, by id, has signed exactly that."""
    seconds, kid, signed = signature(delivery)
    return ed25519.verifies(decoded(keys[kid]), b"%d." % seconds + delivery.raw, signed)


def published(world: World) -> dict[str, str]:
    return {key["kid"]: key["x"] for key in world.http.get(f"{world.url}/__ds/jwks.json").json()["keys"]}


def test_the_judge_of_signatures_knows_a_right_one_from_a_wrong_one():
    """The second test vector of RFC 8032 §7.1."""
    public = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signed = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert ed25519.verifies(public, b"\x72", signed)
    assert not ed25519.verifies(public, b"\x73", signed)
    assert not ed25519.verifies(public, b"\x72", signed[:-1] + b"\x01")


def test_an_append_wakes_the_webhook_with_what_is_pending(at_work: World, receiver: Receiver):
    assert at_work.hook("s", receiver.url).status_code == 201
    at_work.put("events/a", 1)
    wake = receiver.delivery().wake
    assert wake["subscription_id"] == "s"
    assert wake["generation"] == 1
    assert wake["callback_url"] == f"{at_work.url}/__ds/subscriptions/s/callback"
    assert wake["streams"] == [
        {
            "path": "events/a", "link_type": "glob", "acked_offset": "0000000000000000_0000000000000000",
            "tail_offset": "0000000000000000_0000000000000002", "has_pending": True,
        }
    ]  # fmt: skip
    assert receiver.delivery().headers["content-type"] == "application/json"


def test_a_webhook_is_signed_with_the_key_that_is_published(at_work: World, receiver: Receiver):
    signing = at_work.hook("s", receiver.url).json()["webhook"]["signing"]
    at_work.put("events/a", 1)
    delivery = receiver.delivery()
    keys = published(at_work)
    assert verified(delivery, keys)
    assert not verified(delivery._replace(raw=delivery.raw + b" "), keys)
    assert signature(delivery)[:2] == (int(at_work.clock.now), signing["kid"])
    assert signing["jwks_url"] == f"{at_work.url}/__ds/jwks.json"
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": keys[signing["kid"]]}, separators=(",", ":"))
    assert decoded(signing["kid"].removeprefix("ds_")) == hashlib.sha256(canonical.encode()).digest()


def test_the_key_set_is_one_that_caches_may_keep_for_five_minutes(at_work: World):
    response = at_work.http.get(f"{at_work.url}/__ds/jwks.json")
    assert response.headers["content-type"] == "application/jwk-set+json"
    assert response.headers["cache-control"] == "public, max-age=300"
    (key,) = response.json()["keys"]
    assert {**key, "kid": "", "x": ""} == {
        "kty": "OKP", "crv": "Ed25519", "kid": "", "use": "sig", "alg": "EdDSA", "x": "",
    }  # fmt: skip
    assert at_work.http.head(f"{at_work.url}/__ds/jwks.json").status_code == 200


def rotate(at_work: World) -> str:
    import asyncio

    rotation = at_work.served.app.rotate_signing_key()
    return asyncio.run_coroutine_threadsafe(rotation, at_work.manager.loop).result(10)


def test_a_key_that_was_replaced_stays_published_for_a_day(at_work: World, receiver: Receiver):
    at_work.hook("s", receiver.url)
    at_work.put("events/a", 1)
    old = receiver.delivery()
    new_kid = rotate(at_work)
    assert list(published(at_work)) == [new_kid, signature(old)[1]]
    at_work.later(30)
    new = receiver.delivery(1)
    assert signature(new)[1] == new_kid
    assert verified(old, published(at_work))
    assert verified(new, published(at_work))
    at_work.later(86_400)
    assert list(published(at_work)) == [new_kid]


def test_done_acknowledges_what_the_wake_told_of(at_work: World):
    with Receiver(DONE) as receiver:
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        soon(lambda: at_work.cursors("s") == {"events/a": 2}, "the ack")
        at_work.post("events/a", 2)
        soon(lambda: at_work.cursors("s") == {"events/a": 4}, "the second ack")
        assert [delivery.wake["generation"] for delivery in receiver.deliveries] == [1, 2]


def test_what_comes_after_the_wake_was_sent_is_not_acknowledged_by_its_done(at_work: World):
    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            at_work.post("events/a", 2)
        DONE(number, handler)

    with Receiver(answer) as receiver:
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        second = receiver.delivery(1)
        assert second.wake["generation"] == 2
        assert second.stream("events/a")["acked_offset"] == receiver.delivery().stream("events/a")["tail_offset"]
        soon(lambda: at_work.cursors("s") == {"events/a": 4}, "the second ack")


def test_done_takes_nothing_back_of_what_was_acknowledged_beyond_its_wake(at_work: World):
    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            at_work.post("events/a", 2)
            wake = receiver.deliveries[0].wake
            further = ack_of(wake, acks={"events/a": "0000000000000000_0000000000000004"}, done=False)
            assert at_work.action("s", "callback", further, wake["callback_token"]).is_success
        DONE(number, handler)

    with Receiver(answer) as receiver:
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        receiver.delivery()
        soon(lambda: at_work.state("s").wake_id is None, "the end of the wake")
        assert at_work.cursors("s") == {"events/a": 4}
        assert at_work.stored("s").links["events/a"].acked == 4


def test_done_says_nothing_of_a_stream_that_was_deleted_meanwhile_nor_of_its_next_life(at_work: World):
    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            at_work.delete("events/gone")
            at_work.delete("events/reborn")
            at_work.put("events/reborn", 1, 2, 3)
        DONE(number, handler)

    at_work.put("events/gone")
    at_work.put("events/reborn")
    with Receiver(answer) as receiver:
        at_work.hook("s", receiver.url, lease_ttl_ms=600_000)
        at_work.post("events/gone")
        wake = receiver.delivery(1).wake
        told = {each["path"]: int(each["acked_offset"][17:]) for each in wake["streams"] if each["has_pending"]}
        assert told == {"events/reborn": 0}
        assert len(wake["streams"]) == 1
        soon(lambda: at_work.cursors("s") == {"events/reborn": 6}, "the ack")


def test_a_callback_acknowledges_and_ends_the_wake(at_work: World, receiver: Receiver):
    at_work.hook("s", receiver.url)
    at_work.put("events/a", 1)
    wake = receiver.delivery().wake
    token = wake["callback_token"]
    assert at_work.action("s", "callback", ack_of(wake, done=False), token).json() == {"ok": True, "next_wake": False}
    assert at_work.action("s", "callback", ack_of(wake), token).json() == {"ok": True, "next_wake": False}
    assert code(at_work.action("s", "callback", ack_of(wake), token)) == (409, "FENCED")
    assert at_work.cursors("s") == {"events/a": 2}


def test_a_wake_that_is_delivered_and_not_acknowledged_is_over_with_its_lease(at_work: World, receiver: Receiver):
    at_work.hook("s", receiver.url)
    at_work.put("events/a", 1)
    first = receiver.delivery().wake
    soon(lambda: at_work.state("s").sent, "the delivery")
    at_work.later(29)
    assert at_work.action("s", "callback", ack_of(first, acks={}, done=False), first["callback_token"]).is_success
    at_work.later(29)
    assert len(receiver.deliveries) == 1
    at_work.later(1)
    second = receiver.delivery(1).wake
    assert (second["generation"], second["wake_id"] != first["wake_id"]) == (2, True)
    assert code(at_work.action("s", "callback", ack_of(first), first["callback_token"])) == (409, "FENCED")


def test_a_webhook_that_fails_is_tried_again_after_doubling_times(at_work: World):
    with Receiver(answering(500, 503, 404, 302, 200)) as receiver:
        at_work.hook("s", receiver.url, lease_ttl_ms=600_000)
        at_work.put("events/a", 1)
        for attempt, longest in enumerate((1.2, 2.4, 4.8, 9.6)):
            receiver.delivery(attempt)
            soon(lambda: at_work.get("s")["status"] == "failed", "the failure")
            soon(lambda attempts=attempt + 1: at_work.state("s").attempts == attempts, "the failure noted")
            due = at_work.state("s").next_attempt_at
            assert due is not None
            assert longest / 1.5 - 0.002 <= due / 1000 - at_work.clock.now <= longest
            at_work.at(due - 1)
            assert at_work.claim("nobody").status_code == 404  # by now the loop has looked
            assert len(receiver.deliveries) == attempt + 1
            at_work.at(due)
        receiver.delivery(4)
        soon(lambda: at_work.get("s")["status"] == "active", "the success")
        assert {delivery.wake["wake_id"] for delivery in receiver.deliveries} == {receiver.delivery().wake["wake_id"]}


def test_a_clock_that_is_set_back_does_not_put_retries_off(at_work: World):
    with Receiver(answering(500, 200)) as receiver:
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        receiver.delivery()
        soon(lambda: at_work.get("s")["status"] == "failed", "the failure")
        at_work.later(-365 * 86_400)
        soon(lambda: (at_work.state("s").next_attempt_at or 0) <= 1000 * at_work.clock.now + 1200, "the correction")
        at_work.later(1.2)
        receiver.delivery(1)


@pytest.mark.parametrize("done", [False, True])
def test_a_webhook_that_calls_back_though_its_answer_was_a_failure_has_not_failed(at_work: World, done: bool):
    with Receiver(answering(500)) as receiver:
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        wake = receiver.delivery().wake
        soon(lambda: at_work.get("s")["status"] == "failed", "the failure")
        assert at_work.action("s", "callback", ack_of(wake, done=done), wake["callback_token"]).is_success
        assert at_work.get("s")["status"] == "active"
        assert "next_attempt_at" not in at_work.get("s")


def test_a_lease_that_runs_out_during_retries_keeps_to_the_schedule(at_work: World):
    with Receiver(answering(500)) as receiver:
        at_work.hook("s", receiver.url, lease_ttl_ms=1000)
        at_work.put("events/a", 1)
        for attempt in range(4):
            assert receiver.delivery(attempt).wake["generation"] >= attempt
            soon(lambda attempts=attempt + 1: at_work.state("s").attempts == attempts, "the failure noted")
            due = at_work.state("s").next_attempt_at
            assert due is not None
            assert due / 1000 - at_work.clock.now >= 0.8 * 2**attempt - 0.002
            at_work.at(due)


def test_a_webhook_that_is_not_there_is_a_failure_like_others(at_work: World):
    with Receiver() as receiver:
        url = receiver.url
    at_work.hook("s", url)
    at_work.put("events/a", 1)
    soon(lambda: at_work.get("s")["status"] == "failed", "the failure")


def test_a_delivery_that_cannot_be_noted_is_made_again_later_and_not_at_once(
    at_work: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(active, "TROUBLE_SECONDS", 0.2)
    at_work.hook("s", receiver.url)
    journal, refused = at_work.manager.get("s")._journal, list[float]()
    append = journal.append

    async def refusing(record: dict[str, Any]) -> bool:
        if record["state"].get("sent") and not refused:
            refused.append(time.monotonic())
            raise StoreFull("a segment", 4096)
        return await append(record)

    monkeypatch.setattr(journal, "append", refusing)
    at_work.put("events/a", 1)
    first, second = receiver.delivery().wake, receiver.delivery(1).wake
    assert time.monotonic() - refused[0] >= 0.2
    assert second["wake_id"] == first["wake_id"]


def test_a_webhook_that_hangs_is_given_up_in_time_and_hinders_nobody():
    release: list[bool] = []

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        while not release:
            time.sleep(0.01)

    with world(webhook_seconds=0.3) as running, Receiver(answer) as hanging, Receiver(DONE) as other:
        running.hook("s", hanging.url)
        running.hook("t", other.url)
        running.put("events/a", 1)
        soon(lambda: running.cursors("t") == {"events/a": 2}, "the ack of the other")
        soon(lambda: running.get("s")["status"] == "failed", "the failure")
        release.append(True)


def test_a_webhook_that_hangs_longer_than_its_lease_has_failed_and_is_not_asked_again_at_once():
    release: list[bool] = []

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        while not release and number == 0:
            time.sleep(0.01)
        DONE(number, handler)

    with world(webhook_seconds=60) as running, Receiver(answer) as receiver:
        running.hook("s", receiver.url, lease_ttl_ms=1000)
        running.put("events/a", 1)
        receiver.delivery()
        running.later(1)
        soon(lambda: running.state("s").wake_id is None, "the end of the lease")
        assert running.get("s")["status"] == "failed"
        running.later(1.5)
        assert receiver.delivery(1).wake["generation"] == 2
        soon(lambda: running.cursors("s") == {"events/a": 2}, "the ack")
        release.append(True)


def test_a_webhook_that_calls_back_while_it_is_asked_has_taken_the_wake():
    answered: list[httpx.Response] = []

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        wake = receiver.deliveries[number].wake
        answered.append(running.action("s", "callback", ack_of(wake, done=False), wake["callback_token"]))
        handler.close_connection = True

    with world(webhook_seconds=5) as running, Receiver(answer) as receiver:
        running.hook("s", receiver.url)
        running.put("events/a", 1)
        soon(lambda: answered, "the callback")
        assert answered[0].is_success
        soon(lambda: running.manager.get("s")._sending == 0, "the broken answer")
        assert running.get("s")["status"] == "active"
        assert running.cursors("s") == {"events/a": 2}


def test_an_answer_without_end_is_not_read_to_its_end(at_work: World):
    sent = [0]

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10 * 10**9))
        handler.end_headers()
        block = b" " * 2**16
        try:
            while sent[0] < 10 * 10**9:
                handler.wfile.write(block)
                sent[0] += len(block)
        except OSError:
            sent.append(-1)

    with Receiver(answer) as receiver:
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        soon(lambda: sent[-1] == -1, "the end of it")
        assert sent[0] < 100 * 2**20
        assert at_work.get("s")["status"] == "active"


def test_a_redirect_is_not_followed(at_work: World):
    with Receiver() as target:

        def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", (target.url, "http://169.254.169.254/latest/meta-data/")[number % 2])
            handler.send_header("Content-Length", "0")
            handler.end_headers()

        with Receiver(answer) as receiver:
            at_work.hook("s", receiver.url)
            at_work.put("events/a", 1)
            for attempt in range(2):
                receiver.delivery(attempt)
                soon(lambda attempts=attempt + 1: at_work.state("s").attempts == attempts, "the failure")
                at_work.later(3)
        assert target.deliveries == []


def test_a_proxy_of_the_environment_is_not_used(at_work: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        at_work.hook("s", receiver.url)
        at_work.put("events/a", 1)
        receiver.delivery()
        assert proxy.deliveries == []


def test_a_key_of_ones_own_signs_and_those_before_it_stay_published(receiver: Receiver):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519 as library

    key = library.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with world(signing_key=pem) as running:
        running.hook("s", receiver.url)
        running.put("events/a", 1)
        delivery = receiver.delivery()
        assert verified(delivery, published(running))
        assert decoded(published(running)[signature(delivery)[1]]) == key.public_key().public_bytes_raw()
        stored = b"".join(chunk.data for chunk in [running.store.stream("__ds/keys").read()])
        assert key.private_bytes_raw().hex() not in stored.hex()
        with pytest.raises(InvalidOption):
            rotate(running)
    assert pem.decode() not in repr(asgi.Subscriptions(signing_key=pem))


def test_keys_are_in_no_answer_and_in_no_line_of_the_log(
    at_work: World, receiver: Receiver, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(0)
    at_work.hook("s", receiver.url)
    at_work.put("events/a", 1)
    receiver.delivery()
    secrets = [
        value for item in at_work.store.stream("__ds/keys").read().items for key, value in item.items()
        if key in ("secret", "private")
    ]  # fmt: skip
    assert len(secrets) == 2
    for path in ("__ds/keys", "%5F%5Fds/keys", "/__ds/keys", "__ds%2Fkeys", "x/../__ds/keys", "__ds/subscriptions/s"):
        for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
            if path != "__ds/subscriptions/s" or method in ("GET", "HEAD"):
                answer = at_work.http.request(method, f"{at_work.url}/{path}", content=b"")
                assert not any(secret in answer.text for secret in secrets)
    fork = at_work.http.put(f"{at_work.url}/fork", headers={"stream-forked-from": "/__ds/keys"})
    assert code(fork) == (404, "reserved")
    assert not any(secret in line for secret in secrets for line in caplog.text.splitlines())
    assert at_work.store.stream("__ds/keys").info().tail > 0


def test_deliveries_are_made_a_few_at_a_time():
    at_once, most, release = [0], [0], list[bool]()

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        soon(lambda: release or at_once[0] == 2, "two at once")
        time.sleep(0.02)
        at_once[0] -= 1
        DONE(number, handler)

    with world(webhooks_at_once=2) as running, Receiver(answer) as receiver:
        for number in range(8):
            running.hook(f"s{number}", receiver.url)
        running.put("events/a", 1)
        soon(lambda: len(receiver.deliveries) >= 6, "most deliveries")
        release.append(True)
        for number in range(8):
            soon(lambda name=f"s{number}": running.cursors(name) == {"events/a": 2}, "the ack")
    assert most[0] == 2


def deliveries(running: World) -> int:
    """How many are under way or wait for their turn."""
    return [task.get_name() for task in tuple(running.manager._tasks)].count(active.DELIVERY)


def test_a_wake_that_waits_for_its_turn_has_not_failed_and_its_lease_begins_with_its_turn():
    leases: list[tuple[float, int | None]] = []

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        leases.append((running.clock.now, running.state("t").lease_until))
        DONE(number, handler)

    with world(webhooks_at_once=1, webhook_seconds=60) as running, Hanging() as hanging, Receiver(answer) as other:
        running.hook("s", hanging.url, lease_ttl_ms=600_000)
        running.hook("t", other.url, lease_ttl_ms=1000, pattern="other")
        running.put("events/a", 1)
        hanging.delivery()
        running.put("other", 1)
        for _ in range(3):
            running.later(2)
            assert running.get("t")["status"] == "active"
            assert running.state("t").attempts == 0
            assert deliveries(running) == 2
        hanging.go_on()
        soon(lambda: running.cursors("t") == {"other": 2}, "the ack")
        assert [delivery.wake["generation"] for delivery in other.deliveries] == [1]
        ((now, lease_until),) = leases
        assert lease_until == int(1000 * now) + 1000


def test_a_wake_that_was_taken_while_it_waited_for_its_turn_is_not_sent():
    failing = Receiver(answering(500))
    with world(webhooks_at_once=1, webhook_seconds=60) as running, Hanging() as hanging, failing as receiver:
        running.hook("s", receiver.url, lease_ttl_ms=10_000)
        running.put("events/a", 1)
        wake = receiver.delivery().wake
        soon(lambda: running.get("s")["status"] == "failed", "the failure")
        running.hook("t", hanging.url, lease_ttl_ms=600_000, pattern="other")
        running.put("other", 1)
        hanging.delivery()
        running.later(2)
        soon(lambda: deliveries(running) == 2, "the attempt that waits")
        assert running.action("s", "callback", ack_of(wake), wake["callback_token"]).is_success
        running.post("events/a", 2)
        hanging.go_on()
        second = receiver.delivery(1)
        assert (second.wake["generation"], second.stream("events/a")["tail_offset"][17:]) == (2, f"{4:016d}")
        soon(lambda: deliveries(running) == 0, "the end of it")
        assert len(receiver.deliveries) == 2


def test_a_webhook_that_hangs_longer_than_its_lease_takes_no_turn_of_others():
    with world(webhooks_at_once=1, webhook_seconds=60) as running, Hanging() as hanging, Receiver(DONE) as other:
        running.hook("s", hanging.url, lease_ttl_ms=1000)
        running.put("events/a", 1)
        hanging.delivery()
        running.hook("t", other.url, pattern="other")
        running.put("other", 1)
        running.later(1)
        soon(lambda: running.cursors("t") == {"other": 2}, "the ack of the other")
        assert running.get("s")["status"] == "failed"


def test_webhooks_that_failed_before_leave_turns_to_others():
    release: list[bool] = []

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number >= 2:
            soon(lambda: release, "the end of the test")
        answering(500)(number, handler)

    with world(webhooks_at_once=2, webhook_seconds=60) as running, Receiver(answer) as bad, Receiver(DONE) as good:
        for name in ("s", "t"):
            running.hook(name, bad.url, lease_ttl_ms=600_000)
        running.hook("u", good.url, pattern="other")
        running.put("events/a", 1)
        for name in ("s", "t"):
            soon(lambda name=name: running.state(name).attempts == 1, "the failure")
        running.later(2)
        bad.delivery(2)
        soon(lambda: deliveries(running) == 2, "the retry that waits")
        running.put("other", 1)
        soon(lambda: running.cursors("u") == {"other": 2}, "the ack")
        assert len(bad.deliveries) == 3
        release.append(True)
        bad.delivery(3)
