"""The whole engine, simulated from one number: generations of work, faults, crashes and reopening.

Law of this room: everything happens on one thread, in an order that the seed decides. What the store does in the
background is called here, at any moment, also between the slices of a checkpoint; clocks stand still unless they are
moved. Here is when things happen; what is done is in ``workload``, what has to be true afterwards in ``history``.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import random
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

from history import History, Watched, seen_in, seen_of
from reference import Life
from rot import Rot
from simulated_disk import EVERYTHING, NEEDS_SPACE, READS, Crash, Fault, SimulatedDisk
from workload import Workload

from durable_log.engine import (
    catalog,
    checkpoint,
    commit,
    compaction,
    edits,
    expiry,
    keeper,
    loading,
    manifest,
    reclaim,
    recovery,
    snapshot,
    upkeep,
    writer,
)
from durable_log.engine.checkpoint import Checkpointer
from durable_log.engine.commit import Committer
from durable_log.engine.compaction import Compactor
from durable_log.engine.files import LOCK_NAME
from durable_log.engine.keeper import Background
from durable_log.engine.manifest import MANIFEST_NAME, load_manifest
from durable_log.engine.opening import open_in
from durable_log.engine.segment import LogSegment
from durable_log.engine.watermark import Crowd
from durable_log.engine.writer import LogWriter
from durable_log.errors import CommitFailed, StoreFull, StoreUnreadable
from durable_log.model import EARLIEST, Options
from durable_log.store import Store

GENERATIONS = (4, 6)
STEPS = (8, 60)
REMEMBERED = 30
COUNTED: list[tuple[Any, str, str]] = [
    (recovery, "_harden", "hardening"), (LogSegment, "recycle", "recycled segment"),
    (Checkpointer, "_finish", "checkpoint"), (Compactor, "rewrite", "rewrite"), (Compactor, "_merge", "merge of runs"),
    (Compactor, "_merge_small", "merge of segments"), (LogWriter, "_enter", "roll"),
]  # fmt: skip
FAILURES = (OSError, StoreFull, StoreUnreadable, CommitFailed)
"""What may come of a fault."""


class Failed(Exception):
    """The simulation found something wrong."""


class FakeTime:
    """The module ``time``, as far as the engine asks it."""

    def __init__(self) -> None:
        self.now, self.passed = 1_900_000_000.0, 1000.0

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"somebody sleeps for {seconds} s")

    def move(self, seconds: float) -> None:
        self.now += seconds
        self.passed += seconds


class Simulation:
    """One seed. ``steps_max``: after so many steps it comes to an end, for those who look for the shortest failure."""

    def __init__(self, seed: int, steps_max: int | None = None, tell: Callable[[str], None] | None = None) -> None:
        self.seed, self.steps_max, self._tell = seed, steps_max, tell
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.trace = hashlib.blake2b(digest_size=16)
        self.time = FakeTime()
        self.history = History(self.time.time)
        self.history.deadline, self.history.is_there = self._deadline, self._is_there
        if tell is not None:
            self.history.tell = tell
        self.last: deque[str] = deque(maxlen=REMEMBERED)
        self.generation = self.steps = 0
        self.nested = self.looked = False
        self.closed = True
        self.cached = False
        """Whether the page cache has outlived whoever wrote, so that nothing that was written may be missing."""
        self.store: Any = None
        self._watched = Watched()
        self.options = self._options()
        self.disk = SimulatedDisk(self.chance, self.counts, self.trace, grows_in_place=self.chance.random() < 0.7)
        self.workload = Workload(self)

    # --- from the seed ------------------------------------------------------------------------------------------------

    def _options(self) -> Options:
        chance = self.chance
        segment = chance.choice((64, 64, 64, 96, 128, 256)) * 1024
        return Options(
            segment_bytes=segment,
            record_bytes_max=chance.choice((32 * 1024, segment // 2)),
            chunk_bytes_max=chance.choice((4096, 50_000, 2**20)),
            staged_bytes_max=chance.choice((1, 5000, 2**20)),
            recent_bytes_max=chance.choice((1, 5000, 20_000, 2**20)),
            stream_recent_bytes_max=chance.choice((1, 1000, 5000, 2**18)),
            durability=chance.choice(("sync", "sync", "written")),
            preallocate=chance.random() < 0.8,
            cluster_segments=chance.choice((1, 2, 4)),
            cluster_seconds=chance.choice((0.0, 60.0)),
            cluster_at_close=chance.random() < 0.7,
        )

    @contextmanager
    def _patched(self) -> Iterator[None]:
        chance = self.chance
        nonces = random.Random(self.seed)
        small: dict[Any, dict[str, tuple[int, ...]]] = {
            catalog: {"IDLE_MAX": (0, 1, 2, 4), "NAMES_PAGE": (1, 2, 5), "EVICTED_AT_ONCE": (1, 3)},
            checkpoint: {"SLICE_STATES": (1, 2, 4), "EXPIRY_GROUP_MIN": (1, 2, 1000)},
            snapshot: {"SLICE_STATES": (1, 2, 4)},
            edits: {"SETTLED_AT_ONCE": (1, 3)},
            compaction: {"RUNS_MAX": (1, 2, 4), "SMALL_MAX": (2, 3, 8), "SLICE_STATES": (1, 2, 4)},
            reclaim: {"ROWS_AT_ONCE": (1, 2)},
            loading: {"LET_IN_AT_ONCE": (1, 2)},
            upkeep: {"SWEPT_AT_ONCE": (1, 3)},
            expiry: {"EXPIRY_GONE_MIN": (0, 2, 64)},
            keeper: {"SPARES": (1, 2), "RECYCLED_MAX": (1, 3, 8)},
        }
        with ExitStack() as stack:
            enter = stack.enter_context
            for module, names in small.items():
                for name, values in names.items():
                    enter(mock.patch.object(module, name, chance.choice(values)))
            for module in (checkpoint, compaction, reclaim):
                enter(mock.patch.object(module, "pause", self.pause))
            for module in (checkpoint, commit, keeper, writer):
                enter(mock.patch.object(module, "time", self.time))
            enter(mock.patch.object(manifest, "random_bytes", nonces.randbytes))
            for owner in (Background, Committer):
                enter(mock.patch.object(owner, "start"))
            for name, call in self._watched.hooks().items():
                enter(mock.patch.object(Committer, name, call))
            enter(mock.patch.object(Crowd, "wait", self._crowd_waits()))
            for owner, name, what in COUNTED:
                enter(mock.patch.object(owner, name, self._counted(getattr(owner, name), what)))
            yield

    def _counted(self, original: Callable[..., Any], what: str) -> Callable[..., Any]:
        """The same; that it has changed something on the disk is counted."""

        def call(*arguments: Any, **named: Any) -> Any:
            before = self.disk.changes
            result = original(*arguments, **named)
            self.counts[what] += self.disk.changes > before
            return result

        return call

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All generations. Raises :class:`Failed`."""
        try:
            with self._patched():
                self._run()
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}: {frame.line}"
            raise Failed(f"{type(error).__name__}: {error} ({where})") from error
        finally:
            if self.store is not None:
                atexit.unregister(self.store.engine.close)
            self.disk.discard_all()

    def _run(self) -> None:
        for generation in range(self.chance.randint(*GENERATIONS)):
            self.generation = generation
            self._live()
            if self.over:
                break
        self.open(faults=False)
        self.look()
        self._plan_nothing()
        self.store.close()
        if self.chance.random() < 0.4:
            Rot(self).check()

    @property
    def over(self) -> bool:
        return self.steps_max is not None and self.steps >= self.steps_max

    def _live(self) -> None:
        """One generation."""
        self.open(faults=self.generation > 0)
        self.look()
        self._plan()
        closed = False
        try:
            for _ in range(self.chance.randint(*STEPS)):
                self.step()
                if self.over:
                    break
            if self.chance.random() < 0.4:
                self.note("close")
                closed = self._close()
        except Crash:
            self.note("crash")
            self.counts["crash in work"] += 1
        self._end(closed=closed)

    def step(self) -> None:
        """One operation."""
        self.steps += 1
        self.workload.step()

    def _close(self) -> bool:
        fired = self.disk.fired
        try:
            self.store.close()
        except CommitFailed:
            self.counts["close that tells of a loss"] += 1  # of what was acknowledged as written
        self.counts["close"] += 1
        return self.disk.fired == fired and not isinstance(self.failure, CommitFailed)

    @property
    def failure(self) -> Any:
        return self.store.engine._committer.failure

    def _end(self, *, closed: bool) -> None:
        """The process ends, and maybe the power with it."""
        atexit.unregister(self.store.engine.close)
        self.closed = closed
        self._next_disk()

    def _next_disk(self) -> None:
        disk = self.disk
        power = self.chance.random() < 0.6
        self.note("loss of power" if power else "end of the process")
        self.counts["loss of power" if power else "end of the process"] += 1
        if power:
            image = disk.image()
            self.cached = False
            disk.discard_all()
            self.disk = SimulatedDisk(self.chance, self.counts, self.trace, image, grows_in_place=disk.grows_in_place)
        else:
            self.cached = (self.cached or self.looked) and not disk.syncs_failed
            disk.revive()
        self.looked = False

    # --- opening ------------------------------------------------------------------------------------------------------

    def open(self, *, faults: bool) -> None:
        """Open the store, whatever happens meanwhile."""
        first = True
        while True:
            self._plan_opening(faults and self.chance.random() < (0.4 if first else 0.2))
            first = False
            try:
                self.store = Store(open_in(self.disk, self.options, self.time.time))
            except Crash:
                self.note("crash while it is opened")
                self.counts["crash in recovery"] += 1
                self.closed = False
                self._next_disk()
            except FAILURES as error:
                self.note(f"opening failed: {error!r}")
                self.disk.demand_a_reason(error)
                self.counts["opening failed"] += 1
                self.closed = False
                self.disk.revive()
            else:
                break
        self.disk.revive()
        self._watched.histories = {self.store.engine._committer: self.history}

    def _plan_opening(self, some: bool) -> None:
        chance, disk = self.chance, self.disk
        disk.revive()
        if not some:
            return
        if chance.random() < 0.6:
            disk.crash_at = chance.randint(1, 12)
        else:
            disk.plan = [self._fault(12, 30)]

    def _plan_nothing(self) -> None:
        self.disk.revive()

    def _plan(self) -> None:
        """What is going to fail in this generation."""
        chance, disk = self.chance, self.disk
        disk.revive()
        if chance.random() < 0.5:
            disk.crash_at = chance.randint(1, 250)
        if chance.random() < 0.6:
            disk.plan = [self._fault(150, 300) for _ in range(chance.choice((1, 1, 2, 3)))]

    def _fault(self, changes: int, reads: int) -> Fault:
        chance = self.chance
        what = chance.choice(("any", "space", "sync", "read", "once", "once"))
        first = chance.randint(1, reads if what == "read" else changes)
        if what == "space":
            kinds = NEEDS_SPACE if not self.disk.grows_in_place else NEEDS_SPACE - {"commit", "mark"}
            how = chance.choice(("fail", "short"))
            return Fault(kinds, first, first + chance.choice((1, 5, 20, 1000)), errno.ENOSPC, how)
        if what == "sync":
            return Fault(frozenset({"sync"}), first, first + 10_000, errno.EIO, chance.choice(("fail", "lost")), True)
        if what == "read":
            return Fault(frozenset(READS), first, first + chance.choice((1, 3, 50)), errno.EIO, "fail")
        kinds = EVERYTHING if what == "any" else frozenset({chance.choice(sorted(EVERYTHING))})
        error = chance.choice((errno.EIO, errno.EIO, errno.ENOSPC, errno.EMFILE))
        end = first + (10_000 if what == "once" else chance.choice((1, 2, 10)))
        return Fault(kinds, first, end, error, chance.choice(("fail", "short", "lost")), what == "once")

    # --- looking ------------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """After opening: find out what is there, which has to be one of the histories; then compare everything."""
        history, report = self.history, self.store.engine.report
        assert (report.damage, report.lost, report.unreadable_segments) == ([], [], []), report
        self.counts["cut"] += report.cut
        self._check_files()
        # Whoever looks brings streams into memory; so sometimes it is a copy that is looked at.
        with self._copy() if self.chance.random() < 0.5 else nullcontext() as copy:
            with self.silent():
                self._choose()
            history.uses.reopened(history.current, self.time.now, crashed=not self.closed)
            self.compare(used=copy is None)
            self.store.engine.check()
        self.looked, self.cached, self.disk.syncs_failed = True, False, False
        self.workload.reopened()

    @contextmanager
    def _copy(self) -> Iterator[Store]:
        """A copy of the store, opened in its place for a while: opening twice finds the same as opening once."""
        disk, store = self.disk, self.store
        self.disk = SimulatedDisk(
            self.chance, self.counts, self.trace, disk.contents(), grows_in_place=disk.grows_in_place
        )
        self.disk.syncs_failed = disk.syncs_failed
        try:
            self.store = Store(open_in(self.disk, self.options, self.time.time))
            try:
                yield self.store
            finally:
                atexit.unregister(self.store.engine.close)
        finally:
            self.disk.discard_all()
            self.disk, self.store = disk, store

    @contextmanager
    def silent(self) -> Iterator[None]:
        """The disk lets everything pass: somebody looks who is not part of the simulation."""
        before, self.disk.quiet = self.disk.quiet, True
        try:
            yield
        finally:
            self.disk.quiet = before

    def _choose(self) -> None:
        history, found = self.history, self._physical()
        candidates, engine = history.candidates, self.store.engine
        if self.cached and not self.disk.syncs_failed:
            candidates = [*history.doubts, history.current]
        for model in candidates:
            self._resolve(model, found)
            if {name: seen_in(life) for name, life in _named(model)} == found:
                break
        else:
            raise AssertionError(
                f"what is there is none of {len(candidates)} possible histories: {self._differs(found)}"
            )
        self.counts["doubts settled"] += bool(history.doubts)
        model.next_number = engine._catalog.next_number
        assert model.next_number > max(model.lives, default=0)
        history.versions, history.doubts = [model], []

    def _differs(self, found: dict[str, Any]) -> str:
        lines = []
        for model in self.history.candidates:
            seen = {name: seen_in(life) for name, life in _named(model)}
            lines.append(
                ", ".join(
                    f"{name!r}: found {found.get(name)}, not {seen.get(name)}"
                    for name in sorted(found.keys() | seen.keys())
                    if found.get(name) != seen.get(name)
                )
            )
        return "\n  ".join(lines)

    def _physical(self) -> dict[str, tuple[Any, ...]]:
        """All that the store has, expired or not, by name."""
        found = {}
        for name in self.workload.names:
            state = self.store.engine._catalog.get(name)
            if state is not None:
                found[name] = seen_of(state)
        return found

    def _resolve(self, model: Any, found: dict[str, tuple[Any, ...]]) -> None:
        """Streams that may have expired may have been deleted by a sweep that nobody knows the end of."""
        for name, life in _named(model):
            present = found.get(name)
            gone = present is None or present[0] != life.number or present[1]
            if (
                life.number in model.lives
                and not life.deleted
                and gone
                and self.history.uses.alive(life, self.time.now) is not True
            ):
                model.delete(model.lives[life.number])

    def _check_files(self) -> None:
        with self.silent():
            current = load_manifest(self.disk, 0)
        named = {f"{file.number:08x}.seg" for file in current.clustered} | {f"{run:08x}.run" for run in current.runs}
        there = {name for name in self.disk.names() if not name.endswith(".log")} - {MANIFEST_NAME, LOCK_NAME}
        assert there == named, (there, named)

    def compare(self, *, used: bool = True) -> None:
        """Everything that readers see is as in the model. ``used``: that somebody reads counts."""
        store, history = self.store, self.history
        readable = history.visible.readable(history.living)
        assert list(store.names()) == sorted(readable), (list(store.names()), sorted(readable))
        for name, life in readable.items():
            self.workload.compare_info(life)
            offset, content = life.first, b""
            while True:
                chunk = store.stream(name).read(offset)
                life.compare(chunk, offset, self.options.chunk_bytes_max)
                content, offset = content + chunk.data, chunk.next_offset
                if chunk.up_to_date:
                    break
            if used:
                history.uses.use(life.number, self.time.now)
            assert content == life.content[life.first :]
            assert store.stream(name).read(EARLIEST, limit=1).offset == life.first

    # --- what the workload needs --------------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """Remember what was done."""
        line = f"{self.generation}.{self.steps}{'+' if self.nested else ''} {what}"
        self.last.append(line)
        if self._tell is not None:
            self._tell(line)

    def pause(self) -> None:
        """A checkpoint or a compaction lets others in."""
        if self.nested or self.store.engine._closed or self.chance.random() > 0.15:
            return
        self.nested = True
        try:
            for _ in range(self.chance.randint(1, 3)):
                self.workload.step(nested=True)
                self.counts["operations between slices"] += 1
        finally:
            self.nested = False

    def commit_waiting(self) -> None:
        """A step of the committer thread."""
        committer = self.store.engine._committer
        with committer._lock:
            committer._commit_waiting()
            committer._due = committer._keep_time()

    def _crowd_waits(self) -> Callable[[Crowd], None]:
        def wait(crowd: Crowd) -> None:
            self.commit_waiting()

        return wait

    def _deadline(self, name: str) -> float:
        with self.silent():
            state = self.store.engine._catalog.get(name)
        return 0.0 if state is None else state.deadline

    def _is_there(self, life: Life) -> bool:
        with self.silent():
            state = self.store.engine._catalog.get(life.name)
        return state is not None and state.number == life.number and not state.deleted


def _named(model: Any) -> list[tuple[str, Any]]:
    return [(name, model.lives[number]) for name, number in sorted(model.names.items())]
