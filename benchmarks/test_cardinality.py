"""Very many streams: the rows of ``benchmarks.cardinality``, and appends and memory by how many streams there are.

Sides take turns within a row, each in a process of its own, so one pass is enough.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from benchmarks.bars import BARE, STREAMS
from benchmarks.cardinality import ROWS
from benchmarks.cardinality_child import memory
from benchmarks.cardinality_load import create
from benchmarks.cardinality_stores import FEW, WRITERS, Bench
from benchmarks.contest import OURS, Better, Contest

SIZES = (FEW, 100_000, STREAMS)
ROWS_HERE = ["create", "idle-memory", "active", "waking", "open"]


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest, shared_folder: Path) -> Bench:
    streams = request.config.getoption("--streams")
    return Bench(2 * FEW if request.config.getoption("--quick") else streams, shared_folder, None)


def test_appends_by_streams(contest: Contest, bench: Bench) -> None:
    sizes = sorted({min(size, bench.streams) for size in SIZES})
    with ExitStack() as stack:
        children = {size: stack.enter_context(bench.child(stack.enter_context(bench.directory()))) for size in sizes}

        def measure() -> dict[int, list[float]]:
            for size, child in children.items():
                made = child.call(create, first=0, count=size, tasks=WRITERS, filled=False)
                contest.tell(f"creation of {size:,} streams", OURS, [made["rate"]], "creates/s", at=size)
            rates = [[bench.slice(children[size], size)["rate"] for size in sizes] for _ in range(bench.rounds)]
            return {size: [each[at] for each in rates] for at, size in enumerate(sizes)}

        found = contest.run(measure)
        contest.tell("a synced page", BARE, [bench.bare()], "appends/s", series="appends")
        for size, rates in found.items():
            case = f"appends to {size:,} streams in turn, {WRITERS:,} writers"
            contest.tell(case, OURS, rates, "appends/s", series="appends", at=size)
        few, *more = [children[size].call(memory)["rss"] for size in sizes]
        for size, resident in zip(sizes[1:], more, strict=True):
            case = f"memory of each stream beyond {FEW:,}, of {size:,}, with its recent bytes"
            contest.tell(case, OURS, [(resident - few) / (size - FEW)], "bytes", better="less", at=size)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" in metafunc.fixturenames:
        metafunc.parametrize("row", ROWS_HERE[:2] if metafunc.config.getoption("--quick") else ROWS_HERE)


def test_row(contest: Contest, bench: Bench, row: str) -> None:
    case = ""
    for figure in contest.run(lambda: list(ROWS[row](bench))):
        case = case + "," + figure.what[1:] if figure.what.startswith("  ") else figure.what
        better: Better = "less" if figure.bar.startswith("bar <=") else "more"
        contest.tell(case, OURS, [figure.value], figure.unit, better=better)
