"""What the faces see of the engine when streams leave memory, or files fail or are damaged, while they look."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from twins import SMALL, Clock, TwinDirectory, no_space, open_files, open_store, write_error

from durable_log.engine import catalog, reader
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.state import StreamState
from durable_log.errors import CommitFailed, Corruption, OffsetOutOfRange, StoreFull, StoreUnreadable
from durable_log.model import EARLIEST
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
COLD = replace(CALM, recent_bytes_max=1)
"""Nothing is read from memory."""


class Port:
    def deliver(self, results):
        raise AssertionError(results)


def clustered(twin: TwinDirectory, **config: object) -> Store:
    """A store with an idle stream."""
    store = open_store(twin, COLD, Clock())
    store.create("a", data=b"a" * 100, **config)
    store.engine.upkeep.cluster()
    return store


def on_disk(tmp_path) -> TwinDirectory:
    return TwinDirectory(DiskDirectory(tmp_path / "store"))


def let_go_once(store: Store, monkeypatch) -> list[StreamState]:
    """A stream that is looked up leaves memory before whoever asked has it, once. Returns which state that was."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    look_up, gone = store.engine._state, []

    def and_let_go(*arguments, **named):
        state = look_up(*arguments, **named)
        if not gone:
            gone.append(state)
            store.engine._catalog.evict()
            assert store.engine._catalog.find_resident("a") is not state
        return state

    monkeypatch.setattr(store.engine, "_state", and_let_go)
    return gone


def test_a_stream_that_leaves_memory_before_it_is_watched_is_loaded_again(monkeypatch):
    with clustered(TwinDirectory()) as store:
        gone = let_go_once(store, monkeypatch)
        handle = store.engine.watch("a", 100, Port(), None)
        assert handle[0] is store.engine._catalog.find_resident("a")
        assert handle[0] is not gone[0]
        store.engine.unwatch(handle)


def test_a_use_of_a_stream_that_leaves_memory_meanwhile_is_one_of_the_state_that_comes(monkeypatch):
    with clustered(TwinDirectory(), ttl=1000) as store:
        gone = let_go_once(store, monkeypatch)
        store.engine.clock.now += 500
        assert store.stream("a").read().data == b"a" * 100
        state = store.engine._catalog.find_resident("a")
        assert state is not gone[0]
        assert state.expiry.deadline == store.engine.clock.now + 1000


def test_a_stream_that_somebody_watches_does_not_leave_memory(monkeypatch):
    with clustered(TwinDirectory()) as store:
        monkeypatch.setattr(catalog, "IDLE_MAX", 0)
        handle = store.engine.watch("a", 100, Port(), None)
        store.engine.upkeep.sweep()
        assert store.engine._catalog.find_resident("a") is handle[0]
        store.engine.unwatch(handle)
        store.engine.upkeep.sweep()
        assert store.engine._catalog.find_resident("a") is None


def test_a_catalog_that_cannot_be_read_refuses_those_who_look_a_stream_up(tmp_path, monkeypatch):
    with clustered(on_disk(tmp_path)) as store:
        failure = OSError(errno.EIO, os.strerror(errno.EIO), "00000002.run")

        def fail(*_, **__):
            raise failure

        with monkeypatch.context() as patched:
            patched.setattr(store.engine._catalog, "live", fail)
            with pytest.raises(StoreUnreadable, match=r"00000002\.run") as caught:
                store.stream("a").read()
            assert caught.value.__cause__ is failure
        assert store.stream("a").read().data == b"a" * 100


@pytest.mark.parametrize("offset", [0, EARLIEST])
def test_a_read_that_is_overtaken_by_a_trim_is_not_told_of_damage(monkeypatch, offset):
    """It has found where the stream begins; then that is trimmed, and a compaction gives its file back."""
    with clustered(TwinDirectory()) as store:
        stream = store.stream("a")
        stream.append(b"b" * 50)
        store.engine.upkeep.cluster()
        read = reader.read_recent

        def slowly(state, start, end):
            monkeypatch.setattr(reader, "read_recent", read)
            stream.trim(100)
            store.compact()
            return read(state, start, end)

        monkeypatch.setattr(reader, "read_recent", slowly)
        if offset == EARLIEST:
            assert stream.read(EARLIEST)[:3] == (b"b" * 50, 100, 150)
        else:
            with pytest.raises(OffsetOutOfRange) as caught:
                stream.read(offset)
            assert (caught.value.first, caught.value.tail) == (100, 150)


