"""Where the time of an append goes: what stands between a figure and its bar.

python -m benchmarks.breakdown [--dir DIR] [--results DIR] [--quick]

Law of this room: each part is measured for itself, in turns with the others, and shown as a median of rounds in µs, so
that the parts need not add up to the whole. No peers. The page lies beside the results.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import durable_log
from benchmarks import machine
from benchmarks.generator import load
from benchmarks.servers import START_SECONDS, STOP_SECONDS, free_port, uvicorn, wait_until_it_accepts
from durable_log.aio import AsyncStore

DATA = b"x" * 100
PAGE = bytes(4096)
WRITERS = (64, 1024)
LOADS: tuple[tuple[str, dict[str, int]], ...] = (
    ("64 connections, a token each time", {"connections": 64, "streams": 64}),
    ("16 connections, 100 JSON messages each time", {"connections": 16, "streams": 16, "messages": 100}),
)
WAYS = (
    ("answer done > request", "the client, both sockets, uvicorn's parser"),
    ("request > request done", "the request is understood and staged"),
    ("request done > group", "the committer thread wakes up"),
    ("group > write", "admission, layout"),
    ("write > write done", "write and sync"),
    ("write done > group done", "index, recent bytes, delivery"),
    ("group done > answer", "the event loop wakes up"),
    ("answer > answer done", "the answer is built and sent"),
)
Parts = defaultdict[str, list[float]]


def timed(work: Callable[[int], object], times: int) -> float:
    """µs each."""
    started = time.perf_counter()
    work(times)
    return (time.perf_counter() - started) / times * 1e6


def bare(folder: Path, times: int) -> float:
    """µs of a page written and synced, in a file whose pages are there."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(PAGE * times)
        os.fsync(file.fileno())

        def work(times: int) -> None:
            for number in range(times):
                os.pwrite(file.fileno(), PAGE, number * len(PAGE))
                os.fdatasync(file.fileno())

        return timed(work, times)


