"""Rows about bytes: read-clustered, write-amplification, reclaim.

Law of this room: bytes written are those that the store hands to the kernel, up to the end of its last clustering. What
the kernel counts for a process is shown beside them, but where the page cache holds large folios it counts a whole one
for each page that changes; and so is what the disk has written, for everybody.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cardinality_child import Answer, Worker, close_store, cluster, compact
from benchmarks.cardinality_load import PAYLOAD, create, in_turn, name_of
from benchmarks.cardinality_stores import FEW, Bench, Figure, at_least, at_most, disk_usage
from durable_log.aio import AsyncStore
from durable_log.engine.files import DiskFile

MB = 1e6


# ---- reading what was clustered


def read_clustered(bench: Bench) -> Iterator[Figure]:
    """A clustered stream against a plain file of the same bytes."""
    with bench.directory() as path:
        with bench.child(path) as child:
            child.call(write_stream, length=int(1e8 * bench.part), plain=str(path / "plain"))
            child.call(cluster)
            child.call(close_store)
        with bench.child(path) as child:
            for piece in (4 * 2**20, 2**20, 64 * 2**10):
                rounds = 3 * bench.rounds
                read = child.call(read_stream, plain=str(path / "plain"), piece=piece, rounds=rounds)
                bench.note(piece=piece, **{key: read[key] for key in ("plain_MB_a_second", "follow_MB_a_second")})
                for how in ("read", "follow"):
                    what = f"clustered {how}() : plain read(), pieces of {piece // 1024} KiB"
                    yield at_least(what, read[how], "x", 0.5)


def write_stream(worker: Worker, *, length: int, plain: str) -> Answer:
    """A closed stream of records of 1 to 64 KiB, and the same bytes in a plain file."""
    rng, left = random.Random(3), length
    stream = worker.store.create("read")
    with Path(plain).open("wb") as file:
        while left:
            data = rng.randbytes(min(left, rng.randrange(2**10, 2**16 + 1)))
            stream.append(data, durability="written")
            file.write(data)
            left -= len(data)
    stream.close()
    return {}


def read_stream(worker: Worker, *, plain: str, piece: int, rounds: int) -> Answer:
    """Both in turn; ratios are medians of pairs."""
    store, fd = worker.store, os.open(plain, os.O_RDONLY)
    length = os.fstat(fd).st_size
    assert b"".join(chunk.data for chunk in store.stream("read").follow(limit=piece)) == Path(plain).read_bytes()
    seconds: dict[str, list[float]] = {"plain": [], "read": [], "follow": []}
    for _ in range(rounds):
        seconds["plain"].append(_read_plain(fd, piece))
        seconds["read"].append(_read_all(worker, length, piece))
        began = time.perf_counter()
        for _chunk in store.stream("read").follow(limit=piece):
            pass
        seconds["follow"].append(time.perf_counter() - began)
    os.close(fd)
    plain_seconds = seconds.pop("plain")
    answer = {how: median(p / o for p, o in zip(plain_seconds, ours, strict=True)) for how, ours in seconds.items()}
    speeds = {"plain_MB_a_second": plain_seconds, "follow_MB_a_second": seconds["follow"]}
    return {**answer, **{what: length / median(times) / MB for what, times in speeds.items()}}


def _read_plain(fd: int, piece: int) -> float:
    began = time.perf_counter()
    os.lseek(fd, 0, os.SEEK_SET)
    while os.read(fd, piece):
        pass
    return time.perf_counter() - began


def _read_all(worker: Worker, length: int, piece: int) -> float:
    began, stream, offset = time.perf_counter(), worker.store.stream("read"), 0
    while offset < length:
        offset = stream.read(offset, limit=piece).next_offset
    return time.perf_counter() - began


# ---- bytes written


def write_amplification(bench: Bench) -> Iterator[Figure]:
    """Bytes that reach the disk for each byte appended."""
    with bench.directory() as path, bench.child(path) as child:
        child.call(create, first=0, count=FEW, tasks=FEW, filled=False)
        written = child.call(append_counted, streams=FEW, log_bytes=int(1.1e9 * bench.part))
    appended = written["appended"]
    bench.note(appended_MB=appended / MB, clusterings=written["clusterings"], seconds=written["seconds"])
    bench.note(**{f"x_{kind}": count / appended for kind, count in written["kinds"].items()})
    asked, zeroes, what = (
        sum(written["kinds"].values()),
        written["kinds"]["zeroes"],
        "bytes written for a byte appended",
    )
    yield Figure(f"{what}, zeroed spare segments included", asked / appended, "x")
    yield at_most(f"{what}, without those", (asked - zeroes) / appended, "x", 3.5)
    yield Figure("the same by /proc/self/io, spares included", written["by_process"] / appended, "x")
    yield Figure("the same by the disk, for all processes", written["by_disk"] / appended, "x")


def append_counted(worker: Worker, *, streams: int, log_bytes: int) -> Answer:
    """Append until the log has grown by so much, cluster the rest, and say what was written, and to which files."""
    store, kinds = worker.store, Counter[str](zeroes=0)
    _count_writes(kinds)
    face, before, began = AsyncStore.of(store), (_written(), _on_disk(store.engine.path)), time.perf_counter()
    base = store.stats()
    count = log_bytes // (len(PAYLOAD) + 24)

    async def step(turn: int) -> None:
        await face.stream(name_of(turn % streams)).append(PAYLOAD)

    asyncio.run(in_turn(iter(range(count)), streams, step, float("inf")))
    store.engine.upkeep.cluster()
    os.sync()
    seconds, written = time.perf_counter() - began, _written() - before[0]
    on_disk = _on_disk(store.engine.path) - before[1]
    after = store.stats()
    kinds["log"] = _number(after["bytes_written"]) - _number(base["bytes_written"])
    kinds["log_padding"] = kinds.pop("blocks") - kinds["log"]
    clusterings = kinds.pop("clusterings")
    return {"by_process": written, "by_disk": on_disk, "appended": count * len(PAYLOAD), "seconds": seconds,
            "kinds": kinds, "clusterings": clusterings}  # fmt: skip


def _number(value: object) -> int:
    assert isinstance(value, int)
    return value


def _written() -> int:
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"]) - int(fields["cancelled_write_bytes"])


def _on_disk(path: str) -> int:
    """Bytes that the device of ``path`` has written, of all processes; 0 if the kernel does not say."""
    device = Path(path).stat().st_dev
    counts = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat")
    return int(counts.read_text().split()[6]) * 512 if counts.exists() else 0


def _count_writes(kinds: Counter[str]) -> None:
    """Have every write counted by the kind of its file."""
    fill, write, commit = DiskFile.fill_with_zeroes, DiskFile.write, DiskFile.commit

    def counted_fill(self: DiskFile, size: int) -> None:
        kinds["zeroes"] += max(0, size - self.size())
        kinds["log_headers"] -= max(0, size - self.size())
        fill(self, size)

    def counted_write(self: DiskFile, position: int, data: Any) -> None:
        kind = next((kind for kind in ("log", "seg", "run") if f".{kind}" in self.name), "manifest")
        kinds["log_headers" if kind == "log" else kind] += len(data)
        kinds["clusterings"] += kind == "seg" and position == 0
        write(self, position, data)

    def counted_commit(self: DiskFile, block: bytearray, info: Any, sync: bool) -> int:
        kinds["blocks"] += len(block)
        return commit(self, block, info, sync)

    DiskFile.fill_with_zeroes = counted_fill  # type: ignore[method-assign]
    DiskFile.write = counted_write  # type: ignore[method-assign]
    DiskFile.commit = counted_commit  # type: ignore[method-assign]


# ---- space given back


def reclaim(bench: Bench) -> Iterator[Figure]:
    """What is on disk for each byte that is needed, after nine of ten streams were deleted."""
    with bench.directory() as path, bench.child(path) as child:
        made = child.call(write_and_delete, size=int(3e9 * bench.part))
        before = disk_usage(path)
        done = child.call(compact)
        usage, live = disk_usage(path), made["live"]
        kinds = {f"{kind}_MB": disk_usage(path, f".{kind}") / MB for kind in ("seg", "run", "log")}
        child.call(close_store)
        closed = disk_usage(path)
    bench.note(streams=made["streams"], wrote_in=made["wrote_in"], deletes_a_second=made["deletes_a_second"])
    bench.note(live_MB=live / MB, before_MB=before / MB, compacted_in=done["seconds"], **kinds,
               resident=done["resident_streams"])  # fmt: skip
    yield at_most("disk for a live byte after compact()", usage / live, "x", 1.3)
    yield Figure("the same without log segments (tail and spares)", (usage - kinds["log_MB"] * MB) / live, "x")
    yield Figure("the same when closed", closed / live, "x")


def write_and_delete(worker: Worker, *, size: int) -> Answer:
    """Streams of 3 to 30 KB in records of up to 3 KB, ``size`` bytes in all; nine of ten are deleted."""
    face, rng, data = AsyncStore.of(worker.store), random.Random(5), os.urandom(3000)
    streams = max(20, size // 16_500)
    sizes = [rng.randrange(3000, 30001) for _ in range(streams)]
    gone = rng.sample(range(streams), streams * 9 // 10)

    async def write(number: int) -> None:
        stream = await face.create(name_of(number), data=data)
        for at in range(3000, sizes[number], 3000):
            await stream.append(data[: sizes[number] - at], durability="written")

    async def delete(number: int) -> None:
        await face.delete(name_of(number))

    began = time.perf_counter()
    asyncio.run(in_turn(iter(range(streams)), 256, write, float("inf")))
    wrote = time.perf_counter()
    asyncio.run(in_turn(iter(gone), 256, delete, float("inf")))
    rate = len(gone) / (time.perf_counter() - wrote)
    live = sum(sizes) - sum(sizes[number] for number in gone)
    return {"live": live, "streams": streams, "wrote_in": wrote - began, "deletes_a_second": rate}


ROWS = {"read-clustered": read_clustered, "write-amplification": write_amplification, "reclaim": reclaim}
