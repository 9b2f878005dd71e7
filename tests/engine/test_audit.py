"""What a store says in one place and otherwise in another is told, with the stream and the file."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from stores import Disk, kill, open_quietly, quiet

from durable_log.engine.audit import Discord
from durable_log.engine.format import lsn_of
from durable_log.engine.index import add_place, clustered_place, clustered_segment, new_index, places_of
from durable_log.engine.manifest import ClusteredFile
from durable_log.engine.state import StreamState
from durable_log.store import Store

IN_LOG = lsn_of(99, 4096)


@pytest.fixture
def store(monkeypatch):
    """A stream of 100 bytes in a clustered segment and 10 in the log, and a fork of it."""
    quiet(monkeypatch)
    opened = open_quietly(Disk())
    opened.create("a", data=b"a" * 100)
    opened.create("b", data=b"b" * 100)
    opened.engine.upkeep.cluster()
    opened.stream("a").append(b"a" * 10)
    opened.create("fork", fork_of="a", fork_at=50)
    assert told(opened) == []
    yield opened
    kill(opened)


def told(store: Store) -> list[Discord]:
    return list(store.engine.upkeep.audit())


def state_of(store: Store, name: str) -> StreamState:
    state = store.engine._catalog.get(name)
    assert state is not None
    return state


def ranges(*entries: tuple[int, int], start: int = 0) -> bytearray:
    """An index of those ends and places."""
    index = new_index(start)
    for end, place in entries:
        add_place(index, end, place)
    return index


def ends_before_its_tail(store: Store) -> None:
    state_of(store, "a").tail += 1


def begins_behind_its_tail(store: Store) -> None:
    state_of(store, "a").first = 111


def begins_before_its_ranges(store: Store) -> None:
    state = state_of(store, "a")
    state.index = ranges(*((end, place) for _, end, place in places_of(state.index)), start=1)


def has_a_range_that_ends_before_it_begins(store: Store) -> None:
    state = state_of(store, "a")
    (_, _, first), (_, _, second) = places_of(state.index)
    state.index = ranges((100, first), (100, second), (110, second))


def lies_in_a_log_segment_that_is_gone(store: Store) -> None:
    state = state_of(store, "a")
    state.index[-16:] = ranges((110, IN_LOG))[8:]


def lies_in_a_clustered_segment_that_is_not_named(store: Store) -> None:
    state = state_of(store, "a")
    state.index[8:24] = ranges((100, clustered_place(99, 0)))[8:]


def lies_in_a_row_that_is_not_there(store: Store) -> None:
    state = state_of(store, "a")
    place = next(places_of(state.index))[2]
    state.index[8:24] = ranges((100, clustered_place(clustered_segment(place), 2)))[8:]


def lies_in_the_row_of_another(store: Store) -> None:
    a, b = state_of(store, "a"), state_of(store, "b")
    a.index[8:24] = b.index[8:24]


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (ends_before_its_tail, "", "its ranges end at 110, not at its tail 111"),
        (begins_behind_its_tail, "", "its first byte 111 is behind its tail 110"),
        (begins_before_its_ranges, "", "its ranges begin at 1, not at its first byte 0"),
        (has_a_range_that_ends_before_it_begins, "", "a range ends at 100, before it begins"),
        (lies_in_a_log_segment_that_is_gone, "00000063.log", "the log segment is not there"),
        (lies_in_a_clustered_segment_that_is_not_named, "00000063.seg", "the manifest does not name the file"),
        (lies_in_a_row_that_is_not_there, "00000001.seg", "row 2 of 2 is named"),
        (lies_in_the_row_of_another, "00000001.seg", "row 1 has the bytes 0 to 100 of stream number 2"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_stream_whose_state_does_not_fit_is_told(store, spoil: Callable[[Store], None], file: str, reason: str):
    spoil(store)
    assert (file, reason, "a") in [discord[:3] for discord in told(store)]


def test_a_fork_of_a_stream_that_is_not_there_is_told_with_the_bytes_that_it_misses(store):
    state_of(store, "a").name = ""
    reasons = [discord[1:] for discord in told(store) if discord.name == "fork"]
    assert reasons == [
        ("it is a fork of stream number 1, which is not there", "fork", 0, 0),
        ("bytes of stream number 1, which is not there", "fork", 0, 50),
    ]


def test_a_range_in_which_all_is_trimmed_may_lie_anywhere_once_no_fork_needs_it(store):
    lies_in_a_row_that_is_not_there(store)
    state = state_of(store, "a")
    state.first = 100
    assert [discord.name for discord in told(store)] == ["a"]
    state.forks = 0
    assert told(store) == []


def test_a_segment_of_which_more_is_needed_than_it_has_is_told(store):
    edits = store.engine.upkeep.checkpointer.edits
    edits.manifest = edits.manifest._replace(clustered=(ClusteredFile(1, 201),))
    assert told(store) == [Discord("MANIFEST", "201 bytes of 00000001.seg are said to be needed; it has 200")]


def test_a_wrong_count_of_streams_is_told(store):
    store.engine._catalog.count += 1
    assert told(store) == [Discord("MANIFEST", "there are 3 streams, and 4 are counted")]
