"""One writer that waits for each append to be on disk, 100 bytes each."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bars import ONE_WRITER
from benchmarks.contest import Contest
from benchmarks.peers import PEERS, Bare, DurableLog, Peer

PAYLOAD = b"x" * 100


@pytest.mark.parametrize("contestant", [DurableLog, Bare, *PEERS], ids=lambda peer: peer.name)
def test_one_writer(contest: Contest, folder: Path, contestant: type[Peer]) -> None:
    count = contest.size(1500, 20)
    with contest.opened(lambda: contestant(folder)) as peer:
        contest.race(
            ONE_WRITER,
            contestant.name,
            lambda: peer.appends(1, count, PAYLOAD),
            amount=count,
            unit="appends",
        )
