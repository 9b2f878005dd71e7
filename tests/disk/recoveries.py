"""Crashes while a store is opened, after a crash or after a kill.

Law of this room: an opening is recorded like any work, and its trace is walked like any other. After a crash, what the
first opening would have shown is what the second one shows, however far the first came. After a kill, what lay in the
page cache may still be lost, until the opening has returned: from then on it has shown it.
"""

from __future__ import annotations

from collections.abc import Iterator

from crashes import Files, Moment, Past, Promise, in_memory, judge, moments, opened
from media import Event, Media
from recorded import RecordedDirectory


def exactly(promise: Promise, world: int) -> Promise:
    return promise._replace(sure=world, begun=world)


def opening_of(directory: RecordedDirectory, past: Past, promise: Promise) -> tuple[int, list[Event]]:
    """Open a store; which world it is, and what the opening did to the disk."""
    store = opened(directory, past, promise.now)
    trace = list(directory.trace)
    directory.recording = False
    world = judge(store, past, promise)
    directory.close()
    return world, trace


def crashes_while_opening(files: Files, past: Past, promise: Promise) -> Iterator[Moment]:
    """Moments of opening what a crash has left; whatever a second one leaves, it has to be the same world."""
    directory = RecordedDirectory(files, grows_in_place=past.grows_in_place)
    world, trace = opening_of(directory, past, promise)
    return moments(trace, Media(files), exactly(promise, world))


def crashes_after_a_kill(media: Media, past: Past, promise: Promise) -> Iterator[Moment]:
    """Moments of opening what a kill has left: all that was written is in the page cache."""
    return crashes_after_opening(RecordedDirectory(media.shown(), media=media.copy()), past, promise)


def crashes_after_opening(directory: RecordedDirectory, past: Past, promise: Promise) -> Iterator[Moment]:
    """Moments of opening a store on a disk that may lose some of what it shows. At the last of them the store has been
    seen, and has to stay as it is.
    """
    before, directory.grows_in_place = directory.media.copy(), past.grows_in_place
    world, trace = opening_of(directory, past, promise)
    return (
        moment._replace(promise=exactly(promise, world)) if moment.is_last else moment
        for moment in moments(trace, before, promise)
    )


def open_twice(files: Files, past: Past, promise: Promise) -> None:
    """Two openings find the same, and the second one leaves every byte as it is."""
    directory = in_memory(files, past.grows_in_place)
    world = judge(opened(directory, past, promise.now), past, promise)
    once = {name: bytes(file._bytes) for name, file in directory.files.items()}
    assert judge(opened(directory, past, promise.now), past, exactly(promise, world)) == world
    twice = {name: bytes(file._bytes) for name, file in directory.files.items()}
    changed = sorted(name for name in {*once, *twice} if once.get(name) != twice.get(name))
    assert not changed, f"a second opening has changed {changed}"
