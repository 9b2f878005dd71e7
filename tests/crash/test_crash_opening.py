"""Crashes while a store is opened, made or grown: at any call, by a kill, and by a power cut after that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
from images import open_at
from twins import SMALL, TwinDirectory, copy_of, open_files, open_store

import durable_log
from durable_log.engine import files
from durable_log.engine import format as layout
from durable_log.engine.commit import Committer
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.format import encode_file_header
from durable_log.errors import Corruption, NotAStore, StoreUnreadable, UnsupportedFormat
from durable_log.store import Store

ROOMY = replace(SMALL, segment_bytes=256 * 1024, preallocate=False, cluster_at_close=False)
"""No background thread makes segments, and one that is found ready has room for a commit and the reserve."""


class Killed(BaseException):
    """The process ends here."""


def killed_at(step: int, inner: MemoryDirectory) -> TwinDirectory:
    """A directory whose process is killed at its ``step``-th change."""
    twin, left = TwinDirectory(inner), [step]

    def hook(proceed):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return proceed()

    for what in ("create", "write", "fill", "sync", "rename", "remove", "sync directory", "commit", "mark"):
        twin.hooks[what] = hook
    return twin


def test_a_first_open_that_is_killed_at_any_step_is_followed_by_one_that_works():
    step, killed = 0, True
    while killed:
        killed = False
        twin = killed_at(step, MemoryDirectory())
        try:
            twin.hooks.pop("mark")
            open_store(twin, SMALL).close()
        except Killed:
            killed = True
        with open_store(copy_of(twin), SMALL) as store:
            store.create("a", data=b"x")
            store.engine.check()
        step += 1
    assert step > 5


def test_remains_of_a_first_open_are_taken_over(tmp_path):
    for index, remains in enumerate([{}, {"LOCK": b""}, {"LOCK": b"process 1", "MANIFEST.tmp": b""},
                                     {"MANIFEST.tmp": b"DURALOG\n" + bytes(100)}]):  # fmt: skip
        path = tmp_path / str(index)
        path.mkdir()
        for name, raw in remains.items():
            (path / name).write_bytes(raw)
        with open_at(path) as store:
            store.create("a", data=b"x")
        assert not list(path.glob("*.tmp"))


def test_unfinished_segments_are_removed_and_their_numbers_used(tmp_path):
    open_at(tmp_path).close()
    (tmp_path / "00000002.log.tmp").write_bytes(b"DURALOG\n")
    (tmp_path / "00000003.log.tmp").write_bytes(b"")
    with open_at(tmp_path) as store:
        store.create("a")
        for _ in range(30):
            store.stream("a").append(b"x" * 9000)
    assert not list(tmp_path.glob("*.tmp"))
    with open_at(tmp_path) as store:
        assert store.stream("a").info().tail == 270_000


def test_a_directory_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "thesis.doc").write_bytes(b"my life")
    with pytest.raises(NotAStore):
        open_at(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.doc"]


def test_segments_without_a_manifest_are_not_taken_for_a_new_store(tmp_path):
    with open_at(tmp_path) as store:
        store.create("a", data=b"x")
    (tmp_path / "MANIFEST").unlink()
    with pytest.raises(NotAStore):
        open_at(tmp_path)
    assert (tmp_path / "00000001.log").exists()


def test_a_damaged_manifest_is_reported_and_kept(tmp_path):
    open_at(tmp_path).close()
    raw = bytearray((tmp_path / "MANIFEST").read_bytes())
    raw[30] ^= 1
    (tmp_path / "MANIFEST").write_bytes(raw)
    with pytest.raises(Corruption):
        open_at(tmp_path)
    assert (tmp_path / "MANIFEST").read_bytes() == raw


def test_a_segment_of_a_newer_version_is_refused_and_nothing_stays_open(tmp_path):
    with open_at(tmp_path) as store:
        store.create("a")
        for _ in range(30):
            store.stream("a").append(b"x" * 9000)
    newest = max(tmp_path.glob("*.log"))
    header = layout.decode_file_header(newest.name, newest.read_bytes()[:4096])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "FORMAT_VERSION", 2)
        page = encode_file_header(header)
    with newest.open("r+b") as file:
        file.write(page)
    before = open_files()
    for _ in range(3):
        with pytest.raises(UnsupportedFormat):
            open_at(tmp_path)
    assert open_files() == before


def test_an_open_that_fails_late_leaves_nothing_open_and_nothing_locked(tmp_path, monkeypatch):
    open_at(tmp_path).close()
    before = open_files()

    def fail(*_arguments):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("durable_log.engine.log.LogWriter", fail)
        with pytest.raises(StoreUnreadable):
            open_at(tmp_path)
    assert open_files() == before
    open_at(tmp_path).close()


def test_every_directory_that_is_made_is_made_durable_in_its_parent(tmp_path, monkeypatch):
    synced: list[Path] = []
    sync = files._sync_directory
    monkeypatch.setattr(files, "_sync_directory", lambda path: (synced.append(Path(path).resolve()), sync(path)))
    durable_log.open(tmp_path / "x" / "y" / "store", options=SMALL).close()
    assert {tmp_path.resolve(), (tmp_path / "x").resolve(), (tmp_path / "x" / "y").resolve()} <= set(synced)


class Volatile(MemoryDirectory):
    """What a power cut leaves of names: those that were there when the directory was last synced."""

    grows_in_place = True

    def __init__(self, durable: dict[str, files.MemoryFile] | None = None) -> None:
        super().__init__()
        self.durable = dict(durable or {})
        self.files = dict(self.durable)

    def sync(self) -> None:
        self.durable = dict(self.files)


def kill_in(directory: Volatile, what: str, count: int) -> Volatile:
    """The directory after a process that works in it was killed before its ``count``-th call of that kind."""
    twin, left = TwinDirectory(directory), [count]

    def hook(proceed):
        left[0] -= 1
        if left[0] <= 0:
            raise Killed
        return proceed()

    store: Store | None = None
    try:
        with mock.patch.object(Committer, "start"):  # or it would commit whatever this thread is too slow to commit
            store = open_store(twin, ROOMY)
        twin.hooks[what] = hook
        stream = store.create("a")
        for _ in range(120):
            stream.append(b"x" * 9000)
        raise AssertionError("it was not killed")
    except Killed:
        pass
    killed = Volatile(directory.durable)
    killed.files = dict(copy_of(TwinDirectory(directory)).files)
    killed.durable = {name: killed.files[name] for name in directory.durable if name in killed.files}
    assert store is not None
    store.close()
    return killed


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_kill_between_naming_a_segment_and_syncing_its_name_and_then_a_power_cut_loses_nothing(count):
    """The next process finds the file by its name and writes into it: it has to make the name durable first."""
    directory = kill_in(Volatile(), "sync directory", count)
    assert set(directory.files) > set(directory.durable)
    store = open_store(directory, ROOMY)
    stream = store.create("b")
    acknowledged = b""
    while store.engine._committer._writer.segment.number <= count:
        stream.append(b"x" * 9000)
        acknowledged += b"x" * 9000
    after_power_cut = Volatile(directory.durable)
    store.close()
    with open_store(after_power_cut, ROOMY) as reopened:
        assert reopened.stream("b").read().data == acknowledged


def test_a_store_on_a_relative_path_keeps_working_when_the_process_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with durable_log.open("store", options=SMALL) as store:
        stream = store.create("a")
        monkeypatch.chdir(tmp_path / "elsewhere")
        for _ in range(30):
            stream.append(b"x" * 9000)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    with open_at(tmp_path / "store") as store:
        assert store.stream("a").info().tail == 270_000
