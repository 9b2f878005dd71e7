"""The store against a plain-Python model, step by step: appends, producers, forks, expiry, reopens and kills.

Few streams are in memory, and checkpoints come between any two steps. What fails, and what comes between the slices of
a checkpoint, is the business of ``tests/simulation``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from reference import JSON, Life, Model, Refused, Uses
from twins import SMALL, Clock, copy_of, open_store

from durable_log.engine import catalog, checkpoint, compaction
from durable_log.engine.files import MemoryDirectory, MemoryFile
from durable_log.engine.keeper import Background
from durable_log.errors import DurableLogError
from durable_log.model import NOW, Append, Create, Delete, Producer, Request, StreamConfig, Trim

STEPS = int(os.environ.get("DURABLE_LOG_MODEL_STEPS", "20000"))
EXAMPLE_STEPS = 100

NAMES = st.sampled_from(["a", "b", "c", "ä/日", "b\U0010ffff"])
TYPES = st.sampled_from(["application/octet-stream", "text/plain", JSON])
TTLS = st.sampled_from([None, None, None, 0, 5, 100, 1000])
EXPIRES = st.sampled_from([None, None, None, 50])
SEQS = st.sampled_from([None, None, "1", "10", "2", "é"])
DURABILITIES = st.sampled_from(["sync", "sync", "written"])
RARELY = st.integers(0, 15).map(lambda number: number == 0)
PARTS = st.floats(0, 1.05)
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


class RecycledFile(MemoryFile):
    """A file in memory that has its size before it is written."""

    def fill_with_zeroes(self, size: int) -> None:
        self.write(self.size(), bytes(size - self.size()))


class RecyclingDirectory(MemoryDirectory):
    """Files in memory that are written over like those of a disk."""

    grows_in_place = True

    def create(self, name: str) -> MemoryFile:
        self.files[name] = RecycledFile(name)
        return self.files[name]


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model, and compares."""

    steps = 0
    """Of all examples."""

    @initialize(recycling=st.booleans())
    def open(self, recycling: bool) -> None:
        self.patches = [
            mock.patch.object(catalog, "IDLE_MAX", 1),
            mock.patch.object(Background, "wake"),
            *(mock.patch.object(module, "SLICE_STATES", 2) for module in (checkpoint, compaction)),
            *(mock.patch.object(module, "pause") for module in (checkpoint, compaction)),
        ]
        for patch in self.patches:
            patch.start()
        self.clock, self.directory = Clock(), RecyclingDirectory() if recycling else MemoryDirectory()
        self.model, self.uses = Model(), Uses()
        self.store = open_store(self.directory, QUIET, self.clock)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        for patch in getattr(self, "patches", ()):
            patch.stop()

    # --- requests ---------------------------------------------------------------------------------------------------

    def living(self, life: Life) -> bool:
        """Whether a stream has not expired. Where either is right, as the store sees it."""
        alive = self.uses.alive(life, self.clock.now)
        return life.name in set(self.store.names()) if alive is None else alive

    def both(self, request: Request, call: Callable[[], Any]) -> None:
        """Make a request of the model and of the store."""
        living = {life.number: self.living(life) for life in self.model.lives.values()}
        expected = self.model.apply(request, self.clock.now, lambda life: living.get(life.number, life.ttl != 0))
        try:
            found = call()
        except DurableLogError as error:
            found = error
        if isinstance(expected, Refused):
            assert type(found).__name__ == expected.kind, (found, expected)
            return
        assert not isinstance(found, Exception), (found, expected)
        if not isinstance(request, Create | Delete):
            assert found == expected
        life = self.model.find(request.name)
        known = getattr(expected, "duplicate", False) or getattr(expected, "existed", False)
        if life is not None and isinstance(request, Append | Create) and not known:
            self.uses.use(life.number, self.clock.now)

    @rule(name=NAMES, content_type=TYPES, ttl=TTLS, expires=EXPIRES, data=DATA, closed=RARELY)
    def create(
        self, name: str, content_type: str, ttl: int | None, expires: int | None, data: bytes, closed: bool
    ) -> None:
        if content_type == JSON:
            data = json.dumps([data.hex()[:50]]).encode()
        expires_at = self.clock.now + expires if expires and ttl is None else None
        config = StreamConfig(content_type, ttl, expires_at)
        stored = data[1:-1] + b"," if content_type == JSON else data
        named = {"content_type": content_type, "ttl": ttl, "expires_at": expires_at, "closed": closed, "data": data}
        self.both(Create(name, config, stored, closed), lambda: self.store.create(name, **named))

    @rule(name=NAMES, of=NAMES, part=PARTS, at_tail=st.booleans(), ttl=TTLS, expires=EXPIRES)
    def fork(self, name: str, of: str, part: float, at_tail: bool, ttl: int | None, expires: int | None) -> None:
        source = self.model.find(of)
        if source is None or source.deleted or not self.living(source):
            return
        at = None if at_tail else source.boundary(int(source.first + part * (source.tail - source.first)))
        expires_at = self.clock.now + expires if expires and ttl is None else None
        config = StreamConfig(source.content_type, ttl, expires_at)
        named = {"ttl": ttl, "expires_at": expires_at, "fork_of": of, "fork_at": at}
        if at is not None and source.content_type == JSON:
            self.uses.may_use(source.number, self.clock.now)  # that it is a boundary may be found by reading
        self.both(Create(name, config, fork_of=of, fork_at=at), lambda: self.store.create(name, **named))

    def append_both(self, request: Append, call: Callable[[Any, dict[str, Any]], Any]) -> None:
        named = {"producer": request.producer, "seq": request.seq, "close": request.close}
        self.both(request, lambda: call(self.store.stream(request.name), named))

    def is_json(self, name: str) -> bool:
        life = self.model.find(name)
        return life is not None and life.content_type == JSON

    @rule(name=NAMES, data=DATA, seq=SEQS, close=RARELY)
    def append(self, name: str, data: bytes, seq: str | None, close: bool) -> None:
        if not self.is_json(name):
            self.append_both(Append(name, data, None, seq, close), lambda stream, named: stream.append(data, **named))

    @rule(name=NAMES, items=st.lists(st.binary(max_size=20), min_size=1, max_size=5).filter(any))
    def append_many(self, name: str, items: list[bytes]) -> None:
        if not self.is_json(name):
            self.append_both(Append(name, b"".join(items)), lambda stream, named: stream.append_many(items, **named))

    @rule(name=NAMES, values=VALUES, seq=SEQS)
    def append_json(self, name: str, values: list[Any], seq: str | None) -> None:
        if self.is_json(name):
            texts = [json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"," for value in values]
            request = Append(name, b"".join(texts), None, seq)
            self.append_both(request, lambda stream, named: stream.append_json(*values, **named))

    @rule(name=NAMES, producer=st.sampled_from(["p", "q"]), epoch=st.integers(-1, 1),
          step=st.sampled_from([0, 0, 0, 0, -1, 1, -3]), data=DATA, seq=SEQS, close=RARELY)  # fmt: skip
    def append_by_producer(
        self, name: str, producer: str, epoch: int, step: int, data: bytes, seq: str | None, close: bool
    ) -> None:
        life = self.model.find(name)
        if self.is_json(name):
            return
        current = (life.producer(producer) if life else None) or (0, -1)
        following = current[1] + 1 if epoch == 0 else 0
        claim = Producer(producer, max(0, current[0] + epoch), max(0, following + step))
        self.append_both(Append(name, data, claim, seq, close), lambda stream, named: stream.append(data, **named))

    @rule(name=NAMES, by=st.sampled_from([None, None, "p"]))
    def close_stream(self, name: str, by: str | None) -> None:
        life = self.model.find(name)
        epoch, seq = (life.producer(by) if life and by else None) or (0, -1)
        claim = Producer(by, epoch, seq + 1) if by else None
        self.both(Append(name, b"", claim, close=True), lambda: self.store.stream(name).close(producer=claim))

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        self.both(Delete(name), lambda: self.store.delete(name))

    @rule(name=NAMES, part=PARTS)
    def trim(self, name: str, part: float) -> None:
        life = self.model.find(name)
        before = 0 if life is None else int(part * life.tail)
        if life is not None and life.content_type == JSON:
            before = life.boundary(before)
            self.uses.may_use(life.number, self.clock.now)
        self.both(Trim(name, before), lambda: self.store.stream(name).trim(before))

    # --- readers ----------------------------------------------------------------------------------------------------

    @rule(name=NAMES, part=PARTS, limit=st.sampled_from([None, 1, 7, 1000, 4096, 50_000]), at_tail=RARELY)
    def read(self, name: str, part: float, limit: int | None, at_tail: bool) -> None:
        life = self.model.find(name)
        offset = 0 if life is None else life.boundary(int(part * life.tail))
        try:
            chunk: Any = self.store.stream(name).read(NOW if at_tail else offset, limit=limit)
        except DurableLogError as error:
            chunk = error
        refusal = self.model.refusal(name, self.living)
        if refusal is not None:
            assert type(chunk).__name__ == refusal
            return
        life = self.model.life(name, self.living)
        self.uses.use(life.number, self.clock.now)
        offset = life.tail if at_tail else offset
        if life.first <= offset <= life.tail:
            assert not isinstance(chunk, Exception), chunk
            life.compare(chunk, offset, limit or QUIET.chunk_bytes_max)
        else:
            assert type(chunk).__name__ == "OffsetOutOfRange"

    # --- what goes on beside them -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 3, 30, 70, 400]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    def swept(self, work: Callable[[], None]) -> None:
        over = [life.number for life in self.model.lives.values() if not life.deleted and not self.living(life)]
        work()
        for number in over:
            if number in self.model.lives:
                self.model.delete(self.model.lives[number])

    @rule()
    def sweep(self) -> None:
        self.swept(self.store.engine.upkeep.sweep)

    @rule()
    def refill(self) -> None:
        """Spare segments are made."""
        self.store.engine._spares.refill()

    @rule()
    def cluster(self) -> None:
        """What is in the log moves to a clustered segment; nobody sees a difference."""
        self.store.engine.upkeep.cluster()

    @rule()
    def compact(self) -> None:
        self.swept(self.store.compact)
        assert self.store.stats()["catalog_runs"] <= 1

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.begin_again(crashed=False)

    @rule()
    def kill(self) -> None:
        killed = type(self.directory)()
        killed.files = copy_of(self.directory).files
        self.store.close()
        self.directory = killed
        self.begin_again(crashed=True)

    @rule(name=NAMES, data=DATA)
    def kill_after_a_written_append(self, name: str, data: bytes) -> None:
        if not self.is_json(name):
            self.append_both(
                Append(name, data), lambda stream, named: stream.append(data, durability="written", **named)
            )
            self.kill()

    def begin_again(self, *, crashed: bool) -> None:
        self.store = open_store(self.directory, QUIET, self.clock)
        self.uses.reopened(self.model, self.clock.now, crashed=crashed)
        report = self.store.report
        assert (report.damage, report.lost, report.unreadable_segments, report.cut) == ([], [], [], False)
        for name, life in self.model.readable(self.living).items():
            for known in life.producers:
                self.retry(name, Producer(*known))

    def retry(self, name: str, claim: Producer) -> None:
        """Whoever saw no answer to the last append before the end asks again."""
        if self.is_json(name):
            self.append_both(Append(name, b"0,", claim), lambda stream, named: stream.append_json(0, **named))
        else:
            self.append_both(Append(name, b"again", claim), lambda stream, named: stream.append(b"again", **named))

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        StoreMachine.steps += 1
        readable = self.model.readable(self.living)
        assert list(self.store.names()) == sorted(readable)
        for name, life in readable.items():
            info = self.store.stream(name).info()
            assert (info.number, info.first, info.tail, info.closed, info.content_type, info.ttl, info.expires_at) == (
                life.number, life.first, life.tail, life.closed, life.content_type, life.ttl, life.expires_at
            )  # fmt: skip
            assert info.fork_at == (life.base if life.source else None)
        assert self.store.stats()["streams"] == len(self.model.lives)
        self.store.engine.check()


def test_the_store_says_what_the_model_says(record_property):
    StoreMachine.steps = 0
    run_state_machine_as_test(
        StoreMachine,
        settings=settings(
            max_examples=STEPS // EXAMPLE_STEPS * 5 // 4,
            stateful_step_count=EXAMPLE_STEPS,
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
        ),
    )  # fmt: skip - without shrinking: it would take minutes, and a failure is a short program already
    record_property("steps of the model", StoreMachine.steps)
    assert StoreMachine.steps >= STEPS, "examples ended early; make more of them"
