"""Files and directories: the one of the operating system and the one in memory behave the same."""

from __future__ import annotations

import errno
import gc
import importlib.util
import os
import sys
import weakref
from array import array
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import oracle
import pytest
from stores import kill
from twins import SMALL, open_files

import durable_log
from durable_log._core import ffi
from durable_log.engine import files, log
from durable_log.engine.files import (
    DiskDirectory,
    MemoryDirectory,
    SyncFailed,
    WriteFailed,
    directory_at,
    is_out_of_space,
)
from durable_log.engine.format import BLOCK_HEADER, PAGE, lsn_of
from durable_log.engine.gather import gather
from durable_log.engine.index import _numbers, add_place, new_index
from durable_log.engine.manifest import check_directory, load_manifest
from durable_log.engine.run_format import _from_bytes, _to_bytes
from durable_log.engine.segment import LogSegment, segment_name, segment_number, size_of_segment
from durable_log.errors import Corruption, NotAStore, StoreClosed, StoreLocked

NONCE = 77


@pytest.fixture(params=["disk", "memory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return DiskDirectory(tmp_path / "store") if request.param == "disk" else MemoryDirectory()


def block_info(lsn: int, length: int) -> Any:
    info = ffi.new("dl_block *")
    info.lsn, info.body_length, info.nonce = lsn, length, NONCE
    return info


class TestBothDirectories:
    def test_what_is_written_is_read_back_from_anywhere(self, directory):
        file = directory.create("f")
        file.write(0, b"hello")
        file.write(10, bytearray(b"world"))
        assert file.size() == 15
        assert file.read(0, 100) == b"hello" + bytes(5) + b"world"
        assert file.read(12, 2) == b"rl"
        assert file.read(15, 5) == b""
        assert file.read(99, 5) == b""
        assert file.read(3, 0) == b""
        file.write(3, b"!!")
        assert directory.open("f").read(0, 6) == b"hel!!\0"

    def test_names_are_sorted_and_follow_renames_and_removals(self, directory):
        for name in ("b", "a", "c"):
            directory.create(name).write(0, name.encode())
        directory.rename("a", "d")
        directory.rename("b", "c")
        assert directory.names() == ["c", "d"]
        assert directory.open("c").read(0, 9) == b"b"
        directory.remove("d")
        assert directory.names() == ["c"]
        directory.sync()

    def test_creating_replaces_what_was_there(self, directory):
        directory.create("f").write(0, b"old content")
        assert directory.create("f").size() == 0

    def test_opening_or_removing_what_is_not_there_says_so(self, directory):
        with pytest.raises(FileNotFoundError):
            directory.open("f")
        with pytest.raises((FileNotFoundError, KeyError)):
            directory.remove("f")

    def test_a_commit_seals_the_block_and_writes_it_where_its_lsn_says(self, directory):
        file = directory.create("f")
        frame = oracle.Frame(oracle.DATA, 3, 0, b"payload")
        for page, sync in ((1, True), (2, False)):
            raw = bytearray(bytes(BLOCK_HEADER) + frame.encode(0, 0)).ljust(PAGE, b"?")
            info = block_info(lsn_of(9, page * PAGE), len(frame.encode(0, 0)))
            assert file.commit(raw, info, sync) >= 0
            found = oracle.decode_block(file.read(page * PAGE, PAGE), lsn_of(9, page * PAGE), NONCE)
            assert found.frames == [frame]
            assert found.header_crc == info.header_crc

    def test_a_block_that_does_not_hold_its_frames_is_refused_and_not_written(self, directory):
        file = directory.create("f")
        bad = bytearray(bytes(BLOCK_HEADER) + b"\xff" * 30).ljust(PAGE, b"\0")
        with pytest.raises(WriteFailed):
            file.commit(bad, block_info(lsn_of(1, PAGE), 30), True)
        assert file.size() == 0

    def test_gathering_takes_any_span_out_of_records_and_stops_at_the_first_bad_one(self, directory):
        file = directory.create("f")
        payloads = [bytes([65 + number]) * (number + 1) for number in range(6)]
        index, positions, at, offset = new_index(), [], PAGE, 0
        for number, payload in enumerate(payloads):
            raw = oracle.Frame(1, 4, offset, payload, claim=(1, 2, 3) if number % 2 else None).encode(NONCE, at)
            file.write(at, raw)
            positions.append(at)
            offset += len(payload)
            add_place(index, offset, lsn_of(9, at))
            at += len(raw) + (300_000 if number == 3 else 7)
        content = b"".join(payloads)
        for first in range(len(content)):
            for last in range(first + 1, len(content) + 1):
                assert gather(file, NONCE, 4, index, first, last) == content[first:last]
        assert gather(file, NONCE, 5, index, 0, 3) == b""
        assert gather(file, NONCE + 1, 4, index, 0, 3) == b""
        for bad in range(6):
            position = positions[bad] + 24
            good = file.read(position, 1)
            file.write(position, bytes([good[0] ^ 1]))
            held = sum(map(len, payloads[:bad]))
            assert gather(file, NONCE, 4, index, 0, len(content)) == content[:held]
            assert gather(file, NONCE, 4, index, held, len(content)) == b""
            assert gather(file, NONCE, 4, index, held + 1, len(content)) == b""
            file.write(position, good)

    def test_gathering_beyond_the_end_of_a_file_finds_nothing(self, directory):
        file = directory.create("f")
        index = new_index()
        add_place(index, 5, lsn_of(9, PAGE))
        assert gather(file, NONCE, 1, index, 0, 5) == b""

    def test_filling_with_zeroes_keeps_what_is_there(self, directory):
        file = directory.create("f")
        file.write(0, b"head")
        file.fill_with_zeroes(3 * 2**20 + 5)
        assert file.read(0, 5) == b"head" + (b"\0" if directory.grows_in_place else b"")
        if directory.grows_in_place:
            assert file.size() == 3 * 2**20 + 5
        file.sync()
        file.close()

    def test_closing_twice_is_harmless(self, directory):
        file = directory.create("f")
        file.close()
        file.close()
        directory.lock()
        directory.close()
        directory.close()

    def test_a_manifest_is_made_once_and_found_again(self, directory):
        check_directory(directory)
        uuid = load_manifest(directory, 5).uuid
        assert len(uuid) == 16
        check_directory(directory)
        assert load_manifest(directory, 6).uuid == uuid
        assert directory.names() == ["MANIFEST"]

    def test_a_directory_of_other_things_is_not_a_store(self, directory):
        directory.create("photo.jpg")
        with pytest.raises(NotAStore, match=r"it has no MANIFEST but 'photo\.jpg'; name an empty or a new directory"):
            check_directory(directory)
        load_manifest(directory, 0)
        check_directory(directory)

    @pytest.mark.parametrize("name", ["00000001.log", "0000000a.seg", "00000002.run"])
    def test_a_store_that_lost_its_manifest_is_to_be_repaired_and_not_to_be_left(self, directory, name):
        directory.create("A photo.jpg")
        directory.create(name)
        if name.endswith(".log"):
            with pytest.raises(NotAStore, match="it has no MANIFEST but"):
                check_directory(directory)  # somebody else's log, maybe, named by the date
            directory.create("LOCK")
        with pytest.raises(NotAStore) as caught:
            check_directory(directory)
        lost = f"its MANIFEST is lost, but {name!r} is there; put it back, or run durable-log repair {directory.path}"
        assert lost in str(caught.value)
        assert "new directory" not in str(caught.value)

    def test_a_manifest_that_is_damaged_or_something_else_is_reported(self, directory):
        load_manifest(directory, 5)
        file = directory.open("MANIFEST")
        good = file.read(0, PAGE)
        for bad in (bytes(PAGE), good[:40] + bytes([good[40] ^ 1]) + good[41:], good[:20]):
            directory.create("MANIFEST").write(0, bad)
            with pytest.raises(Corruption, match=f"run durable-log verify {directory.path}$") as caught:
                load_manifest(directory, 6)
            assert caught.value.again().directory == caught.value.directory == directory.path
        LogSegment.create(directory, 1, 64 * 1024, bytes(16), 0)
        directory.rename(segment_name(1), "MANIFEST")
        with pytest.raises(Corruption):
            load_manifest(directory, 6)

    def test_a_segment_is_opened_again_as_it_was_made(self, directory):
        made = LogSegment.create(directory, 300, 64 * 1024, b"u" * 16, 7)
        assert directory.names() == ["0000012c.log"]
        found = LogSegment.open(directory, "0000012c.log", b"u" * 16)
        assert found is not None
        assert (found.number, found.nonce, found.size) == (made.number, made.nonce, made.size)
        assert LogSegment.open(directory, "0000012c.log", b"v" * 16) is None
        directory.rename("0000012c.log", "0000012d.log")
        assert LogSegment.open(directory, "0000012d.log", b"u" * 16) is None

    def test_a_segment_says_after_what_it_comes(self, directory):
        made = LogSegment.create(directory, 2, 64 * 1024, b"u" * 16, 7)
        assert made.after_lsn == 0
        made.begin_after(lsn_of(1, 8192))
        found = LogSegment.open(directory, "00000002.log", b"u" * 16)
        assert found is not None
        assert (found.after_lsn, found.nonce, found.size) == (lsn_of(1, 8192), made.nonce, made.size)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("00000001.log", 1), ("ffffffff.log", 2**32 - 1), ("00000001.log.tmp", None), ("1.log", None),
        ("0000000G.log", None), ("MANIFEST", None),
    ],
)  # fmt: skip
def test_names_of_segments_are_their_numbers(name, number):
    assert segment_number(name) == number
    if number is not None:
        assert segment_name(number) == name


