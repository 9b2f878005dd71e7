"""An interrupt at any moment: no caller hangs, nothing is acknowledged that is not there, and the store opens again.

Python looks for signals where a function begins and behind every call into C, and nowhere else but where a loop begins
anew. The profiler is called at the same moments, and what it raises comes up as a signal's exception does.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from twins import SMALL, Clock, Task, TwinDirectory, copy_of, open_store

from durable_log.engine import checkpoint, compaction
from durable_log.errors import CommitFailed, StoreClosed
from durable_log.store import Store

STRIDE = int(os.environ.get("DURABLE_LOG_INTERRUPT_STRIDE", "0"))
"""1 tries every moment; 0 leaves out more of what has thousands of them."""
SECONDS_MAX = 5.0
CALM = replace(
    SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False, recent_bytes_max=1
)


class Interrupt:
    """Raises ``KeyboardInterrupt`` at the ``moment``-th moment of a call on this thread at which one may arrive."""

    def __init__(self, moment: int) -> None:
        self.moment, self.left, self.where = moment, moment, ""

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        if event not in ("call", "c_return") or "weakref" in frame.f_code.co_filename:
            return  # what is raised in a finalizer comes to nobody
        self.left -= 1
        if self.left == -1:
            sys.setprofile(None)
            name = getattr(argument, "__qualname__", "") if event == "c_return" else "its beginning"
            self.where = f"moment {self.moment}: {frame.f_code.co_qualname}:{frame.f_lineno}, {name}"
            raise KeyboardInterrupt

    def during(self, work: Callable[[], object]) -> bool:
        """Whether the work was interrupted."""
        sys.setprofile(self)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


def append(store: Store) -> None:
    store.stream("a").append(b"i")


def create(store: Store) -> None:
    store.create("new", data=b"i")


def fork(store: Store) -> None:
    store.create("new", fork_of="a", data=b"i")


def delete(store: Store) -> None:
    store.stream("gone").delete()


def trim(store: Store) -> None:
    store.stream("a").trim(3)


def read(store: Store) -> None:
    assert store.stream("cold").read().data == b"cold" * 100


def follow(store: Store) -> None:
    assert next(store.stream("cold").follow()).data == b"cold" * 100


def wait(store: Store) -> None:
    assert not store.stream("a").wait(store.stream("a").info().tail, timeout=0)


def cluster(store: Store) -> None:
    store.engine.upkeep.cluster()


def compact(store: Store) -> None:
    store.compact()


def close(store: Store) -> None:
    store.close()


def filled(twin: TwinDirectory) -> Store:
    store = open_store(twin, CALM, Clock())
    for name in ("a", "cold", "gone", "dead"):
        store.create(name, data=name.encode() * 100)
    store.engine.upkeep.cluster()
    store.delete("dead")
    store.stream("a").append(b"b")
    store.engine.upkeep.cluster()
    store.stream("a").append(b"c")
    store.create("warm", data=b"warm", ttl=1000)
    return store


SHORT = [append, create, fork, delete, trim, read, follow, wait]
LONG = [cluster, compact, close]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # generators are closed by the collector
@pytest.mark.parametrize("work", [*SHORT, *LONG], ids=lambda work: work.__name__)
def test_an_interrupt_at_any_moment_leaves_a_store_that_answers_and_opens_again(work, monkeypatch):
    stride = STRIDE or (67 if work in LONG else 7)
    for module in (checkpoint, compaction):
        monkeypatch.setattr(module, "pause", lambda: None)
    hook, threading.excepthook = threading.excepthook, lambda _: None
    moment, trouble = 0, list[str]()
    try:
        while (found := interrupted(work, moment)) is not None:
            trouble += found
            moment += stride
    finally:
        threading.excepthook = hook
    assert moment > 10
    assert not trouble, f"{len(trouble)} of {moment // stride} moments\n" + "\n".join(trouble[:20])


def interrupted(work: Callable[[Store], None], moment: int) -> list[str] | None:
    """What goes wrong if the work is interrupted at that moment; None if it has no such moment."""
    twin = TwinDirectory()
    store = filled(twin)
    beside, interrupt = [Task(store.stream("a").append, b"f")], Interrupt(moment)
    try:
        was_interrupted = Task(interrupt.during, lambda: work(store)).result(SECONDS_MAX)
    except AssertionError as error:
        return [f"{interrupt.where}: {error}"]
    beside += [Task(store.stream("a").append, b"o"), Task(store.stream("a").append, b"p", durability="written")]
    trouble = [f"{interrupt.where}: {each}" for each in answers(beside)]
    ending = Task(store.close)
    trouble += [f"{interrupt.where}: closing: {each}" for each in answers([ending])]
    if not ending.done:
        return trouble
    acknowledged = {data for data, task in zip(b"fop", beside, strict=True) if task.done and task.error() is None}
    if not was_interrupted and work is append:
        acknowledged.add(ord("i"))
    with open_store(copy_of(twin), CALM, Clock()) as again:
        found = again.stream("a").read(4 if work is trim else 0).data.replace(b"a", b"")
        wrong = len(set(found)) < len(found) or not acknowledged <= set(found) or not found.startswith(b"bc")
        if wrong or again.report.damage or again.report.lost:
            trouble.append(f"{interrupt.where}: found {found!r}, acknowledged {bytes(acknowledged)!r}, {again.report}")
        if again.stream("cold").read().data != b"cold" * 100 or again.stream("warm").read().data != b"warm":
            trouble.append(f"{interrupt.where}: other streams differ")
        again.engine.check()
        again.compact()
        again.engine.check()
    return trouble if interrupt.left < 0 else None


def answers(tasks: list[Task]) -> list[str]:
    """Those of them that hang, or fail as they must not."""
    trouble = []
    for task in tasks:
        try:
            error = task.error(SECONDS_MAX)
        except AssertionError as hanging:
            trouble.append(str(hanging))
            continue
        if error is not None and not isinstance(error, CommitFailed | StoreClosed):
            trouble.append(repr(error))
    return trouble
