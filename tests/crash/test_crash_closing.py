"""The close that clusters, and what opening makes of a log that no close has clustered."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from test_crash_clustering import CALM, STEPS, check, files_of, fill, named_by_the_manifest
from twins import Clock, TwinDirectory, copy_of, open_store

from durable_log.engine.compaction import RUNS_MAX, SMALL_MAX
from durable_log.engine.files import MemoryDirectory
from durable_log.store import Store

ABRUPT = replace(CALM, cluster_at_close=False)


class InPlace(MemoryDirectory):
    """Its segments are recycled."""

    grows_in_place = True


def copy_in_place(directory: TwinDirectory) -> InPlace:
    copied = InPlace()
    copied.files = copy_of(directory).files
    return copied


def reopened(directory: MemoryDirectory, truth: dict[str, bytes]) -> None:
    with open_store(directory, CALM, Clock()) as store:
        assert store.report.damage == store.report.lost == []
        check(store, truth)
        assert files_of(directory) == named_by_the_manifest(directory)
        fill(store, truth, 7)
        check(store, truth)
    with open_store(directory, CALM, Clock()) as store:
        check(store, truth)


def closing(twin: TwinDirectory) -> tuple[Store, dict[str, bytes]]:
    """A store with rows, clustered segments and a log, which is about to be closed."""
    truth: dict[str, bytes] = {}
    store = open_store(twin, replace(CALM, preallocate=True), Clock())
    for turn in range(2):
        fill(store, truth, turn)
        store.engine.upkeep.cluster()
    fill(store, truth, 2)
    return store, truth


@pytest.mark.parametrize("directory", [MemoryDirectory, InPlace])
def test_a_kill_between_any_two_steps_of_a_close_loses_nothing(directory):
    step, killed = 0, True
    while killed:
        twin, images, left = TwinDirectory(directory()), [], [step]
        store, truth = closing(twin)

        def hook(proceed, twin=twin, images=images, left=left):
            if left[0] == 0:
                images.append(copy_in_place(twin))
            left[0] -= 1
            return proceed()

        twin.hooks |= dict.fromkeys(STEPS, hook)
        store.close()
        killed = bool(images)
        reopened(images[0] if killed else copy_in_place(twin), truth)
        step += 1
    assert step > 10


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("suffix", [".seg.tmp", ".run.tmp", "MANIFEST.tmp"])
def test_a_close_that_cannot_cluster_leaves_the_log(suffix, error):
    twin = TwinDirectory()
    store, truth = closing(twin)

    def failing(proceed):
        if twin.calls[-1][1].endswith(suffix):
            raise OSError(error, os.strerror(error))
        return proceed()

    twin.hooks["create"] = failing
    store.close()
    twin.hooks.clear()
    reopened(copy_of(twin), truth)


def test_a_close_leaves_nothing_to_replay_and_writes_nothing_where_nothing_changed():
    twin = TwinDirectory()
    store, truth = closing(twin)
    store.close()
    twin.calls.clear()
    with open_store(twin, CALM, Clock()) as store:
        assert (store.report.records, store.report.blocks) == (0, 0)
        check(store, truth)
    assert not [name for what, name in twin.calls if what == "create" and not name.endswith(".log.tmp")]


def test_a_store_that_is_closed_often_has_few_files():
    directory = MemoryDirectory()
    for turn in range(3 * SMALL_MAX):
        with open_store(directory, CALM, Clock()) as store:
            store.create(f"s{turn}", data=b"%d" % turn)
            assert store.stats()["clustered_segments"] < SMALL_MAX
            assert store.stats()["catalog_runs"] <= RUNS_MAX
    with open_store(directory, CALM, Clock()) as store:
        for turn in range(3 * SMALL_MAX):
            assert store.stream(f"s{turn}").read().data == b"%d" % turn


def killed_with_records(count: int) -> MemoryDirectory:
    """Three streams with rows, and the log has more of two of them."""
    directory = MemoryDirectory()
    store = open_store(directory, ABRUPT, Clock())
    for name in "abc":
        store.create(name, data=b"old")
    store.engine.upkeep.cluster()
    for _ in range(count):
        store.stream("a").append(b"x", durability="written")
    store.stream("b").append(b"new")
    killed = copy_of(directory)
    store.close()
    return killed


def test_records_wait_for_their_stream_and_the_first_checkpoint_wakes_the_rest():
    with open_store(killed_with_records(5), ABRUPT, Clock()) as store:
        assert store.stats()["resident_streams"] == 0
        assert store.stream("b").read().data == b"oldnew"
        assert store.stats()["resident_streams"] == 1
        store.engine.upkeep.cluster()
        assert store.engine._catalog.catch_up is None
        assert store.stats()["resident_streams"] == 2
        assert store.stream("a").read().data == b"oldxxxxx"
        assert store.stream("c").read().data == b"old"


@pytest.mark.parametrize("count", [1, 2000])
def test_a_look_up_of_what_waits_in_the_log_is_not_for_an_event_loop(count):
    with open_store(killed_with_records(count), ABRUPT, Clock()) as store:
        with pytest.raises(BlockingIOError):
            store.engine.info("a", wait=False)
        assert store.engine.info("a").tail == 3 + count
        assert store.engine.info("a", wait=False).tail == 3 + count


def test_what_opening_has_made_durable_is_marked_so_that_damage_to_it_is_no_torn_tail():
    """Nobody appends after the crash. The next opening tells what went bad from what never was whole."""
    directory = MemoryDirectory()
    with open_store(directory, ABRUPT, Clock()) as store:
        store.create("a", data=b"clustered")
        store.engine.upkeep.cluster()
        store.stream("a").append(b"acknowledged")
        last = store.engine._writer.segment
        at, killed = last.end - 4096, copy_of(directory)
    open_store(killed, ABRUPT, Clock()).close()
    killed.files[last.file.name]._bytes[at + 90] ^= 1
    with open_store(killed, ABRUPT, Clock()) as store:
        assert [damage.start & 0xFFFFFFFF for damage in store.report.damage] == [at]
        assert not store.report.cut


def test_a_log_that_ends_before_what_the_manifest_knows_to_be_durable_is_damaged():
    """No block stands behind the damage to tell of it; and what is appended later does not hide it."""
    directory = InPlace()
    with open_store(directory, ABRUPT, Clock()) as store:
        store.create("a", data=b"clustered")
        store.engine.upkeep.cluster()
        store.stream("a").append(b"acknowledged")
        last, at = store.engine._writer.segment, store.engine._writer.position - 4096
        store.engine.upkeep.checkpointer.edits.save()
        killed = copy_in_place(directory)
    killed.files[last.file.name]._bytes[at : at + 4096] = bytes(range(256)) * 16
    for _ in range(3):
        with open_store(killed, ABRUPT, Clock()) as store:
            assert [damage.start & 0xFFFFFFFF for damage in store.report.damage] == [at]
            store.create("b", data=b"b")
            store.engine.upkeep.cluster()
        assert killed.files[last.file.name].read(at, 4096) == bytes(range(256)) * 16
