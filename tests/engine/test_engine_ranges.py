"""A stream that is written for years does not lie in as many pieces as there were checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest
from twins import SMALL, Clock, TwinDirectory, copy_of, no_space, open_store

from durable_log.engine import compaction, index
from durable_log.engine.format import lsn_of
from durable_log.engine.index import add_place, clustered_place, frayed, gathered, new_index, places_of
from durable_log.errors import StreamNotFound
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)
FEW = 8


@pytest.fixture(autouse=True)
def few_ranges(monkeypatch):
    """No segment is small enough to be merged with others, and none is dead enough to be rewritten."""
    monkeypatch.setattr(index, "RANGES_MAX", FEW)
    monkeypatch.setattr(compaction, "CLASSES_MERGED", 0)
    monkeypatch.setattr(compaction, "pause", lambda: None)


def ranges(store: Store, name: str) -> int:
    state = store.engine._catalog.get(name)
    return 0 if state is None else len(list(places_of(state.index)))


def settle(store: Store) -> None:
    store.engine.upkeep.cluster()
    while store.engine.upkeep._compactor.step():
        pass


def play(store: Store, turns: range, truth: dict[str, bytes]) -> int:
    """A checkpoint a turn; returns how many ranges a stream had at most."""
    most = 0
    for turn in turns:
        for name in truth:
            data = f"{name}:{turn};".encode() * (1 + turn % 3)
            store.stream(name).append(data)
            truth[name] += data
        settle(store)
        most = max(most, *(ranges(store, name) for name in truth))
    return most


def check(store: Store, truth: dict[str, bytes]) -> None:
    for name, data in truth.items():
        first = store.stream(name).info().first
        assert store.stream(name).read(first).data == data[first:]
    store.engine.check()


def test_a_stream_that_changes_at_every_checkpoint_lies_in_few_ranges():
    """It had one more with each checkpoint, and its row grew without end."""
    twin, truth = TwinDirectory(), dict.fromkeys(("a", "b", "c"), b"")
    with open_store(twin, CALM, Clock()) as store:
        for name in truth:
            store.create(name)
        assert play(store, range(60), truth) <= 2 * FEW
        check(store, truth)
        with open_store(copy_of(twin), CALM, Clock()) as killed:
            check(killed, truth)
        store.engine.upkeep.compact()
        check(store, truth)
        assert store.stats()["clustered_live_bytes"] == sum(map(len, truth.values()))
    with open_store(copy_of(twin), CALM, Clock()) as store:
        check(store, truth)
        assert play(store, range(60, 90), truth) <= 2 * FEW
        check(store, truth)


def test_trims_forks_and_deletions_beside_the_gathering_keep_what_they_keep():
    twin, truth = TwinDirectory(), dict.fromkeys(("a", "b", "c"), b"")
    with open_store(twin, CALM, Clock()) as store:
        for name in truth:
            store.create(name)
        play(store, range(6), truth)
        store.create("fork", fork_of="a", fork_at=20)
        forked = truth["a"][:20]
        store.stream("a").trim(11)
        store.stream("b").trim(17)
        store.stream("c").delete()
        del truth["c"]
        assert play(store, range(6, 40), truth) <= 2 * FEW
        for opened in (store, open_store(copy_of(twin), CALM, Clock())):
            check(opened, truth)
            assert opened.stream("fork").read().data == forked
            with pytest.raises(StreamNotFound):
                opened.stream("c").info()
        opened.close()


@pytest.mark.parametrize("what", ["create", "rename", "sync directory"])
def test_a_gathering_that_fails_is_made_good(what):
    twin, truth = TwinDirectory(), {"a": b"", "b": b""}
    with open_store(twin, CALM, Clock()) as store:
        for name in truth:
            store.create(name)
        failures = 0
        for turn in range(40):
            play(store, range(turn, turn), truth)
            for name in truth:
                store.stream(name).append(b"%d," % turn)
                truth[name] += b"%d," % turn
            store.engine.upkeep.cluster()
            left = [turn % 5]

            def fails(proceed, left=left):
                left[0] -= 1
                return no_space(proceed) if left[0] == 0 else proceed()

            twin.hooks[what] = fails
            try:
                while store.engine.upkeep._compactor.step():
                    pass
            except OSError:
                failures += 1
            twin.hooks.clear()
            check(store, truth)
            with open_store(copy_of(twin), CALM, Clock()) as killed:
                check(killed, truth)
        assert failures > 1
        settle(store)
        settle(store)
        assert max(ranges(store, name) for name in truth) <= 2 * FEW


def made(sizes: list[int], place=lambda at: clustered_place(at, 0)) -> bytearray:
    entries, end = new_index(), 0
    for at, size in enumerate(sizes):
        end += size
        add_place(entries, end, place(at))
    return entries


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1] * (FEW - 1), None),
        ([1] * FEW, None),
        ([1] * (FEW + 1), (0, FEW + 1)),
        ([2**20 + 1] * 50, None),
        ([2**20 + 1] + [1] * (FEW + 1), (2**20 + 1, 2**20 + FEW + 2)),
        ([1000] + [1] * 20, (1000, 1020)),
        ([40] + [1] * 20, (0, 60)),
        ([7] * 20 + [1], (0, 141)),
    ],
    ids=[
        "fewer",
        "few",
        "many",
        "long ones",
        "after a long one",
        "beside a larger one",
        "with one like them",
        "before a short one",
    ],
)
def test_as_many_ranges_become_one_as_are_worth_it(sizes, expected):
    assert frayed(made(sizes)) == expected


def test_what_lies_in_the_log_is_no_range_and_stays():
    entries = made([1] * 20)
    for end in range(21, 40):
        add_place(entries, end, lsn_of(1, end))
    assert frayed(entries) == (0, 20)
    found = list(places_of(gathered(entries, 0, 20, [(0, 20, clustered_place(9, 9))])))
    assert found == [(0, 20, clustered_place(9, 9)), *((end - 1, end, lsn_of(1, end)) for end in range(21, 40))]


def frayed_store(twin: TwinDirectory, *names: str) -> tuple[Store, dict[str, bytes]]:
    """One whose streams lie in too many ranges, and what they hold."""
    store, truth = open_store(twin, CALM, Clock()), dict.fromkeys(names, b"")
    for name in truth:
        store.create(name)
    for turn in range(FEW + 2):
        for name in truth:
            store.stream(name).append(b"%d;" % turn)
            truth[name] += b"%d;" % turn
        store.engine.upkeep.cluster()
    return store, truth


def test_a_stream_that_is_deleted_while_its_ranges_are_copied_stays_deleted(monkeypatch):
    twin = TwinDirectory()
    store, truth = frayed_store(twin, "a", "b")
    compactor = store.engine.upkeep._compactor
    copy = compactor._copy

    def amid(*arguments):
        if truth.pop("a", None):
            store.delete("a")
        return copy(*arguments)

    monkeypatch.setattr(compactor, "_copy", amid)
    while compactor.step():
        pass
    assert ranges(store, "b") < FEW
    check(store, truth)
    with open_store(copy_of(twin), CALM, Clock()) as killed:
        assert list(killed.names()) == ["b"]
        check(killed, truth)
    store.close()


def test_ranges_in_a_segment_that_is_damaged_are_not_copied():
    twin = TwinDirectory()
    store, truth = frayed_store(twin, "a")
    compactor = store.engine.upkeep._compactor
    before = ranges(store, "a")
    compactor._damaged.add(min(name for name in twin.names() if name.endswith(".seg")))
    while compactor.step():
        pass
    assert ranges(store, "a") == before
    check(store, truth)
    store.close()


def test_ranges_of_which_nothing_is_needed_any_more_are_copied_nowhere():
    twin = TwinDirectory()
    store, truth = frayed_store(twin, "a")
    store.stream("a").trim(len(truth["a"]))
    twin.calls.clear()
    while store.engine.upkeep._compactor.step():
        pass
    assert ranges(store, "a") == 1
    assert not any(name.endswith(".seg") for what, name in twin.calls if what == "create")
    check(store, truth)
    store.close()
