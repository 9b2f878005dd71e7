"""SQLite: a table, write-ahead logging, synchronous full."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.base import RecordPeer, library, package_version


class SQLite(RecordPeer):
    """One connection for all threads: there is one writer at a time anyway."""

    name = "SQLite"
    how = "apsw, journal_mode=WAL, synchronous=FULL, INSERT by rowid, one transaction an append"

    @classmethod
    def version(cls) -> str:
        return f"SQLite {library('apsw').sqlite_lib_version()}, {package_version('apsw')}"

    def __init__(self, folder: Path, writers: int = 1) -> None:
        self._lock = threading.Lock()
        self._connection = library("apsw").Connection(str(folder / "sqlite.db"))
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        for writer in range(writers):
            self._connection.execute(f"CREATE TABLE log{writer} (number INTEGER PRIMARY KEY, data BLOB NOT NULL)")
        self._inserts = [f"INSERT INTO log{writer} (data) VALUES (?)" for writer in range(writers)]

    def append(self, writer: int, data: bytes) -> None:
        with self._lock:
            self._connection.execute(self._inserts[writer], (data,))

    def append_many(self, items: Sequence[bytes]) -> None:
        with self._lock, self._connection:
            self._connection.executemany(self._inserts[0], [(item,) for item in items])

    def iterate(self) -> Iterable[bytes]:
        return map(operator.itemgetter(0), self._connection.execute("SELECT data FROM log0 ORDER BY number"))

    def close(self) -> None:
        self._connection.close()
