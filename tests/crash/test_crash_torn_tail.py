"""The end of the log as a crash leaves it: what nobody was told of is cut, whole, and all before it stays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import oracle
import pytest
from images import Image, append, build, contents, end, kill, open_at, position
from twins import SMALL, only_asked_for, open_store

from durable_log import START
from durable_log.engine.files import MemoryDirectory
from durable_log.errors import StreamClosed
from durable_log.store import Store

PAGE = 4096
LAST = b"l" * 5000


def write(store: Store, truth: dict[str, list[bytes]]) -> None:
    for turn in range(3):
        append(store, truth, "a", b"a%d" % turn * 500)
        append(store, truth, "b", b"b%d" % turn)
    append(store, truth, "a", LAST)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("torn") / "store", write)


def check(torn: Image, *, may_hold: bool) -> None:
    """Without the last record, or with the whole of it; and life goes on, and the next recovery finds the same."""
    whole = torn.content("a")
    kept = {whole[: -len(LAST)], whole} if may_hold else {whole[: -len(LAST)]}
    with open_at(torn.path) as store:
        assert store.report.damage == []
        assert store.report.lost == []
        found = store.stream("a").read().data
        assert found in kept
        assert store.stream("b").read().data == torn.content("b")
        store.stream("a").append(b"on")
        store.engine.check()
    for _ in range(2):
        with open_at(torn.path) as store:
            assert store.stream("a").read().data == found + b"on"
            assert store.stream("b").read().data == torn.content("b")
            assert store.report.damage == []
            store.engine.check()


def test_the_file_may_end_anywhere_in_the_last_block(image, tmp_path):
    last = image.blocks(1)[-1]
    for size in range(position(last), end(last), 512):
        torn = image.copy(tmp_path / "torn")
        with torn.segment(1).open("r+b") as file:
            file.truncate(size)
        check(torn, may_hold=size >= position(last) + 64 + 24 + len(LAST))


@pytest.mark.parametrize("how", ["zeroed", "flipped"])
def test_any_part_of_the_last_block_may_be_missing(image, tmp_path, how):
    last = image.blocks(1)[-1]
    body_end = position(last) + 64 + 24 + len(LAST)
    regions = [(position(last), 8), (position(last) + 8, 56), (position(last) + 64, 24)]
    regions += [(start, 512) for start in range(position(last) + 88, end(last) - 512, 512)]
    for start, length in regions:
        torn = image.copy(tmp_path / "torn")
        if how == "zeroed":
            torn.overwrite(1, start, bytes(length))
        else:
            torn.flip(1, start, length)
        check(torn, may_hold=start >= body_end)


def memory_image(image: Image) -> Callable[[int, int], MemoryDirectory]:
    files = {file.name: file.read_bytes() for file in image.path.iterdir()}

    def flipped(where: int, bit: int) -> MemoryDirectory:
        directory = MemoryDirectory()
        for name, raw in files.items():
            directory.create(name).write(0, raw)
        byte = directory.files["00000001.log"].read(where, 1)[0]
        directory.files["00000001.log"].write(where, bytes([byte ^ 1 << bit]))
        return directory

    return flipped


def test_any_flipped_bit_of_the_last_header_cuts_the_block(image):
    last, flipped = image.blocks(1)[-1], memory_image(image)
    for byte in range(64 + 24):
        for bit in (0, 7):
            with open_store(flipped(position(last) + byte, bit), SMALL) as store:
                assert store.stream("a").read().data == image.content("a")[: -len(LAST)]
                assert store.stream("b").read().data == image.content("b")
                assert store.report.damage == []


def test_recovery_does_not_touch_what_is_there(image, tmp_path):
    torn = image.copy(tmp_path / "torn")
    torn.flip(1, position(image.blocks(1)[-1]) + 100)
    before = contents(torn.path)["00000001.log"]
    open_at(torn.path).close()
    assert contents(torn.path)["00000001.log"] == before


def test_recovering_twice_is_recovering_once(image, tmp_path):
    torn = image.copy(tmp_path / "torn")
    torn.flip(1, position(image.blocks(1)[-1]) + 100)
    reports, files = [], []
    for _ in range(3):
        with open_at(torn.path) as store:
            reports.append((store.report.damage, store.report.lost, store.report.records))
        files.append({name: len(raw) for name, raw in contents(torn.path).items()})
    assert reports[0] == reports[1] == reports[2]
    assert files[1] == files[2]


def test_a_crash_in_the_recovery_after_a_crash_changes_nothing(image, tmp_path):
    """The mark that says where the log was cut is torn itself; and again."""
    torn = image.copy(tmp_path / "torn")
    torn.flip(1, position(image.blocks(1)[-1]) + 100)
    for _ in range(3):
        open_at(torn.path).close()
        newest = max(number for number in (1, 2, 3, 4, 5) if torn.segment(number).exists() and torn.blocks(number))
        if newest > 1:
            torn.flip(newest, position(torn.blocks(newest)[-1]) + 10)
    with open_at(torn.path) as store:
        assert store.stream("a").read().data == image.content("a")[: -len(LAST)]
        assert store.report.damage == []


def test_a_torn_block_and_the_valid_one_behind_it_never_come_back(image, tmp_path):
    """Two blocks that no sync has covered: the first is torn, the second whole. Both were told to nobody as durable."""

    def write_both(store: Store, truth: dict[str, list[bytes]]) -> None:
        write(store, truth)
        store.stream("a").append(b"torn", durability="written")
        store.stream("b").append(b"behind it", durability="written")

    with pytest.MonkeyPatch.context() as patch:
        only_asked_for(patch)
        both = build(tmp_path / "both", write_both)
    torn_block = both.blocks(1)[-2]
    for where in (0, 20, 64, 90):
        torn = both.copy(tmp_path / "torn")
        torn.flip(1, position(torn_block) + where)
        truth = {name: torn.content(name) for name in torn.truth}
        for turn in range(4):
            with open_at(torn.path) as store:
                assert store.report.damage == []
                for name, content in truth.items():
                    assert store.stream(name).read().data == content
                    store.stream(name).append(b"%d" % turn)
                    truth[name] = content + b"%d" % turn


def test_a_torn_block_at_the_start_of_a_segment_is_cut_like_any_other(tmp_path, monkeypatch):
    """The first of two unsynced blocks of a new segment is torn: all before the segment is durable, it is not."""
    only_asked_for(monkeypatch)

    def write_over_the_edge(store: Store, truth: dict[str, list[bytes]]) -> None:
        append(store, truth, "a", b"synced")
        store.create("b")
        truth["b"] = []
        while store.engine._committer._writer.segment.number == 1:
            store.stream("a").append(b"x" * 3000)
            truth["a"].append(b"x" * 3000)
        truth["a"].pop()
        store.stream("b").append(b"b", durability="written")

    whole = build(tmp_path / "whole", write_over_the_edge)
    newest = max(number for number in range(1, 9) if whole.segment(number).exists() and whole.blocks(number))
    first = whole.blocks(newest)[0]
    assert newest > 1
    assert first.durable_lsn == first.lsn
    raw = whole.segment(newest).read_bytes()
    nonce = oracle.nonce_in(raw)
    # The block behind it as the writer would have made it with nothing of this segment durable.
    second = whole.blocks(newest)[1]
    whole.overwrite(newest, position(second), second._replace(durable_lsn=first.lsn).encode(nonce))
    torn = whole.copy(tmp_path / "torn")
    torn.overwrite(newest, position(first), bytes(PAGE))
    with open_at(torn.path) as store:
        assert store.report.damage == []
        assert store.stream("a").read().data == torn.content("a")
        assert store.stream("b").read(START).data == b""


def test_an_acknowledged_close_survives_a_torn_tail(tmp_path):
    def close_and_write(store: Store, truth: dict[str, list[bytes]]) -> None:
        write(store, truth)
        store.stream("b").close()
        append(store, truth, "a", LAST)

    image = build(tmp_path / "store", close_and_write)
    image.flip(1, position(image.blocks(1)[-1]) + 100)
    with open_at(image.path) as store:
        assert store.stream("b").info().closed
        with pytest.raises(StreamClosed):
            store.stream("b").append(b"x")


def test_a_kill_at_an_arbitrary_moment_of_rolling_keeps_everything(tmp_path: Path):
    """Copies between any two appends, while segments fill up: each one opens with exactly what was acknowledged."""
    truth: dict[str, list[bytes]] = {}
    live = tmp_path / "live"
    with open_at(live) as store:
        for turn in range(40):
            append(store, truth, "ab"[turn % 2], bytes([turn]) * 7000)
            copied = tmp_path / "copy"
            kill(live, copied)
            with open_at(copied) as again:
                for name, records in truth.items():
                    assert again.stream(name).read().data == b"".join(records)
                assert again.report.damage == []
                assert not again.report.cut
            shutil.rmtree(copied)
