"""Checkpoints and compaction beside everything else: failures half-way, readers, what happens meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from stores import CLUSTERED_AT_CLOSE, Disk, open_quietly, quiet
from twins import (
    SMALL,
    Barrier,
    Clock,
    Task,
    TwinDirectory,
    copy_of,
    no_space,
    open_files,
    open_store,
    until,
    write_error,
)

from durable_log.engine import catalog, checkpoint, compaction, run_format
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.errors import CommitFailed, StoreClosed, StoreFull, StoreUnreadable

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
COLD = replace(CALM, recent_bytes_max=1)
"""Nothing is read from memory."""


def no_space_for(twin: TwinDirectory, suffix: str, times: int = 10**9) -> None:
    """From now on, no file with such a name can be made, or ``times`` of them."""
    left = [times]

    def hook(proceed):
        if not twin.calls[-1][1].endswith(suffix) or not left[0]:
            return proceed()
        left[0] -= 1
        return no_space(proceed)

    twin.hooks["create"] = hook


def test_a_disk_that_has_no_room_for_a_new_segment_latches_nothing_when_clustering():
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=b"one")
        twin.hooks["create"] = no_space
        with pytest.raises(OSError, match="space"):
            store.engine.upkeep.cluster()
        twin.hooks.clear()
        store.stream("a").append(b"two")
        store.engine.upkeep.cluster()
        assert store.stream("a").read().data == b"onetwo"


def test_a_segment_goes_only_when_rows_that_name_its_successor_count():
    """The rows of an attempt that failed could not be written; the next attempt finds nothing left to move."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for name in ("stays", "goes"):
            store.create(name, data=bytes(1000))
        store.engine.upkeep.cluster()
        store.delete("goes")
        store.engine.upkeep.cluster()
        no_space_for(twin, ".run.tmp")
        with pytest.raises(StoreFull):
            store.engine.upkeep.compact()
        twin.hooks.clear()
        store.engine.upkeep.compact()
        killed = copy_of(twin)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("stays").read().data == bytes(1000)


def test_a_checkpoint_that_fails_again_and_again_takes_no_more_room():
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=bytes(10_000))
        store.create("b", data=bytes(10_000), ttl=1000)
        for failing in (".run.tmp", "MANIFEST.tmp"):
            no_space_for(twin, failing)
            for _ in range(3):
                with pytest.raises(OSError, match="space"):
                    store.engine.upkeep.cluster()
        assert sum(name.endswith(".seg") for name in twin.names()) == 2
        twin.hooks.clear()
        store.engine.upkeep.cluster()
        assert sum(name.endswith(".seg") for name in twin.names()) == 2
        assert store.stats()["clustered_live_bytes"] == 20_000


def test_a_clustered_segment_that_fails_takes_those_before_it_along():
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=bytes(10_000))
        store.create("b", data=bytes(10_000), ttl=1000)
        twin.hooks["create"] = lambda proceed: (
            no_space(proceed) if sum(name.endswith(".seg") for name in twin.names()) else proceed()
        )
        for _ in range(3):
            with pytest.raises(OSError, match="space"):
                store.engine.upkeep.cluster()
        assert not [name for name in twin.names() if name.endswith(".seg")]


