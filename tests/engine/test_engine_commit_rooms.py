"""The rooms of a commit: staging, the group and its undoing, the writer."""

from __future__ import annotations

import errno
import os
import struct
import threading
from dataclasses import replace
from itertools import pairwise
from typing import Any

import oracle
import pytest
from cluster_files import appended, write_log
from stores import Disk, kill, open_quietly, quiet
from twins import SMALL, Task, TwinDirectory, no_space, open_store, sync_error, until, write_error

from durable_log.engine import commit
from durable_log.engine.catalog import Catalog
from durable_log.engine.files import MemoryDirectory, SyncFailed, WriteFailed
from durable_log.engine.format import BLOCK_HEADER, PAGE, lsn_of
from durable_log.engine.group import Group
from durable_log.engine.segment import LogSegment, read_rows, size_of_segment, survey
from durable_log.engine.staging import GROUP_BYTES_MAX, GROUP_RECORDS_MAX, Batch, Staging, Submission
from durable_log.engine.state import StreamState
from durable_log.engine.watermark import Crowd, Deliveries, Gates
from durable_log.engine.writer import LogWriter, Tail
from durable_log.errors import CommitFailed, DurableLogError, StoreClosed, StoreFull, StreamNotFound
from durable_log.model import Append, Create, Created, Delete, Producer, StreamConfig, Trim

UUID = bytes(16)


# --- staging


class Port:
    def __init__(self) -> None:
        self.told: list[object] = []

    def deliver(self, results: list[tuple[object, object]]) -> None:
        self.told += [token for token, _result in results]


def submission(size: int = 10, port: Port | None = None, token: object = None) -> Submission:
    return Submission(Append("a", b"x" * size), port or Port(), token)


def fill(log: LogWriter) -> None:
    """Write until something is raised."""
    while True:
        write(log, b"x" * 3000)


def take(staging: Staging) -> Batch:
    batch = Batch()
    staging.take(batch)
    return batch


def test_submissions_are_taken_in_order():
    staging = Staging(10**6)
    staged = [submission() for _ in range(10)]
    assert not staging
    for one in staged:
        staging.put(one)
    assert staging
    assert take(staging) == staged
    assert take(staging) == []


