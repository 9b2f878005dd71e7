"""Lost wake-ups, latches and interrupts: every request gets its answer, whatever happens to the others."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator

import pytest
from twins import Barrier, Clock, Task, TwinDirectory, copy_of, no_space, open_store, sync_error, until, write_error

from durable_log import aio
from durable_log.engine import commit
from durable_log.errors import CommitFailed, StoreClosed, StreamNotFound
from durable_log.model import Append, Delete, Options, Producer
from durable_log.store import Store


@pytest.fixture
def twin() -> TwinDirectory:
    return TwinDirectory()


@pytest.fixture
def store(twin: TwinDirectory) -> Iterator[Store]:
    opened = open_store(twin)
    yield opened
    twin.hooks.clear()
    Task(opened.close).result()


def staged(store: Store) -> int:
    return len(store.engine._committer._staging._queue)


def idle(store: Store) -> None:
    """Wait until the log's end is marked and the committer thread has nothing to do."""
    committer = store.engine._committer
    until(lambda: not committer._writer.unmarked and committer._due is None, "idleness")


class Port:
    """Collects what is delivered."""

    def __init__(self) -> None:
        self.results: list[object] = []

    def deliver(self, results: list[tuple[object, object]]) -> None:
        self.results += [result for _token, result in results]


def test_an_append_that_arrives_while_an_idle_log_is_marked_is_committed(store, twin):
    mark = twin.hooks["mark"] = Barrier()
    stream = store.create("a")
    mark.wait()
    append = Task(stream.append, b"x")
    until(lambda: staged(store), "the append's staging")
    mark.let_go()
    assert append.result().next_offset == 1


def test_an_append_that_arrives_while_written_data_is_synced_is_committed(store, twin):
    stream = store.create("a")
    sync = twin.hooks["sync"] = Barrier()
    stream.append(b"x", durability="written")
    sync.wait()
    append = Task(stream.append, b"y")
    until(lambda: staged(store), "the append's staging")
    sync.let_go()
    assert append.result().next_offset == 2
    assert stream.read().data == b"xy"


def test_an_append_that_arrives_in_the_last_moment_of_another_ones_commit_is_committed(store, twin):
    stream = store.create("a")
    for number in range(20):
        barrier = twin.hooks["commit"] = Barrier()
        first = Task(stream.append, b"1")
        barrier.wait()
        second = Task(stream.append, b"2")
        until(lambda: staged(store), "the append's staging")
        del twin.hooks["commit"]
        barrier.let_go()
        assert {first.result().next_offset, second.result().next_offset} == {2 * number + 1, 2 * number + 2}


def test_who_waits_behind_a_commit_that_is_interrupted_is_told(store, twin):
    stream = store.create("a")
    idle(store)
    barrier = Barrier()

    def interrupted(proceed):
        barrier(proceed)
        raise KeyboardInterrupt

    twin.hooks["commit"] = interrupted
    leader = Task(stream.append, b"x")
    barrier.wait()
    followers = [Task(stream.append, b"y") for _ in range(3)]
    until(lambda: staged(store) == 3, "staging")
    barrier.let_go()
    assert isinstance(leader.error(), KeyboardInterrupt)
    assert [type(follower.error()) for follower in followers] == [CommitFailed] * 3


def test_all_groups_that_wait_behind_an_unknown_error_are_told(store, twin, caplog):
    """More requests than one group takes: those of the second group must not wait for ever."""
    caplog.set_level(logging.CRITICAL, "durable_log")
    store.create("a")
    idle(store)
    port, count = Port(), 10_000

    def broken(_proceed):
        raise MemoryError

    twin.hooks["commit"] = broken
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)  # all of them are staged before the committer thread runs, as by a busy event loop
    try:
        for token in range(count):
            store.engine.submit(Append("a", b"x"), port, token)
    finally:
        sys.setswitchinterval(interval)
    until(lambda: len(port.results) == count, "the delivery of all results")
    assert all(isinstance(result, CommitFailed) for result in port.results)


def test_an_interrupt_at_any_call_of_an_append_leaves_a_store_that_answers(monkeypatch):
    """Signals arrive where a call begins or ends. Whatever the point: others get an answer, and the store closes."""
    monkeypatch.setattr(commit, "IDLE_SECONDS", 0.0)
    trouble, point = [], 0
    while interrupt_at(point, trouble):
        point += 1
    assert point > 10
    assert not trouble, "\n".join(map(str, trouble))