def test_a_compaction_goes_on_only_when_the_checkpoint_before_it_is_finished():
    """Else that would finish later, with rows that name a segment which is not there any more."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for name in ("stays", "goes"):
            store.create(name, data=bytes(1000))
        store.engine.upkeep.cluster()
        store.delete("goes")
        store.stream("stays").append(b"more")
        no_space_for(twin, ".run.tmp", times=1)
        with pytest.raises(StoreFull):
            store.engine.upkeep.compact()
        twin.hooks.clear()
        store.engine.upkeep.compact()
        killed = copy_of(twin)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("stays").read().data == bytes(1000) + b"more"


@pytest.mark.parametrize("failures", range(1, 5))
def test_what_a_checkpoint_leaves_is_counted_before_segments_are_rewritten(failures):
    """One that had failed half-way was finished after the count: its segment seemed to be dead, and was removed."""
    twin, left = TwinDirectory(), [failures]

    def unreadable(proceed):
        if not twin.calls[-1][1].endswith(".seg") or not left[0]:
            return proceed()
        left[0] -= 1
        raise OSError(5, "Input/output error")

    with open_store(twin, COLD, Clock()) as store:
        store.create("a", data=b"stays")
        twin.hooks["read"] = unreadable
        with pytest.raises(StoreUnreadable, match="Input/output"):
            store.engine.upkeep.compact()
        twin.hooks.clear()
        assert store.stream("a").read().data == b"stays"
        killed = copy_of(twin)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("a").read().data == b"stays"


def test_the_number_of_a_file_that_may_count_is_never_given_to_another():
    """The manifest was renamed, its directory not synced: it may be the one in force after a crash, and names a run."""
    twin = TwinDirectory()
    made: list[str] = []
    with open_store(twin, CALM, Clock()) as store:
        for turn in range(3):
            store.create(f"s{turn}", data=b"x")
            store.engine.upkeep.cluster()

        def unknown(proceed):
            if ("rename", "MANIFEST.tmp") in twin.calls[-2:]:
                raise OSError(5, "Input/output error")
            proceed()

        twin.calls.clear()
        twin.hooks["sync directory"] = unknown
        with pytest.raises(StoreUnreadable, match="Input/output"):
            store.engine.upkeep.compact()
        made += [name for what, name in twin.calls if what == "rename" and name.endswith((".run.tmp", ".seg.tmp"))]
        twin.hooks.clear()
        twin.calls.clear()
        store.create("later")
        store.engine.upkeep.compact()
        made += [name for what, name in twin.calls if what == "rename" and name.endswith((".run.tmp", ".seg.tmp"))]
    assert len(made) > 1
    assert len(made) == len(set(made))


# --- readers


def while_it(twin: TwinDirectory, what: str, meanwhile, look):
    """Look at a store; before the first ``what`` of a file, ``meanwhile`` happens, once."""
    done = []

    def hook(proceed):
        if not done:
            done.append(True)
            meanwhile()
        return proceed()

    twin.hooks[what] = hook
    found = look()
    twin.hooks.clear()
    assert done
    return found


def read_while(twin: TwinDirectory, what: str, store, meanwhile):
    return while_it(twin, what, meanwhile, lambda: store.stream("a").read().data)


def on_disk(tmp_path) -> TwinDirectory:
    return TwinDirectory(DiskDirectory(tmp_path))


def test_a_read_whose_log_segment_is_closed_under_it_begins_anew(tmp_path):
    with open_store(on_disk(tmp_path), COLD, Clock()) as store:
        store.create("a", data=bytes(1000))
        store.create("b", data=b"b")
        twin = store.engine._directory
        assert read_while(twin, "read", store, store.engine.upkeep.cluster) == bytes(1000)


def test_a_read_whose_clustered_segment_is_closed_under_it_begins_anew(tmp_path):
    with open_store(on_disk(tmp_path), COLD, Clock()) as store:
        store.create("a", data=bytes(1000))
        store.create("b", data=bytes(1000))
        store.engine.upkeep.cluster()
        store.delete("b")
        twin = store.engine._directory
        assert read_while(twin, "read", store, store.engine.upkeep.compact) == bytes(1000)


def test_a_read_of_a_stream_that_was_let_go_under_it_begins_anew(tmp_path, monkeypatch):
    """Its index is that of a state that nobody keeps up to date any more."""
    monkeypatch.setattr(catalog, "IDLE_MAX", 0)
    with open_store(on_disk(tmp_path), COLD, Clock()) as store:
        for name in ("a", "b", "c"):
            store.create(name, data=bytes(1000))
        store.engine.upkeep.cluster()
        store.delete("b")

        def let_go_and_move() -> None:
            store.engine.upkeep.sweep()
            store.engine.upkeep.compact()

        store.stream("a").info()
        assert read_while(store.engine._directory, "read", store, let_go_and_move) == bytes(1000)


def test_the_bounds_of_a_record_are_found_though_its_segment_goes_meanwhile(tmp_path):
    with open_store(on_disk(tmp_path), COLD, Clock()) as store:
        store.create("a", content_type="application/json")
        for value in range(3):
            store.stream("a").append_json("x" * 400 * (value + 1))
        store.create("b", data=bytes(1000))
        store.engine.upkeep.cluster()
        store.delete("b")
        twin, engine = store.engine._directory, store.engine
        assert while_it(twin, "read", engine.upkeep.compact, lambda: engine.record_bounds("a", 500)) == (403, 1206)


def test_figures_are_given_while_segments_go(monkeypatch):
    """The table of segments changes between the listing of its numbers and the look at each."""
    with open_store(TwinDirectory(), CALM, Clock()) as store:
        store.create("a", data=b"x")
        store.engine._committer.roll()

        class Vanishing(dict):
            def __iter__(self):
                numbers = list(super().__iter__())
                self.clear()
                return iter(numbers)

        segments = store.engine._reader.segments
        store.engine._reader.segments = Vanishing(segments)
        store.engine.upkeep.checkpointer.debt()
        store.engine._reader.segments = segments


# --- the end of the store


def test_a_store_is_closed_only_when_its_clustering_has_ended():
    """Whoever opens it next would find files changed by a process that does not hold the lock any more."""
    twin, barrier = TwinDirectory(), Barrier()
    store = open_store(twin, CALM, Clock())
    store.create("a", data=b"x")
    twin.hooks["create"] = lambda proceed: barrier(proceed) if twin.calls[-1][1].endswith(".seg.tmp") else proceed()
    clustering = Task(store.engine.upkeep.cluster)
    barrier.wait()
    closing = Task(store.close)
    until(lambda: store.engine._closed, "closing")
    assert not closing.done
    barrier.let_go()
    clustering.result()
    closing.result()
    assert all(what != "close" or index > twin.calls.index(("rename", "MANIFEST.tmp"))
               for index, (what, name) in enumerate(twin.calls) if name.endswith(".seg"))  # fmt: skip
    with pytest.raises(StoreClosed):
        store.engine.upkeep.cluster()
    with open_store(twin.inner, CALM, Clock()) as again:
        assert again.stream("a").read().data == b"x"


# --- the log


def test_a_sealed_segment_without_blocks_that_count_is_clustered_too():
    """After a cut before its first block, the log went on in a new segment."""
    directory = MemoryDirectory()
    with open_store(directory, CALM, Clock()) as store:
        store.create("a", data=b"one")
        store.engine._committer.roll()
        store.stream("a").append(b"two")
        torn = copy_of(directory)
    file = torn.files["00000002.log"]
    file.write(4096 + 64, bytes(byte ^ 0xFF for byte in file.read(4096 + 64, 8)))
    with open_store(torn, CALM, Clock()) as store:
        assert (store.report.cut, store.stream("a").read().data) == (True, b"one")
        assert store.engine.upkeep.checkpointer.run()
        store.stream("a").append(b"three")
        store.engine.upkeep.cluster()
        killed = copy_of(torn)
    with open_store(killed, CALM, Clock()) as store:
        assert store.report.damage == []
        assert store.stream("a").read().data == b"onethree"


def test_what_was_written_before_a_roll_that_found_no_room_is_seen_and_kept():
    """The roll had synced it, and the commit that was to publish it was refused."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        stream = store.create("a", data=bytes(32 * 1024))
        store.engine.upkeep.cluster()
        twin.hooks["commit"] = lambda proceed: no_space(proceed) if "3.log" in twin.calls[-1][1] else proceed()
        tail, full = 32 * 1024, False
        while not full:
            try:
                tail = stream.append(bytes(8 * 1024), durability="written").next_offset
            except StoreFull:
                full = True
        twin.hooks.clear()
        until(lambda: stream.info().tail == tail, "the written bytes to be seen")
        store.engine.upkeep.cluster()
        killed = copy_of(twin)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("a").info().tail == tail
        store.engine.check()


