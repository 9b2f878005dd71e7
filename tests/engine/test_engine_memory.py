"""What the engine keeps in memory: the index, the catalog, recent bytes, watermarks."""

from __future__ import annotations

import gc
import math
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twins import Clock

from durable_log.engine.catalog import Catalog
from durable_log.engine.format import lsn_of
from durable_log.engine.index import LOST, Run, add_place, new_index, place_at, places_of, runs_of
from durable_log.engine.recent import RecentBytes, read_recent, start_of
from durable_log.engine.state import StreamState, touch_interval
from durable_log.engine.watermark import Deliveries, Watermarks
from durable_log.errors import StoreClosed
from durable_log.model import StreamConfig


def state(number: int = 1, name: str = "s", **config: float | None) -> StreamState:
    return StreamState(number, name, StreamConfig("text/plain", **config), 1000)


# --- index


def index_of(*records: tuple[int, int], start: int = 0) -> bytearray:
    index = new_index(start)
    for end, lsn in records:
        add_place(index, end, lsn)
    return index


def test_the_index_splits_a_range_by_segments():
    index = index_of(
        (10, lsn_of(1, 4096)), (20, lsn_of(1, 8192)), (30, lsn_of(2, 4096)), (40, LOST), (50, lsn_of(2, 9000))
    )
    assert runs_of(index, 0, 50) == [
        Run(1, index_of((10, lsn_of(1, 4096)), (20, lsn_of(1, 8192)))),
        Run(2, index_of((30, lsn_of(2, 4096)), start=20)),
        Run(0, index_of((40, LOST), start=30)),
        Run(2, index_of((50, lsn_of(2, 9000)), start=40)),
    ]
    assert runs_of(index, 10, 11) == [Run(1, index_of((20, lsn_of(1, 8192)), start=10))]
    assert runs_of(index, 9, 10) == [Run(1, index_of((10, lsn_of(1, 4096))))]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.data())
