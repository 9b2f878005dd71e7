"""Forks through both faces: what they inherit, what they do not, and what is refused."""

from __future__ import annotations

import asyncio

import pytest
from fork_faces import Clock, Opened, Told, everything
from forking import chain, forks_of, is_kept

from durable_log import aio
from durable_log._face import check_boundary
from durable_log.errors import (
    ContentTypeMismatch,
    Corruption,
    InvalidOption,
    OffsetOutOfRange,
    SequenceGap,
    StreamExists,
    StreamNotFound,
)
from durable_log.model import Create, Created, Producer, StreamConfig

TEXT, JSON = "text/plain", "application/json"


# What a fork holds


def test_a_fork_begins_with_what_its_source_held_and_goes_its_own_way(home: Opened):
    source = home.store.create("source", content_type=TEXT, data="shared")
    fork = home.store.create("fork", fork_of="source")
    assert fork.append(" fork").offset == 6
    assert source.append(" source").offset == 6
    for store in home.lives():
        assert everything(store.stream("fork")) == b"shared fork"
        assert everything(store.stream("source")) == b"shared source"


def test_a_fork_leaves_its_source_at_any_offset(home: Opened):
    source = home.store.create("source", content_type=TEXT)
    for part in ("A", "BC", "D"):
        source.append(part)
    for at in range(5):
        home.store.create(f"fork{at}", fork_of="source", fork_at=at).append("x")
    for store in home.lives():
        for at in range(5):
            assert everything(store.stream(f"fork{at}")) == b"ABCD"[:at] + b"x"


def test_a_fork_says_where_it_comes_from(home: Opened):
    home.store.create("source", content_type=TEXT, data="abc")
    home.store.create("fork", fork_of="source", fork_at=2)
    for store in home.lives():
        info = store.stream("fork").info()
        assert (info.fork_of, info.fork_at, info.tail, info.first) == ("source", 2, 2, 0)
        assert info.content_type == TEXT
        assert store.stream("source").info().fork_of is None


def test_forks_nest(home: Opened):
    chain(home.store, 5)
    for store in home.lives():
        for level in range(6):
            assert everything(store.stream(str(level))) == b"012345"[: level + 1]
            assert everything(store.stream(str(level)), limit=1) == b"012345"[: level + 1]


@pytest.mark.parametrize("at", [None, 1], ids=["at the tail", "within"])
def test_forks_of_forks_without_bytes_of_their_own_may_be_a_long_chain(home: Opened, at: int | None):
    """Only the streams with bytes are ancestors: all others are found one by one when the last is loaded."""
    home.store.create("0", content_type=TEXT, data="text")
    for level in range(1, 401):
        home.store.create(str(level), fork_of=str(level - 1), fork_at=at)
    for store in home.lives():
        assert everything(store.stream("400")) == b"text"[:at]
    for level in range(400):
        home.store.delete(str(level))
    assert list(home.reopen().names()) == ["400"]
    home.store.delete("400")
    for store in home.lives():
        assert not is_kept(store, "0")


def test_a_nested_fork_may_leave_its_source_within_what_that_inherits(home: Opened):
    chain(home.store, 5)
    home.store.create("side", fork_of="5", fork_at=2).append("!")
    for store in home.lives():
        assert everything(store.stream("side")) == b"01!"
        assert store.stream("side").info().fork_of == "5"


def test_reads_are_stitched_over_boundaries_wherever_they_begin_and_end(home: Opened):
    chain(home.store, 5)
    for store in home.lives():
        fork = store.stream("5")
        for start in range(7):
            for limit in range(1, 8):
                chunk = fork.read(start, limit=limit)
                assert chunk.data == b"012345"[start : start + limit]
                assert chunk.up_to_date == (start + limit >= 6)


def test_a_closed_stream_is_forked_open(home: Opened):
    home.store.create("source", content_type=TEXT, data="whole", closed=True)
    fork = home.store.create("fork", fork_of="source")
    assert not fork.info().closed
    assert not fork.read(0).closed
    fork.append("!", close=True)
    for store in home.lives():
        assert store.stream("fork").read(0).closed
        assert everything(store.stream("fork")) == b"whole!"


def test_a_fork_may_be_created_with_data_and_closed(home: Opened):
    home.store.create("source", content_type=TEXT, data="a")
    home.store.create("fork", fork_of="source", data="b", closed=True)
    for store in home.lives():
        chunk = store.stream("fork").read(0)
        assert (chunk.data, chunk.closed) == (b"ab", True)


def test_json_messages_are_one_sequence_over_the_boundary(home: Opened):
    source = home.store.create("source", content_type=JSON)
    source.append_json(1, {"two": 2})
    end = source.append_json([3]).next_offset
    source.append_json(4)
    fork = home.store.create("fork", fork_of="source", fork_at=end)
    fork.append_json("five", "six")
    for store in home.lives():
        fork = store.stream("fork")
        assert fork.read(0).items == [1, {"two": 2}, [3], "five", "six"]
        assert fork.read(end).items == ["five", "six"]
        assert fork.read(0, limit=1).items == [1]


