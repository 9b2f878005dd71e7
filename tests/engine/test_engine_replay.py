"""What replay makes of the records of a stream, beside a loop of this page that takes them one by one."""

from __future__ import annotations

from typing import Any

import oracle
from hypothesis import given
from hypothesis import strategies as st
from twins import Clock

from durable_log.engine.backlog import Backlog
from durable_log.engine.catalog import Catalog
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.format import Creation, encode_create, encode_producer, encode_touch, lsn_of
from durable_log.engine.index import LOST, places_of
from durable_log.engine.replay import CatchUp, Replay
from durable_log.engine.segment import LogSegment, survey
from durable_log.engine.state import StreamState
from durable_log.model import StreamConfig

UUID = bytes(16)
TTL = 100
Block = tuple[int, list[oracle.Frame]]
"""When it was written, in ms, and its frames."""


def data(offset: int, length: int, **more: Any) -> oracle.Frame:
    return oracle.Frame(oracle.DATA, 1, offset, b"x" * length, **more)


def introduction(number: int) -> oracle.Frame:
    return oracle.Frame(oracle.PRODUCER, 1, 0, encode_producer(number, f"p{number}"))


def creation(number: int, **config: float | None) -> oracle.Frame:
    return oracle.Frame(
        oracle.CREATE, number, 0, encode_create(Creation(f"s{number}", StreamConfig("text/plain", **config), 1000))
    )


def written(blocks: list[Block]) -> tuple[Backlog, list[int]]:
    """The backlog of a log of these blocks, and the LSN of each frame."""
    segment = LogSegment.create(MemoryDirectory(), 1, 2**20, UUID, 0)
    previous, lsn, lsns = (0, 0), lsn_of(1, 4096), []
    for time_ms, frames in blocks:
        block = oracle.OracleBlock(lsn, frames, 0, *previous, time_ms)
        raw = block.encode(segment.nonce)
        segment.file.write(lsn & 0xFFFFFFFF, raw)
        at = lsn + 64
        for frame in frames:
            lsns.append(at)
            at += len(frame.encode(0, 0))
        previous, lsn = (lsn, int.from_bytes(raw[4:8], "little")), lsn + len(raw)
    backlog = Backlog({1: segment})
    backlog.take(segment, survey(segment))
    backlog.sort()
    return backlog, lsns


class Expected:
    """The state of the stream by the plain loop."""

    def __init__(self) -> None:
        self.tail = self.trimmed = self.out_of_place = 0
        self.closed, self.touched = False, 1.0
        self.last_seq: str | None = None
        self.producers: dict[str | int, tuple[int, int]] = {}
        self.places: list[tuple[int, int, int]] = []
        self.ids: dict[int, str | int] = {}

    def apply(self, frame: oracle.Frame, lsn: int, time_ms: int) -> None:
        if frame.kind == oracle.PRODUCER:
            number = int.from_bytes(frame.payload[:4], "little")
            self.ids[number] = f"p{number}"
            self.producers[f"p{number}"] = (-1, -1)
        elif frame.kind == oracle.TOUCH:
            self.touched = max(self.touched, int.from_bytes(frame.payload, "little") / 1000)
        elif frame.kind == oracle.DATA and frame.offset < self.tail:
            self.out_of_place += 1
        elif frame.kind == oracle.DATA:
            self._append(frame, lsn)
            self.touched = max(self.touched, time_ms / 1000)

    def _append(self, frame: oracle.Frame, lsn: int) -> None:
        if frame.offset > self.tail:
            self.places.append((self.tail, frame.offset, LOST))
        self.tail = frame.offset + len(frame.payload)
        if frame.payload:
            self.places.append((frame.offset, self.tail, lsn))
        self.closed = self.closed or frame.close
        if frame.claim is not None:
            number, epoch, seq = frame.claim
            self.producers[self.ids.setdefault(number, number)] = (epoch, seq)
        if frame.seq is not None:
            self.last_seq = frame.seq.decode()


def agrees(state: StreamState, expected: Expected) -> None:
    assert list(places_of(state.index)) == expected.places
    assert (state.tail, state.durable, state.closed) == (expected.tail, expected.tail, expected.closed)
    assert state.last_seq == expected.last_seq
    known = {each: (one.epoch, one.seq) for each, one in (state.producers or {}).items()}
    assert known == expected.producers
    numbers = [one.number for one in (state.producers or {}).values()]
    assert numbers == sorted(numbers)
    assert state.expiry is None or state.expiry.touched == expected.touched


CLAIMS = st.one_of(
    st.none(), st.tuples(st.sampled_from([0, 0, 1, 2, 1022, 1023, 1024]), st.integers(0, 3), st.integers(0, 9))
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0] * 9 + [1, -1]),  # where it begins, from the tail on
        st.integers(0, 3),
        st.booleans(),
        CLAIMS,
        st.one_of(st.none(), st.sampled_from([b"a", b"b"])),
        st.sampled_from(["data"] * 9 + ["touch"]),
        st.integers(0, 3),  # 0: a new block
    ),
    max_size=40,
)  # fmt: skip


