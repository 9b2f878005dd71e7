"""Bit rot: a flipped bit costs what it hits and no more, is told, and no wrong byte is ever returned.

A sample by default, in which every byte of every field of a header, a frame, a row and so on is hit once;
``DURABLE_LOG_DAMAGE=all`` flips every bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from anatomy import IN_THE_LOG, UNUSED, Anatomy, anatomy
from judging import goes_on, judge
from shapes import SHAPES

ALL = os.environ.get("DURABLE_LOG_DAMAGE") == "all"
STRIDE = 97
UNUSED_STRIDE = 997
HEAD = 112
"""Of every kind of region, so many bytes are all hit: more than any header has, and any row or frame of the log."""


@pytest.fixture(scope="module", params=SHAPES)
def store(request: pytest.FixtureRequest) -> Anatomy:
    with pytest.MonkeyPatch.context() as patch:
        from stores import quiet

        quiet(patch)
        return anatomy(SHAPES[request.param]())


def flips(store: Anatomy) -> Iterator[tuple[str, int, int]]:
    """File, position and bit: all of them, or a sample."""
    for name, raw in store.shape.files.items():
        for position in range(len(raw)) if ALL else sorted(sampled(store, name)):
            for bit in range(8) if ALL else [position * 5 % 8]:
                yield name, position, bit


def sampled(store: Anatomy, name: str) -> set[int]:
    """A stride over the file; and of each kind of region the first bytes, each in another region of that kind."""
    positions = set()
    by_kind: dict[str, list[tuple[int, int]]] = {}
    for region in store.regions[name]:
        stride = UNUSED_STRIDE if region.kind in UNUSED else STRIDE
        positions.update(range(region.start, region.end, stride))
        positions.add(region.end - 1)
        by_kind.setdefault(region.kind, []).append((region.start, region.end))
    for kind, regions in by_kind.items():
        for byte in range(0 if kind in UNUSED else HEAD):
            fitting = [start for start, end in regions if start + byte < end]
            if fitting:
                positions.add(fitting[byte % len(fitting)] + byte)
    return positions


def test_a_flipped_bit_costs_what_it_hits_and_is_told_wherever_it_is(store):
    silent, unused, at_the_end = set(), set(), set()
    for name, position, bit in flips(store):
        content = bytearray(store.shape.files[name])
        content[position] ^= 1 << bit
        region = store.at(name, position)
        cost = store.cost([region])
        try:
            findings = judge(store, {**store.shape.files, name: bytes(content)}, cost)
        except AssertionError as error:
            raise AssertionError(f"{name} position {position} bit {bit}, in {region}: {error}") from error
        if not findings.said:
            silent.add((name, position))
        if region.kind in UNUSED:
            unused.add((name, position))
        elif region.kind in IN_THE_LOG and not cost.said:
            at_the_end.add((name, position))
    assert unused <= silent, "something is said of bytes that nobody uses"
    assert silent - unused <= at_the_end, "nothing is said of bytes that somebody uses"


def test_what_nobody_says_anything_of_is_the_last_block_of_a_killed_store(store):
    """Nobody knows that it was durable: it looks like a block that was torn before anybody was told."""
    silent = {
        region.what if isinstance(region.what, int) else region.what[0]
        for regions in store.regions.values()
        for region in regions
        if region.kind in IN_THE_LOG and not store.cost([region]).said
    }
    last = len(store.blocks) - 1
    assert silent == ({last} if store.blocks else set())


def test_a_store_with_a_flipped_bit_goes_on_and_says_the_same_when_it_is_opened_again(store):
    hits = [flip for flip in flips(store) if store.at(*flip[:2]).kind in {*IN_THE_LOG, "stream bytes", "entry"}]
    for name, position, bit in hits[:: len(hits) // 40 or 1]:
        content = bytearray(store.shape.files[name])
        content[position] ^= 1 << bit
        goes_on({**store.shape.files, name: bytes(content)})


def test_all_that_the_page_on_durability_has_of_damage_is_hit():
    kinds = set()
    with pytest.MonkeyPatch.context() as patch:
        from stores import quiet

        quiet(patch)
        for make in SHAPES.values():
            kinds |= {region.kind for regions in anatomy(make()).regions.values() for region in regions}
    assert kinds == {
        "manifest", "log header", "spare header", "block header", "frame", "file header", "header padding",
        "stream bytes", "row", "entry", "trailer", "page of rows", "page of numbers", "page of names", "tables",
        "unused", "spare",
    }  # fmt: skip
