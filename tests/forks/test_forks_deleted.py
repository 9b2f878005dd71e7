"""Deleted streams and their forks, through both faces: who stays for whom, and for how long."""

from __future__ import annotations

import pytest
from fork_faces import Clock, Opened, everything
from forking import chain, forks_of, is_kept

from durable_log.errors import OffsetOutOfRange, StreamExists, StreamGone, StreamNotFound
from durable_log.model import Create, Delete, StreamConfig

TEXT = "text/plain"


def test_a_source_that_is_deleted_stays_for_its_fork_and_for_nobody_else(home: Opened):
    home.store.create("source", content_type=TEXT, data="kept")
    home.store.create("fork", fork_of="source")
    home.store.stream("source").delete()
    for store in home.lives():
        source = store.stream("source")
        assert everything(store.stream("fork")) == b"kept"
        assert list(store.names()) == ["fork"]
        for use in (
            source.info,
            source.delete,
            lambda source=source: source.read(0),
            lambda source=source: source.append("x"),
            lambda source=source: source.trim(1),
            lambda source=source: source.wait(0, 0),
            lambda store=store: store.create("other", fork_of="source", content_type=TEXT),
        ):
            with pytest.raises(StreamGone):
                use()
        with pytest.raises(StreamExists):
            store.create("source", content_type=TEXT)


def test_a_source_stays_gone_after_the_end_that_it_would_have_had(home: Opened, clock: Clock):
    home.store.create("source", content_type=TEXT, data="kept", expires_at=clock.now + 10)
    home.store.create("fork", fork_of="source", ttl=1000)
    home.store.stream("source").delete()
    clock.now += 11
    for store in home.lives():
        assert is_kept(store, "source")


def test_the_last_fork_takes_its_deleted_source_along(home: Opened):
    home.store.create("source", content_type=TEXT, data="old")
    for name in ("one", "two"):
        home.store.create(name, fork_of="source")
    home.store.stream("source").delete()
    home.store.stream("one").delete()
    assert is_kept(home.reopen(), "source")
    home.store.stream("two").delete()
    for store in home.lives():
        assert not is_kept(store, "source")
    home.store.create("source", content_type=TEXT, data="new")
    assert everything(home.reopen().stream("source")) == b"new"


def test_a_source_that_is_not_deleted_outlives_its_forks(home: Opened):
    source = home.store.create("source", content_type=TEXT, data="alive")
    home.store.create("fork", fork_of="source").delete()
    assert forks_of(home.store, "source") == 0
    assert everything(source) == b"alive"
    assert everything(home.reopen().stream("source")) == b"alive"


def test_the_end_of_a_fork_cascades_over_three_levels(home: Opened):
    chain(home.store, 3)
    for level in range(3):
        home.store.stream(str(level)).delete()
    for store in home.lives():
        assert [is_kept(store, str(level)) for level in range(3)] == [True, True, True]
        assert everything(store.stream("3")) == b"0123"
    home.store.stream("3").delete()
    for store in home.lives():
        assert [is_kept(store, str(level)) for level in range(4)] == [False] * 4
        assert store.stats()["streams"] == 0


def test_a_cascade_ends_at_the_first_that_is_still_needed(home: Opened):
    chain(home.store, 3)
    home.store.create("side", fork_of="1", fork_at=1)
    for name in ("0", "1", "2", "3"):
        home.store.stream(name).delete()
    for store in home.lives():
        assert [is_kept(store, str(level)) for level in range(4)] == [True, True, False, False]
        assert everything(store.stream("side")) == b"0"


def test_a_link_in_the_middle_may_go(home: Opened):
    streams = chain(home.store, 2)
    streams[1].delete()
    for store in home.lives():
        assert everything(store.stream("2")) == b"012"
        assert everything(store.stream("0")) == b"0"


# A name that lives again


def swap_after_a_look(home: Opened, monkeypatch) -> None:
    """The source is deleted and created anew as soon as somebody has looked where its messages begin."""
    engine = home.store.engine
    record_bounds, left = engine.record_bounds, [True]

    def look(*arguments, **named):
        found = record_bounds(*arguments, **named)
        if left and left.pop():
            engine.execute(Delete("source"))
            engine.execute(Create("source", StreamConfig("application/json"), b"12345,"))
        return found

    monkeypatch.setattr(engine, "record_bounds", look)


def test_a_fork_at_an_offset_of_an_earlier_life_of_its_source_is_refused(home: Opened, monkeypatch):
    """It was made, and began with half a message of the later life."""
    home.store.create("source", content_type="application/json").append_json(1)
    swap_after_a_look(home, monkeypatch)
    with pytest.raises(StreamGone):
        home.store.create("fork", content_type="application/json", fork_of="source", fork_at=2)
    with pytest.raises(StreamNotFound):
        home.store.stream("fork").info()
    with pytest.raises(OffsetOutOfRange):
        home.store.create("fork", content_type="application/json", fork_of="source", fork_at=2)


def test_a_trim_at_an_offset_of_an_earlier_life_is_refused(home: Opened, monkeypatch):
    """It left half a message of the later life."""
    home.store.create("source", content_type="application/json").append_json(1)
    swap_after_a_look(home, monkeypatch)
    with pytest.raises(StreamGone):
        home.store.stream("source").trim(2)
    assert home.store.stream("source").info().first == 0