def test_young_stores_have_small_segments():
    full = 64 * 2**20
    assert [size_of_segment(number, full) for number in (1, 2, 3, 4, 2**31)] == [
        4 * 2**20,
        16 * 2**20,
        full,
        full,
        full,
    ]
    assert size_of_segment(1, 64 * 1024) == 64 * 1024


@pytest.mark.parametrize("needed", [1, 4096, 57_344, 57_345, 61_440, 400_000, 524_288, 10**6, 20_000_001])
def test_a_segment_is_large_enough_for_what_is_needed_beside_its_reserve(needed):
    size = size_of_segment(5, 64 * 1024, needed)
    assert LogSegment.create(MemoryDirectory(), 5, size, bytes(16), 0).usable >= needed
    assert size % PAGE == 0
    assert size <= max(64 * 1024, needed * 8 // 7 + 3 * PAGE)


def test_only_one_process_holds_the_lock_of_a_directory(tmp_path):
    first, second = DiskDirectory(tmp_path), DiskDirectory(tmp_path)
    first.lock()
    with pytest.raises(StoreLocked) as caught:
        second.lock()
    assert str(os.getpid()) in caught.value.holder
    assert str(caught.value) == f"{tmp_path} is open in this process already; use that Store, or close it first"
    first.close()
    second.lock()
    second.close()


def test_short_writes_and_reads_of_the_system_are_completed(tmp_path, monkeypatch):
    directory = DiskDirectory(tmp_path)
    file = directory.create("f")
    pwrite, pread = os.pwrite, os.pread
    monkeypatch.setattr(os, "pwrite", lambda fd, data, position: pwrite(fd, bytes(data)[:3], position))
    monkeypatch.setattr(os, "pread", lambda fd, length, position: pread(fd, min(length, 2), position))
    file.write(5, b"0123456789")
    assert file.read(4, 100) == b"\x000123456789"
    file.close()


def test_errors_of_a_commit_say_which_step_failed_and_of_which_file(tmp_path):
    directory = DiskDirectory(tmp_path)
    directory.create("f").close()
    file = directory.open("f")
    os.close(file._fd)
    reading = os.open(tmp_path / "f", os.O_RDONLY)
    os.dup2(reading, file._fd)
    if reading != file._fd:
        os.close(reading)
    frame = oracle.Frame(1, 1, 0, b"x").encode(0, 0)
    with pytest.raises(WriteFailed) as caught:
        file.commit(bytearray(bytes(64) + frame).ljust(PAGE, b"\0"), block_info(lsn_of(1, PAGE), len(frame)), True)
    assert caught.value.errno == errno.EBADF
    assert caught.value.filename == str(tmp_path / "f")
    file.close()
    reading, writing = os.pipe()
    file._fd = writing
    with pytest.raises((WriteFailed, SyncFailed)) as caught:
        file.commit(bytearray(bytes(64) + frame).ljust(PAGE, b"\0"), block_info(lsn_of(1, PAGE), len(frame)), True)
    assert caught.value.errno == errno.ESPIPE
    os.close(reading)
    file.close()


def test_a_full_disk_and_a_full_quota_are_out_of_space_and_nothing_else_is():
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)
    assert [is_out_of_space(OSError(number, "")) for number in numbers] == [True, True, False, False]