def test_a_group_has_a_limit_of_records_and_of_bytes_and_takes_at_least_one():
    staging = Staging(10**9)
    for _ in range(GROUP_RECORDS_MAX + 1):
        staging.put(submission(1))
    assert [len(take(staging)), len(take(staging))] == [GROUP_RECORDS_MAX, 1]
    for size in (GROUP_BYTES_MAX + 1, GROUP_BYTES_MAX // 2, GROUP_BYTES_MAX // 2 + 1, 1):
        staging.put(submission(size))
    assert [len(take(staging)) for _ in range(4)] == [1, 1, 2, 0]


def test_what_is_over_the_bound_waits_its_turn_and_nobody_overtakes():
    staging = Staging(400)
    submissions = [submission(size) for size in (100, 300, 1, 1, 1000, 1, 200)]
    for one in submissions:
        staging.put(one)
    taken = []
    while batch := take(staging):
        assert len(batch) == 1 or sum(one.size for one in batch) <= 400
        taken += batch
        staging.release(batch)
    assert taken == submissions
    assert staging.staged == 0
    assert not staging


def test_releasing_twice_is_releasing_once():
    staging = Staging(10**6)
    for _ in range(3):
        staging.put(submission())
    batch = take(staging)
    staging.put(submission())
    staging.release(batch)
    staging.release(batch)
    assert staging.staged == submission().size


def test_a_submission_larger_than_all_room_is_taken_when_nothing_else_is_staged():
    staging = Staging(10)
    staging.put(submission(1000))
    assert len(take(staging)) == 1


def test_after_a_refusal_nothing_is_staged_and_what_is_staged_stays():
    staging = Staging(100)
    before = [submission() for _ in range(3)]
    for one in before:
        staging.put(one)
    staging.refuse(StoreClosed("over"))
    raised = []
    for _ in range(2):
        with pytest.raises(StoreClosed, match="over") as caught:
            staging.put(submission())
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    taken = []
    while batch := take(staging):
        taken += batch
        staging.release(batch)
    assert taken == before


# --- group


def catalog() -> Catalog:
    made = Catalog(lambda: 100.0)
    state = StreamState(1, "a", StreamConfig("text/plain", 1000), 90_000)
    made.add(state)
    return made


def frames(group: Group) -> list[oracle.Frame]:
    body, at, found = b"".join(group.parts)[BLOCK_HEADER:], 0, []
    assert len(body) == group.length
    while at < len(body):
        length = struct.unpack_from("<I", body, at + 4)[0]
        end = at + 24 + length
        mended = struct.pack("<I", oracle.crc32c(0, body[at + 4 : end])) + body[at + 4 : end]
        found.append(oracle.decode_frame(mended, 0, 0, 0)[0])
        at = end
    return found


def test_a_group_lays_out_what_it_accepts():
    streams = catalog()
    group = Group(streams, 100.0)
    group.append(Append("a", b"one", Producer("p", 2, 0), "s", True))
    group.create(Create("b", StreamConfig(), b"data"))
    group.delete(Delete("a"))
    group.touch(streams.get("a"))
    create = frames(group)[2]
    assert frames(group) == [
        oracle.Frame(oracle.PRODUCER, 1, 0, b"\0\0\0\0p"),
        oracle.Frame(oracle.DATA, 1, 0, b"one", True, (0, 2, 0), b"s"),
        create,
        oracle.Frame(oracle.DATA, 2, 0, b"data"),
        oracle.Frame(oracle.DELETE, 1, 3),
    ]
    assert (create.kind, create.stream) == (oracle.CREATE, 2)
    assert [(state.number, offset, data) for state, offset, _position, data in group.entries] == [
        (1, 0, b"one"), (2, 0, b"data")
    ]  # fmt: skip


def test_within_a_group_each_request_sees_what_the_ones_before_it_did():
    group = Group(catalog(), 100.0)
    assert group.append(Append("a", b"xx", Producer("p", 0, 0))).offset == 0
    assert group.append(Append("a", b"xx", Producer("p", 0, 0))).duplicate is True
    assert group.append(Append("a", b"y", Producer("p", 0, 1))).offset == 2
    group.delete(Delete("a"))
    with pytest.raises(StreamNotFound):
        group.append(Append("a", b"z"))
    with pytest.raises(StreamNotFound):
        group.delete(Delete("a"))
    assert group.create(Create("a", StreamConfig())) == Created(False, 0, False)
    assert group.append(Append("a", b"z")).offset == 0
    assert group.create(Create("a", StreamConfig())).existed is True


def test_a_group_that_is_published_is_in_force():
    streams = catalog()
    old = streams.get("a")
    group = Group(streams, 100.0)
    group.delete(Delete("a"))
    group.create(Create("a", StreamConfig(), b"x"))
    group.create(Create("b", StreamConfig()))
    group.delete(Delete("b"))
    group.publish()
    assert old.gone
    assert streams.get("a").tail == 1
    assert streams.get("b") is None
    assert streams.next_number == 4


def image(state: StreamState) -> Any:
    producers = {name: (known.number, known.epoch, known.seq) for name, known in (state.producers or {}).items()}
    expiry = state.expiry
    uses = expiry and (expiry.touched, expiry.saved, expiry.deadline)
    return (state.tail, state.closed, state.last_seq, producers, uses)


@pytest.mark.parametrize(
    "requests",
    [
        [Append("a", b"x")],
        [Append("a", b"x", seq="5"), Append("a", b"y", seq="6")],
        [Append("a", b"x", Producer("p", 0, 0)), Append("a", b"y", Producer("p", 0, 1))],
        [Append("a", b"x", Producer("p", 0, 0)), Append("a", b"x", Producer("q", 4, 0)), Append("a", b"", close=True)],
        [Append("a", b"x", Producer("known", 3, 6)), Append("a", b"y", Producer("known", 4, 0))],
        [Create("b", StreamConfig(), b"x"), Append("b", b"y", Producer("p", 0, 0)), Delete("b")],
        [Append("a", b"x"), Delete("a"), Create("a", StreamConfig(), b"new", True)],
    ],
)
def test_undoing_a_group_leaves_everything_as_it_was(requests):
    streams = catalog()
    state = streams.get("a")
    before_group = Group(streams, 95.0)
    before_group.append(Append("a", b"0", Producer("known", 3, 0), "1"))
    for seq in range(1, 6):
        before_group.append(Append("a", b"0", Producer("known", 3, seq)))
    before, names, number = image(state), list(streams.names("")), streams.next_number
    group = Group(streams, 100.0)
    for request in requests:
        if isinstance(request, Append):
            group.append(request)
        elif isinstance(request, Create):
            group.create(request)
        else:
            group.delete(request)
    group.undo()
    assert image(state) == before
    assert (list(streams.names("")), streams.next_number) == (names, number)


def test_after_an_undone_group_the_same_requests_give_the_same_group():
    streams = catalog()
    requests = [Append("a", b"x", Producer("p", 0, 0), "1"), Append("a", b"y", Producer("q", 0, 0))]
    groups = []
    for _ in range(3):
        group = Group(streams, 100.0)
        groups.append(([group.append(request) for request in requests], frames(group)))
        group.undo()
    assert groups[0] == groups[1] == groups[2]


def test_a_sweep_deletes_only_that_life_and_only_if_it_is_over():
    streams = catalog()
    for number, now, deleted in ((2, 5000.0, False), (1, 1089.9, False), (1, 1090.0, True)):
        group = Group(streams, now)
        group.delete(Delete("a", number, expired=True))
        assert bool(group.hidden) is bool(group.removed) is deleted


# --- writer


def segments(directory: Any, size: int = 64 * 1024) -> Any:
    return lambda number, needed: LogSegment.create(directory, number, size_of_segment(number, size, needed), UUID, 0)


def writer(directory: Any, size: int = 64 * 1024) -> LogWriter:
    make = segments(directory, size)
    return LogWriter(Tail(make(1, 0), PAGE, 0, 0), make)


def write(log: LogWriter, payload: bytes, *, sync: bool = True) -> tuple[int, int]:
    frame = oracle.Frame(1, 1, 0, payload).encode(0, 0)
    log.make_room(len(frame), reserved=False)
    return log.write([bytes(BLOCK_HEADER), frame], len(frame), sync=sync, now=1.5)


def test_blocks_are_chained_and_say_what_is_durable():
    directory = MemoryDirectory()
    log = writer(directory)
    bodies = [write(log, b"x" * size, sync=sync)[0] for size, sync in ((1, True), (5000, False), (1, False), (1, True))]
    log.mark(2.0)
    raw = directory.files["00000001.log"].read(0, 64 * 1024)
    blocks = oracle.decode_segment(raw, 1, oracle.nonce_in(raw))
    assert [block.lsn + BLOCK_HEADER for block in blocks[:-1]] == bodies
    assert [block.lsn for block in blocks] == [lsn_of(1, page * PAGE) for page in (1, 2, 4, 5, 6)]
    assert [block.durable_lsn for block in blocks] == [lsn_of(1, page * PAGE) for page in (1, 2, 2, 2, 6)]
    for previous, block in pairwise(blocks):
        assert (block.previous_lsn, block.previous_crc) == (previous.lsn, previous.header_crc)
    assert blocks[-1].frames == []
    assert [block.time_ms for block in blocks] == [1500] * 4 + [2000]
    assert not log.unmarked


def test_a_new_segment_is_entered_when_the_reserve_is_reached_and_the_old_one_is_synced():
    twin = TwinDirectory()
    log = writer(twin)
    while log.segment.number == 1:
        write(log, b"x" * 100, sync=False)
        last_position = log.position
    assert last_position == 2 * PAGE
    assert twin.calls.count(("sync", "00000001.log")) >= 1
    assert log.durable_lsn == lsn_of(2, PAGE)
    assert log.unsynced
    log.sync()
    assert not log.unsynced


def test_a_block_larger_than_a_segment_gets_one_of_its_size():
    log = writer(MemoryDirectory())
    write(log, b"x" * 300_000)
    assert log.segment.usable >= log.position
    assert len(survey(log.segment)) == 1


def test_without_room_for_a_segment_only_deletions_may_use_the_reserve():
    directory = MemoryDirectory()
    make = segments(directory, 1024 * 1024)

    def full(_number: int, _size: int) -> LogSegment:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "x")

    log, deletions = LogWriter(Tail(make(1, 0), PAGE, 0, 0), full), 0
    with pytest.raises(StoreFull):
        fill(log)
    for _ in range((log.segment.size - log.position) // PAGE):
        log.make_room(24, reserved=True)
        log.write([bytes(BLOCK_HEADER), oracle.Frame(3, 1, 0).encode(0, 0)], 24, sync=True, now=0.0)
        deletions += 1
    assert deletions >= 16
    with pytest.raises(StoreFull):
        log.make_room(24, reserved=True)
    log.mark(0.0)
    assert log.segment.size - log.position == 0


def test_another_error_than_a_full_disk_is_not_taken_for_one():
    def broken(_number: int, _size: int) -> LogSegment:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = LogWriter(Tail(segments(MemoryDirectory())(1, 0), PAGE, 0, 0), broken)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)) as caught:
        fill(log)
    assert not isinstance(caught.value, DurableLogError)


