"""Streams that expire: by a clock that the test moves, by both faces, and over reopens."""

from __future__ import annotations

import pytest
from twins import Clock, Task, copy_of, open_store, until

from durable_log.engine.files import MemoryDirectory
from durable_log.errors import StreamGone, StreamNotFound
from durable_log.model import Options

QUIET = Options(sweep_seconds=3600.0)


def gone(store, name: str = "a") -> bool:
    try:
        store.stream(name).info()
    except StreamNotFound:
        return True
    return False


def test_a_stream_expires_at_its_moment(store, clock):
    stream = store.create("a", expires_at=clock.now + 10, data=b"x")
    clock.now += 9.999
    assert stream.read().data == b"x"
    clock.now += 0.001
    for operation in (stream.read, stream.info, stream.delete, stream.close, lambda: stream.append(b"y")):
        with pytest.raises(StreamNotFound):
            operation()
    assert list(store.names()) == []


def test_uses_do_not_move_a_fixed_moment(store, clock):
    stream = store.create("a", expires_at=clock.now + 10)
    for _ in range(9):
        clock.now += 1
        stream.append(b"x")
        stream.read()
    clock.now += 1
    assert gone(store)


def test_appends_and_reads_renew_a_sliding_ttl(store, clock):
    stream = store.create("a", ttl=10)
    for use in (lambda: stream.append(b"x"), stream.read, lambda: stream.read(-1), lambda: stream.append_many([b"y"])):
        clock.now += 9
        use()
    clock.now += 9.999
    assert not gone(store)
    clock.now += 0.001
    assert gone(store)


def test_looking_at_what_is_known_does_not_renew(store, clock):
    stream = store.create("a", ttl=10)
    clock.now += 9
    stream.info()
    list(store.names())
    clock.now += 1
    assert gone(store)


def test_refused_appends_and_duplicates_of_creation_leave_the_stream_as_it_is(store, clock):
    stream = store.create("a", ttl=10, content_type="application/json")
    clock.now += 9
    with pytest.raises(ValueError, match="JSON"):
        stream.append("{")
    clock.now += 1
    assert gone(store)


def test_a_ttl_of_nothing_expires_at_once(store):
    store.create("a", ttl=0, data=b"x")
    assert gone(store)
    store.create("a", ttl=100, data=b"y")
    assert store.stream("a").read().data == b"y"


def test_an_expired_name_can_be_created_anew_with_another_configuration(store, clock):
    first = store.create("a", ttl=10, content_type="text/plain", data="old", closed=True).info()
    clock.now += 10
    stream = store.create("a", expires_at=clock.now + 5, data=b"new")
    assert stream.read() == (b"new", 0, 3, True, False, "application/octet-stream")
    assert stream.info().number != first.number


def test_a_follower_is_told_when_the_sweep_finds_the_stream_expired(opened, clock):
    store = opened(sweep_seconds=0.01)
    stream = store.create("a", ttl=10, data=b"x")
    following = Task(list, stream.follow())
    until(lambda: store.stats()["watched_streams"], "the wait")
    clock.now += 20
    assert isinstance(following.error(), StreamGone)


def test_the_sweep_deletes_what_has_expired_and_nothing_else(opened, clock, tmp_path):
    store = opened(tmp_path, sweep_seconds=0.01)
    for number in range(20):
        store.create(f"{number:02}", ttl=10 + number)
    store.create("kept")
    clock.now += 19.5
    until(lambda: store.stats()["streams"] == 11, "the sweep")
    assert list(store.names()) == [f"{number:02}" for number in range(10, 20)] + ["kept"]
    store.close()
    assert opened(tmp_path, sweep_seconds=3600).stats()["streams"] == 11


def test_a_stream_that_is_used_between_two_looks_of_the_sweep_stays(opened, clock):
    store = opened(sweep_seconds=3600)
    stream = store.create("a", ttl=10)
    clock.now += 9
    stream.read()
    clock.now += 9
    store.engine.upkeep.sweep()
    assert not gone(store)
    clock.now += 1
    store.engine.upkeep.sweep()
    assert store.stats()["streams"] == 0


def test_the_sweep_comes_back_to_a_stream_whose_deadline_moved():
    clock = Clock()
    with open_store(MemoryDirectory(), QUIET, clock) as store:
        stream = store.create("a", ttl=10)
        for _ in range(5):
            clock.now += 9
            stream.append(b"x")
            store.engine.upkeep.sweep()
            assert store.stats()["streams"] == 1
        clock.now += 10
        store.engine.upkeep.sweep()
        assert store.stats()["streams"] == 0


