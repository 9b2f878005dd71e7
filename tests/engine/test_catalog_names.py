"""Listing the catalog: runs and memory say together which names there are, at one moment, whatever happens amid it."""

from __future__ import annotations

import errno
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twins import SMALL, Clock, Task, TwinDirectory, copy_of, open_store

from durable_log.engine import catalog as catalog_module
from durable_log.engine.catalog import Catalog
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.rows import deadline_ms, decode_state, encode_stream
from durable_log.engine.run_format import NEVER, decode_row, encode_row
from durable_log.engine.run_writer import merge_runs, write_run
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption, StoreClosed, StoreUnreadable
from durable_log.model import StreamConfig

UUID = bytes(16)
NOW = 1000.0
NOW_MS = 1_000_000


def no_pause():
    pass


def stream(name, number=1, expires_at=None, *, gone=False):
    state = StreamState(number, name, StreamConfig("text/plain", None, expires_at), 0)
    state.deleted = state.gone = gone
    return state


def run_of(directory, number, rows):
    """A run of (name, tombstone, hidden, deadline)."""
    encoded = [
        encode_row(name, 1, b"", tombstone=dead, hidden=hidden, deadline=deadline)
        for name, dead, hidden, deadline in rows
    ]
    return write_run(directory, number, UUID, encoded, no_pause)


def names_run(directory, number, names):
    return run_of(directory, number, [(name, False, False, NEVER) for name in names])


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(catalog_module, "NAMES_PAGE", 3)


# --- what counts

NAMES = st.text("abä", min_size=1, max_size=3)
DEADLINES = st.sampled_from([0, NOW_MS, NOW_MS + 1, NEVER])
RUN = st.lists(st.tuples(NAMES, st.booleans(), st.booleans(), DEADLINES), max_size=12)
RESIDENT = st.dictionaries(NAMES, st.tuples(st.booleans(), st.sampled_from([None, NOW, NOW + 1])), max_size=8)


@settings(max_examples=200)
@given(st.lists(RUN, max_size=4), RESIDENT, st.sets(NAMES, max_size=6), st.text("abä", max_size=2), st.integers(1, 5))
def test_a_listing_is_what_the_newest_word_on_each_name_says(rows, resident, removed, prefix, page):
    directory = MemoryDirectory()
    runs = tuple(run_of(directory, number, each) for number, each in enumerate(rows, 1))
    catalog = Catalog(Clock(NOW), runs)
    expected = {}
    for each in reversed(rows):
        expected.update({name: not dead and not hidden and end > NOW_MS for name, dead, hidden, end in each})
    for name in removed:
        catalog.add(stream(name))
        catalog.remove(catalog.get(name))
        expected[name] = False
    for name, (gone, expires_at) in resident.items():
        catalog.add(stream(name, 1, expires_at, gone=gone))
        expected[name] = not gone and (expires_at is None or expires_at > NOW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog_module, "NAMES_PAGE", page)
        found = list(catalog.names(prefix))
    assert found == sorted(name for name, there in expected.items() if there and name.startswith(prefix))


@pytest.mark.parametrize(
    ("deadline", "expected"),
    [
        (None, NEVER),
        (0.0, 0),
        (-5.0, 0),
        (1.0, 1000),
        (1.0009, 1000),
        (1_900_000_000.9999, 1_900_000_000_999),
        (1e300, NEVER - 1),
    ],
)
def test_the_deadline_of_a_row_is_never_later_than_the_stream_s(deadline, expected):
    assert deadline_ms(stream("a", 1, deadline)) == expected


def test_the_row_of_a_stream_says_what_it_is_without_its_payload():
    state = stream("name", 77, NOW, gone=True)
    row = decode_row(encode_stream(state, 1234), 0)
    assert (row.name, row.number, row.tombstone, row.hidden, row.deadline) == ("name", 77, False, True, NOW_MS)
    loaded = decode_state(row.name, row.number, row.payload, lambda _: state)
    assert (loaded.lsn, loaded.state.gone, deadline_ms(loaded.state)) == (1234, True, NOW_MS)


# --- what happens amid it


def amid_first_read(run, happen):
    """Have something happen before the next read of a run, once."""
    read = run.file.read

    def hooked(position, length):
        run.file.read = read
        happen()
        return read(position, length)

    run.file.read = hooked


def test_the_disk_is_read_without_the_lock(small_pages):
    directory = MemoryDirectory()
    runs = (names_run(directory, 1, "bcdefg"), names_run(directory, 2, "aceg"))
    catalog = Catalog(Clock(NOW), runs)
    catalog.add(stream("cc"))
    reads = []
    for run in runs:
        read = run.file.read

        def free(position, length, read=read):
            taken = Task(lambda: catalog.lock.acquire(timeout=5) and (catalog.lock.release() or True))
            reads.append(taken.result())
            return read(position, length)

        run.file.read = free
    assert list(catalog.names("")) == ["a", "b", "c", "cc", "d", "e", "f", "g"]
    assert len(reads) > 4
    assert all(reads)


