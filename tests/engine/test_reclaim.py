"""Compacting a whole store: what can be given back is, what is needed stays, and a full disk is where it is needed."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from twins import SMALL, Clock, Task, TwinDirectory, copy_of, open_store, sync_error, until

import durable_log
from durable_log import CommitFailed, Corruption, OffsetOutOfRange, StoreClosed, StoreFull
from durable_log.engine import commit
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.segment import FIRST_SIZE
from durable_log.errors import StoreUnreadable
from durable_log.model import Options

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)


def fill(store, names, pieces: int = 4, size: int = 5000) -> dict[str, bytes]:
    """Streams, each with some bytes in as many clustered segments."""
    truth = dict.fromkeys(names, b"")
    for turn in range(pieces):
        for number, name in enumerate(truth):
            store.create(name)
            data = bytes([65 + (turn + number) % 60]) * size
            store.stream(name).append(data)
            truth[name] += data
        store.engine.upkeep.cluster()
    return truth


def check(store, truth: dict[str, bytes]) -> None:
    assert list(store.names()) == sorted(truth)
    for name, content in truth.items():
        assert store.stream(name).read(limit=2**22).data == content, name
    store.engine.check()


def files_of(directory, suffix: str = "") -> list[str]:
    return [name for name in directory.names() if name.endswith(suffix)]


@pytest.fixture
def twin() -> TwinDirectory:
    return TwinDirectory()


@pytest.fixture
def store(twin):
    opened = open_store(twin, CALM, Clock())
    yield opened
    twin.hooks.clear()
    Task(opened.close).result()


def test_deleting_most_streams_gives_most_of_the_disk_back(tmp_path):
    options = Options(segment_bytes=8 * 2**20, record_bytes_max=2**20, cluster_seconds=1e9, cluster_segments=4)
    with durable_log.open(tmp_path, options=options) as store:
        truth = {f"s{number:03}": bytes([number]) * 800_000 for number in range(200)}
        for name, data in truth.items():
            store.create(name, data=data)
        for name in list(truth)[20:]:
            store.delete(name)
            del truth[name]
        assert store.stats()["disk_bytes"] > 100_000_000
        store.compact()
        assert store.stats()["disk_bytes"] <= 16_000_000 * 1.3
        assert store.stats()["spare_segments"] == 0
        assert store.stats()["clustered_dead_bytes"] == 0
        check(store, truth)
    with durable_log.open(tmp_path, options=options) as store:
        check(store, truth)


def test_the_log_goes_on_in_a_small_segment_and_spares_come_back_when_appends_want_them(tmp_path):
    options = replace(CALM, segment_bytes=16 * 2**20, preallocate=True, sweep_seconds=0.01)
    with durable_log.open(tmp_path, options=options) as store:
        stream = store.create("a")
        for _ in range(900):
            stream.append(bytes(30_000))
        until(lambda: store.stats()["spare_segments"] >= 2, "two spares")
        stream.trim(stream.info().tail)
        store.compact()
        stats = store.stats()
        assert (stats["log_segments"], stats["spare_segments"], stats["log_bytes"]) == (1, 0, FIRST_SIZE)
        assert stats["disk_bytes"] < FIRST_SIZE + 200_000
        stream.append(b"small")
        assert store.stats()["spare_segments"] == 0
        for _ in range(80):
            stream.append(bytes(30_000))
        until(lambda: store.stats()["spare_segments"] >= 2, "two spares")


def test_an_empty_full_segment_is_left_for_a_small_one(tmp_path):
    options = replace(CALM, segment_bytes=16 * 2**20)
    with durable_log.open(tmp_path, options=options) as store:
        store.create("a", data=b"x")
        for _ in range(3):  # every roll leads to a larger segment
            store.engine.upkeep.cluster()
            store.stream("a").append(b"y")
        store.engine.upkeep.cluster()
        assert store.stats()["log_bytes"] == 16 * 2**20
        store.compact()
        assert store.stats()["log_bytes"] == FIRST_SIZE
        check(store, {"a": b"xyyy"})
    with durable_log.open(tmp_path, options=options) as store:
        assert store.report.damage == []
        check(store, {"a": b"xyyy"})


def test_streams_that_were_deleted_before_the_store_was_opened_count(twin):
    with open_store(twin, CALM, Clock()) as store:
        truth = fill(store, "abcd")
        for name in "bcd":
            store.delete(name)
            del truth[name]
    with open_store(copy_of(twin), CALM, Clock()) as store:
        assert store.stats()["clustered_dead_bytes"] == 3 * 4 * 5000
        store.compact()
        assert store.stats()["clustered_live_bytes"] == 4 * 5000
        assert store.stats()["clustered_dead_bytes"] == 0
        check(store, truth)


def test_what_expired_while_nobody_asked_for_it_is_given_back(twin):
    clock = Clock()
    with open_store(twin, CALM, clock) as store:
        store.create("kept", data=b"kept")
        for number in range(2500):
            store.create(f"s{number}", ttl=10, data=bytes(100))
        store.create("touched", ttl=2000, data=b"touched")
        store.engine.upkeep.cluster()
    clock.now += 1000
    with open_store(copy_of(twin), CALM, clock) as store:
        assert store.stats()["streams"] == 2502
        store.compact()
        assert store.stats()["streams"] == 2
        assert store.stats()["catalog_rows"] == 2
        assert store.stats()["clustered_live_bytes"] == len(b"kepttouched")
        check(store, {"kept": b"kept", "touched": b"touched"})


def test_trimmed_bytes_are_given_back_and_the_rest_keeps_its_offsets(store, twin):
    truth = fill(store, "abc")
    for name, first in (("a", 12_500), ("b", 20_000), ("c", 1)):
        store.stream(name).trim(first)
    store.create("fork", fork_of="a", fork_at=20_000)
    store.engine.upkeep.cluster()
    with open_store(copy_of(twin), CALM, Clock()) as copied:
        copied.delete("fork")
        copied.compact()
        copied.engine.check()
        assert copied.stream("a").read(12_500).data == truth["a"][12_500:]
        assert copied.stream("b").read(20_000).data == b""
        assert copied.stream("b").append(b"more").offset == 20_000
        assert copied.stream("c").read(1).data == truth["c"][1:]
        for name in "abc":
            with pytest.raises(OffsetOutOfRange):
                copied.stream(name).read(0)
        # Records stay whole: one that begins below the first byte is all there.
        assert copied.stats()["clustered_live_bytes"] == 10_000 + 0 + 20_000
        with open_store(copy_of(copied.engine._directory), CALM, Clock()) as reopened:
            assert reopened.stream("a").read(12_500).data == truth["a"][12_500:]
            reopened.engine.check()


def test_what_a_fork_needs_of_a_deleted_stream_stays(store, twin):
    truth = fill(store, "ab")
    store.create("fork", fork_of="a", fork_at=7000)
    truth["fork"] = truth.pop("a")[:7000]
    store.delete("a")
    store.compact()
    check(store, truth)
    with open_store(copy_of(twin), CALM, Clock()) as reopened:
        check(reopened, truth)
        reopened.delete("fork")
        reopened.compact()
        assert reopened.stats()["clustered_live_bytes"] == len(truth["b"])


def test_compacting_twice_writes_no_segment_twice(store, twin):
    truth = fill(store, "abcd")
    store.delete("b")
    del truth["b"]
    store.compact()
    before = files_of(twin, ".seg")
    twin.calls.clear()
    store.compact()
    assert files_of(twin, ".seg") == before
    assert [name for what, name in twin.calls if what == "create" and ".seg" in name] == []
    check(store, truth)


def test_a_hundredth_that_is_dead_is_not_worth_a_rewrite(store, twin):
    truth = fill(store, "a", pieces=1, size=30_000)
    store.create("small", data=bytes(200))
    store.stream("a").append(b"a" * 30_000)
    truth["a"] += b"a" * 30_000
    store.engine.upkeep.cluster()
    before = files_of(twin, ".seg")
    store.delete("small")
    store.compact()
    assert files_of(twin, ".seg") == before
    check(store, truth)


def test_a_segment_that_only_states_in_memory_point_into_is_not_dropped(store, twin):
    """A checkpoint failed after it had moved the indexes: no row says so yet."""
    truth = {name: name.encode() * 3000 for name in "abc"}
    for name, data in truth.items():
        store.create(name, data=data)

    def no_run(proceed):
        if twin.calls[-1][1].endswith(".run.tmp"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), "a.run")
        return proceed()

    twin.hooks["create"] = no_run
    with pytest.raises(OSError, match="Input/output"):
        store.engine.upkeep.cluster()
    del twin.hooks["create"]
    store.compact()
    check(store, truth)
    with open_store(copy_of(twin), CALM, Clock()) as reopened:
        check(reopened, truth)


def test_a_full_disk_latches_nothing_and_what_needs_no_room_is_given_back(twin):
    class Growing(MemoryDirectory):
        grows_in_place = True

    twin = TwinDirectory(Growing())
    options = replace(CALM, preallocate=True, sweep_seconds=0.01)
    with open_store(twin, options, Clock()) as store:
        truth = fill(store, "ab")
        until(lambda: store.stats()["spare_segments"] >= 2, "two spares")

        def no_create(_proceed):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x")

        twin.hooks["create"] = no_create
        with pytest.raises(StoreFull) as caught:
            store.compact()
        assert "free disk space" in str(caught.value)
        assert store.stats()["spare_segments"] == 0
        assert store.stats()["failure"] is None
        check(store, truth)
        store.stream("a").append(b"more")
        truth["a"] += b"more"
        del twin.hooks["create"]
        store.compact()
        check(store, truth)


def test_a_damaged_segment_is_told_and_keeps_no_other_from_being_compacted(store, twin):
    fill(store, "abcd")
    first = min(files_of(twin, ".seg"))
    file = twin.inner.files[first]
    file.write(4100, bytes([file.read(4100, 1)[0] ^ 1]))
    store.delete("b")
    with pytest.raises(Corruption) as caught:
        store.compact()
    assert caught.value.file == first
    # Only the damaged one still holds what was deleted.
    assert store.stats()["clustered_dead_bytes"] == 5000
    assert first in files_of(twin)
    assert store.stats()["failure"] is None


def test_nothing_is_clustered_after_a_sync_that_failed(store, twin, monkeypatch):
    monkeypatch.setattr(commit, "WRITTEN_SECONDS_MAX", 3600.0)
    store.create("a").append(b"written", durability="written")
    twin.hooks["sync"] = sync_error
    twin.calls.clear()
    with pytest.raises(CommitFailed):
        store.engine.upkeep.cluster()
    assert [name for what, name in twin.calls if what == "create"] == []
    with pytest.raises(CommitFailed):
        store.compact()
    with pytest.raises(CommitFailed):
        store.close()  # what was acknowledged as written is lost


def test_a_closed_store_says_so(store):
    store.close()
    with pytest.raises(StoreClosed):
        store.compact()


def test_appends_and_deletions_go_on_meanwhile():
    with open_store(MemoryDirectory(), CALM) as store:
        truth = fill(store, [f"s{number}" for number in range(40)], pieces=2, size=3000)
        for number in range(0, 40, 2):
            store.delete(f"s{number}")
            del truth[f"s{number}"]

        def write() -> None:
            for number in range(1, 40, 2):
                store.stream(f"s{number}").append(b"later")
                if number % 5 == 0:
                    store.delete(f"s{number}")

        writing, compacting = Task(write), Task(store.compact)
        writing.result()
        compacting.result()
        for number in range(1, 40, 2):
            truth[f"s{number}"] += b"later"
            if number % 5 == 0:
                del truth[f"s{number}"]
        check(store, truth)
        with open_store(copy_of(store.engine._directory), CALM) as reopened:
            check(reopened, truth)


def test_a_sweep_that_can_not_read_its_streams_keeps_nothing_from_being_compacted(twin):
    clock = Clock()
    with open_store(twin, CALM, clock) as store:
        store.create("short", ttl=10, data=b"x")
        truth = fill(store, "ab")
        store.engine.upkeep.cluster()
        store.delete("a")
        del truth["a"]
        clock.now += 1000
        run = store.engine._catalog.runs[0]

        def no_names(proceed):
            twin.hooks.pop("read")
            raise OSError(errno.EIO, os.strerror(errno.EIO), run.file.name)

        twin.hooks["read"] = no_names
        with pytest.raises(StoreUnreadable, match=run.file.name):
            store.compact()
        assert store.stats()["clustered_dead_bytes"] == 0
        check(store, truth)


def test_streams_that_change_while_a_compaction_goes_on_keep_what_their_rows_do_not_know(store, monkeypatch):
    """Of these, what is needed is said by the state, and not by the row, which says less."""
    truth = fill(store, ("a", "b", "c"))
    store.delete("b")
    del truth["b"]
    merge, compactor = store.engine.upkeep._compactor.merge_all, store.engine.upkeep._compactor

    def meanwhile() -> None:
        merge()
        for name in truth:
            store.stream(name).append(b"more")
            truth[name] += b"more"
        store.stream("c").trim(20_000)

    monkeypatch.setattr(compactor, "merge_all", meanwhile)
    store.compact()
    assert store.stream("a").read(limit=2**20).data == truth["a"]
    assert store.stream("c").read(20_000, limit=2**20).data == truth["c"][20_000:]
    store.engine.check()
    assert store.stats()["clustered_dead_bytes"] <= 5000
