"""One fault costs what it hits and nothing else: in plain use, through checkpoints, and by a repair."""

from __future__ import annotations

import errno
import gc
import logging
from collections.abc import Callable

import pytest
from damaged_stores import CLOCK, flip, mend
from twins import SMALL, Clock, copy_of, open_files, open_store

from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.index import LOST, places_of, reaches_log
from durable_log.engine.run import Run
from durable_log.errors import Corruption
from durable_log.store import Store

WORD = b"the word that is damaged"


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def killed(write: Callable[[Store], None]) -> MemoryDirectory:
    """The files of a store after a kill that follows ``write``."""
    directory = MemoryDirectory()
    with open_store(directory, SMALL, CLOCK) as store:
        write(store)
        return copy_of(directory)


def damage(directory: MemoryDirectory, what: bytes, suffix: str = ".log") -> str:
    """Flips a bit in the first place that holds these bytes; the file's name."""
    for name in directory.names():
        file = directory.files[name]
        at = file.read(0, file.size()).find(what)
        if name.endswith(suffix) and at >= 0:
            flip(directory, name, at)
            return name
    raise AssertionError(f"no {suffix} file holds {what!r}")


def opened(directory: MemoryDirectory) -> Store:
    return open_store(directory, SMALL, CLOCK)


def seen(store: Store, name: str) -> dict[int, bytes | str]:
    """What reads give, by offset; of what is lost, the file that is named."""
    found: dict[int, bytes | str] = {}
    info = store.stream(name).info()
    offset = info.first
    while offset < info.tail:
        try:
            chunk = store.stream(name).read(offset)
            found[offset], offset = chunk.data, chunk.next_offset
        except Corruption as error:
            found[offset], offset = error.file, store.engine.place_end(name, offset)
    return found


def first_run(directory: MemoryDirectory) -> Run:
    run = Run.open(directory, next(name for name in directory.names() if name.endswith(".run")))
    assert run is not None
    return run


def closed_with_a_last_word(store: Store) -> None:
    stream = store.create("chat")
    for number in range(60):
        stream.append(b"token %03d " % number * 100)
    store.engine._committer.roll()
    stream.append(WORD)
    stream.close()
    store.create("other", data=b"x")


GOOD = b"".join(b"token %03d " % number * 100 for number in range(60))


def test_a_last_record_that_is_damaged_takes_no_other_along_when_the_log_is_clustered():
    """A close behind it tells that it is lost; all that was before it still lies in the log."""
    directory = killed(closed_with_a_last_word)
    damage(directory, WORD)
    expected = {0: GOOD, len(GOOD): "the log"}
    with opened(directory) as store:
        assert seen(store, "chat") == expected
        store.engine.upkeep.cluster()
        assert seen(store, "chat") == expected
    with opened(directory) as store:
        assert seen(store, "chat") == expected


def test_a_last_record_that_is_damaged_takes_no_other_along_when_the_store_is_repaired():
    directory = killed(closed_with_a_last_word)
    damage(directory, WORD)
    outcome = mend(directory)
    assert outcome.lost == [("chat", len(GOOD), len(GOOD) + len(WORD))]
    with opened(directory) as store:
        assert seen(store, "chat") == {0: GOOD, len(GOOD): "quarantine/0001/report.txt"}
    assert mend(directory).number == 0


def test_a_stream_whose_last_record_is_lost_stays_in_memory_as_long_as_it_reaches_into_the_log():
    directory = killed(closed_with_a_last_word)
    damage(directory, WORD)
    with opened(directory) as store:
        state = store.engine._catalog.get("chat")
        assert [place for _, _, place in places_of(state.index)][-1] == LOST
        assert reaches_log(state.index)


def in_three_segments(store: Store) -> None:
    for number, name in enumerate(("first", "second", "third")):
        if number:
            store.create(name)
        else:
            store.create(name, data=b"before ")
        store.stream(name).append(name.encode() * 100)
        store.stream("first").append(b"%d " % number)
        store.engine._committer.roll()


