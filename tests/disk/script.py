"""A store at work on a recorded disk, and a record of what it promised at which moment.

Law of this room: every operation is written into the trace when it begins, and again when it has been acknowledged;
so is whatever a viewer could see, as soon as that is more than was acknowledged. Whoever walks the trace knows, at each
event, the worlds that a crash may leave: one of those between the last that is sure and the last that has begun.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Any, NamedTuple

from expected import NOBODY, World, after, is_duplicate
from media import Event, Note
from quiet import commit_together, keep_time, refill
from recorded import RecordedDirectory
from twins import SMALL, Clock, open_store

from durable_log.errors import CommitFailed, StoreFull, StoreUnreadable
from durable_log.model import Append, Appended, Create, Delete, Options, Producer, Request, StreamConfig, Trim
from durable_log.store import Store

CALM = replace(
    SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, cluster_at_close=False, preallocate=False
)
"""Nothing happens by itself."""


class Begun(NamedTuple):
    """A crash from here on may leave that world, or one between it and the last that is sure."""

    world: int
    now: float


class Sure(NamedTuple):
    """That world was acknowledged, or somebody saw it: no crash from here on may leave an earlier one."""

    world: int
    now: float


class Used(NamedTuple):
    """A stream was used, and does not expire before its TTL has passed since."""

    name: str
    now: float


class Now(NamedTuple):
    """Time has passed."""

    now: float


class Ended(Exception):
    """The store takes no changes any more."""


class Step(NamedTuple):
    """One operation: its requests, which are committed together, and the world once they are."""

    requests: Sequence[Request]
    world: World


class WatchedDirectory(RecordedDirectory):
    """Whoever wants to look at the store before each event may do so. ``failed_at``: how long the trace was when a call
    failed; -1 if none has.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.look: Callable[[], None] = lambda: None
        self.failed_at = -1
        super().__init__(*arguments, **named)

    def record(self, event: Event) -> None:
        if not isinstance(event, Note):
            self.look()
        super().record(event)


