"""Trimming through both faces: what goes, what stays, and what forks keep."""

from __future__ import annotations

import pytest
from fork_faces import Opened, Told, everything

from durable_log.errors import OffsetOutOfRange, StreamNotFound
from durable_log.model import EARLIEST, NOW, Trim

TEXT, JSON = "text/plain", "application/json"


def test_what_is_trimmed_cannot_be_read_and_offsets_stay_what_they_are(home: Opened):
    stream = home.store.create("s", content_type=TEXT, data="hello")
    stream.append("world")
    assert stream.trim(7) == 7
    for store in home.lives():
        stream = store.stream("s")
        assert stream.info().first == 7
        assert stream.read(7).data == b"rld"
        assert (stream.read(EARLIEST).offset, stream.read(EARLIEST).data) == (7, b"rld")
        for below in (0, 6):
            with pytest.raises(OffsetOutOfRange) as caught:
                stream.read(below)
            assert (caught.value.offset, caught.value.first, caught.value.tail) == (below, 7, 10)
    assert home.store.stream("s").append("!").offset == 10


def test_trimming_moves_only_forwards(home: Opened):
    stream = home.store.create("s", content_type=TEXT, data="hello")
    assert [stream.trim(before) for before in (3, 1, 0, 3, 5)] == [3, 3, 3, 3, 5]
    assert home.reopen().stream("s").trim(0) == 5


def test_trimming_ends_at_the_tail(home: Opened):
    stream = home.store.create("s", content_type=TEXT, data="hello")
    with pytest.raises(OffsetOutOfRange):
        stream.trim(6)
    assert stream.trim(5) == 5
    for store in home.lives():
        chunk = store.stream("s").read(EARLIEST)
        assert (chunk.data, chunk.offset, chunk.up_to_date) == (b"", 5, True)
        assert store.stream("s").read(NOW).offset == 5


def test_a_closed_stream_can_be_trimmed(home: Opened):
    home.store.create("s", content_type=TEXT, data="hello", closed=True).trim(2)
    chunk = home.reopen().stream("s").read(EARLIEST)
    assert (chunk.data, chunk.closed) == (b"llo", True)


def test_a_stream_has_to_be_there(home: Opened):
    with pytest.raises(StreamNotFound):
        home.store.stream("s").trim(0)


def test_a_viewer_of_the_oldest_byte_waits_behind_what_was_trimmed(home: Opened):
    stream = home.store.create("s", content_type=TEXT, data="hello")
    stream.trim(5)
    told = Told()
    assert home.store.engine.watch("s", EARLIEST, told, "viewer") is not None
    stream.append("!")
    assert told.tokens == ["viewer"]


def test_json_streams_are_trimmed_between_messages_of_one_record(home: Opened):
    stream = home.store.create("s", content_type=JSON, data='[{"a":1},{"b":2},{"c":3}]')
    stream.append_json(4)
    boundary = stream.read(0, limit=1).next_offset
    for inside in (1, boundary - 1, boundary + 1):
        with pytest.raises(OffsetOutOfRange):
            stream.trim(inside)
    assert stream.trim(boundary) == boundary
    for store in home.lives():
        stream = store.stream("s")
        assert stream.read(EARLIEST).items == [{"b": 2}, {"c": 3}, 4]
        assert stream.read(EARLIEST, limit=1).items == [{"b": 2}]
        assert stream.read(2 * boundary).items == [{"c": 3}, 4]
        with pytest.raises(OffsetOutOfRange):
            stream.read(boundary + 1)
        assert stream.trim(0) == boundary


def trim_before_a_look(home: Opened, monkeypatch, before: int) -> None:
    """The stream is trimmed, and its space given back, when somebody is about to look where its messages begin."""
    engine = home.store.engine
    record_bounds, left = engine.record_bounds, [True]

    def look(*arguments, **named):
        if left and left.pop():
            engine.execute(Trim("s", before))
            engine.upkeep.compact()
        return record_bounds(*arguments, **named)

    monkeypatch.setattr(engine, "record_bounds", look)


