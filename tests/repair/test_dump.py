"""Files as text: everything that is in them, and what of it is damaged."""

from __future__ import annotations

import pytest
from damaged_stores import PAGE, Known, built, flip, mend, places, zero

from durable_log.engine.dump import dump
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.index import is_clustered


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