def lone_writer(folder: Path, times: int, parts: Parts) -> None:
    """One thread that waits for each of its appends."""
    parts["a bare write and sync of a page"].append(sync := bare(folder, times))
    with tempfile.TemporaryDirectory(dir=folder) as where, durable_log.open(where) as store:
        stream = store.create("a")
        timed(lambda times: [stream.append(DATA) for _ in range(times)], times // 4)
        before = store.stats()
        parts["an append"].append(timed(lambda times: [stream.append(DATA) for _ in range(times)], times))
        after = store.stats()
        seconds, syncs = (after[name] - before[name] for name in ("sync_seconds", "syncs"))
        parts["of it: its sync"].append(seconds / syncs * 1e6)
    with durable_log.open(":memory:") as store:
        stream = store.create("a")
        parts["the same without a disk, at once"].append(
            timed(lambda times: [stream.append(DATA) for _ in range(times)], times)
        )
        slept: list[float] = []
        for _ in range(times):
            time.sleep(sync / 1e6)
            slept.append(timed(lambda _: stream.append(DATA), 1))
        parts["the same without a disk, after a pause as long as a sync"].append(statistics.median(slept))


class Nothing:
    """What asyncio itself takes: everybody is told at the end of the turn."""

    def __init__(self) -> None:
        self._loop, self._waiting = asyncio.get_running_loop(), list[asyncio.Future[None]]()

    async def append(self, _data: bytes) -> None:
        """Wait until told."""
        if not self._waiting:
            self._loop.call_soon(self._tell)
        self._waiting.append(future := self._loop.create_future())
        await future

    def _tell(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            future.set_result(None)


async def _tasks(streams: list[Any], times: int) -> float:
    """µs an append, of a task for each stream."""

    async def work(stream: Any, times: int) -> None:
        for _ in range(times):
            await stream.append(DATA)

    await asyncio.gather(*[work(stream, 2) for stream in streams])
    started = time.perf_counter()
    await asyncio.gather(*[work(stream, times) for stream in streams])
    return (time.perf_counter() - started) / times / len(streams) * 1e6


def tasks(folder: Path, times: int, parts: Parts) -> None:
    """Many tasks of one event loop, each of which waits for each of its appends."""

    async def ours(where: str, writers: int) -> float:
        with durable_log.open(where) as store:
            face = AsyncStore.of(store)
            streams = [await face.create(f"{number}") for number in range(writers)]
            return await _tasks(streams, times // writers)

    async def nothing(writers: int) -> float:
        return await _tasks([Nothing()] * writers, times // writers)

    parts["a bare write and sync of a page, divided by 40"].append(bare(folder, times // 64) / 40)
    for writers in WRITERS:
        with tempfile.TemporaryDirectory(dir=folder) as where:
            parts[f"an append of {writers:,} tasks"].append(asyncio.run(ours(where, writers)))
        parts[f"an append of {writers:,} tasks without a disk"].append(asyncio.run(ours(":memory:", writers)))
        parts[f"of it: {writers:,} tasks of asyncio that are told at once"].append(asyncio.run(nothing(writers)))


@contextmanager
def process(command: list[str], port: int) -> Iterator[subprocess.Popen[str]]:
    """A server, until it is ended."""
    environment = os.environ | {"PYTHONPATH": str(machine.ROOT)}
    with subprocess.Popen(command, cwd=machine.ROOT, env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            wait_until_it_accepts(port, server, lambda: "see what it wrote above")
            yield server
        finally:
            server.kill()


def said_at_the_end(server: subprocess.Popen[str]) -> Any:
    """The last line that it prints when it is asked to end, as JSON."""
    server.send_signal(signal.SIGTERM)
    told, _ = server.communicate(timeout=START_SECONDS + STOP_SECONDS)
    return json.loads(told.splitlines()[-1])


def one_connection(folder: Path, seconds: float, parts: Parts) -> None:
    """The way of a POST from one moment to the next."""
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.breakdown_server", str(port)]
    with tempfile.TemporaryDirectory(dir=folder) as where, process([*command, where], port) as server:
        found = load("append", port, connections=1, streams=1, warm_up=seconds / 5, seconds=seconds)
        ways = said_at_the_end(server)["ways"]
    for way, what in WAYS:
        parts[what].append(ways[way])
    parts["a request, watched, at the median"].append(found["latency_us"]["p50"])
    parts["a request, watched, at the mean"].append(1e6 / found["requests_per_second"])


def busy(pid: int) -> tuple[float, float]:
    """µs of processor that a process has had: its first thread, and its others."""
    spent = {
        int(thread.name): int((thread / "schedstat").read_text().split()[0]) / 1e3
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }
    return spent[pid], sum(spent.values()) - spent[pid]


def loaded(folder: Path, seconds: float, options: dict[str, int], parts: Parts) -> None:
    """What a POST takes of the processor where there are many of them, and what of that a server without a store."""
    port = free_port()
    bare_server = uvicorn("bare")(port, folder)
    serves = [sys.executable, "-m", "benchmarks.breakdown_server", str(port)]
    with tempfile.TemporaryDirectory(dir=folder) as where:
        for whose, command in (("", [*serves, where]), ("without a store: ", bare_server)):
            with process(command, port) as server:
                load("append", port, "/v1/stream/w-", warm_up=0, seconds=seconds / 5, **options)
                before = busy(server.pid)
                found = load("append", port, warm_up=0, seconds=seconds, **options)
                first, others = (now - then for now, then in zip(busy(server.pid), before, strict=True))
                requests = found["requests"]
                parts[f"{whose}thread of the event loop"].append(first / requests)
                if not whose:
                    steps = said_at_the_end(server)["steps"]
                    parts["of it: a request is understood and staged"].append(steps["request > request done"])
                    parts["of it: an answer is built and sent"].append(steps["answer > answer done"])
                    parts["other threads"].append(others / requests)
                parts[f"{whose}from answer to answer"].append(1e6 / found["requests_per_second"])


def rounds(title: str, count: int, work: Callable[[Parts], None]) -> Iterator[str]:
    """The table of one whole and its parts."""
    parts: Parts = defaultdict(list)
    for _ in range(count):
        work(parts)
    yield from (f"## {title}", "", "| | µs | rounds from – to |", "|---|---|---|")
    for what, found in parts.items():
        yield f"| {what} | {statistics.median(found):.1f} | {min(found):.1f} – {max(found):.1f} |"
    yield ""


def page(folder: Path, *, quick: bool) -> Iterator[str]:
    """All tables."""
    count, times, seconds = (1, 64 * 16, 0.3) if quick else (5, 64 * 512, 3.0)
    origin = machine.describe(folder)
    yield from ("# Where the time goes", "")
    yield f"`python -m benchmarks.breakdown {shlex.join(sys.argv[1:])}".strip() + f"`, revision {machine.revision()},"
    yield f"{origin['processor']}, {origin['cores']} cores, {origin['file_system']}, {origin['python']};"
    yield f"medians of {count} rounds. What they say: [docs/benchmarks.md](../../docs/benchmarks.md)."
    yield ""
    yield from rounds("One writer", count, partial(lone_writer, folder, times // 16))
    yield from rounds("Asyncio writers", count, partial(tasks, folder, times))
    yield from rounds("A POST, one connection", count, partial(one_connection, folder, seconds))
    for name, options in LOADS:
        yield from rounds(f"Processor of a POST, {name}", count, partial(loaded, folder, seconds, options))


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.breakdown", description=__doc__)
    parser.add_argument("--dir", type=Path, default=None, help="where is written (default: build/benchmarks)")
    parser.add_argument("--results", type=Path, default=None, help="where the page goes (default: benchmarks/results)")
    parser.add_argument("--quick", action="store_true", help="so little that nothing is measured, only run")
    asked = parser.parse_args()
    build = machine.ROOT / "build" / "benchmarks"
    folder = asked.dir or build
    into = asked.results or (build if asked.quick else machine.ROOT / "benchmarks" / "results")
    folder.mkdir(parents=True, exist_ok=True)
    into.mkdir(parents=True, exist_ok=True)
    lines = []
    for line in page(folder, quick=asked.quick):
        print(line, flush=True)
        lines.append(line)
    (into / f"{machine.slug()}-breakdown.md").write_text("\n".join(lines), "utf-8")


if __name__ == "__main__":
    main()
