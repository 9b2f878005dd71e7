"""A crash while a store is opened, after a crash or a kill: opening twice is opening once, and what was seen stays."""

from __future__ import annotations

from random import Random

import pytest
from crashes import Past, decisions, moments
from hunt import IMAGES, SEED, hunt_recoveries
from media import Renamed
from recorded import RecordedDirectory
from recoveries import crashes_after_opening, open_twice
from script import Script
from twins import Clock, open_store
from workloads import WORKLOADS, perform

from durable_log.engine.manifest import MANIFEST_NAME

pytestmark = pytest.mark.usefixtures("quiet_engines")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_whatever_a_crash_while_opening_leaves_keeps_every_promise(workload, record_property):
    images = hunt_recoveries(workload, SEED, part=min(1.0, IMAGES / 400_000))
    record_property("images of crashes while a store opens", images)
    assert images >= 0


def test_an_opening_after_a_kill_writes_again_what_the_page_cache_alone_may_hold():
    script = Script(Random(0))
    script.open()
    script.create("a")
    script.append("a", b"1", durability="written")
    script.kill()
    killed = RecordedDirectory(script.directory.shown(), media=script.directory.media.copy())
    store = open_store(killed, script.options, Clock())
    assert store.stream("a").read().data == b"1"
    for _, files in decisions(killed.media, Random(0), 100):
        assert open_store(RecordedDirectory(files), script.options, Clock()).stream("a").read().data == b"1"


def test_what_an_older_manifest_names_is_there_until_no_crash_can_bring_it_back():
    script = Script(Random(0))
    script.open()
    script.create("a", b"1" * 5000)
    script.cluster()
    script.delete("a")
    script.create("b", b"2")
    script.compact()
    trace, found = script.directory.trace, 0
    for moment in moments(trace):
        event = trace[moment.event]
        if isinstance(event, Renamed) and event.new == MANIFEST_NAME:
            killed = RecordedDirectory(moment.media.shown(), media=moment.media.copy())
            for opening in crashes_after_opening(killed, Past.of(script), moment.promise):
                for _, files in decisions(opening.media, Random(0), 64):
                    store = open_store(RecordedDirectory(files), script.options, Clock())
                    found += len(list(store.names()))
    assert found > 20


def test_a_second_opening_leaves_every_byte_as_it_is():
    script = perform("written", SEED)
    past, opened = Past.of(script), 0
    for moment in moments(script.directory.trace):
        for _, files in decisions(moment.media, Random(moment.event), 3):
            open_twice(files, past, moment.promise)
            opened += 1
    assert opened > 100
