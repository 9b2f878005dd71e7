"""What is written in the background never leaves much to be synced, for which appends would wait."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

import durable_log
from durable_log.engine import files
from durable_log.engine.storage import UNSYNCED_BYTES_MAX

STEP_BYTES_MAX = 3 * 2**20
"""What one step of clustering writes at most, before it looks whether that is much."""


@pytest.fixture
def unsynced(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The most bytes of any one file that were written and not synced, since the last call."""
    dirty, most = defaultdict[int, int](int), [0]
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def count(fd: int, data: Any, position: int) -> int:
        written = pwrite(fd, data, position)
        dirty[fd] += written
        most[0] = max(most[0], dirty[fd])
        return written

    def clear(fd: int) -> None:
        fdatasync(fd)
        dirty[fd] = 0

    def taken() -> int:
        found, most[0] = most[0], 0
        dirty.clear()
        return found

    monkeypatch.setattr(files.os, "pwrite", count)
    monkeypatch.setattr(files.os, "fdatasync", clear)
    return taken


def no_links(*_arguments: Any, **_named: Any) -> None:
    raise OSError(files.errno.EXDEV, os.strerror(files.errno.EXDEV))


def test_clustering_compaction_and_backups_sync_as_they_go(tmp_path, unsynced, monkeypatch):
    options = durable_log.Options(cluster_segments=100, cluster_seconds=10_000, cluster_at_close=False)
    with durable_log.open(tmp_path / "store", options=options) as store:
        for number in range(16):
            store.create(f"s{number}", content_type="text/plain").append_many([b"x" * 1000] * 1000)
        unsynced()
        store.engine.upkeep.cluster()
        assert UNSYNCED_BYTES_MAX <= unsynced() <= UNSYNCED_BYTES_MAX + STEP_BYTES_MAX
        for number in range(0, 16, 4):
            store.delete(f"s{number}")
        store.compact()
        assert UNSYNCED_BYTES_MAX <= unsynced() <= UNSYNCED_BYTES_MAX + STEP_BYTES_MAX
        monkeypatch.setattr(files.os, "link", no_links)
        store.backup(tmp_path / "copy")
        assert UNSYNCED_BYTES_MAX <= unsynced() <= UNSYNCED_BYTES_MAX + STEP_BYTES_MAX
