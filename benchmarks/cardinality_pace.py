"""The row pace: how long an append takes while a clustering pass runs, and while none does.

Law of this room: one run, in which passes and pauses take turns; an append counts as during a pass if any part of it
was. Latencies are kept as plain numbers, so that keeping them makes no work for the collector of garbage.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from statistics import median

from benchmarks.cardinality_child import Answer, Worker, close_store
from benchmarks.cardinality_load import PAYLOAD, create, name_of
from benchmarks.cardinality_stores import CLUSTERING_OFF, FEW, WRITERS, Bench, Figure, at_most
from durable_log.aio import AsyncStore

TASKS = 64
MODERATE = 4000
"""Appends a second, of all writers together."""
SECONDS_MAX = 150.0
"""A pass that does not end within this time goes on without appends."""


def pace(bench: Bench) -> Iterator[Figure]:
    """Percentiles during a pass against those without, at full speed and at a moderate rate."""
    for streams in sorted({min(FEW, bench.streams), bench.streams}):
        with bench.directory() as path, bench.child(path, **CLUSTERING_OFF) as child:
            child.call(create, first=0, count=streams, tasks=WRITERS, filled=False)
            for rate in (0, MODERATE):
                passes, between = (6, 6.0) if bench.full else (1, 0.15)
                found = child.call(measure, streams=streams, rate=rate, passes=passes, between=between)
                yield from _figures(bench, found, f"{streams:,} streams, {rate or 'full speed'}")
            child.call(close_store)


def _figures(bench: Bench, found: Answer, what: str) -> Iterator[Figure]:
    bench.note(passes_took=found["passes"], appends_without=found["calm"]["count"],
               appends_during=found["busy"]["count"])  # fmt: skip
    for side in ("calm", "busy"):
        bench.note(side=side, **{f"{key}_ms": found[side][key] * 1e3 for key in ("p50", "p99", "p999", "max")})
    for percentile, name in (("p99", "p99"), ("p999", "p99.9")):
        ratio = found["busy"][percentile] / found["calm"][percentile]
        if percentile == "p99":
            yield at_most(f"{name} while clustering : without ({what})", ratio, "x", 3)
        else:
            yield Figure(f"{name} while clustering : without ({what})", ratio, "x")


def measure(worker: Worker, *, streams: int, rate: int, passes: int, between: float) -> Answer:
    """Appends of 64 tasks, while on a thread passes and pauses take turns."""
    begun, took, windows = array("d"), array("d"), list[tuple[float, float]]()
    face, done, until = AsyncStore.of(worker.store), False, time.monotonic() + SECONDS_MAX

    def cluster() -> None:
        for _ in range(passes):
            time.sleep(between)
            began = time.perf_counter()
            windows.append((began, math.inf))
            worker.store.engine.upkeep.cluster()
            windows[-1] = (began, time.perf_counter())
            if time.monotonic() > until:
                return
        time.sleep(between / 2)

    def stop() -> None:
        nonlocal done
        done = True

    async def write(task: int) -> None:
        number = task
        due = time.perf_counter() + task / (rate or 1)
        while not done:
            if rate:
                due += TASKS / rate
                await asyncio.sleep(due - time.perf_counter())
            began = time.perf_counter()
            await face.stream(name_of(number % streams)).append(PAYLOAD)
            took.append(time.perf_counter() - began)
            begun.append(began)
            number += TASKS

    async def main() -> None:
        tasks = [asyncio.create_task(write(task)) for task in range(TASKS)]
        loop = asyncio.get_running_loop()
        loop.call_later(SECONDS_MAX, stop)
        await loop.run_in_executor(None, cluster)
        stop()
        await asyncio.gather(*tasks)

    asyncio.run(main())
    return _split(begun, took, windows)


def _split(begun: array[float], took: array[float], windows: list[tuple[float, float]]) -> Answer:
    calm, busy = array("d"), array("d")
    starts = [start for start, _ in windows]
    for began, seconds in zip(begun, took, strict=True):
        at = bisect_right(starts, began + seconds) - 1
        (busy if at >= 0 and began < windows[at][1] else calm).append(seconds)
    passes = [end - start for start, end in windows]
    return {"passes": passes, "median_pass": median(passes), "calm": _percentiles(calm), "busy": _percentiles(busy)}


def _percentiles(seconds: array[float]) -> Answer:
    ordered = sorted(seconds) or [0.0]
    last = len(ordered) - 1
    parts = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {"count": len(seconds), **{what: ordered[int(part * last)] for what, part in parts.items()}}


ROWS = {"pace": pace}
