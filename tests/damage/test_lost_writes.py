"""Writes that the disk acknowledged and never made: a page, a sector or a file is what it was before. And files
that are missing, exchanged, longer than they were, or of another store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from anatomy import Anatomy, Cost, anatomy
from judging import Findings, judge
from shapes import SHAPES
from stores import (
    CLUSTERED_AT_CLOSE,
    Book,
    Disk,
    Files,
    disk_of,
    kill,
    open_quietly,
    quiet,
    shape,
)

from durable_log.errors import Corruption, NotAStore

ALL = os.environ.get("DURABLE_LOG_DAMAGE") == "all"
IMAGES = 400


@pytest.fixture(scope="module", params=SHAPES)
def store(request: pytest.FixtureRequest) -> Anatomy:
    with pytest.MonkeyPatch.context() as patch:
        quiet(patch)
        return anatomy(SHAPES[request.param]())


def older(store: Anatomy, size: int) -> Iterator[tuple[str, Files]]:
    """Each page or sector as it was in each earlier version of its file."""
    seen = set()
    for before in store.shape.history:
        for name, now in store.shape.files.items():
            old = before.get(name, now)
            for at in range(0, len(now), size):
                piece = old[at : at + size].ljust(len(now[at : at + size]), b"\0")
                if piece != now[at : at + size] and (name, at, piece) not in seen:
                    seen.add((name, at, piece))
                    yield f"{name} {at} as before", {**store.shape.files, name: now[:at] + piece + now[at + size :]}


def older_files(store: Anatomy) -> Iterator[tuple[str, Files]]:
    """Each earlier version of each file."""
    seen = set()
    for before in store.shape.history:
        for name, now in store.shape.files.items():
            if name in before and before[name] != now and (name, before[name]) not in seen:
                seen.add((name, before[name]))
                yield name, {**store.shape.files, name: before[name]}


@pytest.mark.parametrize("size", [4096, 512])
def test_a_lost_write_of_a_page_costs_what_it_should_have_written(store, size):
    images = list(older(store, size))
    for what, files in images[:: 1 if ALL else len(images) // IMAGES + 1]:
        # The manifest is one page: all of it may be older, and whole.
        cost = store.everything() if what.startswith("MANIFEST 4096") else store.cost(store.hit(files))
        try:
            judge(store, files, cost)
        except AssertionError as error:
            raise AssertionError(f"{store.shape.name}: {what}: {error}") from error


def test_an_older_version_of_a_log_segment_costs_what_was_written_since(store):
    for name, files in older_files(store):
        if name.endswith(".log"):
            judge(store, files, store.cost(store.hit(files)))


def test_an_older_manifest_is_told_and_nothing_is_removed_for_it(store):
    """It knows nothing of the files that were made since, and the log that it knows is gone."""
    for name, files in older_files(store):
        if name == "MANIFEST":
            findings = judge(store, files, store.everything())
            assert findings.said
            disk = disk_of(files)
            with suppress(Corruption):
                open_quietly(disk, CLUSTERED_AT_CLOSE).close()
            tables = [name for name in files if name.endswith((".seg", ".run"))]
            assert {name: disk.files_now().get(name) for name in tables} == {name: files[name] for name in tables}


def test_the_newest_manifest_put_back_finds_all_that_an_older_one_did_not_know(store):
    """As long as nobody wrote to the store meanwhile."""
    for name, files in older_files(store):
        if name == "MANIFEST":
            disk = disk_of(files)
            with suppress(Corruption):
                kill(open_quietly(disk))
            disk.files["MANIFEST"].write(0, store.shape.files["MANIFEST"])
            assert not judge(store, disk.files_now(), Cost(may_refuse=False)).changed


def test_a_manifest_that_is_older_than_a_run_nobody_else_tells_of_is_refused():
    """The store was closed, so no block of the log is there that would miss its predecessor."""
    made = SHAPES["closed"]()
    manifest = next(iter(made.history))["MANIFEST"]
    with pytest.raises(Corruption, match=r"MANIFEST: position 0: it is older than 00000003.run") as caught:
        open_quietly(disk_of({**made.files, "MANIFEST": manifest}))
    assert caught.value.file == "MANIFEST"


def test_a_log_that_ends_before_what_the_manifest_knows_of_it_is_damaged():
    """The last block before a checkpoint is named by no other block, but the manifest knows that it was durable."""
    disk = Disk()
    live = open_quietly(disk)
    book = Book(live)
    book.create("a")
    while live.engine._committer._writer.segment.number == 1:
        book.append("a", bytes(9000))
    book.append("a", b"before the checkpoint")
    live.engine.upkeep.checkpointer.run()
    kill(live)
    found = anatomy(shape("checkpoint", disk, book))
    last = [region for region in found.regions["00000002.log"] if region.kind == "block header"][-1]
    for size in (1, 4096):
        content = bytearray(found.shape.files["00000002.log"])
        content[last.start : last.start + size] = bytes(size)
        files = {**found.shape.files, "00000002.log": bytes(content)}
        cost = found.cost([last])
        assert cost.said
        judge(found, files, cost)
        again = disk_of(files)
        with open_quietly(again) as store:
            store.stream("a").append(b"on")
        assert again.files_now()["00000002.log"] == files["00000002.log"], "damaged blocks are not written over"
        with open_quietly(again) as store:
            assert store.report.damage
            assert store.stream("a").read(store.stream("a").info().tail - 2).data == b"on"


def test_a_missing_file_is_told_unless_it_was_the_end_of_the_log(store):
    for name, content in store.shape.files.items():
        files = {other: kept for other, kept in store.shape.files.items() if other != name}
        if name == "MANIFEST":
            # Without a lock beside it, one log may be anybody's.
            is_sure = any(other.endswith((".seg", ".run")) for other in files)
            with pytest.raises(NotAStore, match="its MANIFEST is lost" if is_sure else "it has no MANIFEST but"):
                open_quietly(disk_of(files))
            continue
        cost = store.cost(
            [region for region in store.regions[name] if region.kind not in ("spare header", "log header")]
        )
        if name.endswith((".seg", ".run")):
            cost.refuses = True
        judge(store, files, cost)
        assert content


def test_files_that_changed_places_are_told(store):
    names = sorted(store.shape.files)
    for first, one in enumerate(names):
        for other in names[first + 1 :]:
            files = {**store.shape.files, one: store.shape.files[other], other: store.shape.files[one]}
            findings = judge(store, files, store.everything())
            assert findings.said, (one, other)


def test_a_file_of_another_store_is_not_believed(store, monkeypatch):
    """Somebody mixed up two stores that were made alike: the same names and numbers, and every checksum holds."""
    quiet(monkeypatch, uuid=b"another identity")
    other = SHAPES[store.shape.name]()
    for name in store.shape.files:
        assert other.files[name] != store.shape.files[name]
        findings = judge(store, {**store.shape.files, name: other.files[name]}, store.everything())
        assert findings.said, name


def with_what_was_removed(history: list[Files], now: Files) -> Iterator[tuple[str, Files]]:
    """Each file that was there once, as it was last."""
    last = {name: content for before in history for name, content in before.items() if name not in now}
    for name, content in sorted(last.items()):
        yield name, {**now, name: content}


def test_a_file_that_was_removed_and_comes_back_is_removed_again(store):
    for name, files in with_what_was_removed(store.shape.history, store.shape.files):
        assert not judge(store, files, Cost()).said, name
        disk = disk_of(files)
        kill(open_quietly(disk))
        assert name not in disk.files


def test_a_run_that_comes_back_after_a_compaction_says_nothing_of_the_manifest():
    """A compaction leaves numbers of segments out: the log begins with a later one than the manifest says."""
    disk = Disk()
    live = open_quietly(disk)
    book = Book(live)
    book.create("a")
    for turn in range(3):
        while live.engine._committer._writer.segment.number <= turn + 1:
            book.append("a", bytes(9000))
        live.engine._spares.want()
        live.engine._spares.refill()
        live.engine.upkeep.cluster()
    book.create("b")
    live.compact()
    kill(live)
    now = disk.files_now()
    back = {name: content for name, content in disk.removed.items() if name not in now}
    assert len([name for name in back if name.endswith(".run")]) > 2
    for name, content in back.items():
        opened = disk_of({**now, name: content})
        with open_quietly(opened) as store:
            assert list(store.names()) == ["a", "b"]
            assert not store.report.damage
            assert name not in opened.files or name.endswith(".log"), name


def test_what_is_appended_to_a_file_costs_nothing_in_the_log_and_is_told_elsewhere(store):
    for name, content in store.shape.files.items():
        for garbage in (b"\0", b"x" * 100, content[:4096], content[4096:8192], b"\xff" * 5000):
            cost = Cost(refuses=name.endswith(".run"), said=name.endswith((".run", ".seg")))
            findings: Findings = judge(store, {**store.shape.files, name: content + garbage}, cost)
            assert bool(findings.said) == cost.said, (name, garbage[:8])
