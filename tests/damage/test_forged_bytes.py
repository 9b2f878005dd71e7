"""Stale and forged bytes: of an earlier life of the file, of another store, of a copy of this one, of a tail that was
cut, or sent by a client who knows all but the seed of the checksums. None is ever taken for a part of the store.
"""

from __future__ import annotations

import struct
from itertools import combinations
from random import Random

import oracle
import pytest
from judging import tell
from stores import Book, Disk, Files, disk_of, kill, mark, open_quietly, quiet, tried

from durable_log.errors import Corruption
from durable_log.model import Options
from durable_log.store import Store

PAGE = 4096
LARGE = Options(segment_bytes=2**20, record_bytes_max=2**19, cluster_at_close=False)


def everything(store: Store) -> dict[str, object]:
    return {name: tell(store, name) for name in store.names()}


def blocks_of(files: Files, number: int) -> list[oracle.OracleBlock]:
    raw = files[f"{number:08x}.log"]
    return oracle.decode_segment(raw, number, oracle.nonce_in(raw))


def patched(files: Files, name: str, position: int, data: bytes) -> Files:
    old = files[name].ljust(position + len(data), b"\0")
    return {**files, name: old[:position] + data + old[position + len(data) :]}


def assert_same_and_goes_on(files: Files, said: dict[str, object], *, damage: bool = False) -> None:
    """It says what it is to say, twice, and what is written then stays."""
    disk = disk_of(files)
    for turn in range(3):
        store = open_quietly(disk)
        assert everything(store) == said
        assert bool(store.report.damage) == damage
        assert store.report.records_of_unknown_streams == 0
        store.create(f"turn {turn}", data=b"%d" % turn)
        said = everything(store)
        store.close()


# ---- recycled segments


def recycled() -> tuple[Disk, Book]:
    """The log stands at the beginning of a segment that is full of blocks of its earlier life."""
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("old")
    while store.engine._committer._writer.segment.number == 1:
        book.append("old", b"old life" * 400)
    store.engine.upkeep.cluster()
    book.create("new", b"new life")
    while "00000001.log" in disk.files or store.engine._committer._writer.segment.number < 4:
        book.append("new", b"new life" * 400)
        if store.engine._committer._writer.segment.number == 3:
            store.engine.upkeep.cluster()
    return disk, book


def test_a_torn_write_over_a_recycled_segment_leaves_old_blocks_that_do_not_count():
    """A block of five pages of which any may not have arrived: what they were before stays in the middle."""
    disk, book = recycled()
    number = book.store.engine._committer._writer.segment.number
    name = f"{number:08x}.log"
    mark(book.store)
    said, before = everything(book.store), disk.files_now()
    position = book.store.engine._committer._writer.position
    assert before[name][position : position + 4] == b"DBLK"
    book.append("new", b"torn" * 4500)
    kill(book.store)
    after = disk.files_now()
    pages = range(position, position + 5 * PAGE, PAGE)
    assert sum(before[name][page : page + 4] == b"DBLK" for page in pages) > 2
    for count in range(1, 6):
        for missing in combinations(pages, count):
            files = after
            for page in missing:
                files = patched(files, name, page, before[name][page : page + PAGE])
            assert_same_and_goes_on(files, said)


def test_segments_of_another_store_or_of_another_number_under_a_recycled_segment_do_not_count(monkeypatch):
    disk, book = recycled()
    number = book.store.engine._committer._writer.segment.number
    name = f"{number:08x}.log"
    mark(book.store)
    said = everything(book.store)
    position = book.store.engine._committer._writer.position
    kill(book.store)
    files = disk.files_now()
    quiet(monkeypatch, uuid=b"another identity")
    other, other_book = recycled()
    kill(other_book.store)
    sources = [raw for raw in other.files_now().values() if len(raw) > position]
    sources += [raw for key, raw in files.items() if key != name and len(raw) > position]
    assert len(sources) > 4
    for raw in sources:
        assert_same_and_goes_on(patched(files, name, position, raw[position:]), said)
        assert_same_and_goes_on(patched(files, name, position, raw[PAGE:]), said)


# ---- copies of the same store