def test_a_record_that_a_fork_shares_ends_where_the_fork_begins(home: Opened):
    source = home.store.create("source", content_type=TEXT, data="zero")
    source.append("hello")
    fork = home.store.create("fork", fork_of="source", fork_at=7)
    fork.append("LO")
    for store in home.lives():
        bounds = store.engine.record_bounds
        assert [bounds("source", at) for at in (0, 4, 8, 9)] == [(0, 4), (4, 9), (4, 9), (9, 9)]
        assert [bounds("fork", at) for at in (0, 4, 6, 7, 9)] == [(0, 4), (4, 7), (4, 7), (7, 9), (9, 9)]


# Sub-offsets


def fork_points(home: Opened, anchor: int, *sub_offsets: int) -> list[int]:
    async def points() -> list[int]:
        store = aio.AsyncStore(home.store.engine)
        return [await store.fork_point("source", anchor, sub_offset) for sub_offset in sub_offsets]

    return asyncio.run(points())


def test_a_sub_offset_counts_bytes_within_one_append(home: Opened):
    home.store.create("source", content_type=TEXT, data="hello").append("more")
    assert fork_points(home, 0, 0, 1, 5) == [0, 1, 5]
    assert fork_points(home, 2, 0, 3) == [2, 5]
    assert fork_points(home, 5, 4) == [9]
    home.reopen()
    assert fork_points(home, 0, 3) == [3]
    for anchor, sub_offset in ((0, 6), (2, 4), (5, 5), (9, 1), (0, 2**53 - 1)):
        with pytest.raises(InvalidOption, match="sub-offset"):
            fork_points(home, anchor, sub_offset)


def test_a_sub_offset_counts_messages_on_json_streams(home: Opened):
    source = home.store.create("source", content_type=JSON)
    end = source.append('["a,", {"b": [1, 2]}, null]').next_offset
    source.append_json(4)
    points = fork_points(home, 0, 0, 1, 2, 3)
    assert points[-1] == end
    home.reopen()
    for count, point in enumerate(points):
        fork = home.store.create(f"fork{count}", fork_of="source", fork_at=point)
        fork.append_json("own")
        assert fork.read(0).items == [*["a,", {"b": [1, 2]}, None][:count], "own"]
    assert fork_points(home, points[1], 2) == [end]
    for anchor, sub_offset in ((0, 4), (points[1], 3), (end, 2), (0, 2**53 - 1)):
        with pytest.raises(InvalidOption, match="sub-offset"):
            fork_points(home, anchor, sub_offset)


def test_a_sub_offset_finds_its_end_among_very_many_messages(home: Opened):
    home.store.create("source", content_type=JSON, data=b"[" + b"1," * 99_999 + b"1]")
    assert fork_points(home, 0, 100_000) == [200_000]


@pytest.mark.parametrize("anchor", [6, 2**63 - 1])
def test_an_anchor_is_an_offset_of_the_stream(home: Opened, anchor: int):
    home.store.create("source", content_type=TEXT, data="hello")
    with pytest.raises(OffsetOutOfRange):
        fork_points(home, anchor, 1)
    with pytest.raises(OffsetOutOfRange):
        home.store.create("fork", fork_of="source", fork_at=anchor)


def test_no_fork_cuts_a_json_message(home: Opened):
    home.store.create("source", content_type=JSON, data='[{"a":1},{"b":2}]')
    for inside in (1, 7, 9, 15):
        for sub_offset in (0, 1):
            with pytest.raises(OffsetOutOfRange):
                fork_points(home, inside, sub_offset)
        with pytest.raises(OffsetOutOfRange):
            home.store.create("fork", fork_of="source", fork_at=inside)
    assert forks_of(home.store, "source") == 0


def test_a_stream_is_cut_before_a_record_without_reading_it():
    def damaged(*_: object) -> None:
        raise Corruption("00000001.log", 4096, "a checksum fails")

    check_boundary(damaged, lambda _name, offset, _number: (offset, offset + 5), "s", 7, None)
    with pytest.raises(Corruption):
        check_boundary(damaged, lambda _name, offset, _number: (offset - 1, offset + 5), "s", 7, None)


# What a fork does not inherit


def test_a_fork_knows_nothing_of_the_producers_of_its_source(home: Opened):
    source = home.store.create("source", content_type=TEXT)
    source.append("a", producer=Producer("p", 3, 0))
    source.append("b", producer=Producer("p", 3, 1), seq="9")
    home.store.create("fork", fork_of="source")
    fork = home.reopen().stream("fork")
    with pytest.raises(SequenceGap):
        fork.append("c", producer=Producer("p", 3, 2))
    assert not fork.append("c", producer=Producer("p", 0, 0), seq="1").duplicate
    assert everything(fork) == b"abc"
    assert home.store.stream("source").append("b", producer=Producer("p", 3, 1)).duplicate