def test_after_a_write_without_room_the_same_place_is_written_again():
    twin = TwinDirectory()
    log = writer(twin)
    write(log, b"first")
    twin.hooks["commit"] = no_space
    before = (log.position, log.durable_lsn, log.unsynced)
    with pytest.raises(WriteFailed):
        write(log, b"second")
    assert (log.position, log.durable_lsn, log.unsynced) == before
    twin.hooks.clear()
    write(log, b"third")
    found = survey(log.segment)
    assert [read_rows(log.segment, block).payload(read_rows(log.segment, block).rows[0]) for block in found] == [
        b"first", b"third"
    ]  # fmt: skip


def test_a_failed_sync_moves_nothing():
    twin = TwinDirectory()
    log = writer(twin)
    twin.hooks["commit"] = sync_error
    before = (log.position, log.durable_lsn)
    with pytest.raises(SyncFailed):
        write(log, b"x")
    assert (log.position, log.durable_lsn) == before


def test_a_refusal_that_comes_while_somebody_is_about_to_stage_is_raised():
    staging = Staging(100)

    class Mutex:
        def __enter__(self) -> None:
            staging.refusal = StoreClosed("over")

        def __exit__(self, *_: object) -> None:
            pass

    inner, staging._mutex = staging._mutex, Mutex()
    with pytest.raises(StoreClosed, match="over"):
        staging.put(submission())
    staging._mutex = inner
    assert take(staging) == []


