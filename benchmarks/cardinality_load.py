"""Load on a store of many streams: creates, appends in turn, random reads.

Law of this room: what runs in a child (see ``cardinality_child``). Names and contents follow from a stream's number, so
no list of them takes memory, and 1,000 streams pay the same for theirs as a million.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

from benchmarks.cardinality_child import Answer, Worker
from durable_log.aio import AsyncStore

PAYLOAD = b"x" * 100


def name_of(number: int) -> str:
    """The name of a stream."""
    return f"tenant/{number % 1000:03}/stream/{number:08}"


def content_of(number: int) -> bytes:
    """What a prepared stream holds."""
    return f"{number:08}".encode() * 12 + b"last"


async def in_turn(numbers: Iterator[int], tasks: int, step: Callable[[int], Awaitable[object]], until: float) -> int:
    """So many tasks take the next number in turn until there are none, or it is too late. Returns how many it were."""
    done = 0

    async def work() -> None:
        nonlocal done
        for number in numbers:
            await step(number)
            done += 1
            if time.perf_counter() >= until:
                return

    await asyncio.gather(*[work() for _ in range(tasks)])
    return done


def create(worker: Worker, *, first: int, count: int, tasks: int, filled: bool) -> Answer:
    """Create streams, so many at once, each with its content if they are to be ``filled``."""
    face = AsyncStore.of(worker.store)

    async def step(number: int) -> None:
        await face.create(name_of(number), data=content_of(number) if filled else b"")

    began = time.perf_counter()
    asyncio.run(in_turn(iter(range(first, first + count)), tasks, step, float("inf")))
    seconds = time.perf_counter() - began
    return {"rate": count / seconds, "seconds": seconds, "count": count}


def append(worker: Worker, *, streams: int, writers: int, seconds: float, count_max: int) -> Answer:
    """Synced appends to the streams in turn, from where the last call ended."""
    face = AsyncStore.of(worker.store)
    turns = itertools.count(worker.turn) if count_max < 0 else range(worker.turn, worker.turn + count_max)

    async def step(turn: int) -> None:
        await face.stream(name_of(turn % streams)).append(PAYLOAD)

    before, gc_before = worker.store.stats(), worker.gc_seconds
    began, busy = time.perf_counter(), time.process_time()
    done = asyncio.run(in_turn(iter(turns), writers, step, began + seconds))
    elapsed, busy = time.perf_counter() - began, time.process_time() - busy
    worker.turn += done
    after = worker.store.stats()
    commits = _difference(after, before, "commits")
    return {
        "rate": done / elapsed,
        "count": done,
        "seconds": elapsed,
        "busy": busy / elapsed,
        "micros": busy / max(1, done) * 1e6,
        "group": done / max(1, commits),
        "sync": _difference(after, before, "sync_seconds") / elapsed,
        "gc": (worker.gc_seconds - gc_before) / elapsed,
        "resident": after["resident_streams"],
    }


def _difference(after: Mapping[str, Any], before: Mapping[str, Any], what: str) -> float:
    return float(after[what]) - float(before[what])


def read_random(worker: Worker, *, streams: int, count: int) -> Answer:
    """Read whole streams here and there; ``wrong`` counts those that do not hold what was stored."""
    numbers = random.Random(7).sample(range(streams), min(count, streams))
    began = time.perf_counter()
    wrong = sum(worker.store.stream(name_of(number)).read().data != content_of(number) for number in numbers)
    return {"wrong": wrong, "count": len(numbers), "micros": (time.perf_counter() - began) / len(numbers) * 1e6}