def test_blocks_of_a_copy_that_went_on_differently_do_not_count():
    """A restored backup has the identity, the numbers and the seeds of the store. Only the chain of blocks tells them
    apart: a block that follows another life's last block is none, and one amid others is found out by the next one.
    """
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("a", b"shared")
    mark(store)
    kill(store)
    copy = disk.files_now()

    def go_on(text: bytes) -> tuple[Files, dict[str, object]]:
        lived = disk_of(copy)
        store = open_quietly(lived)
        for turn in range(4):
            store.stream("a").append(text + b"%d" % turn)
        mark(store)
        said = everything(store)
        kill(store)
        return lived.files_now(), said

    one, said = go_on(b"one life ")
    other, _ = go_on(b"the other ")
    last = max(blocks_of(one, 1), key=lambda block: block.lsn)
    end = (last.lsn & 0xFFFFFFFF) + PAGE
    theirs = other["00000001.log"]
    for position in range(PAGE, len(theirs), PAGE):
        page = theirs[position : position + PAGE]
        if position >= end:
            assert_same_and_goes_on(patched(one, "00000001.log", position, page), said)
        elif page != one["00000001.log"][position : position + PAGE]:
            found = open_quietly(disk_of(patched(one, "00000001.log", position, page)))
            assert found.report.damage or found.report.cut
            kill(found)


# ---- a tail that was cut, and comes back


def cut_store() -> tuple[Files, Files, dict[str, object]]:
    """A tail of two blocks of which the first arrived in part, before and after life two went on behind the cut."""
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("a", b"acknowledged")
    mark(store)
    start = store.engine._committer._writer.position
    book.append("a", b"never acknowledged" * 500)
    book.append("a", b"nor this")
    kill(store)
    whole = disk.files_now()
    torn = patched(whole, "00000001.log", start + PAGE, bytes(PAGE))
    # Nobody knew when the second one was written that the first was durable, as with several writes under one sync.
    first, second = blocks_of(whole, 1)[-2:]
    assert first.lsn & 0xFFFFFFFF == start
    unsure = second._replace(durable_lsn=first.lsn).encode(oracle.nonce_in(whole["00000001.log"]))
    position = second.lsn & 0xFFFFFFFF
    disk = disk_of(patched(torn, "00000001.log", position, unsure))
    store = open_quietly(disk)
    assert store.report.cut
    assert not store.report.damage
    assert store.stream("a").read().data == b"acknowledged"
    store.stream("a").append(b" and life two")
    store.stream("a").append(b" goes on")
    mark(store)
    said = everything(store)
    kill(store)
    returned = patched(whole, "00000001.log", position, unsure)["00000001.log"]
    return disk.files_now(), {**disk.files_now(), "00000001.log": returned}, said


def test_blocks_of_a_cut_tail_that_come_back_do_not_count():
    now, returned, said = cut_store()
    assert returned != now
    assert_same_and_goes_on(now, said)
    assert_same_and_goes_on(returned, said)


def test_nor_do_they_if_any_one_page_of_what_voids_them_is_damaged():
    """The header of the segment behind the cut says so, and so does the first block there: it takes both to bring them
    back. What life two wrote is damaged, then, and that is told.
    """
    _, returned, _ = cut_store()
    (name,) = [name for name in returned if name.endswith(".log") and name != "00000001.log"]
    for page in range(0, len(returned[name]), PAGE):
        disk = disk_of(patched(returned, name, page, bytes(PAGE)))
        store = open_quietly(disk)
        content = b"".join(tell(store, "a")[1])
        kill(store)
        assert b"never" not in content
        assert b"nor this" not in content


# ---- a client who sends blocks


def payloads_of(files: Files, shift: int) -> list[bytes]:
    """Whole files of this very store, with each of their pages where a page of the log will begin."""
    return [bytes(shift) + raw for raw in files.values()]


