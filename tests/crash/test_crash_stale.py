"""Stale and forged blocks: of an earlier life, another place or store, made by a client. None is accepted."""

from __future__ import annotations

import struct
from pathlib import Path

import oracle
import pytest
from images import Image, append, assert_whole, build, contents, end, open_at, position

from durable_log.model import Options
from durable_log.store import Store

PAGE = 4096


def write(store: Store, truth: dict[str, list[bytes]]) -> None:
    for turn in range(8):
        append(store, truth, "ab"[turn % 2], b"%d" % turn * 3000)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("stale") / "store", write)


def check(stale: Image) -> None:
    for turn in range(3):
        with open_at(stale.path) as store:
            assert_whole(store, stale)
            assert store.report.damage == []
            append(store, stale.truth, "a", b"%d" % turn)


def nonce(image: Image, number: int = 1) -> int:
    return oracle.nonce_in(image.segment(number).read_bytes())


def fresh(image: Image, path: Path) -> Image:
    copied = image.copy(path)
    return Image(copied.path, {name: list(records) for name, records in image.truth.items()})


def test_a_block_of_another_position_behind_the_tail_is_not_accepted(image, tmp_path):
    raw = image.segment(1).read_bytes()
    for block in image.blocks(1):
        stale = fresh(image, tmp_path / "stale")
        stale.overwrite(1, end(image.blocks(1)[-1]), raw[position(block) : end(block)])
        check(stale)


def test_blocks_of_another_segment_number_or_nonce_behind_the_tail_are_not_accepted(image, tmp_path):
    tail = end(image.blocks(1)[-1])
    frames = [oracle.Frame(oracle.DATA, 1, 12_000, b"stale")]
    last = image.blocks(1)[-1]
    place = 1 << 32 | tail
    for lsn, seed in (
        (2 << 32 | tail, nonce(image)),
        (place, nonce(image) ^ 1),
        (place, 0),
        (place + PAGE, nonce(image)),
    ):
        stale = fresh(image, tmp_path / "stale")
        forged = oracle.OracleBlock(lsn, frames, last.lsn, last.lsn, last.header_crc).encode(seed)
        stale.overwrite(1, tail, forged)
        check(stale)


def test_a_valid_block_that_does_not_follow_the_last_one_is_not_accepted(image, tmp_path):
    """As it stays behind of an earlier life of the store, which was cut here: it names another predecessor."""
    last, tail = image.blocks(1)[-1], end(image.blocks(1)[-1])
    frames = [oracle.Frame(oracle.DATA, 1, 12_000, b"stale")]
    for previous_lsn, previous_crc in ((last.lsn, last.header_crc ^ 1), (last.lsn + PAGE, last.header_crc)):
        stale = fresh(image, tmp_path / "stale")
        block = oracle.OracleBlock(1 << 32 | tail, frames, last.lsn, previous_lsn, previous_crc)
        stale.overwrite(1, tail, block.encode(nonce(image)))
        check(stale)


def test_a_good_block_of_the_oracle_is_accepted_so_the_refused_ones_were_judged(image, tmp_path):
    last, tail = image.blocks(1)[-1], end(image.blocks(1)[-1])
    number = image.blocks(1)[0].frames[0].stream
    stale = fresh(image, tmp_path / "stale")
    frames = [oracle.Frame(oracle.DATA, number, 12_000, b"good")]
    block = oracle.OracleBlock(1 << 32 | tail, frames, last.lsn, last.lsn, last.header_crc)
    stale.overwrite(1, tail, block.encode(nonce(image)))
    stale.truth["a"].append(b"good")
    check(stale)


def test_a_segment_of_another_store_is_refused(image, tmp_path):
    """Somebody mixed up two backups."""

    def write_more(store: Store, truth: dict[str, list[bytes]]) -> None:
        for turn in range(40):
            append(store, truth, "foreign", b"%d" % turn * 3000)

    other = build(tmp_path / "other", write_more)
    foreign = next(number for number in range(2, 40) if other.segment(number).exists() and other.blocks(number))
    mixed = fresh(image, tmp_path / "mixed")
    for spare in mixed.path.glob("*.log"):
        if spare.name != "00000001.log":
            spare.unlink()
    mixed.segment(foreign).write_bytes(other.segment(foreign).read_bytes())
    before = contents(mixed.path)[f"{foreign:08x}.log"]
    for turn in range(3):
        with open_at(mixed.path) as store:
            assert store.report.unreadable_segments == [f"{foreign:08x}.log"]
            assert_whole(store, mixed)
            assert list(store.names()) == ["a", "b"]
            append(store, mixed.truth, "a", b"%d" % turn)
    assert contents(mixed.path)[f"{foreign:08x}.log"] == before


