"""Sorted runs of the catalog: a million rows written, found, listed, searched for what is due, and merged.

python -m benchmarks.runs [--rows 1000000] [--dir DIR]
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from array import array
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from durable_log.engine.files import DiskDirectory
from durable_log.engine.run import Run
from durable_log.engine.run_format import encode_row, hash_of, run_name
from durable_log.engine.run_writer import merge_runs, write_run

Result = TypeVar("Result")
UUID = bytes(16)
FOUND = 2000
PREFIXES = 200
NAMES_PAGE = 1000
DUE_EVERY = 1000
DUE_MS = 10**12


def timed(what: str, work: Callable[[], Result], *, times: int = 1, unit: str = "ms") -> Result:
    """Print how long each of ``times`` parts of the work took."""
    started = time.perf_counter()
    result = work()
    seconds = (time.perf_counter() - started) / times
    print(f"{what:42} {seconds * {'ms': 1e3, 'µs': 1e6}[unit]:10.2f} {unit}")
    return result


def no_pause() -> None:
    """Nothing to wait for."""


def listed(run: Run) -> int:
    """How many names a run has, listed a page at a time."""
    after, count, more = b"", 0, True
    while more:
        page, more = run.names_from(b"", after, NAMES_PAGE)
        count, after = count + len(page), page[-1].name.encode()
    return count


def pages_of(run: Run, prefixes: list[bytes], limit: int) -> None:
    """The first page of each prefix."""
    for prefix in prefixes:
        run.names_from(prefix, b"", limit)


def due_streams(run: Run, now_ms: int) -> int:
    """How many streams of a run have expired."""
    return sum(len(part.streams) for part in run.due(0, now_ms))


def measure(directory: DiskDirectory, rows: int) -> None:
    """Everything, once."""
    names = [f"tenant/{index % 1000:04}/conversation/{index:09}" for index in range(rows)]
    encoded = [
        encode_row(name, index, bytes(60), deadline=DUE_MS + index % DUE_EVERY) for index, name in enumerate(names)
    ]
    blob = b"".join(encoded)
    timed(f"write_run, {rows} rows", lambda: write_run(directory, 1, UUID, blob, no_pause)).close()
    run = timed("open", lambda: Run.open(directory, run_name(1)))
    assert run is not None
    print(f"{'memory of the open run':42} {run.memory():10} B, {run.memory() / run.pages:.1f} a page")
    sought = [(hash_of(name), name) for name in random.Random(1).sample(names, FOUND)]
    gc.freeze()  # the lists of all rows are this page's, and no part of a find
    for _ in range(2):
        timed("find", lambda: [run.find(*each) for each in sought], times=FOUND, unit="µs")
    numbers = array("Q", range(0, rows, 10))
    timed("find_numbers, every tenth", lambda: run.find_numbers(numbers), times=len(numbers), unit="µs")
    prefixes = [b"tenant/%04d/" % number for number in random.Random(2).sample(range(1000), PREFIXES)]
    for limit in (1, NAMES_PAGE):
        timed(
            f"names_from, the first {limit} of a prefix",
            partial(pages_of, run, prefixes, limit), times=PREFIXES, unit="µs",
        )  # fmt: skip
    assert timed("names_from, all names by pages of 1000", lambda: listed(run)) == rows
    due = timed("due, one row in 1000", lambda: due_streams(run, DUE_MS))
    assert due == -(-rows // DUE_EVERY)
    assert timed("due, all rows", lambda: due_streams(run, DUE_MS + DUE_EVERY)) == rows
    assert timed("verify", run.verify) == []
    runs = [write_run(directory, 2 + part, UUID, encoded[part::4], no_pause) for part in range(4)]
    timed("merge of 4 runs", lambda: merge_runs(directory, 9, UUID, runs, drop_tombstones=False, pause=no_pause))


def main() -> None:
    """Measure in a temporary directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--dir", default=".")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as path:
        measure(DiskDirectory(Path(path) / "runs"), arguments.rows)


if __name__ == "__main__":
    main()