def test_nothing_in_a_payload_is_taken_for_a_part_of_the_store_whatever_is_torn_around_it():
    """The client sends copies of every file, aligned so that each of their pages is one of the log; then every page of
    the block that holds them is missing in turn, its header or its end, and the block is the last one or it is not.
    """
    disk = Disk()
    store = open_quietly(disk, LARGE)
    book = Book(store)
    with book.together():
        book.create("victim", b"what was acknowledged")
        book.create("other", b"of another")
        book.create("gone", b"gone")
    book.delete("gone")
    store.engine.upkeep.cluster()
    book.append("victim", b", and in the log")
    mark(store)
    said = everything(store)
    copied = disk.files_now()
    book.create("client")
    tails = []
    for payload in payloads_of(copied, PAGE - 64 - 24):
        start = store.engine._committer._writer.position
        book.append("client", payload)
        tails.append((start, disk.files_now()))
    mark(store)
    number = store.engine._committer._writer.segment.number
    kill(store)
    whole = disk.files_now()
    name = f"{number:08x}.log"
    headers = 0
    for start, at_the_end in tails:
        length = struct.unpack_from("<I", whole[name], start + 40)[0]
        pages = range(start, start + 64 + length, PAGE)
        headers += sum(whole[name][page : page + 4] == b"DBLK" for page in pages[1:])
        for files, damage in ((whole, True), (at_the_end, False)):
            for page in pages:
                for part in (bytes(PAGE), bytes(64)):
                    found = open_quietly(disk_of(patched(files, name, page, part)), LARGE)
                    assert found.report.records_of_unknown_streams == 0
                    assert bool(found.report.damage) <= damage
                    assert set(found.names()) == {"victim", "other", "client"}
                    assert {other: tell(found, other) for other in said} == said
                    kill(found)
    assert headers >= 4, "blocks stood where recovery looks for them"


@pytest.mark.parametrize("known", ["all", "all but the seed", "all but the block before it"])
def test_a_forged_block_in_a_torn_payload_counts_only_for_who_knows_the_seed_and_the_block_before(known):
    """It takes both, and neither ever leaves the directory. That it can be done with both shows that this test forges
    well; whoever can read the files can forge anything.
    """
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("victim", b"acknowledged")
    mark(store)
    kill(store)
    before = disk.files_now()
    raw, last = before["00000001.log"], blocks_of(before, 1)[-1]
    position = (last.lsn & 0xFFFFFFFF) + PAGE
    seed, crc = oracle.nonce_in(raw), last.header_crc
    seed ^= known == "all but the seed"
    crc ^= known == "all but the block before it"
    frames = [oracle.Frame(oracle.DATA, 1, len(b"acknowledged"), b" and forged")]
    forged = oracle.OracleBlock(1 << 32 | position + PAGE, frames, last.lsn, last.lsn, crc).encode(seed)
    honest = [oracle.Frame(oracle.DATA, 1, len(b"acknowledged"), bytes(PAGE - 64 - 24) + forged)]
    block = oracle.OracleBlock(1 << 32 | position, honest, last.lsn, last.lsn, last.header_crc).encode(
        oracle.nonce_in(raw)
    )
    assert block[PAGE : PAGE + 4] == b"DBLK"
    torn = patched(before, "00000001.log", position, bytes(64) + block[64:])
    with open_quietly(disk_of(torn)) as store:
        content = store.stream("victim").read().data
    assert content == (b"acknowledged and forged" if known == "all" else b"acknowledged")


def test_pages_of_other_files_in_payloads_do_not_count_in_clustered_segments_and_runs():
    """The client's payload holds whole files; the segment that holds the payload ends, or begins, at each page."""
    disk = Disk()
    with open_quietly(disk, LARGE) as store:
        store.create("victim", data=b"acknowledged")
        store.engine.upkeep.cluster()
        store.create("client")
        for payload in payloads_of(disk.files_now(), 0):
            store.stream("client").append(payload)
        store.engine.upkeep.cluster()
    files = disk.files_now()
    name = max((name for name in files if name.endswith(".seg")), key=lambda name: len(files[name]))
    for end in range(PAGE, len(files[name]), PAGE):
        assert isinstance(tried(open_quietly, disk_of({**files, name: files[name][:end]}), LARGE), Corruption)
        for other in files:
            shown = files[name][end:]
            if other.endswith((".run", ".seg")) and other != name and not shown.startswith(files[other]):
                assert isinstance(tried(open_quietly, disk_of({**files, other: shown}), LARGE), Corruption)


def test_random_pages_of_the_whole_store_in_every_place_of_the_log_make_no_record():
    """Whatever was once written anywhere in the store, put anywhere behind the end of the log."""
    disk, book = recycled()
    mark(book.store)
    name = book.store.engine._committer._writer.segment.file.name
    position = book.store.engine._committer._writer.position
    said = everything(book.store)
    kill(book.store)
    files = disk.files_now()
    chance = Random(7)
    pages = [raw[at : at + PAGE] for raw in files.values() for at in range(0, len(raw), PAGE)]
    pages += [files[name][at : at + PAGE] for at in range(0, position, PAGE)]
    for _ in range(150):
        behind = b"".join(chance.choices(pages, k=6))
        found = open_quietly(disk_of(patched(files, name, position, behind)))
        assert everything(found) == said
        assert not found.report.damage
        kill(found)
