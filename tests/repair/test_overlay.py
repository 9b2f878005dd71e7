"""A store in an overlay does all that a store does, and nothing of it reaches the files below."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import closing

import pytest
from damaged_stores import CLOCK, SMALL, assert_works, built, flip, mend, missing
from twins import forbid_writing, open_files, open_store

from durable_log.engine.files import LOCK_NAME, DiskDirectory, MemoryDirectory, directory_to_look_at
from durable_log.engine.overlay import OverlayDirectory
from durable_log.errors import NotAStore, StoreLocked, StoreUnreadable


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


def on_disk(path, known):
    for name, data in content(known.directory).items():
        (path / name).write_bytes(data)
    return {entry.name: entry.read_bytes() for entry in path.iterdir()}


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("has_lock", [True, False])
def test_a_store_is_looked_at_and_its_repair_tried_where_nothing_may_be_written(
    tmp_path, monkeypatch, number, has_lock
):
    known = built().copy()
    if has_lock:
        known.directory.create(LOCK_NAME).write(0, b"process 4711 on another machine\n")
    files = on_disk(tmp_path, known)
    before = open_files()
    forbid_writing(monkeypatch, tmp_path, number)
    overlay = OverlayDirectory(directory_to_look_at(tmp_path))
    with open_store(overlay, SMALL, CLOCK) as store:
        assert missing(store, known) == {}
        assert_works(store, list(store.names()))
    with closing(OverlayDirectory(directory_to_look_at(tmp_path))) as overlay:
        overlay.lock()
        assert mend(overlay).findings == []
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == files
    assert open_files() == before


def test_a_lock_is_made_on_a_full_disk_or_done_without_and_other_errors_are_told(tmp_path, monkeypatch):
    files = on_disk(tmp_path, built())
    for number in (errno.ENOSPC, errno.EIO):
        with monkeypatch.context() as patch:
            forbid_writing(patch, tmp_path, number)
            looking = directory_to_look_at(tmp_path)
            if number == errno.ENOSPC:
                looking.lock()
            else:
                with pytest.raises(OSError, match=os.strerror(number)):
                    looking.lock()
            looking.close()
    assert {entry.name for entry in tmp_path.iterdir()} == files.keys()


def test_whoever_has_the_store_is_told_to_those_who_may_not_write_there(tmp_path, monkeypatch):
    holder = DiskDirectory(tmp_path)
    holder.lock()
    forbid_writing(monkeypatch, tmp_path)
    looking = directory_to_look_at(tmp_path)
    with pytest.raises(StoreLocked) as caught:
        looking.lock()
    assert caught.value.holder == f"process {os.getpid()} on {socket.gethostname()}"
    holder.close()
    looking.lock()
    looking.close()


def test_those_who_may_only_read_look_side_by_side_and_nobody_writes_meanwhile(tmp_path):
    on_disk(tmp_path, built())
    (tmp_path / LOCK_NAME).touch()
    looking = [directory_to_look_at(tmp_path) for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        forbid_writing(patch, tmp_path)
        for each in looking:
            each.lock()
    with pytest.raises(StoreLocked):
        DiskDirectory(tmp_path).lock()
    for each in looking:
        each.close()
    writer = DiskDirectory(tmp_path)
    writer.lock()
    writer.close()


def test_a_lock_that_may_not_be_read_is_told(tmp_path, monkeypatch):
    on_disk(tmp_path, built())
    (tmp_path / LOCK_NAME).touch()
    forbid_writing(monkeypatch, tmp_path, errno.EACCES)
    proceed = os.open

    def refuse(path, flags, *mode):
        if str(path).endswith(LOCK_NAME):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return proceed(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreUnreadable, match="LOCK: Permission denied"):
        open_store(OverlayDirectory(directory_to_look_at(tmp_path)), SMALL, CLOCK)


def test_a_directory_to_look_at_is_not_made_and_no_pipe_in_it_is_waited_for(tmp_path):
    with pytest.raises(FileNotFoundError):
        directory_to_look_at(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(NotAStore, match="it is a file"):
        directory_to_look_at(tmp_path / "file")
    os.mkfifo(tmp_path / "00000077.seg")
    with pytest.raises(OSError, match="seek"):
        directory_to_look_at(tmp_path).open("00000077.seg").read(0, 1)


def test_folders_are_looked_at_as_the_directory_is(tmp_path, monkeypatch):
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine" / "report").write_bytes(b"old")
    forbid_writing(monkeypatch, tmp_path)
    assert directory_to_look_at(tmp_path).folder("quarantine").open("report").read(0, 9) == b"old"


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
