"""What the machine itself does: the yardsticks that the store is held against.

Law of this room: no code of the package; plain system calls on a plain file.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

PAGE = 4096


class BareFile:
    """A zero-written file of ``size`` bytes that is overwritten from the start, one synced page at a time."""

    def __init__(self, path: Path, size: int = 64 * 2**20) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._size, self._position = size, 0
        for position in range(0, size, 2**20):
            os.pwrite(self._fd, bytes(2**20), position)
        os.fsync(self._fd)

    def synced_writes(self, count: int, payload: bytes) -> float:
        """Writes a second of ``payload``, padded to pages, each synced."""
        block = payload.ljust((len(payload) + PAGE - 1) // PAGE * PAGE, b"\0")
        started = time.perf_counter()
        for _ in range(count):
            if self._position + len(block) > self._size:
                self._position = 0
            os.pwrite(self._fd, block, self._position)
            os.fdatasync(self._fd)
            self._position += len(block)
        return count / (time.perf_counter() - started)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def read_plain(path: Path, content: bytes) -> float:
    """Bytes a second of reading ``content`` back from a plain, warm file."""
    path.write_bytes(content)
    path.read_bytes()
    started = time.perf_counter()
    length = len(path.read_bytes())
    return length / (time.perf_counter() - started)
