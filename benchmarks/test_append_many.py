"""Atomic batches of a thousand records of 100 bytes, each batch on disk before the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bars import BATCHES
from benchmarks.contest import Contest
from benchmarks.peers import PEERS, Bare, DurableLog, Peer

ITEMS = [b"x" * 100] * 1000


@pytest.mark.parametrize("contestant", [Bare, DurableLog, *PEERS], ids=lambda peer: peer.name)
def test_batches(contest: Contest, folder: Path, contestant: type[Peer]) -> None:
    with contest.opened(lambda: contestant(folder)) as peer:
        contest.race(
            BATCHES,
            contestant.name,
            lambda times: peer.batches(times, ITEMS),
            amount=len(ITEMS),
            unit="records",
        )
