"""Whoever listens to commits hears of each change once it is durable, in order, and costs nothing when nobody does."""

from __future__ import annotations

import asyncio

import pytest

import durable_log
from durable_log import aio
from durable_log.model import Change


class Ears:
    """A listener of the engine."""

    def __init__(self) -> None:
        self.heard: list[tuple[list[tuple[str, int]], list[str], list[str]]] = []

    def changed(self, moved, created, removed) -> None:
        tails = sorted((state.name, state.durable) for state in moved)
        self.heard.append((tails, [state.name for state in created], [state.name for state in removed]))


def test_a_commit_is_told_once_with_all_that_it_has_made_durable():
    with durable_log.open(":memory:") as store:
        ears = Ears()
        store.engine.watermarks.listen(ears)
        stream = store.create("a", content_type="text/plain", data=b"xy")
        stream.append(b"z")
        stream.close()
        stream.delete()
        assert ears.heard == [([("a", 2)], ["a"], []), ([("a", 3)], [], []), ([("a", 3)], [], []), ([], [], ["a"])]
        store.engine.watermarks.ignore(ears)
        store.create("b")
        assert len(ears.heard) == 4


def test_what_was_refused_is_not_told():
    with durable_log.open(":memory:") as store:
        store.create("a", content_type="text/plain").close()
        ears = Ears()
        store.engine.watermarks.listen(ears)
        with pytest.raises(durable_log.StreamClosed):
            store.stream("a").append(b"x")
        assert [tails or created or removed for tails, created, removed in ears.heard] in ([], [[]])


def test_a_feed_tells_of_lives_in_their_order_and_of_changes_by_any_thread():
    async def listen() -> list[Change]:
        async with aio.open(":memory:") as store:
            heard: list[Change] = []
            stop = store.listen(heard.extend)
            sync = durable_log.Store(store.engine)

            def work() -> None:
                sync.create("a", content_type="text/plain", data=b"12").append(b"3")
                sync.create("fork", fork_of="a", fork_at=2)
                sync.delete("a")
                sync.create("b")
                sync.delete("b")
                sync.create("b", data=b"x")

            await asyncio.to_thread(work)
            await (await store.create("end")).close()
            assert heard[-1].name == "end"
            stop()
            await store.create("after")
            await asyncio.sleep(0)
            return heard

    heard = asyncio.run(listen())
    assert [change.name for change in heard if change.created] == ["a", "fork", "b", "b", "end"]
    assert [(change.base, change.tail) for change in heard if change.name == "fork"] == [(2, 2)]
    assert {change.name for change in heard if change.gone} == {"a", "b"}
    lives = [change.number for change in heard if change.name == "b"]
    assert lives == sorted(lives)
    assert len(set(lives)) == 2
    assert [change.tail for change in heard if change.name == "b"][-1] == 1
    assert "after" not in [change.name for change in heard]


def test_whoever_appends_on_the_loop_finds_that_the_feed_has_heard_of_it():
    async def listen() -> None:
        async with aio.open(":memory:") as store:
            tails: dict[str, int] = {}
            store.listen(lambda changes: tails.update({change.name: change.tail for change in changes}))
            streams = [await store.create(f"{number}", content_type="text/plain") for number in range(8)]

            async def write(stream: aio.AsyncStream) -> None:
                for size in range(1, 50):
                    await stream.append(b"x")
                    assert tails[stream.name] >= size

            await asyncio.gather(*map(write, streams))

    asyncio.run(listen())


def test_a_feed_of_a_loop_that_is_closed_is_let_go():
    with durable_log.open(":memory:") as store:

        async def listen() -> None:
            aio.AsyncStore.of(store).listen(lambda _: None)

        asyncio.run(listen())
        assert len(store.engine.watermarks.listeners) == 1
        store.create("a")
        assert store.engine.watermarks.listeners == ()
