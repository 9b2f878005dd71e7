"""Streams that come and go from memory: the catalog beside commits, readers and sweeps that are under way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twins import SMALL, Barrier, Clock, Task, TwinDirectory, copy_of, open_store, write_error

from durable_log.engine import catalog, reader
from durable_log.engine.commit import Committer
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.state import LET_GO
from durable_log.errors import StoreUnreadable

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)


def test_the_walk_of_invariants_waits_for_a_commit_that_is_under_way():
    """The keeper may sweep at any moment; what admission sees runs ahead of the disk meanwhile."""
    twin, barrier = TwinDirectory(), Barrier()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a")
        twin.hooks["commit"] = barrier
        deletion = Task(store.delete, "a")
        barrier.wait()
        walk = Task(store.engine.check)
        barrier.let_go()
        walk.result()
        deletion.result()


def test_a_use_that_a_crash_may_have_taken_is_given_back_after_a_clean_end_too():
    """Nobody looked the stream up between the crash and the clean end, so nothing on disk says more than before."""
    directory, clock = MemoryDirectory(), Clock()
    begin = clock.now
    with open_store(directory, CALM, clock) as store:
        store.create("a", ttl=1000, data=b"x")
    with open_store(directory, CALM, clock) as store:
        clock.now = begin + 100
        store.stream("a").read()  # noted, and not saved yet
        killed = copy_of(directory)
    with open_store(killed, CALM, clock) as store:
        store.create("b")
    with open_store(killed, CALM, clock) as store:
        clock.now = begin + 1050
        assert "a" in set(store.names())
        assert store.stream("a").read().data == b"x"


def test_a_store_that_is_closed_after_a_crash_is_not_taken_for_crashed_for_ever():
    """As long as some rows were older than a crash, each opening gave sliding TTLs one more interval."""
    directory, clock = MemoryDirectory(), Clock()
    begin = clock.now
    with open_store(directory, CALM, clock) as store:
        store.create("old", ttl=1000, data=b"x")
        store.create("used", ttl=1000, data=b"x")
        store.engine.upkeep.cluster()
        killed = copy_of(directory)
    clock.now = begin + 900
    for _ in range(3):
        with open_store(killed, CALM, clock) as store:
            assert store.engine._catalog.crashed_at == begin + 900
            store.stream("used").read()
        clock.now += 10
    with open_store(killed, CALM, clock) as store:
        assert store.engine._catalog.get("used").deadline == begin + 920 + 1000
        assert store.engine._catalog.get("old").deadline == begin + 125 + 1000
        assert set(store.names()) == {"old", "used"}
        clock.now = begin + 1126
        assert set(store.names()) == {"used"}
        killed = copy_of(killed)
    with open_store(killed, CALM, clock) as store:
        assert store.engine._catalog.crashed_at == clock.now


def test_a_stream_is_forgiven_once_for_a_crash(monkeypatch):
    """Not again each time that it is let go, with what it was forgiven in its row, and loaded anew."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    directory, clock = MemoryDirectory(), Clock()
    begin = clock.now
    with open_store(directory, CALM, clock) as store:
        store.create("a", ttl=1000, data=b"x")
        store.engine.upkeep.cluster()
        killed = copy_of(directory)
    clock.now = begin + 900
    with open_store(killed, CALM, clock) as store:
        for turn in range(4):
            store.create(f"b{turn}", data=b"x")
            store.stream("a").info()
            store.engine._catalog.change(store.engine._catalog.get("a"))
            store.engine.upkeep.cluster()
            store.engine.upkeep.sweep()
        assert store.engine._catalog.get("a").deadline == begin + 1000 + 125


