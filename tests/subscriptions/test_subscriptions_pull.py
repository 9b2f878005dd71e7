"""Pull-wake: wake events, claims, acks, leases, fencing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from serving import PATIENCE_SECONDS
from worlds import World, ack_of, code, soon

from durable_log._subscriptions import active
from durable_log.errors import StoreFull


def events(world: World, name: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = world.read(f"wake/{name}")
    return found


@pytest.fixture
def pool(at_work: World) -> World:
    """A subscription ``s`` with its wake stream, and nothing pending."""
    at_work.put("wake/s")
    assert at_work.pull("s").status_code == 201
    return at_work


def test_an_append_is_announced_once_in_the_wake_stream(pool: World):
    pool.put("events/a", 1)
    pool.post("events/a", 2)
    (event,) = soon(lambda: events(pool, "s"), "the wake event")
    assert event == {
        "type": "wake", "subscription_id": "s", "stream": "events/a", "generation": 1,
        "ts": int(pool.clock.now * 1000),
    }  # fmt: skip
    pool.post("events/a", 3)
    pool.claimed("s")
    assert events(pool, "s") == [event]


def test_a_claim_tells_what_is_pending_and_from_where(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    assert claim["generation"] == 1
    assert claim["lease_ttl_ms"] == 30_000
    assert claim["streams"] == [
        {
            "path": "events/a", "link_type": "glob", "acked_offset": "0000000000000000_0000000000000000",
            "tail_offset": "0000000000000000_0000000000000002", "has_pending": True,
        }
    ]  # fmt: skip


def test_only_one_of_many_workers_gets_the_claim(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s", "first")
    refused = pool.claim("s", "second")
    assert code(refused) == (409, "ALREADY_CLAIMED")
    assert refused.json()["error"]["current_holder"] == "first"
    assert refused.json()["error"]["generation"] == claim["generation"]


def test_there_is_nothing_to_claim_without_pending_work(pool: World):
    assert code(pool.claim("s")) == (409, "NO_PENDING_WORK")


def test_what_came_during_a_claim_makes_the_next_wake(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    pool.post("events/a", 2)
    answer = pool.action("s", "ack", ack_of(claim), claim["token"])
    assert answer.json() == {"ok": True, "next_wake": True}
    soon(lambda: [event["generation"] for event in events(pool, "s")] == [1, 2], "the second wake event")
    again = pool.claimed("s")
    assert again["generation"] == 2
    assert again["wake_id"] != claim["wake_id"]


def test_an_ack_without_done_moves_cursors_and_extends_the_lease(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    pool.later(29)
    answer = pool.action("s", "ack", ack_of(claim, done=False), claim["token"])
    assert answer.json() == {"ok": True, "next_wake": False}
    assert pool.cursors("s") == {"events/a": 2}
    pool.later(29)
    assert code(pool.claim("s", "other")) == (409, "ALREADY_CLAIMED")
    assert pool.action("s", "ack", ack_of(claim, acks={}), claim["token"]).json() == {"ok": True, "next_wake": False}


def test_a_lease_that_runs_out_is_the_next_workers(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s", "first")
    pool.later(30)
    soon(lambda: [event["generation"] for event in events(pool, "s")] == [1, 2], "the second wake event")
    assert pool.claimed("s", "second")["generation"] == 2
    for action in ("ack", "release"):
        assert code(pool.action("s", action, ack_of(claim), claim["token"])) == (409, "FENCED")
    assert pool.cursors("s") == {"events/a": 0}


def test_a_lease_is_over_at_its_end_even_if_nobody_has_noticed(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    pool.clock.now += 30
    assert code(pool.action("s", "ack", ack_of(claim), claim["token"])) == (409, "FENCED")


def test_a_released_wake_is_announced_again(pool: World):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    assert pool.action("s", "release", ack_of(claim), claim["token"]).status_code == 204
    soon(lambda: [event["generation"] for event in events(pool, "s")] == [1, 2], "the second wake event")
    assert code(pool.action("s", "release", ack_of(claim), claim["token"])) == (409, "FENCED")


def test_a_token_is_good_for_its_generation_its_subscription_and_its_life(pool: World):
    pool.put("wake/t")
    pool.pull("t")
    pool.put("events/a", 1)
    old = pool.claimed("s")
    pool.action("s", "release", ack_of(old), old["token"])
    new, other = pool.claimed("s"), pool.claimed("t")
    assert code(pool.action("s", "ack", ack_of(new), old["token"])) == (409, "FENCED")
    assert code(pool.action("s", "ack", ack_of(old), new["token"])) == (409, "FENCED")
    assert code(pool.action("s", "ack", ack_of(new) | {"wake_id": old["wake_id"]}, new["token"])) == (409, "FENCED")
    assert code(pool.action("s", "ack", ack_of(new), other["token"])) == (401, "TOKEN_INVALID")
    assert code(pool.action("s", "ack", ack_of(new), new["token"][:-2] + "xx")) == (401, "TOKEN_INVALID")
    assert code(pool.action("s", "ack", ack_of(new), "x")) == (401, "TOKEN_INVALID")
    assert code(pool.action("s", "ack", ack_of(new))) == (401, "TOKEN_INVALID")
    assert pool.cursors("s") == {"events/a": 0}

    pool.http.delete(pool.path("s"))
    assert code(pool.action("s", "ack", ack_of(new), new["token"])) == (404, "SUBSCRIPTION_NOT_FOUND")
    pool.pull("s")
    pool.post("events/a", 2)
    while (life := pool.claimed("s"))["generation"] < new["generation"]:
        pool.action("s", "release", ack_of(life), life["token"])
    assert life["generation"] == new["generation"]
    assert code(pool.action("s", "ack", ack_of(life), new["token"])) == (409, "FENCED")
    assert pool.action("s", "ack", ack_of(life), life["token"]).status_code == 200


@pytest.mark.parametrize(
    ("path", "offset"),
    [
        ("events/a", "0000000000000000_0000000000000099"),
        ("events/a", "0000000000000000_0000000000000001"),
        ("events/a", "-1"),
        ("events/a", "now"),
        ("events/a", "2"),
        ("events/b", "0000000000000000_0000000000000002"),
    ],
)
def test_an_ack_that_cannot_be_right_moves_no_cursor(pool: World, path: str, offset: str):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    pool.action("s", "ack", ack_of(claim, done=False), claim["token"])
    pool.post("events/a", 2)
    body = ack_of(claim, acks={"events/a": "0000000000000000_0000000000000004"})
    body["acks"].append({"stream": path, "offset": offset})
    if path == "events/a":
        body["acks"] = body["acks"][1:]
    assert code(pool.action("s", "ack", body, claim["token"])) == (409, "INVALID_OFFSET")
    assert pool.cursors("s") == {"events/a": 2}
    assert code(pool.claim("s")) == (409, "ALREADY_CLAIMED")


def test_an_ack_of_a_stream_that_was_deleted_meanwhile_counts_for_nothing_and_hinders_nothing(pool: World):
    pool.put("events/a", 1)
    pool.put("events/b", 1)
    claim = pool.claimed("s")
    pool.delete("events/a")
    pool.put("events/a", 111)
    answer = pool.action("s", "ack", ack_of(claim), claim["token"])
    assert answer.json() == {"ok": True, "next_wake": True}
    assert pool.cursors("s") == {"events/a": 0, "events/b": 2}


def test_an_ack_that_is_being_noted_while_its_stream_gets_another_life_is_not_one_of_that(
    pool: World, monkeypatch: pytest.MonkeyPatch
):
    pool.put("events/a", 1)
    claim = pool.claimed("s")
    journal = pool.manager.get("s")._journal
    append = journal.append

    async def slowly(record: dict[str, object]) -> bool:
        grown = await append(record)
        if "links" in record:
            await asyncio.to_thread(pool.store.delete, "events/a")
            await asyncio.to_thread(pool.store.create, "events/a", content_type="application/json", data=b"[1,2]")
            await asyncio.sleep(0)  # what this thread was told, the loop has been told
            assert pool.manager.get("s").links.by_path["events/a"].acked == 0
        return grown

    monkeypatch.setattr(journal, "append", slowly)
    assert pool.action("s", "ack", ack_of(claim), claim["token"]).is_success
    assert pool.cursors("s") == {"events/a": 0}
    assert soon(lambda: pool.claimed("s"), "the claim")["streams"][0]["tail_offset"][17:] == "0000000000000004"


def link(pool: World) -> httpx.Response:
    return pool.action("s", "streams", {"streams": ["events/a"]})


def unlink(pool: World) -> httpx.Response:
    return pool.http.delete(pool.path("s", "streams", "events/a"))


@pytest.mark.parametrize(("change", "explicit"), [(link, True), (unlink, False)])
def test_an_ack_that_is_being_noted_while_its_stream_is_linked_or_unlinked_by_name_is_kept(
    pool: World, monkeypatch: pytest.MonkeyPatch, change: Callable[[World], httpx.Response], explicit: bool
):
    pool.put("events/a", 1)
    if not explicit:
        link(pool)
    claim = pool.claimed("s")
    subscription, noting, go_on = pool.manager.get("s"), threading.Event(), threading.Event()
    append = subscription._journal.append

    async def slowly(record: dict[str, Any]) -> bool:
        noting.set()
        assert await asyncio.to_thread(go_on.wait, PATIENCE_SECONDS)
        return await append(record)

    monkeypatch.setattr(subscription._journal, "append", slowly)
    with ThreadPoolExecutor(2) as threads:
        acked = threads.submit(pool.action, "s", "ack", ack_of(claim, done=False), claim["token"])
        assert noting.wait(PATIENCE_SECONDS)
        changed = threads.submit(change, pool)
        soon(lambda: subscription.links.by_path["events/a"].explicit == explicit, "the change")
        go_on.set()
        assert (acked.result().status_code, changed.result().status_code) == (200, 204)
    noted = pool.stored("s").links["events/a"]
    assert (noted.acked, noted.explicit) == (2, explicit)
    assert noted == subscription.links.by_path["events/a"]


def refusing_once(world: World, monkeypatch: pytest.MonkeyPatch, what: Callable[[dict[str, Any]], bool]) -> list[int]:
    """Have the store refuse a record of that kind, once; the list has an item when it has."""
    journal, refused = world.manager.get("s")._journal, list[int]()
    append = journal.append

    async def refusing(record: dict[str, Any]) -> bool:
        if what(record) and not refused:
            refused.append(1)
            raise StoreFull("a segment", 4096)
        return await append(record)

    monkeypatch.setattr(journal, "append", refusing)
    return refused


def test_a_wake_whose_announcement_could_not_be_noted_is_announced_once(pool: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(active, "TROUBLE_SECONDS", 0.01)
    refused = refusing_once(pool, monkeypatch, lambda record: record.get("state", {}).get("sent"))
    pool.put("events/a", 1)
    soon(lambda: refused and pool.state("s").sent, "the second announcement")
    assert [event["generation"] for event in events(pool, "s")] == [1]


def test_a_link_that_could_not_be_noted_is_noted_when_it_is_asked_for_again(
    pool: World, monkeypatch: pytest.MonkeyPatch
):
    refusing_once(pool, monkeypatch, lambda record: "links" in record)
    assert pool.action("s", "streams", {"streams": ["named"]}).status_code == 507
    assert pool.action("s", "streams", {"streams": ["named"]}).status_code == 204
    assert pool.stored("s").links["named"].explicit


def test_a_wake_that_nobody_claimed_does_not_outlive_its_streams(pool: World):
    pool.put("events/a", 1)
    soon(lambda: events(pool, "s"), "the wake event")
    pool.delete("events/a")
    assert code(pool.claim("s")) == (409, "NO_PENDING_WORK")
    pool.put("events/b", 1)
    soon(lambda: [event["generation"] for event in events(pool, "s")] == [1, 2], "the second wake event")


def test_a_wake_stream_that_comes_later_gets_the_event_that_waits_for_it(at_work: World):
    at_work.pull("s")
    at_work.put("events/a", 1)
    soon(lambda: at_work.get("s")["status"] == "failed", "the attempt")
    at_work.put("wake/s")
    (event,) = soon(lambda: events(at_work, "s"), "the wake event")
    assert event["generation"] == 1
    assert at_work.get("s")["status"] == "active"


def test_nothing_has_failed_any_more_when_there_is_nothing_to_be_announced(at_work: World):
    at_work.pull("s")
    at_work.put("events/a", 1)
    soon(lambda: at_work.get("s")["status"] == "failed", "the attempt")
    at_work.delete("events/a")
    soon(lambda: at_work.get("s")["status"] == "active", "the end of it")
    assert at_work.stored("s").state.attempts == 0


def test_a_subscription_can_be_claimed_without_its_wake_stream(at_work: World):
    at_work.pull("s")
    at_work.put("events/a", 1)
    assert at_work.claimed("s")["generation"] == 1


def test_a_wake_stream_of_text_gets_a_line_for_each_event(at_work: World):
    at_work.http.put(f"{at_work.url}/wake/s", headers={"content-type": "text/plain"})
    at_work.pull("s")
    at_work.put("events/a", 1)
    soon(lambda: at_work.http.get(f"{at_work.url}/wake/s").text.endswith("}\n"), "the line")


def test_a_wake_stream_that_the_pattern_matches_does_not_wake(at_work: World):
    at_work.put("wake/s")
    at_work.pull("s", pattern="**")
    at_work.put("events/a", 1)
    claim = at_work.claimed("s")
    assert [each["path"] for each in claim["streams"]] == ["events/a"]
    assert at_work.action("s", "ack", ack_of(claim), claim["token"]).json() == {"ok": True, "next_wake": False}
