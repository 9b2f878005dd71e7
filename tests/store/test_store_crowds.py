"""Many at once: shared commits, one wake-up a commit, back-pressure, cancelling, closing amid it all."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from typing import Any

import pytest
from twins import Barrier, Task, TwinDirectory, open_store, until

import durable_log
from durable_log import aio
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.errors import StoreClosed
from durable_log.model import Append, Options, Producer


class Silent:
    """A port that nobody listens at."""

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        self.results = results


def test_threads_share_commits_and_each_keeps_its_order(tmp_path):
    threads, appends = 16, 40
    with durable_log.open(tmp_path) as store:
        streams = [store.create(f"{number}") for number in range(4)]
        before = store.stats()["commits"]

        def work(number: int) -> None:
            for turn in range(appends):
                streams[number % 4].append(b"%d:%d;" % (number, turn))

        for task in [Task(work, number) for number in range(threads)]:
            task.result(30)
        stats = store.stats()
        assert stats["commits"] - before < threads * appends
        for stream in streams:
            check_order(stream.read().data, 4, appends)


def check_order(content: bytes, writers: int, appends: int) -> None:
    found: dict[int, list[int]] = {}
    for record in content.split(b";")[:-1]:
        writer, turn = record.split(b":")
        found.setdefault(int(writer), []).append(int(turn))
    assert len(found) == writers
    assert all(turns == list(range(appends)) for turns in found.values())


def test_what_waits_while_a_commit_runs_is_one_commit():
    twin = TwinDirectory()
    with open_store(twin) as store:
        stream = store.create("a")
        barrier = twin.hooks["commit"] = Barrier()
        first = Task(stream.append, b"0")
        barrier.wait()
        rest = [Task(stream.append, b"x") for _ in range(50)]
        until(lambda: len(store.engine._committer._staging._queue) == 50, "staging")
        before = store.stats()["commits"]
        barrier.let_go()
        for task in [first, *rest]:
            task.result()
        assert store.stats()["commits"] - before == 2


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often other threads wake it."""

    wakeups = 0

    def call_soon_threadsafe(self, callback: Any, *arguments: Any, **named: Any) -> Any:
        self.wakeups += 1
        return super().call_soon_threadsafe(callback, *arguments, **named)


def test_a_thousand_tasks_share_commits_and_a_loop_is_woken_once_a_commit():
    twin = TwinDirectory()
    store = open_store(twin)
    face, loop = aio.AsyncStore.of(store), CountingLoop()

    async def main() -> None:
        streams = [await face.create(f"{number}") for number in range(10)]
        followed = [asyncio.ensure_future(follow(face, f"{number}")) for number in range(10)]
        await asyncio.to_thread(until, lambda: store.stats()["watched_streams"] == 10, "the wait of all")
        commits, wakeups = store.stats()["commits"], loop.wakeups
        appends = [streams[number % 10].append(b"%d;" % number) for number in range(1000)]
        await asyncio.gather(*appends)
        commits, wakeups = store.stats()["commits"] - commits, loop.wakeups - wakeups
        assert commits < 100
        assert wakeups <= commits
        await asyncio.gather(*(stream.close() for stream in streams))
        assert all(b"".join(pieces).count(b";") == 100 for pieces in await asyncio.gather(*followed))

    try:
        loop.run_until_complete(asyncio.wait_for(main(), 20))
    finally:
        loop.close()
        store.close()


async def follow(face: aio.AsyncStore, name: str) -> list[bytes]:
    return [chunk.data async for chunk in face.stream(name).follow()]


def test_a_wake_up_is_one_for_appends_and_followers_of_the_same_commit():
    store, loop = open_store(MemoryDirectory()), CountingLoop()
    face = aio.AsyncStore.of(store)

    async def main() -> None:
        stream = await face.create("a")
        waiting = [asyncio.ensure_future(stream.wait(0)) for _ in range(20)]
        await asyncio.to_thread(
            until, lambda: len(store.engine._catalog.get("a").watchers or []) == 20, "the wait of all"
        )
        before = loop.wakeups
        await stream.append(b"x")
        await asyncio.gather(*waiting)
        assert loop.wakeups - before == 1

    try:
        loop.run_until_complete(asyncio.wait_for(main(), 20))
    finally:
        loop.close()
        store.close()


