"""Rows about streams that are only there: idle-memory, open, ten-million.

Law of this room: each open is that of a fresh process, warm in the page cache.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bars import IDLE_MB_MAX, OPEN_SECONDS_MAX, RECOVERY_SECONDS_MAX
from benchmarks.cardinality_child import Child, close_store, memory
from benchmarks.cardinality_load import append, read_random
from benchmarks.cardinality_stores import FEW, WRITERS, Bench, Figure, at_most, disk_usage, warm

MB = 1e6
CHECKPOINT_SECONDS = 60.0
"""How long a load goes on beyond its time, for a checkpoint to be under way."""


def idle_memory(bench: Bench) -> Iterator[Figure]:
    """Memory of an open store of idle streams, beyond that of an empty one."""
    rounds = 5 if bench.full else 1
    with bench.copy() as path, bench.directory() as empty:
        pairs = [(_opened_memory(bench, empty), _opened_memory(bench, path)) for _ in range(rounds)]
    bench.note(empty=[pair[0] / MB for pair in pairs], full=[pair[1] / MB for pair in pairs])
    grown = median(full - none for none, full in pairs) / MB
    yield at_most(f"memory with {bench.streams:,} idle streams, beyond an empty store", grown, "MB", IDLE_MB_MAX)


def opening(bench: Bench) -> Iterator[Figure]:
    """Time to open, after good ends and after kills."""
    with bench.copy() as path:
        yield at_most(
            f"open, {bench.streams:,} streams clustered and closed", _open_seconds(bench, path), "s", OPEN_SECONDS_MAX
        )
    for what, streams in ((f"{FEW:,} of {bench.streams:,}", FEW), (f"all {bench.streams:,}", bench.streams)):
        with bench.copy() as path:
            _load(bench, path, streams, kill=False)
            yield at_most(f"open, closed after appends to {what}", _open_seconds(bench, path), "s", OPEN_SECONDS_MAX)
        with bench.copy() as path:
            _load(bench, path, streams, kill=True)
            yield at_most(
                f"open, killed during appends to {what}", _open_seconds(bench, path), "s", RECOVERY_SECONDS_MAX
            )


def ten_million(bench: Bench) -> Iterator[Figure]:
    """Ten times as many: they open, read right and take little memory."""
    many = Bench(10 * bench.streams if bench.streams <= 10**6 else bench.streams, bench.folder, bench.keep)
    with many.copy() as path, many.directory() as empty:
        none = _opened_memory(many, empty)
        with Child() as child:
            opened = many.open(child, path)
            grown = (child.call(memory)["rss"] - none) / MB
            read = child.call(read_random, streams=many.streams, count=1000)
            child.call(close_store)
    many.note(runs=opened["catalog_runs"], segments=opened["clustered_segments"], micros_a_read=read["micros"])
    yield Figure(f"open of {many.streams:,} streams", opened["seconds"], "s")
    yield at_most(f"memory with {many.streams:,} idle streams, beyond an empty store", grown, "MB", 200)
    yield at_most(f"wrong of {read['count']:,} random streams", read["wrong"], "streams", 0)


def _opened_memory(bench: Bench, path: Path) -> float:
    with bench.child(path) as child:
        rss = child.call(memory)["rss"]
        child.call(close_store)
    return float(rss)


def _open_seconds(bench: Bench, path: Path) -> float:
    """Median of three opens. Each process is killed after it, so that the next one finds the same."""
    opened: list[dict[str, Any]] = []
    rss = 0
    for _ in range(3 if bench.full else 1):
        warm(path)
        with Child() as child:
            opened.append(bench.open(child, path))
            rss = child.call(memory)["rss"]
    last = opened[-1]
    bench.note(
        opened_in=[each["seconds"] for each in opened], of_processor=[each["busy"] for each in opened],
        records=last["records"], resident=last["resident_streams"], log_segments=last["log_segments"],
        runs=last["catalog_runs"], MB=rss / MB,
    )  # fmt: skip
    return float(median(each["seconds"] for each in opened))


def _load(bench: Bench, path: Path, streams: int, *, kill: bool) -> None:
    """Appends at full speed, then a good end, or a kill in the midst of them and of a checkpoint."""
    rates: list[float] = []
    arguments = {"streams": streams, "writers": WRITERS, "seconds": 5.0 if bench.full else 0.1, "count_max": -1}
    with bench.child(path) as child:
        began = time.monotonic()
        while time.monotonic() < began + bench.load_seconds:
            rates.append(child.call(append, **arguments)["rate"])
        if not kill:
            child.call(close_store)
        else:
            until = time.monotonic() + (CHECKPOINT_SECONDS if bench.full else 0.2)
            caught = _until_checkpoint(child, path, arguments, until, rates)
            bench.note(killed_during_a_checkpoint=caught)
    bench.note(appends_a_second=rates, seconds=time.monotonic() - began, log_MB=disk_usage(path, ".log") / MB)


def _until_checkpoint(child: Child, path: Path, arguments: dict[str, Any], until: float, rates: list[float]) -> bool:
    """Go on until a checkpoint writes its run, which it does last; then the log is at its longest."""
    while time.monotonic() < until:
        child.begin(append, **arguments)
        while not child.answered(0.01):
            if any(path.glob("*.run.tmp")):
                return True
        rates.append(child.answer()["rate"])
    child.begin(append, **arguments)
    time.sleep(arguments["seconds"] / 2)
    manifest = (path / "MANIFEST").stat().st_mtime
    return any(path.glob("*.tmp")) or any(file.stat().st_mtime > manifest for file in path.glob("*.seg"))


ROWS = {"idle-memory": idle_memory, "open": opening, "ten-million": ten_million}