@pytest.mark.parametrize("missing", [0, 1])
def test_nothing_is_clustered_from_a_log_segment_on_that_is_not_there(missing: int):
    directory = killed(in_three_segments)
    logs = [name for name in directory.names() if name.endswith(".log")]
    del directory.files[logs[missing]]
    with opened(directory) as store:
        assert store.report.damage
        store.stream("third").append(b" more")
        store.engine._committer.roll()
        store.engine.upkeep.cluster()
    assert set(logs) - {logs[missing]} <= set(directory.names()), "all that is left is kept for a repair"
    outcome = mend(directory)
    gone = ["first", "second"][missing]
    with opened(directory) as store:
        assert store.stream("third").read().data == b"third" * 100 + b" more"
        assert gone not in store.names()
        revived = [finding.name for finding in outcome.findings if finding.kind == "revived"]
        assert revived == (["lost+found/1"] if missing == 0 else [])
        for name in revived:
            assert b"1 2 " in b"".join(each for each in seen(store, name).values() if isinstance(each, bytes))
    assert mend(directory).number == 0


def test_what_comes_into_the_log_behind_an_end_that_is_missing_is_not_clustered_either():
    directory = killed(in_three_segments)
    with opened(directory) as store:  # the manifest knows how far the log was
        store.engine.upkeep.checkpointer.edits.save()
        directory = copy_of(directory)
    last = [name for name in directory.names() if name.endswith(".log") and b"third" * 100 in content(directory, name)]
    del directory.files[last[0]]
    with opened(directory) as store:
        assert store.report.damage
        store.create("new", data=b"new")
        store.engine._committer.roll()
        store.engine.upkeep.cluster()
        assert [name for name in directory.names() if name.endswith(".log") and b"new" in content(directory, name)]
    mend(directory)
    with opened(directory) as store:
        assert store.stream("new").read().data == b"new"
        assert store.stream("second").read().data == b"second" * 100


def content(directory: MemoryDirectory, name: str) -> bytes:
    return directory.files[name].read(0, directory.files[name].size())


@pytest.mark.parametrize("manifest", ["saved", "lost"])
def test_a_stream_whose_creation_is_damaged_comes_back_whatever_the_manifest_knew(manifest: str):
    def write(store: Store) -> None:
        store.create("old", data=b"old")
        store.engine.upkeep.cluster()
        store.create("young", content_type="text/x-" + WORD.decode().replace(" ", "-"))
        store.stream("young").append(b"bytes that nothing happened to")
        store.engine.upkeep.checkpointer.edits.save()

    directory = killed(write)
    damage(directory, WORD.replace(b" ", b"-"))
    if manifest == "lost":
        del directory.files["MANIFEST"]
    with opened(copy_of(directory)) if manifest == "saved" else opened(MemoryDirectory()) as store:
        assert store.report.records_of_unknown_streams == (1 if manifest == "saved" else 0)
    outcome = mend(directory)
    assert [finding.name for finding in outcome.findings if finding.kind == "revived"] == ["lost+found/2"]
    with opened(directory) as store:
        assert store.stream("lost+found/2").read().data == b"bytes that nothing happened to"
        assert store.stream("lost+found/2").info().closed


def test_a_stream_that_was_deleted_is_no_unknown_one_and_does_not_come_back():
    def write(store: Store) -> None:
        store.create("gone", data=b"gone" * 100)
        store.create("kept", data=b"kept")
        store.engine.upkeep.cluster()
        store.stream("gone").append(b"more")
        store.stream("kept").append(WORD)
        store.delete("gone")
        store.create("young", data=b"young")
        store.delete("young")
        store.stream("kept").append(b"end")

    directory = killed(write)
    damage(directory, WORD)
    with opened(copy_of(directory)) as store:
        assert store.report.records_of_unknown_streams == 0
    outcome = mend(directory)
    assert {finding.kind for finding in outcome.findings} == {"damage", "unknown", "moved", "lost"}
    with opened(directory) as store:
        assert list(store.names()) == ["kept"]


def with_holes_in_rows(source_is_deleted: bool = False) -> MemoryDirectory:
    """A store whose rows have holes that no repair knows, as if what lost them had been clustered over."""

    def write(store: Store) -> None:
        store.create("source", data=b"s" * 100)
        store.stream("source").append(WORD)
        store.stream("source").append(b"t" * 100)
        store.create("fork", fork_of="source", fork_at=150)
        store.stream("fork").append(b"its own")
        if source_is_deleted:
            store.delete("source")

    directory = killed(write)
    damage(directory, WORD)
    with opened(directory) as store:
        store.engine.upkeep.cluster_damaged(lambda _catalog: None)
    assert not [name for name in directory.names() if name.endswith(".log") and WORD[5:] in content(directory, name)]
    return directory


