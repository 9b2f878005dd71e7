"""The recovery rule on hand-made blocks: one scenario a test, one line a block."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from durable_log.engine.chain import Found, follow
from durable_log.engine.segment import Block

PAGE = 4096


def at(segment: int, page: int) -> int:
    return segment << 32 | page * PAGE


class Log:
    """Writes blocks of one page, chained, as the writer does; and forgets or damages some."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.after: dict[int, int] = {}
        """What the headers of segments say that begin behind a cut."""
        self._previous = (0, 0)
        self._durable = 0

    def write(self, segment: int, page: int, *, synced: bool = True, after: Block | None = None) -> Block:
        if after is not None:
            self._previous = (after.lsn, after.header_crc)
            self.after[segment] = after.lsn or 1
        lsn = at(segment, page)
        if page == 1:
            self._durable = lsn
        crc = (lsn * 2654435761 + len(self.blocks)) & 0xFFFFFFFF
        block = Block(lsn, lsn + PAGE, self._durable, *self._previous, crc, 0, 100, False, True)
        self._previous = (lsn, crc)
        if synced:
            self._durable = block.end
        self.blocks.append(block)
        return block

    def without(self, *missing: Block, torn: tuple[Block, ...] = ()) -> list[Block]:
        found = [
            block._replace(whole=False) if block in torn else block for block in self.blocks if block not in missing
        ]
        return sorted(found)


NOTHING = Block(0, 0, 0, 0, 0, 0, 0, 0, False, True)


class Verdict(NamedTuple):
    kept: list[int]
    damage: list[tuple[int, int, bool]]
    cut: bool


def found(blocks: list[Block], after: dict[int, int] | None = None) -> list[Found]:
    numbers = sorted({block.lsn >> 32 for block in blocks} | set(after or {}))
    return [Found((after or {}).get(n, 0), [block for block in blocks if block.lsn >> 32 == n]) for n in numbers]


def judge(blocks: list[Block], after: dict[int, int] | None = None) -> Verdict:
    chain = follow(found(blocks, after), at(1, 1))
    return Verdict([block.lsn for block in chain.blocks], [damage[:3] for damage in chain.damage], chain.cut)


@pytest.fixture
def log() -> Log:
    return Log()


def test_no_blocks_are_an_empty_log():
    assert judge([]) == ([], [], False)


def test_whole_blocks_are_the_log(log):
    blocks = [log.write(1, page) for page in (1, 2, 3)]
    assert judge(log.blocks) == ([block.lsn for block in blocks], [], False)


def test_a_torn_last_block_is_cut(log):
    first, last = log.write(1, 1), log.write(1, 2)
    assert judge(log.without(torn=(last,))) == ([first.lsn], [], True)


def test_a_last_block_without_a_header_is_as_if_it_had_never_been(log):
    first, last = log.write(1, 1), log.write(1, 2)
    assert judge(log.without(last)) == ([first.lsn], [], False)


def test_a_torn_only_block_leaves_an_empty_log(log):
    only = log.write(1, 1)
    assert judge(log.without(torn=(only,))) == ([], [], True)


def test_a_damaged_body_in_the_middle_is_kept_and_reported(log):
    first, middle, last = (log.write(1, page) for page in (1, 2, 3))
    assert judge(log.without(torn=(middle,))) == (
        [first.lsn, middle.lsn, last.lsn], [(middle.lsn, middle.end, True)], False
    )  # fmt: skip


def test_a_missing_header_in_the_middle_is_reported(log):
    first, middle, last = (log.write(1, page) for page in (1, 2, 3))
    assert judge(log.without(middle)) == ([first.lsn, last.lsn], [(middle.lsn, last.lsn, False)], False)


def test_a_missing_first_block_is_reported(log):
    first, second, third = (log.write(1, page) for page in (1, 2, 3))
    assert judge(log.without(first)) == ([second.lsn, third.lsn], [(first.lsn, second.lsn, False)], False)


def test_several_damaged_places_are_reported_apart(log):
    blocks = [log.write(1, page) for page in range(1, 8)]
    assert judge(log.without(blocks[1], torn=(blocks[4],))).damage == [
        (blocks[1].lsn, blocks[2].lsn, False),
        (blocks[4].lsn, blocks[4].end, True),
    ]


def test_a_torn_block_with_an_unsynced_one_behind_it_cuts_both(log):
    first = log.write(1, 1)
    torn, behind = log.write(1, 2, synced=False), log.write(1, 3, synced=False)
    assert judge(log.without(torn=(torn,))) == ([first.lsn], [], True)
    assert judge(log.without(torn)) == ([first.lsn], [], True)
    assert behind.durable_lsn == first.end


def test_a_torn_unsynced_first_block_of_a_segment_cuts_what_is_behind_it(log):
    first = log.write(1, 1)
    torn, behind = log.write(2, 1, synced=False), log.write(2, 2, synced=False)
    assert behind.durable_lsn == torn.lsn
    assert judge(log.without(torn=(torn,))) == ([first.lsn], [], True)
    assert judge(log.without(torn)) == ([first.lsn], [], True)