def test_the_bounds_of_a_record_whose_entry_is_damaged_are_told_as_damage():
    twin = TwinDirectory()
    with clustered(twin) as store:
        assert store.engine.record_bounds("a", 5) == (0, 100)
        [name] = [name for name in twin.names() if name.endswith(".seg")]
        file = twin.inner.files[name]
        position = ClusteredSegment.open(twin.inner, name).row(0).entries_position
        file.write(position + 9, bytes([file.read(position + 9, 1)[0] ^ 1]))
        with pytest.raises(Corruption) as caught:
            store.engine.record_bounds("a", 5)
        assert (caught.value.file, caught.value.position) == (name, position)


def test_a_place_in_a_segment_that_is_not_open_is_told_as_damage():
    with clustered(TwinDirectory()) as store:
        segments = store.engine._reader.clustered
        [(number, segment)] = segments.items()
        del segments[number]
        with pytest.raises(Corruption, match="the file is not open any more"):
            store.stream("a").read()
        segments[number] = segment


def test_a_row_of_another_stream_is_never_read_as_ones_own():
    with open_store(TwinDirectory(), COLD, Clock()) as store:
        for name in ("a", "b"):
            store.create(name, data=name.encode() * 100)
        store.engine.upkeep.cluster()
        a, b = (store.engine._catalog.get(name) for name in "ab")
        index, a.index = a.index, b.index
        with pytest.raises(Corruption, match="the row is one of stream number 2 from 0"):
            store.stream("a").read()
        a.index = index


def test_a_number_names_the_stream_that_has_a_row_if_it_can_be_read():
    twin = TwinDirectory()
    with clustered(twin) as store:
        assert [store.engine.name_of(number) for number in (0, 1, 2)] == [None, "a", None]
        [run] = store.engine._catalog.runs
        twin.inner.files[run.file.name].write(run.trailer.numbers_position + 30, b"!")
        assert store.engine.name_of(1) is None


def test_a_store_that_finds_no_room_for_its_first_segment_leaves_nothing_open(tmp_path):
    twin, before = on_disk(tmp_path), open_files()
    twin.hooks["create"] = lambda proceed: no_space(proceed) if ".log" in twin.calls[-1][1] else proceed()
    with pytest.raises(StoreFull):
        open_store(twin, CALM, Clock())
    assert open_files() == before


def test_files_of_a_merge_that_a_failed_commit_broke_off_are_closed_with_the_store(tmp_path):
    """The manifest names the new run already, and nobody can be told of it any more."""
    before = open_files()
    store = open_store(on_disk(tmp_path), CALM, Clock())
    for number in range(2):
        store.create(f"{number}", data=bytes(1000))
        store.engine.upkeep.cluster()
    twin = store.engine._directory

    def latch(proceed):
        proceed()
        if [name for what, name in twin.calls if what == "rename"][-1] == "MANIFEST.tmp":  # others mark the log's end
            store.engine._committer._latch("a write failed", None)

    twin.hooks["rename"] = latch
    with pytest.raises(CommitFailed):
        store.engine.upkeep._compactor.merge_all()
    twin.hooks.clear()
    store.close()
    assert open_files() == before
    with open_store(on_disk(tmp_path), CALM, Clock()) as again:
        assert list(again.names()) == ["0", "1"]
        assert len(again.engine._catalog.runs) == 1


def test_a_store_that_is_being_closed_deletes_no_more_of_what_has_expired(monkeypatch):
    """Closing waits for this, and the rest is deleted once the store is open again."""
    monkeypatch.setattr("durable_log.engine.upkeep.SWEPT_AT_ONCE", 1)
    directory, clock = MemoryDirectory(), Clock()
    with open_store(directory, CALM, clock) as store:
        for number in range(5):
            store.create(f"{number}", data=b"x", expires_at=clock.now + 10)
    clock.now += 100
    with open_store(directory, CALM, clock) as store:
        upkeep = store.engine.upkeep
        delete = upkeep._delete_expired

        def then_close(streams):
            delete(streams)
            upkeep._stopping = True

        with monkeypatch.context() as patched:
            patched.setattr(upkeep, "_delete_expired", then_close)
            upkeep._sweep_dormant()
        assert len(store.engine._catalog) == 4
        upkeep._stopping = False
    with open_store(directory, CALM, clock) as store:
        store.engine.upkeep.sweep()
        assert len(store.engine._catalog) == 0


def test_a_close_that_another_thread_has_brought_to_its_end_does_nothing_more():
    twin = TwinDirectory()
    store = clustered(twin)
    store.stream("a").append(b"more")
    store.close()
    twin.calls.clear()
    store.engine._end()
    assert twin.calls == []


def test_uses_are_not_noted_any_more_once_a_write_has_failed():
    twin = TwinDirectory()
    with clustered(twin, ttl=1000) as store:
        twin.hooks["commit"] = write_error
        with pytest.raises(CommitFailed):
            store.stream("a").append(b"more")
        store.engine.clock.now += 500
        assert store.stream("a").read().data == b"a" * 100
        assert not store.engine._committer._touches
