"""From a trace to the images that a crash at any of its events may leave, and what is demanded of each of them.

Law of this room: it decides which choices are tried, and says what a store that opens from such files has to be. All
chance comes from whoever asks. Each image that is tried has a word by which it is found again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from random import Random
from typing import Final, NamedTuple

from expected import World, differences, found_in, is_duplicate
from media import PAGE, SECTOR, Crash, Event, Media, Note
from script import Begun, Now, Script, Step, Sure, Used
from twins import Clock, open_store

from durable_log.engine.cluster import cluster_name
from durable_log.engine.files import LOCK_NAME, Directory, MemoryDirectory, MemoryFile
from durable_log.engine.manifest import MANIFEST_NAME, load_manifest
from durable_log.engine.run_format import run_name
from durable_log.model import Append, Appended, Create, Options, StreamConfig
from durable_log.store import Store

Files = dict[str, bytes]
ALL_OF: Final = 4096
"""As many images as 12 sectors decide, each of which arrives or not."""


class Past(NamedTuple):
    """What was done and promised, to be compared with what is found: all steps of a script, and all names in it."""

    steps: list[Step]
    names: list[str]
    options: Options
    grows_in_place: bool

    @classmethod
    def of(cls, script: Script) -> Past:
        names = sorted({name for step in script.steps for name in step.world})
        return cls(script.steps, names, script.options, script.directory.grows_in_place)


class Promise(NamedTuple):
    """What holds at one moment: the worlds ``sure`` to ``begun`` may be left; ``uses`` are the last of each stream."""

    sure: int
    begun: int
    now: float
    uses: dict[str, float]


class Moment(NamedTuple):
    """After an event, and all that was told before the next one."""

    event: int
    media: Media
    promise: Promise
    is_last: bool = False


class _Knowledge:
    """What the notes of a trace tell, as it is walked."""

    def __init__(self, before: Promise | None) -> None:
        self.sure, self.begun, self.now, self.uses = before or Promise(0, 0, Clock()(), {})

    def take(self, told: object) -> None:
        if isinstance(told, Begun):
            self.begun, self.now = told
        elif isinstance(told, Sure):
            self.sure, self.now = told
        elif isinstance(told, Now):
            self.now = told.now
        elif isinstance(told, Used):
            self.now, self.uses = told.now, {**self.uses, told.name: told.now}

    def promise(self, begun: int) -> Promise:
        return Promise(self.sure, max(self.sure, begun), self.now, self.uses)


def moments(trace: Sequence[Event], media: Media | None = None, before: Promise | None = None) -> Iterator[Moment]:
    """Each moment of a trace. They share one object of media, which goes on with the next.

    What is told after an event, of what has been acknowledged, is demanded of a crash that comes then. What has only
    begun after it has changed nothing yet.
    """
    media, known, happened = media or Media(), _Knowledge(before), -1
    begun = known.begun
    for index, event in enumerate(trace):
        if isinstance(event, Note):
            known.take(event.what)
            continue
        if happened >= 0:
            yield Moment(happened, media, known.promise(begun))
        media.apply(event)
        happened, begun = index, known.begun
    if happened >= 0:
        yield Moment(happened, media, known.promise(begun), is_last=True)


def promised_at_the_end(trace: Sequence[Event]) -> Promise:
    """What holds after the last event."""
    known = _Knowledge(None)
    for event in trace:
        if isinstance(event, Note):
            known.take(event.what)
    return known.promise(known.begun)


# --- which images --------------------------------------------------------------------------------------------------


class Decision(NamedTuple):
    """One image of a moment."""

    grain: int
    torn: bool
    digits: tuple[int, ...]

    def word(self) -> str:
        return f"{self.grain}{'t' if self.torn else ''}/{'.'.join(map(str, self.digits))}"

    @classmethod
    def of(cls, word: str) -> Decision:
        grain, digits = word.split("/")
        return cls(
            int(grain.rstrip("t")), grain.endswith("t"), tuple(int(digit) for digit in digits.split(".") if digit)
        )


def decisions(media: Media, random: Random, limit: int, all_of: int = 0) -> Iterator[tuple[Decision, Files]]:
    """Different images of a crash now: all that there are, if so many are within ``limit`` or ``all_of``; else telling
    ones first, then any, up to ``limit``.
    """
    seen: set[int] = set()
    crashes = {
        (grain, torn): media.crash(grain, torn=torn) for grain, torn in ((SECTOR, False), (PAGE, False), (SECTOR, True))
    }
    few = prod(choice.radix for choice in crashes[SECTOR, False].choices)
    limit = max(limit, few) if few <= all_of else limit
    for (grain, torn), digits in _tried(crashes, random, limit, few):
        image = crashes[grain, torn].image(digits)
        mark = hash(frozenset(image.items()))  # of bytes that images share, it is computed once
        if mark not in seen:
            seen.add(mark)
            yield Decision(grain, torn, tuple(digits)), image
            if len(seen) >= limit:
                return


def _tried(
    crashes: dict[tuple[int, bool], Crash], random: Random, limit: int, few: int
) -> Iterator[tuple[tuple[int, bool], Sequence[int]]]:
    kind = (SECTOR, False)
    if few <= limit:
        for digits in product(*(range(choice.radix) for choice in crashes[kind].choices)):
            yield kind, digits
    else:
        for digits in _telling(crashes[kind]):
            yield kind, digits
    if few > 1:
        for _ in range(3 * limit):
            kind = random.choice(list(crashes))
            yield kind, _any(crashes[kind], random)


def _telling(crash: Crash) -> Iterator[Sequence[int]]:
    """All new, all old; all data or all entries only; the entries up to each; only one, all but one."""
    tops, at = [choice.radix - 1 for choice in crash.choices], crash.entries_from
    old = [0] * len(tops)
    yield tops
    yield old
    yield tops[:at] + old[at:]
    yield old[:at] + tops[at:]
    for end in range(at + 1, len(tops)):
        yield tops[:end] + old[end:]
    for data in (tops[:at], old[:at]):
        yield from ([*data, *(int(turn == index) for index in range(at, len(tops)))] for turn in range(at, len(tops)))
    lengths = [top if "length" in what else 0 for top, (_, what) in zip(tops, crash.choices, strict=True)]
    yield lengths[:at] + tops[at:]
    for index in range(at):
        yield [*tops[:index], 0, *tops[index + 1 :]]
        yield [*old[:index], tops[index], *old[index + 1 : at], *tops[at:]]


def _any(crash: Crash, random: Random) -> Sequence[int]:
    """Any image; often one in which nearly everything arrived, or nearly nothing."""
    likely = random.choice((0.1, 0.5, 0.9))
    return [
        random.randrange(choice.radix) if random.random() < 0.3
        else choice.radix - 1 if random.random() < likely else 0
        for choice in crash.choices
    ]  # fmt: skip


# --- what is demanded of them --------------------------------------------------------------------------------------


def in_memory(files: Files, grows_in_place: bool) -> MemoryDirectory:
    """These files, for a store that nobody watches."""
    directory = MemoryDirectory()
    directory.grows_in_place = grows_in_place  # type: ignore[misc]
    for name, content in files.items():
        file = directory.files[name] = MemoryFile(name)
        file._bytes[:] = content
    return directory


def opened(directory: Directory, past: Past, now: float) -> Store:
    return open_store(directory, past.options, Clock(now))


def examine(files: Files, past: Past, promise: Promise, *, onwards: bool = True) -> int:
    """Open a store from an image; it has to be what was promised, and with ``onwards`` to work. Returns which world it
    was.
    """
    directory = in_memory(files, past.grows_in_place)
    store = opened(directory, past, promise.now)
    world = judge(store, past, promise)
    assert_no_litter(store, directory)
    if onwards:
        go_on(store, directory, past, promise, world)
    return world


def judge(store: Store, past: Past, promise: Promise) -> int:
    """Which of the worlds the store holds that a crash may leave."""
    report = store.report
    assert report.damage == [], f"a crash is reported as damage: {report.damage}"
    assert report.lost == [], f"bytes are reported as lost: {report.lost}"
    assert (report.records_of_unknown_streams, report.unreadable_segments) == (0, [])
    _assert_not_early(store, past, promise)
    found = found_in(store, past.names)
    store.engine.check()
    world = next(
        (number for number in range(promise.begun, promise.sure - 1, -1) if past.steps[number].world == found), None
    )
    if world is None:
        raise AssertionError(_told(found, past, promise))
    listed = [name for name, life in sorted(found.items()) if not life.deleted]
    assert list(store.names()) == listed, "names are listed that are not there, or the other way round"
    return world


def _told(found: World, past: Past, promise: Promise) -> str:
    sure, begun, _, _ = promise
    told = differences(found, past.steps[sure].world)
    return f"no world from {sure} to {begun} is left; compared with the one that is sure:\n{told}"


def _assert_not_early(store: Store, past: Past, promise: Promise) -> None:
    for name, used in promise.uses.items():
        state = store.engine._catalog.get(name)
        if state is not None and state.config.ttl is not None and not state.deleted:
            earliest, latest = used + state.config.ttl, promise.now + state.config.ttl
            # In the log, times are whole milliseconds.
            assert earliest - 0.001 <= state.deadline <= latest, f"{name} expires {earliest - state.deadline} s early"


def assert_no_litter(store: Store, directory: Directory) -> None:
    """Every file is one that the manifest names, or of the log, or a spare."""
    engine = store.engine
    manifest = load_manifest(directory, 0)
    known = {LOCK_NAME, MANIFEST_NAME}
    known |= {cluster_name(file.number) for file in manifest.clustered} | {run_name(number) for number in manifest.runs}
    known |= {segment.file.name for segment in engine._reader.segments.values()}
    known |= {segment.file.name for segment in engine._spares._ready}
    litter = set(directory.names()) - known
    assert not litter, f"files are left over: {sorted(litter)}"
    missing = known - set(directory.names()) - {LOCK_NAME}
    assert not missing, f"files are missing: {sorted(missing)}"


def go_on(store: Store, directory: MemoryDirectory, past: Past, promise: Promise, world: int) -> None:
    """Send again what was sent last, append, close and open: everything is there."""
    engine = store.engine
    _send_again(store, past, promise, world)
    for name, life in past.steps[world].world.items():
        if not life.deleted and not life.closed:
            engine.execute(Append(name, b"on"))
            break
    engine.execute(Create("a new one", StreamConfig("a/b"), b"new"))
    names = [*past.names, "a new one"]
    before, listed = found_in(store, names), list(store.names())
    store.close()
    store = opened(directory, past, promise.now)
    assert store.report.damage == store.report.lost == []
    found = found_in(store, names)
    assert found == before, f"a store that was closed opens as another:\n{differences(found, before)}"
    assert list(store.names()) == listed
    store.engine.check()


def _send_again(store: Store, past: Past, promise: Promise, world: int) -> None:
    """What was stored is a duplicate; what was not is accepted, once."""
    for number in range(max(1, world - 3), min(world + 1, promise.begun) + 1):
        before = past.steps[world].world
        for request in past.steps[number].requests:
            if not isinstance(request, Append) or request.producer is None or request.name not in before:
                continue
            known = before[request.name].claim_of(request.producer.id)
            if number <= world and (known is None or known.epoch != request.producer.epoch):
                continue
            if number > world and len(past.steps[number].requests) > 1:
                continue
            answer = store.engine.execute(request)
            assert isinstance(answer, Appended)
            assert answer.duplicate == is_duplicate(before, request), f"{request} is answered with {answer}"
