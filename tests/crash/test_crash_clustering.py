"""Crashes between any two steps of clustering and compaction: nothing is lost, no file is left over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from twins import SMALL, Clock, TwinDirectory, copy_of, open_store

from durable_log.engine.files import LOCK_NAME, MemoryDirectory
from durable_log.engine.manifest import MANIFEST_NAME, load_manifest
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
STEPS = ("create", "write", "fill", "sync", "rename", "remove", "sync directory", "commit", "mark")


class Killed(BaseException):
    """The process ends here."""


def fill(store: Store, truth: dict[str, bytes], turn: int) -> None:
    """Streams that come, grow, fork, are trimmed and go."""
    for number in range(12):
        name = f"s{number:02}"
        if name not in truth:
            store.create(name)
            truth[name] = b""
        data = bytes([turn]) * (700 * number + 1)
        store.stream(name).append(data)
        truth[name] += data
    store.create(f"fork{turn}", fork_of="s05", fork_at=len(truth["s05"]) // 2)
    truth[f"fork{turn}"] = truth["s05"][: len(truth["s05"]) // 2]
    for name in (f"s{turn % 12:02}", f"s{(turn + 7) % 12:02}"):
        if name != "s05":
            store.delete(name)
            del truth[name]


def check(store: Store, truth: dict[str, bytes]) -> None:
    assert list(store.names()) == sorted(truth)
    for name, content in truth.items():
        assert store.stream(name).read(limit=2**22).data == content, name
    store.engine.check()


def files_of(directory: MemoryDirectory) -> set[str]:
    return {name for name in directory.names() if name not in (LOCK_NAME, MANIFEST_NAME) and not name.endswith(".log")}


def named_by_the_manifest(directory: MemoryDirectory) -> set[str]:
    manifest = load_manifest(directory, 0)
    return {f"{file.number:08x}.seg" for file in manifest.clustered} | {f"{run:08x}.run" for run in manifest.runs}


def killed_at(step: int, work: Callable[[Store], None]) -> tuple[MemoryDirectory, dict[str, bytes], bool]:
    """The files as a kill before the ``step``-th change of ``work`` leaves them; whether there was such a change."""
    twin, truth, left = TwinDirectory(), {}, [step]
    images: list[MemoryDirectory] = []
    store = open_store(twin, CALM, Clock())
    for turn in range(3):
        fill(store, truth, turn)
        store.engine.upkeep.cluster()
    fill(store, truth, 3)

    def hook(proceed):
        if left[0] == 0:
            images.append(copy_of(twin))
        left[0] -= 1
        return proceed()

    for what in STEPS:
        twin.hooks[what] = hook
    work(store)
    twin.hooks.clear()
    check(store, truth)
    store.close()
    return images[0] if images else copy_of(twin), truth, bool(images)


@pytest.mark.parametrize(
    "work",
    [lambda store: store.engine.upkeep.cluster(), lambda store: store.engine.upkeep.compact()],
    ids=["cluster", "compact"],
)
def test_a_kill_between_any_two_steps_loses_nothing_and_leaves_no_file(work):
    step, killed = 0, True
    while killed:
        directory, truth, killed = killed_at(step, work)
        with open_store(directory, CALM, Clock()) as store:
            assert store.report.damage == []
            check(store, truth)
            assert files_of(directory) == named_by_the_manifest(directory)
            fill(store, truth, 4)
            store.engine.upkeep.cluster()
            check(store, truth)
        with open_store(directory, CALM, Clock()) as store:
            check(store, truth)
        step += 1
    assert step > 10
