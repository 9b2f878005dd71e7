"""Damage of one stream does not become wrong bytes of another."""

from __future__ import annotations

import pytest
from stores import CLUSTERED_AT_CLOSE, Book, Disk, disk_of, kill, mark, open_quietly, tried

from durable_log.engine.segment import survey
from durable_log.errors import Corruption

ROW = 48


def damaged_in_the_log(disk: Disk, needle: bytes) -> Disk:
    files = disk.files_now()
    name, content = next((name, content) for name, content in files.items() if needle in content)
    return disk_of({**files, name: content.replace(needle, bytes(len(needle)))})


@pytest.mark.parametrize("clustered", [False, True], ids=["log", "clustered before"])
def test_a_fork_does_not_get_what_its_source_appends_after_the_record_that_it_shares_was_damaged(clustered):
    """The record was the last of its source. That there was one is known from the fork alone."""
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("source", b"shared,")
    if clustered:
        store.engine.upkeep.cluster()
    book.append("source", b"lost in the middle,")
    tail = len(book.alive["source"].content)
    book.create("fork", fork_of="source", at=tail)
    book.append("fork", b"own")
    mark(store)
    kill(store)
    disk = damaged_in_the_log(disk, b"lost in the middle,")
    for turn in range(3):
        with open_quietly(disk, CLUSTERED_AT_CLOSE) as store:
            assert store.stream("source").info().tail == tail + 9 * turn
            assert store.stream("fork").read().data == b"shared,"
            with pytest.raises(Corruption):
                store.stream("fork").read(7)
            assert store.stream("fork").read(tail).data == b"own"
            assert store.stream("source").append(b"new bytes").offset == tail + 9 * turn
            assert [(lost.start, lost.end) for lost in store.report.lost if lost.name == "source"] == [(7, tail)]
            store.engine.check()


def test_a_source_whose_creation_is_all_that_is_left_of_it_keeps_its_tail():
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("source")
    book.append("source", b"everything")
    book.create("fork", fork_of="source", at=10)
    mark(store)
    kill(store)
    with open_quietly(damaged_in_the_log(disk, b"everything")) as store:
        assert store.stream("source").info().tail == store.stream("fork").info().tail == 10
        for name in ("source", "fork"):
            with pytest.raises(Corruption):
                store.stream(name).read()


def test_a_row_that_came_to_anothers_place_is_not_read_as_its():
    """Three sectors are 32 rows: a misdirected write of one puts whole rows there, and their checksums hold."""
    disk = Disk()
    store = open_quietly(disk, CLUSTERED_AT_CLOSE)
    for number in range(100):
        store.create(f"stream {number}", data=b"%03d" % number)
    store.close()
    files = disk.files_now()
    (name,) = [name for name in files if name.endswith(".seg")]
    content = files[name]
    rows = len(content) - 64 - 100 * (32 + 4 + 1) - 100 * ROW
    for moved in (32, -32):
        for size in (512, ROW):
            first = rows + 64 * ROW
            first += -first % 512 if size == 512 else 0
            source = first + moved * ROW
            damaged = content[:first] + content[source : source + size] + content[first + size :]
            with open_quietly(disk_of({**files, name: damaged})) as store:
                unreadable = 0
                for number in range(100):
                    found = tried(store.stream(f"stream {number}").read)
                    bounds = tried(store.engine.record_bounds, f"stream {number}", 1)
                    if isinstance(found, Corruption):
                        assert found.file == bounds.file == name
                        unreadable += 1
                    else:
                        assert (found.data, bounds) == (b"%03d" % number, (0, 3))
                assert 1 <= unreadable <= 12
                assert store.engine.upkeep.check_files()


def expect_all_but(store, names, hit):
    for name in names:
        found = tried(store.stream(name).read)
        assert found.data == name[-3:].encode() if name != hit else isinstance(found, Corruption)


@pytest.mark.parametrize("how", ["by itself", "on demand"])
@pytest.mark.parametrize("row", [0, 64])
@pytest.mark.parametrize("damage", ["another row is there", "the row is damaged"])
def test_a_segment_is_not_compacted_away_while_one_of_its_rows_is_not_what_it_was(how, row, damage):
    """What is still there of the stream, and can be mended, would go with it."""
    disk = Disk()
    names = [f"stream {number:03d}" for number in range(100)]
    with open_quietly(disk, CLUSTERED_AT_CLOSE) as store:
        for name in names:
            store.create(name, data=name[-3:].encode())
    files = disk.files_now()
    content = files["00000001.seg"]
    rows = len(content) - 64 - 100 * (32 + 4 + 1) - 100 * ROW
    at, other = rows + row * ROW, rows + 96 * ROW
    damaged = content[:at] + content[other : other + ROW] + content[at + ROW :]
    if damage == "the row is damaged":
        damaged = content[: at + 20] + b"\xff" + content[at + 21 :]
    disk = disk_of({**files, "00000001.seg": damaged})
    kept = [name for number, name in enumerate(names) if number == row or (number > 70 and number != 96)]
    with open_quietly(disk) as store:
        for name in sorted(set(names) - set(kept)):
            store.delete(name)
        store.engine.upkeep.cluster()
        if how == "by itself":
            while store.engine.upkeep._compactor.step():
                pass
        else:
            with pytest.raises(Corruption, match=r"00000001\.seg"):
                store.compact()
        expect_all_but(store, kept, names[row])
        assert disk.files_now()["00000001.seg"] == damaged
    mended = disk_of({**disk.files_now(), "00000001.seg": content})
    with open_quietly(mended) as store:
        expect_all_but(store, kept, None)


def test_damage_that_reaches_into_the_next_segment_is_told_with_both_files(caplog, monkeypatch):
    import logging

    monkeypatch.setattr(logging.getLogger("durable_log"), "disabled", False)
    disk = Disk()
    store = open_quietly(disk)
    book = Book(store)
    book.create("a")
    while store.engine._committer._writer.segment.number == 1:
        book.append("a", bytes(9000))
    mark(store)
    kill(store)
    segment = store.engine._reader.segments[1]
    last = survey(segment)[-1].lsn & 0xFFFFFFFF
    content = disk.files_now()["00000001.log"]
    damaged = content[:last] + bytes(len(content) - last)
    open_quietly(disk_of({**disk.files_now(), "00000001.log": damaged})).close()
    assert f"between 00000001.log position {last} and 00000002.log position 4096" in caplog.text
