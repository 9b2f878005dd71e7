"""What the rows have in common: how large they are, where their stores lie, prepared stores, figures.

Law of this room: the parent's side. It makes directories and children, and removes what it made.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.bars import STREAMS
from benchmarks.cardinality_child import Child, close_store, cluster, open_store
from benchmarks.cardinality_load import PAYLOAD, append, create
from benchmarks.peers import Bare

MILLION = STREAMS
FEW = 1000
WRITERS = 1024
CLUSTERING_OFF = {"cluster_segments": 2**30, "cluster_seconds": 1e9}
_IMMUTABLE = (".seg", ".run")


class Figure(NamedTuple):
    """One result. ``met`` is None where there is no bar."""

    what: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None

    def line(self) -> str:
        """As it is printed."""
        verdict = {None: "", True: "met", False: "NOT MET"}[self.met]
        return f"  {self.what:<58}{self.value:>12,.2f} {self.unit:<10} {self.bar:<16} {verdict}".rstrip()


def at_least(what: str, value: float, unit: str, bar: float) -> Figure:
    """A figure that is to be large."""
    return Figure(what, value, unit, f"bar >= {bar:,g}", value >= bar)


def at_most(what: str, value: float, unit: str, bar: float) -> Figure:
    """A figure that is to be small."""
    return Figure(what, value, unit, f"bar <= {bar:,g}", value <= bar)


class Bench:
    """The size of a run, and its directory. Below a million streams, times and amounts shrink too, as for a test."""

    def __init__(self, streams: int, folder: Path, keep: Path | None) -> None:
        self.streams, self.folder = streams, folder
        self.keep, self._prepared = keep, keep or folder
        self.full = streams >= MILLION
        self.rounds = 7 if self.full else 1
        self.slice_seconds = 3.0 if self.full else 0.1
        self.load_seconds = 70.0 if self.full else 0.3
        self.part = min(1.0, streams / MILLION)
        self.options: dict[str, Any] = {} if self.full else {"segment_bytes": 2**20, "record_bytes_max": 2**19}
        self._bare = Bare(folder, size=64 * 2**20 if self.full else 2**20)

    def bare(self) -> float:
        """What the machine does now: synced page writes a second."""
        count = 600 if self.full else 20
        return median(count / self._bare.appends(1, count, PAYLOAD) for _ in range(3))

    def note(self, **facts: object) -> None:
        """Print what explains a figure."""
        parts = [f"{what} {_short(fact)}" for what, fact in facts.items()]
        print("    " + ", ".join(parts), flush=True)

    @contextmanager
    def directory(self) -> Iterator[Path]:
        """A directory for one store."""
        with tempfile.TemporaryDirectory(dir=self.folder) as path:
            yield Path(path)

    @contextmanager
    def child(self, path: Path, **options: Any) -> Iterator[Child]:
        """A process with the store in ``path`` open; killed at the end unless it closed."""
        with Child() as child:
            self.open(child, path, **options)
            yield child

    def open(self, child: Child, path: Path, **options: Any) -> dict[str, Any]:
        """Have a child open the store in ``path``."""
        return child.call(open_store, path=str(path), options={**self.options, **options})

    def prepared(self) -> Path:
        """A closed store of ``streams`` streams of 100 bytes, clustered; made once. Never to be opened: copy it."""
        path = self._prepared / f"streams-{self.streams}"
        if not path.exists():
            making = path.with_suffix(".making")
            shutil.rmtree(making, ignore_errors=True)
            with self.child(making) as child:
                made = child.call(create, first=0, count=self.streams, tasks=WRITERS, filled=True)
                clustered = child.call(cluster)
                closed = child.call(close_store)
            making.rename(path)
            self.note(prepared=self.streams, creates_a_second=made["rate"], clustered_in=clustered["seconds"],
                      runs=clustered["catalog_runs"], closed_in=closed["seconds"], bytes=disk_usage(path))  # fmt: skip
        return path

    @contextmanager
    def copy(self) -> Iterator[Path]:
        """A copy of the prepared store; files that never change are shared."""
        source = self.prepared()
        path = source.with_suffix(".copy")
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        try:
            for file in source.iterdir():
                if file.suffix in _IMMUTABLE:
                    os.link(file, path / file.name)
                else:
                    shutil.copy2(file, path / file.name)
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def few(self) -> Iterator[Child]:
        """The yardstick: a process with a store of 1,000 active streams, warm."""
        with self.directory() as path, self.child(path, **CLUSTERING_OFF) as child:
            child.call(create, first=0, count=FEW, tasks=WRITERS, filled=True)
            self.slice(child, FEW)
            yield child

    def slice(self, child: Child, streams: int, count_max: int = -1) -> dict[str, Any]:
        """One slice of appends over so many streams."""
        return child.call(append, streams=streams, writers=WRITERS, seconds=self.slice_seconds, count_max=count_max)


def disk_usage(path: Path, *suffixes: str) -> int:
    """Bytes on disk of all files, or of those with these suffixes."""
    return sum(file.stat().st_blocks * 512 for file in path.iterdir() if not suffixes or file.suffix in suffixes)


def warm(path: Path) -> None:
    """Bring the catalog into the page cache."""
    for file in path.glob("*.run"):
        with file.open("rb") as content:
            while content.read(2**20):
                pass


def cool(path: Path) -> None:
    """Have all that is on disk leave the page cache."""
    for file in path.iterdir():
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _short(fact: object) -> str:
    if isinstance(fact, float):
        return f"{fact:,.0f}" if abs(fact) >= 100 else f"{fact:.3g}"
    if isinstance(fact, list):
        return " ".join(_short(each) for each in fact)
    return f"{fact:,}" if isinstance(fact, int) else str(fact)