def test_who_reads_the_oldest_messages_gets_those_that_a_trim_has_left_meanwhile(home: Opened, monkeypatch):
    """He was told that his offset is out of range, and had given none."""
    stream = home.store.create("s", content_type=JSON)
    boundary = stream.append_json(1).next_offset
    stream.append_json(2)
    trim_before_a_look(home, monkeypatch, boundary)
    assert stream.read(EARLIEST).items == [2]


def test_who_reads_messages_that_a_trim_takes_meanwhile_is_told_where_the_stream_begins(home: Opened, monkeypatch):
    stream = home.store.create("s", content_type=JSON)
    boundary = stream.append_json(1).next_offset
    stream.append_json(2)
    trim_before_a_look(home, monkeypatch, boundary)
    with pytest.raises(OffsetOutOfRange) as caught:
        stream.read(0)
    assert (caught.value.offset, caught.value.first) == (0, boundary)


def test_a_trim_that_is_overtaken_by_one_that_goes_further_changes_nothing(home: Opened, monkeypatch):
    stream = home.store.create("s", content_type=JSON)
    ends = [stream.append_json(number).next_offset for number in range(4)]
    trim_before_a_look(home, monkeypatch, ends[2])
    assert stream.trim(ends[0]) == ends[2]


def test_the_records_of_a_trimmed_stream_begin_with_what_is_left(home: Opened):
    stream = home.store.create("s", content_type=TEXT, data="hello")
    stream.append("world")
    stream.trim(3)
    for store in home.lives():
        assert [store.engine.record_bounds("s", at) for at in (3, 4, 5)] == [(3, 5), (3, 5), (5, 10)]


# With forks


def test_a_fork_keeps_what_its_source_trims_later(home: Opened):
    source = home.store.create("source", content_type=TEXT, data="hello")
    home.store.create("fork", fork_of="source").append("!")
    source.trim(5)
    for store in home.lives():
        assert everything(store.stream("fork")) == b"hello!"
        assert store.stream("fork").info().first == 0
        assert everything(store.stream("source")) == b""


def test_a_fork_of_a_trimmed_source_begins_where_that_does(home: Opened):
    source = home.store.create("source", content_type=TEXT, data="hello")
    source.trim(2)
    home.store.create("fork", fork_of="source").append("!")
    home.store.create("edge", fork_of="source", fork_at=2).append("!")
    with pytest.raises(OffsetOutOfRange):
        home.store.create("below", fork_of="source", fork_at=1)
    source.trim(5)
    for store in home.lives():
        assert everything(store.stream("fork")) == b"llo!"
        assert store.stream("fork").info().first == 2
        assert everything(store.stream("edge")) == b"!"
        with pytest.raises(OffsetOutOfRange):
            store.stream("fork").read(1)


def test_a_fork_is_trimmed_for_itself_alone_within_what_it_inherits_and_beyond(home: Opened):
    home.store.create("source", content_type=TEXT, data="hello")
    fork = home.store.create("fork", fork_of="source")
    fork.append("world")
    nested = home.store.create("nested", fork_of="fork", fork_at=8)
    assert fork.trim(2) == 2
    for store in home.lives():
        assert everything(store.stream("fork")) == b"lloworld"
        assert everything(store.stream("source")) == b"hello"
        assert everything(store.stream("nested")) == b"hellowor"
    nested = home.store.stream("nested")
    assert nested.trim(7) == 7
    assert everything(home.reopen().stream("nested")) == b"r"


def test_a_trimmed_source_that_is_deleted_is_kept_as_it_is(home: Opened):
    source = home.store.create("source", content_type=JSON, data="[1,2,3]")
    source.trim(2)
    home.store.create("fork", fork_of="source").append_json(4)
    source.delete()
    for store in home.lives():
        assert store.stream("fork").read(EARLIEST).items == [2, 3, 4]
