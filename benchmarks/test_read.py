"""Catching up on one stream from its start, beside a plain file of the same bytes; both warm in the page cache.

Every byte that the store returns is verified; ``read()`` verifies nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from benchmarks.bars import CLUSTERED, PLAIN
from benchmarks.contest import OURS, Contest
from benchmarks.peers.readers import OneStream, PlainFile

MIB, KIB = 2**20, 2**10


class Shape(NamedTuple):
    """How a stream is written, and how it is read."""

    length: int
    record: int
    piece: int
    clustered: bool = False


SHAPES = {
    "recent, read 64 KiB at a time": Shape(192 * KIB, 128, 64 * KIB),
    "in the log, records of 64 KiB, read 4 MiB at a time": Shape(96 * MIB, 64 * KIB, 4 * MIB),
    "in the log, records of 128 B, read 4 MiB at a time": Shape(24 * MIB, 128, 4 * MIB),
    CLUSTERED: Shape(96 * MIB, 64 * KIB, 4 * MIB, clustered=True),
    "clustered, read 64 KiB at a time": Shape(96 * MIB, 64 * KIB, 64 * KIB, clustered=True),
    "clustered from records of 128 B, read 4 MiB at a time": Shape(24 * MIB, 128, 4 * MIB, clustered=True),
}


@pytest.mark.parametrize("contestant", [OURS, PLAIN])
@pytest.mark.parametrize("case", SHAPES)
def test_catch_up(contest: Contest, folder: Path, case: str, contestant: str) -> None:
    shape = SHAPES[case]
    length = contest.size(shape.length, min(shape.length, 2 * MIB))
    record = os.urandom(shape.record)

    def make() -> PlainFile | OneStream:
        if contestant == PLAIN:
            return PlainFile(folder / "plain", record * (length // len(record)))
        return OneStream(folder / "store", record, length, clustered=shape.clustered)

    with contest.opened(make) as reader:

        def read(times: int) -> None:
            for _ in range(times):
                assert reader.read(shape.piece) == length

        contest.race(case, contestant, read, amount=length, unit="bytes", rounds=5)
