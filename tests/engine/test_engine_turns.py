"""Who gets the commit lock; and what a kill, or letting a stream go, may not take."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from twins import SMALL, Clock, Task, TwinDirectory, copy_of, open_store, until

from durable_log.engine import catalog
from durable_log.engine.turns import CommitLock

CALM = replace(
    SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False, cluster_at_close=False
)


def test_who_waits_for_the_commit_lock_is_seen_by_those_who_only_try():
    lock, done = CommitLock(), threading.Event()
    lock.acquire()

    def wait() -> None:
        with lock:
            done.set()

    guest = Task(wait)
    until(lock.wanted, "the guest's coming to the door")
    assert not done.is_set()
    lock.let_go()
    guest.result()
    assert (lock.wanted(), lock.attempt()) == (False, True)


def test_whoever_is_interrupted_when_the_lock_is_his_lets_go_of_it():
    lock = CommitLock()
    inner = lock._inner

    class Interrupted:
        def acquire(self) -> None:
            inner.acquire()
            raise KeyboardInterrupt

        release = inner.release

    lock._inner = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    lock._inner = inner
    assert (lock.is_mine(), lock.wanted()) == (False, False)
    assert Task(lock.attempt).result()


def test_a_fork_keeps_after_a_kill_what_its_source_gave_up_later():
    """Replay met the source with all of its trims, and gave them to the fork that was made before them."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        source = store.create("source", data=b"first")
        source.append(b"second")
        store.engine.upkeep.cluster()
        store.create("fork", fork_of="source")
        source.trim(5)
        killed = copy_of(twin)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("source").info().first == 5
        assert store.stream("fork").read().data == b"firstsecond"


def test_a_stream_whose_last_use_is_not_saved_is_not_let_go(monkeypatch):
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    clock = Clock()
    with open_store(TwinDirectory(), CALM, clock) as store:
        store.create("a", ttl=1000, data=b"x")
        store.engine.upkeep.cluster()
        clock.now += 10
        store.stream("a").read()
        with store.engine._committer.exclusive():
            gone, used = store.engine._catalog.evict()
        assert (gone, [state.name for state in used]) == ([], ["a"])


def test_a_kill_behind_a_checkpoint_is_no_good_end():
    """The log is empty then, and was taken for that of a store that had been closed."""
    twin, clock = TwinDirectory(), Clock()
    with open_store(twin, CALM, clock) as store:
        store.create("a", ttl=1000, data=b"x")
        store.engine.upkeep.cluster()
        killed = copy_of(twin)
    with open_store(killed, CALM, clock) as store:
        assert store.engine._catalog.crashed_at == clock.now
