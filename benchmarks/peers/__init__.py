"""The contestants that store records in this process or beside it, and which of them are compared in what."""

from __future__ import annotations

from benchmarks.peers.bare_file import Bare
from benchmarks.peers.base import Peer, RecordPeer
from benchmarks.peers.leveldb import LevelDB
from benchmarks.peers.lmdb import LMDB
from benchmarks.peers.ours import (
    DurableLog,
    DurableLogAsyncio,
    DurableLogJson,
    DurableLogParsed,
    DurableLogThreads,
    DurableLogUvloop,
)
from benchmarks.peers.redis import Redis
from benchmarks.peers.rocksdb import RocksDB
from benchmarks.peers.sqlite import SQLite

PEERS: list[type[RecordPeer]] = [SQLite, LMDB, RocksDB, LevelDB, Redis]

__all__ = [
    "PEERS",
    "Bare",
    "DurableLog",
    "DurableLogAsyncio",
    "DurableLogJson",
    "DurableLogParsed",
    "DurableLogThreads",
    "DurableLogUvloop",
    "Peer",
    "RecordPeer",
    "Redis",
]