def test_two_loops_and_a_thread_share_one_store():
    with open_store(MemoryDirectory()) as store:
        face, stream = aio.AsyncStore.of(store), store.create("a")

        async def work(writer: int) -> None:
            for turn in range(100):
                await face.stream("a").append(b"%d:%d;" % (writer, turn))

        tasks = [Task(asyncio.run, work(writer)) for writer in range(2)]
        for turn in range(100):
            stream.append(b"2:%d;" % turn)
        for task in tasks:
            task.result()
        check_order(stream.read().data, 3, 100)


def test_a_loop_that_is_closed_while_its_appends_are_under_way_hurts_nobody():
    twin = TwinDirectory()
    with open_store(twin) as store:
        stream, barrier, loop = store.create("a"), Barrier(), asyncio.new_event_loop()
        face = aio.AsyncStore.of(store)
        twin.hooks["commit"] = barrier

        async def abandon() -> None:
            asyncio.ensure_future(face.stream("a").append(b"abandoned"))  # noqa: RUF006 - abandoned is what it shall be
            await asyncio.sleep(0.01)

        loop.run_until_complete(abandon())
        barrier.wait()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        barrier.let_go()
        stream.append(b" and on")
        assert stream.read().data == b"abandoned and on"


def test_an_append_that_is_cancelled_and_sent_again_is_stored_once():
    twin = TwinDirectory()
    store = open_store(twin)
    face = aio.AsyncStore.of(store)

    async def main() -> None:
        stream = await face.create("a")
        for seq in range(20):
            barrier = twin.hooks["commit"] = Barrier()
            append = asyncio.ensure_future(stream.append(b"%d;" % seq, producer=Producer("p", 0, seq)))
            if seq % 3:
                await asyncio.to_thread(barrier.wait)
            append.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await append
            del twin.hooks["commit"]
            barrier.let_go()
            await stream.append(b"%d;" % seq, producer=Producer("p", 0, seq))
        assert (await stream.read()).data == b"".join(b"%d;" % seq for seq in range(20))

    try:
        asyncio.run(asyncio.wait_for(main(), 20))
    finally:
        store.close()


@pytest.mark.parametrize("staged_bytes_max", [1, 200, 5000])
def test_threads_get_through_a_store_that_takes_little_at_once(staged_bytes_max):
    with open_store(MemoryDirectory(), Options(staged_bytes_max=staged_bytes_max)) as store:
        stream = store.create("a")

        def work(writer: int) -> None:
            for turn in range(50):
                stream.append(b"%d:%d;" % (writer, turn))

        for task in [Task(work, writer) for writer in range(8)]:
            task.result(30)
        check_order(stream.read().data, 8, 50)


@pytest.mark.parametrize("staged_bytes_max", [1, 200, 5000])
def test_tasks_get_through_a_store_that_takes_little_at_once(staged_bytes_max):
    store = open_store(MemoryDirectory(), Options(staged_bytes_max=staged_bytes_max))
    face = aio.AsyncStore.of(store)

    async def work(writer: int) -> None:
        for turn in range(50):
            await face.stream("a").append(b"%d:%d;" % (writer, turn))

    async def main() -> None:
        await face.create("a")
        await asyncio.gather(*(work(writer) for writer in range(20)))
        check_order((await face.stream("a").read()).data, 20, 50)

    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        store.close()


@pytest.mark.parametrize("staged_bytes_max", [1, 3000, 64 * 2**20])
def test_appends_that_are_sent_without_waiting_are_stored_in_the_order_of_their_calls(staged_bytes_max):
    """A large one that finds no room is not overtaken by small ones behind it."""
    store, chance = open_store(MemoryDirectory(), Options(staged_bytes_max=staged_bytes_max)), random.Random(3)
    face = aio.AsyncStore.of(store)

    async def main() -> None:
        stream = await face.create("a")
        data = [b"%d:%s;" % (number, b"x" * chance.choice([0, 0, 500, 2500])) for number in range(300)]
        await asyncio.gather(*(stream.append(item) for item in data))
        assert (await stream.read()).data == b"".join(data)

    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        store.close()


def test_a_pipelining_producer_is_not_refused_for_want_of_room():
    store, chance = open_store(MemoryDirectory(), Options(staged_bytes_max=3000)), random.Random(4)
    face = aio.AsyncStore.of(store)

    async def main() -> None:
        stream = await face.create("a")
        appends = [stream.append(b"x" * chance.choice([1, 2500]), producer=Producer("p", 0, seq)) for seq in range(100)]
        await asyncio.gather(*appends)

    try:
        asyncio.run(asyncio.wait_for(main(), 30))
    finally:
        store.close()


