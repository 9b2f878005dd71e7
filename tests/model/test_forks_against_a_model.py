"""Forks, trimming, expiry and recycled segments against a plain-Python model, with kills at any file operation.

Few streams are in memory, checkpoints are interrupted by other requests, and what a kill leaves is killed again while
it is opened.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from unittest import mock

from fork_reference import ForkModel, Life
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_store_against_a_model import refused
from twins import SMALL, Clock, TwinDirectory, open_store

from durable_log.engine import catalog, checkpoint, compaction, snapshot
from durable_log.engine.files import MemoryDirectory, MemoryFile
from durable_log.engine.keeper import Background
from durable_log.engine.manifest import MANIFEST_NAME, load_manifest
from durable_log.store import Store

NAMES = st.sampled_from([f"s{number}" for number in range(8)])
PARTS = st.floats(0, 1)
SIZES = st.sampled_from([1, 30, 4000, 4072, 20_000, 32_000])
STEPS = st.integers(0, 40)
QUIET = replace(
    SMALL, sweep_seconds=3600.0, recent_bytes_max=20_000, stream_recent_bytes_max=5000, cluster_segments=1000,
    cluster_seconds=1e9,
)  # fmt: skip
CHANGES = ("create", "write", "fill", "sync", "rename", "remove", "sync directory", "commit", "mark")


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

    def copy(self) -> RecyclingDirectory:
        copied = RecyclingDirectory()
        for name, file in self.files.items():
            copied.create(name).write(0, file.read(0, file.size()))
        return copied


class ForkMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model, and compares."""

    @initialize(seed=st.integers(0, 2**32))
    def open(self, seed: int) -> None:
        self.patches = [
            mock.patch.object(catalog, "IDLE_MAX", 2),
            mock.patch.object(Background, "wake"),
            *(mock.patch.object(module, "SLICE_STATES", 2) for module in (checkpoint, compaction, snapshot)),
            *(mock.patch.object(module, "pause", self.pause) for module in (checkpoint, compaction)),
        ]
        for patch in self.patches:
            patch.start()
        self.random, self.clock, self.model = random.Random(seed), Clock(), ForkModel()
        self.meanwhile: list[Callable[[], None]] = []
        self.inner = RecyclingDirectory()
        self.store = self.opened(self.inner)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
        for patch in getattr(self, "patches", ()):
            patch.stop()

    def opened(self, inner: RecyclingDirectory) -> Store:
        self.twin = TwinDirectory(inner)
        store = open_store(self.twin, QUIET, self.clock)
        report = store.report
        assert (report.damage, report.lost, report.unreadable_segments, report.cut) == ([], [], [], False)
        return store

    def pause(self) -> None:
        """A checkpoint or compaction lets others in."""
        while self.meanwhile and self.random.random() < 0.3:
            self.meanwhile.pop()()

    # --- requests ---------------------------------------------------------------------------------------------------

    @rule(name=NAMES, size=SIZES, expires=st.sampled_from([None, None, 50]))
    def create(self, name: str, size: int, expires: int | None) -> None:
        if name in self.model.readable(self.clock.now):
            return
        data, at = self.random.randbytes(size), math.inf if expires is None else self.clock.now + expires
        _, refusal = refused(
            lambda: self.store.create(name, data=data, expires_at=None if expires is None else self.clock.now + expires)
        )
        assert refusal == self.model.create(name, self.clock.now, Life(data, expires_at=at))

    @rule(name=NAMES, of=NAMES, part=PARTS)
    def fork(self, name: str, of: str, part: float) -> None:
        now = self.clock.now
        source = self.model.lives.get(of)
        if name in self.model.readable(now) or source is None or name == of:
            return
        at = source.first + int(part * (len(source.content) - source.first))
        _, refusal = refused(lambda: self.store.create(name, fork_of=of, fork_at=at))
        expected = self.model.refusal(of, now)
        if expected is None:
            life = Life(source.content[:at], source.first, source, source.expires_at)
            expected = self.model.create(name, now, life)
        assert refusal == expected, (refusal, expected)

    @rule(name=NAMES, size=SIZES, close=st.integers(0, 9))
    def append(self, name: str, size: int, close: int) -> None:
        data, life = self.random.randbytes(size), self.model.lives.get(name)
        _, refusal = refused(lambda: self.store.stream(name).append(data, close=close == 0))
        expected = self.model.refusal(name, self.clock.now)
        if expected is None and life is not None and life.closed:
            expected = "StreamClosed"
        assert refusal == expected
        if refusal is None and life is not None:
            life.content += data
            life.closed = close == 0

    @rule(name=NAMES)
    def delete(self, name: str) -> None:
        _, refusal = refused(lambda: self.store.delete(name))
        assert refusal == self.model.refusal(name, self.clock.now)
        if refusal is None:
            self.model.delete(name)

    @rule(name=NAMES, part=PARTS)
    def trim(self, name: str, part: float) -> None:
        life = self.model.lives.get(name)
        before = int(part * len(life.content)) if life else 0
        first, refusal = refused(lambda: self.store.stream(name).trim(before))
        assert refusal == self.model.refusal(name, self.clock.now)
        if refusal is None and life is not None:
            life.first = max(life.first, before)
            assert first == life.first

    @rule(name=NAMES, part=PARTS, limit=st.sampled_from([1, 1000, 5000, 2**20]))
    def read(self, name: str, part: float, limit: int) -> None:
        life = self.model.lives.get(name)
        offset = life.first + int(part * (len(life.content) - life.first)) if life else 0
        chunk, refusal = refused(lambda: self.store.stream(name).read(offset, limit=limit))
        assert refusal == self.model.refusal(name, self.clock.now)
        if chunk is not None and life is not None:
            assert chunk.data == life.content[offset : offset + limit]
            assert chunk.closed == (life.closed and chunk.next_offset == len(life.content))

    @rule(seconds=st.sampled_from([1, 30, 70]))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    # --- what goes on beside them -----------------------------------------------------------------------------------

    @rule()
    def sweep(self) -> None:
        self.store.engine.upkeep.sweep()
        self.model.sweep(self.clock.now)

    @rule()
    def cluster(self) -> None:
        self.store.engine.upkeep.cluster()

    @rule()
    def compact(self) -> None:
        self.store.compact()
        self.model.sweep(self.clock.now)
        assert self.store.stats()["catalog_runs"] <= 1

    @rule(requests=st.lists(st.tuples(st.integers(0, 4), NAMES, NAMES, PARTS, SIZES), min_size=1, max_size=8))
    def cluster_and_go_on(self, requests: list[tuple[int, str, str, float, int]]) -> None:
        """Requests that come while a checkpoint lets others in."""
        for what, name, of, part, size in requests:
            self.meanwhile.append(
                (
                    lambda name=name, size=size: self.create(name, size, None),
                    lambda name=name, of=of, part=part: self.fork(name, of, part),
                    lambda name=name, size=size: self.append(name, size, 1),
                    lambda name=name: self.delete(name),
                    lambda name=name, part=part: self.trim(name, part),
                )[what]
            )
        self.store.engine.upkeep.cluster()
        self.meanwhile.clear()

    # --- ends -------------------------------------------------------------------------------------------------------

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self.opened(self.inner)

    @rule(again=STEPS)
    def kill(self, again: int) -> None:
        self.killed(self.inner.copy(), again)

    @rule(step=STEPS, again=STEPS, compact=st.booleans())
    def kill_at(self, step: int, again: int, compact: bool) -> None:
        """A kill before the ``step``-th change of the files that clustering or compaction makes."""
        work = self.store.engine.upkeep.compact if compact else self.store.engine.upkeep.cluster
        self.killed(self.image_at(step, work), again)
        if compact:
            self.store.engine.upkeep.sweep()
            self.model.sweep(self.clock.now)

    def image_at(self, step: int, work: Callable[[], object]) -> RecyclingDirectory:
        """The files as they are before the ``step``-th change, or after all of them."""
        images, left, inner, twin = [], [step], self.inner, self.twin

        def hook(proceed: Callable[[], object]) -> object:
            if left[0] == 0:
                images.append(inner.copy())
            left[0] -= 1
            return proceed()

        twin.hooks.update(dict.fromkeys(CHANGES, hook))
        work()
        twin.hooks.clear()
        return images[0] if images else inner.copy()

    def killed(self, image: RecyclingDirectory, again: int) -> None:
        """What a kill left is opened, and killed once more meanwhile."""
        self.store.close()
        self.inner = image

        def open_it() -> None:
            self.twin.hooks.update(hooks)
            self.store = open_store(self.twin, QUIET, self.clock)

        self.twin = TwinDirectory(image)
        hooks = self.twin.hooks
        image = self.image_at(again, open_it)
        self.store.close()
        self.inner = image
        self.store = self.opened(image)
        manifest = load_manifest(image, 0)
        named = {f"{file.number:08x}.seg" for file in manifest.clustered} | {f"{run:08x}.run" for run in manifest.runs}
        assert {name for name in image.names() if not name.endswith(".log")} - {MANIFEST_NAME} == named

    @invariant()
    def all_is_as_in_the_model(self) -> None:
        if not hasattr(self, "store"):
            return
        readable = self.model.readable(self.clock.now)
        assert list(self.store.names()) == sorted(readable)
        for name, life in readable.items():
            info = self.store.stream(name).info()
            assert (info.first, info.tail, info.closed) == (life.first, len(life.content), life.closed), name
            assert self.store.stream(name).read(life.first, limit=2**22).data == life.content[life.first :], name
        assert self.store.stats()["streams"] == len(self.model.lives)
        self.store.engine.check()


TestForksAgainstAModel = ForkMachine.TestCase
TestForksAgainstAModel.settings = settings(
    max_examples=60, stateful_step_count=60, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
