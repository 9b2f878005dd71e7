"""Opening a store that is damaged: what can be served is, the rest is told, and background work goes on beside it."""

from __future__ import annotations

import logging

import pytest
from damaged_stores import CLOCK, PAGE, Known, built, flip, mend, missing, opened
from twins import SMALL, open_store

from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.manifest import load_manifest
from durable_log.engine.run import Run
from durable_log.engine.run_format import encode_row
from durable_log.engine.run_writer import write_run
from durable_log.errors import Corruption
from durable_log.model import Producer
from durable_log.store import Store


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def after(write: object) -> MemoryDirectory:
    """Files of a store with two clustered streams, after a kill that follows ``write``."""
    directory = MemoryDirectory()
    store = open_store(directory, SMALL, CLOCK)
    for name in ("a", "b"):
        store.create(name, data=name.encode() * 100)
    store.engine.upkeep.cluster()
    write(store)  # type: ignore[operator]
    copied = Known(directory, {}, set()).copy().directory
    store.close()
    return copied


def damage_page(directory: MemoryDirectory, kind: str) -> None:
    name = next(name for name in directory.names() if name.endswith(".run"))
    run = Run.open(directory, name)
    assert run is not None
    flip(directory, name, {"rows": PAGE, "numbers": run.trailer.numbers_position}[kind] + 30)


@pytest.mark.parametrize("kind", ["rows", "numbers"])
def test_a_stream_that_was_deleted_on_a_damaged_page_does_not_keep_the_store_from_opening(kind: str):
    def delete(store: Store) -> None:
        store.delete("a")
        store.create("c", data=b"c")

    directory = after(delete)
    damage_page(directory, kind)
    with open_store(directory, SMALL, CLOCK) as store:
        assert store.report.unreadable_catalog
        with pytest.raises(Corruption):
            store.stream("a").read()
        with pytest.raises(Corruption):
            store.create("a")
        if kind == "numbers":
            assert store.stream("b").read().data == b"b" * 100
        assert store.stream("c").read().data == b"c"
        store.stream("c").append(b"!")
        assert list(store.names()) == ["b", "c"], "it was deleted, whatever its row says"
    mend(directory)
    with open_store(directory, SMALL, CLOCK) as store:
        assert list(store.names()) == ["b", "c"]
        assert store.stream("b").read().data == b"b" * 100
        assert store.stream("c").read().data == b"c!"
        assert list(store.engine.upkeep.audit()) == []


def test_a_stream_that_was_deleted_on_a_damaged_page_of_numbers_does_not_come_back_after_a_checkpoint():
    """What the log has before its deletion is clustered; then it was there again."""

    def delete(store: Store) -> None:
        store.create("c", data=b"c")
        store.engine._committer.roll()
        store.delete("a")

    directory = after(delete)
    damage_page(directory, "numbers")
    with open_store(directory, SMALL, CLOCK) as store:
        assert store.engine.upkeep.checkpointer.run()
        with pytest.raises(Corruption):
            store.stream("a").append(b"to nobody")
        assert list(store.names()) == ["b", "c"]


def test_streams_that_wait_for_a_repair_are_listed_unless_they_are_deleted():
    def recreate(store: Store) -> None:
        store.delete("a")
        store.create("a", data=b"the second life")
        store.create("fork", fork_of="a", fork_at=3)
        store.delete("b")
        store.create("b", data=b"the second life")
        store.delete("b")

    directory = after(recreate)
    damage_page(directory, "rows")
    with open_store(directory, SMALL, CLOCK) as store:
        assert len(store.report.unreadable_catalog) == 6
        assert store.report.lost == []
        assert list(store.names()) == ["a", "fork"]
        assert list(store.names("f")) == ["fork"]
        for name in ("a", "fork", "b"):
            with pytest.raises(Corruption):
                store.stream(name).read()
    mend(directory)
    with open_store(directory, SMALL, CLOCK) as store:
        assert list(store.names()) == ["a", "fork"]
        assert store.stream("fork").read().data == b"the"


def test_a_stream_that_was_created_on_a_damaged_page_waits_for_the_repair():
    def recreate(store: Store) -> None:
        store.delete("a")
        store.create("a", data=b"the second life")

    directory = after(recreate)
    damage_page(directory, "rows")
    with open_store(directory, SMALL, CLOCK) as store:
        assert len(store.report.unreadable_catalog) == 2
        with pytest.raises(Corruption):
            store.stream("a").read()
        with pytest.raises(Corruption):
            store.create("a")
        store.engine.upkeep.cluster()  # what waits stays in the log
    mend(directory)
    with open_store(directory, SMALL, CLOCK) as store:
        assert store.stream("a").read().data == b"the second life"
        assert store.stream("a").append(b"more").offset == 15


def test_nothing_is_written_where_rows_know_the_log_already():
    """Of a log whose last segment is gone, the next records would be passed over as known after a kill."""
    known = Known(MemoryDirectory(), {}, set())
    store = opened(known)
    store.engine.upkeep._clusterer.stop()
    store.create("a")
    for _ in range(40):
        store.stream("a").append(b"x" * 9000)
    store.engine.upkeep.checkpointer.run()
    damaged = known.copy()
    store.close()
    for name in damaged.names(".log"):
        damaged.directory.remove(name)
    with opened(damaged) as store:
        assert [damage.reason for damage in store.report.damage] == ["the log ends before what is known to be durable"]
        before = store.stream("a").info().tail
        tail = store.stream("a").append(b"after the loss").next_offset
        assert tail == before + 14
        killed = damaged.copy()
    with opened(killed) as store:
        assert store.stream("a").info().tail == tail
        assert store.stream("a").read(before).data == b"after the loss"


