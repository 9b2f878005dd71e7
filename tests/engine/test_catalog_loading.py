"""Streams that come into memory, one by one and many at once, whatever happens to them and to the runs meanwhile."""

from __future__ import annotations

import os
import threading
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import SMALL, Barrier, Clock, Task, TwinDirectory, open_store

from durable_log.engine import catalog as catalog_module
from durable_log.engine import loading, residents
from durable_log.engine.ancestry import Fork
from durable_log.engine.catalog import Catalog
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.residents import Residents
from durable_log.engine.rows import encode_stream, encode_tombstone
from durable_log.engine.run_format import encode_row, hash_of
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption
from durable_log.model import StreamConfig

UUID = bytes(16)


def no_pause():
    pass


def stream(name, number=1, fork=None):
    return StreamState(number, name, StreamConfig("text/plain"), 0, fork)


def run_of(directory, number, states, tombstones=()):
    rows = [encode_stream(state, 1) for state in states]
    rows += [encode_row(name, 1, encode_tombstone(1), tombstone=True) for name in tombstones]
    return write_run(directory, number, UUID, rows, no_pause)


def catalog_of(*runs):
    catalog = Catalog(Clock(), tuple(runs))
    catalog.next_number = 10**6
    return catalog


def let_go(catalog, state):
    """What an eviction does."""
    with catalog.lock:
        del catalog._idle[state]
        catalog._resident.leave(state)
        catalog._pin(state, -1)


def one_by_one(catalog, names):
    return {name: catalog.get(name) for name in names}


def together(catalog, names):
    absent = catalog.load_many(names)
    for error in filter(None, absent.values()):
        raise error
    return {name: catalog.find_resident(name) for name in names}


LOADS = pytest.mark.parametrize("load", [one_by_one, together])


def amid_first_read(run, happen):
    """Have something happen when a look-up has begun with the runs as they are, and is about to read this one."""
    read, source = run.file.read, run.file.source

    def hooked(call, *arguments):
        run.file.read, run.file.source = read, source
        result = call(*arguments)
        happen()
        return call(*arguments) if call == read else result

    run.file.read = lambda position, length: hooked(read, position, length)
    run.file.source = lambda: hooked(source)


# --- what counts

NAMES = st.text("abä", min_size=1, max_size=3)


@settings(max_examples=150)
@given(
    st.lists(st.dictionaries(NAMES, st.booleans(), max_size=12), max_size=4),
    st.sets(NAMES, max_size=4),
    st.sets(NAMES, max_size=4),
    st.lists(NAMES, max_size=20),
)
def test_the_newest_word_on_each_name_is_loaded(pieces, resident, removed, wanted):
    directory, catalogs, expected = MemoryDirectory(), [], {}
    runs = []
    for at, piece in reversed(list(enumerate(pieces, 1))):
        alive = [stream(name, 100 * at + index) for index, name in enumerate(piece) if piece[name]]
        runs.insert(0, run_of(directory, at, alive, [name for name in piece if not piece[name]]))
        expected.update(dict.fromkeys(piece))
        expected.update({state.name: state.number for state in alive})
    for load in (one_by_one, together):
        catalog = catalog_of(*runs)
        for name in removed:
            catalog.add(stream(name))
            catalog.remove(catalog.get(name))
            expected[name] = None
        for name in resident:
            catalog.add(stream(name, 7))
            expected[name] = 7
        found = load(catalog, wanted)
        assert {name: state and state.number for name, state in found.items()} == {
            name: expected.get(name) for name in wanted
        }
        assert all(catalog.get(name) is state for name, state in found.items())
        catalog.check()
        catalogs.append(catalog)


def test_what_is_not_there_is_said_name_by_name():
    catalog = catalog_of(run_of(MemoryDirectory(), 1, [stream("a"), stream("b", 2)], ["dead"]))
    assert catalog.load_many(["a", "none", "dead", "a", "b"]) == {"none": None, "dead": None}
    assert catalog.load_many(["a"]) == {}
    assert catalog.load_many([]) == {}
    assert Catalog(Clock()).load_many(["a"]) == {"a": None}