HOLE = (100, 100 + len(WORD))


def test_holes_that_no_repair_knows_are_taken_up_by_one():
    directory = with_holes_in_rows()
    outcome = mend(directory)
    assert outcome.number == 1
    assert sorted(outcome.lost) == [("fork", *HOLE), ("source", *HOLE)]
    assert mend(directory).number == 0
    with opened(directory) as store:
        for name, rest in (("source", b"t" * 100), ("fork", b"t" * 26 + b"its own")):
            assert seen(store, name) == {0: b"s" * 100, 100: "quarantine/0001/report.txt", HOLE[1]: rest}


def test_what_a_fork_has_lost_of_a_source_that_is_out_of_sight_is_told():
    directory = with_holes_in_rows(source_is_deleted=True)
    assert mend(directory).lost == [("fork", *HOLE)]
    with opened(directory) as store:
        assert store.engine.upkeep.losses() == [("fork", *HOLE, 1)]
        assert seen(store, "fork") == {
            0: b"s" * 100,
            100: "quarantine/0001/report.txt",
            HOLE[1]: b"t" * 26 + b"its own",
        }
    assert mend(directory).number == 0


def test_a_report_gets_a_number_that_no_hole_has_though_the_quarantine_is_gone():
    directory = with_holes_in_rows()
    mend(directory)
    del directory.folders["quarantine"]
    with opened(directory) as store:
        store.create("new", data=WORD)
        store.stream("new").append(b"more")
        directory = copy_of(directory)
    damage(directory, WORD)
    outcome = mend(directory)
    assert outcome.number == 2
    assert outcome.lost == [("new", 0, len(WORD))]


@pytest.mark.parametrize("step", ["salvage_log.survey", "repair.check_tables"])
def test_a_repair_that_cannot_read_something_leaves_no_file_open(tmp_path, monkeypatch: pytest.MonkeyPatch, step: str):
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk says no")

    with open_store(DiskDirectory(tmp_path / "store"), SMALL, CLOCK) as store:
        store.create("a", data=b"a")
    monkeypatch.setattr(f"durable_log.engine.{step}", fail)
    before = open_files()
    with pytest.raises(OSError, match="says no"):
        mend(DiskDirectory(tmp_path / "store"))
    gc.collect()
    assert open_files() == before


@pytest.mark.parametrize("older", [False, True])
def test_a_stream_whose_row_is_lost_does_not_expire_early(older: bool):
    """Its use is in no row that is left: without one, nobody knows that it has a sliding time to live."""
    clock, directory = Clock(), MemoryDirectory()
    with open_store(directory, SMALL, clock) as store:
        if not older:
            store.create("older", data=b"o")
        store.create("used", ttl=600, data=b"u")
        store.engine.upkeep.cluster()
        if older:
            clock.now += 500
            store.stream("used").append(b"v")
            store.engine.upkeep.cluster()
    newest = max(name for name in directory.names() if name.endswith(".run"))
    flip(directory, newest, 4096 + 30)
    clock.now += 590
    outcome = mend_at(directory, clock)
    assert "used" in {finding.name for finding in outcome.findings if finding.kind == "closed"}
    clock.now += 590
    with open_store(directory, SMALL, clock) as store:
        assert store.stream("used").read().data.startswith(b"u")
        clock.now += 10**6
        assert ("used" in store.names()) == (not older)


def test_an_empty_stream_whose_row_is_lost_comes_back_empty_and_closed():
    directory = MemoryDirectory()
    with open_store(directory, SMALL, CLOCK) as store:
        store.create("empty")
        store.engine.upkeep.cluster()
    flip(directory, max(name for name in directory.names() if name.endswith(".run")), 4096 + 30)
    outcome = mend(directory)
    assert [(finding.kind, finding.name) for finding in outcome.findings if finding.name] == [("closed", "empty")]
    with opened(directory) as store:
        info = store.stream("empty").info()
        assert (info.first, info.tail, info.closed) == (0, 0, True)
        assert list(store.engine.upkeep.audit()) == []


def mend_at(directory: MemoryDirectory, clock: Clock):
    from durable_log.engine.repair import repair

    return repair(directory, clock, lambda outcome: (repr(outcome).encode(), b"{}"))
