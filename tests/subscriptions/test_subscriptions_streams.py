"""Which streams are a subscription's, however they come and go."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from receivers import DONE, Receiver
from worlds import World, ack_of, code, soon

from durable_log import aio
from durable_log._subscriptions import machine
from durable_log._subscriptions.manager import LOOKED_UP_AT_ONCE, Manager
from durable_log._subscriptions.options import Subscriptions
from durable_log._subscriptions.records import LINKS_PER_RECORD
from durable_log.model import StreamInfo
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.subscriptions import Config


def test_what_a_stream_held_before_the_subscription_is_not_pending(at_work: World):
    at_work.put("events/a", 1, 2, 3)
    at_work.put("other/a", 1)
    at_work.pull("s", streams=["other/a"])
    assert at_work.cursors("s") == {"events/a": 6, "other/a": 2}
    assert code(at_work.claim("s")) == (409, "NO_PENDING_WORK")
    at_work.post("events/a", 4)
    assert [each["path"] for each in at_work.claimed("s")["streams"] if each["has_pending"]] == ["events/a"]


def test_an_append_through_the_sync_api_wakes(at_work: World, receiver: Receiver):
    at_work.hook("s", receiver.url)
    stream = at_work.store.create("events/a", content_type="text/plain")
    stream.append(b"x")
    assert receiver.delivery().stream("events/a")["tail_offset"][17:] == "0000000000000001"


def test_an_append_through_the_asyncio_api_of_another_loop_wakes(at_work: World, receiver: Receiver):
    at_work.hook("s", receiver.url)

    async def append() -> None:
        store = aio.AsyncStore.of(at_work.store)
        stream = await store.create("events/a", content_type="text/plain")
        await stream.append(b"x")

    asyncio.run(append())
    assert receiver.delivery().stream("events/a")["has_pending"]


def test_a_stream_that_is_created_with_data_wakes_and_one_without_does_not(at_work: World):
    at_work.pull("s")
    at_work.put("events/a")
    assert code(at_work.claim("s")) == (409, "NO_PENDING_WORK")
    assert at_work.cursors("s") == {"events/a": 0}
    at_work.put("events/b", 1)
    claim = at_work.claimed("s")
    assert [(each["path"], each["has_pending"]) for each in claim["streams"]] == [
        ("events/b", True),
        ("events/a", False),
    ]


def test_data_that_is_not_synced_yet_does_not_wake(at_work: World):
    """It is synced soon, and wakes then."""
    at_work.pull("s")
    stream = at_work.store.create("events/a", content_type="text/plain")
    stream.append(b"x", durability="written")
    soon(lambda: at_work.claim("s").status_code == 200, "the claim")


@pytest.mark.parametrize(("pattern", "path"), [("events/*", "events/a/b"), ("events/*", "other/a"), ("*", "a/b")])
def test_streams_that_the_pattern_does_not_match_do_not_wake(at_work: World, pattern: str, path: str):
    at_work.pull("s", pattern=pattern)
    at_work.put(path, 1)
    assert at_work.cursors("s") == {}
    assert code(at_work.claim("s")) == (409, "NO_PENDING_WORK")


def test_a_closed_stream_stays_and_a_deleted_one_goes(at_work: World):
    at_work.put("events/a")
    at_work.put("events/b")
    at_work.put("named")
    at_work.pull("s", streams=["named"])
    at_work.http.post(f"{at_work.url}/events/a", headers={"stream-closed": "true"})
    at_work.delete("events/b")
    at_work.delete("named")
    assert at_work.cursors("s") == {"events/a": 0}


def test_another_life_of_a_stream_begins_at_its_start(at_work: World):
    at_work.put("events/a", 1)
    at_work.pull("s")
    assert at_work.cursors("s") == {"events/a": 2}
    at_work.delete("events/a")
    at_work.put("events/a", 1)
    assert at_work.claimed("s")["streams"][0]["acked_offset"][17:] == "0000000000000000"


def test_what_a_fork_inherits_is_not_new(at_work: World):
    at_work.put("source", 1, 2)
    at_work.pull("s", streams=["named"])
    for path in ("events/fork", "named"):
        forked = {"stream-forked-from": "/source", "content-type": "application/json"}
        assert at_work.http.put(f"{at_work.url}/{path}", headers=forked).status_code == 201
    assert at_work.cursors("s") == {"events/fork": 4, "named": 4}
    assert code(at_work.claim("s")) == (409, "NO_PENDING_WORK")
    at_work.post("events/fork", 3)
    assert at_work.claimed("s")["generation"] == 1


def test_a_stream_that_is_named_before_it_exists_wakes_with_its_first_append(at_work: World):
    at_work.pull("s", streams=["named"])
    assert at_work.cursors("s") == {"named": 0}
    at_work.put("named", 1)
    assert [each["path"] for each in at_work.claimed("s")["streams"]] == ["named"]


def links(world: World, name: str) -> dict[str, str]:
    return {each["path"]: each["link_type"] for each in world.get(name)["streams"]}


def test_explicit_links_come_before_those_of_the_pattern_and_leave_them_behind(at_work: World):
    at_work.put("events/a", 1)
    at_work.pull("s")
    assert links(at_work, "s") == {"events/a": "glob"}
    at_work.put("events/b", 1)
    for _ in range(2):
        assert at_work.action("s", "streams", {"streams": ["events/a", "/x y", "events/b"]}).status_code == 204
    assert links(at_work, "s") == {"events/a": "explicit", "events/b": "explicit", "x y": "explicit"}
    assert at_work.cursors("s") == {"events/a": 2, "events/b": 0, "x y": 0}
    for path in ("events%2Fa", "events/b", "x%20y", "x%20y", "never/was"):
        assert at_work.http.delete(at_work.path("s", "streams", path)).status_code == 204
    assert links(at_work, "s") == {"events/a": "glob", "events/b": "glob"}
    assert at_work.claimed("s")["streams"][0]["path"] == "events/b"


def test_a_stream_whose_name_begins_with_a_slash_is_another_than_that_without(at_work: World):
    at_work.pull("s", pattern="**")
    at_work.put("/x", 1)
    at_work.put("x", 111)
    claim = at_work.claimed("s")
    assert {each["path"] for each in claim["streams"]} == {"/x", "x"}
    slashed = {each["path"]: each["tail_offset"] for each in claim["streams"] if each["path"] == "/x"}
    answer = at_work.action("s", "ack", ack_of(claim, acks=slashed, done=False), claim["token"])
    assert answer.json() == {"ok": True, "next_wake": False}
    assert at_work.cursors("s") == {"/x": 2, "x": 0}
    assert at_work.action("s", "ack", ack_of(claim), claim["token"]).json() == {"ok": True, "next_wake": False}
    assert at_work.cursors("s") == {"/x": 2, "x": 4}


def test_an_ack_may_have_the_slash_before_a_path_where_no_stream_has_it_in_its_name(at_work: World):
    at_work.pull("s")
    at_work.put("events/a", 1)
    claim = at_work.claimed("s")
    slashed = ack_of(claim, acks={"/events/a": claim["streams"][0]["tail_offset"]})
    assert at_work.action("s", "ack", slashed, claim["token"]).json() == {"ok": True, "next_wake": False}
    assert at_work.cursors("s") == {"events/a": 2}


def test_unlinking_means_the_stream_of_exactly_that_name_if_it_is_linked(at_work: World):
    at_work.pull("s", pattern="**/x", streams=["/x", "y"])
    at_work.put("/x", 1)
    assert links(at_work, "s") == {"x": "explicit", "y": "explicit", "/x": "glob"}
    for path in ("/x", "/y"):
        assert at_work.http.delete(at_work.path("s", "streams", path)).status_code == 204
    assert links(at_work, "s") == {"x": "explicit", "/x": "glob"}


def test_many_subscriptions_of_one_stream_have_cursors_of_their_own(at_work: World):
    for name in ("s", "t"):
        at_work.pull(name)
    at_work.put("events/a", 1)
    claim = at_work.claimed("s")
    at_work.action("s", "ack", ack_of(claim), claim["token"])
    assert (at_work.cursors("s"), at_work.cursors("t")) == ({"events/a": 2}, {"events/a": 0})
    at_work.http.delete(at_work.path("s"))
    assert at_work.claimed("t")["generation"] == 1


def test_nobody_listens_to_commits_when_there_is_no_subscription(at_work: World):
    listeners = at_work.store.engine.watermarks
    assert listeners.listeners == ()
    at_work.pull("s")
    assert len(listeners.listeners) == 1
    at_work.put("events/a", 1)
    at_work.http.delete(at_work.path("s"))
    assert listeners.listeners == ()
    at_work.pull("s")
    assert len(listeners.listeners) == 1


def pulled(name: str) -> Config:
    return Config("pull-wake", f"{name}/*", (), None, f"wake/{name}", 30_000, None)


def test_subscriptions_that_were_deleted_leave_no_wake_streams_behind():
    async def work() -> None:
        async with aio.open(":memory:") as store:
            manager = Manager(store, Subscriptions())
            await manager.start()
            shared = pulled("s")._replace(wake_stream="wake/shared")
            for name, config in (("s", shared), ("t", shared), ("u", pulled("u"))):
                await manager.put(name, config, "http://h/__ds")
            for name, left in (("s", {"wake/shared", "wake/u"}), ("u", {"wake/shared"}), ("t", set())):
                await manager.delete(name)
                assert set(manager._announcing) == left
            await manager.stop(10)

    asyncio.run(work())


def test_many_streams_that_are_linked_by_name_at_once_let_others_have_their_turns():
    paths, links_at = [f"named/{number}" for number in range(2500)], [0]

    async def work() -> None:
        async with aio.open(":memory:") as store:
            manager = Manager(store, Subscriptions())
            await manager.start()
            active, _ = await manager.put("s", pulled("s"), "http://h/__ds")
            adding = asyncio.ensure_future(manager.finish(manager.add(active, paths)))
            while not adding.done():
                await asyncio.sleep(0)
                links_at.append(len(active.links.by_path))
            records = (await store.stream("__ds/subscriptions/s").read()).items
            assert max(len(record.get("links", ())) for record in records) == LINKS_PER_RECORD
            await manager.stop(10)

    asyncio.run(work())
    assert links_at[-1] == len(paths)
    assert max(after - before for before, after in pairwise(links_at)) <= LOOKED_UP_AT_ONCE


def test_a_subscription_that_is_deleted_while_streams_are_linked_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch):
    paths = [f"named/{number}" for number in range(300)]

    async def work() -> None:
        async with aio.open(":memory:") as store:
            manager = Manager(store, Subscriptions())
            await manager.start()
            active, _ = await manager.put("s", pulled("s"), "http://h/__ds")
            look_up = manager._info

            async def deleting(path: str) -> StreamInfo | None:
                if path == paths[200]:
                    await manager.delete("s")
                return await look_up(path)

            monkeypatch.setattr(manager, "_info", deleting)
            with pytest.raises(Refusal, match="there is no subscription 's'"):
                await manager.finish(manager.add(active, paths))
            assert manager._linked == {}
            assert store.engine.watermarks.listeners == ()
            await manager.stop(10)

    asyncio.run(work())


def test_ten_thousand_streams_of_one_pattern_are_told_of_a_thousand_at_a_time(at_work: World):
    many = 10_000
    for number in range(many):
        at_work.store.create(f"events/{number}", content_type="text/plain", data=b"old")
    with Receiver(DONE) as receiver:
        at_work.hook("s", receiver.url)
        assert set(at_work.cursors("s").values()) == {3}
        began = time.perf_counter()
        for number in range(many):
            at_work.store.stream(f"events/{number}").append(b"x")
        appended = time.perf_counter() - began
        soon(lambda: set(at_work.cursors("s").values()) == {4}, "all acks")
    assert appended < 60, f"{appended:.1f} s for {many} appends"
    told = [[each["path"] for each in delivery.wake["streams"]] for delivery in receiver.deliveries]
    assert max(map(len, told)) <= machine.STREAMS_MAX
    assert {path for paths in told for path in paths} == {f"events/{number}" for number in range(many)}