def test_without_waiting_nothing_is_read_that_is_not_in_memory():
    run = run_of(MemoryDirectory(), 1, [stream("a"), stream("gone", 2)])
    catalog = catalog_of(run)
    catalog.remove(catalog.get("gone"))
    run.file.read = run.file.source = None
    for name in ("a", "none"):
        with pytest.raises(BlockingIOError):
            catalog.get(name, wait=False)
        with pytest.raises(BlockingIOError):
            catalog.live(name, wait=False)
    assert catalog.get("gone", wait=False) is None
    assert Catalog(Clock()).get("a", wait=False) is None


def test_a_damaged_page_keeps_only_those_away_that_may_be_on_it():
    directory = MemoryDirectory()
    names = [f"name {number}" for number in range(300)]
    run = run_of(directory, 1, [stream(name, number) for number, name in enumerate(names, 1)])
    assert run.pages > 4
    position = run.extent(2)[0]
    directory.files[run.file.name]._bytes[position + 100] ^= 1
    catalog = catalog_of(run)
    on_it = {name for name in names if run.extent(run._candidates(hash_of(name))[1])[0] == position}
    absent = catalog.load_many(names)
    assert absent.keys() == on_it
    assert {(type(error), error.position) for error in absent.values()} == {(Corruption, position)}
    assert all(catalog.find_resident(name) is not None for name in set(names) - on_it)
    for name in on_it:
        with pytest.raises(Corruption, match=f"position {position}"):
            catalog.get(name)


@LOADS
def test_no_file_is_read_with_the_lock_held(load):
    directory = MemoryDirectory()
    base = stream("base", 1)
    base.forks = 1
    forked = stream("fork", 2, Fork(base, 0, ()))
    runs = (run_of(directory, 2, [stream("new", 3)]), run_of(directory, 1, [base, forked]))
    catalog, free = catalog_of(*runs), []
    for run in runs:
        for what in ("read", "source"):
            call = getattr(run.file, what)

            def watched(*arguments, call=call):
                taken = Task(lambda: catalog.lock.acquire(timeout=5) and (catalog.lock.release() or True))
                free.append(taken.result())
                return call(*arguments)

            setattr(run.file, what, watched)
    found = load(catalog, ["new", "fork", "none"])
    assert (found["fork"].fork.source, found["none"]) == (catalog.get("base"), None)
    assert len(free) > 4
    assert all(free)


# --- what happens amid it


@LOADS
def test_runs_that_are_merged_and_closed_under_a_look_up_are_looked_for_anew(load, tmp_path):
    directory = DiskDirectory(tmp_path / "store")
    new, old = (
        run_of(directory, 2, [stream("b", 2)], ["dead"]),
        run_of(directory, 1, [stream("a", 1), stream("dead", 3)]),
    )
    merged = merge_runs(directory, 3, UUID, [new, old], drop_tombstones=True, pause=no_pause)
    catalog = catalog_of(new, old)

    def merge():
        catalog.replace_runs((new, old), merged)
        for run in (new, old):
            run.close()

    amid_first_read(old, merge)
    found = load(catalog, ["a", "b", "dead"])
    assert {name: state and state.number for name, state in found.items()} == {"a": 1, "b": 2, "dead": None}
    merged.close()


@LOADS
def test_a_closed_file_whose_number_another_has_taken_is_not_believed(load, tmp_path):
    directory = DiskDirectory(tmp_path / "store")
    old = run_of(directory, 1, [stream("a", 1)])
    merged = merge_runs(directory, 3, UUID, [old], drop_tombstones=True, pause=no_pause)
    catalog = catalog_of(old)

    number = old.file._fd

    def merge():
        catalog.replace_runs((old,), merged)
        old.close()
        os.dup2(merged.file._fd, number)
        old.file._fd = number

    amid_first_read(old, merge)
    assert load(catalog, ["a"])["a"].number == 1
    with pytest.raises(Corruption):
        old.find(hash_of("a"), "a")
    merged.close()
    old.close()


@LOADS
def test_an_error_that_nothing_explains_is_one(load, tmp_path):
    run = run_of(DiskDirectory(tmp_path / "store"), 1, [stream("a", 1)])
    catalog = catalog_of(run)
    run.close()
    with pytest.raises(OSError, match=r"Bad file descriptor|read failed"):
        load(catalog, ["a"])