def test_a_use_that_waits_to_be_written_is_not_lost_with_its_stream(monkeypatch):
    """Its stream leaves memory only once the use is in the log: else its row is older than the use is."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    monkeypatch.setattr(Committer, "start", lambda committer: None)  # its thread has not come to it yet
    clock = Clock()
    with open_store(MemoryDirectory(), CALM, clock) as store:
        store.create("a", ttl=100, data=b"x")
        store.engine.upkeep.cluster()
        clock.now += 70
        store.stream("a").read()
        store.engine.upkeep._sweep_resident()
        store.create("b")
        clock.now += 70
        assert store.stream("a").read().data == b"x"


def test_a_commit_that_can_not_read_a_stream_says_so_by_an_error_of_this_package():
    directory = TwinDirectory()
    with open_store(directory, CALM, Clock()) as store:
        store.create("a", data=b"x")
    with open_store(directory, CALM, Clock()) as store:
        directory.hooks["read"] = write_error
        for work in (lambda: store.delete("a"), lambda: store.stream("a").close(), lambda: store.create("a")):
            with pytest.raises(StoreUnreadable, match="Input/output error"):
                work()
        directory.hooks.clear()
        assert store.stream("a").read().data == b"x"


def test_a_stream_that_came_back_waits_to_expire_beside_what_is_left_of_its_last_stay(monkeypatch):
    """Two entries of the queue are then alike but for their states, which have no order: sweeps failed."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    clock = Clock()
    begin = clock.now
    with open_store(MemoryDirectory(), CALM, clock) as store:
        store.create("a", ttl=1000)
        for used in (0, 500, 900):
            clock.now = begin + used
            store.stream("a").append(b"x")
            store.engine.upkeep.cluster()
        for end_of_a_row in (1000, 1500):  # it is looked up and found alive, then let go
            clock.now = begin + end_of_a_row
            store.engine.upkeep.sweep()
            store.engine.upkeep.sweep()
            assert store.engine._catalog.find_resident("a") is None
        assert list(store.names()) == ["a"]
        clock.now = begin + 1900
        store.engine.upkeep.sweep()
        assert store.stats()["streams"] == 0


@pytest.mark.parametrize("work", ["sweep", "rewrite", "audit"])
def test_a_stream_that_leaves_memory_takes_its_recent_bytes_and_its_place_in_the_queue_along(monkeypatch, work):
    """Its state stayed for bytes that nobody would find there any more, until 64 MiB of others had come."""
    with open_store(MemoryDirectory(), CALM, Clock()) as store:
        engine, committer = store.engine, store.engine._committer
        for number in range(80):
            store.create(f"a{number}", ttl=1000, data=b"x" * 10)
        engine.upkeep.cluster()
        assert (committer.recent.total, len(committer.recent), len(committer.expiries)) == (800, 80, 80)
        monkeypatch.setattr(catalog, "IDLE_MAX", 79)
        engine.upkeep.sweep()
        assert (committer.recent.total, len(committer.recent)) == (790, 79)
        monkeypatch.setattr(catalog, "IDLE_MAX", 0)
        if work == "sweep":
            engine.upkeep.sweep()
        elif work == "rewrite":
            engine.upkeep._compactor.rewrite(list(engine._reader.clustered.values()))
        else:
            assert list(engine.upkeep.audit()) == []
        assert (committer.recent.total, len(committer.recent), len(committer.expiries)) == (0, 0, 0)
        assert store.stream("a7").read().data == b"x" * 10


def test_a_reader_is_not_disturbed_when_its_stream_leaves_memory(monkeypatch):
    """He has found the state, and its bytes are dropped before he takes them: they are read from their file."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    with open_store(MemoryDirectory(), CALM, Clock()) as store:
        store.create("a", data=b"some bytes")
        store.engine.upkeep.cluster()
        read = reader.read_recent

        def slowly(state, start, end):
            store.engine.upkeep.sweep()
            assert (state.epoch, state.recent) == (LET_GO, None)
            return read(state, start, end)

        monkeypatch.setattr(reader, "read_recent", slowly)
        assert store.stream("a").read().data == b"some bytes"