def blocks_of(steps: list[tuple[Any, ...]], times: list[int]) -> list[Block]:
    blocks: list[Block] = [(times[0], [introduction(0), introduction(1)])]
    tail = 0
    for gap, length, close, claim, seq, kind, joins in steps:
        offset = max(0, tail + gap)
        frame = data(offset, length, close=close and length == 3, claim=claim, seq=seq)
        if kind == "touch":
            frame = oracle.Frame(oracle.TOUCH, 1, 0, encode_touch(times[length]))
        elif offset >= tail:
            tail = offset + length
        if joins == 0:
            blocks.append((times[len(blocks) % len(times)], []))
        blocks[-1][1].append(frame)
    return blocks


TIMES = st.lists(st.integers(0, 10**6), min_size=4, max_size=4)


@given(STEPS, TIMES, st.booleans())
def test_a_stream_is_replayed_as_if_its_records_were_taken_one_by_one(steps, times, expires):
    blocks = blocks_of(steps, times)
    backlog, lsns = written(blocks)
    state = StreamState(1, "s1", StreamConfig("text/plain", TTL if expires else None), 1000)
    catch_up, expected, at = CatchUp(backlog), Expected(), iter(lsns)
    catch_up.apply(state, 0)()
    for time_ms, frames in blocks:
        for frame in frames:
            expected.apply(frame, next(at), time_ms)
    agrees(state, expected)
    assert catch_up.out_of_place == expected.out_of_place
    assert [lost[1:] for lost in catch_up.lost] == [place[:2] for place in expected.places if place[2] == LOST]


@given(STEPS, TIMES, st.data())
def test_what_a_row_knows_of_the_log_is_placed_and_the_rest_applied(steps, times, drawn):
    """The state as it was at some record goes on from there, with an index that has nothing of the log."""
    blocks = blocks_of([(abs(step[0]), *step[1:]) for step in steps], times)
    backlog, lsns = written(blocks)
    frames = [(frame, time_ms) for time_ms, frames in blocks for frame in frames]
    known = drawn.draw(st.integers(0, len(frames)))
    row = StreamState(1, "s1", StreamConfig("text/plain", TTL), 1000)
    CatchUp(written([(time_ms, [frame]) for frame, time_ms in frames[:known]])[0]).apply(row, 0)
    row.index = row.index[:8]
    expected = Expected()
    for (frame, time_ms), lsn in zip(frames, lsns, strict=True):
        expected.apply(frame, lsn, time_ms)
    note = CatchUp(backlog).apply(row, lsns[known] if known < len(lsns) else lsns[-1] + 1)
    assert note is not None
    agrees(row, expected)


def test_of_a_thousand_claims_of_one_producer_one_is_read(monkeypatch):
    appends = [data(at, 1, claim=(0, 0, at)) for at in range(1000)]
    backlog, _ = written([(5, [introduction(0), *appends[:500]]), (6, appends[500:])])
    state, read, frame = StreamState(1, "s1", StreamConfig("text/plain"), 1000), [], backlog.frame
    monkeypatch.setattr(backlog, "frame", lambda record: read.append(record.kind) or frame(record))
    CatchUp(backlog).apply(state, 0)()
    assert (state.tail, state.producers["p0"].seq) == (1000, 999)
    assert read == [oracle.PRODUCER, oracle.DATA]


def test_an_empty_append_behind_lost_bytes_has_no_place():
    backlog, [lsn] = written([(5, [data(3, 0, close=True)])])
    state = StreamState(1, "s1", StreamConfig("text/plain"), 1000)
    state.tail = 3
    CatchUp(backlog).apply(state, lsn + 1)()
    assert list(places_of(state.index)) == [(0, 3, LOST)]


def test_an_absolute_expiry_is_not_renewed_by_appends():
    backlog, _ = written([(900_000, [creation(1, expires_at=5000.0), data(0, 3)])])
    catalog = Catalog(Clock(1.0))
    Replay(catalog, backlog).run()
    expiry = catalog.get("s1").expiry
    assert (expiry.touched, expiry.deadline) == (1.0, 5000.0)


def test_a_frame_of_a_type_that_nobody_knows_is_passed_over():
    frames = [data(0, 1), oracle.Frame(9, 1, 1, b"?"), data(1, 1)]
    backlog, _ = written([(5, frames)])
    state = StreamState(1, "s1", StreamConfig("text/plain"), 1000)
    CatchUp(backlog).apply(state, 0)()
    assert (state.tail, len(list(places_of(state.index)))) == (2, 2)