def test_that_a_block_was_durable_may_be_known_from_a_later_segment_only(log):
    first, damaged = log.write(1, 1), log.write(1, 2)
    later = log.write(2, 1)
    assert judge(log.without(torn=(damaged,))) == (
        [first.lsn, damaged.lsn, later.lsn], [(damaged.lsn, damaged.end, True)], False
    )  # fmt: skip
    assert judge(log.without(damaged)).damage == [(damaged.lsn, later.lsn, False)]


def test_a_mark_at_the_end_proves_that_the_block_before_it_was_durable(log):
    first, last = log.write(1, 1), log.write(1, 2)
    mark = log.write(1, 3)
    assert judge(log.without(torn=(last,))) == ([first.lsn, last.lsn, mark.lsn], [(last.lsn, last.end, True)], False)


def test_after_a_cut_the_new_segment_goes_on_and_the_torn_block_is_void(log):
    first, torn = log.write(1, 1), log.write(1, 2)
    mark = log.write(2, 1, after=first)
    on = log.write(2, 2)
    assert judge(log.without(torn=(torn,))) == ([first.lsn, mark.lsn, on.lsn], [], False)
    assert judge(log.without(torn)) == ([first.lsn, mark.lsn, on.lsn], [], False)


def test_valid_blocks_behind_a_cut_never_come_back(log):
    first = log.write(1, 1)
    torn, behind = log.write(1, 2, synced=False), log.write(1, 3, synced=False)
    mark = log.write(2, 1, after=first)
    for blocks in (log.without(torn=(torn,)), log.without(torn), log.without()):
        assert judge(blocks) == ([first.lsn, mark.lsn], [], False), behind


def test_a_crash_right_after_a_cut_is_the_same_cut_again(log):
    first, torn = log.write(1, 1), log.write(1, 2)
    mark = log.write(2, 1, after=first)
    assert judge(log.without(mark, torn=(torn,))) == ([first.lsn], [], True)
    assert judge(log.without(torn=(torn, mark))) == ([first.lsn], [], True)


def test_a_cut_then_a_segment_then_another_cut(log):
    first, torn = log.write(1, 1), log.write(1, 2)
    mark, second, torn_again = log.write(2, 1, after=first), log.write(2, 2), log.write(2, 3)
    again = log.write(3, 1, after=second)
    assert judge(log.without(torn=(torn, torn_again))) == ([first.lsn, mark.lsn, second.lsn, again.lsn], [], False)


def test_a_log_that_was_cut_to_nothing_begins_anew(log):
    torn = log.write(1, 1)
    mark = log.write(2, 1, after=NOTHING)
    assert judge(log.without(torn=(torn,))) == ([mark.lsn], [], False)


def test_what_a_cut_made_void_stays_so_when_the_mark_that_says_so_is_damaged(log):
    first = log.write(1, 1)
    torn, behind = log.write(1, 2, synced=False), log.write(1, 3, synced=False)
    mark, on, end = log.write(2, 1, after=first), log.write(2, 2), log.write(2, 3)
    verdict = judge(log.without(mark, torn=(torn,)), log.after)
    assert verdict.kept == [first.lsn, on.lsn, end.lsn], behind
    assert verdict.damage == [(first.end, on.lsn, False)]
    assert judge(log.without(torn, mark), log.after) == verdict


def test_a_header_that_says_after_what_its_segment_comes_is_enough(log):
    first, torn = log.write(1, 1), log.write(1, 2)
    mark = log.write(2, 1, after=first)
    assert judge(log.without(torn=(torn,)), log.after) == ([first.lsn, mark.lsn], [], False)
    assert judge(log.without(mark, torn=(torn,)), log.after) == ([first.lsn], [], True)
    log = Log()
    torn = log.write(1, 1)
    mark, on = log.write(2, 1, after=NOTHING), log.write(2, 2)
    assert judge(log.without(torn=(torn,)), log.after) == ([mark.lsn, on.lsn], [], False)


def test_damage_in_void_blocks_is_no_damage(log):
    first = log.write(1, 1)
    void = [log.write(1, page, synced=False) for page in (2, 3, 4, 5)]
    mark = log.write(2, 1, after=first)
    assert judge(log.without(void[2], torn=(void[0],))) == ([first.lsn, mark.lsn], [], False)


def test_damage_before_a_cut_stays_reported_after_it(log):
    first, damaged, good, torn = (log.write(1, page) for page in (1, 2, 3, 4))
    mark = log.write(2, 1, after=good)
    assert judge(log.without(torn=(damaged, torn))) == (
        [first.lsn, damaged.lsn, good.lsn, mark.lsn], [(damaged.lsn, damaged.end, True)], False
    )  # fmt: skip


def test_a_block_that_names_another_predecessor_is_not_continued(log):
    first, second = log.write(1, 1), log.write(1, 2)
    stranger = second._replace(previous_crc=second.previous_crc ^ 1)
    assert judge([first, stranger]) == ([first.lsn], [], True)


def test_what_is_known_durable_is_the_most_that_any_block_says(log):
    for page in range(1, 5):
        log.write(1, page)
    assert follow(found(log.blocks), at(1, 1)).durable_lsn == log.blocks[-1].lsn
    assert follow(found(log.without(torn=tuple(log.blocks))), at(1, 1)).durable_lsn == log.blocks[-1].lsn
