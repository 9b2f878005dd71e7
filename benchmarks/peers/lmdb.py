"""LMDB: a sorted map, keys that grow, every transaction synced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.base import Keys, RecordPeer, library, package_version

MAP_SIZE = 16 * 2**30


class LMDB(RecordPeer):
    """Transactions that write wait for each other inside of it."""

    name = "LMDB"
    how = "lmdb, sync=True, one transaction an append; MDB_APPEND where there is one writer"

    @classmethod
    def version(cls) -> str:
        return f"LMDB {'.'.join(map(str, library('lmdb').version()))}, {package_version('lmdb')}"

    def __init__(self, folder: Path, writers: int = 1) -> None:
        self._environment = library("lmdb").open(str(folder / "lmdb"), map_size=MAP_SIZE)
        self._keys = Keys(writers)
        self._at_the_end = writers == 1

    def append(self, writer: int, data: bytes) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.put(self._keys.next(writer), data, append=self._at_the_end)

    def append_many(self, items: Sequence[bytes]) -> None:
        pairs = [(self._keys.next(0), item) for item in items]
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(pairs, append=self._at_the_end)

    def iterate(self) -> Iterable[bytes]:
        with self._environment.begin() as transaction, transaction.cursor() as cursor:
            yield from cursor.iternext(keys=False, values=True)

    def close(self) -> None:
        self._environment.close()