def test_a_large_append_gets_its_turn_among_many_small_ones():
    with open_store(MemoryDirectory(), Options(staged_bytes_max=1000)) as store:
        stream, stop = store.create("a"), threading.Event()

        def hum() -> None:
            while not stop.is_set():
                stream.append(b"x" * 100)

        humming = [Task(hum) for _ in range(8)]
        large = Task(stream.append, b"y" * 2000)
        try:
            large.result()
        finally:
            stop.set()
        for task in humming:
            task.result()


def test_who_waits_for_room_when_the_store_closes_is_refused():
    twin = TwinDirectory()
    store = open_store(twin, Options(staged_bytes_max=1))
    stream = store.create("a")
    barrier = twin.hooks["commit"] = Barrier()
    first = Task(stream.append, b"1")
    barrier.wait()
    waiting = [Task(stream.append, b"2") for _ in range(3)]
    face = aio.AsyncStore.of(store)

    async def append() -> None:
        await face.stream("a").append(b"3")

    tasks = [Task(asyncio.run, append()) for _ in range(3)]
    until(lambda: len(store.engine._committer._staging._line) == 6, "the wait of all")
    closing = Task(store.close)
    barrier.let_go()
    first.error()
    closing.result()
    for task in (*waiting, *tasks):
        assert task.error() is None or isinstance(task.error(), StoreClosed)


@pytest.mark.parametrize("round_", range(6))
def test_an_append_beside_a_close_is_either_stored_or_refused(tmp_path, round_):
    path = tmp_path / "store"
    twin = TwinDirectory(DiskDirectory(path))
    store = open_store(twin)
    face, streams = aio.AsyncStore.of(store), [store.create(f"{number}") for number in range(8)]
    acknowledged: dict[str, int] = {stream.name: 0 for stream in streams}

    def by_thread(name: str) -> None:
        with contextlib.suppress(StoreClosed):
            while True:
                store.stream(name).append(b"x")
                acknowledged[name] += 1

    async def by_task(name: str) -> None:
        with contextlib.suppress(StoreClosed):
            while True:
                await face.stream(name).append(b"x", durability="written" if round_ % 2 else "sync")
                acknowledged[name] += 1

    async def by_tasks() -> None:
        await asyncio.gather(*(by_task(f"{number}") for number in range(4)))

    tasks = [Task(asyncio.run, by_tasks()), *(Task(by_thread, f"{number}") for number in range(4, 8))]
    until(lambda: min(acknowledged.values()) > 3 * round_, "the appends of all")
    closing = [Task(store.close), Task(store.close)]
    for task in (*closing, *tasks):
        task.result()
    with durable_log.open(path) as reopened:
        for name, count in acknowledged.items():
            assert count <= reopened.stream(name).info().tail <= count + 1
        assert not reopened.report.cut


def test_a_group_takes_no_more_than_it_may_and_nothing_is_lost_between_groups():
    with open_store(MemoryDirectory()) as store:
        stream, port = store.create("a"), Silent()
        with store.engine._committer._lock:
            for _ in range(10_000):
                store.engine.submit(Append("a", b"x"), port, None)
        assert stream.append(b"y").next_offset == 10_001
        stats = store.stats()
        assert stats["commits"] >= 3


def test_a_reader_sees_only_growing_prefixes_while_writers_write(tmp_path):
    options = Options(segment_bytes=64 * 1024, record_bytes_max=32 * 1024, recent_bytes_max=20_000)
    with durable_log.open(tmp_path, options=options) as store:
        stream, stop = store.create("a"), threading.Event()
        expected = b"".join(b"%07d;" % number for number in range(20_000))

        def look() -> int:
            looks = 0
            while not stop.is_set():
                chunk = stream.read(0)
                assert expected.startswith(chunk.data)
                assert chunk.next_offset % 8 == 0
                again = stream.read(max(0, chunk.next_offset - 16))
                assert expected[again.offset : again.next_offset] == again.data
                looks += 1
            return looks

        readers = [Task(look) for _ in range(3)]
        for start in range(0, 20_000, 100):
            stream.append(expected[start * 8 : (start + 100) * 8])
        stop.set()
        assert all(reader.result() for reader in readers)
        assert stream.read(limit=10**7).data == expected
