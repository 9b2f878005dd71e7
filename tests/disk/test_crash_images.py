"""A crash at any write, sync or change of a name: whatever it leaves, the store opens and every promise holds."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from random import Random
from typing import Any

import pytest
from crashes import ALL_OF, Past, Promise, decisions, examine, moments
from expected import NOBODY
from hunt import EVENTS, IMAGES, SEED, Broken, crash_trail, hunt, hunt_images, repeat
from media import Media
from quiet import MADE_AT
from recorded import RecordedDirectory
from script import CALM, Step
from workloads import WORKLOADS, perform

from durable_log.engine.manifest import MANIFEST_NAME
from durable_log.engine.writer import LogWriter
from durable_log.errors import NotAStore

EACH = max(1, IMAGES // EVENTS)


pytestmark = pytest.mark.usefixtures("quiet_engines")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_whatever_a_crash_leaves_keeps_every_promise(workload, record_property):
    images = hunt_images(workload, SEED, EACH)
    record_property("images of crashes", images)
    assert images > 0


def images_of(media: Media) -> int:
    """How many a crash now could leave, by sectors that arrive or not, lengths and entries."""
    return prod(choice.radix for choice in media.crash().choices)


@pytest.mark.parametrize("workload", ["large_appends", "lives"])
def test_where_no_more_than_twelve_sectors_may_arrive_every_image_keeps_every_promise(workload, record_property):
    trail = crash_trail(workload, SEED)
    few = (moment for moment in trail.moments if 16 < images_of(moment.media) <= ALL_OF)
    images = hunt(trail._replace(moments=few), Random(SEED), 1, ALL_OF)
    record_property("images of crashes", images)
    assert images > 100


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_same_seed_leaves_the_same_trace(workload):
    assert perform(workload, SEED).directory.trace == perform(workload, SEED).directory.trace


def test_a_backup_is_no_store_until_it_is_a_whole_one():
    script, target = perform("checkpoints", SEED), RecordedDirectory()
    script.store.engine.upkeep.backups.fill(target, verify=True)
    past = Past([Step((), NOBODY), Step((), script.world)], sorted(script.world), CALM, grows_in_place=True)
    unfinished = whole = 0
    for moment in moments(target.trace):
        for _, files in decisions(moment.media, Random(moment.event), 12):
            promise = Promise(1 if files else 0, 1, MADE_AT, {})
            if files and MANIFEST_NAME not in files:
                with pytest.raises(NotAStore):
                    examine(files, past, promise)
                unfinished += 1
            else:
                whole += examine(files, past, promise)
    assert unfinished > 50
    assert whole > 3


def publish_first(write: Callable[..., tuple[int, int]]) -> Callable[..., tuple[int, int]]:
    """A commit that is acknowledged before its sync, and synced never."""

    def unsynced(self: LogWriter, parts: list[bytes], length: int, *, sync: bool, **named: Any) -> tuple[int, int]:
        written = write(self, parts, length, sync=False, **named)
        self.durable_lsn = self.end_lsn
        return written

    return unsynced


def test_an_acknowledgement_without_a_sync_is_found(monkeypatch):
    monkeypatch.setattr(LogWriter, "write", publish_first(LogWriter.write))
    with pytest.raises(
        Broken, match=r"This one again: \.venv/bin/python tests/disk/hunt\.py --repeat 'crash small_appends "
    ):
        hunt_images("small_appends", SEED, EACH)


def test_a_segment_whose_name_is_not_synced_is_found(monkeypatch):
    monkeypatch.setattr(RecordedDirectory, "sync", lambda self: None)
    with pytest.raises(Broken):
        hunt_images("rolls", SEED, EACH)


def test_what_is_found_is_found_again_by_its_words(monkeypatch):
    monkeypatch.setattr(LogWriter, "write", publish_first(LogWriter.write))
    with pytest.raises(Broken) as found:
        hunt_images("large_appends", SEED, EACH)
    words = str(found.value).split("'")[-2]
    with pytest.raises(Broken, match=words):
        repeat(words)
