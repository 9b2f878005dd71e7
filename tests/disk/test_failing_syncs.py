"""Syncs that fail: the pages are clean then, on disk or not, shown or not. Nothing is acknowledged in vain."""

from __future__ import annotations

import errno
from random import Random
from typing import Any

import pytest
from crashes import decisions
from failing import FailingDirectory, Failure
from hunt import IMAGES, SEED, Broken, hunt_failing_syncs
from recorded import RecordedDirectory, RecordedFile
from script import Script
from twins import Clock, open_store
from workloads import WORKLOADS

from durable_log.engine.files import SyncFailed
from durable_log.errors import CommitFailed, Corruption
from durable_log.model import Append, Producer

pytestmark = pytest.mark.usefixtures("quiet_engines")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_whatever_a_failing_sync_leaves_keeps_every_promise(workload, record_property):
    images = hunt_failing_syncs(workload, SEED, part=min(1.0, IMAGES / 150_000))
    record_property("images of crashes after a sync that failed", images)
    assert images >= 0


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "dropped"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT], ids=["io", "space", "quota"])
def test_an_append_whose_sync_failed_is_unknown_and_its_retry_after_opening_is_not_acknowledged_in_vain(error, shown):
    claim = Append("a", b"2", Producer("p", 0, 0))
    script, failure = _failing_at_the_next_sync(error, shown=shown)
    with pytest.raises(CommitFailed):
        script.store.engine.execute(claim)
    assert script.store.stream("a").read().data == b"1"
    with pytest.raises(CommitFailed):
        script.store.engine.execute(Append("a", b"3"))
    disk = script.directory
    again = RecordedDirectory(disk.shown(), media=disk.media)
    store = open_store(again, script.options, Clock())
    assert store.engine.execute(claim).duplicate == shown
    for _, files in decisions(again.media, Random(0), 100):
        assert open_store(RecordedDirectory(files), script.options, Clock()).stream("a").read().data == b"12"
    assert failure.number == disk.syncs


def _failing_at_the_next_sync(error: int, *, shown: bool) -> tuple[Script, Failure]:
    """A store with one stream, whose next sync fails, and nothing of what it was to cover is on disk."""
    directory = FailingDirectory(Failure(0, error, "nothing", shown), Random(0))
    script = Script(Random(0), directory)
    script.open()
    script.create("a", b"1")
    directory.failure = directory.failure._replace(number=directory.syncs + 1)
    return script, directory.failure


def test_a_sync_that_is_tried_again_is_found(monkeypatch):
    commit = RecordedFile.commit

    def stubborn(self: RecordedFile, block: bytearray, info: Any, sync: bool) -> int:
        try:
            return commit(self, block, info, sync)
        except SyncFailed:
            self.sync()
            return 0

    monkeypatch.setattr(RecordedFile, "commit", stubborn)
    with pytest.raises((Broken, Corruption)):
        hunt_failing_syncs("small_appends", SEED, part=1.0)
