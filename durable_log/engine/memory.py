"""Files in memory: the twin of ``files``, for ``open(":memory:")`` and for fast tests.

Law of this room: it behaves as the operating system does, as far as the engine can tell, and survives nothing. Any
thread; nobody may write the same bytes from two threads.
"""

from __future__ import annotations

import errno
import threading
from typing import Any

from durable_log._core import ffi, lib
from durable_log.engine.format import position_of
from durable_log.engine.storage import Directory, WriteFailed


class MemoryFile:
    """A file that lives as long as its directory. Syncing it does nothing, as nothing survives the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._bytes = bytearray()
        self._mutex = threading.Lock()

    def linked(self) -> MemoryFile:
        """Another name for the same bytes."""
        link = MemoryFile(self.name)
        link._bytes, link._mutex = self._bytes, self._mutex
        return link

    def size(self) -> int:
        """Length of the file."""
        return len(self._bytes)

    def read(self, position: int, length: int) -> bytes:
        """``length`` bytes, fewer only where the file ends."""
        with self._mutex:
            return bytes(self._bytes[position : position + length])

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """All of ``data``; a hole before it reads as zeroes."""
        with self._mutex:
            if position > len(self._bytes):
                self._bytes.extend(bytes(position - len(self._bytes)))
            self._bytes[position : position + len(data)] = data

    def sync(self) -> None:
        """Nothing to do."""

    def fill_with_zeroes(self, size: int) -> None:
        """Nothing to do: memory grows in place."""

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        """As on disk: seal and write."""
        if lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), len(block), info) != lib.DL_OK:
            raise WriteFailed(errno.EINVAL, "block does not hold its frames", self.name)
        self.write(position_of(info.lsn), block)
        return 0

    def source(self) -> tuple[int, Any]:
        """What C reads the file by: its memory, which can't grow as long as somebody holds it."""
        return -1, self._bytes

    def forget(self) -> None:
        """Nothing to do: there is no other place that it could be read from."""

    def close(self) -> None:
        """Nothing to do."""


class MemoryDirectory:
    """A store's files in memory: ``open(":memory:")``, and the disk of fast tests."""

    grows_in_place = False

    def __init__(self, path: str = ":memory:") -> None:
        self.path = path
        self.files: dict[str, MemoryFile] = {}
        self.folders: dict[str, MemoryDirectory] = {}

    def lock(self) -> None:
        """Nothing to do: nobody else can see it."""

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted([*self.files, *self.folders])

    def sizes(self) -> dict[str, int]:
        """What each file takes, in bytes."""
        return {name: file.size() for name, file in list(self.files.items())}

    def free(self) -> None:
        """Nobody knows."""

    def open(self, name: str) -> MemoryFile:
        """An existing file."""
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        return self.files[name]

    def create(self, name: str) -> MemoryFile:
        """A new file; one of that name is replaced."""
        self.files[name] = MemoryFile(name)
        return self.files[name]

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        file = self.open(old)
        del self.files[old]
        file.name = new
        self.files[new] = file

    def remove(self, name: str) -> None:
        """Remove a file."""
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
        del self.files[name]

    def link_from(self, source: Directory, name: str) -> bool:
        """As on disk: another name for the same bytes. False if ``source`` is not in memory."""
        if not isinstance(source, MemoryDirectory):
            return False
        self.files[name] = source.files[name].linked()
        return True

    def folder(self, name: str) -> MemoryDirectory:
        """A folder in this directory, made if it is not there."""
        return self.folders.setdefault(name, MemoryDirectory(f"{self.path}/{name}"))

    def sync(self) -> None:
        """Nothing to do."""

    def discard(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""
