"""Many writers at once, each with a log of its own, each waiting for each of its appends to be on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bars import writers_case
from benchmarks.contest import Contest
from benchmarks.peers import (
    PEERS,
    Bare,
    DurableLogAsyncio,
    DurableLogThreads,
    DurableLogUvloop,
    LevelDB,
    Peer,
    Redis,
    RocksDB,
)

PAYLOAD = b"x" * 100
EACH = 1500
AT_ONCE: dict[type[Peer], tuple[int, int]] = {
    Bare: (1, EACH),
    DurableLogAsyncio: (1024, 60_000),
    DurableLogUvloop: (1024, 60_000),
    Redis: (1024, 60_000),
    DurableLogThreads: (64, 20_000),
    RocksDB: (64, 6000),
    LevelDB: (64, 6000),
}
"""How many writers at most, and appends in all at most: those that share syncs can do more in the same time."""
CONTESTANTS: list[type[Peer]] = [DurableLogAsyncio, DurableLogUvloop, DurableLogThreads, Bare, *PEERS]
RUNS = [
    (writers, contestant)
    for writers in (1, 4, 16, 64, 256, 1024)
    for contestant in CONTESTANTS
    if writers <= AT_ONCE.get(contestant, (64, EACH))[0]
]


@pytest.mark.parametrize(("writers", "contestant"), RUNS, ids=[f"{peer.name}-{count}" for count, peer in RUNS])
def test_writers(contest: Contest, folder: Path, writers: int, contestant: type[Peer]) -> None:
    most = AT_ONCE.get(contestant, (64, EACH))[1]
    each = contest.size(min(EACH, most // writers), 2)
    with contest.opened(lambda: contestant(folder, writers)) as peer:
        contest.race(
            writers_case(writers),
            contestant.name,
            lambda: peer.appends(writers, writers * each, PAYLOAD),
            amount=writers * each,
            unit="appends",
            at=writers,
        )
