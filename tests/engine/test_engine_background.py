"""The keeper, its spare segments and its expiry queue by a fake clock; the reader; the replay of records."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from typing import Any

import oracle
import pytest
from twins import SMALL, Clock, TwinDirectory, no_space, open_store, until

from durable_log.engine.backlog import Backlog
from durable_log.engine.catalog import Catalog
from durable_log.engine.expiry import ExpiryQueue
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.format import Ancestor, Creation, encode_create, encode_producer, encode_touch, lsn_of
from durable_log.engine.index import LOST, add_place, runs_of
from durable_log.engine.keeper import REST_SECONDS, SPARES, Background, Spares
from durable_log.engine.reader import Reader, read_from_memory
from durable_log.engine.replay import CatchUp, Replay
from durable_log.engine.segment import LogSegment, survey
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption, OffsetOutOfRange
from durable_log.model import NOW, StreamConfig

UUID = bytes(16)


class InPlace(MemoryDirectory):
    grows_in_place = True


# --- spares


def spares(directory: Any, ready: list[LogSegment] | None = None, last: int = 0) -> Spares:
    return Spares(directory, UUID, replace(SMALL, segment_bytes=256 * 1024), ready or [], last)


def test_spares_are_made_only_once_somebody_wanted_them():
    directory = InPlace()
    made = spares(directory)
    made.refill()
    assert directory.names() == []
    made.want()
    made.refill()
    made.refill()
    assert directory.names() == [f"{number:08x}.log" for number in range(1, SPARES + 1)]
    assert [made.take(1, 0).number, made.take(2, 0).number, made.take(3, 0).number] == [1, 2, 3]


def test_numbers_only_grow_whatever_was_ready():
    directory = InPlace()
    ready = [LogSegment.create(directory, number, 256 * 1024, UUID, 0) for number in (3, 4, 5)]
    made = spares(directory, ready, 9)
    assert made.take(4, 0).number == 4
    assert made.take(5, 10**6).number == 10
    assert made.take(20, 0).number == 20
    assert directory.names() == ["00000004.log", "0000000a.log", "00000014.log"]


def test_a_spare_with_room_for_what_the_writer_asks_is_not_thrown_away():
    """Segments of every allowed size are of use as spares for ordinary appends."""
    directory = TwinDirectory(InPlace())
    with open_store(directory, replace(SMALL, sweep_seconds=3600.0, cluster_at_close=False)) as store:
        stream = store.create("a")
        for _ in range(100):
            stream.append(b"x" * 3000)
    assert [name for what, name in directory.calls if what == "remove"] == []


def test_directories_that_never_write_in_place_get_no_spares():
    directory = MemoryDirectory()
    made = spares(directory)
    made.want()
    made.refill()
    assert directory.names() == []


def test_more_spares_than_are_kept_are_given_back_when_nobody_has_wanted_any_for_long():
    directory = InPlace()
    ready = [LogSegment.create(directory, number, 256 * 1024, UUID, 0) for number in range(1, SPARES + 3)]
    made = spares(directory, ready, SPARES + 2)
    made.refill()
    assert len(directory.names()) == SPARES + 2
    made._taken_at -= REST_SECONDS + 1
    made.refill()
    assert directory.names() == [f"{number:08x}.log" for number in range(1, SPARES + 1)]


def test_a_spare_that_nobody_wants_any_more_is_not_made():
    """A compaction has given them all back between the look and the making."""
    directory = InPlace()
    made = spares(directory)
    made.want()
    made.remove()
    assert not made._make_spare()
    assert directory.names() == []


def test_work_that_fails_again_and_again_is_said_once(caplog):
    """Until it has gone well in between."""
    outcomes = iter([OSError("one"), OSError("two"), None, OSError("three")])

    def work() -> None:
        error = next(outcomes)
        if error is not None:
            raise error

    background = Background("worker", 3600.0, work)
    for _ in range(4):
        background._attempt(work)
    assert [record.args[0].args[0] for record in caplog.records] == ["one", "three"]


def test_work_that_goes_well_beside_some_that_fails_does_not_have_that_said_again(caplog):
    def fail() -> None:
        raise OSError("one")

    def succeed() -> None: ...

    background = Background("worker", 3600.0, fail, succeed)
    for _ in range(4):
        background._attempt(fail)
        background._attempt(succeed)
    assert [record.args[0].args[0] for record in caplog.records] == ["one"]


def test_a_full_disk_stops_the_making_of_spares_until_they_are_wanted_again():
    twin = TwinDirectory(InPlace())
    made = spares(twin)
    made.want()
    twin.hooks["write"] = no_space
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        made.refill()
    twin.calls.clear()
    made.refill()
    assert twin.calls == []
    assert twin.names() == []
    twin.hooks.clear()
    made.want()
    made.refill()
    assert len(twin.names()) == SPARES


# --- expiry queue


def stream(number: int, **config: float | None) -> StreamState:
    return StreamState(number, f"s{number}", StreamConfig("text/plain", **config), 0)


def test_streams_are_due_at_their_deadline_in_its_order():
    queue, streams = ExpiryQueue(), [stream(number, expires_at=float(number * 10)) for number in (3, 1, 2)]
    for one in streams:
        queue.add(one)
    queue.add(stream(9))
    assert len(queue) == 3
    assert queue.due(9.9) == []
    assert [one.number for one in queue.due(20.0)] == [1, 2]
    assert [one.number for one in queue.due(30.0)] == [3]


def test_a_deadline_that_moved_is_noticed_when_it_comes_up():
    queue, sliding = ExpiryQueue(), stream(1, ttl=10)
    queue.add(sliding)
    sliding.expiry.touch(9.0)
    assert queue.due(10.0) == []
    assert queue.due(18.9) == []
    assert queue.due(19.0) == [sliding]


def test_a_stream_that_is_due_comes_up_again_until_it_is_gone():
    queue, expired = ExpiryQueue(), stream(1, expires_at=5.0)
    queue.add(expired)
    assert queue.due(5.0) == [expired]
    assert queue.due(6.0) == []
    assert queue.due(65.0) == [expired]
    expired.gone = True
    queue.removed(expired)
    assert queue.due(1000.0) == []
    assert len(queue) == 0


# --- keeper


def test_the_keeper_goes_on_after_an_error_and_ends_when_it_is_told(caplog):
    sweeps, refills = [], threading.Event()

    def sweep() -> None:
        sweeps.append(1)
        raise RuntimeError("trouble")

    keeper = Background("keeper", 0.005, refills.set, sweep)
    keeper.start()
    until(lambda: len(sweeps) >= 3, "sweeping after an error")
    refills.clear()
    keeper.wake()
    assert refills.wait(10)
    keeper.stop()
    keeper.stop()
    count = len(sweeps)
    assert "trouble" in caplog.text
    assert len(sweeps) == count
    assert not keeper._thread.is_alive()


def test_a_keeper_that_was_never_started_can_be_stopped():
    Background("keeper", 1.0, lambda: None, lambda: None).stop()


# --- reader


def written(*payloads: bytes | None) -> tuple[StreamState, dict[int, LogSegment]]:
    """A stream of these records, alternating over two segments; None is a lost one of ten bytes."""
    directory, state = MemoryDirectory(), stream(1)
    segments = {number: LogSegment.create(directory, number, 64 * 1024, UUID, 0) for number in (1, 2)}
    for count, payload in enumerate(payloads):
        number = 1 + count // 2 % 2
        if payload is None:
            state.tail += 10
            add_place(state.index, state.tail, LOST)
            continue
        position = 4096 * (1 + count) + 64
        raw = oracle.Frame(1, 1, state.tail, payload).encode(segments[number].nonce, position)
        segments[number].file.write(position, raw)
        state.tail += len(payload)
        add_place(state.index, state.tail, lsn_of(number, position))
    state.durable = state.tail
    return state, segments


def test_a_read_goes_over_records_and_segments():
    payloads = [b"one", b"two", b"three", b"four", b"five"]
    state, segments = written(*payloads)
    content = b"".join(payloads)
    for offset in range(len(content) + 1):
        for limit in (1, 4, 100):
            chunk = Reader(segments, {}).read(state, offset, limit)
            assert chunk.data == content[offset : offset + limit]
            assert chunk.up_to_date == (offset + limit >= len(content))
    assert Reader(segments, {}).read(state, NOW, 10).offset == len(content)


def test_a_read_ends_before_lost_bytes_and_one_that_starts_in_them_says_so():
    state, segments = written(b"one", None, b"three")
    assert Reader(segments, {}).read(state, 0, 100)[:4] == (b"one", 0, 3, False)
    for offset in (3, 12):
        with pytest.raises(Corruption) as caught:
            Reader(segments, {}).read(state, offset, 100)
        assert caught.value.name == "s1"
    assert Reader(segments, {}).read(state, 13, 100).data == b"three"


def test_a_read_ends_before_a_record_that_does_not_verify():
    state, segments = written(b"one", b"two", b"three")
    segments[1].file.write(4096 * 2 + 64 + 24, b"?")
    assert Reader(segments, {}).read(state, 1, 100).data == b"ne"
    with pytest.raises(Corruption) as caught:
        Reader(segments, {}).read(state, 4, 1)
    assert (caught.value.file, caught.value.position) == ("00000001.log", 4096 * 2 + 64)
    assert Reader(segments, {}).read(state, 6, 100).data == b"three"


def test_a_read_from_memory_reads_no_file():
    state, _segments = written(b"one", b"two")
    assert read_from_memory(state, 0, 10) is None
    assert read_from_memory(state, 6, 10) is not None
    state.recent = bytearray((3).to_bytes(8, "little") + b"two and more that is not durable")
    assert read_from_memory(state, 4, 100).data == b"wo"
    assert read_from_memory(state, 2, 100) is None


def test_nobody_reads_beyond_the_watermark():
    state, segments = written(b"one", b"two")
    state.durable = 3
    assert Reader(segments, {}).read(state, 0, 100)[:4] == (b"one", 0, 3, True)
    with pytest.raises(OffsetOutOfRange):
        Reader(segments, {}).read(state, 4, 1)


# --- replay


def replayed(*groups: list[oracle.Frame], now: float = 1000.0, clean: bool = False) -> tuple[Catalog, Replay]:
    segment = LogSegment.create(MemoryDirectory(), 1, 256 * 1024, UUID, 0)
    segment.file.write(4096, oracle.encode_segment(1, segment.nonce, groups, 5000))
    catalog, backlog = Catalog(Clock(now)), Backlog({1: segment})
    catalog.crashed_at = None if clean else now
    backlog.take(segment, survey(segment))
    backlog.sort()
    replay = Replay(catalog, backlog)
    replay.run()
    replay.look_up_all()
    return catalog, replay


def create(number: int, name: str, **config: float | None) -> oracle.Frame:
    return oracle.Frame(
        oracle.CREATE, number, 0, encode_create(Creation(name, StreamConfig("text/plain", **config), 1000))
    )


def data(number: int, offset: int, payload: bytes, **more: Any) -> oracle.Frame:
    return oracle.Frame(oracle.DATA, number, offset, payload, **more)


def test_records_become_the_states_that_they_came_from():
    catalog, replay = replayed(
        [create(1, "a"), data(1, 0, b"one"), oracle.Frame(oracle.PRODUCER, 1, 3, encode_producer(0, "p"))],
        [data(1, 3, b"two", claim=(0, 4, 7), seq=b"s"), create(2, "b"), data(1, 6, b"", close=True)],
        [oracle.Frame(oracle.DELETE, 2, 0)],
    )
    state = catalog.get("a")
    assert (state.tail, state.durable, state.closed, state.durable_closed, state.last_seq) == (6, 6, True, True, "s")
    known = state.producers["p"]
    assert (known.number, known.epoch, known.seq) == (0, 4, 7)
    assert catalog.get("b") is None
    assert (replay.lost, replay.records_of_unknown_streams) == ([], 0)
    assert catalog.next_number == 3
    catalog.check()


def test_missing_records_become_lost_bytes_and_later_ones_stay():
    catalog, replay = replayed([create(1, "a"), data(1, 0, b"one")], [data(1, 10, b"later")])
    assert [(lost.name, lost.start, lost.end) for lost in replay.lost] == [("a", 3, 10)]
    assert catalog.get("a").tail == 15
    assert [run.segment for run in runs_of(catalog.get("a").index, 0, 15)] == [1, 0, 1]


def test_records_of_streams_that_nothing_is_known_of_are_counted():
    catalog, replay = replayed(
        [data(7, 0, b"x"), oracle.Frame(oracle.DELETE, 8, 0), oracle.Frame(oracle.TOUCH, 9, 0, encode_touch(1))]
    )
    assert (len(catalog), replay.records_of_unknown_streams) == (0, 3)


def test_a_claim_of_a_producer_that_was_never_introduced_harms_nothing():
    catalog, _replay = replayed([create(1, "a"), data(1, 0, b"one", claim=(5, 0, 0))])
    assert catalog.get("a").tail == 3
    catalog.check()


def test_the_last_use_of_a_stream_is_that_of_its_records_and_touches():
    catalog, _replay = replayed([create(1, "a", ttl=10_000), data(1, 0, b"x")], now=5.0)
    assert catalog.get("a").expiry.touched == 5.0
    catalog, _replay = replayed(
        [create(1, "a", ttl=480), oracle.Frame(oracle.TOUCH, 1, 0, encode_touch(900_000))], now=905.0
    )
    assert (catalog.get("a").expiry.saved, catalog.get("a").expiry.touched) == (900.0, 905.0)


def test_uses_are_given_back_after_a_crash_only_and_only_so_much_as_it_may_have_taken():
    frames = [create(1, "a", ttl=480)]
    for clean, now, touched in ((True, 500.0, 1.0), (False, 30.0, 30.0), (False, 500.0, 61.0)):
        catalog, _replay = replayed(frames, now=now, clean=clean)
        assert catalog.get("a").expiry.touched == touched


def test_a_name_that_lives_again_is_the_new_stream():
    catalog, _replay = replayed(
        [create(1, "a"), data(1, 0, b"old")], [oracle.Frame(oracle.DELETE, 1, 3), create(2, "a"), data(2, 0, b"n")]
    )
    assert (catalog.get("a").number, catalog.get("a").tail) == (2, 1)
    catalog.check()


def fork(number: int, name: str, *owners: tuple[int, int]) -> oracle.Frame:
    """A fork of the last of these, which inherits from all of them."""
    source, base = owners[-1]
    ancestors = tuple(Ancestor(*owner) for owner in owners)
    creation = Creation(name, StreamConfig("text/plain"), 1000, source, base, ancestors)
    return oracle.Frame(oracle.CREATE, number, base, encode_create(creation))


def test_a_stream_sequence_needs_no_producer():
    catalog, _replay = replayed([create(1, "a"), data(1, 0, b"one", seq=b"2024")])
    state = catalog.get("a")
    assert (state.last_seq, state.producers) == ("2024", None)


def test_a_record_over_bytes_that_are_there_is_passed_over_and_counted():
    catalog, replay = replayed([create(1, "a"), data(1, 0, b"one")], [data(1, 2, b"two")], [data(1, 3, b"!")])
    assert catalog.get("a").tail == 4
    assert [run.segment for run in runs_of(catalog.get("a").index, 0, 4)] == [1]
    assert (replay.lost, replay.records_of_unknown_streams) == ([], 1)


def test_a_use_of_a_stream_that_never_expires_says_nothing():
    catalog, _replay = replayed([create(1, "a"), oracle.Frame(oracle.TOUCH, 1, 0, encode_touch(900_000))])
    assert catalog.get("a").expiry is None
    catalog.check()


def test_a_deleted_stream_stays_for_its_fork():
    catalog, replay = replayed(
        [create(1, "a"), data(1, 0, b"one"), fork(2, "b", (1, 2)), oracle.Frame(oracle.DELETE, 1, 3)]
    )
    state = catalog.get("b")
    assert (state.fork.source.gone, state.fork.source.forks, state.fork.base) == (True, 1, 2)
    assert replay.records_of_unknown_streams == 0
    catalog.check()


def test_a_fork_whose_source_was_lost_has_its_own_bytes():
    catalog, replay = replayed([data(1, 0, b"one"), fork(2, "b", (1, 2)), data(2, 2, b"own")])
    state = catalog.get("b")
    assert (state.fork, state.tail, state.first) == (None, 5, 0)
    assert [(lost.name, lost.start, lost.end) for lost in replay.lost] == [("b", 0, 2)]
    assert replay.records_of_unknown_streams == 1
    catalog.check()


def test_a_fork_of_nothing_whose_source_was_lost_has_lost_nothing():
    catalog, replay = replayed([fork(2, "b", (1, 0)), data(2, 0, b"own")])
    assert (catalog.get("b").tail, replay.lost) == (3, [])


def test_bytes_that_were_trimmed_are_not_told_as_lost():
    segment = LogSegment.create(MemoryDirectory(), 1, 256 * 1024, UUID, 0)
    segment.file.write(4096, oracle.encode_segment(1, segment.nonce, [[data(1, 10, b"new")]], 5000))
    backlog = Backlog({1: segment})
    backlog.take(segment, survey(segment))
    backlog.sort()
    for first, lost in ((10, []), (4, [("a", 4, 10)])):
        catch_up, state = CatchUp(backlog), StreamState(1, "a", StreamConfig(), 0)
        state.tail, state.first, state.trimmed = 10, first, first
        catch_up.apply(state, 0)()
        assert [tuple(each) for each in catch_up.lost] == lost
        assert (state.tail, state.first) == (13, first)
