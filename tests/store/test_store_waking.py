"""Tasks that use streams which are not in memory: they gather, one job loads them all, and the loop reads no file."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from twins import SMALL, Barrier, Clock, Task, TwinDirectory, open_store, until

from durable_log import _loop, aio
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.run_format import hash_of
from durable_log.errors import Corruption, StoreClosed, StreamGone, StreamNotFound
from durable_log.model import Append, Delete, Producer
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
NAMES = [f"s{number:04}" for number in range(1000)]


@pytest.fixture(scope="module")
def written() -> MemoryDirectory:
    """A closed store of a thousand streams."""
    directory = MemoryDirectory()
    with open_store(directory, replace(CALM, segment_bytes=2**20), Clock()) as store:
        fork = store.create("forked", data=b"f")
        for name in NAMES:
            store.create(name, content_type="text/plain", data=name)
        store.create("fork", fork_of=fork.name)
    return directory


class Reads:
    """Which threads read files, and how often streams were loaded."""

    def __init__(self, twin: TwinDirectory, store: Store) -> None:
        self.threads: set[int] = set()
        self.jobs: list[list[str]] = []
        for what in ("read", "source"):
            twin.hooks[what] = self._noted
        load = store.engine.load
        store.engine.load = lambda names: self.jobs.append(list(names)) or load(names)

    def _noted(self, proceed: Callable[[], Any]) -> Any:
        self.threads.add(threading.get_ident())
        return proceed()


@pytest.fixture
def twin(written: MemoryDirectory) -> TwinDirectory:
    """A copy of it."""
    directory = MemoryDirectory()
    for name in written.names():
        directory.files[name] = written.files[name].linked()
        directory.files[name]._bytes = bytearray(written.files[name]._bytes)
    return TwinDirectory(directory)


@pytest.fixture
def store(twin: TwinDirectory) -> Iterator[Store]:
    with open_store(twin, CALM, Clock()) as opened:
        assert opened.stats()["resident_streams"] == 0
        yield opened
        twin.hooks.clear()


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 30))


def let_all_go(store: Store) -> None:
    """Have nothing in memory that needs not be there."""
    store.engine.upkeep.cluster()
    catalog = store.engine._catalog
    with store.engine._committer.exclusive(), catalog.lock:
        for state in list(catalog._idle):
            if not state.pins:
                del catalog._idle[state]
                catalog._resident.leave(state)
                catalog._pin(state, -1)


# --- a thousand at once


def test_a_thousand_tasks_wake_a_thousand_streams_in_a_job_or_two(twin, store):
    reads, face = Reads(twin, store), aio.AsyncStore.of(store)

    async def main() -> int:
        await asyncio.gather(*(face.stream(name).append("x") for name in NAMES))
        return threading.get_ident()

    loop_thread = run(main())
    assert sorted(name for job in reads.jobs for name in job) == NAMES
    assert len(reads.jobs) <= 2
    assert reads.threads
    assert not reads.threads & {loop_thread, store.engine._committer._thread.ident}
    assert store.stats()["commits"] < 100
    assert all(store.stream(name).read().data == name.encode() + b"x" for name in NAMES[::50])


def test_the_first_of_very_many_do_not_wait_for_the_last(twin, store, monkeypatch):
    monkeypatch.setattr(_loop, "LOADED_AT_ONCE", 64)
    reads, face = Reads(twin, store), aio.AsyncStore.of(store)

    async def main() -> None:
        await asyncio.gather(*(face.stream(name).append("x") for name in NAMES))
        assert not face.port().waiting

    run(main())
    assert [len(job) for job in reads.jobs] == [64] * 15 + [40]


def test_nothing_that_a_loop_asks_of_a_stream_reads_a_file_on_it(twin, store):
    face, asked = aio.AsyncStore.of(store), iter(NAMES)

    async def main() -> None:
        stream = lambda: face.stream(next(asked))  # noqa: E731 - each is another one
        assert (await stream().info()).tail == 5
        await stream().touch()
        assert await stream().wait(0) is True
        assert (await stream().read()).data == b"s0003"
        assert (await stream().trim(3)) == 3
        await stream().delete()
        await stream().close()
        await stream().append_many(["a", "b"])
        assert await anext(stream().follow()) is not None
        await face.delete(next(asked))
        await face.commit(Append(next(asked), b"x"))
        await face.append_in_order(Append(next(asked), b"x", Producer("p", 0, 0)), 0.0)
        await face.commit(Delete(next(asked)))
        await face.create("fork 2", fork_of=next(asked), fork_at=2)
        assert len(await face.names()) == 1000
        assert (await face.stream("fork").info()).fork_of == "forked"
        waiting = asyncio.ensure_future(stream().wait(5))
        await asyncio.to_thread(until, lambda: store.stats()["watched_streams"] == 1, "the wait")
        waiting.cancel()
        assert threading.get_ident() not in reads.threads

    reads = Reads(twin, store)
    run(main())


def test_where_a_message_begins_is_not_looked_for_on_the_loop():
    """The bytes are in memory still, but where their records begin is in a clustered segment by now."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("j", content_type="application/json").append_many(["1", "2", "3"])
        store.engine.upkeep.cluster()
        reads, face = Reads(twin, store), aio.AsyncStore.of(store)

        async def main() -> None:
            assert (await face.stream("j").read(2)).items == [2, 3]
            assert threading.get_ident() not in reads.threads

        run(main())
        assert reads.threads


