"""A server that is killed and started again goes on where it was."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from receivers import DONE, Receiver, answering
from serving import Clock, Served, token, until
from worlds import Process, Serve, World, ack_of, code, milliseconds, soon

import durable_log
from durable_log import asgi


def test_a_wake_that_was_not_delivered_is_delivered_after_a_kill(serve: Serve):
    go_on = threading.Event()

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            go_on.wait(30)
            handler.close_connection = True
        else:
            DONE(number, handler)

    with Receiver(answer) as receiver:
        server = serve()
        server.hook("s", receiver.url)
        server.put("events/a", 1)
        first = receiver.delivery().wake
        server.kill()
        go_on.set()
        server = serve()
        second = receiver.delivery(1).wake
        kept = ("wake_id", "generation", "streams")
        assert {key: second[key] for key in kept} == {key: first[key] for key in kept}
        soon(lambda: server.cursors("s") == {"events/a": 2}, "the ack")
        server.kill()


def test_a_wake_that_was_delivered_is_not_delivered_again_and_can_still_be_acknowledged(serve: Serve):
    with Receiver() as receiver:
        server = serve()
        kid = server.hook("s", receiver.url).json()["webhook"]["signing"]["kid"]
        server.put("events/a", 1)
        server.put("events/b", 1)
        wake = receiver.delivery().wake
        taken = ack_of(wake, acks={"events/a": wake["streams"][0]["tail_offset"]}, done=False)
        assert server.action("s", "callback", taken, wake["callback_token"]).is_success
        server.kill()
        server = serve()
        assert server.cursors("s") == {"events/a": 2, "events/b": 0}
        assert server.get("s")["webhook"]["signing"]["kid"] == kid
        answer = server.action("s", "callback", ack_of(wake), wake["callback_token"])
        assert answer.json()["ok"]
        assert len([each for each in receiver.deliveries if each.wake["wake_id"] == wake["wake_id"]]) == 1
        server.kill()


def test_a_claim_is_held_over_a_kill_until_its_lease_runs_out(serve: Serve):
    server = serve()
    server.put("wake/s")
    server.pull("s", lease_ttl_ms=3000)
    server.put("events/a", 1)
    soon(lambda: server.read("wake/s"), "the wake event")
    before = milliseconds()
    claim = server.claimed("s", "first")
    server.kill()
    server = serve()
    refused = server.claim("s", "second")
    if milliseconds() < before + 3000:
        assert code(refused) == (409, "ALREADY_CLAIMED")
        assert refused.json()["error"]["current_holder"] == "first"
    soon(lambda: server.claim("s", "second").status_code == 200, "the second claim")
    assert milliseconds() >= before + 3000
    assert code(server.action("s", "ack", ack_of(claim), claim["token"])) == (409, "FENCED")
    announced = [event["generation"] for event in server.read("wake/s")]
    assert announced[0] == 1
    assert announced == sorted(set(announced))  # a wake that was claimed at once needs no announcement
    server.kill()


def test_a_claim_can_be_acknowledged_after_a_kill(serve: Serve):
    server = serve()
    server.put("wake/s")
    server.pull("s", lease_ttl_ms=60_000)
    server.put("events/a", 1)
    claim = server.claimed("s", "first")
    server.kill()
    server = serve()
    assert server.action("s", "ack", ack_of(claim), claim["token"]).json() == {"ok": True, "next_wake": False}
    server.kill()
    server = serve()
    assert server.cursors("s") == {"events/a": 2}
    assert code(server.action("s", "ack", ack_of(claim), claim["token"])) == (409, "FENCED")
    server.post("events/a", 2)
    assert server.claimed("s")["generation"] == 2
    server.kill()


def milliseconds_of(text: str) -> int:
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def next_attempt(server: Process) -> int:
    text = server.get("s").get("next_attempt_at")
    return 0 if text is None else milliseconds_of(text)


def test_a_retry_is_made_when_it_was_due_whatever_was_killed_meanwhile(serve: Serve):
    arrived: list[int] = []

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        arrived.append(milliseconds())
        answering(500)(number, handler)

    with Receiver(answer) as receiver:
        server = serve()
        server.hook("s", receiver.url, lease_ttl_ms=600_000)
        server.put("events/a", 1)
        receiver.delivery(1)
        # the first schedule was over when the second attempt arrived, so what lies that far ahead is the second one
        due = soon(lambda: (at := next_attempt(server)) >= arrived[1] + 1600 and at, "the second schedule")
        server.kill()
        server = serve()
        told = server.get("s")
        if len(arrived) == 2:
            assert (told["status"], milliseconds_of(told["next_attempt_at"])) == ("failed", due)
        receiver.delivery(2)
        assert arrived[2] >= due
        assert {delivery.wake["wake_id"] for delivery in receiver.deliveries} == {receiver.delivery().wake["wake_id"]}
        server.kill()


def test_a_subscription_that_was_deleted_stays_deleted_and_so_do_its_tokens(serve: Serve):
    server = serve()
    server.put("wake/s")
    server.pull("s")
    server.put("events/a", 1)
    claim = server.claimed("s")
    assert server.http.delete(server.path("s")).status_code == 204
    server.kill()
    server = serve()
    assert code(server.claim("s")) == (404, "SUBSCRIPTION_NOT_FOUND")
    server.pull("s")
    server.post("events/a", 2)
    again = server.claimed("s")
    assert again["generation"] == claim["generation"]
    assert code(server.action("s", "ack", ack_of(again), claim["token"])) == (409, "FENCED")
    server.kill()


def test_what_happened_to_streams_while_no_server_ran_is_found(serve: Serve, tmp_path: Path):
    with Receiver() as receiver:
        server = serve()
        for path in ("events/moved", "events/still", "events/gone", "events/reborn", "named", "named/gone"):
            server.put(path, 1)
        server.hook("s", receiver.url, streams=["named", "named/gone", "named/later"])
        server.stop()
        with durable_log.open(tmp_path) as store:
            store.stream("events/moved").append_json(2)
            store.stream("named").append_json(2)
            for name in ("events/gone", "events/reborn", "named/gone"):
                store.delete(name)
            for name in ("events/reborn", "events/new", "named/later"):
                store.create(name, content_type="application/json").append_json(2)
        server = serve()
        wake = receiver.delivery().wake
        told = {each["path"]: int(each["acked_offset"][17:]) for each in wake["streams"] if each["has_pending"]}
        assert told == {"events/moved": 2, "named": 2, "events/reborn": 0, "events/new": 0, "named/later": 0}
        idle = {each["path"] for each in wake["streams"] if not each["has_pending"]}
        assert idle == {"events/still"}
        server.kill()


def test_a_server_stops_in_time_though_a_webhook_hangs_and_loses_nothing(serve: Serve):
    go_on = threading.Event()

    def answer(number: int, handler: BaseHTTPRequestHandler) -> None:
        if number == 0:
            go_on.wait(30)
            handler.close_connection = True
        else:
            DONE(number, handler)

    with Receiver(answer) as receiver:
        server = serve()
        server.hook("s", receiver.url)
        server.put("events/a", 1)
        receiver.delivery()
        began = time.monotonic()
        errors = server.stop()
        assert time.monotonic() - began < 8
        assert errors == ""
        go_on.set()
        server = serve()
        assert receiver.delivery(1).wake["wake_id"] == receiver.delivery().wake["wake_id"]
        server.kill()


def test_a_subscription_with_much_history_takes_little_room(at_work: World):
    at_work.put("wake/s")
    at_work.pull("s", lease_ttl_ms=600_000)
    path = "events/" + "long" * 200
    at_work.put(path, 1)
    claim = at_work.claimed("s")
    at_work.store.stream(path).append_json([1] * 400)
    for number in range(400):
        ack = ack_of(claim, acks={path: token(2 * number)}, done=False)
        assert at_work.action("s", "ack", ack, claim["token"]).is_success
        at_work.clock.now += 1
    info = at_work.store.stream("__ds/subscriptions/s").info()
    assert info.tail > 32_000
    assert info.tail - info.first < 2 * 65_536


def served_on(store: Any, clock: Clock, **more: Any) -> Served:
    return Served(clock=clock, lifespan="on", store=lambda _: store, **more)


def test_another_application_on_the_store_goes_on_when_the_first_has_stopped():
    clock = Clock()
    subscriptions = asgi.Subscriptions(webhook_development=True)
    with durable_log.open(":memory:", clock=clock) as store:
        first = served_on(store, clock, subscriptions=subscriptions)
        one = World(first, durable_log.aio.AsyncStore.of(store), clock)
        one.put("wake/s")
        one.pull("s")
        one.put("events/a", 1)
        claim = one.claimed("s")
        second = served_on(store, clock, subscriptions=subscriptions)
        two = World(second, durable_log.aio.AsyncStore.of(store), clock)
        assert code(two.claim("s")) == (503, "SUBSCRIPTIONS_ELSEWHERE")
        assert two.read("events/a") == [1]
        one.close()
        first.stop()
        assert two.action("s", "ack", ack_of(claim), claim["token"]).json() == {"ok": True, "next_wake": False}
        two.close()
        second.stop()


def test_a_store_that_is_closed_under_its_application_is_left_alone(caplog: pytest.LogCaptureFixture):
    clock = Clock()
    store = durable_log.open(":memory:", clock=clock)
    served = served_on(store, clock, subscriptions=asgi.Subscriptions(webhook_development=True))
    one = World(served, durable_log.aio.AsyncStore.of(store), clock)
    one.put("wake/s")
    one.pull("s")
    one.put("events/a", 1)
    one.claimed("s")
    store.close()
    one.later(30)
    assert code(one.claim("s")) == (503, "store_closed")
    until(lambda: one.manager.get("s")._timer is None, "the end of its timers")
    one.close()
    served.stop()
    ours = [record for record in caplog.records if record.name == "durable_log" and record.module != "asgi"]
    assert [record.getMessage() for record in ours] == []


def test_a_subscription_that_cannot_be_read_hinders_no_other_and_can_be_deleted(serve: Serve, tmp_path: Path):
    server = serve()
    server.pull("s")
    server.stop()
    with durable_log.open(tmp_path) as store:
        store.create("__ds/subscriptions/odd", content_type="application/json").append_json({"links": {}})
        store.create("__ds/subscriptions/text", content_type="text/plain", data=b"what")
        store.create("__ds/subscriptions/broken-off", content_type="application/json")
    server = serve()
    assert server.get("s")["id"] == "s"
    for name in ("odd", "text"):
        assert server.http.get(server.path(name)).status_code == 400
        assert server.pull(name).status_code == 400
        assert server.http.delete(server.path(name)).status_code == 204
        assert server.pull(name).status_code == 201
    assert server.http.get(server.path("broken-off")).status_code == 404
    assert "'odd' does not run" in server.kill()
    with durable_log.open(tmp_path) as store:
        names = [name.removeprefix("__ds/subscriptions/") for name in store.names("__ds/subscriptions/")]
        assert names == ["odd", "s", "text"]


@pytest.mark.parametrize("lifespan", ["on", "off"])
def test_retries_go_on_with_the_first_event_or_request_of_any_kind(lifespan: str):
    clock = Clock()
    with durable_log.open(":memory:", clock=clock) as store, Receiver(answering(500, 200)) as receiver:
        subscriptions = asgi.Subscriptions(webhook_development=True)
        first = served_on(store, clock, subscriptions=subscriptions)
        one = World(first, durable_log.aio.AsyncStore.of(store), clock)
        one.hook("s", receiver.url)
        one.put("events/a", 1)
        soon(lambda: one.get("s")["status"] == "failed", "the failure")
        one.close()
        first.stop()
        clock.now += 10
        second = Served(clock=clock, lifespan=lifespan, store=lambda _: store, subscriptions=subscriptions)
        if lifespan == "off":
            second.http.get("/x")
        until(lambda: len(receiver.deliveries) == 2, "the retry")
        second.stop()


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ((), 201),
        (("--no-local-webhooks",), 400),
        (("--host", "0.0.0.0"), 400),
        (("--host", "0.0.0.0", "--local-webhooks"), 201),
    ],
)
def test_a_server_that_only_this_machine_reaches_is_one_for_development(
    serve: Serve, more: tuple[str, ...], status: int, receiver: Receiver
):
    server = serve(*more)
    assert server.hook("s", receiver.url).status_code == status
    server.kill()