def interrupt_at(point: int, trouble: list[object]) -> bool:
    """Have the ``point``-th call inside an append interrupted. False if there is no such call.

    One follower is staged before it, one during its commit; another append and the close come after it.
    """
    twin = TwinDirectory()
    store = open_store(twin, Options(sweep_seconds=3600))
    stream = store.create("a", data=b"0")
    committer, seen, where, led = store.engine._committer, 0, "", False
    others: dict[bytes, Task] = {}
    idle(store)

    def tracer(frame, event, _argument):
        nonlocal seen, where, led
        if event == "call" and "/durable_log/engine/" in frame.f_code.co_filename:
            seen += 1
            led = led or frame.f_code.co_name == "_lead"
            if seen == point + 1:
                where = frame.f_code.co_qualname
                raise KeyboardInterrupt

    def joined(proceed):
        twin.hooks.clear()
        others[b"g"] = Task(stream.append, b"g")
        until(lambda: staged(store), "the second follower's staging")
        return proceed()

    def append() -> bool:
        sys.settrace(tracer)
        try:
            stream.append(b"i")
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    with committer._lock:
        others[b"f"] = Task(stream.append, b"f")
        until(lambda: staged(store), "the first follower's staging")
    twin.hooks["commit"] = joined
    interrupted = Task(append).result()
    if not led:
        committer.ring()  # for the first follower, whom nobody has seen yet
    stored = b"0" + settled({b"f": others.pop(b"f")}, trouble, (point, where))
    stored += settled(dict(others), trouble, (point, where))
    twin.hooks.clear()
    stored += settled({b"o": Task(stream.append, b"o")}, trouble, (point, where))
    stored += settled({b"": Task(store.close)}, trouble, (point, where))
    with open_store(copy_of(twin)) as reopened:
        found = reopened.stream("a").read().data
        if not (set(stored) <= set(found) and len(set(found)) == len(found)):
            trouble.append((point, where, stored, found))
    return interrupted


def settled(tasks: dict[bytes, Task], trouble: list[object], where: tuple[int, str]) -> bytes:
    """What of these appends was acknowledged. Trouble is a task that hangs or fails as it must not."""
    stored = b""
    for data, task in list(tasks.items()):
        task._thread.join(2)
        if not task.done:
            trouble.append((*where, data))
        elif task.error() is None:
            stored += data
        elif not isinstance(task.error(), CommitFailed | StoreClosed):
            trouble.append((*where, data, task.error()))
    return stored


def test_a_use_that_is_noted_while_the_store_latches_does_not_keep_it_busy(twin):
    """A reader looks at the failure, the store latches, the reader notes its touch: nothing takes it any more."""
    clock = Clock()
    store = open_store(twin, clock=clock)
    store.create("a", ttl=1000)
    state = store.engine._catalog.get("a")

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            store.engine._committer.save_use(state)

    reader = Reader()
    log = logging.getLogger("durable_log")
    log.addHandler(reader)
    try:
        twin.hooks["commit"] = write_error
        port = Port()
        store.engine.submit(Append("a", b"x"), port, 1)
        until(lambda: port.results, "the refusal")
    finally:
        log.removeHandler(reader)
    committer = store.engine._committer
    try:
        until(committer._lock.attempt, "the committer thread's letting go of the lock")
    finally:
        committer._touches = {}
    committer._lock.let_go()
    store.close()


def test_the_sync_that_failed_is_the_last_call_on_its_file_even_while_closing(monkeypatch):
    monkeypatch.setattr(commit, "WRITTEN_SECONDS_MAX", 3600.0)
    clock, twin = Clock(), TwinDirectory()
    store = open_store(twin, Options(sweep_seconds=3600), clock)
    stream = store.create("a", ttl=10_000)
    stream.append(b"written", durability="written")
    clock.now += 1
    stream.read()
    assert stream.info().tail == 0
    twin.hooks["commit"] = sync_error
    twin.calls.clear()
    assert isinstance(Task(store.close).error(), CommitFailed)
    calls = [what for what, _name in twin.calls if what in ("commit", "mark", "sync", "write")]
    assert calls == ["commit"]


