"""Going through the records of one log in order, each looked at once.

In ``durable_log`` they are the messages of a JSON stream, in their bytes by ``Chunk.messages``, as the others give
them back; and, in a row of its own, parsed by ``Chunk.items``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bars import ITERATE
from benchmarks.contest import Contest
from benchmarks.peers import PEERS, DurableLogJson, DurableLogParsed, RecordPeer

RECORD = b'"' + b"x" * 98 + b'"'
BATCH = 2000


@pytest.mark.parametrize("contestant", [DurableLogJson, DurableLogParsed, *PEERS], ids=lambda peer: peer.name)
def test_all_records(contest: Contest, folder: Path, contestant: type[RecordPeer]) -> None:
    count = contest.size(400_000, BATCH)
    with contest.opened(lambda: contestant(folder)) as peer:
        for _ in range(count // BATCH):
            peer.append_many([RECORD] * BATCH)

        def iterate(times: int) -> None:
            for _ in range(times):
                found = 0
                for record in peer.iterate():
                    found += len(record) > 0
                assert found == count

        contest.race(ITERATE, contestant.name, iterate, amount=count, unit="records", rounds=5)