def test_what_is_in_memory_is_not_waited_for(twin, store):
    reads, face = Reads(twin, store), aio.AsyncStore.of(store)

    async def main() -> None:
        await face.stream(NAMES[0]).info()
        for _ in range(5):
            await face.stream(NAMES[0]).info()
            await face.stream(NAMES[0]).append("x")

    run(main())
    assert reads.jobs == [[NAMES[0]]]


# --- what is not there


def test_a_stream_that_is_not_there_is_not_found_and_a_life_that_is_over_is_gone(store):
    face = aio.AsyncStore.of(store)

    async def main() -> None:
        stream = face.stream("none")
        for refused in (
            stream.info(), stream.touch(), stream.append("x"), stream.read(), stream.wait(0), stream.delete(),
            stream.close(), face.commit(Append("none", b"x")), face.append_in_order(Append("none", b"x"), 1.0),
        ):  # fmt: skip
            with pytest.raises(StreamNotFound):
                await refused
        for gone in (stream.read(number=1), stream.wait(0, number=1)):
            with pytest.raises(StreamGone):
                await gone
        number = (await face.stream(NAMES[0]).info()).number
        await face.delete(NAMES[0])
        await face.create(NAMES[0], content_type="text/plain")
        let_all_go(store)
        with pytest.raises(StreamGone):
            await face.stream(NAMES[0]).wait(0, number=number)
        let_all_go(store)
        with pytest.raises(StreamGone):
            await face.stream(NAMES[0]).read(number=number)

    run(main())


