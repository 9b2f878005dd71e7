"""The store with very many streams: what each costs while it is used, while it is idle, at open and on disk.

python -m benchmarks.cardinality [--streams 1000000] [--rows active,open,…] [--dir DIR] [--keep DIR] [--json FILE]

Each row prints its figures, its bars and whether they are met, and beside them what the machine itself does at that
moment: bare synced page writes a second. ``ten-million`` has to be asked for. With ``--keep`` the prepared store of
idle streams stays in that directory, for the next run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import cardinality_active, cardinality_idle, cardinality_pace, cardinality_space
from benchmarks.cardinality_child import serve
from benchmarks.cardinality_stores import MILLION, Bench, Figure
from benchmarks.machine import file_system

Row = Callable[[Bench], Iterator[Figure]]
ROWS: dict[str, Row] = {
    **cardinality_active.ROWS,
    **cardinality_idle.ROWS,
    **cardinality_space.ROWS,
    **cardinality_pace.ROWS,
}
ON_DEMAND = "ten-million"


def measure(bench: Bench, name: str) -> list[dict[str, object]]:
    """One row, printed."""
    print(f"\n{name}", flush=True)
    began, bare, figures = time.monotonic(), [bench.bare()], []
    for figure in ROWS[name](bench):
        figures.append(figure)
        print(figure.line(), flush=True)
    bare.append(bench.bare())
    seconds = time.monotonic() - began
    print(f"  bare pwrite + fdatasync: {bare[0]:,.0f}/s before, {bare[1]:,.0f}/s after; the row took {seconds:.0f} s")
    return [{"row": name, **figure._asdict(), "bare": bare} for figure in figures]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cardinality", description=__doc__)
    parser.add_argument("--streams", type=int, default=MILLION)
    parser.add_argument("--rows", default=None, help=f"some of {','.join(ROWS)}")
    parser.add_argument("--dir", type=Path, default=None, help="where to write (default: a temporary directory)")
    parser.add_argument("--keep", type=Path, default=None, help="where the prepared store stays")
    parser.add_argument("--json", type=Path, default=None, help="write the figures there, too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def chosen(rows: str | None, streams: int) -> list[str]:
    """The rows to run."""
    if rows is None:
        return [ON_DEMAND] if streams > MILLION else [name for name in ROWS if name != ON_DEMAND]
    unknown = set(rows.split(",")) - set(ROWS)
    if unknown:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    return rows.split(",")


def main() -> None:
    """Run the rows, or be a child."""
    options = arguments()
    if options.child:
        serve()
        return
    names = chosen(options.rows, options.streams)
    results = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # children and directories go, too
    with tempfile.TemporaryDirectory(dir=options.dir) as folder:
        kind = file_system(Path(folder))
        print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, {kind} at {folder}")
        if kind in ("tmpfs", "ramfs"):
            print("this is memory, not a disk: name one with --dir")
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
        bench = Bench(options.streams, Path(folder), options.keep and options.keep.resolve())
        for name in names:
            results += measure(bench, name)
            if options.json is not None:
                options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
