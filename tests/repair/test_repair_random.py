"""Damage of any kind in any place: after a repair no byte is wrong, and everything works."""

from __future__ import annotations

import logging
import random
from functools import cache

import pytest
from damaged_stores import (
    CLOCK,
    PAGE,
    Known,
    Writer,
    assert_works,
    built,
    double,
    flip,
    mend,
    missing,
    opened,
    places,
    truncate,
    zero,
)
from twins import SMALL, copy_of, open_store

from durable_log.engine.cluster import CHUNK, ClusteredSegment
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.index import clustered_row, clustered_segment, is_clustered


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def damage(known: Known, chance: random.Random) -> list[tuple[object, ...]]:
    """One to five damages; says which."""
    done: list[tuple[object, ...]] = []
    directory = known.directory
    for _ in range(chance.choice([1, 1, 2, 3, 5])):
        name = chance.choice(sorted(directory.files))
        size = directory.files[name].size()
        kind = chance.choice(["flip", "flip", "flip", "zero", "truncate", "missing", "double"])
        if kind == "flip" and size:
            done.append((kind, name, at := chance.randrange(size)))
            flip(directory, name, at)
        elif kind == "zero" and size:
            done.append((kind, name, at := chance.randrange(-(-size // PAGE))))
            zero(directory, name, at)
        elif kind == "truncate" and size:
            done.append((kind, name, at := chance.randrange(size)))
            truncate(directory, name, at)
        elif kind == "missing":
            done.append((kind, name))
            directory.remove(name)
        elif size >= 2 * PAGE:
            source, target = chance.randrange(size // PAGE), chance.randrange(size // PAGE)
            done.append((kind, name, source, target))
            double(directory, name, source, target)
    return done


@pytest.mark.parametrize("seed", range(40))
def test_whatever_is_damaged_no_byte_is_wrong_and_the_store_works_again(seed: int):
    chance = random.Random(seed)
    known = built(chance.choice([1, 2])).copy()
    print("damage:", damage(known, chance))
    mend(known.directory)
    assert mend(known.directory).number == 0, "a second repair finds nothing to do"
    with opened(known) as store:
        missing(store, known)
        assert not store.report.damage
        assert list(store.engine.upkeep.audit()) == []
        # A deletion is lost with the log segment or the run that has it.
        assert {name for name in store.names() if "/" not in name} <= known.streams.keys() | known.deleted
        assert_works(store, list(store.names()))
    with opened(known) as store:
        assert list(store.engine.upkeep.audit()) == []


def hit_by(known: Known, name: str, position: int) -> dict[str, set[int]]:
    """The offsets of each stream that one flipped byte may cost: those of its page, chunk, record or block."""
    found: dict[str, set[int]] = {}
    segments = {file: ClusteredSegment.open(known.directory, file) for file in known.names(".seg")}
    for stream in known.streams:
        hit: set[int] = set()
        for start, end, place in places(known, stream):
            if is_clustered(place):
                file = f"{clustered_segment(place):08x}.seg"
                segment = segments[file]
                assert segment is not None
                row = segment.row(clustered_row(place))
                if file != name:
                    continue
                at = row.start + position - row.payload_position
                if row.start <= at < row.end:
                    page = at - (at - row.start) % PAGE
                    hit |= set(range(max(page, start), min(page + PAGE, end)))
                if row.entries_position <= position < row.index_position and row.end - row.start <= CHUNK:
                    hit |= set(range(start, end))
            elif f"{place >> 32:08x}.log" == name:
                first = place & 0xFFFFFFFF
                block = first // PAGE * PAGE
                if block <= position < first + 64 + end - start:
                    hit |= set(range(start, end))
        found[stream] = hit
    return found


@pytest.mark.parametrize("seed", range(30))
def test_one_flipped_byte_costs_what_it_hits_and_no_more(seed: int):
    chance = random.Random(1000 + seed)
    known = built(1).copy()
    name = chance.choice(sorted(known.directory.files))
    position = chance.randrange(known.directory.files[name].size())
    allowed = hit_by(known, name, position)
    flip(known.directory, name, position)
    mend(known.directory)
    with opened(known) as store:
        for stream, lost in missing(store, known).items():
            assert lost <= allowed[stream], (name, position, stream, min(lost), max(lost))


@cache
def closed_in_the_log() -> Known:
    """Streams whose creations are clustered, whose records lie in several segments of the log, and which end there."""
    chance, directory = random.Random(7), MemoryDirectory()
    store = open_store(directory, SMALL, CLOCK)
    store.engine.upkeep._clusterer.stop()
    writer = Writer(store, chance)
    names = [f"s{number:02}" for number in range(12)]
    for name in names:
        writer.create(name)
        writer.append(name, 100)
    store.engine.upkeep.cluster()
    for _ in range(4):
        for name in names:
            writer.append(name, chance.choice([5, 300, 5000]))
        store.engine._committer.roll()
    for name in names:
        writer.close(name)
    known = Known(copy_of(directory), writer.truth(), set())
    store.close()
    return known


def used(known: Known) -> None:
    """Somebody goes on with the store before it is repaired, and it clusters what it may."""
    with opened(known) as store:
        store.create("another", data=b"x" * 3000)
        store.engine._committer.roll()
        store.engine.upkeep.cluster()
        store.engine.upkeep.cluster()


@pytest.mark.parametrize("is_used", [False, True], ids=["at once", "after use"])
@pytest.mark.parametrize("seed", range(25))
def test_damage_of_the_log_costs_what_it_hits_though_the_store_is_used_before_it_is_repaired(
    seed: int, *, is_used: bool
):
    """Each stream ends with a record that shows how far it went, so that a lost last record is known to be one."""
    chance = random.Random(seed)
    known = closed_in_the_log().copy()
    name = chance.choice(known.names(".log"))
    size = known.directory.files[name].size()
    if chance.random() < 0.2:
        allowed = in_file(known, name)
        known.directory.remove(name)
    else:
        ends = [place & 0xFFFFFFFF for stream in known.streams for *_, place in places(known, stream)]
        position = chance.randrange(min(size, max(ends) + PAGE))
        allowed = hit_by(known, name, position)
        flip(known.directory, name, position)
    if is_used:
        used(known)
    mend(known.directory)
    with opened(known) as store:
        for stream, lost in missing(store, known).items():
            assert lost <= allowed[stream], (name, stream, min(lost), max(lost))
    assert mend(known.directory).number == 0


def in_file(known: Known, name: str) -> dict[str, set[int]]:
    """The offsets of each stream that lie in a log segment."""
    return {
        stream: {
            offset
            for start, end, place in places(known, stream)
            if not is_clustered(place) and f"{place >> 32:08x}.log" == name
            for offset in range(start, end)
        }
        for stream in known.streams
    }
