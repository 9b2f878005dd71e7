"""A store in an overlay does all that a store does, and nothing of it reaches the files below."""

from __future__ import annotations

from damaged_stores import CLOCK, SMALL, assert_works, built, flip, mend, missing
from twins import open_store

from durable_log.engine.files import LOCK_NAME, DiskDirectory
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
    overlay = OverlayDirectory(DiskDirectory(tmp_path))
    with open_store(overlay, SMALL, CLOCK) as store:
        store.stream("s00").append(b"x")
        store.compact()
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != LOCK_NAME}
    assert after == content(known.directory)
