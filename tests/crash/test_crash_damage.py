"""Damage amid acknowledged data: kept, reported, never guessed at, and no dearer than what was damaged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from images import Image, append, assert_nothing_wrong, assert_whole, build, contents, end, open_at, position
from twins import SMALL, open_store

from durable_log.engine.files import MemoryDirectory
from durable_log.errors import Corruption, SequenceGap
from durable_log.model import Append, Producer
from durable_log.store import Store

NAMES = "abcdef"


def write(store: Store, truth: dict[str, list[bytes]]) -> None:
    chance = random.Random(11)
    for turn in range(60):
        append(store, truth, NAMES[turn % 6], chance.randbytes(chance.choice([10, 3000, 9000])))
    for name in NAMES:  # the newest records; nothing before them is the end of the log
        append(store, truth, name, b"last of " + name.encode())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("damage") / "store", write)


def number_of(image: Image) -> dict[str, int]:
    with open_store(in_memory(image), SMALL) as store:
        return {name: store.stream(name).info().number for name in image.truth}


def in_memory(image: Image) -> MemoryDirectory:
    directory = MemoryDirectory()
    for file in image.path.iterdir():
        directory.create(file.name).write(0, file.read_bytes())
    return directory


def middle_blocks(image: Image) -> list[tuple[int, int]]:
    """Segment and index of every block of data that is not among the last of the log."""
    used = [number for number in range(1, 40) if image.segment(number).exists() and image.blocks(number)]
    assert len(used) > 3
    found = []
    for number in used[:-1]:
        blocks = image.blocks(number)
        found += [(number, index) for index, block in enumerate(blocks) if block.frames and block.frames[0].kind == 1]
    return found


@pytest.mark.parametrize("where", ["header", "frame header", "payload", "whole pages"])
def test_one_damaged_block_costs_its_own_records_and_nothing_else(image, tmp_path, where):
    numbers = {number: name for name, number in number_of(image).items()}
    for segment, index in middle_blocks(image)[::7]:
        damaged = image.copy(tmp_path / "damaged")
        block = image.blocks(segment)[index]
        start = position(block)
        if where == "whole pages":
            damaged.overwrite(segment, start, bytes(end(block) - start))
        else:
            damaged.flip(segment, start + {"header": 9, "frame header": 64 + 5, "payload": 64 + 24 + 3}[where])
        before = contents(damaged.path)
        hit = {numbers[frame.stream] for frame in block.frames}
        with open_at(damaged.path) as store:
            assert len(store.report.damage) == 1
            assert not store.report.cut
            assert {lost.name for lost in store.report.lost} == hit
            assert assert_nothing_wrong(store, damaged) == hit
            assert_whole(store, damaged, set(NAMES) - hit)
            store.engine.check()
            offset = block.frames[0].offset
            with pytest.raises(Corruption):
                store.stream(next(iter(hit))).read(offset)
            behind = offset + len(block.frames[0].payload)
            assert store.stream(next(iter(hit))).read(behind).data == damaged.content(next(iter(hit)))[behind:]
        after = contents(damaged.path)
        for name, raw in before.items():
            assert len(after[name]) == len(raw)
        assert after[f"{segment:08x}.log"] == before[f"{segment:08x}.log"]


def test_a_follower_gets_all_before_the_damage_and_then_the_error(image, tmp_path):
    damaged = image.copy(tmp_path / "damaged")
    segment, index = middle_blocks(image)[20]
    block = image.blocks(segment)[index]
    damaged.flip(segment, position(block) + 64 + 24)
    numbers = {number: name for name, number in number_of(image).items()}
    name, offset = numbers[block.frames[0].stream], block.frames[0].offset
    with open_at(damaged.path) as store:
        found: list[bytes] = []
        following = store.stream(name).follow()
        with pytest.raises(Corruption) as caught:
            found.extend(chunk.data for chunk in following)
    assert b"".join(found) == damaged.content(name)[:offset]
    assert caught.value.name == name


def test_a_missing_segment_costs_its_own_records(image, tmp_path):
    used = sorted({segment for segment, _index in middle_blocks(image)})
    for segment in used[1:]:
        damaged = image.copy(tmp_path / "damaged")
        damaged.segment(segment).unlink()
        with open_at(damaged.path) as store:
            assert store.report.damage
            missing = assert_nothing_wrong(store, damaged)
            assert missing
            for name in missing:
                store.stream(name).append(b"on")
        with open_at(damaged.path) as store:
            for name in missing:
                assert store.stream(name).read(store.stream(name).info().tail - 2).data == b"on"


@pytest.mark.parametrize("page", [bytes(4096), b"\xff" * 4096], ids=["zeroed", "overwritten"])
def test_a_segment_without_a_header_is_reported_and_read_and_never_written_to(image, tmp_path, page):
    """All that a header says of the blocks behind it follows from the file's name and the store's identity."""
    used = sorted({segment for segment, _index in middle_blocks(image)})
    damaged = image.copy(tmp_path / "damaged")
    damaged.overwrite(used[1], 0, page)
    before = contents(damaged.path)
    with open_at(damaged.path) as store:
        assert store.report.unreadable_segments == [f"{used[1]:08x}.log"]
        assert store.report.damage == []
        assert_whole(store, damaged)
        for name in NAMES:
            store.stream(name).append(b"on")
        store.engine.upkeep.cluster()
    assert contents(damaged.path)[f"{used[1]:08x}.log"] == before[f"{used[1]:08x}.log"]


def test_the_newest_segment_without_a_header_is_not_written_around(image, tmp_path):
    """Its bytes may be mended from a copy later: what was acknowledged in the meantime has to survive that."""
    newest = max(number for number in range(1, 40) if image.segment(number).exists() and image.blocks(number))
    damaged = image.copy(tmp_path / "damaged")
    header = image.segment(newest).read_bytes()[:4096]
    damaged.flip(newest, 0, 4096)
    with open_at(damaged.path) as store:
        assert store.report.unreadable_segments
        store.create("new").append(b"acknowledged")
    damaged.overwrite(newest, 0, header)
    with open_at(damaged.path) as store:
        assert store.stream("new").read().data == b"acknowledged"


def test_a_missing_first_segment_is_damage_and_what_follows_it_stays(tmp_path):
    def fill(store: Store, truth: dict[str, list[bytes]]) -> None:
        while store.engine._committer._writer.segment.number == 1:
            append(store, truth, "a", b"x" * 5000)
        store.create("b")

    image = build(tmp_path / "store", fill)
    second = max(number for number in range(2, 9) if image.segment(number).exists() and image.blocks(number))
    start = position(image.blocks(second)[1])
    image.overwrite(second, start, bytes(end(image.blocks(second)[1]) - start))
    kept = len(image.blocks(second))
    image.segment(1).unlink()
    with open_at(image.path) as store:
        assert store.report.damage, "that acknowledged data is missing has to be said"
        assert store.report.blocks == kept


def grouped(path: Path, count: int) -> Image:
    """A store with one block that holds a record of each of ``count`` streams, and more blocks behind it."""

    class Port:
        def deliver(self, results: list[tuple[object, object]]) -> None:
            assert len(results) == count

    def write_group(store: Store, truth: dict[str, list[bytes]]) -> None:
        names = [f"s{number}" for number in range(count)]
        for name in names:
            append(store, truth, name, b"first of " + name.encode())
        committer, port = store.engine._committer, Port()
        with committer._lock:
            for name in names:
                data = b"second of " + name.encode()
                store.engine.submit(Append(name, data), port, name)
                truth[name].append(data)
            committer._commit_group()
        append(store, truth, "end", b"end")
        append(store, truth, "end", b"end")

    return build(path, write_group)


def test_one_damaged_record_costs_no_other_record_of_its_block(tmp_path):
    image = grouped(tmp_path / "store", 5)
    block = next(block for block in image.blocks(1) if len(block.frames) == 5)
    at = position(block) + 64
    for index, frame in enumerate(block.frames):
        damaged = image.copy(tmp_path / "damaged")
        damaged.flip(1, at + 24)
        with open_at(damaged.path) as store:
            assert assert_nothing_wrong(store, damaged) == {f"s{index}"}
        at += 24 + len(frame.payload)


def test_a_damaged_length_costs_no_more_than_its_record(tmp_path):
    image = grouped(tmp_path / "store", 5)
    block = next(block for block in image.blocks(1) if len(block.frames) == 5)
    image.flip(1, position(block) + 64 + 4, 4)
    with open_at(image.path) as store:
        assert assert_nothing_wrong(store, image) == {"s0"}


def test_a_damaged_introduction_of_a_producer_does_not_lend_its_number_to_another(tmp_path):
    """Exactly once must hold for the producers that are known after the damage."""

    def write_claims(store: Store, truth: dict[str, list[bytes]]) -> None:
        stream = store.create("a")
        for name in ("lost", "kept"):
            stream.append(name.encode(), producer=Producer(name, 0, 0))
        stream.append(b"on", producer=Producer("kept", 0, 1))

    image = build(tmp_path / "store", write_claims)
    block = next(block for block in image.blocks(1) if any(b"lost" in frame.payload for frame in block.frames))
    image.flip(1, position(block) + 64 + 5)
    with open_at(image.path) as store:
        stream = store.stream("a")
        assert stream.append(b"new", producer=Producer("new", 0, 0)).duplicate is False
        for seq in (2, 3, 4):
            assert stream.append(b"kept", producer=Producer("kept", 0, seq)).duplicate is False
    with open_at(image.path) as store:
        stream = store.stream("a")
        tail = stream.info().tail
        assert stream.append(b"new1", producer=Producer("new", 0, 1)).duplicate is False
        assert stream.append(b"kept5", producer=Producer("kept", 0, 5)).duplicate is False
        assert stream.append(b"kept5", producer=Producer("kept", 0, 5)).duplicate is True
        assert stream.read(tail).data == b"new1kept5"
        with pytest.raises(SequenceGap):
            stream.append(b"x", producer=Producer("new", 0, 3))


def test_a_damaged_deletion_leaves_no_second_stream_of_that_name(tmp_path):
    def recreate(store: Store, truth: dict[str, list[bytes]]) -> None:
        store.create("a", data=b"old")
        store.delete("a")
        store.create("a", data=b"new")
        truth["a"] = [b"new"]
        append(store, truth, "b", b"b")
        append(store, truth, "b", b"b")

    image = build(tmp_path / "store", recreate)
    block = next(block for block in image.blocks(1) if block.frames[0].kind == 3)
    image.flip(1, position(block) + 5)
    for _ in range(2):
        with open_at(image.path) as store:
            assert store.stream("a").read().data == b"new"
            store.engine.check()


def test_the_number_of_a_stream_whose_creation_is_damaged_is_not_given_to_another(tmp_path):
    def create_last(store: Store, truth: dict[str, list[bytes]]) -> None:
        append(store, truth, "a", b"a")
        append(store, truth, "newest", b"data of the newest")
        append(store, truth, "a", b"a")
        append(store, truth, "a", b"a")

    image = build(tmp_path / "store", create_last)
    creation = next(block for block in image.blocks(1) if b"newest" in block.frames[0].payload)
    number = creation.frames[0].stream
    image.flip(1, position(creation) + 5)
    with open_at(image.path) as store:
        assert store.create("b").info().number > number