def test_what_a_source_appends_wakes_no_viewer_of_its_fork(home: Opened):
    source = home.store.create("source", content_type=TEXT, data="a")
    fork = home.store.create("fork", fork_of="source")
    told = Told()
    assert home.store.engine.watch("fork", 1, told, "viewer") is not None
    source.append("b")
    source.close()
    source.delete()
    assert told.tokens == []
    fork.append("c")
    assert told.tokens == ["viewer"]


def test_a_fork_lives_by_the_ttl_of_its_source_but_by_its_own_use(home: Opened, clock: Clock):
    home.store.create("source", content_type=TEXT, ttl=100, data="a")
    home.store.create("heir", fork_of="source")
    home.store.create("own", fork_of="source", ttl=1000)
    home.store.create("dated", fork_of="source", expires_at=clock.now + 500)
    clock.now += 60
    home.store.stream("heir").read(0)
    clock.now += 60
    store = home.reopen()
    assert store.stream("heir").info().ttl == 100
    assert (store.stream("own").info().ttl, store.stream("own").info().expires_at) == (1000, None)
    assert (store.stream("dated").info().ttl, store.stream("dated").info().expires_at) == (None, clock.now + 380)
    clock.now += 200
    for name in ("source", "heir"):
        with pytest.raises(StreamNotFound):
            store.stream(name).info()
    assert everything(store.stream("own")) == b"a"
    assert list(store.names()) == ["dated", "own"]


def test_a_fork_inherits_the_end_of_its_source_unless_it_has_a_ttl(home: Opened, clock: Clock):
    home.store.create("source", content_type=TEXT, expires_at=clock.now + 100, data="a")
    home.store.create("heir", fork_of="source")
    home.store.create("own", fork_of="source", ttl=1000)
    assert home.store.stream("heir").info().expires_at == clock.now + 100
    assert home.store.stream("own").info().expires_at is None
    clock.now += 101
    store = home.reopen()
    store.engine.upkeep.sweep()
    assert list(store.names()) == ["own"]
    assert is_kept(store, "source")
    assert everything(store.stream("own")) == b"a"
    assert everything(home.reopen().stream("own")) == b"a"


# What is refused, and what is found again


def test_the_answer_to_a_create_has_the_tail_and_the_content_type_of_the_stream(home: Opened):
    config = StreamConfig("Text/Plain; charset=utf-8")
    assert home.store.submit(Create("source", config, b"abc")) == Created(False, 3, False, config.content_type)
    fork = Create("fork", StreamConfig("text/plain"), b"!", True, "source", 2)
    assert home.store.submit(fork) == Created(False, 3, True, "text/plain")
    again = Create("source", StreamConfig("text/plain"), b"ignored")
    assert home.store.submit(again) == Created(True, 3, False, config.content_type)


def test_a_refused_fork_leaves_no_reference(home: Opened):
    home.store.create("source", content_type=TEXT, data="abc")
    home.store.create("taken", content_type=TEXT)
    for refused, options in (
        (ContentTypeMismatch, {"content_type": JSON}),
        (OffsetOutOfRange, {"fork_at": 4}),
        (StreamExists, {"name": "taken"}),
        (StreamExists, {"name": "source"}),
    ):
        with pytest.raises(refused):
            home.store.create(**{"name": "fork", "fork_of": "source"} | options)
        assert forks_of(home.store, "source") == 0
        home.store.engine.check()
    home.store.stream("source").delete()
    for store in home.lives():
        assert not is_kept(store, "source")


def test_a_source_has_to_be_there(home: Opened):
    for content_type in (None, TEXT):
        with pytest.raises(StreamNotFound):
            home.store.create("fork", fork_of="source", content_type=content_type)
        with pytest.raises(StreamNotFound):
            home.store.create("source", fork_of="source", content_type=content_type)


def test_creating_a_fork_again_finds_it_and_counts_once(home: Opened):
    home.store.create("source", content_type=TEXT, data="abc")
    home.store.create("fork", fork_of="source", fork_at=2).append("x")
    for store in home.lives():
        assert store.create("fork", fork_of="source", fork_at=2).info().tail == 3
        assert store.create("fork", fork_of="source", content_type="TEXT/plain").info().tail == 3
        assert forks_of(store, "source") == 1
        for options in ({"fork_at": 1}, {"ttl": 60}, {"closed": True}, {"fork_of": "fork"}):
            with pytest.raises(StreamExists):
                store.create("fork", **{"fork_of": "source"} | options)
        with pytest.raises(StreamExists):
            store.create("fork", content_type=TEXT)


def test_a_fork_is_found_again_though_its_source_is_deleted(home: Opened):
    for content_type in (TEXT, JSON):
        source, fork = f"source of {content_type}", f"fork of {content_type}"
        home.store.create(source, content_type=content_type, data="1")
        at = home.store.stream(source).info().tail
        home.store.create(fork, fork_of=source, fork_at=at)
        home.store.stream(source).delete()
        found = home.store.create(fork, fork_of=source, fork_at=at, content_type=content_type)
        assert found.info().fork_of == source
