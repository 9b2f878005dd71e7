"""What people put into a store's directory is theirs: no opening, closing or repair touches it."""

from __future__ import annotations

import os
import shutil

import pytest
from twins import SMALL, Clock

import durable_log
from durable_log.engine.files import DiskDirectory
from durable_log.engine.manifest import MANIFEST_NAME, UNFINISHED_NAME
from durable_log.engine.quarantine import QUARANTINE
from durable_log.engine.repair import repair
from durable_log.errors import StoreUnreadable

NOT_ITS_OWN = (
    "copy-of-00000001.seg", "00000001.seg.copy", "00000006-saved.run", "results.run", "1.seg", "0000000A.run",
    "MANIFEST.mine.tmp", "notes.tmp", "00000001.log.bak.tmp", "numbers.tmp", "0000000000000001.seg",
)  # fmt: skip
ITS_OWN = (
    "00000098.seg", "00000099.run", "00000097.log.tmp", "00000098.seg.tmp", "00000099.run.tmp",
    "00000099.run.numbers.tmp", "MANIFEST.tmp", UNFINISHED_NAME,
)  # fmt: skip
"""What a kill may have left unfinished, or unnamed."""


@pytest.fixture
def path(tmp_path):
    with durable_log.open(tmp_path / "store", options=SMALL) as store:
        store.create("a", data=b"a" * 20_000)
    return tmp_path / "store"


def mend(path):
    directory = DiskDirectory(path)
    directory.lock()
    repair(directory, Clock(), lambda outcome: (b"", b"{}"))
    directory.close()


def works(path):
    with durable_log.open(path, options=SMALL) as store:
        stream = store.stream("a")
        tail = stream.append(b"b" * 10_000).next_offset
        assert stream.read(tail - 1).data == b"b"
        store.compact()


def test_what_a_kill_left_is_removed_and_what_has_a_similar_name_is_not(path):
    for name in (*NOT_ITS_OWN, *ITS_OWN):
        (path / name).write_bytes(b"precious")
    works(path)
    there = {entry.name for entry in path.iterdir()}
    assert there >= set(NOT_ITS_OWN)
    assert not there & set(ITS_OWN)


@pytest.mark.parametrize("lost", ["a run", "the manifest"])
def test_a_repair_keeps_them_too(path, lost):
    (path / MANIFEST_NAME if lost == "the manifest" else next(path.glob("*.run"))).unlink()
    for name in NOT_ITS_OWN:
        (path / name).write_bytes(b"precious")
    mend(path)
    assert (path / QUARANTINE / "0001").is_dir()
    assert {entry.name for entry in path.iterdir()} >= set(NOT_ITS_OWN)
    assert all((path / name).read_bytes() == b"precious" for name in NOT_ITS_OWN)


@pytest.mark.parametrize("name", ["x.tmp", "old.seg", "00000099.seg", "00000099.run", "00000099.run.tmp"])
@pytest.mark.parametrize("lost", ["nothing", "the manifest"])
def test_folders_and_pipes_are_no_files_of_a_store_whatever_they_are_called(path, name, lost):
    (path / name).mkdir()
    os.mkfifo(path / f"0000009a.{name[-3:]}")
    if lost == "the manifest":
        (path / MANIFEST_NAME).unlink()
        mend(path)
    works(path)
    assert (path / name).is_dir()
    assert (path / f"0000009a.{name[-3:]}").is_fifo()


def test_a_folder_where_the_log_was_once_is_left_alone(path):
    works(path)
    first = min(path.glob("*.log"))
    assert first.name != "00000001.log"
    (path / "00000001.log").mkdir()
    works(path)
    assert (path / "00000001.log").is_dir()


def test_a_folder_in_the_place_of_a_file_is_told_and_what_to_do_about_it(path):
    for file in [*path.glob("0*.seg"), *path.glob("0*.run"), *path.glob("*.log"), path / MANIFEST_NAME]:
        kept = file.with_name("kept")
        shutil.move(file, kept)
        file.mkdir()
        with pytest.raises(StoreUnreadable) as caught:
            durable_log.open(path, options=SMALL)
        said = f"{file}: Is a directory; move it away, and put back the file of the store, if you can"
        assert str(caught.value) == said
        file.rmdir()
        shutil.move(kept, file)
    works(path)
