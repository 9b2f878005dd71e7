"""Who reads a stream from its start to its end, and who reads a plain file of the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

import durable_log
from benchmarks.bars import PLAIN
from benchmarks.contest import OURS
from benchmarks.filling import fill, in_log


class PlainFile:
    """A file that is read to its end."""

    name, how = PLAIN, "os.read to the end of an open file"

    def __init__(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        self._fd = os.open(path, os.O_RDONLY)

    def version(self) -> str:
        return os.uname().sysname

    def read(self, piece: int) -> int:
        os.lseek(self._fd, 0, os.SEEK_SET)
        length = 0
        while data := os.read(self._fd, piece):
            length += len(data)
        return length

    def close(self) -> None:
        os.close(self._fd)


class OneStream:
    """A store with one stream, which is read to its end."""

    name, how = OURS, "Stream.read from START to the tail, verified"

    def __init__(self, path: Path, record: bytes, length: int, *, clustered: bool) -> None:
        self.store = durable_log.open(path, options=in_log())
        fill(self.store, ["stream"], length // len(record), record)
        if clustered:
            self.store.engine.upkeep.cluster()
        self._stream = self.store.stream("stream")

    def version(self) -> str:
        return f"durable_log {durable_log.__version__}"

    def read(self, piece: int) -> int:
        offset, read = 0, self._stream.read
        while True:
            chunk = read(offset, limit=piece)
            offset = chunk.next_offset
            if chunk.up_to_date:
                return offset

    def close(self) -> None:
        self.store.close()