@LOADS
def test_a_stream_that_somebody_else_has_loaded_meanwhile_is_that_one(load):
    run = run_of(MemoryDirectory(), 1, [stream("a", 1)])
    catalog, other = catalog_of(run), []
    amid_first_read(run, lambda: other.append(catalog.get("a")))
    assert load(catalog, ["a"])["a"] is other[0]
    catalog.check()


@LOADS
def test_a_stream_that_is_removed_meanwhile_does_not_come_back(load):
    run = run_of(MemoryDirectory(), 1, [stream("a", 1)])
    catalog = catalog_of(run)
    amid_first_read(run, lambda: catalog.remove(catalog.get("a")))
    assert load(catalog, ["a"]) == {"a": None}
    assert catalog.load_many(["a"]) == {"a": None}


@LOADS
def test_a_stream_that_is_removed_and_buried_meanwhile_does_not_come_back(load):
    """A checkpoint has written its tombstone, so memory knows nothing of it any more."""
    directory = MemoryDirectory()
    run, later = run_of(directory, 1, [stream("a", 1)]), run_of(directory, 2, [], ["a"])
    catalog = catalog_of(run)

    def bury():
        state = catalog.get("a")
        catalog.remove(state)
        catalog.replace_runs((), later)
        catalog.settle([], [state], catalog.begin_epoch())

    amid_first_read(run, bury)
    assert load(catalog, ["a"]) == {"a": None}


@LOADS
def test_a_name_that_lives_again_meanwhile_leads_to_its_new_life(load):
    run = run_of(MemoryDirectory(), 1, [stream("a", 1)])
    catalog, again = catalog_of(run), stream("a", 2)

    def live_again():
        catalog.remove(catalog.get("a"))
        catalog.add(again)

    amid_first_read(run, live_again)
    assert load(catalog, ["a"]) == {"a": again}


@LOADS
def test_a_stream_that_changed_and_went_to_disk_meanwhile_is_loaded_as_it_is_now(load):
    directory = MemoryDirectory()
    before, now = stream("a", 1), stream("a", 1)
    now.forks = 5
    run, later = run_of(directory, 1, [before]), run_of(directory, 2, [now])
    catalog = catalog_of(run)

    def change():
        state = catalog.get("a")
        catalog.change(state)
        epoch = catalog.begin_epoch()
        catalog.replace_runs((), later)
        catalog.settle([state], [], epoch)
        let_go(catalog, state)

    amid_first_read(run, change)
    assert load(catalog, ["a"])["a"].forks == 5


@LOADS
def test_a_stream_that_came_and_went_meanwhile_is_loaded(load):
    run = run_of(MemoryDirectory(), 1, [stream("a", 1)])
    catalog = catalog_of(run)
    amid_first_read(run, lambda: let_go(catalog, catalog.get("a")))
    assert load(catalog, ["a"])["a"] is catalog.get("a")
    catalog.check()


def test_only_what_is_left_is_looked_for_again(monkeypatch):
    """The runs are others after the first slice: what was let in until then stays."""
    monkeypatch.setattr(loading, "LET_IN_AT_ONCE", 10)
    directory = MemoryDirectory()
    names = [f"name {number}" for number in range(35)]
    run = run_of(directory, 1, [stream(name, number) for number, name in enumerate(names, 1)])
    newer = run_of(directory, 2, [stream(name, number) for number, name in enumerate(names, 101)])
    catalog = catalog_of(run)
    admit = catalog.admit

    def admitting(state, *rest):
        if len(catalog._resident) == 9:
            catalog.replace_runs((), newer)
        return admit(state, *rest)

    catalog.admit = admitting
    assert catalog.load_many(names) == {}
    assert sum(catalog.get(name).number > 100 for name in names) == 25


def test_threads_that_load_the_same_streams_get_the_same_states():
    names = [f"name {number}" for number in range(500)]
    states = [stream(name, number) for number, name in enumerate(names, 1)]
    for _ in range(10):
        catalog = catalog_of(run_of(MemoryDirectory(), 1, states))
        start, found = threading.Barrier(4), []

        def load(which, catalog=catalog, start=start, found=found):
            start.wait()
            load = together if which % 2 else one_by_one
            found.append(load(catalog, names[::-1] if which > 1 else names))

        for task in [Task(load, which) for which in range(4)]:
            task.result()
        assert all(each[name] is catalog.find_resident(name) for each in found for name in names)
        catalog.check()