# --- what is dead


def at_the_first_pause(monkeypatch, action) -> None:
    """``action`` happens once, in the middle of the next checkpoint."""
    left = [action]
    monkeypatch.setattr(checkpoint, "pause", lambda: left.pop()() if left else None)


def test_what_was_dead_when_the_manifest_was_written_is_not_counted_again_at_open(monkeypatch):
    """Below nothing, the count had no place in the manifest, and there was no checkpoint any more."""
    directory = MemoryDirectory()
    with open_store(directory, CALM, Clock()) as store:
        store.create("a", data=bytes(1000))
        store.create("b", data=bytes(1000))
        store.engine.upkeep.cluster()
        store.create("c", data=b"c")
        at_the_first_pause(monkeypatch, lambda: (store.delete("a"), store.delete("b")))
        store.engine.upkeep.cluster()
        killed = copy_of(directory)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stats()["clustered_live_bytes"] == 1
        store.create("d", data=b"d")
        store.engine.upkeep.cluster()


def test_a_stream_that_goes_before_its_bytes_count_is_counted_as_dead(monkeypatch):
    with open_store(MemoryDirectory(), CALM, Clock()) as store:
        store.create("a", data=bytes(1000))
        store.create("b", data=b"b")
        at_the_first_pause(monkeypatch, lambda: store.delete("a"))
        store.engine.upkeep.cluster()
        assert store.stats()["clustered_live_bytes"] == 1


def test_a_life_that_was_over_before_the_checkpoint_is_counted_as_dead_though_its_name_lives_again():
    with open_store(MemoryDirectory(), CALM, Clock()) as store:
        for turn in range(3):
            store.create("a", data=bytes(1000 * (turn + 1)), expires_at=1_900_000_000.0 + 10)
            if turn < 2:
                store.delete("a")
        store.engine.upkeep.cluster()
        assert store.stats()["clustered_live_bytes"] == 3000


