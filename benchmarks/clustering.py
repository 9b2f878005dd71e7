"""Clustered segments: how fast they are built, rewritten, verified and read, and who waits meanwhile.

python -m benchmarks.clustering [--dir DIR] [--segments 4] [--streams 1000 500000]

The delay is that of a thread which asks for the interpreter's lock 5,000 times a second. A log segment is 64 MiB of
records of 100 bytes, of streams in random order, in blocks of 1,000.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import threading
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from durable_log._core import ffi
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.cluster_build import LogSource, rewrite_clustered, write_clustered
from durable_log.engine.files import DiskDirectory
from durable_log.engine.format import DATA, frame_head, lsn_of, pages
from durable_log.engine.segment import LogSegment

UUID = bytes(range(16))
SEGMENT = 64 * 2**20
BLOCK = 1000
PAYLOAD = b"x" * 100
T = TypeVar("T")


def nothing() -> None:
    """Builds at full speed."""


def log(directory: DiskDirectory, number: int, next_stream: Callable[[], int], tails: dict[int, int]) -> LogSource:
    """One full log segment."""
    segment = LogSegment.create(directory, number, SEGMENT, UUID, 1)
    info = ffi.new("dl_block *")
    blocks, position, length = [], 4096, BLOCK * (24 + len(PAYLOAD))
    while position + pages(64 + length) <= SEGMENT:
        parts = [bytes(64)]
        for _ in range(BLOCK):
            stream = next_stream()
            parts += (frame_head(DATA, 0, stream, tails.get(stream, 0), len(PAYLOAD)), PAYLOAD)
            tails[stream] = tails.get(stream, 0) + len(PAYLOAD)
        block = bytearray(b"".join(parts).ljust(pages(64 + length), b"\0"))
        info.lsn, info.nonce, info.body_length = lsn_of(number, position), segment.nonce, length
        segment.file.commit(block, info, False)
        blocks.append((position + 64, length))
        position += len(block)
    segment.file.sync()
    return LogSource(segment, blocks)


def measured(what: str, size: int, work: Callable[[], T]) -> T:
    """Does the work and prints its speed and the longest delay of the probing thread."""
    worst, done = 0.0, threading.Event()

    def probe() -> None:
        nonlocal worst
        while not done.is_set():
            asked = time.perf_counter()
            time.sleep(0.0002)
            worst = max(worst, time.perf_counter() - asked - 0.0002)

    thread = threading.Thread(target=probe)
    thread.start()
    started, busy = time.perf_counter(), time.process_time()
    result = work()
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    done.set()
    thread.join()
    speed = size / seconds / 1e6
    print(f"{what:<30}{seconds:7.3f} s  {busy:6.2f} s of processor  {speed:7.0f} MB/s  delay {worst * 1e3:.1f} ms")
    return result


def build(path: str, streams: int, segments: int) -> None:
    """Builds, rewrites and verifies one file."""
    directory, rng, tails = DiskDirectory(path), random.Random(1), dict[int, int]()
    sources = [log(directory, number, lambda: rng.randrange(streams) + 1, tails) for number in range(1, segments + 1)]
    built = [
        measured(
            f"build, {streams} streams", segments * SEGMENT,
            partial(write_clustered, directory, number, UUID, sources, pause=nothing),
        )
        for number in range(9, 12)
    ]  # fmt: skip
    segment = built[-1]
    assert segment is not None
    rows = array("Q", range(segment.rows_count))
    measured(
        "rewrite",
        segment.payload_bytes,
        lambda: rewrite_clustered(directory, 12, UUID, [(segment, rows)], pause=nothing),
    )
    measured("verify", segment.payload_bytes, segment.verify)
    measured("streams()", segment.rows_count * 48, segment.streams)
    overhead = segment.trailer.size - segment.payload_bytes - 4096 - 64
    print(
        f"{overhead / segment.rows_count:.1f} bytes a stream beside {segment.payload_bytes / segment.rows_count:.0f}\n"
    )


def read(path: str) -> None:
    """Reads a stream of 100 MB piece by piece, beside a plain file of the same bytes, both from the page cache."""
    directory, tails = DiskDirectory(path), dict[int, int]()
    sources = [log(directory, number, lambda: 7, tails) for number in (1, 2)]
    segment = write_clustered(directory, 9, UUID, sources, pause=nothing)
    assert segment is not None
    row = segment.row(0)
    plain = directory.create("plain")
    plain.write(0, segment.read(row, row.start, row.end))
    for piece in (4 * 2**20, 2**20, 2**16, 2**12):
        for shift in (0, 1234):
            starts = range(shift, row.end - piece, piece)
            ratios = [both(segment, plain.source()[0], starts, piece) for _ in range(7)]
            ours, theirs = (statistics.median(column) for column in zip(*ratios, strict=True))
            print(
                f"read {piece:>8} B from +{shift:<5} plain {piece / theirs / 1e6:6.0f} MB/s  clustered "
                f"{piece / ours / 1e6:6.0f} MB/s  ratio {theirs / ours:.2f}  {ours * 1e6:.1f} µs each"
            )


def both(segment: ClusteredSegment, fd: int, starts: range, piece: int) -> tuple[float, float]:
    """Seconds a read of the segment, and of the plain file."""
    row, begun = segment.row(0), time.perf_counter()
    for start in starts:
        segment.read(row, start, start + piece)
    between = time.perf_counter()
    for start in starts:
        os.pread(fd, piece, start)
    return (between - begun) / len(starts), (time.perf_counter() - between) / len(starts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dir", default=None)
    parser.add_argument("--segments", type=int, default=4)
    parser.add_argument("--streams", type=int, nargs="+", default=[1000, 500_000])
    options = parser.parse_args()
    for streams in options.streams:
        with tempfile.TemporaryDirectory(dir=options.dir) as path:
            build(path, streams, options.segments)
    with tempfile.TemporaryDirectory(dir=options.dir) as path:
        read(path)


if __name__ == "__main__":
    main()