def test_a_path_names_a_directory_and_one_word_the_memory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert isinstance(directory_at(":memory:"), MemoryDirectory)
    assert isinstance(directory_at("~/store"), DiskDirectory)
    assert (tmp_path / "store").is_dir()


def test_a_segment_that_could_not_be_made_leaves_nothing_behind(tmp_path, monkeypatch):
    directory = DiskDirectory(tmp_path)

    def no_room(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.DiskFile, "fill_with_zeroes", no_room)
    before = open_files()
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        LogSegment.create(directory, 1, 64 * 1024, bytes(16), 0)
    assert directory.names() == []
    assert open_files() == before


def test_a_segment_that_is_prepared_has_never_more_than_a_mebibyte_to_be_synced(tmp_path, monkeypatch):
    """Appends are synced to the same disk meanwhile, and wait for it."""
    unsynced, most = [0], [0]

    def pwrite(fd, data, position):
        unsynced[0] += len(data)
        most[0] = max(most[0], unsynced[0])
        return write(fd, data, position)

    def fdatasync(fd):
        unsynced[0] = 0
        sync(fd)

    write, sync = os.pwrite, os.fdatasync
    monkeypatch.setattr(files.os, "pwrite", pwrite)
    monkeypatch.setattr(files.os, "fdatasync", fdatasync)
    directory = files.DiskDirectory(tmp_path)
    segment = LogSegment.create(directory, 1, 16 * 2**20, bytes(16), 0)
    assert segment.file.size() == 16 * 2**20
    assert 2**20 <= most[0] < 2**20 + 64 * 2**10
    segment.file.close()
    directory.close()