def test_a_stream_that_can_be_found_is_idle_already():
    """Else a commit that finds it and changes it would do so before it is idle, and idle streams are let go."""
    catalog = catalog_of(run_of(MemoryDirectory(), 1, [stream("a", 1)]))

    class Watching(Residents):
        def __setitem__(self, name, state):
            assert state in catalog._idle
            super().__setitem__(name, state)

    catalog._resident = catalog._loader._resident = Watching()
    assert catalog.get("a").number == 1


def test_a_stream_that_an_interrupt_finds_in_memory_is_there_whole(monkeypatch):
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    catalog = catalog_of(run_of(MemoryDirectory(), 1, [stream("a", 1), stream("b", 2)]))
    with monkeypatch.context() as patch:
        patch.setattr(residents, "untrack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            catalog.get("a")
    state = catalog.find_resident("a")
    assert state in catalog._idle
    assert catalog.get("a") is state
    assert catalog.get("b").number == 2
    assert list(catalog.names("")) == ["a", "b"]
    catalog.check()


# --- forks


def forks_and_base(directory, count):
    base = stream("base", 1)
    base.forks = count
    forks = [stream(f"fork {number}", number, Fork(base, 0, ((base, 0),))) for number in range(2, count + 2)]
    return run_of(directory, 1, [base, *forks]), [fork.name for fork in forks]


@LOADS
def test_what_a_fork_descends_from_is_in_memory_once_and_stays_as_long_as_it_does(load):
    run, names = forks_and_base(MemoryDirectory(), 5)
    catalog = catalog_of(run)
    found = load(catalog, names)
    base = catalog.find_resident("base")
    assert all(state.fork == Fork(base, 0, ((base, 0),)) for state in found.values())
    assert base.pins == 10
    for state in found.values():
        let_go(catalog, state)
    assert base.pins == 0


@LOADS
def test_an_ancestor_that_is_let_go_before_its_fork_is_there_is_loaded_again(load):
    run, [name] = forks_and_base(MemoryDirectory(), 1)
    catalog, gone = catalog_of(run), []
    find_number = catalog.find_number

    def finding(number):
        state = find_number(number)
        if not gone:
            gone.append(state)
            let_go(catalog, state)
        return state

    catalog.find_number = finding
    fork = load(catalog, [name])[name]
    assert fork.fork.source is catalog.find_resident("base")
    assert fork.fork.source is not gone[0]
    assert (fork.fork.source.pins, gone[0].pins) == (2, 0)


@LOADS
def test_a_fork_that_goes_with_all_that_it_descends_from_does_not_come_back(load):
    run, [name] = forks_and_base(MemoryDirectory(), 1)
    catalog = catalog_of(run)
    find_number = catalog.find_number

    def finding(number):
        catalog.find_number = find_number
        for each in (catalog.get(name), catalog.get("base")):
            catalog.remove(each)
        return find_number(number)

    catalog.find_number = finding
    assert load(catalog, [name]) == {name: None}


@LOADS
def test_an_ancestor_of_which_no_row_is_left_is_lost(load):
    base = stream("base", 1)
    run = run_of(MemoryDirectory(), 1, [stream("fork", 2, Fork(base, 0, ()))])
    assert load(catalog_of(run), ["fork"])["fork"].fork.source.name == ""


# --- what the log has beyond the rows


class Beyond:
    """A log that has something of every stream; ``amid`` is called before it is asked, and may fail."""

    def __init__(self, amid=lambda: None):
        self.amid, self.notes = amid, []

    def streams(self):
        return array("Q")

    def apply(self, state, _lsn):
        self.amid()
        return lambda: self.notes.append(state)


@LOADS
def test_what_the_log_had_is_noted_of_the_state_that_counts(load):
    run = run_of(MemoryDirectory(), 1, [stream("a", 1)])
    catalog, beyond = catalog_of(run), Beyond()
    catalog.catch_up = beyond

    def again():
        beyond.amid = no_pause
        catalog.get("a")

    beyond.amid = again
    found = load(catalog, ["a"])["a"]
    assert beyond.notes == [found]
    assert found.epoch == catalog.epoch
    assert found not in catalog._idle


@LOADS
def test_a_log_segment_that_is_given_back_under_a_look_up_is_not_missed(load):
    """A checkpoint has loaded all that the log had something of, so nobody asks it any more."""
    run = run_of(MemoryDirectory(), 1, [stream("a", 1)])
    catalog, beyond = catalog_of(run), Beyond()
    catalog.catch_up = beyond

    def given_back():
        catalog.catch_up = None
        raise FileNotFoundError("given back")

    beyond.amid = given_back
    assert load(catalog, ["a"])["a"].number == 1


@LOADS
def test_a_log_that_cannot_be_read_is_said(load):
    catalog, beyond = catalog_of(run_of(MemoryDirectory(), 1, [stream("a", 1)])), Beyond()

    def fails():
        raise OSError(5, "it broke")

    catalog.catch_up, beyond.amid = beyond, fails
    with pytest.raises(OSError, match="it broke"):
        load(catalog, ["a"])


# --- of a store


def test_streams_are_whole_while_they_come_and_go_beside_clustering_and_compaction(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog_module, "IDLE_MAX", 5)
    names = [f"s{number:02}" for number in range(60)]
    with open_store(DiskDirectory(tmp_path / "store"), SMALL) as store:
        for name in names:
            store.create(name, data=name.encode())
        written, done = dict.fromkeys(names, 1), threading.Event()

        def upkeep():
            while not done.is_set():
                store.engine.upkeep.cluster()
                store.engine.upkeep.compact()
                store.engine.upkeep.sweep()

        def load():
            while not done.is_set():
                assert store.engine.load([*names, "none"]).keys() == {"none"}

        def write(first):
            for turn in range(150):
                name = names[(first + 7 * turn) % 30 + first]
                store.stream(name).append(name.encode())
                written[name] += 1

        tasks = [Task(upkeep), Task(load), Task(load)]
        for task in [Task(write, first) for first in (0, 30)]:
            task.result(60)
        done.set()
        for task in tasks:
            task.result(60)
        store.engine.check()
        for name, count in written.items():
            assert store.stream(name).read().data == count * name.encode()


def test_a_watcher_waits_for_the_disk_without_the_lock():
    """Others look up what they like meanwhile, and the stream that is watched is the one that changes."""
    twin, barrier = TwinDirectory(), Barrier()
    with open_store(twin, SMALL) as store:
        for name in "ab":
            store.create(name)
    with open_store(twin, SMALL) as store:
        number = store.stream("b").info().number
        twin.hooks["read"] = barrier
        waiting = Task(store.stream("a").wait, 0, 5.0)
        barrier.wait()
        assert store.stream("b").info().number == number
        twin.hooks.clear()
        barrier.let_go()
        store.stream("a").append(b"x")
        assert waiting.result() is True


def test_a_number_is_looked_for_anew_when_the_runs_are_merged_under_the_look_up(tmp_path):
    directory = DiskDirectory(tmp_path / "store")
    new, old = run_of(directory, 2, [stream("b", 2)]), run_of(directory, 1, [stream("a", 1)])
    merged = merge_runs(directory, 3, UUID, [new, old], drop_tombstones=True, pause=no_pause)
    catalog = catalog_of(new, old)

    def merge():
        catalog.replace_runs((new, old), merged)
        for run in (new, old):
            run.close()

    amid_first_read(old, merge)
    assert catalog.find_number(1).name == "a"
    merged.close()


def test_names_that_wait_for_a_repair_are_told_beside_those_that_are_loaded():
    catalog = catalog_of(run_of(MemoryDirectory(), 1, [stream("a", 1)]))
    catalog.unreadable["b"] = Corruption("00000001.run", 4096, "the page fails its checksum")
    absent = catalog.load_many(["a", "b", "c"])
    assert absent.keys() == {"b", "c"}
    assert isinstance(absent["b"], Corruption)
    assert absent["c"] is None
    assert catalog.find_resident("a").number == 1