def test_the_index_finds_exactly_the_records_of_a_range(lengths, data):
    index, end, records = new_index(), 0, []
    for number, length in enumerate(lengths):
        end += length
        records.append((end - length, end))
        add_place(index, end, lsn_of(1 + number // 7, 4096 + number))
    start = data.draw(st.integers(0, end - 1))
    stop = data.draw(st.integers(start + 1, end))
    runs = runs_of(index, start, stop)
    found = [(first, last) for run in runs for first, last, _ in places_of(run.entries)]
    assert found == [record for record in records if record[1] > start and record[0] < stop]
    assert place_at(index, start)[0] == next(first for first, last in records if first <= start < last)
    assert len(list(places_of(index))) == len(lengths)


def test_records_without_bytes_do_not_confuse_the_index():
    index = index_of((10, lsn_of(1, 1)), (20, lsn_of(1, 2)))
    assert place_at(index, 19)[0] == 10


# --- catalog


@pytest.mark.parametrize(
    ("config", "deadline"), [({}, math.inf), ({"ttl": 5}, 6.0), ({"expires_at": 7.5}, 7.5), ({"ttl": 0}, 1.0)]
)
def test_deadlines_follow_from_the_configuration(config, deadline):
    assert state(**config).deadline == deadline


def test_a_use_renews_a_sliding_deadline_and_never_moves_it_back():
    sliding = state(ttl=1000)
    assert sliding.expiry.touch(50.0) is False
    assert sliding.deadline == 1050.0
    sliding.expiry.touch(40.0)
    assert sliding.deadline == 1050.0
    assert sliding.expiry.touch(1.0 + touch_interval(1000)) is True
    assert state(expires_at=9.0).expiry.touch(5.0) is False
    assert state().expiry is None


@pytest.mark.parametrize(("ttl", "seconds"), [(0, 60.0), (480, 60.0), (800, 100.0)])
def test_uses_are_saved_at_most_every_eighth_of_the_ttl_or_minute(ttl, seconds):
    assert touch_interval(ttl) == seconds


def test_the_catalog_finds_streams_until_they_are_removed():
    clock = Clock(100.0)
    catalog = Catalog(clock)
    first, second = state(1, "a"), state(5, "b", expires_at=200.0)
    catalog.add(first)
    catalog.add(second)
    assert (catalog.get("a"), catalog.live("b"), catalog.next_number) == (first, second, 6)
    clock.now = 200.0
    assert catalog.get("b") is second
    assert catalog.live("b") is None
    assert list(catalog.names("")) == ["a"]
    catalog.remove(second)
    assert second.gone
    assert (catalog.get("b"), len(catalog)) == (None, 1)
    catalog.check()


def test_removing_a_former_life_leaves_the_present_one():
    catalog = Catalog(Clock())
    old, new = state(1, "a"), state(2, "a")
    catalog.add(old)
    catalog.add(new)
    catalog.remove(old)
    assert catalog.get("a") is new
    catalog.check()


def test_the_walk_of_the_invariants_finds_what_is_wrong():
    for spoil in (
        lambda stream: setattr(stream, "durable", 5),
        lambda stream: setattr(stream, "durable_closed", True),
        lambda stream: setattr(stream, "number", 9),
        lambda stream: setattr(stream, "recent", bytearray(8) + b"x"),
    ):
        catalog = Catalog(Clock())
        spoiled = state(1, "a")
        catalog.add(spoiled)
        catalog.check()
        spoil(spoiled)
        with pytest.raises(AssertionError):
            catalog.check()


# --- recent bytes


def test_recent_bytes_serve_what_they_have_and_nothing_else():
    recent, stream = RecentBytes(1000, 1000), state()
    assert read_recent(stream, 0, 0) is None
    recent.add([(stream, 5, 0, b"abc")])
    recent.add([(stream, 8, 0, b"def")])
    assert read_recent(stream, 5, 11) == b"abcdef"
    assert read_recent(stream, 6, 9) == b"bcd"
    assert read_recent(stream, 4, 9) is None
    recent.drop(stream)
    recent.drop(stream)
    assert (recent.total, read_recent(stream, 5, 11)) == (0, None)


@pytest.mark.parametrize("stream_max", [1, 5, 300])
def test_recent_bytes_keep_their_budget_and_forget_who_was_quiet_longest(stream_max):
    chance = random.Random(2)
    recent, streams, content = RecentBytes(1000, stream_max), [state(n) for n in range(8)], dict.fromkeys(range(8), b"")
    for _ in range(500):
        stream = chance.choice(streams)
        data = chance.randbytes(chance.choice([1, 2, 20, 100, 700]))
        recent.add([(stream, len(content[stream.number]), 0, data)])
        content[stream.number] += data
        stream.tail = len(content[stream.number])
        held = [s.recent for s in streams if s.recent is not None]
        assert recent.total == sum(len(raw) - 8 for raw in held) <= 1000
        assert all(len(raw) - 8 <= 2 * stream_max for raw in held)
        for s in streams:
            if s.recent is not None:
                assert content[s.number].endswith(bytes(s.recent[8:]))
                assert start_of(s.recent) + len(s.recent) - 8 == s.tail


def test_of_an_append_that_is_larger_than_what_is_kept_of_a_stream_the_last_bytes_are_kept():
    """A stream's first one stayed whole, 8 MiB of it, and took the room of hundreds of others."""
    recent, stream = RecentBytes(1000, 10), state()
    recent.add([(stream, 7, 0, b"x" * 11 + b"0123456789")])
    assert (recent.total, start_of(stream.recent), stream.recent[8:]) == (10, 18, b"0123456789")
    recent.add([(stream, 28, 0, b"more")])
    assert read_recent(stream, 18, 32) == b"0123456789more"


def test_a_reader_that_holds_recent_bytes_is_not_disturbed_by_their_eviction():
    recent, stream = RecentBytes(100, 10), state()
    recent.add([(stream, 0, 0, b"x" * 15)])
    held = stream.recent
    recent.add([(stream, 15, 0, b"y" * 10)])
    assert held is not None
    assert start_of(held) == 0
    assert held[8:].startswith(b"x" * 15)
    assert read_recent(stream, 15, 25) == b"y" * 10
    assert read_recent(stream, 14, 25) is None


def test_recent_bytes_that_were_renewed_are_not_moved_while_they_grow():
    stream_max, step = 64 * 2**10, 1000
    recent, stream, room = RecentBytes(2**20, stream_max), state(), dict[int, set[int]]()
    for offset in range(0, 6 * stream_max, step):
        recent.add([(stream, offset, 0, bytes(step))])
        assert stream.recent is not None
        room.setdefault(start_of(stream.recent), set()).add(sys.getsizeof(stream.recent))
    del room[0]
    assert len(room) > 3
    assert all(len(sizes) == 1 for sizes in room.values())


# --- watermarks


class Port:
    def __init__(self) -> None:
        self.deliveries: list[list[tuple[object, object]]] = []

    def deliver(self, results: list[tuple[object, object]]) -> None:
        self.deliveries.append(results)


def test_watchers_are_told_once_when_the_stream_moves():
    marks, stream, port = Watermarks(), state(), Port()
    assert marks.watch(stream, 0, port, "one") is True
    assert marks.watch(stream, 0, port, "two") is True
    assert len(marks) == 1
    deliveries = Deliveries()
    marks.tell([stream], deliveries)
    marks.tell([stream], deliveries)
    deliveries.send()
    assert port.deliveries == [[("one", None), ("two", None)]]
    assert len(marks) == 0


@pytest.mark.parametrize("what", ["durable", "durable_closed", "gone"])
def test_what_is_so_already_is_not_waited_for(what):
    marks, stream, port = Watermarks(), state(), Port()
    setattr(stream, what, 1 if what == "durable" else True)
    assert marks.watch(stream, 0, port, "one") is False
    assert len(marks) == 0
    assert stream.watchers is None


def test_a_cancelled_watcher_is_not_told_and_the_others_are():
    marks, stream, port = Watermarks(), state(), Port()
    marks.watch(stream, 0, port, "one")
    marks.watch(stream, 0, port, "two")
    marks.cancel(stream, port, "one")
    marks.cancel(stream, port, "one")
    marks.cancel(stream, port, "never there")
    deliveries = Deliveries()
    marks.tell([stream], deliveries)
    deliveries.send()
    assert port.deliveries == [[("two", None)]]


def test_at_the_end_everybody_is_told_why_and_nobody_waits_any_more():
    marks, streams, port, other = Watermarks(), [state(1), state(2)], Port(), Port()
    for stream in streams:
        marks.watch(stream, 0, port, stream.number)
    marks.watch(streams[0], 0, other, "x")
    reason, deliveries = StoreClosed("over"), Deliveries()
    marks.close(reason, deliveries)
    deliveries.send()
    assert len(port.deliveries) == 1
    assert sorted(token for token, _ in port.deliveries[0]) == [1, 2]
    assert all(
        isinstance(result, StoreClosed) for results in (*port.deliveries, *other.deliveries) for _, result in results
    )
    with pytest.raises(StoreClosed):
        marks.watch(streams[0], 0, port, "late")


def test_results_are_one_delivery_a_port_in_their_order():
    deliveries, first, second = Deliveries(), Port(), Port()
    for number in range(6):
        deliveries.add(first if number % 2 else second, number, -number)
    deliveries.send()
    assert first.deliveries == [[(1, -1), (3, -3), (5, -5)]]
    assert second.deliveries == [[(0, 0), (2, -2), (4, -4)]]


# --- the garbage collector


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="other collectors do not count references")
def test_the_collector_does_not_walk_through_what_there_is_one_of_for_each_stream():
    stream, recent = state(ttl=5), RecentBytes(1000, 1000)
    recent.add([(stream, 0, 0, b"x")])
    for held in (stream, stream.index, stream.recent, stream.expiry):
        assert not gc.is_tracked(held)
