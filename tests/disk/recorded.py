"""A directory in memory that keeps what it holds apart from what is on stable storage, and records every change.

Law of this room: the engine works on it as on a directory of the operating system, and it makes the same calls in the
same order. Every change becomes one event: it goes to the media, which know what a crash would leave, and to the trace,
if one is kept. Commits go through the C call of ``engine/files.py``, on a scratch file. ``faults`` is asked before each
call, and raises to have it fail. Any thread, as far as the events' order is that of the calls.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from typing import Any

from media import (
    Created,
    DirectorySynced,
    DirectorySyncLost,
    Event,
    Linked,
    Media,
    Note,
    Removed,
    Renamed,
    Synced,
    SyncLost,
    Written,
)

from durable_log._core import ffi, lib
from durable_log.engine.files import LOCK_NAME, Directory, DiskFile, MemoryFile, SyncFailed, WriteFailed
from durable_log.engine.format import position_of

Faults = Callable[[str, str], None]
"""Asked before each call: what it is, and of which file. It raises to have the call fail."""


class RecordedFile(MemoryFile):
    """An open file: what the page cache shows of it."""

    def __init__(self, directory: RecordedDirectory, name: str, inode: int, content: bytes = b"") -> None:
        super().__init__(name)
        self._directory, self.inode = directory, inode
        super().write(0, content)

    def read(self, position: int, length: int) -> bytes:
        self._directory.faults("read", self.name)
        return super().read(position, length)

    def read_quietly(self) -> bytes:
        """All of it, for a test to look at."""
        return super().read(0, self.size())

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        self._directory.faults("write", self.name)
        super().write(position, data)
        self._directory.record(Written(self.inode, position, bytes(data)))

    def sync(self) -> None:
        self._directory.faults("sync", self.name)
        self._directory.record(Synced(self.inode))

    fill_with_zeroes = DiskFile.fill_with_zeroes

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        what = "mark" if info.body_length == 0 else "commit"
        self._directory.faults(what, self.name)
        self._directory.seal(block, info)
        MemoryFile.write(self, position_of(info.lsn), block)
        self._directory.record(Written(self.inode, position_of(info.lsn), bytes(block)))
        if sync:
            try:
                self._directory.faults("sync", self.name)
            except OSError as error:
                raise SyncFailed(error.errno, error.strerror, self.name) from error
            self._directory.record(Synced(self.inode))
        return 0

    def source(self) -> tuple[int, Any]:
        self._directory.faults("read", self.name)
        return super().source()

    def lose(self, kept: frozenset[int], *, shown: bool, length: int | None = None) -> None:
        """The last sync failed: what it was to cover has reached the disk in these sectors only, and is clean.

        ``shown``: the page cache goes on showing it; else the cache shows from now on what is on the disk. ``length``:
        that of the file on disk, if it is not the one that it has.
        """
        self._directory.record(SyncLost(self.inode, kept, length))
        if not shown:
            content = self._directory.media.durable(self.inode)
            with self._mutex:
                self._bytes[:] = content


class RecordedDirectory:
    """The files of a store on a disk that tells all. ``files``: what is durable at the beginning; with ``media``, what
    the page cache shows of these, as to a process that begins anew after another was killed.
    """

    def __init__(
        self, files: dict[str, bytes] | None = None, *, media: Media | None = None, grows_in_place: bool = True
    ) -> None:
        self.path, self.grows_in_place = ":recorded:", grows_in_place
        self.media = Media(files) if media is None else media
        self.trace: list[Event] = []
        self.recording = True
        self.faults: Faults = lambda what, name: None
        self.files = {
            name: RecordedFile(self, name, inode, (files or {})[name]) for name, inode in self.media.entries.items()
        }
        self._inodes = max([0, *self.media.inodes])
        self._mutex = threading.Lock()
        self._scratch = -1
        self._stage, self._sync_ns = ffi.new("int *"), ffi.new("uint64_t *")

    def shown(self) -> dict[str, bytes]:
        """What the page cache shows of all files."""
        return {name: file.read_quietly() for name, file in self.files.items()}

    def record(self, event: Event) -> None:
        """The next event."""
        with self._mutex:
            self.media.apply(event)
            if self.recording:
                self.trace.append(event)

    def note(self, what: object) -> None:
        """Put something that the program knows into the trace."""
        self.record(Note(what))

    def seal(self, block: bytearray, info: Any) -> None:
        """Have the commit call of C write the block to the scratch file, and see that it wrote nothing else."""
        position = position_of(info.lsn)
        if self._scratch < 0:
            self._scratch = os.memfd_create("durable_log")
        view = ffi.from_buffer("uint8_t[]", block)
        result = lib.dl_commit(self._scratch, view, len(block), True, info, self._stage, self._sync_ns)
        if result:
            raise WriteFailed(-result, os.strerror(-result), self.path)
        assert os.pread(self._scratch, len(block), position) == block
        assert os.fstat(self._scratch).st_size == position + len(block)
        os.ftruncate(self._scratch, 0)

    def lock(self) -> None:
        if LOCK_NAME not in self.files:
            self.create(LOCK_NAME)  # what is written into it, for people to read, matters to nobody

    def names(self) -> list[str]:
        return sorted(self.files)

    def sizes(self) -> dict[str, int]:
        return {name: file.size() for name, file in list(self.files.items())}

    def free(self) -> None:
        return None

    def open(self, name: str) -> RecordedFile:
        self.faults("open", name)
        return self._find(name)

    def _find(self, name: str) -> RecordedFile:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return self.files[name]

    def create(self, name: str) -> RecordedFile:
        self.faults("create", name)
        with self._mutex:
            self._inodes += 1
            inode = self._inodes
        old = self.files.get(name)
        self.record(Created(name, inode))
        self.files[name] = RecordedFile(self, name, old.inode if old else inode)
        return self.files[name]

    def rename(self, old: str, new: str) -> None:
        self.faults("rename", old)
        self._find(old)
        self.record(Renamed(old, new))
        self.files[new] = self.files.pop(old)
        self.files[new].name = new

    def remove(self, name: str) -> None:
        self.faults("remove", name)
        self._find(name)
        self.record(Removed(name))
        del self.files[name]

    def link_from(self, source: Directory, name: str) -> bool:
        if not isinstance(source, RecordedDirectory):
            return False
        self.faults("link", name)
        content = source.files[name].read_quietly()
        with self._mutex:
            self._inodes += 1
            inode = self._inodes
        self.record(Linked(name, inode, content))
        self.files[name] = RecordedFile(self, name, inode, content)
        return True

    def sync(self) -> None:
        self.faults("sync directory", "")
        self.record(DirectorySynced())

    def lose(self, kept: frozenset[int]) -> None:
        """The last sync failed: of the changes that it was to cover, these have reached the disk, and no other will."""
        self.record(DirectorySyncLost(kept))

    def discard(self) -> None:
        pass

    def close(self) -> None:
        if self._scratch >= 0:
            scratch, self._scratch = self._scratch, -1
            os.close(scratch)
