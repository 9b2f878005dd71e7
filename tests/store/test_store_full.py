"""Disks that are full, and disks that fail."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace

import pytest
from twins import (
    SMALL,
    Barrier,
    Clock,
    Task,
    TwinDirectory,
    copy_of,
    no_space,
    open_store,
    sync_error,
    until,
    write_error,
)

from durable_log.engine import commit
from durable_log.engine.files import MemoryDirectory
from durable_log.errors import CommitFailed, StoreFull, StoreUnreadable
from durable_log.model import Producer

QUIET = replace(SMALL, sweep_seconds=3600.0)


def no_create(_proceed):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "00000002.log.tmp")


@pytest.fixture
def twin() -> TwinDirectory:
    return TwinDirectory()


@pytest.fixture
def store(twin):
    opened = open_store(twin, QUIET)
    yield opened
    twin.hooks.clear()
    Task(opened.close).result()


def fill(store, name: str = "a", size: int = 3000) -> int:
    """Append until the disk is full; returns how many bytes were stored."""
    stream, stored = store.stream(name), 0
    for _ in range(1000):
        try:
            stream.append(b"x" * size)
        except StoreFull:
            return stored
        stored += size
    raise AssertionError("the disk was never full")


def test_a_full_disk_refuses_appends_and_latches_nothing(store, twin):
    store.create("a")
    twin.hooks["create"] = no_create
    stored = fill(store)
    for _ in range(3):
        with pytest.raises(StoreFull) as caught:
            store.stream("a").append(b"x" * 3000)
        assert caught.value.needed >= 3000
        with pytest.raises(StoreFull):
            store.create("b")
    assert store.stats()["failure"] is None
    assert store.stream("a").info().tail == stored
    del twin.hooks["create"]
    assert store.stream("a").append(b"y").offset == stored
    store.engine.check()


def test_deletes_and_idle_marks_work_on_a_full_disk(twin):
    store = open_store(twin, replace(QUIET, segment_bytes=512 * 1024))
    for name in "abcdef":
        store.create(name)
    twin.hooks["create"] = no_create
    fill(store)
    for name in "bcdef":
        store.delete(name)
    assert list(store.names()) == ["a"]
    until(lambda: not store.engine._committer._writer.unmarked, "the mark")
    assert store.stats()["failure"] is None
    with open_store(copy_of(twin), QUIET) as reopened:
        assert list(reopened.names()) == ["a"]
    store.close()


def test_a_write_without_room_is_taken_back_whole(store, twin):
    stream = store.create("a", data=b"0")
    stream.append(b"1", producer=Producer("p", 0, 0), seq="1")
    twin.hooks["commit"] = no_space
    for operation in (
        lambda: stream.append(b"x", producer=Producer("p", 0, 1), seq="2"),
        lambda: stream.append(b"x", producer=Producer("p", 5, 0)),
        lambda: stream.append(b"x", producer=Producer("new", 0, 0)),
        lambda: stream.append(b"x", close=True),
        stream.close,
        lambda: store.create("b", data=b"x"),
    ):
        with pytest.raises(StoreFull):
            operation()
    assert store.stats()["failure"] is None
    assert stream.read() == (b"01", 0, 2, True, False, "application/octet-stream")
    assert list(store.names()) == ["a"]
    store.engine.check()
    del twin.hooks["commit"]
    assert stream.append(b"2", producer=Producer("p", 0, 1), seq="2") == (2, 3, False, False, 1)
    assert stream.append(b"3", producer=Producer("new", 0, 0)).duplicate is False
    assert store.create("b", data=b"y").read().data == b"y"
    with open_store(copy_of(twin), QUIET) as reopened:
        assert reopened.stream("a").read().data == b"0123"
        assert reopened.stream("a").append(b"3", producer=Producer("new", 0, 0)).duplicate is True
        assert reopened.stream("b").read().data == b"y"
        reopened.engine.check()


def test_half_a_block_that_found_no_room_is_overwritten(store, twin):
    """The write stopped in the middle: what it left behind the next block is no block."""
    stream = store.create("a", data=b"0")

    def half(proceed):
        proceed()
        no_space(proceed)

    twin.hooks["commit"] = half
    with pytest.raises(StoreFull):
        stream.append(b"x" * 20_000)
    del twin.hooks["commit"]
    stream.append(b"1")
    with open_store(copy_of(twin), QUIET) as reopened:
        assert reopened.stream("a").read().data == b"01"
        assert reopened.report.damage == []


def test_an_idle_mark_without_room_latches_nothing(store, twin, monkeypatch):
    """On a file system that never writes in place, the mark needs room, too."""
    monkeypatch.setattr(commit, "IDLE_SECONDS", 0.0)
    twin.hooks["mark"] = no_space
    stream = store.create("a", data=b"0")
    until(lambda: any(what == "mark" for what, _name in twin.calls), "the mark")
    until(store.engine._committer._lock.attempt, "the end of the mark")
    store.engine._committer._lock.let_go()
    assert store.stats()["failure"] is None
    stream.append(b"1")
    stream.delete()


def test_closing_on_a_full_disk_closes(twin):
    store = open_store(twin, QUIET)
    store.create("a", data=b"0")
    twin.hooks["mark"] = twin.hooks["commit"] = no_space
    Task(store.close).result()
    with open_store(copy_of(twin), QUIET) as reopened:
        assert reopened.stream("a").read().data == b"0"


def test_expired_streams_are_swept_from_a_full_disk():
    twin, clock = TwinDirectory(), Clock()
    with open_store(twin, QUIET, clock) as store:
        store.create("a")
        store.create("old", ttl=10)
        twin.hooks["create"] = no_create
        fill(store)
        clock.now += 11
        store.engine.upkeep.sweep()
        assert store.stats()["streams"] == 1


def test_a_failed_sweep_is_tried_again():
    twin, clock = TwinDirectory(), Clock()
    with open_store(twin, QUIET, clock) as store:
        store.create("old", ttl=10)
        clock.now += 11
        twin.hooks["commit"] = no_space
        with pytest.raises(StoreFull):
            store.engine.upkeep.sweep()
        del twin.hooks["commit"]
        clock.now += 61
        store.engine.upkeep.sweep()
        assert store.stats()["streams"] == 0


def test_a_new_store_on_a_full_disk_is_refused_as_such():
    for what in ("create", "write", "sync"):
        twin = TwinDirectory()
        twin.hooks[what] = no_space
        with pytest.raises(StoreFull):
            open_store(twin, SMALL)


def test_written_data_is_shown_although_the_next_segment_has_no_room(twin, monkeypatch):
    monkeypatch.setattr(commit, "WRITTEN_SECONDS_MAX", 3600.0)
    with open_store(twin, QUIET) as store:
        stream = store.create("a")
        stream.append(b"written", durability="written")
        twin.hooks["create"] = no_create
        stored = fill(store)
        assert stream.info().tail == stored + 7


@pytest.mark.parametrize("failing", [write_error, sync_error])
def test_a_failed_commit_latches_reads_go_on_and_reopening_is_clean(twin, failing):
    store = open_store(twin, QUIET)
    stream = store.create("a", data=b"before")
    twin.hooks["commit"] = failing
    with pytest.raises(CommitFailed):
        stream.append(b"failed", producer=Producer("p", 0, 0))
    twin.hooks.clear()
    twin.calls.clear()
    for operation in (
        lambda: stream.append(b"x"), stream.close, stream.delete, lambda: store.create("b"),
        lambda: stream.append(b"x", durability="written"),
    ):  # fmt: skip
        with pytest.raises(CommitFailed):
            operation()
    assert stream.read() == (b"before", 0, 6, True, False, "application/octet-stream")
    assert stream.info().tail == 6
    assert list(store.names()) == ["a"]
    assert "before" not in str(store.stats()["failure"])
    killed = copy_of(twin)
    Task(store.close).result()
    assert [what for what, _name in twin.calls if what in ("commit", "mark", "sync")] == []
    for files in (killed, copy_of(twin)):
        with open_store(files, QUIET) as reopened:
            kept = reopened.stream("a").read().data
            assert kept in (b"before", b"beforefailed")
            duplicate = reopened.stream("a").append(b"failed", producer=Producer("p", 0, 0)).duplicate
            assert duplicate is (kept != b"before")
            assert reopened.report.damage == []
            reopened.engine.check()


@pytest.mark.parametrize("what", ["sync", "mark"])
def test_a_failed_sync_in_the_background_latches_as_well(twin, what):
    store = open_store(twin, QUIET)
    stream = store.create("a", data=b"before")
    twin.hooks[what] = sync_error
    stream.append(b"written", durability="written")
    until(lambda: store.stats()["failure"], "the failure")
    with pytest.raises(CommitFailed):
        stream.append(b"x")
    twin.calls.clear()
    closing = Task(store.close).error()
    assert isinstance(closing, CommitFailed) == (what == "sync")  # then what was acknowledged as written is not durable
    assert [call for call, _name in twin.calls if call in ("commit", "mark", "sync")] == []


def test_everybody_of_a_failed_group_is_told_and_nothing_of_it_is_shown(twin):
    store = open_store(twin, QUIET)
    stream = store.create("a", data=b"before")
    barrier = twin.hooks["commit"] = Barrier()
    first = Task(stream.append, b"1")
    barrier.wait()
    rest = [Task(stream.append, b"2") for _ in range(10)] + [Task(store.create, "b"), Task(stream.delete)]
    until(lambda: len(store.engine._committer._staging._queue) == 12, "staging")
    twin.hooks["commit"] = sync_error
    barrier.let_go()
    assert first.result().next_offset == 7
    assert [type(task.error()) for task in rest] == [CommitFailed] * 12
    assert stream.read().data == b"before1"
    assert list(store.names()) == ["a"]
    Task(store.close).result()


def test_a_failed_read_is_no_failed_store(twin):
    with open_store(twin, replace(QUIET, recent_bytes_max=1)) as store:
        stream = store.create("a", data=b"content")

        def unreadable(_proceed):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        twin.hooks["read"] = unreadable
        with pytest.raises(StoreUnreadable):
            stream.read()
        del twin.hooks["read"]
        assert stream.read().data == b"content"
        stream.append(b"x")


def test_a_segment_that_cannot_be_made_ahead_is_made_when_it_is_needed():
    class Growing(MemoryDirectory):
        grows_in_place = True

    twin = TwinDirectory(Growing())
    with open_store(twin, QUIET) as store:
        stream, failures = store.create("a"), [5]

        def sometimes(proceed):
            failures[0] -= 1
            if failures[0] > 0 and failures[0] % 2:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return proceed()

        def only_in_background(proceed):
            if threading.current_thread().name == "durable_log keeper":
                return sometimes(proceed)
            return proceed()

        twin.hooks["create"] = only_in_background
        for _ in range(60):
            stream.append(b"x" * 5000)
        assert stream.info().tail == 300_000
    with open_store(copy_of(twin), QUIET) as reopened:
        assert reopened.stream("a").info().tail == 300_000