class Script:
    """Does what a workload says. ``faults`` may make calls of the disk fail."""

    def __init__(self, random: Random, directory: WatchedDirectory | None = None, options: Options = CALM) -> None:
        self.random, self.options, self.clock = random, options, Clock()
        self.directory = directory or WatchedDirectory()
        self.directory.look = self._look
        self.steps = [Step((), NOBODY)]
        self.sure = 0
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        assert self._store is not None
        return self._store

    @property
    def is_open(self) -> bool:
        return self._store is not None

    @property
    def world(self) -> World:
        """What there is once all that was asked for has been done."""
        return self.steps[-1].world

    # --- what workloads say ---------------------------------------------------------------------------------------

    def open(self) -> None:
        try:
            self._store = open_store(self.directory, self.options, self.clock)
        except (StoreFull, StoreUnreadable) as failure:
            if self.failing:
                raise Ended from failure
            raise
        if self.sure < len(self.steps) - 1:
            self._settle()  # after a kill nothing is missing, and what is shown from here on is on disk

    def close(self, *, cluster: bool = False) -> None:
        """In good order. All that was written is sure then."""
        store, self._store = self.store, None
        store.engine.options = replace(self.options, cluster_at_close=cluster)
        try:
            store.close()
        except CommitFailed as failure:
            raise Ended from failure
        if isinstance(store.engine._committer.failure, CommitFailed):
            raise Ended
        self._settle()

    def kill(self) -> None:
        """The process ends without a word; what it has written stays in the page cache."""
        self._store = None
        self.directory.close()

    def create(self, name: str, data: bytes = b"", content_type: str = "a/b", **named: Any) -> None:
        config = StreamConfig(content_type, named.pop("ttl", None), named.pop("expires_at", None))
        self.do(Create(name, config, data, **named))

    def fork(self, name: str, of: str, at: int | None = None) -> None:
        self.do(Create(name, StreamConfig(self.world[of].content_type), fork_of=of, fork_at=at))

    def append(self, name: str, data: bytes, **named: Any) -> None:
        self.do(Append(name, data, **named))

    def claim(self, name: str, data: bytes, producer: tuple[str, int, int], **named: Any) -> None:
        self.do(Append(name, data, Producer(*producer), **named))

    def end(self, name: str) -> None:
        self.do(Append(name, b"", close=True))

    def delete(self, name: str) -> None:
        self.do(Delete(name))

    def trim(self, name: str, before: int) -> None:
        self.do(Trim(name, before))

    def use(self, name: str) -> None:
        """Read a stream, which renews its TTL; the keeper comes by and has that persisted, if it is worth it."""
        self.store.stream(name).read(self.world[name].first)
        self.step(lambda store: store.engine._committer.flush_touches())
        self._check_latch()
        self.directory.note(Used(name, self.clock()))

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.directory.note(Now(self.clock()))

    def bytes(self, least: int, most: int) -> bytes:
        return self.random.randbytes(self.random.randint(least, most))

    def do(self, *requests: Request) -> None:
        """Have these committed in one group, and see that they are answered as they have to be."""
        answers = self._expected(requests)
        self._begin(requests, answers[-1][0])
        results = self._told(requests)
        self._see_to(requests, results, answers)
        for request in requests:
            self.directory.note(Used(request.name, self.clock()))
        # A duplicate is acknowledged when its original is durable, whatever level the retry asks for.
        if any(map(_is_synced, requests)) or any(isinstance(told, Appended) and told.duplicate for told in results):
            self._settle()

    def step(self, work: Callable[[Store], object]) -> None:
        """Something that changes no stream. It may fail, if the disk does."""
        try:
            work(self.store)
        except CommitFailed as failure:
            raise Ended from failure
        except (StoreFull, StoreUnreadable, OSError):
            if not self.failing:
                raise

    def cluster(self) -> None:
        self.step(lambda store: store.engine.upkeep.cluster())

    def checkpoint(self) -> None:
        """What the clusterer does with segments that are full, while the last one goes on."""
        self.step(lambda store: store.engine.upkeep.checkpointer.run())

    def compact(self) -> None:
        self.step(lambda store: store.compact())

    def tidy(self) -> None:
        """What the clusterer does after a checkpoint."""

        def until_nothing_is_due(store: Store) -> None:
            while store.engine.upkeep._compactor.step():
                pass

        self.step(until_nothing_is_due)

    def refill(self) -> None:
        self.step(refill)

    def keep_time(self) -> None:
        """What was only written is synced, and the end of the log marked."""
        self.step(keep_time)
        self._check_latch()
        self._settle()

    def expire(self, name: str) -> None:
        """Have a stream's time pass, and sweep."""
        life = self.world[name]
        self._begin((), after(self.world, Delete(name)))
        self.clock.now += (life.ttl or 0) + 1 if life.expires_at is None else life.expires_at - self.clock.now
        self.step(lambda store: store.engine.upkeep.sweep())
        self._check_latch()
        self._settle()

    # --- how it is done -------------------------------------------------------------------------------------------

    @property
    def failing(self) -> bool:
        """Whether the disk has failed."""
        return self.directory.failed_at >= 0

    def _check_latch(self) -> None:
        if self.store.engine._committer.failure is not None:
            raise Ended

    def _expected(self, requests: Sequence[Request]) -> list[tuple[World, World]]:
        """The world after and before each of them."""
        answers, world = [], self.world
        for request in requests:
            before, world = world, after(world, request)
            answers.append((world, before))
        return answers

    def _begin(self, requests: Sequence[Request], world: World) -> None:
        self.steps.append(Step(requests, world))
        self.directory.note(Begun(len(self.steps) - 1, self.clock()))

    def _settle(self) -> None:
        self.sure = len(self.steps) - 1
        self.directory.note(Sure(self.sure, self.clock()))

    def _told(self, requests: Sequence[Request]) -> list[Any]:
        if len(requests) > 1:
            return commit_together(self.store, requests)
        try:
            return [self.store.engine.execute(requests[0])]
        except (CommitFailed, StoreFull) as refusal:
            return [refusal]

    def _see_to(self, requests: Sequence[Request], results: list[Any], answers: list[tuple[World, World]]) -> None:
        if any(isinstance(result, CommitFailed) for result in results):
            raise Ended
        if any(isinstance(result, StoreFull) for result in results):
            assert self.failing, results
            assert all(isinstance(result, StoreFull) for result in results), results
            self._begin((), self.steps[-2].world)
            self._settle()
            raise Ended
        for request, result, (world, before) in zip(requests, results, answers, strict=True):
            assert not isinstance(result, BaseException), (request, result)
            if isinstance(result, Appended):
                assert isinstance(request, Append)
                life = world[request.name]
                assert result.duplicate == is_duplicate(before, request)
                assert (result.next_offset, result.closed) == (life.tail, life.closed), (request, result)

    def _look(self) -> None:
        """What viewers see is one of the worlds, and has to stay."""
        if self._store is None or self.sure == len(self.steps) - 1:
            return
        catalog = self._store.engine._catalog
        names = {name for step in self.steps[self.sure :] for name in step.world}
        seen = {name: state for name in names if (state := catalog.find_resident(name)) is not None}
        for world in range(self.sure, len(self.steps)):
            lives = self.steps[world].world
            if all(
                name in lives
                and (state.durable, state.durable_closed, state.first, state.gone)
                == ((state.durable, state.durable_closed, state.first, True) if lives[name].deleted
                    else (lives[name].tail, lives[name].closed, lives[name].first, False))
                for name, state in seen.items()
            ):  # fmt: skip
                if world > self.sure:
                    self.sure = world
                    self.directory.note(Sure(world, self.clock()))
                return
        raise AssertionError(f"viewers see no world between {self.sure} and {len(self.steps) - 1}")


def _is_synced(request: Request) -> bool:
    return not isinstance(request, Append) or request.durability == "sync" or request.close
