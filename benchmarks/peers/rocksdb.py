"""RocksDB: a sorted map, keys that grow, its write-ahead log synced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.base import Keys, RecordPeer, library, package_version


class RocksDB(RecordPeer):
    """Threads that write at once share a sync inside of it."""

    name = "RocksDB"
    how = "rocksdict, raw mode, WriteOptions.sync, a WriteBatch for many"

    @classmethod
    def version(cls) -> str:
        return package_version("rocksdict")

    def __init__(self, folder: Path, writers: int = 1) -> None:
        self._rocksdict = library("rocksdict")
        options = self._rocksdict.Options(raw_mode=True)
        options.create_if_missing(True)
        self._db = self._rocksdict.Rdict(str(folder / "rocksdb"), options)
        self._synced = self._rocksdict.WriteOptions()
        self._synced.sync = True
        self._keys = Keys(writers)

    def append(self, writer: int, data: bytes) -> None:
        self._db.put(self._keys.next(writer), data, self._synced)

    def append_many(self, items: Sequence[bytes]) -> None:
        batch = self._rocksdict.WriteBatch(raw_mode=True)
        for item in items:
            batch.put(self._keys.next(0), item)
        self._db.write(batch, self._synced)

    def iterate(self) -> Iterable[bytes]:
        values: Iterable[bytes] = self._db.values()
        return values

    def close(self) -> None:
        self._db.close()