def test_blocks_inside_of_payloads_are_not_blocks(tmp_path):
    """A client appends segments of this very store, nonce and all; then the block around them loses its header."""

    def append_copies(store: Store, truth: dict[str, list[bytes]]) -> None:
        write(store, truth)
        raw = Path(store.engine.path, "00000001.log").read_bytes()
        for shift in range(0, PAGE, 512):
            append(store, truth, "b", bytes(shift) + raw[PAGE : PAGE + 20_000])

    image = build(tmp_path / "store", append_copies)
    with open_at(image.path) as store:
        assert_whole(store, image)
    for number in range(1, 20):
        if not image.segment(number).exists():
            continue
        for block in image.blocks(number):
            if oracle.size_of(block) > 20_000:
                damaged = image.copy(tmp_path / "damaged")
                damaged.flip(number, position(block) + 8)
                with open_at(damaged.path) as store:
                    assert set(store.names()) == {"a", "b"}
                    assert store.stream("a").read().data == image.content("a")


def test_what_a_client_sees_of_a_store_does_not_tell_the_seed_of_its_checksums(tmp_path):
    """The store's id is in every ETag. CRCs are linear: one of the UUID with another start gives the nonce away."""
    image = build(tmp_path / "store", write)
    with open_at(image.path) as store:
        public = int(store.engine.store_id, 16)
    zeroes = bytes(16)
    guess = public ^ oracle.crc32c(1, zeroes) ^ oracle.crc32c(0, zeroes)
    for number in (1, 2, 3):
        if image.segment(number).exists():
            assert nonce(image, number) != (guess + number * 0x9E3779B1) & 0xFFFFFFFF


def test_segments_do_not_share_their_seed(tmp_path):
    options = Options(segment_bytes=64 * 1024, record_bytes_max=32 * 1024)
    assert options.segment_bytes == 64 * 1024

    def fill(store: Store, truth: dict[str, list[bytes]]) -> None:
        for _ in range(40):
            append(store, truth, "a", b"x" * 9000)

    image = build(tmp_path / "store", fill)
    seeds = [oracle.nonce_in(file.read_bytes()[:PAGE]) for file in image.path.glob("*.log")]
    assert len(set(seeds)) == len(seeds) > 3


def test_a_block_that_voids_its_predecessors_survives_damage_of_the_mark_that_says_so(image, tmp_path):
    """Life one ends torn, with a valid block behind. Life two marks the cut and goes on. Then the mark rots: what life
    two acknowledged stays, what life one never acknowledged stays away."""
    last = image.blocks(1)[-1]
    number = image.blocks(1)[0].frames[0].stream
    tail = end(last)
    torn = oracle.OracleBlock(1 << 32 | tail, [oracle.Frame(oracle.DATA, number, 12_000, b"torn")], last.lsn, last.lsn,
                              last.header_crc)  # fmt: skip
    raw = torn.encode(nonce(image))
    header_crc = struct.unpack_from("<I", raw, 4)[0]
    behind = oracle.OracleBlock(torn.lsn + PAGE, [oracle.Frame(oracle.DATA, number, 12_004, b"behind")], last.lsn,
                                torn.lsn, header_crc)  # fmt: skip
    stale = fresh(image, tmp_path / "stale")
    stale.overwrite(1, tail, b"\0" * 8 + raw[8:] + behind.encode(nonce(image)))
    with open_at(stale.path) as store:
        append(store, stale.truth, "a", b"life two")
        append(store, stale.truth, "a", b"goes on")
    newest = max(n for n in range(2, 9) if stale.segment(n).exists() and stale.blocks(n))
    mark = stale.blocks(newest)[0]
    assert mark.frames == []
    stale.flip(newest, position(mark) + 10)
    with open_at(stale.path) as store:
        assert_whole(store, stale)