# --- what other systems do


def test_a_system_that_has_a_full_sync_is_asked_for_it(tmp_path, monkeypatch):
    """On macOS an ordinary one leaves the bytes in the disk's cache."""
    asked = []
    monkeypatch.setattr(files.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(files.fcntl, "fcntl", lambda fd, what: asked.append(what))
    file = DiskDirectory(tmp_path).create("a")
    file.sync()
    file.close()
    assert asked == [51]


def test_a_system_that_takes_no_advice_reads_from_its_cache(tmp_path, monkeypatch):
    monkeypatch.delattr(files.os, "posix_fadvise")
    file = DiskDirectory(tmp_path).create("a")
    file.write(0, b"data")
    file.forget()
    assert file.read(0, 9) == b"data"
    file.close()


def test_a_system_without_locks_is_told_apart_from_a_lock_that_is_taken(tmp_path, monkeypatch):
    def without_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(files.fcntl, "flock", without_locks)
    before = open_files()
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        DiskDirectory(tmp_path).lock()
    assert open_files() == before


def test_a_directory_that_somebody_else_makes_at_the_same_time_is_taken_as_it_is(tmp_path, monkeypatch):
    mkdir = os.mkdir

    def twice(path):
        mkdir(path)
        mkdir(path)

    monkeypatch.setattr(files.os, "mkdir", twice)
    path = tmp_path / "store"
    assert not files._make_directories(str(path))
    assert path.is_dir()


def test_a_file_that_somebody_makes_where_a_directory_is_to_be_is_said(tmp_path, monkeypatch):
    def file_instead(path):
        Path(path).touch()
        raise FileExistsError

    monkeypatch.setattr(files.os, "mkdir", file_instead)
    with pytest.raises(NotAStore, match="it is a file"):
        DiskDirectory(tmp_path / "store")


def test_a_file_that_goes_while_sizes_are_looked_up_takes_no_room(tmp_path):
    directory = DiskDirectory(tmp_path)
    directory.create("a").close()
    with os.scandir(tmp_path) as entries:
        entry = next(entries)
        directory.remove("a")
        assert files._size_on_disk(entry) is None


def test_folders_are_made_and_are_the_same_for_whoever_asks(tmp_path):
    directory = DiskDirectory(tmp_path)
    for _ in range(2):
        folder = directory.folder("quarantine").folder("0001")
        folder.create("report").close()
    assert folder.names() == ["report"]
    assert (tmp_path / "quarantine" / "0001" / "report").is_file()


def test_memory_links_to_memory_only(tmp_path):
    source, target = DiskDirectory(tmp_path), MemoryDirectory()
    source.create("a").close()
    assert not target.link_from(source, "a")
    assert target.names() == []


def test_on_a_machine_of_the_other_byte_order_numbers_are_turned_around(monkeypatch):
    """Files are the same everywhere: little-endian."""
    there = {"little": "big", "big": "little"}[sys.byteorder]
    entries = new_index(7)
    monkeypatch.setattr(sys, "byteorder", "big")
    numbers = [_to_bytes(array("Q", [1])), _from_bytes("Q", b"\1" + bytes(7))[0], _numbers(entries, 0, 8)[0]]
    assert numbers == [(1).to_bytes(8, there), int.from_bytes(b"\1" + bytes(7), there), 7 << 56]


def test_without_ctypes_the_collector_looks_at_everything(monkeypatch):
    monkeypatch.setitem(sys.modules, "ctypes", None)
    spec = importlib.util.find_spec("durable_log.engine.untracked")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tracked = [[]]
    module.untrack(tracked)
    assert gc.is_tracked(tracked)


# --- forks of the process


def test_the_child_of_a_fork_can_do_nothing_with_the_store_and_lets_go_of_its_lock(tmp_path, monkeypatch):
    """As a child would see it; real ones are made in ``tests/store``."""
    monkeypatch.setattr(files, "_forked", weakref.WeakSet())
    options = replace(SMALL, cluster_segments=1000, cluster_seconds=1e9, sweep_seconds=3600.0)
    store = durable_log.open(tmp_path / "store", options=options)
    store.create("a", data=b"data")
    store.engine.upkeep._keeper.stop()
    store.engine.upkeep._clusterer.stop()
    monkeypatch.setattr(log, "process_id", lambda: 4711)
    files._tell_forked()
    stream = store.stream("a")
    said = f"opened by process {os.getpid()} and can't be used by its child 4711; once the parent has closed it, open"
    for call in (stream.read, partial(stream.append, b"x"), partial(store.create, "b"), store.compact):
        with pytest.raises(StoreClosed, match=said):
            call()
    store.close()
    directory = DiskDirectory(tmp_path / "store")
    directory.lock()
    directory.close()
    store.engine._close_files()
    kill(store)