def test_nothing_of_a_failed_sync_is_shown_while_closing(monkeypatch):
    monkeypatch.setattr(commit, "WRITTEN_SECONDS_MAX", 3600.0)
    twin = TwinDirectory()
    store = open_store(twin, Options(sweep_seconds=3600))
    stream = store.create("a")
    stream.append(b"written", durability="written")
    states = store.engine._catalog.get("a")
    lock = store.engine._committer._lock
    lock.acquire()
    port = Port()
    store.engine.submit(Append("a", b"failed"), port, 1)
    closing = Task(store.close)
    until(lambda: store.engine._committer._stopping, "the stop")
    twin.hooks["commit"] = sync_error
    lock.let_go()
    assert isinstance(closing.error(), CommitFailed)
    assert [type(result) for result in port.results] == [CommitFailed]
    assert states.durable == 0


def test_after_closing_a_latched_store_all_operations_say_that_it_is_closed_or_failed(twin):
    store = open_store(twin, Options(recent_bytes_max=1))
    stream = store.create("a", data=b"content")
    twin.hooks["commit"] = write_error
    with pytest.raises(CommitFailed):
        stream.append(b"x")
    assert stream.read().data == b"content"
    store.close()
    for operation in (stream.read, stream.info, lambda: list(store.names()), lambda: stream.wait(0)):
        with pytest.raises((StoreClosed, CommitFailed)):
            operation()
    with pytest.raises((StoreClosed, CommitFailed)):
        stream.append(b"y")


def test_a_read_that_is_under_way_while_the_store_closes_says_so(tmp_path):
    from durable_log.engine.files import DiskDirectory

    twin = TwinDirectory(DiskDirectory(tmp_path / "store"))
    store = open_store(twin, Options(recent_bytes_max=1, cluster_at_close=False))
    stream = store.create("a", data=b"content")
    barrier = twin.hooks["read"] = Barrier()
    read = Task(stream.read)
    barrier.wait()
    closing = Task(store.close)
    until(lambda: closing.done or store.engine._committer.failure, "the close")
    until(lambda: closing.done or ("close", "00000001.log") in twin.calls, "the close")
    barrier.let_go()
    closing.result()
    error = read.error()
    assert error is None or isinstance(error, StoreClosed), error


def test_refusals_do_not_pile_up_what_they_refused(store):
    """One exception object that is raised again and again keeps every frame it passed, and the data in them."""

    store.create("a")
    store.close()
    for _ in range(20):
        with pytest.raises(StoreClosed) as caught:
            store.engine.execute(Append("a", b"x" * 10))
    length, trace = 0, caught.value.__traceback__
    while trace is not None:
        length, trace = length + 1, trace.tb_next
    assert length < 15


def test_a_loop_that_moves_to_another_thread_keeps_its_futures_apart(store):
    """Loop A runs on thread 1, then on thread 2; loop B then runs on thread 1."""
    face = aio.AsyncStore.of(store)
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    barrier = Barrier()

    async def create(name: str) -> None:
        await face.create(name)

    async def hold() -> None:
        barrier.reached.set()
        await asyncio.to_thread(barrier._free.wait, 10)

    try:
        first.run_until_complete(create("one"))
        moved = Task(first.run_until_complete, hold())
        barrier.wait()
        second.run_until_complete(create("two"))
        barrier.let_go()
        moved.result()
    finally:
        barrier.let_go()
        first.close()
        second.close()


def test_no_false_refusal_survives_a_group_that_had_no_room(store, twin):
    """An append behind a close in one group is refused as closed; if the close had no room, it was never closed."""
    stream = store.create("a")
    twin.hooks["commit"] = no_space
    port, committer = Port(), store.engine._committer
    with committer._lock:
        store.engine.submit(Append("a", b"", close=True), port, 1)
        store.engine.submit(Append("a", b"x"), port, 2)
        store.engine.submit(Append("a", b"x", Producer("p", 2, 0)), port, 3)
        store.engine.submit(Append("a", b"x", Producer("p", 1, 0)), port, 4)
    until(lambda: len(port.results) == 4, "the results")
    assert [type(result).__name__ for result in port.results] == ["StoreFull"] * 4
    del twin.hooks["commit"]
    assert stream.append(b"x").offset == 0


def test_a_deletion_beside_what_had_no_room_still_happens(store, twin):
    store.create("a")
    store.create("b")
    engine, port = store.engine, Port()

    def refuse_data(proceed):
        del twin.hooks["commit"]
        return no_space(proceed)

    twin.hooks["commit"] = refuse_data
    with engine._committer._lock:
        engine.submit(Append("a", b"x"), port, 1)
        engine.submit(Delete("b"), port, 2)
    until(lambda: len(port.results) == 2, "the results")
    assert [type(result).__name__ for result in port.results] == ["StoreFull", "NoneType"]
    with pytest.raises(StreamNotFound):
        store.stream("b").info()
