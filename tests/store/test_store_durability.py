"""What is visible when: durable bytes only, and ``written`` ones soon; and what a kill leaves of them."""

from __future__ import annotations

import pytest
from twins import Barrier, Task, TwinDirectory, copy_of, only_asked_for, open_store, sync_error, until

from durable_log.engine.files import MemoryDirectory
from durable_log.errors import CommitFailed, StreamNotFound
from durable_log.model import Options, Producer


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    only_asked_for(monkeypatch)


def test_written_data_is_acknowledged_and_not_visible_until_it_is_synced(unhurried):
    with open_store(MemoryDirectory()) as store:
        stream = store.create("a")
        assert stream.append(b"written", durability="written") == (0, 7, False, False, None)
        assert stream.read().data == b""
        assert stream.info().tail == 0
        assert not stream.wait(0, 0.01)
        stream.append(b" and synced")
        assert stream.read().data == b"written and synced"


def test_written_data_becomes_visible_by_itself(opened):
    stream = opened().create("a")
    stream.append(b"x", durability="written")
    assert stream.wait(0, 10)
    assert stream.read().data == b"x"


def test_written_is_what_a_store_can_be_opened_for(unhurried):
    with open_store(MemoryDirectory(), Options(durability="written")) as store:
        stream = store.create("a")
        stream.append(b"x")
        assert stream.info().tail == 0
        stream.append(b"y", durability="sync")
        assert stream.info().tail == 2


def test_written_data_survives_a_kill(unhurried):
    directory = MemoryDirectory()
    store = open_store(directory)
    stream = store.create("a")
    stream.append(b"written", durability="written", producer=Producer("p", 0, 0))
    with open_store(copy_of(directory)) as reopened:
        assert reopened.stream("a").read().data == b"written"
        assert reopened.stream("a").append(b"written", producer=Producer("p", 0, 0)).duplicate is True
    store.close()


def test_written_data_of_one_stream_becomes_visible_with_the_sync_of_another(unhurried):
    with open_store(MemoryDirectory()) as store:
        stream, other = store.create("a"), store.create("b")
        stream.append(b"x", durability="written")
        other.append(b"y")
        assert stream.read().data == b"x"


def test_a_duplicate_is_acknowledged_only_when_the_original_is_durable(unhurried):
    twin = TwinDirectory()
    with open_store(twin) as store:
        stream = store.create("a")
        stream.append(b"x", durability="written", producer=Producer("p", 0, 0))
        twin.calls.clear()
        assert stream.append(b"x", producer=Producer("p", 0, 0)).duplicate is True
        assert ("sync", "00000001.log") in twin.calls
        assert stream.read().data == b"x"


def test_a_duplicate_that_is_content_with_written_waits_for_its_original_all_the_same(unhurried):
    twin = TwinDirectory()
    with open_store(twin) as store:
        stream = store.create("a")
        stream.append(b"x", durability="written", producer=Producer("p", 0, 0))
        twin.calls.clear()
        assert stream.append(b"x", durability="written", producer=Producer("p", 0, 0)).duplicate is True
        assert ("sync", "00000001.log") in twin.calls
        assert stream.read().data == b"x"
        twin.calls.clear()
        assert stream.append(b"x", durability="written", producer=Producer("p", 0, 0)).duplicate is True
        assert twin.calls == []


def test_closing_is_durable_before_it_is_acknowledged(unhurried):
    with open_store(MemoryDirectory(), Options(durability="written")) as store:
        stream = store.create("a")
        stream.append(b"x")
        stream.close()
        assert stream.read() == (b"x", 0, 1, True, True, "application/octet-stream")
        other = store.create("b")
        other.append(b"y", close=True, durability="written")
        assert other.read().closed


def test_nothing_is_visible_before_its_sync_has_returned():
    twin = TwinDirectory()
    with open_store(twin) as store:
        stream = store.create("a", data=b"0")
        barrier = twin.hooks["commit"] = Barrier()
        append = Task(stream.append, b"1")
        closing = Task(stream.close)
        barrier.wait()
        assert stream.read() == (b"0", 0, 1, True, False, "application/octet-stream")
        assert not stream.wait(1, 0)
        assert not append.done
        barrier.let_go()
        assert append.result().next_offset in (1, 2) or append.error()
        closing.error()


def test_a_stream_that_is_being_deleted_is_there_until_the_deletion_is_durable():
    twin = TwinDirectory()
    with open_store(twin) as store:
        stream = store.create("a", data=b"0")
        barrier = twin.hooks["commit"] = Barrier()
        deletion = Task(stream.delete)
        barrier.wait()
        assert stream.read().data == b"0"
        assert list(store.names()) == ["a"]
        barrier.let_go()
        deletion.result()
        assert list(store.names()) == []


def test_a_stream_that_is_being_created_is_not_there_until_it_is_durable():
    twin = TwinDirectory()
    with open_store(twin) as store:
        store.create("first")
        barrier = twin.hooks["commit"] = Barrier()
        creation = Task(store.create, "a", data=b"0")
        barrier.wait()
        assert list(store.names()) == ["first"]
        barrier.let_go()
        creation.result()
        assert list(store.names()) == ["a", "first"]


def test_an_idle_log_is_marked_once_and_then_left_alone():
    twin = TwinDirectory()
    with open_store(twin) as store:
        store.create("a", data=b"x")
        writer = store.engine._committer._writer
        until(lambda: not writer.unmarked and store.engine._committer._due is None, "idleness")
        calls = len(twin.calls)
        with pytest.raises(StreamNotFound):
            store.stream("b").append(b"refused")
        until(lambda: store.engine._committer._due is None, "idleness")
        assert twin.calls[calls:] == []
        assert twin.calls.count(("mark", "00000001.log")) == 1


def test_what_was_written_over_several_segments_is_all_visible_in_the_end(opened):
    store = opened(segment_bytes=64 * 1024, record_bytes_max=32 * 1024, durability="written")
    stream, content = store.create("a"), b""
    for turn in range(100):
        stream.append(b"%02d" % turn * 1000)
        content += b"%02d" % turn * 1000
    until(lambda: stream.info().tail == len(content), "visibility")
    assert stream.read().data == content


def test_closing_says_so_if_what_was_only_written_could_not_be_synced(unhurried):
    twin = TwinDirectory()
    store = open_store(twin)
    store.create("a").append(b"x", durability="written")
    twin.hooks["sync"] = sync_error
    with pytest.raises(CommitFailed):
        store.close()
    store.close()
    with open_store(copy_of(twin)) as reopened:
        assert reopened.stream("a").read().data == b"x"


def test_closing_is_silent_if_those_whose_sync_failed_were_told(unhurried):
    twin = TwinDirectory()
    store = open_store(twin)
    twin.hooks["commit"] = sync_error
    with pytest.raises(CommitFailed):
        store.create("a")
    store.close()
