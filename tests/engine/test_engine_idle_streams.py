"""Streams that come and go from memory: the catalog beside commits, readers and sweeps that are under way."""

from __future__ import annotations

from dataclasses import replace

from twins import SMALL, Barrier, Clock, Task, TwinDirectory, open_store

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