def test_a_result_that_is_delivered_twice_lets_its_caller_go_once():
    gate = threading.Lock()
    gate.acquire()
    for _ in range(2):
        Gates().deliver([(gate, None)])
    assert gate.acquire(timeout=1)
    assert gate.locked()


def test_frames_that_hold_are_one_span_where_they_follow_each_other():
    """So a damaged block is clustered in few pieces."""
    directory = MemoryDirectory()
    segment = write_log(directory, 1, appended([(1, b"one"), (2, b"two"), (1, b"three"), (3, b"four")])).segment
    at = 4096 + 64 + 2 * (24 + 3)
    segment.file.write(at + 24, b"T")
    [block] = survey(segment)
    assert not block.whole
    assert read_rows(segment, block).spans() == [(4096 + 64, 54), (at + 24 + 5, 28)]


def test_a_crowd_waits_for_all_of_its_results_and_minds_no_more_of_them():
    crowd = Crowd(3)
    crowd.deliver([(1, None), (2, None)])
    waiting = Task(crowd.wait)
    assert not waiting.done
    for _ in range(2):
        crowd.deliver([(3, None)])
    waiting.result()


# --- what breaks a commit


class Results:
    def __init__(self) -> None:
        self.told: dict[object, object] = {}

    def deliver(self, results: list[tuple[object, object]]) -> None:
        self.told.update(results)


