"""A directory that nothing is written to: what would be is kept in memory, over what is there.

Law of this room: whoever opens a store in an overlay sees it as the engine would leave it, and the files below stay as
they are, byte for byte; only the lock is taken for real. A file is copied to memory by the first write to it. It is
for looking at a store, or for trying out what would be done to it: nothing of it survives. Any thread, as with files.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from durable_log.engine.memory import MemoryDirectory, MemoryFile
from durable_log.engine.storage import Directory, File

_PIECE: Final = 2**20


class OverlayFile:
    """A file below, until it is written; then a copy of it in memory."""

    def __init__(self, name: str, below: File | None) -> None:
        self.name = name
        self._below = below
        self._copy = MemoryFile(name) if below is None else None

    @property
    def is_copied(self) -> bool:
        """Whether it has been written, or was made here."""
        return self._copy is not None

    def _read(self) -> File:
        below: File | None = self._copy or self._below
        if below is None:
            raise OSError(errno.EBADF, "the file is closed", self.name)
        return below

    def _written(self) -> MemoryFile:
        if self._copy is None:
            below, copy = self._read(), MemoryFile(self.name)
            for position in range(0, below.size(), _PIECE):
                copy.write(position, below.read(position, _PIECE))
            self._copy = copy
            self.release()
        return self._copy

    def size(self) -> int:
        """Length of the file."""
        return self._read().size()

    def read(self, position: int, length: int) -> bytes:
        """``length`` bytes, fewer only where the file ends."""
        return self._read().read(position, length)

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """All of ``data``, to memory."""
        self._written().write(position, data)

    def sync(self) -> None:
        """Nothing to do."""

    def fill_with_zeroes(self, size: int) -> None:
        """Nothing to do."""

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        """Seal the block, and write it to memory."""
        return self._written().commit(block, info, sync)

    def source(self) -> tuple[int, Any]:
        """By what C reads it."""
        return self._read().source()

    def forget(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do: others may have it open."""

    def release(self) -> None:
        """Close the file below."""
        if self._below is not None:
            self._below.close()
            self._below = None


class OverlayDirectory:
    """The files of another directory, which stays as it is."""

    grows_in_place = False

    def __init__(self, below: Directory) -> None:
        self.path = below.path
        self._below = below
        self._files: dict[str, OverlayFile] = {}
        self._folders: dict[str, OverlayDirectory] = {}
        self._gone: set[str] = set()
        self._removed: list[OverlayFile] = []

    def lock(self) -> None:
        """Lock the directory below."""
        self._below.lock()

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted((set(self._below.names()) - self._gone) | self._files.keys() | self._folders.keys())

    def sizes(self) -> dict[str, int]:
        """What each file takes, or would take, in bytes."""
        sizes = {name: size for name, size in self._below.sizes().items() if name not in self._gone}
        return sizes | {name: file.size() for name, file in self._files.items() if file.is_copied}

    def free(self) -> int | None:
        """What is left below."""
        return self._below.free()

    def open(self, name: str) -> OverlayFile:
        """An existing file."""
        if name not in self._files:
            if name in self._gone:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", name)
            self._files[name] = OverlayFile(name, self._below.open(name))
        return self._files[name]

    def create(self, name: str) -> OverlayFile:
        """A new file, in memory."""
        self._files[name] = OverlayFile(name, None)
        return self._files[name]

    def rename(self, old: str, new: str) -> None:
        """Rename a file, here, where it is a copy from then on."""
        file = self.open(old)
        file.write(0, b"")
        self.remove(old)
        self.remove(new)
        file.name = new
        self._files[new] = file

    def remove(self, name: str) -> None:
        """Remove a file, here. Whoever has it open may read on."""
        file = self._files.pop(name, None)
        if file is not None:
            self._removed.append(file)
        self._gone.add(name)

    def link_from(self, source: Directory, name: str) -> bool:  # noqa: ARG002 - the shape of all directories
        """Nothing to link to: it takes a copy."""
        return False

    def folder(self, name: str) -> OverlayDirectory:
        """A folder in this directory; if it is not there, in memory."""
        if name not in self._folders:
            there = name in self._below.names()
            self._folders[name] = OverlayDirectory(self._below.folder(name) if there else MemoryDirectory(name))
        return self._folders[name]

    def sync(self) -> None:
        """Nothing to do."""

    def discard(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Let go of the lock and of the files below. What was written stays."""
        for folder in self._folders.values():
            folder.close()
        read_only = [name for name, file in self._files.items() if not file.is_copied]
        for file in (*map(self._files.pop, read_only), *self._removed):
            file.release()
        self._removed.clear()
        self._below.close()