# --- rows


def test_a_row_does_not_grow_with_the_records_that_its_stream_has_in_the_log(monkeypatch):
    """With some ten thousands of them, it was too large, and no checkpoint succeeded any more."""
    monkeypatch.setattr(run_format, "PAYLOAD_BYTES_MAX", 1000)
    directory = MemoryDirectory()
    with open_store(directory, CALM, Clock()) as store:
        stream = store.create("a", data=b"first")
        store.engine._committer.roll()
        for _ in range(100):
            stream.append(b"x")
        assert store.engine.upkeep.checkpointer.run()
        stream.append(b"y")
        killed = copy_of(directory)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("a").read().data == b"first" + b"x" * 100 + b"y"
        store.engine.check()
        store.engine.upkeep.cluster()
        assert store.stream("a").read().data == b"first" + b"x" * 100 + b"y"


class Interrupted(set):
    """Is interrupted once when something is noted in it."""

    done = False

    def update(self, *others):
        if not self.done:
            self.done = True
            raise KeyboardInterrupt
        super().update(*others)


def test_a_checkpoint_that_is_interrupted_when_its_log_has_left_is_finished_by_the_next():
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=b"one")
        upkeep = store.engine.upkeep
        upkeep.checkpointer.long = Interrupted()
        with pytest.raises(KeyboardInterrupt):
            upkeep.cluster()
        store.stream("a").append(b"two")
        upkeep.cluster()
        names = twin.names()
        assert [len([name for name in names if name.endswith(suffix)]) for suffix in (".log", ".run")] == [1, 2]
        with open_store(copy_of(twin), CALM, Clock()) as killed:
            assert killed.stream("a").read().data == b"onetwo"
            killed.engine.check()
    with open_store(twin, CALM, Clock()) as store:
        assert store.stream("a").read().data == b"onetwo"


def test_a_store_that_is_closed_after_an_interrupted_checkpoint_leaves_nothing_open(tmp_path):
    before = open_files()
    store = open_store(on_disk(tmp_path), replace(CALM, cluster_at_close=False), Clock())
    store.create("a", data=b"one")
    store.engine.upkeep.checkpointer.long = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        store.engine.upkeep.cluster()
    store.close()
    assert open_files() == before
    with open_store(on_disk(tmp_path), CALM, Clock()) as again:
        assert again.stream("a").read().data == b"one"


def test_a_life_that_ends_while_another_of_its_name_waits_to_be_forgotten_is_not_forgotten_with_it(monkeypatch):
    """Its row comes with the next checkpoint, and until then nobody may find the older one."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=b"first")
        store.create("b", data=b"b")
        store.engine.upkeep.cluster()
        store.delete("a")
        edits = store.engine.upkeep.checkpointer.edits
        settle = edits.settle

        def live_and_die_again(*arguments):
            monkeypatch.undo()
            store.create("a", data=b"second")
            store.delete("a")
            settle(*arguments)

        monkeypatch.setattr(edits, "settle", live_and_die_again)
        store.stream("b").append(b"!")
        store.engine.upkeep.cluster()
        assert list(store.names()) == ["b"]
        assert [state.name for state in store.engine._catalog.removed()] == ["a"]
        with open_store(copy_of(twin), CALM, Clock()) as killed:
            assert list(killed.names()) == ["b"]
        store.engine.upkeep.cluster()
        assert store.engine._catalog.removed() == []
        store.engine.check()


def test_an_empty_segment_that_is_left_gets_a_mark_as_only_the_last_one_may_be_without_a_block():
    twin = TwinDirectory()
    with open_store(twin, replace(CALM, cluster_at_close=False), Clock()) as store:
        store.create("a", data=b"data")
        for _ in range(2):
            committer = store.engine._committer
            with committer.exclusive():
                segment = committer._writer._next_segment(committer._writer.segment.number + 1, 8192)
                committer._writer.enter(segment, 0.0)
        killed = copy_of(twin)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("a").read().data == b"data"
        assert not store.report.damage


def test_lives_that_begin_and_end_while_a_checkpoint_goes_on_are_what_their_rows_and_the_log_say_together(monkeypatch):
    """Their rows know more than the log says of them up to there: it is read over them after a kill."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("x", data=b"first life")
        changes = [
            lambda: store.delete("x"),
            lambda: store.create("y", data=b"source"),
            lambda: store.create("x", fork_of="y", fork_at=3),
            lambda: store.delete("y"),
        ]

        def meanwhile():
            while changes:
                changes.pop(0)()

        monkeypatch.setattr(checkpoint, "pause", meanwhile)
        store.engine.upkeep.cluster()
        assert not changes
        killed = copy_of(twin)
        for opened in (store, open_store(killed, CALM, Clock())):
            assert list(opened.names()) == ["x"]
            assert opened.stream("x").read().data == b"sou"
            assert opened.engine._catalog.get("x").fork.source.forks == 1
            opened.engine.check()
        opened.delete("x")
        assert len(opened.engine) == 0
        opened.compact()
        assert opened.stats()["clustered_segments"] == 0
        opened.close()