def test_a_request_that_breaks_something_is_refused_alone(monkeypatch):
    """What was admitted before it in the same group is taken back, and admitted anew without it."""
    quiet(monkeypatch)
    store = open_quietly(Disk())
    engine, results = store.engine, Results()
    store.create("a", data=b"0123456789")
    requests = [Trim("a", 4), Create("broken", None), Append("a", b"!"), Trim("a", 6)]
    for number, request in enumerate(requests):
        engine.submit(request, results, number)
    with engine._committer._lock:
        engine._committer._commit_group()
    assert isinstance(results.told.pop(1), AttributeError)
    assert not any(isinstance(result, BaseException) for result in results.told.values())
    assert results.told.keys() == {0, 2, 3}
    info = store.stream("a").info()
    assert (info.first, info.tail) == (6, 11)
    assert list(store.names()) == ["a"]
    engine.check()
    store.close()


def test_what_is_staged_without_a_call_is_of_the_next_group_in_its_order(monkeypatch):
    quiet(monkeypatch)
    store = open_quietly(Disk())
    stream, results, commits = store.create("a"), Results(), store.stats()["commits"]
    for number in range(3):
        store.engine.stage(Append("a", b"x"), results, number)
    assert not results.told
    assert stream.append(b"y").offset == 3
    assert [results.told[number].offset for number in range(3)] == [0, 1, 2]
    assert store.stats()["commits"] == commits + 1
    store.close()


def test_what_waits_when_a_close_is_broken_off_is_told_so(monkeypatch):
    quiet(monkeypatch)
    store = open_quietly(Disk())
    store.create("a")
    committer, results = store.engine._committer, Results()
    committer.submit(Append("a", b"x"), results, "x")

    def interrupted() -> list[StreamState]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        committer.stop(interrupted)
    assert isinstance(results.told["x"], CommitFailed)
    assert "closing the store was broken off" in str(results.told["x"])
    kill(store)


def test_an_end_that_cannot_be_marked_is_no_good_end_and_loses_nothing(monkeypatch):
    twin = TwinDirectory()
    store = open_store(twin, replace(SMALL, cluster_at_close=False))
    store.create("a", data=b"data")
    twin.hooks["mark"] = write_error
    store.close()
    assert isinstance(store.engine._committer.failure, CommitFailed)
    twin.hooks.clear()
    with open_store(twin) as again:
        assert again.stream("a").read().data == b"data"
        assert not again.engine.report.damage


@pytest.fixture
def held(monkeypatch):
    """A committer of a store without threads, a request that waits, and where its result comes."""
    quiet(monkeypatch)
    store = open_quietly(Disk())
    store.create("a")
    results = Results()
    store.engine.submit(Append("a", b"x"), results, "x")
    yield store.engine._committer, results
    kill(store)


def test_requests_of_a_commit_that_is_interrupted_before_it_begins_are_told(held, monkeypatch):
    committer, results = held
    take_all = committer._staging.take

    def interrupted(batch):
        take_all(batch)
        raise KeyboardInterrupt

    monkeypatch.setattr(committer._staging, "take", interrupted)
    with committer._lock, pytest.raises(KeyboardInterrupt):
        committer._commit_group()
    assert "a commit was broken off before it began" in str(results.told["x"])
    assert isinstance(committer.failure, CommitFailed)


def test_results_that_are_interrupted_on_their_way_are_delivered_all_the_same(held, monkeypatch):
    committer, results = held
    send = Deliveries.send

    def interrupted(deliveries):
        monkeypatch.setattr(Deliveries, "send", send)
        raise KeyboardInterrupt

    monkeypatch.setattr(Deliveries, "send", interrupted)
    with committer._lock, pytest.raises(KeyboardInterrupt):
        committer._commit_group()
    assert results.told["x"].next_offset == 1
    assert committer.failure is None
    assert committer._staging.staged == 0


def test_a_caller_whose_turn_nobody_saw_looks_again_by_itself(monkeypatch):
    """An interrupt came between letting go of the lock and looking at the queue."""
    monkeypatch.setattr(commit, "PATIENCE_SECONDS", 0.01)
    with open_store(TwinDirectory()) as store:
        stream, committer = store.create("a"), store.engine._committer
        lead, tries = committer._try_to_lead, []

        def counted(submission):
            tries.append(submission)
            lead(submission)

        monkeypatch.setattr(committer, "_try_to_lead", counted)
        committer._lock.acquire()
        append = Task(stream.append, b"x")
        until(lambda: len(tries) > 1, "a second look")
        committer._lock.let_go()
        assert append.result().next_offset == 1
