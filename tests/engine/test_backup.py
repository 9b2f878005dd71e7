"""A backup holds what was acknowledged before it, or is none; the store that it is of never notices."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twins import SMALL, Barrier, Clock, Task, TwinDirectory, copy_of, no_space, open_store, until

import durable_log
from durable_log import BackupFailed, CommitFailed, NotAStore, StoreClosed, StoreLocked
from durable_log.engine import backup
from durable_log.engine.files import LOCK_NAME, DiskDirectory, MemoryDirectory, MemoryFile
from durable_log.engine.format import BLOCK_HEADER, position_of
from durable_log.engine.manifest import MANIFEST_NAME, UNFINISHED_NAME
from durable_log.engine.segment import survey
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
CHANGES = ("create", "open", "read", "write", "sync", "rename", "remove", "link", "sync directory")
WRITERS = 8


def fill(store: Store) -> dict[str, bytes]:
    """Streams in clustered segments, in runs and in the log, some of them in all three."""
    truth: dict[str, bytes] = {}
    for turn in range(3):
        for number in range(10):
            name = f"s{number}"
            store.create(name)
            data = bytes([97 + turn]) * (900 * number + 1)
            store.stream(name).append(data)
            truth[name] = truth.get(name, b"") + data
        store.create(f"gone{turn}", data=b"x" * 5000).delete()
        if turn < 2:
            store.engine.upkeep.cluster()
    store.create("fork", fork_of="s5", fork_at=1000)
    truth["fork"] = truth["s5"][:1000]
    return truth


def check(store: Store, truth: dict[str, bytes]) -> None:
    assert list(store.names()) == sorted(truth)
    for name, content in truth.items():
        assert store.stream(name).read(limit=2**22).data == content, name
    assert store.report.damage == []
    store.engine.check()


@pytest.fixture
def source() -> TwinDirectory:
    return TwinDirectory()


@pytest.fixture
def store(source):
    opened = open_store(source, CALM, Clock())
    yield opened
    source.hooks.clear()
    Task(opened.close).result()


@pytest.fixture
def target() -> TwinDirectory:
    return TwinDirectory(MemoryDirectory("the target"))


def hooked_at(twin: TwinDirectory, step: int, act: Callable[[], None]) -> list[int]:
    """Have ``act`` called before the ``step``-th call of ``twin``. Returns how many calls are left before it."""
    left = [step]

    def hook(proceed: Callable[[], Any]) -> Any:
        left[0] -= 1
        if left[0] == -1:
            act()
        return proceed()

    twin.hooks.update(dict.fromkeys(CHANGES, hook))
    return left


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.name != LOCK_NAME
    }


def test_a_backup_amid_writers_and_clustering_holds_all_that_was_acknowledged_before():
    options = replace(SMALL, cluster_segments=2, cluster_seconds=1e9, sweep_seconds=0.01)
    acknowledged = [0] * WRITERS
    budget, stopping = threading.Semaphore(0), threading.Event()
    with open_store(MemoryDirectory(), options) as store:

        def write(number: int) -> None:
            stream = store.create(f"{number}")
            while budget.acquire() and not stopping.is_set():
                turn = acknowledged[number]
                stream.append(b"%08d" % turn + bytes(500))
                acknowledged[number] = turn + 1
                store.create(f"{number}/{turn}", data=b"short-lived").delete()

        tasks = [Task(write, number) for number in range(WRITERS)]
        for turn in range(3):
            budget.release(400)
            until(lambda turn=turn: store.engine.upkeep.checkpointer.manifest.next_file > 4 * turn + 1, "clustering")
            budget.release(400)  # for the time of the backup
            before, target = list(acknowledged), MemoryDirectory()
            made = store.engine.upkeep.backups.fill(target, verify=True)
            assert made.files_linked > 0
            with open_store(target, CALM) as copy:
                assert copy.stats()["streams"] == made.streams
                for number, count in enumerate(before):
                    content = b"".join(chunk.data for chunk in read_all(copy, f"{number}"))
                    assert len(content) >= 508 * count
                    assert content == b"".join(b"%08d" % at + bytes(500) for at in range(len(content) // 508))
                assert (copy.report.damage, copy.report.cut) == ([], False)
                copy.engine.check()
        stopping.set()
        budget.release(WRITERS)
        for task in tasks:
            task.result()
        store.engine.check()


def read_all(store: Store, name: str) -> list[Any]:
    chunks, offset = [], 0
    while not chunks or not chunks[-1].up_to_date:
        chunks.append(store.stream(name).read(offset))
        offset = chunks[-1].next_offset
    return chunks


@pytest.mark.parametrize("verify", [True, False])
def test_a_kill_at_any_step_leaves_no_store_or_a_whole_one(source, store, verify):
    truth = fill(store)
    step, opened, refused = 0, 0, 0
    while True:
        target, images = TwinDirectory(), []
        hooked_at(target, step, lambda target=target, images=images: images.append(copy_of(target)))
        store.engine.upkeep.backups.fill(target, verify=verify)
        if not images:
            break
        if images[0].names():  # an empty directory is nobody's backup
            if MANIFEST_NAME in images[0].names():
                with open_store(images[0], CALM, Clock()) as copy:
                    check(copy, truth)
                    assert UNFINISHED_NAME not in images[0].names()
                opened += 1
            else:
                with pytest.raises(NotAStore, match="the backup into it was not finished"):
                    open_store(images[0], CALM)
                refused += 1
        step += 1
    assert opened > 1
    assert refused > 10
    check(store, truth)
    with open_store(target.inner, CALM, Clock()) as copy:
        check(copy, truth)


@pytest.mark.parametrize(("code", "said"), [(errno.EIO, "Input/output error"), (errno.ENOSPC, "no space left")])
def test_an_error_at_any_step_is_told_and_leaves_nothing_behind(source, store, code, said):
    truth = fill(store)
    step = 0
    while True:
        target = TwinDirectory(MemoryDirectory("the target"))

        def fail() -> None:
            raise OSError(code, os.strerror(code), "a file")

        left = hooked_at(target, step, fail)
        task = Task(store.engine.upkeep.backups.fill, target, verify=True)
        error = task.error()
        if left[0] >= 0:
            break
        assert isinstance(error, BackupFailed)
        assert said in str(error)
        assert "the target" in str(error)
        assert error.__cause__.errno == code
        assert target.names() == []
        step += 1
    assert error is None
    assert step > 10
    assert store.stats()["failure"] is None
    check(store, truth)
    truth["after"] = b"after"
    store.create("after", data=b"after")
    store.engine.upkeep.compact()
    check(store, truth)


def test_an_error_while_the_store_is_read_is_told_and_harms_nothing(source, store, target):
    truth = fill(store)
    for what in ("open", "read"):
        hooked_at(source, 1, lambda: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error", "x")))
        source.hooks = {what: source.hooks[what]}
        with pytest.raises(BackupFailed, match="Input/output error"):
            store.engine.upkeep.backups.fill(target, verify=True)
        source.hooks.clear()
        assert target.names() == []
    store.engine.upkeep.backups.fill(target, verify=True)
    check(store, truth)


def test_a_target_that_stays_full_keeps_a_backup_that_never_opens(store, target):
    """Nothing can be removed from there either: what is left says what it is."""
    fill(store)
    target.hooks["write"] = target.hooks["remove"] = no_space
    with pytest.raises(BackupFailed, match="no space left"):
        store.engine.upkeep.backups.fill(target, verify=True)
    with pytest.raises(NotAStore, match="the backup into it was not finished"):
        open_store(target.inner, CALM)


def test_writers_go_on_while_files_are_copied(source, store, target):
    truth = fill(store)
    barrier = target.hooks["write"] = Barrier()
    backup = Task(store.engine.upkeep.backups.fill, target, verify=True)
    barrier.wait()
    for name in ("s0", "s9"):
        store.stream(name).append(b"later")
    store.create("later").delete()
    barrier.let_go()
    backup.result()
    with open_store(target.inner, CALM, Clock()) as copy:
        check(copy, truth)
    truth["s0"] += b"later"
    truth["s9"] += b"later"
    check(store, truth)


def test_closing_the_store_ends_a_backup_that_is_under_way(store, target):
    fill(store)
    barrier = target.hooks["write"] = Barrier()
    backup = Task(store.engine.upkeep.backups.fill, target, verify=True)
    barrier.wait()
    closing = Task(store.close)
    until(lambda: store.engine._closed, "closing")
    barrier.let_go()
    assert isinstance(backup.error(), StoreClosed)
    closing.result()
    assert target.names() == []
    with pytest.raises(StoreClosed):
        store.backup("anywhere")


def test_what_was_only_written_is_in_it_too(store, target):
    store.create("a").append(b"written", durability="written")
    store.engine.upkeep.backups.fill(target, verify=True)
    with open_store(target.inner, CALM) as copy:
        assert copy.stream("a").read().data == b"written"


def test_an_empty_store_has_a_backup(store, target):
    made = store.engine.upkeep.backups.fill(target, verify=True)
    assert (made.files_linked, made.files_copied, made.streams) == (0, 1, 0)
    with open_store(target.inner, CALM) as copy:
        assert copy.stats()["streams"] == 0
        assert copy.engine.store_id == store.engine.store_id


def test_a_store_that_latched_is_not_backed_up(source, store, target):
    fill(store)

    def failing(_proceed):
        raise OSError(errno.EIO, "Input/output error", "00000001.log")

    source.hooks["commit"] = failing
    with pytest.raises(CommitFailed):
        store.create("x")
    with pytest.raises(CommitFailed):
        store.engine.upkeep.backups.fill(target, verify=True)
    assert target.names() == []


def test_a_backup_after_a_cut_leaves_out_what_was_cut(source, store, target):
    truth = fill(store)
    image = copy_of(source)
    segment = store.engine._writer.segment
    name = segment.file.name
    last = [block for block in survey(segment) if block.body_length][-1]
    content = bytearray(image.files[name].read(0, position_of(last.end)))
    content[position_of(last.lsn) + 70] ^= 1
    image.files[name] = MemoryFile(name)
    image.files[name].write(0, content)
    with open_store(image, replace(CALM, cluster_at_close=False), Clock()) as cut:
        assert cut.report.cut
        assert cut.report.damage == []
        names = list(cut.names())
        cut.create("new", data=b"new")
        cut.engine.upkeep.backups.fill(target, verify=True)
        with open_store(target.inner, replace(CALM, cluster_at_close=False), Clock()) as copy:
            assert list(copy.names()) == sorted([*names, "new"])
            assert copy.report.damage == []
    assert set(names) <= set(truth)
    assert name in target.names()


def cut_short(image: MemoryDirectory, name: str, size: int) -> None:
    content = image.files[name].read(0, size)
    image.files[name] = MemoryFile(name)
    image.files[name].write(0, content)


def test_a_log_that_ends_amid_the_padding_of_its_last_block_is_copied_as_far_as_it_goes(source, store, target):
    truth = fill(store)
    store.stream("s0").append(b"the last")
    truth["s0"] += b"the last"
    image, segment = copy_of(source), store.engine._writer.segment
    last = [block for block in survey(segment) if block.body_length][-1]
    body_end = position_of(last.lsn) + BLOCK_HEADER + last.body_length
    assert body_end < position_of(last.end)
    cut_short(image, segment.file.name, body_end)
    options = replace(CALM, cluster_at_close=False)
    with open_store(image, options, Clock()) as opened:
        check(opened, truth)
        opened.engine.upkeep.backups.fill(target, verify=True)
    with open_store(target.inner, options, Clock()) as copy:
        check(copy, truth)


def test_a_log_that_loses_whole_blocks_while_it_is_open_is_no_backup(source, store, target):
    fill(store)
    store.stream("s0").append(b"acknowledged")
    segment = store.engine._writer.segment
    last = [block for block in survey(segment) if block.body_length][-1]
    inner = source.inner.files[segment.file.name]
    content = inner.read(0, position_of(last.lsn))
    inner._bytes[:] = content
    with pytest.raises(BackupFailed, match=f"does not verify: {segment.file.name}"):
        store.engine.upkeep.backups.fill(target, verify=True)
    assert target.names() == []


def test_a_log_that_lost_bytes_at_an_end_is_copied_as_it_is_only_without_verification(source, store, target):
    fill(store)
    segment = store.engine._writer.segment
    while store.engine._writer.segment is segment:
        store.stream("s0").append(b"x" * 5000)
    last, image = survey(segment)[-1], copy_of(source)
    cut_short(image, segment.file.name, position_of(last.lsn) + 4096)
    with open_store(image, replace(CALM, cluster_at_close=False), Clock()) as opened:
        damage = opened.report.damage
        assert damage
        with pytest.raises(BackupFailed, match=f"does not verify: {segment.file.name}"):
            opened.engine.upkeep.backups.fill(target, verify=True)
        assert target.names() == []
        opened.engine.upkeep.backups.fill(target, verify=False)
    with open_store(target.inner, replace(CALM, cluster_at_close=False), Clock()) as copy:
        assert copy.report.damage == damage


@pytest.mark.parametrize("suffix", [".seg", ".run", ".log"])
def test_a_flipped_byte_in_any_file_is_found_before_there_is_a_backup(source, store, target, suffix):
    truth = fill(store)
    name = min(name for name in source.names() if name.endswith(suffix))
    file = source.inner.files[name]
    # In a log this is in the first block's header: a segment may begin with a mark, behind which nothing counts.
    file.write(4116, bytes([file.read(4116, 1)[0] ^ 1]))
    with pytest.raises(BackupFailed, match=f"what was copied does not verify: {name}: position"):
        store.engine.upkeep.backups.fill(target, verify=True)
    assert target.names() == []
    made = store.engine.upkeep.backups.fill(target, verify=False)
    assert made.streams == len(truth)
    assert MANIFEST_NAME in target.names()


def test_a_store_in_memory_is_backed_up_on_disk(tmp_path):
    with durable_log.open(":memory:", options=CALM) as store:
        truth = fill(store)
        made = store.backup(tmp_path / "copy")
        assert made.files_linked == 0
    with durable_log.open(tmp_path / "copy", options=CALM) as copy:
        check(copy, truth)


def test_neither_the_store_nor_its_backup_sees_what_happens_to_the_other(tmp_path):
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        truth = fill(store)
        made = store.backup(tmp_path / "copy")
        assert made.files_linked >= 3
    before = digests(tmp_path / "store")
    with durable_log.open(tmp_path / "copy", options=CALM) as copy:
        change(copy)
    assert digests(tmp_path / "store") == before
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        check(store, truth)
        store.backup(tmp_path / "second")
        second = digests(tmp_path / "second")
        change(store)
    assert digests(tmp_path / "second") == second
    with durable_log.open(tmp_path / "second", options=CALM) as copy:
        check(copy, truth)


def change(store: Store) -> None:
    """Have as many files written and removed as can be."""
    store.delete("s9")
    for _ in range(3):
        for number in range(9):
            store.stream(f"s{number}").append(b"y" * 9000)
        store.engine.upkeep.cluster()
    store.compact()


def test_backups_on_one_disk_share_what_never_changes(tmp_path):
    with durable_log.open(tmp_path / "store", options=replace(CALM, cluster_at_close=False)) as store:
        fill(store)
        first = store.backup(tmp_path / "first")
        store.stream("s1").append(b"more")
        second = store.backup(tmp_path / "second")
    assert first.files_linked == second.files_linked
    for path in (tmp_path / "second").iterdir():
        shared = path.suffix in (".seg", ".run")
        assert path.stat().st_nlink == (3 if shared else 1), path
        assert path.stat().st_ino == (tmp_path / "store" / path.name).stat().st_ino or not shared


def test_where_links_are_impossible_files_are_copied(tmp_path, monkeypatch):
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        truth = fill(store)
        for number, code in enumerate((errno.EXDEV, errno.EPERM, errno.EMLINK)):

            def refuse(*_arguments: Any, code: int = code) -> None:
                raise OSError(code, os.strerror(code))

            monkeypatch.setattr(os, "link", refuse)
            made = store.backup(tmp_path / f"{number}")
            assert (made.files_linked, made.files_copied >= 4) == (0, True)
            with durable_log.open(tmp_path / f"{number}", options=CALM) as copy:
                check(copy, truth)


def test_a_target_that_is_not_empty_is_refused_and_left_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_bytes(b"mine")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / UNFINISHED_NAME).touch()
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        for name, said in (
            ("file", "it is a file; name a new or an empty directory"),
            ("full", "it holds 'mine' already; name a new or an empty directory"),
            ("begun", "it holds a backup that was not finished; remove it"),
            ("store", "it holds '00000001.log' already"),
            ("store/inside", "it lies inside of the store"),
        ):
            with pytest.raises(BackupFailed) as caught:
                store.backup(tmp_path / name)
            assert said in str(caught.value)
            assert caught.value.target == str(tmp_path / name)
        with pytest.raises(BackupFailed, match="name a directory"):
            store.backup(":memory:")
        (tmp_path / "empty").mkdir()
        store.backup(tmp_path / "empty")
    assert not (tmp_path / "store" / "inside").exists()
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_target_that_somebody_else_has_is_refused(tmp_path):
    holder = DiskDirectory(tmp_path / "target")
    holder.lock()
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        with pytest.raises(StoreLocked):
            store.backup(tmp_path / "target")
        holder.close()
        store.backup(tmp_path / "target")


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_what_is_a_link_in_the_store_is_a_file_of_its_own_in_the_backup(tmp_path, kind):
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        truth = fill(store)
    (tmp_path / "elsewhere").mkdir()
    tables = [path for suffix in ("seg", "run") for path in (tmp_path / "store").glob(f"*.{suffix}")]
    for path in tables:
        there = path.rename(tmp_path / "elsewhere" / path.name)
        path.symlink_to(there if kind == "absolute" else Path("..") / "elsewhere" / path.name)
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        made = store.backup(tmp_path / "copy")
    assert made.files_copied >= len(tables) > 0
    assert not any(path.is_symlink() for path in (tmp_path / "copy").iterdir())
    (tmp_path / "elsewhere").rename(tmp_path / "gone")
    with durable_log.open(tmp_path / "copy", options=CALM) as copy:
        check(copy, truth)


def test_a_failed_backup_leaves_no_directory_that_it_made(tmp_path, monkeypatch):
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        fill(store)
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(BackupFailed):
            store.backup(tmp_path / "new" / "copy")
        (tmp_path / "old").mkdir()
        with pytest.raises(BackupFailed):
            store.backup(tmp_path / "old")
    assert not (tmp_path / "new" / "copy").exists()
    assert list((tmp_path / "old").iterdir()) == []


def test_a_file_that_ends_too_early_is_told_and_leaves_nothing_behind(source, store, target):
    fill(store)
    name = max(name for name in source.names() if name.endswith(".log"))
    source.hooks["read"] = lambda proceed: b"" if source.calls[-1] == ("read", name) else proceed()
    with pytest.raises(BackupFailed, match=f"{name}: the file ends at 0, before"):
        store.engine.upkeep.backups.fill(target, verify=True)
    assert target.names() == []


def test_a_long_file_is_synced_in_parts_lest_its_last_sync_takes_all_the_time(source, store, target, monkeypatch):
    monkeypatch.setattr(backup, "_PIECE", 4096)
    truth = fill(store)
    target.hooks["link"] = lambda _: False
    store.engine.upkeep.backups.fill(target, verify=True)
    sizes = target.sizes()
    name = max((name for name in sizes if name.endswith(".seg")), key=sizes.__getitem__)
    assert target.calls.count(("sync", name)) == 1 + -(-sizes[name] // 4096) > 2
    with open_store(target.inner, CALM, Clock()) as copy:
        check(copy, truth)


def test_a_manifest_that_reads_otherwise_than_it_was_written_is_no_backup(store, target, monkeypatch):
    fill(store)
    load = backup.load_manifest

    def otherwise(directory, now_ms):
        found = load(directory, now_ms)
        return found._replace(lsn=found.lsn + 1) if directory is target else found

    monkeypatch.setattr(backup, "load_manifest", otherwise)
    with pytest.raises(BackupFailed, match="MANIFEST: position 0: it reads otherwise than it was written"):
        store.engine.upkeep.backups.fill(target, verify=True)
    assert target.names() == []


def test_a_target_that_cannot_be_made_or_locked_is_told(tmp_path, monkeypatch):
    with durable_log.open(tmp_path / "store", options=CALM) as store:
        with pytest.raises(BackupFailed, match="too long"):
            store.backup(tmp_path / ("n" * 300))

        def without_locks(_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(DiskDirectory, "lock", without_locks)
        with pytest.raises(BackupFailed, match=os.strerror(errno.ENOLCK)):
            store.backup(tmp_path / "copy")
