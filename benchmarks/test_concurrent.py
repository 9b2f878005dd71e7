"""Many writers at once, each with a log of its own, each waiting for each of its appends to be on disk.

Beside them is one writer that syncs each record by itself, whatever their number.
"""

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
    Peer,
    Redis,
)

PAYLOAD = b"x" * 100
WRITERS = (1, 4, 16, 64, 256, 1024)
WRITERS_MAX: dict[type[Peer], int] = dict.fromkeys([Bare, DurableLogAsyncio, DurableLogUvloop, Redis], 1024)
"""Of the others, whose writers are threads, 64."""
OTHERS = [peer for peer in PEERS if peer is not Redis]
CONTESTANTS: list[type[Peer]] = [Bare, DurableLogAsyncio, Redis, DurableLogUvloop, DurableLogThreads, *OTHERS]
"""Those that the bars are about are next to each other."""
RUNS = [
    (writers, contestant)
    for writers in WRITERS
    for contestant in CONTESTANTS
    if writers <= WRITERS_MAX.get(contestant, 64)
]


@pytest.mark.parametrize(("writers", "contestant"), RUNS, ids=[f"{peer.name}-{count}" for count, peer in RUNS])
def test_writers(contest: Contest, folder: Path, writers: int, contestant: type[Peer]) -> None:
    with contest.opened(lambda: contestant(folder, writers)) as peer:
        contest.race(
            writers_case(writers),
            contestant.name,
            lambda times: peer.appends(writers, writers * times, PAYLOAD),
            amount=writers,
            unit="appends",
            at=writers,
        )
