"""What the disk itself does: the pages that any of them would write, and a sync for each."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.base import Peer

PAGE = 4096


class Bare(Peer):
    """A zero-written file that is overwritten from its start; there is no log that one could read.

    There is one position in it, so it is one writer, however many are asked for.
    """

    name = "bare pwrite + fdatasync"
    how = "os.pwrite of whole pages into a zero-written file, os.fdatasync"

    @classmethod
    def version(cls) -> str:
        return f"{platform.system()} {platform.release()}"

    def __init__(self, folder: Path, writers: int = 1, size: int = 64 * 2**20) -> None:
        self._fd = os.open(folder / "bare", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._position, self._size = 0, size
        for position in range(0, size, 2**20):
            os.pwrite(self._fd, bytes(2**20), position)
        os.fsync(self._fd)

    def append(self, writer: int, data: bytes) -> None:
        block = data.ljust((len(data) + PAGE - 1) // PAGE * PAGE, b"\0")
        if self._position + len(block) > self._size:
            self._position = 0
        os.pwrite(self._fd, block, self._position)
        os.fdatasync(self._fd)
        self._position += len(block)

    def appends(self, writers: int, count: int, data: bytes) -> float:
        return super().appends(1, count, data)

    def append_many(self, items: Sequence[bytes]) -> None:
        self.append(0, b"".join(items))

    def close(self) -> None:
        os.close(self._fd)
