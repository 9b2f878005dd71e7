"""A store in an overlay does all that a store does, and nothing of it reaches the files below."""

from __future__ import annotations

import pytest
from damaged_stores import CLOCK, SMALL, assert_works, built, flip, mend, missing
from twins import open_files, open_store

from durable_log.engine.files import LOCK_NAME, DiskDirectory, MemoryDirectory
from durable_log.engine.overlay import OverlayDirectory


def content(directory):
    return {name: file.read(0, file.size()) for name, file in directory.files.items()}


def test_nothing_that_a_store_does_in_an_overlay_reaches_the_files_below():
    known = built().copy()
    before = content(known.directory)
    overlay = OverlayDirectory(known.directory)
    with open_store(overlay, SMALL, CLOCK) as store:
        assert missing(store, known) == {}
        assert_works(store, list(store.names()))
    assert content(known.directory) == before
    with open_store(overlay, SMALL, CLOCK) as store:
        assert store.stream("quite new").read().data == b"new"
    assert content(known.directory) == before


def test_a_repair_in_an_overlay_is_a_trial():
    known = built().copy()
    flip(known.directory, known.names(".seg")[0], 9000)
    before = content(known.directory)
    outcome = mend(OverlayDirectory(known.directory))
    assert outcome.lost
    assert content(known.directory) == before
    assert known.directory.names() == sorted(before)
    assert mend(known.directory).lost == outcome.lost


def test_files_on_disk_stay_as_they_are_and_are_closed(tmp_path):
    known = built()
    for name, data in content(known.directory).items():
        (tmp_path / name).write_bytes(data)
    before = open_files()
    overlay = OverlayDirectory(DiskDirectory(tmp_path))
    with open_store(overlay, SMALL, CLOCK) as store:
        store.stream("s00").append(b"x")
        store.compact()
    assert open_files() == before
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != LOCK_NAME}
    assert after == content(known.directory)


def test_sizes_are_those_of_the_files_as_they_would_be():
    below = MemoryDirectory()
    for name in ("kept", "changed", "removed"):
        below.create(name).write(0, bytes(100))
    overlay = OverlayDirectory(below)
    overlay.open("kept")
    overlay.open("changed").write(100, bytes(50))
    overlay.create("new").write(0, bytes(7))
    overlay.remove("removed")
    assert overlay.sizes() == {"kept": 100, "changed": 150, "new": 7}
    assert below.sizes() == {"kept": 100, "changed": 100, "removed": 100}


def test_the_room_that_is_left_is_that_of_the_disk_below(tmp_path, monkeypatch):
    with open_store(OverlayDirectory(DiskDirectory(str(tmp_path))), SMALL, CLOCK) as store:
        monkeypatch.setattr(DiskDirectory, "free", lambda self: 12_345)
        assert store.stats()["disk_free_bytes"] == 12_345


def test_a_file_that_was_removed_is_not_there_until_it_is_made_anew():
    below = MemoryDirectory()
    below.create("a").write(0, b"old")
    overlay = OverlayDirectory(below)
    overlay.remove("a")
    with pytest.raises(FileNotFoundError):
        overlay.open("a")
    overlay.create("a").write(0, b"new")
    assert overlay.open("a").read(0, 9) == b"new"


def test_a_folder_is_the_same_whoever_asks_and_stays_as_it_is_below():
    below = MemoryDirectory()
    below.folder("quarantine").create("report").write(0, b"old")
    overlay = OverlayDirectory(below)
    overlay.folder("quarantine").open("report").write(0, b"new")
    assert overlay.folder("quarantine").open("report").read(0, 9) == b"new"
    assert below.folder("quarantine").open("report").read(0, 9) == b"old"


def test_what_was_not_written_cannot_be_read_once_the_overlay_is_closed():
    below = MemoryDirectory()
    below.create("a").write(0, b"data")
    overlay = OverlayDirectory(below)
    file = overlay.open("a")
    overlay.close()
    with pytest.raises(OSError, match="the file is closed") as caught:
        file.read(0, 4)
    assert caught.value.filename == "a"
