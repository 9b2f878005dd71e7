"""Looking after a whole store: figures, compaction, backups; by both faces."""

from __future__ import annotations

import re

import pytest

import durable_log
from durable_log import Backup, BackupFailed, Stats, StoreClosed
from durable_log.engine.counters import SYNC_NS


def test_every_figure_is_documented_and_no_other(store):
    documented = re.findall(r"^\s+``(\w+)``", Stats.__doc__, re.MULTILINE)
    assert documented == list(store.stats()) == list(Stats.__annotations__)


def test_syncs_are_counted_by_how_long_they_took(store):
    classes = [f"syncs_within_{ns // 1000}_us" for ns in SYNC_NS]
    assert [key for key in store.stats() if key.startswith("syncs_within_")] == classes
    for ns in (*SYNC_NS, SYNC_NS[-1] + 1):
        store.engine._committer.counters.synced(ns)
    stats = store.stats()
    assert [stats[each] for each in classes] == [*range(1, len(classes) + 1)]
    assert (stats["syncs"], stats["sync_seconds"]) == (len(classes) + 1, (sum(SYNC_NS) + SYNC_NS[-1] + 1) / 1e9)


def test_the_figures_tell_what_there_is(opened, tmp_path):
    store = opened(tmp_path / "store")
    for name in "abc":
        store.create(name, data=name.encode() * 10_000)
    before = store.stats()
    assert (before["streams"], before["clustered_segments"], before["catalog_runs"]) == (3, 0, 0)
    assert before["disk_bytes"] >= before["log_bytes"] == 4 * 2**20
    store.engine.upkeep.cluster()
    store.delete("b")
    after = store.stats()
    assert (after["streams"], after["clustered_live_bytes"], after["clustered_dead_bytes"]) == (2, 20_000, 10_000)
    assert (after["clustered_segments"], after["catalog_runs"], after["catalog_rows"]) == (1, 1, 3)
    assert after["clustering_debt_bytes"] == 0
    store.engine.upkeep.cluster()
    assert store.stats()["catalog_tombstones"] == 1


def test_what_was_deleted_is_given_back(opened, tmp_path):
    store = opened(tmp_path / "store")
    for name in "abc":
        store.create(name, data=name.encode() * 3_000_000)
    store.delete("a")
    store.delete("c")
    store.compact()
    assert store.stats()["disk_bytes"] < 3_000_000 + 4 * 2**20 + 100_000
    assert store.stream("b").read(2_999_999).data == b"b"
    assert list(store.names()) == ["b"]
    store.stream("b").append(b"!")
    assert store.stream("b").info().tail == 3_000_001


def test_a_backup_opens_as_the_store_that_it_was(opened, tmp_path):
    store = opened(tmp_path / "store")
    store.create("a", data=b"before")
    store.engine.upkeep.cluster()
    made = store.backup(tmp_path / "copy")
    assert isinstance(made, Backup)
    assert (made.files_linked, made.files_copied, made.streams) == (2, 1, 1)
    store.stream("a").append(b"after")
    with durable_log.open(tmp_path / "copy") as copy:
        assert copy.stream("a").read().data == b"before"
        assert copy.engine.store_id == store.engine.store_id
        copy.stream("a").append(b", and another after")
    assert store.stream("a").read().data == b"beforeafter"
    assert store.backup(str(tmp_path / "unread"), verify=False).streams == 1


def test_a_backup_that_cannot_be_says_why(opened, tmp_path):
    store = opened(tmp_path / "store")
    with pytest.raises(BackupFailed) as caught:
        store.backup(tmp_path)
    assert str(caught.value) == (
        f"no backup was made in {tmp_path}: it holds 'store' already; name a new or an empty directory"
    )
    assert (caught.value.target, caught.value.code) == (str(tmp_path), "backup_failed")
    store.close()
    for operation in (store.compact, lambda: store.backup(tmp_path / "copy")):
        with pytest.raises(StoreClosed):
            operation()
    assert not (tmp_path / "copy").exists()
