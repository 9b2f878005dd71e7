"""What can't be clustered holds up nothing else, and a failed attempt of whatever kind leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from twins import SMALL, Clock, TwinDirectory, copy_of, no_space, open_store

from durable_log.engine import checkpoint, compaction, snapshot
from durable_log.engine.manifest import load_manifest
from durable_log.errors import Corruption
from durable_log.store import Store

CALM = replace(SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False)


class Unwritable(TwinDirectory):
    """A store with a stream of which no row can be made, as long as it is so."""

    def __init__(self, monkeypatch, name: str = "odd") -> None:
        super().__init__()
        self.is_odd = True
        encode = snapshot.encode_stream

        def odd(state, lsn):
            if self.is_odd and state.name == name:
                raise ValueError("a row of too many bytes")
            return encode(state, lsn)

        monkeypatch.setattr(snapshot, "encode_stream", odd)


def clustered_files(twin: TwinDirectory) -> list[str]:
    return [name for name in twin.names() if name.endswith(".seg")]


def logs(twin: TwinDirectory) -> list[str]:
    return [name for name in twin.names() if name.endswith(".log")]


def read_all(store: Store) -> dict[str, bytes]:
    return {name: store.stream(name).read().data for name in store.names()}


def test_a_stream_that_has_no_row_holds_up_no_other(monkeypatch):
    twin = Unwritable(monkeypatch)
    with open_store(twin, CALM, Clock()) as store:
        truth = {"odd": b"", "one": b"", "two": b""}
        for name in truth:
            store.create(name)
        for turn in range(4):
            for name in truth:
                data = f"{name} {turn};".encode()
                store.stream(name).append(data)
                truth[name] += data
            if turn == 2:
                store.create("late", data=b"late")
                truth["late"] = b"late"
            store.engine.upkeep.cluster()
            assert store.stats()["held_streams"] == 1
            assert store.stats()["clustering_debt_bytes"] == 0
            assert store.stats()["clustered_live_bytes"] == sum(map(len, truth.values())) - len(truth["odd"])
            assert read_all(store) == truth
            check_killed(twin, truth, monkeypatch)
        assert len(logs(twin)) == 5
        twin.is_odd = False
        store.stream("one").append(b"!")
        truth["one"] += b"!"
        store.engine.upkeep.cluster()
        assert store.stats()["held_streams"] == 0
        assert len(logs(twin)) == 1
        assert read_all(store) == truth
        assert store.stats()["clustered_live_bytes"] == sum(map(len, truth.values()))
        check_killed(twin, truth, monkeypatch)


def check_killed(twin: TwinDirectory, truth: dict[str, bytes], monkeypatch) -> None:
    with open_store(copy_of(twin), CALM, Clock()) as store:
        assert store.report.damage == store.report.lost == []
        assert read_all(store) == truth
        store.engine.check()
        store.engine.upkeep.cluster()
        assert read_all(store) == truth


def test_a_stream_without_a_row_that_is_deleted_lets_the_log_go(monkeypatch):
    twin = Unwritable(monkeypatch)
    with open_store(twin, CALM, Clock()) as store:
        store.create("odd", data=b"odd")
        store.create("one", data=b"one")
        store.engine.upkeep.cluster()
        store.delete("odd")
        store.engine.upkeep.cluster()
        assert (store.stats()["held_streams"], len(logs(twin))) == (0, 1)
        check_killed(twin, {"one": b"one"}, monkeypatch)


def test_a_store_with_a_stream_without_a_row_is_closed_and_keeps_it(monkeypatch):
    twin = Unwritable(monkeypatch)
    with open_store(twin, CALM, Clock()) as store:
        store.create("odd", data=b"odd")
        store.create("one", data=b"one")
    twin.is_odd = False
    with open_store(twin.inner, CALM, Clock()) as store:
        assert read_all(store) == {"odd": b"odd", "one": b"one"}


def test_a_stream_whose_row_is_damaged_holds_up_no_other(monkeypatch):
    """After a crash the log had more of it, and every checkpoint failed."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for name in ("hit", "one"):
            store.create(name, data=bytes(3000))
            store.engine.upkeep.cluster()
        store.stream("hit").append(b"more")
        store.stream("one").append(b"more")
        killed = copy_of(twin)
    damage_first_run(killed)
    with open_store(killed, CALM, Clock()) as store:
        for turn in range(3):
            store.stream("one").append(b"x")
            store.create(f"new {turn}", data=b"new")
            store.engine.upkeep.cluster()
            assert (store.stats()["held_streams"], store.stats()["clustering_debt_bytes"]) == (1, 0)
            assert len([name for name in killed.names() if name.endswith(".seg")]) == 3 + turn
        again = copy_of(killed)
        with pytest.raises(Corruption):
            store.stream("hit").info()
    with open_store(again, CALM, Clock()) as store:
        assert store.stream("one").read().data == bytes(3000) + b"morexxx"
        assert store.stream("new 2").read().data == b"new"