def test_a_life_that_a_checkpoint_knows_to_be_over_is_followed_to_its_end_for_the_sake_of_its_source(monkeypatch):
    """The log, which is read over the rows after a kill, tells of it once more."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("x", data=b"first life")
        store.create("source", data=b"source")
        changes = [
            lambda: store.delete("x"),
            lambda: store.create("x", fork_of="source", fork_at=3),
            lambda: store.delete("source"),
            lambda: store.delete("x"),
        ]

        def meanwhile():
            while changes:
                changes.pop(0)()

        monkeypatch.setattr(checkpoint, "pause", meanwhile)
        store.engine.upkeep.cluster()
        assert not changes
        with open_store(copy_of(twin), CALM, Clock()) as killed:
            assert list(killed.names()) == []
            assert len(killed.engine) == len(store.engine) == 0
            killed.engine.check()
            killed.create("x", data=b"next life")
            killed.compact()
            assert killed.stats()["clustered_live_bytes"] == 9


def test_a_close_merges_small_segments(monkeypatch):
    quiet(monkeypatch)
    disk = Disk()
    store = open_quietly(disk, replace(CLUSTERED_AT_CLOSE, sweep_seconds=3600.0))
    store.create("a")
    for turn in range(compaction.SMALL_MAX):
        assert len([name for name in disk.names() if name.endswith(".seg")]) == turn
        store.stream("a").append(b"%d" % turn)
        if turn < compaction.SMALL_MAX - 1:
            store.engine.upkeep.cluster()
    store.close()
    assert len([name for name in disk.names() if name.endswith(".seg")]) == 1
    again = open_quietly(disk)
    assert again.stream("a").read().data == b"".join(b"%d" % turn for turn in range(compaction.SMALL_MAX))
    again.close()


def test_nothing_is_clustered_once_a_write_has_failed():
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        store.create("a", data=b"one")
        store.engine._committer.roll()
        store.engine.upkeep.checkpointer._sealed_since = -1e12
        assert store.engine.upkeep.checkpointer.due()
        twin.hooks["commit"] = write_error
        with pytest.raises(CommitFailed):
            store.stream("a").append(b"two")
        before = twin.names()
        store.engine.upkeep._cluster_if_due()
        assert twin.names() == before
        assert store.stream("a").read().data == b"one"


def test_a_stream_that_is_deleted_while_its_segment_is_rewritten_stays_deleted(monkeypatch):
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for name, size in (("a", 1000), ("b", 1000), ("dead", 5000)):
            store.create(name, data=bytes(size))
        store.engine.upkeep.cluster()
        store.delete("dead")
        store.engine.upkeep.cluster()
        compactor = store.engine.upkeep._compactor
        copy = compactor._copy

        def amid(*arguments):
            store.delete("a")
            return copy(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(compactor, "_copy", amid)
            assert compactor.step()
        for opened in (store, open_store(copy_of(twin), CALM, Clock())):
            assert list(opened.names()) == ["b"]
            assert opened.stream("b").read().data == bytes(1000)
            opened.engine.check()
        opened.close()


@pytest.mark.parametrize("last", ["deleted", "appended to"])
def test_a_long_chain_of_forks_is_opened_after_a_kill_whatever_the_log_says_of_its_end(last: str):
    directory = MemoryDirectory()
    with open_store(directory, CALM, Clock()) as store:
        store.create("0", data=b"text")
        for level in range(1, 401):
            store.create(str(level), fork_of=str(level - 1))
        store.create("other", data=b"acknowledged")
        store.engine.upkeep.cluster()
        if last == "deleted":
            store.delete("400")
        else:
            store.stream("400").append(b" and more")
        killed = copy_of(directory)
    with open_store(killed, CALM, Clock()) as store:
        assert store.stream("other").read().data == b"acknowledged"
        store.engine.upkeep.cluster()
        deepest = "399" if last == "deleted" else "400"
        assert store.stream(deepest).read().data == (b"text" if last == "deleted" else b"text and more")
        assert len(list(store.names())) == (401 if last == "deleted" else 402)
        store.engine.check()
