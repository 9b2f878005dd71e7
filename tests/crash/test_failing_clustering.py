"""The disk fails at any step of clustering or compaction, once; what follows is as if it had not."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from test_crash_clustering import CALM, check, files_of, fill, named_by_the_manifest
from twins import Clock, TwinDirectory, copy_of, open_store

from durable_log.engine import checkpoint, compaction
from durable_log.engine.keeper import Background
from durable_log.errors import StoreFull, StoreUnreadable
from durable_log.store import Store

STRIDE = int(os.environ.get("DURABLE_LOG_STRIDE", "2"))
"""1 tries every step with both errors."""
STEPS = ("create", "write", "fill", "sync", "rename", "remove", "sync directory")


def cluster(store: Store) -> None:
    store.engine.upkeep.cluster()


def compact(store: Store) -> None:
    store.engine.upkeep.compact()


def failing_at(step: int, twin: TwinDirectory, error: int, *, done: bool) -> Callable[[], bool]:
    """Have the ``step``-th change of the files fail, ``done`` or not; returns whether it has come to that."""
    left = [step]

    def hook(proceed):
        left[0] -= 1
        if left[0] == -1:
            if done:
                proceed()
            raise OSError(error, os.strerror(error))
        return proceed()

    for what in STEPS:
        twin.hooks[what] = hook
    return lambda: left[0] < 0


def reopened(directory, truth: dict[str, bytes]) -> None:
    with open_store(directory, CALM, Clock()) as store:
        assert store.report.damage == store.report.lost == []
        check(store, truth)
        assert store.stats()["streams"] == len(truth)
        assert files_of(directory) == named_by_the_manifest(directory)


@pytest.mark.parametrize("work", [cluster, compact])
@pytest.mark.parametrize(("error", "done"), [(errno.ENOSPC, False), (errno.EIO, True)], ids=["space", "io"])
def test_a_failure_at_any_step_is_made_good_by_the_next_attempt(work, error, done, monkeypatch):
    monkeypatch.setattr(compaction, "RUNS_MAX", 1)
    monkeypatch.setattr(Background, "wake", lambda self: None)
    for module in (checkpoint, compaction):
        monkeypatch.setattr(module, "pause", lambda: None)
    step, failed = int(done and STRIDE > 1), True
    while failed:
        twin, truth = TwinDirectory(), {}
        with open_store(twin, CALM, Clock()) as store:
            for turn in range(3):
                fill(store, truth, turn)
                store.engine.upkeep.cluster()
            fill(store, truth, 3)
            has_failed = failing_at(step, twin, error, done=done)
            try:
                work(store)
            except (OSError, StoreFull, StoreUnreadable):
                assert has_failed()
            failed = has_failed()
            twin.hooks.clear()
            reopened(copy_of(twin), truth)
            work(store)
            reopened(copy_of(twin), truth)
            fill(store, truth, 4)
            work(store)
            check(store, truth)
            reopened(copy_of(twin), truth)
        step += STRIDE
    assert step > 10


def test_what_is_appended_after_a_kill_lies_behind_all_that_rows_know():
    """A compaction that could not cluster has written rows as of a log segment in which no block stands yet."""
    twin = TwinDirectory()
    store = open_store(twin, CALM, Clock())
    for name in ("a", "b"):
        store.create(name, data=b"1" * 5000)
    store.engine.upkeep.cluster()
    store.stream("a").append(b"2")
    store.delete("b")
    creations: list[str] = []

    def second_fails(proceed):
        creations.append("")
        if len(creations) == 2:  # the first is the log segment that the compaction rolls to
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return proceed()

    twin.hooks["create"] = second_fails
    with pytest.raises(StoreUnreadable):
        store.compact()
    assert len(creations) > 2
    first = open_store(copy_of(twin), CALM, Clock())
    first.stream("a").append(b"3")
    second = open_store(copy_of(first.engine._directory), CALM, Clock())
    assert second.stream("a").read().data == b"1" * 5000 + b"23"
    for opened in (store, first, second):
        opened.close()
