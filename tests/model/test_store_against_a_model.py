"""The store against a plain-Python model, step by step: appends, producers, expiry, reopens and kills."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference import JSON, Claim, ModelStream, append
from twins import SMALL, Clock, copy_of, open_store

from durable_log.engine import catalog
from durable_log.engine.files import MemoryDirectory
from durable_log.errors import DurableLogError
from durable_log.model import NOW, Producer

NAMES = st.sampled_from(["a", "b", "ä/日", "b\U0010ffff"])
TYPES = st.sampled_from(["application/octet-stream", "text/plain", JSON])
DATA = st.one_of(
    st.binary(min_size=1, max_size=30),
    st.builds(
        lambda size, byte: bytes([byte]) * size, st.sampled_from([4000, 4072, 9000, 32 * 1024]), st.integers(0, 255)
    ),
)
VALUES = st.lists(
    st.one_of(st.integers(-99, 10**12), st.text(max_size=12), st.lists(st.integers(0, 9), max_size=3), st.none()),
    min_size=1, max_size=5,
)  # fmt: skip
QUIET = replace(
    SMALL, sweep_seconds=3600.0, recent_bytes_max=20_000, stream_recent_bytes_max=5000, cluster_segments=1000,
    cluster_seconds=1e9,
)  # fmt: skip


def refused(work: Callable[[], Any]) -> tuple[Any, str | None]:
    """What ``work`` returns, or the name of what it raises."""
    try:
        return work(), None
    except DurableLogError as error:
        return None, type(error).__name__


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model, and compares."""

    @initialize()
    def open(self) -> None:
        self.patch = mock.patch.object(catalog, "IDLE_MAX", 1)
        self.patch.start()
        self.clock, self.directory = Clock(), MemoryDirectory()
        self.store = open_store(self.directory, QUIET, self.clock)
        self.model: dict[str, ModelStream] = {}
        self.committed: dict[str, float] = {}
        self.expired: dict[str, ModelStream] = {}

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        if hasattr(self, "patch"):
            self.patch.stop()

    def live(self, name: str) -> ModelStream | None:
        """The model of a stream that has not expired. Where either is right, as the store sees it."""
        stream = self.model.get(name)
        if stream is None:
            return None
        alive = stream.alive(self.clock.now)
        if alive is None:
            alive = name in set(self.store.names())
        if not alive:
            self.expired[name] = self.model.pop(name)
            return None
        return stream

    def append_both(self, name: str, call: Callable[[Any, dict[str, Any]], Any], data: bytes, ends: list[int],
                    claim: Claim) -> None:  # fmt: skip
        named: dict[str, Any] = {}
        if claim.producer:
            named["producer"] = Producer(*claim.producer)
        if claim.seq is not None:
            named["seq"] = claim.seq
        if claim.close:
            named["close"] = True
        stream = self.live(name)
        appended, refusal = refused(lambda: call(self.store.stream(name), named))
        if stream is None:
            assert refusal == "StreamNotFound", refusal
            return
        expected = append(stream, data, ends, claim)
        assert refusal == expected.refusal, (refusal, expected)
        if refusal is None:
            assert appended == (
                expected.offset, expected.next_offset, expected.duplicate, expected.closed, expected.producer_seq
            )  # fmt: skip
            if not expected.duplicate:
                stream.use(self.clock.now)
                self.committed[name] = self.clock.now

    @rule(name=NAMES, content_type=TYPES, ttl=st.sampled_from([None, None, 5, 100, 1000]), closed=st.booleans(),
          expires=st.sampled_from([None, None, 50]), data=DATA)  # fmt: skip
    def create(self, name: str, content_type: str, ttl: int | None, closed: bool, expires: int | None,
               data: bytes) -> None:  # fmt: skip
        expires_at = self.clock.now + expires if expires and ttl is None else None
        closed = closed and len(data) % 3 == 0
        if content_type == JSON:
            data = json.dumps([data.hex()[:50]]).encode()
        named = {"content_type": content_type, "ttl": ttl, "expires_at": expires_at, "closed": closed, "data": data}
        stream = self.live(name)
        _created, refusal = refused(lambda: self.store.create(name, **named))
        if stream is not None:
            same = (stream.content_type, stream.ttl, stream.expires_at, stream.closed)
            assert refusal == (None if same == (content_type, ttl, expires_at, closed) else "StreamExists")
            return
        assert refusal is None
        self.expired.pop(name, None)
        stream = self.model[name] = ModelStream(content_type, ttl, expires_at, self.clock.now)
        stored = data[1:-1] + b"," if content_type == JSON else data
        append(stream, stored, [len(stored)], Claim(close=closed))
        self.committed[name] = self.clock.now

    @rule(name=NAMES, data=DATA, seq=st.sampled_from([None, None, "1", "10", "2", "é"]), close=st.integers(0, 9))
    def append(self, name: str, data: bytes, seq: str | None, close: int) -> None:
        if name in self.model and self.model[name].content_type == JSON:
            return
        self.append_both(
            name, lambda stream, named: stream.append(data, **named), data, [], Claim(None, seq, close == 0)
        )

    @rule(name=NAMES, items=st.lists(st.binary(max_size=20), min_size=1, max_size=5).filter(any))
    def append_many(self, name: str, items: list[bytes]) -> None:
        if name in self.model and self.model[name].content_type == JSON:
            return
        self.append_both(name, lambda stream, named: stream.append_many(items, **named), b"".join(items), [], Claim())

    @rule(name=NAMES, values=VALUES)
    def append_json(self, name: str, values: list[Any]) -> None:
        if name not in self.model or self.model[name].content_type != JSON:
            return
        messages = [json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"," for value in values]
        ends = [sum(map(len, messages[: count + 1])) for count in range(len(messages))]
        self.append_both(
            name, lambda stream, named: stream.append_json(*values, **named), b"".join(messages), ends, Claim()
        )

    @rule(name=NAMES, producer=st.sampled_from(["p", "q"]), epoch=st.integers(-1, 1),
          seq=st.sampled_from([0, 0, 0, 0, -1, 1, -3]), data=DATA, close=st.integers(0, 15))  # fmt: skip
    def append_by_producer(self, name: str, producer: str, epoch: int, seq: int, data: bytes, close: int) -> None:
        stream = self.model.get(name)
        if stream is not None and stream.content_type == JSON:
            return
        current = stream.producers.get(producer, (0, -1)) if stream else (0, -1)
        next_seq = current[1] + 1 if epoch == 0 else 0
        claim = (producer, max(0, current[0] + epoch), max(0, next_seq + seq))
        self.append_both(
            name, lambda target, named: target.append(data, **named), data, [], Claim(claim, None, close == 0)
        )

    @rule(name=NAMES, by=st.sampled_from([None, None, "p"]))
    def close_stream(self, name: str, by: str | None) -> None:
        stream = self.model.get(name)
        epoch, seq = stream.producers.get(by, (0, -1)) if stream and by else (0, -1)
        claim = Claim((by, epoch, seq + 1) if by else None, None, True)

        def call(target: Any, named: dict[str, Any]) -> Any:
            named.pop("close")
            return target.close(**named)

        self.append_both(name, call, b"", [], claim)

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        stream = self.live(name)
        _result, refusal = refused(lambda: self.store.delete(name))
        assert refusal == (None if stream else "StreamNotFound")
        self.model.pop(name, None)

    @rule(name=NAMES, where=st.floats(0, 1.1), limit=st.sampled_from([None, 1, 7, 1000, 4096, 50_000]))
    def read(self, name: str, where: float, limit: int | None) -> None:
        stream = self.live(name)
        offset = int(where * len(stream.content)) if stream else 0
        if stream and stream.content_type == JSON:
            offset = max([end for end in [0, *stream.ends] if end <= offset])
        chunk, refusal = refused(lambda: self.store.stream(name).read(offset, limit=limit))
        if stream is None:
            assert refusal == "StreamNotFound"
            return
        if not stream.first <= offset <= len(stream.content):
            assert refusal == "OffsetOutOfRange"
        else:
            assert refusal is None
            self.compare(stream, chunk, offset, limit)
        stream.use(self.clock.now)

    def compare(self, stream: ModelStream, chunk: Any, offset: int, limit: int | None) -> None:
        tail = len(stream.content)
        assert chunk.offset == offset
        assert chunk.data == stream.content[offset : chunk.next_offset]
        assert chunk.data or offset == tail
        assert chunk.up_to_date == (chunk.next_offset == tail)
        assert chunk.closed == (chunk.up_to_date and stream.closed)
        assert chunk.content_type == stream.content_type
        if stream.content_type == JSON:
            assert chunk.next_offset in {0, *stream.ends}
            assert len(chunk.items) == sum(offset < end <= chunk.next_offset for end in stream.ends)
        else:
            assert chunk.next_offset == min(tail, offset + (limit or QUIET.chunk_bytes_max))

    @rule(name=NAMES)
    def read_the_tail(self, name: str) -> None:
        stream = self.live(name)
        chunk, refusal = refused(lambda: self.store.stream(name).read(NOW))
        assert refusal == (None if stream else "StreamNotFound")
        if stream:
            self.compare(stream, chunk, len(stream.content), None)
            stream.use(self.clock.now)

    @rule(seconds=st.sampled_from([1, 3, 30, 70, 400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def sweep(self) -> None:
        for name in list(self.model):
            self.live(name)
        self.store.engine.upkeep.sweep()
        self.expired.clear()

    @rule()
    def cluster(self) -> None:
        """What is in the log moves to a clustered segment; nobody sees a difference."""
        self.store.engine.upkeep.cluster()

    @rule()
    def compact(self) -> None:
        self.store.engine.upkeep.compact()
        assert self.store.stats()["catalog_runs"] <= 1

    @rule(name=NAMES, part=st.floats(0, 1.2))
    def trim(self, name: str, part: float) -> None:
        stream = self.live(name)
        before = int(part * len(stream.content)) if stream else 0
        if stream and stream.content_type == JSON:
            before = max([end for end in [0, *stream.ends] if end <= before])
        first, refusal = refused(lambda: self.store.stream(name).trim(before))
        if stream is None:
            assert refusal == "StreamNotFound"
        elif before > len(stream.content):
            assert refusal == "OffsetOutOfRange"
        else:
            stream.first = max(stream.first, before)
            assert (first, refusal) == (stream.first, None)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.begin_again(crashed=False)

    @rule()
    def kill(self) -> None:
        killed = copy_of(self.directory)
        self.store.close()
        self.directory = killed
        self.begin_again(crashed=True)

    @rule(name=NAMES, data=DATA)
    @precondition(lambda self: self.model)
    def kill_after_a_written_append(self, name: str, data: bytes) -> None:
        stream = self.live(name)
        if stream is None or stream.closed or stream.content_type == JSON:
            return
        self.store.stream(name).append(data, durability="written")
        append(stream, data, [], Claim())
        stream.use(self.clock.now)
        self.committed[name] = self.clock.now
        self.kill()

    def begin_again(self, *, crashed: bool) -> None:
        self.model |= {name: stream for name, stream in self.expired.items() if stream.ttl is not None}
        self.expired.clear()
        for name, stream in self.model.items():
            stream.reopened(crashed, self.committed[name])
        self.store = open_store(self.directory, QUIET, self.clock)
        report = self.store.report
        assert (report.damage, report.lost, report.unreadable_segments, report.cut) == ([], [], [], False)

    @invariant()
    def names_and_tails_are_those_of_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        expected = sorted(name for name in list(self.model) if self.live(name))
        assert list(self.store.names()) == expected
        for name in expected:
            info, stream = self.store.stream(name).info(), self.model[name]
            assert (info.first, info.tail, info.closed) == (stream.first, len(stream.content), stream.closed)
            assert (info.content_type, info.ttl, info.expires_at) == (
                stream.content_type,
                stream.ttl,
                stream.expires_at,
            )
        self.store.engine.check()


TestStoreAgainstAModel = StoreMachine.TestCase
TestStoreAgainstAModel.settings = settings(
    max_examples=200, stateful_step_count=80, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)  # without shrinking: it would take minutes, and a failure is a short program already
