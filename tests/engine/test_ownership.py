"""Whoever works on a store, what is made in it belongs to whom the store does."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from twins import SMALL

import durable_log
from durable_log.engine import ownership
from durable_log.engine.files import LOCK_NAME, DiskDirectory, directory_to_look_at
from durable_log.engine.manifest import MANIFEST_NAME

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture(autouse=True)
def _usual_umask():
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def owners(path: Path) -> set[tuple[int, int]]:
    return {(one.stat().st_uid, one.stat().st_gid) for one in [path, *path.rglob("*")]}


def private(path: Path) -> Path:
    """A store that nobody but its owner may read, as to its files and its directory."""
    with durable_log.open(path, options=SMALL) as store:
        store.create("a", data=b"private")
    path.chmod(0o700)
    for file in path.iterdir():
        file.chmod(0o600)
    return path


def give(path: Path) -> None:
    for one in [path, *path.rglob("*")]:
        os.chown(one, NOBODY, NOBODY)


def modes(path: Path) -> set[int]:
    return {mode(file) for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("lost", [[], [MANIFEST_NAME], [MANIFEST_NAME, LOCK_NAME]])
def test_new_files_are_as_private_as_those_that_are_there(tmp_path, lost):
    path = private(tmp_path / "store")
    for name in lost:
        (path / name).unlink()
    directory = DiskDirectory(path)
    directory.lock()
    directory.create("new").close()
    folder = directory.folder("quarantine").folder("0001")
    folder.create("copy").close()
    directory.close()
    assert modes(path) == {0o600}
    assert {mode(path / "quarantine"), mode(path / "quarantine" / "0001")} == {0o700}


def test_an_open_store_makes_no_file_that_others_may_read(tmp_path):
    path = private(tmp_path / "store")
    with durable_log.open(path, options=SMALL) as store:
        for _ in range(20):
            store.stream("a").append(bytes(30_000))
        store.compact()
    assert modes(path) == {0o600}


def test_a_backup_may_be_read_by_those_who_may_read_the_store(tmp_path):
    with durable_log.open(private(tmp_path / "store"), options=SMALL) as store:
        store.stream("a").append(b"more")
        store.backup(tmp_path / "copy")
    assert modes(tmp_path / "copy") == {0o600}
    assert mode(tmp_path / "copy") == 0o700


def test_the_mode_of_a_store_counts_and_not_that_of_the_process(tmp_path):
    path = private(tmp_path / "store")
    (path / MANIFEST_NAME).chmod(0o664)
    os.umask(0o077)
    DiskDirectory(path).create("new").close()
    assert mode(path / "new") == 0o664


@pytest.mark.parametrize(("umask", "of_directory", "expected"), [(0o022, 0o777, 0o644), (0o077, 0o755, 0o600)])
def test_a_new_store_has_what_the_process_gives_and_only_its_owner_writes(tmp_path, umask, of_directory, expected):
    tmp_path.chmod(of_directory)
    os.umask(umask)
    durable_log.open(tmp_path, options=SMALL).close()
    assert modes(tmp_path) == {expected}


@as_root
def test_what_root_makes_is_the_owners(tmp_path):
    path = private(tmp_path / "store")
    (path / LOCK_NAME).unlink()
    give(path)
    looking = directory_to_look_at(path)
    looking.lock()
    looking.close()
    directory = DiskDirectory(path)
    directory.create("new").close()
    directory.folder("quarantine").folder("0001").create("copy").close()
    with durable_log.open(path, options=SMALL) as store:
        store.stream("a").append(bytes(30_000))
        store.compact()
        store.backup(tmp_path / "copy")
    assert owners(path) == {(NOBODY, NOBODY)}
    assert owners(tmp_path / "copy") == {(NOBODY, NOBODY)}


def test_nothing_that_a_link_leads_to_is_changed_or_given_away(tmp_path):
    path, mine = private(tmp_path / "store"), tmp_path / "mine"
    mine.write_bytes(b"mine")
    (path / "00000009.seg.tmp").symlink_to(mine)
    with pytest.raises(OSError, match="symbolic links"):
        DiskDirectory(path).create("00000009.seg.tmp")
    (path / LOCK_NAME).unlink()
    (path / LOCK_NAME).symlink_to(tmp_path / "none")
    with pytest.raises(OSError, match="symbolic links"):
        DiskDirectory(path).lock()
    assert mine.read_bytes() == b"mine"
    assert not (tmp_path / "none").exists()


def test_a_file_that_has_another_name_is_not_given_away(tmp_path):
    path, mine = private(tmp_path / "store"), tmp_path / "mine"
    mine.write_bytes(b"mine")
    os.link(mine, path / "00000009.seg.tmp")
    DiskDirectory(path).create("00000009.seg.tmp").close()
    assert mode(mine) == 0o644


@pytest.mark.parametrize("call", ["fstat", "fchown", "fchmod"])
def test_who_may_not_give_files_away_keeps_them(tmp_path, monkeypatch, call):
    path = private(tmp_path / "store")
    found = path.stat()

    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    directory = DiskDirectory(path)
    directory._ownership = ownership.Ownership(found.st_uid + 1, found.st_gid + 1, 0o640)
    monkeypatch.setattr(ownership.os, call, refuse)
    if call != "fchown":
        monkeypatch.setattr(ownership.os, "fchown", lambda *_: None)
    directory.create("new").close()
    monkeypatch.undo()
    new = (path / "new").stat()
    assert (new.st_uid, new.st_gid) == (os.geteuid(), os.getegid())
    assert mode(path / "new") == 0o640
