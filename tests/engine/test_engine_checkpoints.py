"""Checkpoints and compaction beside everything else: failures half-way, readers, what happens meanwhile."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twins import SMALL, Clock, TwinDirectory, copy_of, no_space, open_store

from durable_log.errors import StoreFull, StoreUnreadable

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)


def no_space_for(twin: TwinDirectory, suffix: str) -> None:
    """From now on, no file with such a name can be made."""
    twin.hooks["create"] = lambda proceed: no_space(proceed) if twin.calls[-1][1].endswith(suffix) else proceed()


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