def test_a_damaged_page_fails_those_on_it_and_nobody_else(twin, store):
    run_ = store.engine._catalog.runs[0]
    position = run_.extent(run_.pages // 2)[0]
    twin.inner.files[run_.file.name]._bytes[position + 50] ^= 1
    on_it = {name for name in NAMES if run_.extent(run_._candidates(hash_of(name))[1])[0] == position}
    assert 0 < len(on_it) < 100
    face = aio.AsyncStore.of(store)

    async def main() -> list[Any]:
        return await asyncio.gather(*(face.stream(name).append("x") for name in NAMES), return_exceptions=True)

    results = dict(zip(NAMES, run(main()), strict=True))
    assert {name for name, result in results.items() if isinstance(result, Corruption)} == on_it
    assert all(results[name].next_offset == 6 for name in NAMES if name not in on_it)


def test_a_disk_that_fails_is_said_to_all_who_wait_for_it(twin, store):
    face = aio.AsyncStore.of(store)
    inner = store.engine._catalog.runs[0].file._inner
    inner.source = lambda: (-1, None)

    async def main() -> list[Any]:
        return await asyncio.gather(*(face.stream(name).info() for name in NAMES[:9]), return_exceptions=True)

    assert {type(result).__name__ for result in run(main())} == {"StoreUnreadable"}
    del inner.source
    assert store.stream(NAMES[0]).info().tail == 5


# --- order


@pytest.mark.parametrize("cap", [1, 1024])
def test_appends_to_an_idle_stream_are_stored_in_the_order_of_their_calls(store, monkeypatch, cap):
    """Whether they waited for it, came while those were woken up, or found it in memory."""
    monkeypatch.setattr(_loop, "LOADED_AT_ONCE", cap)
    face, order, tasks = aio.AsyncStore.of(store), [], []

    async def append(stream: aio.AsyncStream) -> None:
        order.append(b"%d;" % len(order))
        await stream.append(order[-1])

    async def main() -> None:
        streams = [face.stream(name) for name in (NAMES[0], "forked")]
        for turn in range(300):
            tasks.append(asyncio.ensure_future(append(streams[0])))
            if turn % 3:
                tasks.append(asyncio.ensure_future(streams[1].append(b"y")))
            if turn % 40 < 20:
                await asyncio.sleep(0)
            if turn % 100 == 99:
                await asyncio.gather(*tasks)
                await asyncio.to_thread(let_all_go, store)
        await asyncio.gather(*tasks)

    run(main())
    assert store.stream(NAMES[0]).read().data == NAMES[0].encode() + b"".join(order)


def test_who_comes_while_others_are_woken_up_goes_on_behind_them():
    """With an engine that loads nothing by itself: the stream is in memory once the first job has ended."""
    here, order = set[str](), list[int]()

    class Engine:
        def load(self, names: list[str]) -> dict[str, Exception]:
            here.update(names)
            return {}

    def question() -> None:
        if "a" not in here:
            raise BlockingIOError

    async def main() -> None:
        port = _loop.LoopPort(asyncio.get_running_loop(), Engine())

        async def ask(number: int) -> None:
            await port.ask("a", question)
            order.append(number)

        tasks = [asyncio.ensure_future(ask(0)), asyncio.ensure_future(ask(1))]
        await asyncio.to_thread(until, lambda: here, "the load")
        while len(tasks) < 30:
            tasks.append(asyncio.ensure_future(ask(len(tasks))))
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert order == list(range(30))
        await asyncio.sleep(0)
        assert not port.waiting
        assert not port._behind

    run(main())


# --- what happens amid it


def test_a_stream_that_is_let_go_before_its_task_goes_on_is_loaded_again(store):
    face, jobs, load = aio.AsyncStore.of(store), [], store.engine.load

    def load_in_vain(names: list[str]) -> Any:
        jobs.append(names)
        result = load(names)
        if len(jobs) < 4:
            let_all_go(store)
        return result

    store.engine.load = load_in_vain

    async def main() -> list[Any]:
        return await asyncio.gather(*(face.stream(name).info() for name in NAMES[:3] * 2))

    assert [info.tail for info in run(main())] == [5] * 6
    assert jobs == [NAMES[:3]] * 4


def test_an_append_that_waits_for_the_one_before_it_learns_that_the_stream_was_deleted():
    async def run() -> None:
        async with aio.open(":memory:") as store:
            stream = await store.create("s")
            append = Append("s", b"1", producer=Producer("p", 0, 1))
            waits = asyncio.create_task(store.append_in_order(append, 10))
            await asyncio.to_thread(until, lambda: store.stats()["watched_streams"] == 1, "the wait")
            await stream.delete()
            with pytest.raises(StreamNotFound):
                await waits

    asyncio.run(run())


def test_a_task_that_is_cancelled_while_it_waits_disturbs_nobody(twin, store):
    barrier, face = Barrier(), aio.AsyncStore.of(store)
    twin.hooks["source"] = barrier

    async def main() -> None:
        stream = face.stream(NAMES[0])
        tasks = [asyncio.ensure_future(stream.append(f"{number};")) for number in range(9)]
        alone = asyncio.ensure_future(face.stream(NAMES[1]).append("never"))
        await asyncio.to_thread(barrier.wait)
        late = asyncio.ensure_future(face.stream(NAMES[2]).append("late"))
        await asyncio.sleep(0)
        for task in (*tasks[::2], alone):
            task.cancel()
        twin.hooks.clear()
        barrier.let_go()
        results = await asyncio.gather(*tasks, alone, late, return_exceptions=True)
        assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 4 + [
            True, True, False,
        ]  # fmt: skip
        assert (await stream.read()).data == b"s00001;3;5;7;"
        assert (await face.stream(NAMES[1]).info()).tail == 5
        await face.stream(NAMES[1]).append("x")
        assert not face.port().waiting

    run(main())


def test_tasks_that_wait_for_a_stream_when_the_store_closes_are_told(twin):
    store, barrier = open_store(twin, CALM, Clock()), Barrier()
    face = aio.AsyncStore.of(store)
    twin.hooks["source"] = barrier

    async def main() -> None:
        tasks = [asyncio.ensure_future(face.stream(name).append("x")) for name in NAMES[:9]]
        await asyncio.to_thread(barrier.wait)
        later = asyncio.ensure_future(face.stream(NAMES[99]).append("x"))
        await asyncio.sleep(0)
        await face.close()
        # What C reads from here on is of files that are closed.
        store.engine._catalog.runs[0].file._inner.source = lambda: (-1, None)
        barrier.let_go()
        results = await asyncio.gather(*tasks, later, return_exceptions=True)
        assert {type(result) for result in results} == {StoreClosed}
        with pytest.raises(StoreClosed):
            await face.stream(NAMES[200]).info()
        assert not face.port().waiting

    run(main())


@pytest.mark.parametrize("round_", range(5))
def test_a_store_that_closes_while_thousands_wake_up_ends_well(twin, round_):
    store = open_store(twin, CALM, Clock())
    face, done = aio.AsyncStore.of(store), []

    async def write(name: str) -> None:
        with contextlib.suppress(StoreClosed):
            await face.stream(name).append("x")
            done.append(name)

    async def main() -> None:
        tasks = [asyncio.ensure_future(write(name)) for name in NAMES]
        await asyncio.to_thread(until, lambda: len(done) >= 200 * round_, "some of them")
        await face.close()
        await asyncio.gather(*tasks)

    run(main())
    with open_store(twin, CALM, Clock()) as again:
        for name in done[:: len(done) // 20 + 1]:
            assert again.stream(name).read().data == name.encode() + b"x"


def test_several_loops_wake_the_same_streams(store):
    face = aio.AsyncStore.of(store)

    async def work(writer: int) -> None:
        names = NAMES[:200] if writer % 2 else NAMES[:200][::-1]
        await asyncio.gather(*(face.stream(name).append(f"{writer};") for name in names))

    for task in [Task(run, work(writer)) for writer in range(4)]:
        task.result(30)
    for name in NAMES[:200]:
        assert sorted(store.stream(name).read().data[5:].split(b";")) == [b"", b"0", b"1", b"2", b"3"]
    store.engine.check()


def test_a_loop_that_is_closed_while_streams_are_loaded_for_it_hurts_nobody(twin, store):
    barrier, face, loop = Barrier(), aio.AsyncStore.of(store), asyncio.new_event_loop()
    twin.hooks["source"] = barrier

    async def begin() -> None:
        task = asyncio.ensure_future(face.stream(NAMES[0]).append("x"))
        await asyncio.to_thread(barrier.wait)
        task.cancel()

    loop.run_until_complete(begin())
    twin.hooks.clear()
    barrier.let_go()
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()

    async def main() -> None:
        await face.stream(NAMES[0]).append("y")
        assert loop not in face._ports

    run(main())
    assert store.stream(NAMES[0]).read().data == b"s0000y"


def test_a_loop_without_threads_says_so_instead_of_waiting_for_ever(store):
    face = aio.AsyncStore.of(store)

    async def main() -> list[Any]:
        await asyncio.get_running_loop().shutdown_default_executor()
        return await asyncio.gather(*(face.stream(name).info() for name in NAMES[:3]), return_exceptions=True)

    assert {type(result) for result in run(main())} == {RuntimeError}


def test_a_commit_that_wakes_a_stream_by_itself_still_can(store):
    """Synchronous callers and requests that were made by hand: the holder of the commit lock looks on disk."""
    store.engine.execute(Append(NAMES[0], b"x"))
    assert store.stream(NAMES[0]).append("y").next_offset == 7
    face = aio.AsyncStore.of(store)

    async def main() -> None:
        await face.submit(Append(NAMES[1], b"x"))
        assert (await face.create(NAMES[2], content_type="text/plain")).name == NAMES[2]

    run(main())
    assert store.stream(NAMES[1]).read().data == b"s0001x"