def damage_first_run(directory) -> None:
    """The row of the stream that was clustered first."""
    oldest = directory.files[f"{load_manifest(directory, 0).runs[-1]:08x}.run"]
    oldest.write(4096 + 100, bytes([oldest.read(4096 + 100, 1)[0] ^ 1]))


class Broken(Exception):
    """Something that nobody expects."""


def break_off(at: int, error: BaseException) -> Callable[[], None]:
    """A pause of a checkpoint that does not come back, once."""
    left = [at]

    def pause() -> None:
        left[0] -= 1
        if left[0] == -1:
            raise error

    return pause


@pytest.mark.parametrize(
    "error", [Broken(), KeyboardInterrupt(), MemoryError()], ids=lambda error: type(error).__name__
)
def test_a_checkpoint_that_is_broken_off_anywhere_leaves_nothing_and_is_not_begun_anew(error, monkeypatch):
    """Else each attempt left a clustered segment behind."""
    monkeypatch.setattr(snapshot, "SLICE_STATES", 2)
    at, broken = 0, True
    while broken:
        twin = TwinDirectory()
        with open_store(twin, CALM, Clock()) as store:
            truth = {f"s{each}": bytes(100 + each) for each in range(8)}
            for name, data in truth.items():
                store.create(name, data=data, ttl=1000 if name > "s3" else None)
            broken = False
            for _ in range(3):
                monkeypatch.setattr(checkpoint, "pause", break_off(at, error))
                try:
                    store.engine.upkeep.cluster()
                except type(error):
                    broken = True
                assert len(clustered_files(twin)) <= 2
                assert not [name for name in twin.names() if name.endswith(".tmp")]
            monkeypatch.setattr(checkpoint, "pause", lambda: None)
            store.stream("s0").append(b"x")
            truth["s0"] += b"x"
            store.engine.upkeep.cluster()
            assert read_all(store) == truth
            named = {f"{each.number:08x}.seg" for each in load_manifest(twin, 0).clustered}
            assert set(clustered_files(twin)) == named
            check_killed(twin, truth, monkeypatch)
        at += 1
    assert at > 6


def test_log_segments_that_cannot_be_made_spares_are_removed_and_those_behind_them_go_too(monkeypatch):
    """One that failed left the others open, and on the disk, until the store was opened again."""
    twin = TwinDirectory()
    twin.grows_in_place = True
    with open_store(twin, replace(CALM, preallocate=True, cluster_at_close=False), Clock()) as store:
        for turn in range(4):
            store.create(f"s{turn}", data=bytes(100))
            store.engine._committer.roll()
        old = logs(twin)
        twin.hooks["rename"] = lambda proceed: no_space(proceed) if twin.calls[-1][1].endswith(".log") else proceed()
        assert store.engine.upkeep.checkpointer.run()
        twin.hooks.clear()
        assert not set(old[:4]) & set(twin.names())
        closed = [name for what, name in twin.calls if what == "close" and name.endswith(".log")]
        assert set(old[:4]) <= set(closed)


