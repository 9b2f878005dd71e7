"""Rows about streams that are used: active, waking, create.

Law of this room: both sides of a ratio run in processes of their own and take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bars import ACTIVE_BYTES_MAX, ACTIVE_RATIO_MIN, WAKING_RATIO_MIN
from benchmarks.cardinality_child import Child, memory
from benchmarks.cardinality_load import append, create
from benchmarks.cardinality_stores import CLUSTERING_OFF, FEW, WRITERS, Bench, Figure, at_least, at_most, cool, warm

_EXPLAIN = ("micros", "group", "sync", "gc", "busy", "resident")
"""Of each slice; ``micros`` is processor time an append, which a busy neighbour changes least."""

Pairs = list[tuple[dict[str, Any], dict[str, Any]]]


def active(bench: Bench) -> Iterator[Figure]:
    """All streams resident and changed, against 1,000 of them."""
    with bench.directory() as path, bench.few() as few, bench.child(path, **CLUSTERING_OFF) as many:
        raw = _growth(bench, many)
        pairs = [(bench.slice(few, FEW), bench.slice(many, bench.streams)) for _ in range(bench.rounds)]
        yield from _ratios(bench, f"appends, {bench.streams:,} active : {FEW:,}", pairs, ACTIVE_RATIO_MIN)
    with bench.directory() as path, bench.child(path, **CLUSTERING_OFF, recent_bytes_max=1) as many:
        bare = _growth(bench, many)
    yield Figure("memory a stream, recent bytes included (2 records each)", raw, "bytes")
    yield at_most("memory a stream, recent_bytes_max=1 (2 records each)", bare, "bytes", ACTIVE_BYTES_MAX)


def waking(bench: Bench) -> Iterator[Figure]:
    """Each append goes to a stream that was not used before, against 1,000 active ones."""
    what = f"appends, each wakes one of {bench.streams:,} : {FEW:,} active"
    with bench.few() as few:
        with bench.copy() as path, bench.child(path, **CLUSTERING_OFF) as many:
            yield from _ratios(bench, what, _wake(bench, few, many, path, warm), WAKING_RATIO_MIN)
        with bench.copy() as path, bench.child(path, **CLUSTERING_OFF) as many:
            yield from _ratios(bench, f"{what}, not cached", _wake(bench, few, many, path, cool))


def _wake(bench: Bench, few: Child, many: Child, path: Path, cache: Callable[[Path], None]) -> Pairs:
    """Slices in turn; each stream of ``many`` is used once at most."""
    most, pairs = bench.streams // bench.rounds, []
    for _ in range(bench.rounds):
        cache(path)
        pairs.append((bench.slice(few, FEW), bench.slice(many, bench.streams, most)))
    return pairs


def creating(bench: Bench) -> Iterator[Figure]:
    """Creation, 256 at once, with everything that runs in the background."""
    parts = 10 if bench.full else 2
    with bench.directory() as path, bench.child(path) as child:
        rates = []
        for part in range(parts):
            count = bench.streams // parts
            made = child.call(create, first=part * count, count=count, tasks=256, filled=False)
            rates.append(made["rate"])
    bench.note(creates_a_second_by_tenths=rates)
    yield at_least(f"creates a second, 256 at once, of {bench.streams:,}", median(rates), "/s", 30_000)


def _growth(bench: Bench, child: Child) -> float:
    """Memory that each stream adds beyond the first thousand, each with two records of 100 bytes."""
    _fill(child, 0, FEW)
    _use(child, FEW)
    before = child.call(memory)["rss"]
    _fill(child, FEW, bench.streams - FEW)
    _use(child, bench.streams)
    return float((child.call(memory)["rss"] - before) / (bench.streams - FEW))


def _fill(child: Child, first: int, count: int) -> None:
    child.call(create, first=first, count=count, tasks=WRITERS, filled=True)


def _use(child: Child, streams: int) -> None:
    child.call(append, streams=streams, writers=WRITERS, seconds=600.0, count_max=streams)


def _ratios(bench: Bench, what: str, pairs: Pairs, bar: float | None = None) -> Iterator[Figure]:
    """Medians of the ratios of pairs of slices: of their speed, and of the processor time an append."""
    for side, slices in (("few", [pair[0] for pair in pairs]), ("many", [pair[1] for pair in pairs])):
        facts = {key: median(each[key] for each in slices) for key in _EXPLAIN}
        bench.note(side=side, appends_a_second=[each["rate"] for each in slices], **facts)
    ratio = median(many["rate"] / few["rate"] for few, many in pairs)
    yield Figure(what, ratio, "x") if bar is None else at_least(what, ratio, "x", bar)
    yield Figure("  in processor time", median(few["micros"] / many["micros"] for few, many in pairs), "x")


ROWS = {"active": active, "waking": waking, "create": creating}
