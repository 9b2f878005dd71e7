"""The store beside what the machine itself does, in one run: rounds of each in turn, medians, ratios.

python -m benchmarks [--rounds 5] [--dir DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import durable_log
import durable_log.aio
from benchmarks.bare import BareFile, read_plain

PAYLOAD = b"x" * 100
Measure = Callable[[], float]


def lone_writer(store: durable_log.Store, count: int = 600) -> float:
    """Synced appends a second of one thread."""
    stream = store.create("lone")
    started = time.perf_counter()
    for _ in range(count):
        stream.append(PAYLOAD)
    return count / (time.perf_counter() - started)


def batches(store: durable_log.Store, count: int = 60) -> float:
    """Records a second in synced batches of 1000."""
    stream = store.create("batches")
    items = [PAYLOAD] * 1000
    started = time.perf_counter()
    for _ in range(count):
        stream.append_many(items)
    return count * len(items) / (time.perf_counter() - started)


def asyncio_writers(store: durable_log.Store, writers: int, total: int = 60_000) -> float:
    """Synced appends a second of so many tasks, each with a stream of its own, that await every append."""

    async def write(name: str, count: int) -> None:
        stream = face.stream(name)
        for _ in range(count):
            await stream.append(PAYLOAD)

    async def measure() -> float:
        names = [f"writer/{number}" for number in range(writers)]
        await asyncio.gather(*[face.create(name) for name in names])
        started = time.perf_counter()
        await asyncio.gather(*[write(name, total // writers) for name in names])
        return total // writers * writers / (time.perf_counter() - started)

    face = durable_log.aio.AsyncStore.of(store)
    return asyncio.run(measure())


def read_back(store: durable_log.Store, content: bytes) -> float:
    """Bytes a second of catching up on a stream that lies in log segments, verified."""
    stream = store.stream("read")
    started = time.perf_counter()
    length = sum(len(chunk.data) for chunk in stream.follow())
    elapsed = time.perf_counter() - started
    if length != len(content):
        raise SystemExit(f"read {length} bytes of {len(content)}")
    return length / elapsed


def prepare_read(store: durable_log.Store, content: bytes) -> None:
    """A closed stream of ``content`` in records of 64 KiB, too large for the recent bytes of a stream."""
    stream = store.create("read")
    for position in range(0, len(content), 65536):
        stream.append(content[position : position + 65536], durability="written")
    stream.close()


def table(rounds: int, rows: list[tuple[str, Measure, str, Measure]]) -> None:
    """Measure all rows, round by round, and print medians and ratios."""
    results: dict[str, tuple[list[float], list[float]]] = {row[0]: ([], []) for row in rows}
    for _ in range(rounds):
        for name, measure, _, peer in rows:
            results[name][1].append(peer())
            results[name][0].append(measure())
    print(f"\n{'what':<34}{'durable_log':>16}  {'beside':<34}{'':>14}{'ratio':>8}")
    for name, _, peer_name, _ in rows:
        ours, theirs = map(statistics.median, results[name])
        print(f"{name:<34}{ours:>16,.0f}  {peer_name:<34}{theirs:>14,.0f}{ours / theirs:>8.2f}")


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where to write (default: the system's temporary directory)")
    arguments = parser.parse_args()
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores; figures a second")
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        bare = BareFile(Path(folder) / "bare")
        content = os.urandom(2**20) * 100
        with durable_log.open(Path(folder) / "store") as store:
            prepare_read(store, content)
            table(
                arguments.rounds,
                [
                    ("appends, one writer", lambda: lone_writer(store),
                     "bare pwrite + fdatasync", lambda: bare.synced_writes(600, PAYLOAD)),
                    ("appends, 64 asyncio writers", lambda: asyncio_writers(store, 64),
                     "bare pwrite + fdatasync", lambda: bare.synced_writes(600, PAYLOAD)),
                    ("appends, 1024 asyncio writers", lambda: asyncio_writers(store, 1024),
                     "bare pwrite + fdatasync", lambda: bare.synced_writes(600, PAYLOAD)),
                    ("records, append_many of 1000", lambda: batches(store),
                     "bare 100 KB pwrite + fdatasync", lambda: bare.synced_writes(60, PAYLOAD * 1000)),
                    ("bytes read from the log, verified", lambda: read_back(store, content),
                     "read() of a plain warm file", lambda: read_plain(Path(folder) / "plain", content)),
                ],
            )  # fmt: skip
        bare.close()


if __name__ == "__main__":
    main()
