"""Which of the blocks that were found are the log: the recovery rule.

Law of this room: pure. Blocks in, verdict out; nothing is read or changed. The rule: D is the greatest LSN that any
valid block knows to be durable. The first bad place at or after D was told to nobody: the log is cut there. A bad place
before D is acknowledged data that was damaged: it is kept, reported, and the log goes on behind it.

Each block names the block before it. A block that names an earlier one than the last accepted was written by a later
life of the store which had cut the log there: what lies between is void. A block that names one that is not there
proves that something is missing. When the log enters a segment, all before it is durable, so its blocks say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from durable_log.engine.format import PAGE, position_of, segment_of
from durable_log.engine.segment import Block


class Damage(NamedTuple):
    """Acknowledged bytes that do not verify: LSN ``start`` to ``end``. ``partial``: single records of it may hold."""

    start: int
    end: int
    partial: bool
    reason: str


class Base(NamedTuple):
    """Where the log begins, as the manifest says: after which block, and which LSN it knows to be durable."""

    previous_lsn: int = 0
    previous_crc: int = 0
    lsn: int = 0


LOG_START: Final = Base()
"""The log has never been clustered."""


class Chain(NamedTuple):
    """The blocks that count, in order; what is damaged between them; whether blocks or their remains lie behind."""

    blocks: list[Block]
    damage: list[Damage]
    durable_lsn: int
    cut: bool


class Found(NamedTuple):
    """The blocks of one segment whose headers verify, in order; ``after_lsn`` is what the segment's header says."""

    after_lsn: int
    blocks: list[Block]


def follow(segments: Iterable[Found], first_lsn: int, base: Base = LOG_START) -> Chain:
    """Apply the recovery rule to all blocks that were found, segment by segment in the order of their numbers.

    ``first_lsn`` is where the log begins, after the block that ``base`` names.
    """
    found = list(segments)
    durable = max((block.durable_lsn for segment in found for block in segment.blocks), default=0)
    durable = max(durable, base.lsn)
    chain = Chain([], [], durable, False)
    for segment in found:
        if segment.after_lsn:
            _void(chain.blocks, chain.damage, segment.after_lsn)
        for block in segment.blocks:
            if not _accept(chain, block, first_lsn, base):
                _expect_all(chain, first_lsn)
                return chain._replace(cut=True)
    _expect_all(chain, first_lsn)
    return chain


def falls_short(end: int, known: int) -> bool:
    """Whether a log that ends at ``end`` lacks something of what is known to have been there up to ``known``.

    At the very beginning of a later segment nothing may have been written yet.
    """
    if segment_of(known) == segment_of(end):
        return end < known
    return segment_of(end) < segment_of(known) and position_of(known) > PAGE


def _expect_all(chain: Chain, first_lsn: int) -> None:
    """The log may end before what is known to be durable, if that is known from somewhere else."""
    end = chain.blocks[-1].end if chain.blocks else first_lsn
    if falls_short(end, chain.durable_lsn):
        chain.damage.append(Damage(end, chain.durable_lsn, False, "the log ends before what is known to be durable"))


def _accept(chain: Chain, block: Block, first_lsn: int, base: Base) -> bool:
    """Take the next block up. False if the log is to be cut before it."""
    blocks, damage, durable, _ = chain
    _void(blocks, damage, block.previous_lsn)
    if not _continues(blocks, block, base):
        start = blocks[-1].end if blocks else first_lsn
        if block.previous_lsn >= durable or start >= durable:
            return False
        damage.append(Damage(start, block.lsn, False, "a block is missing or its header fails its checksum"))
    if not block.whole:
        if block.lsn >= durable:
            return False
        damage.append(Damage(block.lsn, block.end, True, "a block's body fails its checksum"))
    blocks.append(block)
    return True


def _void(blocks: list[Block], damage: list[Damage], previous_lsn: int) -> None:
    while blocks and blocks[-1].lsn > previous_lsn:
        blocks.pop()
    while damage and damage[-1].start > previous_lsn:
        damage.pop()


def _continues(blocks: list[Block], block: Block, base: Base) -> bool:
    if not blocks:
        return (block.previous_lsn, block.previous_crc) == (base.previous_lsn, base.previous_crc)
    last = blocks[-1]
    return block.previous_lsn == last.lsn and block.previous_crc == last.header_crc
