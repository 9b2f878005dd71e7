"""One writer that waits for each append to be on disk, 100 bytes each."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bars import ONE_WRITER
from benchmarks.contest import Contest
from benchmarks.peers import PEERS, Bare, DurableLog, Peer

PAYLOAD = b"x" * 100


@pytest.mark.parametrize("contestant", [Bare, DurableLog, *PEERS], ids=lambda peer: peer.name)
def test_one_writer(contest: Contest, folder: Path, contestant: type[Peer]) -> None:
    with contest.opened(lambda: contestant(folder)) as peer:
        contest.race(
            ONE_WRITER,
            contestant.name,
            lambda times: peer.appends(1, times, PAYLOAD),
            amount=1,
            unit="appends",
        )