def test_a_producer_whose_first_claim_is_lost_does_not_keep_its_stream_from_being_clustered():
    def claim(store: Store) -> None:
        store.stream("a").append(b"claimed", producer=Producer("p", 0, 0))
        store.stream("b").append(b"1")
        store.stream("b").append(b"2")

    directory = after(claim)
    for name in directory.names():
        at = directory.files[name].read(0, 2**20).find(b"claimed")
        if at >= 0 and name.endswith(".log"):
            flip(directory, name, at)
    mend(directory)
    with open_store(directory, SMALL, CLOCK) as store:
        assert not store.stream("a").append(b"once", producer=Producer("p", 0, 0)).duplicate
    with open_store(directory, SMALL, CLOCK) as store:
        assert store.stream("a").append(b"once", producer=Producer("p", 0, 0)).duplicate


@pytest.mark.parametrize("damage", ["segment", "row", "run"])
def test_what_is_damaged_does_not_hold_up_the_compaction_of_others(damage: str):
    directory = MemoryDirectory()
    with open_store(directory, SMALL, CLOCK) as store:
        store.engine.upkeep._clusterer.stop()
        for number in range(4):
            store.create(f"keep{number}", data=b"k" * 2000)
            store.create(f"drop{number}", data=b"d" * 9000)
            store.engine.upkeep.cluster()
        segments = sorted(name for name in directory.names() if name.endswith(".seg"))
        runs = sorted(name for name in directory.names() if name.endswith(".run"))
        for number in range(4):
            store.delete(f"drop{number}")
        store.engine.upkeep.cluster()
    with open_store(directory, SMALL, CLOCK) as store:
        if damage == "segment":
            flip(directory, segments[0], PAGE + 100)
        elif damage == "row":
            segment = ClusteredSegment.open(directory, segments[0])
            assert segment is not None
            flip(directory, segments[0], segment.trailer.rows_position + 18)
        else:
            for page in (1, 2, 3):
                flip(directory, runs[0], page * PAGE + 40)
        store.engine.upkeep._clusterer.stop()
        compactor = store.engine.upkeep._compactor
        for _ in range(40):
            if not compactor.step():
                break
        else:
            raise AssertionError("the compactor never ends")
        left = set(directory.names())
        assert segments[0] in left
        assert not left & set(segments[1:]), "the others are rewritten"


@pytest.mark.parametrize("suffix", [".seg", ".run"])
@pytest.mark.parametrize("what", ["header", "missing"])
def test_a_file_that_is_named_and_cannot_be_opened_is_told_with_what_to_do(suffix: str, what: str):
    known = built().copy()
    name = known.names(suffix)[0]
    if what == "missing":
        known.directory.remove(name)
    else:
        flip(known.directory, name, 20)
    before = set(known.directory.names())
    with pytest.raises(Corruption, match="durable-log repair"):
        opened(known)
    assert set(known.directory.names()) == before


@pytest.mark.parametrize("what", ["nothing that verifies", "rows of another store", "no page", "a row of nothing"])
def test_a_run_that_nobody_names_and_that_knows_nothing_is_a_leftover(what: str):
    known = built().copy()
    if what == "nothing that verifies":
        known.directory.create("000000ff.run").write(0, b"r" * 9000)
    else:
        uuid = load_manifest(known.directory, 0).uuid
        rows = {"rows of another store": [encode_row("a", 1, bytes(8))], "a row of nothing": [encode_row("a", 1, b"")]}
        other = bytes(16) if what == "rows of another store" else uuid
        write_run(known.directory, 255, other, rows.get(what, []), pause=lambda: None)
    with opened(known) as store:
        assert missing(store, known) == {}
    assert "000000ff.run" not in known.directory.names()


def test_a_log_segment_without_header_and_blocks_is_passed_over():
    known = built().copy()
    known.directory.create("000000ff.log").write(0, bytes(2 * PAGE))
    with opened(known) as store:
        assert missing(store, known) == {}
        assert not store.report.damage
    assert mend(known.directory).number == 1
    with opened(known) as store:
        assert missing(store, known) == {}


def test_a_fork_shows_what_its_source_had_although_the_record_is_damaged():
    """The source has a row, and so its records were applied before anybody knew of the fork."""

    def write(store: Store) -> None:
        store.stream("a").append(b"damaged")
        store.create("fork", fork_of="a")
        store.engine._committer.roll()

    directory = after(write)
    name, at = next(
        (name, at)
        for name in directory.names()
        if name.endswith(".log") and (at := directory.files[name].read(0, 2**20).find(b"damaged")) >= 0
    )
    flip(directory, name, at)
    with open_store(directory, SMALL, CLOCK) as store:
        assert sorted((lost.name, lost.start, lost.end) for lost in store.report.lost) == [("a", 100, 107)]
        assert store.stream("a").append(b"on").offset == 107, "its offsets are not given out again"
        assert store.stream("fork").read().data == b"a" * 100
        with pytest.raises(Corruption):
            store.stream("fork").read(100)