def test_a_run_that_is_merged_and_closed_amid_a_page_is_not_missed(small_pages, tmp_path):
    directory = DiskDirectory(tmp_path / "store")
    new, old = names_run(directory, 2, "bdf"), names_run(directory, 1, "acegh")
    catalog = Catalog(Clock(NOW), (new, old))
    merged = merge_runs(directory, 3, UUID, [new, old], drop_tombstones=True, pause=no_pause)

    def merge():
        catalog.replace_runs((new, old), merged)
        for run in (new, old):
            run.close()

    amid_first_read(old, merge)
    assert list(catalog.names("")) == list("abcdefgh")
    assert list(catalog.names("d")) == ["d"]
    merged.close()


def test_a_closed_file_whose_number_another_has_taken_is_not_believed(small_pages, tmp_path):
    """The bytes of another file under the same descriptor look like damage, but are not what the catalog says."""
    directory = DiskDirectory(tmp_path / "store")
    old = names_run(directory, 1, "abcdefgh")
    merged = merge_runs(directory, 3, UUID, [old], drop_tombstones=True, pause=no_pause)
    catalog = Catalog(Clock(NOW), (old,))

    def merge():
        catalog.replace_runs((old,), merged)
        old.close()
        old.file._fd = merged.file._fd

    amid_first_read(old, merge)
    assert list(catalog.names("")) == list("abcdefgh")
    merged.close()


def test_a_stream_that_goes_to_disk_amid_a_page_is_not_missed(small_pages):
    """A checkpoint writes its row, and it leaves memory before the page is put together."""
    directory = MemoryDirectory()
    old, new = names_run(directory, 1, "ac"), names_run(directory, 2, "b")
    catalog = Catalog(Clock(NOW), (old,))
    state = stream("b")
    catalog.add(state)

    def checkpoint():
        epoch = catalog.begin_epoch()
        catalog.replace_runs((), new)
        catalog.settle([state], [], epoch)
        catalog._resident.leave(state)
        catalog._pin(state, -1)

    amid_first_read(old, checkpoint)
    assert list(catalog.names("")) == ["a", "b", "c"]


def test_a_tombstone_that_is_written_amid_a_page_brings_nothing_back(small_pages):
    """The name is forgotten in memory as soon as a run says that it is deleted."""
    directory = MemoryDirectory()
    old, new = names_run(directory, 1, "ab"), run_of(directory, 2, [("b", True, False, NEVER)])
    catalog = Catalog(Clock(NOW), (old,))
    state = stream("b")
    catalog.add(state)
    catalog.remove(state)

    def checkpoint():
        catalog.replace_runs((), new)
        catalog.settle([], [state], catalog.begin_epoch())

    amid_first_read(old, checkpoint)
    assert list(catalog.names("")) == ["a"]


def test_damage_is_said_and_not_read_again_and_again():
    directory = MemoryDirectory()
    run = names_run(directory, 1, "ab")
    directory.files[run.file.name]._bytes[run.trailer.names_position + 40] ^= 1
    with pytest.raises(Corruption, match=f"position {run.trailer.names_position}"):
        list(Catalog(Clock(NOW), (run,)).names(""))


# --- of a store


def test_names_are_whole_while_the_store_is_clustered_and_compacted(tmp_path, small_pages):
    stable = [f"s{number:02}" for number in range(0, 40, 2)]
    with open_store(DiskDirectory(tmp_path / "store"), SMALL) as store:
        for name in stable:
            store.create(name)
        done = threading.Event()

        def work():
            for turn in range(12):
                for number in range(1, 40, 6):
                    store.create(f"s{number:02}")
                store.engine.upkeep.cluster()
                for number in range(1, 40, 6):
                    store.delete(f"s{number:02}")
                if turn % 3 == 2:
                    store.engine.upkeep.compact()
            done.set()

        worker = Task(work)
        turns = 0
        while not done.is_set() or turns < 3:
            found = list(store.names("s"))
            assert found == sorted(set(found))
            assert set(stable) <= set(found)
            turns += 1
        worker.result()
        assert list(store.names()) == stable


def test_what_a_crash_is_forgiven_is_listed():
    """Uses of a stream that nobody wrote down are given back when it is loaded; a listing says the same."""
    clock = Clock()
    directory = MemoryDirectory()
    with open_store(directory, SMALL, clock) as store:
        store.create("short", ttl=5)
        store.create("shorter", ttl=1, data=b"x")
        store.engine.upkeep.cluster()
        store.create("zero")
        killed = copy_of(directory)
    clock.now += 3
    with open_store(killed, SMALL, clock) as store:
        assert list(store.names()) == ["short", "shorter", "zero"]
        assert store.stream("shorter").info().tail == 1
        clock.now += 2
        assert list(store.names()) == ["short", "zero"]


def test_a_listing_ends_with_the_store_that_it_is_of(tmp_path, small_pages):
    store = open_store(DiskDirectory(tmp_path / "store"), SMALL)
    for name in "abcdefgh":
        store.create(name)
    store.engine.upkeep.cluster()
    listing = store.names()
    assert next(listing) == "a"
    store.close()
    with pytest.raises(StoreClosed):
        list(listing)


def test_a_disk_that_fails_amid_a_listing_is_said_in_our_words():
    directory = TwinDirectory()
    with open_store(directory, SMALL) as store:
        store.create("a")
        store.engine.upkeep.cluster()

        def fails(_proceed):
            raise OSError(errno.EIO, "it broke")

        directory.hooks["read"] = fails
        with pytest.raises(StoreUnreadable, match="it broke"):
            list(store.names())
        directory.hooks.clear()
