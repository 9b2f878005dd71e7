"""An interrupt at any moment: no caller hangs, nothing is acknowledged that is not there, and the store opens again.

Python looks for signals where a function begins and behind every call into C, and nowhere else but where a loop begins
anew. The profiler is called at the same moments, and what it raises comes up as a signal's exception does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from twins import SMALL, Barrier, Clock, Interrupt, Task, TwinDirectory, copy_of, open_store, until

from durable_log.engine import catalog, checkpoint, compaction
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.log import LogEngine
from durable_log.engine.opening import open_in
from durable_log.engine.upkeep import Upkeep
from durable_log.errors import CommitFailed, StoreClosed
from durable_log.store import Store

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"  # generators are closed by the collector
)
STRIDE = int(os.environ.get("DURABLE_LOG_INTERRUPT_STRIDE", "0"))
"""1 tries every moment; 0 leaves out more of what has thousands of them."""
SECONDS_MAX = 5.0
CALM = replace(
    SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False, recent_bytes_max=1
)


def append(store: Store) -> None:
    store.stream("a").append(b"i")


def create(store: Store) -> None:
    store.create("new", data=b"i")


def fork(store: Store) -> None:
    store.create("new", fork_of="a", data=b"i")


def delete(store: Store) -> None:
    store.stream("gone").delete()


def trim(store: Store) -> None:
    store.stream("a").trim(3)


def read(store: Store) -> None:
    assert store.stream("cold").read().data == b"cold" * 100


def follow(store: Store) -> None:
    assert next(store.stream("cold").follow()).data == b"cold" * 100


def wait(store: Store) -> None:
    assert not store.stream("a").wait(store.stream("a").info().tail, timeout=0)


def cluster(store: Store) -> None:
    store.engine.upkeep.cluster()


def compact(store: Store) -> None:
    store.compact()


def close(store: Store) -> None:
    store.close()


def filled(twin: TwinDirectory) -> Store:
    store = open_store(twin, CALM, Clock())
    for name in ("a", "cold", "gone", "dead"):
        store.create(name, data=name.encode() * 100)
    store.engine.upkeep.cluster()
    store.delete("dead")
    store.stream("a").append(b"b")
    store.engine.upkeep.cluster()
    store.stream("a").append(b"c")
    store.create("warm", data=b"warm", ttl=1000)
    return store


SHORT = [append, create, fork, delete, trim, read, follow, wait]
LONG = [cluster, compact, close]


@pytest.mark.parametrize("work", [*SHORT, *LONG], ids=lambda work: work.__name__)
def test_an_interrupt_at_any_moment_leaves_a_store_that_answers_and_opens_again(work, monkeypatch):
    stride = STRIDE or (67 if work in LONG else 7)
    for module in (checkpoint, compaction):
        monkeypatch.setattr(module, "pause", lambda: None)
    hook, threading.excepthook = threading.excepthook, lambda _: None
    moment, trouble = 0, list[str]()
    try:
        while (found := interrupted(work, moment)) is not None:
            trouble += found
            moment += stride
    finally:
        threading.excepthook = hook
    assert moment > 10
    assert not trouble, f"{len(trouble)} of {moment // stride} moments\n" + "\n".join(trouble[:20])


def interrupted(work: Callable[[Store], None], moment: int) -> list[str] | None:
    """What goes wrong if the work is interrupted at that moment; None if it has no such moment."""
    twin = TwinDirectory()
    store = filled(twin)
    beside, interrupt = [Task(store.stream("a").append, b"f")], Interrupt(moment)
    try:
        was_interrupted = Task(interrupt.during, lambda: work(store)).result(SECONDS_MAX)
    except AssertionError as error:
        return [f"{interrupt.where}: {error}"]
    beside += [Task(store.stream("a").append, b"o"), Task(store.stream("a").append, b"p", durability="written")]
    trouble = [f"{interrupt.where}: {each}" for each in answers(beside)]
    ending = Task(store.close)
    trouble += [f"{interrupt.where}: closing: {each}" for each in answers([ending])]
    if not ending.done:
        return trouble
    acknowledged = {data for data, task in zip(b"fop", beside, strict=True) if task.done and task.error() is None}
    if not was_interrupted and work is append:
        acknowledged.add(ord("i"))
    with open_store(copy_of(twin), CALM, Clock()) as again:
        found = again.stream("a").read(4 if work is trim else 0).data.replace(b"a", b"")
        wrong = len(set(found)) < len(found) or not acknowledged <= set(found) or not found.startswith(b"bc")
        if wrong or again.report.damage or again.report.lost:
            trouble.append(f"{interrupt.where}: found {found!r}, acknowledged {bytes(acknowledged)!r}, {again.report}")
        if again.stream("cold").read().data != b"cold" * 100 or again.stream("warm").read().data != b"warm":
            trouble.append(f"{interrupt.where}: other streams differ")
        again.engine.check()
        again.compact()
        again.engine.check()
    return trouble if interrupt.left < 0 else None


def answers(tasks: list[Task]) -> list[str]:
    """Those of them that hang, or fail as they must not."""
    trouble = []
    for task in tasks:
        try:
            error = task.error(SECONDS_MAX)
        except AssertionError as hanging:
            trouble.append(str(hanging))
            continue
        if error is not None and not isinstance(error, CommitFailed | StoreClosed):
            trouble.append(repr(error))
    return trouble


# What is under way when it comes


def own_threads() -> set[int]:
    """Threads in the engine. One whose start was interrupted may stay before its first line for ever."""
    stacks = {ident: traceback.extract_stack(frame) for ident, frame in sys._current_frames().items()}
    return {
        ident
        for ident, stack in stacks.items()
        if any(each.name == "_run" and "engine" in each.filename for each in stack)
    }


def open_into(opened: list[LogEngine], directory: DiskDirectory) -> None:
    opened.append(open_in(directory, CALM, Clock()))


def test_an_opening_that_is_interrupted_leaves_nobody_who_writes_and_no_lock(tmp_path):
    """Whoever opens next would write the same files."""
    opened, moment, others = list[LogEngine](), 0, own_threads()
    filled(TwinDirectory(DiskDirectory(tmp_path / "filled"))).close()
    while not opened:
        path, interrupt = tmp_path / str(moment), Interrupt(moment)
        shutil.copytree(tmp_path / "filled", path)
        directory = DiskDirectory(path)
        with contextlib.suppress(RuntimeError):  # what a lock of Python's own makes of an interrupt
            interrupt.during(partial(open_into, opened, directory))
        if not opened:
            until(lambda: own_threads() <= others, f"the end of all threads ({interrupt.where})")
            with open_store(DiskDirectory(path), CALM, Clock()) as again:
                assert again.stream("cold").read().data == b"cold" * 100
        moment += STRIDE or 7
    opened[0].close()
    assert moment > 500


@pytest.mark.parametrize("which", ["committer", "keeper", "clusterer"])
def test_an_opening_that_can_start_no_thread_leaves_nobody_who_writes(which, monkeypatch):
    directory, start, others = MemoryDirectory(), threading.Thread.start, own_threads()

    def refusing(thread: threading.Thread) -> None:
        if which in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refusing)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            open_store(directory, CALM)
    assert own_threads() <= others
    with open_store(directory, CALM) as store:
        store.create("a", data=b"x")


def test_a_close_that_is_interrupted_under_a_commit_takes_no_file_from_it(monkeypatch):
    """The number of a file that is closed is that of the next one which anybody opens."""
    twin, barrier = TwinDirectory(), Barrier()
    store = filled(twin)
    twin.calls.clear()
    twin.hooks["commit"] = barrier
    commit = Task(store.stream("a").append, b"d")
    barrier.wait()

    join = threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if "committer" in thread.name:
            raise KeyboardInterrupt
        join(thread, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.close()
    assert not [name for what, name in twin.calls if what == "close" and name.endswith(".log")]
    barrier.let_go()
    assert commit.result().next_offset == 103
    store.close()
    with open_store(copy_of(twin), CALM, Clock()) as again:
        assert again.stream("a").read(100).data == b"bcd"


def has_waiters(store: Store, count: int) -> bool:
    return len(store.engine.watermarks) == count


@pytest.mark.parametrize("work", [append, delete, trim, close], ids=lambda work: work.__name__)
def test_whoever_waits_is_told_whatever_is_interrupted(work):
    moment, trouble, done = 0, list[str](), False
    while not done:
        store = filled(TwinDirectory())
        tails = {name: store.stream(name).info().tail for name in ("a", "gone", "cold")}
        waiting = [Task(store.stream(name).wait, tail) for name, tail in tails.items()]
        until(partial(has_waiters, store, 3), "the waits")
        interrupt = Interrupt(moment)
        done = not Task(interrupt.during, partial(work, store)).result(SECONDS_MAX)
        Task(store.close).error(SECONDS_MAX)
        for task in waiting:
            try:
                task.error(SECONDS_MAX)
            except AssertionError as hanging:
                trouble.append(f"{interrupt.where}: {hanging}")
        moment += STRIDE or (67 if work is close else 3)
    assert moment > 50
    assert not trouble, "\n".join(trouble[:20])


def look(store: Store) -> None:
    assert store.stream("cold").read().data == b"cold" * 100


def look_at_a_use(store: Store) -> None:
    assert store.stream("lasting").info().ttl == 1000


def evict(store: Store) -> None:
    committer = store.engine._committer
    with committer.attended(), committer.exclusive():
        store.engine._catalog.evict()


def listing(store: Store) -> None:
    assert len(list(store.names())) == 4


@pytest.mark.parametrize("work", [look, look_at_a_use, evict, listing], ids=lambda work: work.__name__)
def test_an_interrupt_while_streams_come_and_go_takes_nothing_from_them(work, monkeypatch):
    """A state that had come in half was let go in place of the one that took the appends."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    monkeypatch.setattr(Upkeep, "start", lambda _: None)
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for name in ("a", "cold", "gone"):
            store.create(name, data=name.encode() * 100)
        store.create("lasting", ttl=1000)
    moment, done = 0, False
    while not done:
        directory = copy_of(twin)
        with open_store(directory, CALM, Clock()) as store:
            if work is evict:
                look(store)
                look_at_a_use(store)
            interrupt = Interrupt(moment)
            done = not Task(interrupt.during, lambda: work(store)).result(SECONDS_MAX)
            Task(store.stream("lasting").read).result(SECONDS_MAX)
            cold = store.stream("cold")
            assert cold.append(b"one").next_offset == 403, interrupt.where
            evict(store)
            assert cold.append(b"two").next_offset == 406, interrupt.where
            assert cold.read(400).data == b"onetwo", interrupt.where
            assert list(store.names()) == ["a", "cold", "gone", "lasting"], interrupt.where
            store.engine.check()
        with open_store(directory, CALM, Clock()) as again:
            assert again.stream("cold").read(400).data == b"onetwo", interrupt.where
        moment += STRIDE or 1
    assert moment > 20
