"""LevelDB: a sorted map, keys that grow, its log synced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.base import Keys, RecordPeer, library, package_version


class LevelDB(RecordPeer):
    """Threads that write at once share a sync inside of it."""

    name = "LevelDB"
    how = "plyvel, sync=True, a write batch for many"

    @classmethod
    def version(cls) -> str:
        return package_version("plyvel")

    def __init__(self, folder: Path, writers: int = 1) -> None:
        self._db = library("plyvel").DB(str(folder / "leveldb"), create_if_missing=True)
        self._keys = Keys(writers)

    def append(self, writer: int, data: bytes) -> None:
        self._db.put(self._keys.next(writer), data, sync=True)

    def append_many(self, items: Sequence[bytes]) -> None:
        with self._db.write_batch(sync=True) as batch:
            for item in items:
                batch.put(self._keys.next(0), item)

    def iterate(self) -> Iterable[bytes]:
        with self._db.iterator(include_key=False) as values:
            yield from values

    def close(self) -> None:
        self._db.close()
