"""Single system calls that fail where it hurt once. All calls of whole workloads are failed in ``tests/faults``."""

from __future__ import annotations

import errno
import gc
import logging
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twins import SMALL, Clock, TwinDirectory, copy_of, no_space, open_files, open_store

import durable_log
from durable_log.engine import catalog, commit, compaction, files
from durable_log.engine.files import DiskDirectory, DiskFile, MemoryDirectory
from durable_log.engine.keeper import Spares
from durable_log.engine.segment import LogSegment
from durable_log.errors import CommitFailed, StoreFull, StoreUnreadable, StreamExists
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, recent_bytes_max=1)
UUID = bytes(range(16))


class InPlace(MemoryDirectory):
    grows_in_place = True


def failing(error: int, times: int = 10**9) -> Callable[..., Any]:
    """A hook that fails so often, and then proceeds."""
    left = [times]

    def fail(proceed: Callable[[], Any]) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(error, os.strerror(error))
        return proceed()

    return fail


@pytest.fixture
def opening(tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens the store of this test; nothing may be open any more at the end."""
    before = open_files()
    yield lambda: durable_log.open(tmp_path / "store", options=CALM, clock=Clock())
    assert open_files() == before


# --- opening and closing


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_a_lock_file_that_takes_no_text_keeps_nobody_out(opening, monkeypatch, call):
    """A full disk can be opened; and whoever fails while opening does not keep the lock."""
    opening().close()
    with monkeypatch.context() as patch:

        def full(*_: Any) -> None:
            patch.undo()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        patch.setattr(files.os, call, full)
        opening().close()


def test_whoever_could_not_read_who_holds_the_lock_leaves_no_file_open(opening, monkeypatch):
    def unreadable(*_: Any) -> None:
        monkeypatch.undo()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opening():
        monkeypatch.setattr(files.os, "pread", unreadable)
        with pytest.raises(durable_log.StoreLocked, match="in this process already"):
            opening()


def test_an_open_that_fails_at_a_leftover_leaves_no_file_open(opening, monkeypatch):
    """Empty segments had been set aside as spares by then, and nobody closed them."""
    with opening() as store:
        store.create("a", data=b"1")
    (Path(store.engine.path) / "0000000f.log.tmp").touch()
    before = open_files()
    with monkeypatch.context() as patch:

        def fail(_: str) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        patch.setattr(files.os, "unlink", fail)
        with pytest.raises(StoreUnreadable):
            opening()
        assert open_files() == before
    opening().close()


@pytest.mark.parametrize("call", ["size", "read"])
def test_an_open_that_fails_at_a_log_segment_without_header_leaves_no_file_open(opening, tmp_path, monkeypatch, call):
    """Such a segment is read by its name, and was closed by nobody if it could not be read."""
    with durable_log.open(tmp_path / "store", options=replace(CALM, cluster_at_close=False)) as store:
        store.create("a", data=b"1")
    for log in (tmp_path / "store").glob("*.log"):
        log.write_bytes(bytes(4096) + log.read_bytes()[4096:])
    real = getattr(DiskFile, call)

    def fail(file: DiskFile, *where: int) -> Any:
        if file.name.endswith(".log") and where[:1] != (0,):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, *where)

    with monkeypatch.context() as patch:
        patch.setattr(DiskFile, call, fail)
        with pytest.raises(StoreUnreadable):
            opening()
    opening().close()


def test_an_error_of_close_leaves_no_file_open_and_nobody_locked_out(opening, monkeypatch):
    close = os.close

    def complaining(fd: int) -> None:
        close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store = opening()
    store.create("a", data=b"1")
    monkeypatch.setattr(files.os, "close", complaining)
    store.close()
    monkeypatch.undo()
    with opening() as again:
        assert again.stream("a").read().data == b"1"


def test_a_store_whose_close_failed_is_not_kept_in_memory_until_the_process_ends(monkeypatch):
    monkeypatch.setattr(commit, "WRITTEN_SECONDS_MAX", 3600.0)
    monkeypatch.setattr(logging.getLogger("durable_log"), "disabled", True)  # pytest keeps what is logged
    twin = TwinDirectory()
    store = open_store(twin, CALM, Clock())
    store.create("a").append(b"x", durability="written")
    twin.hooks["commit"] = twin.hooks["mark"] = twin.hooks["sync"] = failing(errno.EIO)
    with pytest.raises(CommitFailed):
        store.close()
    engine = weakref.ref(store.engine)
    del store
    gc.collect()
    assert engine() is None


def test_a_new_directory_is_synced_in_its_parent_by_whoever_finds_it_empty(tmp_path, monkeypatch):
    """Somebody made it and was stopped, or failed, before it was durable."""
    (tmp_path / "something").touch()
    synced: list[str] = []
    sync = files._sync_directory

    def failing_once(path: str) -> None:
        synced.append(path)
        if len(synced) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(path)

    monkeypatch.setattr(files, "_sync_directory", failing_once)
    with pytest.raises(StoreUnreadable):
        durable_log.open(tmp_path / "store")
    durable_log.open(tmp_path / "store").close()
    assert synced[:2] == [str(tmp_path)] * 2
    durable_log.open(tmp_path / "store").close()
    assert synced.count(str(tmp_path)) == 2


def test_a_directory_that_a_full_disk_has_no_room_for_is_refused_as_such(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "mkdir", full)
    with pytest.raises(StoreFull):
        durable_log.open(tmp_path / "store")


@pytest.mark.parametrize("call", ["pread", "pwrite", "fdatasync"])
def test_a_call_that_fails_says_of_which_file(tmp_path, monkeypatch, call):
    file = DiskDirectory(tmp_path).create("f")

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files.os, call, fail)
    work = {"pread": lambda: file.read(0, 1), "pwrite": lambda: file.write(0, b"x"), "fdatasync": file.sync}
    with pytest.raises(OSError, match=str(tmp_path / "f")):
        work[call]()
    file.close()


def test_a_file_that_was_renamed_is_told_of_by_the_name_that_it_has(opening, monkeypatch):
    """Errors named the temporary files that segments and runs are made as."""
    with opening() as store:
        store.create("a", data=b"1")
        store.engine.upkeep.cluster()
        log = store.engine._writer.segment.file
        made = [*store.engine._reader.clustered.values(), *store.engine._catalog.runs]
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            patch.setattr(files.os, "pread", fail)
            for file in (log, *(each.file for each in made)):
                with pytest.raises(OSError, match="Input/output error") as caught:
                    file.read(0, 1)
                assert Path(caught.value.filename).exists()


# --- files that come and go


@pytest.mark.parametrize("what", ["rename", "write", "sync", "sync directory"])
@pytest.mark.parametrize("done", [False, True])
def test_a_segment_that_cannot_be_used_again_is_removed_and_keeps_no_other_back(what, done):
    """It was left open and on disk, and with it all that were to be given back after it."""
    twin = TwinDirectory(InPlace())
    segments = [LogSegment.create(twin, number, CALM.segment_bytes, UUID, 0) for number in (1, 2)]
    made = Spares(twin, UUID, CALM, [], 2)
    once = failing(errno.EIO, 1)

    def hook(proceed):
        if done:
            proceed()
        return once(lambda: None if done else proceed())

    twin.hooks[what] = hook
    for segment in segments:
        made.give_back(segment)
    twin.hooks.clear()
    assert twin.names() == ["00000004.log"]
    assert [name for call, name in twin.calls if call == "close"] == [segments[0].file.name]
    assert made.take(1, 0).number == 4
    assert made.take(5, 0).number == 5


def test_a_spare_that_cannot_be_removed_stops_no_commit_and_is_removed_later():
    twin = TwinDirectory(InPlace())
    made = Spares(twin, UUID, CALM, [LogSegment.create(twin, 1, CALM.segment_bytes, UUID, 0)], 1)
    twin.hooks["remove"] = failing(errno.EIO)
    assert made.take(2, 0).number == 2
    assert twin.names() == ["00000001.log", "00000002.log"]
    with pytest.raises(OSError, match="Input/output"):
        made.litter.sweep()
    twin.hooks.clear()
    made.litter.sweep()
    assert twin.names() == ["00000002.log"]


def test_a_run_that_a_manifest_may_name_is_not_removed_when_its_checkpoint_is_tried_again():
    """Nobody knows which manifest is in force as long as its directory cannot be synced."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=b"content")
        store.engine._committer.roll()
        renamed = []
        twin.calls.clear()

        def no_sync(proceed):
            if ("rename", "MANIFEST.tmp") in twin.calls:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return proceed()

        twin.hooks["sync directory"] = no_sync
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output"):
                store.engine.upkeep.checkpointer.run()
            killed = copy_of(twin)
            with open_store(killed, CALM, Clock()) as reopened:
                assert reopened.stream("a").read().data == b"content"
            renamed.append([name for name in twin.names() if name.endswith(".run")])
        assert [len(runs) for runs in renamed] == [1] * 5
        twin.hooks.clear()
        store.engine.upkeep.checkpointer.run()
        assert len([name for name in twin.names() if name.endswith(".run")]) == 1
        assert store.stream("a").read().data == b"content"


def test_merges_make_no_more_files_as_long_as_nobody_knows_which_manifest_is_in_force(monkeypatch):
    monkeypatch.setattr(compaction, "RUNS_MAX", 1)
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for turn in range(3):
            store.create(f"{turn}", data=b"x")
            store.engine._committer.roll()
            store.engine.upkeep.checkpointer.run()

        def no_sync_of_the_manifest(proceed):
            if [name for call, name in twin.calls if call == "rename"][-1] == "MANIFEST.tmp":
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return proceed()

        twin.hooks["sync directory"] = no_sync_of_the_manifest
        for _ in range(4):
            with pytest.raises(OSError, match="Input/output"):
                store.engine.upkeep._compactor.step()
        assert len([name for name in twin.names() if name.endswith(".run")]) == 4
        twin.hooks.clear()
        for _ in range(4):
            store.engine.upkeep._compactor.step()
        assert len([name for name in twin.names() if name.endswith(".run")]) == 1


def test_files_that_were_replaced_are_closed_though_they_cannot_be_removed(opening, monkeypatch):
    monkeypatch.setattr(compaction, "RUNS_MAX", 1)
    unlink = os.unlink

    def stubborn(path: str) -> None:
        if path.endswith((".run", ".seg")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        unlink(path)

    with opening() as store:
        for turn in range(3):
            store.create(f"{turn}", data=bytes(3000))
            store.engine.upkeep.cluster()
        store.delete("1")
        with monkeypatch.context() as patch:
            patch.setattr(files.os, "unlink", stubborn)
            with pytest.raises(StoreUnreadable):
                store.compact()
        assert len(list(Path(store.engine.path).glob("*.run"))) > 1
        store.compact()
        assert len(list(Path(store.engine.path).glob("*.run"))) == 1


def test_what_was_begun_is_removed_though_no_directory_can_be_listed():
    """A process that may open no more files cannot list its directories, either."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=bytes(3000))
        store.engine._committer.roll()
        before = twin.names()
        twin.hooks["rename"] = failing(errno.EMFILE)
        names = twin.names

        def listed() -> list[str]:
            return failing(errno.EMFILE)(names) if ("rename", "00000001.seg.tmp") in twin.calls else names()

        twin.names = listed
        with pytest.raises(OSError, match="Too many"):
            store.engine.upkeep.checkpointer.run()
        twin.names = names
        assert twin.names() == before
        twin.hooks.clear()


# --- refusals


def test_a_read_that_fails_in_a_commit_refuses_its_request_by_name():
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=b"x")
    with open_store(twin, CALM, Clock()) as store:
        twin.hooks["read"] = failing(errno.EIO, 1)
        with pytest.raises(StoreUnreadable):
            store.create("a", content_type="text/plain")
        assert store.stats()["failure"] is None
        with pytest.raises(StreamExists):
            store.create("a", content_type="text/plain")


def test_figures_and_compactions_say_by_name_what_cannot_be_read(monkeypatch):
    twin, clock = TwinDirectory(), Clock()
    with open_store(twin, CALM, clock) as store:
        store.create("a", data=b"x", ttl=10)
        store.engine.upkeep.cluster()
        clock.now += 11
        twin.hooks["read"] = failing(errno.EIO)
        with pytest.raises(StoreUnreadable):
            store.compact()
        twin.hooks.clear()
        with monkeypatch.context() as patch:
            patch.setattr(twin, "sizes", lambda: failing(errno.EMFILE)(dict))
            with pytest.raises(StoreUnreadable):
                store.stats()


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_a_process_that_may_open_no_more_files_refuses_appends_and_latches_nothing(error):
    twin = TwinDirectory()
    with open_store(twin, replace(CALM, segment_bytes=512 * 1024), Clock()) as store:
        stream = store.create("a")
        store.create("b")
        twin.hooks["create"] = failing(error)

        def fill() -> None:
            for _ in range(30):
                stream.append(bytes(30_000))

        with pytest.raises(StoreUnreadable, match="limit of open files"):
            fill()
        tail = stream.info().tail
        store.delete("b")
        twin.hooks.clear()
        assert stream.append(b"x").offset == tail
        store.engine.check()


# --- uses


def test_a_use_that_found_no_room_is_no_good_end():
    """The store said that it had been closed well, so whoever opened it gave the stream no more time."""
    clock, twin = Clock(), TwinDirectory()
    store = open_store(twin, replace(CALM, cluster_at_close=False), clock)
    store.create("a", data=b"x", ttl=600)
    clock.now += 590
    store.stream("a").read()
    twin.hooks["commit"] = no_space
    store.close()
    clock.now += 30
    with open_store(copy_of(twin), CALM, clock) as reopened:
        assert reopened.stream("a").read().data == b"x"


def test_a_use_is_not_forgotten_when_its_stream_leaves_memory_before_it_was_written(monkeypatch):
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    clock, twin = Clock(), TwinDirectory()
    with open_store(twin, CALM, clock) as store:
        store.create("a", data=b"x", ttl=600)
        store.create("other")
        store.engine.upkeep.cluster()
        clock.now += 590
        store.stream("a").read()
        with store.engine._committer.exclusive():
            store.engine._catalog.evict()
            store.engine._catalog.evict()
        store.stream("other").append(b"carries the use")
    clock.now += 30
    with open_store(copy_of(twin), CALM, clock) as reopened:
        assert reopened.stream("a").read().data == b"x"


def test_a_use_of_a_stream_that_left_memory_is_noted_without_a_read(monkeypatch):
    """The read failed, inside of a commit, and the store latched."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    clock, twin = Clock(), TwinDirectory()
    with open_store(twin, CALM, clock) as store:
        store.create("a", data=b"x", ttl=600)
        store.engine.upkeep.cluster()
        other = store.create("other")
        state = store.engine._catalog.get("a")
        with store.engine._committer.exclusive():
            store.engine._catalog.evict()
        store.engine._committer.save_use(state)
        twin.hooks["read"] = failing(errno.EIO)
        other.append(b"x")
        assert store.stats()["failure"] is None