def test_a_log_segment_that_cannot_be_removed_is_removed_later(caplog):
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for turn in range(3):
            store.create(f"s{turn}", data=bytes(100))
            store.engine._committer.roll()
        old = logs(twin)[:3]
        twin.hooks["remove"] = lambda proceed: no_space(proceed) if twin.calls[-1][1] in old[:2] else proceed()
        assert store.engine.upkeep.checkpointer.run()
        assert "a file that nobody needs stays for now" in caplog.text
        assert set(old) & set(twin.names()) == set(old[:2])
        twin.hooks.clear()
        store.create("later", data=b"x")
        store.engine.upkeep.cluster()
        assert not set(old) & set(twin.names())


def test_a_merge_of_runs_that_cannot_be_named_again_and_again_takes_no_more_room(monkeypatch):
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        for turn in range(5):
            store.create(f"s{turn}", data=b"x")
            store.engine.upkeep.checkpointer.run()
            store.engine._committer.roll()
            store.engine.upkeep.checkpointer.run()
        compactor = store.engine.upkeep._compactor
        for what in ("create", "rename", "sync directory"):
            twin.hooks[what] = lambda proceed: (
                no_space(proceed) if ("create", "MANIFEST.tmp") in twin.calls[-6:] and is_manifest(twin) else proceed()
            )
            for _ in range(4):
                with pytest.raises(OSError, match="space"):
                    compactor.step()
                assert sum(name.endswith(".run") for name in twin.names()) <= 6
            twin.hooks.clear()
        while compactor.step():
            pass
        runs = {f"{number:08x}.run" for number in load_manifest(twin, 0).runs}
        assert {name for name in twin.names() if name.endswith(".run")} == runs
        assert read_all(store) == {f"s{turn}": b"x" for turn in range(5)}


def is_manifest(twin: TwinDirectory) -> bool:
    """Whether the call at hand is about the manifest."""
    what, name = twin.calls[-1]
    return name == "MANIFEST.tmp" or (what == "sync directory" and twin.calls[-2] == ("rename", "MANIFEST.tmp"))


def test_a_segment_that_a_stream_without_a_row_has_left_stays_and_is_not_tried_again(monkeypatch):
    """The row that counts names it, and no newer one can be written."""
    twin = TwinDirectory()
    with open_store(twin, CALM, Clock()) as store:
        truth = {"odd": b"odd" * 100, "one": b"one" * 100}
        for name, data in truth.items():
            store.create(name, data=data)
        store.create("dead", data=bytes(5000))
        store.engine.upkeep.cluster()
        [segment] = clustered_files(twin)
        store.delete("dead")
        store.engine.upkeep.cluster()
        row = compaction.row_or_none
        with monkeypatch.context() as patched:
            patched.setattr(
                compaction, "row_or_none", lambda state, lsn: None if state.name == "odd" else row(state, lsn)
            )
            steps = 0
            while store.engine.upkeep._compactor.step():
                steps += 1
        assert steps == 1
        assert segment in clustered_files(twin)
        assert read_all(store) == truth
        check_killed(twin, truth, monkeypatch)


def test_what_fails_again_for_the_same_damage_is_raised(monkeypatch):
    """Once it is passed over, and then nobody goes round in circles."""
    with open_store(TwinDirectory(), CALM, Clock()) as store:
        compactor = store.engine.upkeep._compactor

        def damaged() -> bool:
            raise Corruption("00000007.run", 4096, "the page fails its checksum")

        monkeypatch.setattr(compactor, "_merge_runs", damaged)
        assert compactor.step()
        with pytest.raises(Corruption, match=r"00000007\.run: position 4096"):
            compactor.step()
