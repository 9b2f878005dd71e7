"""Files as text: everything that is in them, and what of it is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from cluster_files import appended, write_log
from damaged_stores import PAGE, Known, built, flip, make_newer, mend, places, truncate, zero
from twins import SMALL, Clock, copy_of, open_store

from durable_log.engine.cluster import ROW_SIZE, ClusteredSegment
from durable_log.engine.dump import dump
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.index import is_clustered
from durable_log.errors import UnsupportedFormat
from durable_log.store import Store

UNCLUSTERED = replace(SMALL, cluster_at_close=False, cluster_segments=1000, cluster_seconds=1e9, sweep_seconds=3600.0)


@pytest.fixture
def known() -> Known:
    return built().copy()


def things(known: Known, name: str, **options: bool) -> list[dict[str, object]]:
    return list(dump(known.directory, name, **options))


def damaged(known: Known, name: str) -> list[dict[str, object]]:
    return [thing for thing in things(known, name) if "damage" in thing]


def test_nothing_of_a_sound_store_is_said_to_be_damaged(known: Known):
    for name in known.directory.names():
        assert damaged(known, name) == [], name


def test_all_bytes_of_a_stream_are_in_the_files(known: Known):
    found: dict[int, bytes] = {}
    for name in known.names(".seg") + known.names(".log"):
        for thing in things(known, name, payload=True):
            if thing["is"] in ("bytes", "data") and thing["stream"] == known.streams["s09"].number:
                assert isinstance(thing["payload"], bytes)
                found[int(str(thing.get("start", thing.get("offset"))))] = thing["payload"]
    assert b"".join(found[offset] for offset in sorted(found)) == known.streams["s09"].content


def test_rows_say_what_is_known_of_a_stream(known: Known):
    rows = [thing for name in known.names(".run") for thing in things(known, name) if thing["is"] == "stream"]
    row = next(row for row in reversed(rows) if row["name"] == "s03")
    assert row["first"] == known.streams["s03"].first
    assert row["ranges"]
    fork = next(row for row in rows if row["name"] == "fork")
    assert fork["source"] == known.streams["s06"].number
    tombstones = [thing for name in known.names(".run") for thing in things(known, name) if thing["is"] == "tombstone"]
    assert {thing["name"] for thing in tombstones} == {"s05"}


def test_a_copy_of_a_single_file_needs_no_store(known: Known):
    for name in known.directory.names():
        alone = MemoryDirectory()
        alone.files[name] = known.directory.files[name]
        assert list(dump(alone, name)) == things(known, name)


@pytest.mark.parametrize("suffix", [".log", ".seg", ".run"])
def test_a_file_without_a_header_is_read_by_the_files_beside_it(known: Known, suffix: str):
    name = known.names(suffix)[0]
    before = things(known, name)
    zero(known.directory, name, 0)
    told = things(known, name)
    assert told[0]["damage"] == "the file header fails its checksum"
    assert told[1:] == before[1:]
    alone = MemoryDirectory()
    alone.files[name] = known.directory.files[name]
    assert list(dump(alone, name)) == told[:1]


def test_what_is_damaged_is_told_where_it_is(known: Known):
    start, _, place = next(entry for entry in places(known, "s09") if not is_clustered(entry[2]))
    log, position = f"{place >> 32:08x}.log", place & 0xFFFFFFFF
    flip(known.directory, log, position + 50)
    assert [thing["is"] for thing in damaged(known, log)] == ["block", "frame"]
    assert [thing["at"] for thing in damaged(known, log)] == [position // PAGE * PAGE, position]
    assert not any(thing["is"] == "data" and thing["offset"] == start and thing["at"] == position
                   for thing in things(known, log))  # fmt: skip
    run = known.names(".run")[0]
    flip(known.directory, run, PAGE + 99)
    assert [(thing["at"], thing["is"]) for thing in damaged(known, run)] == [(PAGE, "page")]
    segment = known.names(".seg")[0]
    flip(known.directory, segment, PAGE + 99)
    assert [(thing["at"], thing["is"]) for thing in damaged(known, segment)] == [(PAGE, "bytes")]
    flip(known.directory, "MANIFEST", PAGE + 99)
    assert [thing["is"] for thing in damaged(known, "MANIFEST")] == ["manifest"]


def test_lost_ranges_are_told_with_their_repair(known: Known):
    flip(known.directory, known.names(".seg")[0], PAGE + 99)
    mend(known.directory)
    ranges = [
        place
        for name in known.names(".run")
        for thing in things(known, name)
        for _, _, place in thing.get("ranges", [])  # type: ignore[attr-defined]
    ]
    assert "lost, repair 1" in ranges


# --- logs


@pytest.fixture
def log() -> Iterator[tuple[MemoryDirectory, Store]]:
    """A store that is open, whose log has one of everything and was closed once in good order."""
    directory, clock = MemoryDirectory(), Clock()
    store = open_store(directory, UNCLUSTERED, clock)
    store.create("a", data=b"0123", ttl=1000)
    store.stream("a").append(b"x", seq="2024")
    store.create("fork", fork_of="a", fork_at=2)
    clock.now += 500
    store.stream("a").read()
    store.close()
    store = open_store(directory, UNCLUSTERED, clock)
    store.stream("fork").append(b"of its own")
    yield directory, store
    store.close()


def in_log(directory: MemoryDirectory, number: int = 1) -> list[dict[str, object]]:
    return list(dump(directory, f"{number:08x}.log"))


def test_frames_say_all_that_they_know(log: tuple[MemoryDirectory, Store]):
    told = in_log(log[0])
    touch = next(thing for thing in told if thing["is"] == "touch")
    assert touch["touched_ms"] == 1_900_000_500_000
    assert [thing["stream_seq"] for thing in told if "stream_seq" in thing] == ["2024"]
    fork = next(thing for thing in told if thing.get("name") == "fork")
    assert (fork["source"], fork["base"], fork["ancestors"]) == (1, 2, [(1, 2)])
    assert not any("damage" in thing or "note" in thing for thing in told)


def test_the_mark_of_a_good_end_is_told(log: tuple[MemoryDirectory, Store]):
    marks = [thing for thing in in_log(log[0]) if thing["is"] == "mark"]
    assert any(mark.get("clean") for mark in marks)


def test_a_damaged_frame_is_told_between_those_that_hold():
    directory = MemoryDirectory()
    write_log(directory, 1, appended([(7, b"one"), (8, b"two"), (7, b"three")]))
    at = directory.files["00000001.log"].read(0, 2**20).index(b"two") - 24
    flip(directory, "00000001.log", at + 24)
    _header, block, *frames = in_log(directory)
    assert block["damage"] == "the body fails its checksum"
    assert [(frame["is"], frame["length"]) for frame in frames] == [("data", 3), ("frame", 27), ("data", 5)]
    assert (frames[1]["at"], frames[1]["damage"]) == (at, "no frame verifies here")


def flip_block(directory: MemoryDirectory, name: str, page: int) -> None:
    flip(directory, name, page * PAGE + 8)


@pytest.mark.parametrize(("spoil", "what"), [(flip_block, "no block"), (zero, "zeroes")])
def test_what_stands_where_a_block_was_is_told_and_so_is_the_block_that_misses_it(
    log: tuple[MemoryDirectory, Store], spoil: Callable[[MemoryDirectory, str, int], None], what: str
):
    directory, _ = log
    spoil(directory, "00000001.log", 2)
    told = in_log(directory)
    gap = next(thing for thing in told if thing["is"] == what)
    assert (gap["at"], gap["length"]) == (2 * PAGE, PAGE)
    assert ("note" in gap) == (what == "no block")
    following = next(thing for thing in told if int(str(thing["at"])) > 2 * PAGE)
    assert following["note"] == "it does not name the block before it"


def test_a_segment_that_begins_behind_a_cut_says_behind_which_block(log: tuple[MemoryDirectory, Store]):
    directory, _ = log
    blocks = [thing for thing in in_log(directory) if thing["is"] in ("block", "mark")]
    torn = copy_of(directory)
    position = int(str(blocks[-1]["at"]))
    flip(torn, "00000001.log", position + 64 + 24)
    with open_store(torn, UNCLUSTERED, Clock()) as cut:
        assert cut.stream("fork").append(b"on").offset == 2
        assert in_log(torn, 2)[0]["after"] == blocks[-2]["lsn"]


# --- damaged tables


def test_a_file_that_was_cut_short_says_so(known: Known):
    name = known.names(".seg")[0]
    truncate(known.directory, name, known.directory.files[name].size() - 64)
    told = things(known, name)
    assert told[0]["damage"] == "the file has another length than its header says"
    assert told[-1]["damage"] == "it fails its checksum; this is worked out from row 0"


def test_rows_and_entries_that_are_lost_are_told_and_what_follows_them_is_found(known: Known):
    name = known.names(".seg")[0]
    segment = ClusteredSegment.open(known.directory, name)
    assert segment is not None
    rows_at = segment.trailer.rows_position
    entry = segment.row(1).entries_position
    flip(known.directory, name, entry + 9)
    flip(known.directory, name, segment.row(2).entries_position + 9)
    flip(known.directory, name, rows_at + 2 * ROW_SIZE + 18)
    flip(known.directory, name, rows_at + 3 * ROW_SIZE + 18)
    told = things(known, name)
    assert [(thing["row"], thing.get("damage")) for thing in told if thing["is"] == "row"][:5] == [
        (0, None),
        (1, None),
        (2, "it fails its checksum, and so does its first entry"),
        (3, "it fails its checksum, and so does its first entry"),
        (4, None),
    ]
    entries = [thing for thing in told if thing["is"] == "entry" and "damage" in thing]
    assert [(thing["at"], thing["damage"]) for thing in entries] == [(entry, "it fails its checksum")]


def test_a_segment_of_which_neither_trailer_nor_first_row_is_left_is_no_more_than_that(known: Known):
    name = known.names(".seg")[0]
    segment = ClusteredSegment.open(known.directory, name)
    assert segment is not None
    flip(known.directory, name, segment.trailer.size - 10)
    flip(known.directory, name, segment.trailer.rows_position + 18)
    told = things(known, name)
    assert told[1:] == [
        {"at": segment.trailer.size - 64, "is": "trailer", "damage": "it fails its checksum, and so does row 0"}
    ]


def test_a_page_of_zeroes_and_a_trailer_that_is_gone_are_told_of_a_run(known: Known):
    name = known.names(".run")[0]
    size = known.directory.files[name].size()
    zero(known.directory, name, 1)
    assert (PAGE, "page", "it is all zeroes") in [
        (thing["at"], thing["is"], thing["damage"]) for thing in damaged(known, name)
    ]
    flip(known.directory, name, size - 10)
    assert things(known, name)[-1] == {"at": size - PAGE, "is": "trailer", "damage": "it fails its checksum"}


@pytest.mark.parametrize("suffix", ["MANIFEST", ".log", ".seg", ".run"])
def test_a_file_of_a_newer_version_is_neither_shown_nor_repaired(known: Known, suffix: str):
    name = known.names(suffix)[0]
    make_newer(known.directory, name)
    before = known.copy().directory.files
    with pytest.raises(UnsupportedFormat, match=f"{name}.*version 9"):
        things(known, name)
    flip(known.directory, known.names(".run" if suffix != ".run" else ".seg")[0], PAGE + 99)
    with pytest.raises(UnsupportedFormat, match=name):
        mend(known.directory)
    assert known.directory.files.keys() == before.keys()


def test_the_lock_and_what_is_no_file_of_a_store_are_no_damage():
    directory = MemoryDirectory()
    directory.create("LOCK").write(0, b"process 7 on here\n")
    directory.create("readme").write(0, b"hi")
    assert list(dump(directory, "LOCK")) == [{"at": 0, "is": "lock", "last_opened_by": "process 7 on here"}]
    (told,) = dump(directory, "readme")
    assert (told["is"], told["file_bytes"]) == ("foreign", 2)
    assert "damage" not in told