def test_a_sliding_ttl_survives_a_clean_reopen_with_its_last_use():
    clock, directory = Clock(), MemoryDirectory()
    with open_store(directory, QUIET, clock) as store:
        stream = store.create("a", ttl=1000)
        clock.now += 500
        stream.read()
    clock.now += 999
    with open_store(directory, QUIET, clock) as store:
        assert not gone(store)
    clock.now += 1
    with open_store(directory, QUIET, clock) as store:
        assert gone(store)


def test_a_stream_that_had_expired_stays_so_over_a_clean_reopen():
    clock, directory = Clock(), MemoryDirectory()
    with open_store(directory, QUIET, clock) as store:
        store.create("a", ttl=5, data=b"x")
        clock.now += 6
        assert gone(store)
    with open_store(directory, QUIET, clock) as store:
        assert gone(store)


def test_reopening_without_use_does_not_keep_a_stream_alive():
    clock, directory = Clock(), MemoryDirectory()
    with open_store(directory, QUIET, clock) as store:
        store.create("a", ttl=100)
    for _ in range(5):
        clock.now += 40
        open_store(directory, QUIET, clock).close()
    with open_store(directory, QUIET, clock) as store:
        assert gone(store)


def test_a_kill_never_makes_a_stream_expire_early():
    """Uses are persisted now and then only; what a kill may have taken of them is given back."""
    clock, directory = Clock(), MemoryDirectory()
    store = open_store(directory, QUIET, clock)
    stream = store.create("a", ttl=1000)
    clock.now += 100
    stream.read()
    with open_store(copy_of(directory), QUIET, clock) as reopened:
        clock.now += 999
        assert not gone(reopened)
    store.close()


def test_uses_are_persisted_by_the_next_commit_whoever_makes_it():
    clock, directory = Clock(), MemoryDirectory()
    store = open_store(directory, QUIET, clock)
    stream = store.create("a", ttl=1000)
    clock.now += 900
    stream.read()
    store.create("b")
    killed = copy_of(directory)
    clock.now += 990
    with open_store(killed, QUIET, clock) as reopened:
        assert not gone(reopened)
    store.close()


def test_a_fixed_moment_survives_a_reopen_and_a_kill():
    clock, directory = Clock(), MemoryDirectory()
    store = open_store(directory, QUIET, clock)
    store.create("a", expires_at=clock.now + 100)
    killed = copy_of(directory)
    store.close()
    clock.now += 99
    for files in (directory, killed):
        with open_store(files, QUIET, clock) as reopened:
            assert not gone(reopened)
    clock.now += 1
    for files in (directory, killed):
        with open_store(files, QUIET, clock) as reopened:
            assert gone(reopened)


def test_streams_that_were_deleted_are_not_kept_for_their_far_deadline(opened):
    store = opened()
    for _ in range(500):
        store.create("a", ttl=10**9)
        store.delete("a")
    assert len(store.engine._committer.expiries) < 250


def test_a_kill_never_looks_like_a_good_end_however_full_the_segment_is():
    """A segment that ends with the word of a good end has no room for the one that takes it back."""
    options = Options(
        segment_bytes=64 * 1024, record_bytes_max=1000, preallocate=False, cluster_at_close=False, sweep_seconds=3600.0
    )
    full = 0
    for records in range(2):
        directory, clock = MemoryDirectory(), Clock()
        with open_store(directory, options, clock) as store:
            store.create("a", ttl=1000, data=b"x")
            for _ in range(records):
                store.stream("a").append(b"y")
        for _ in range(8):
            with open_store(directory, options, clock) as store:
                pass
            writer = store.engine._committer._writer
            full += writer.is_full and writer.clean
            store = open_store(copy_of(directory), options, clock)
            clock.now += 100
            store.stream("a").read()
            killed, last_use = copy_of(store.engine._directory), clock.now
            store.close()
            with open_store(killed, options, Clock(last_use + 999)) as again:
                assert not gone(again)
            clock.now -= 100
    assert full


def test_a_kill_after_a_clean_reopen_never_makes_a_stream_expire_early_either():
    """That the store was once closed in good order says nothing about the uses since."""
    clock, directory = Clock(), MemoryDirectory()
    with open_store(directory, QUIET, clock) as store:
        store.create("a", ttl=100)
    store = open_store(directory, QUIET, clock)
    clock.now += 50
    store.stream("a").read()
    killed = copy_of(directory)
    store.close()
    clock.now += 99
    with open_store(killed, QUIET, clock) as reopened:
        assert not gone(reopened)
