"""A store in a process of its own that does what it is told, so that memory, bytes written and a kill are its alone.

Law of this room: calls come as lines of JSON on standard input, ``[module:function, arguments]``; the function gets the
:class:`Worker` and the arguments, and what it returns goes as a line of JSON to standard output. The parent names
functions of these benchmarks only, waits a bounded time and ends its children by their own process.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import durable_log
from durable_log.model import Options

if TYPE_CHECKING:
    from typing_extensions import Self

ROOT = Path(__file__).resolve().parent.parent
PAGE = os.sysconf("SC_PAGE_SIZE")
WAIT_SECONDS = 1800.0

Answer = dict[str, Any]


class Worker:
    """What a child holds between calls: a store, whose turn it is, and what the collector of garbage took."""

    def __init__(self) -> None:
        self.opened: durable_log.Store | None = None
        self.turn = 0
        self.gc_seconds = 0.0
        self._gc_began = 0.0
        gc.callbacks.append(self._collecting)

    @property
    def store(self) -> durable_log.Store:
        """The open store."""
        assert self.opened is not None, "open a store first"
        return self.opened

    def _collecting(self, phase: str, _info: dict[str, int]) -> None:
        if phase == "start":
            self._gc_began = time.perf_counter()
        else:
            self.gc_seconds += time.perf_counter() - self._gc_began


class Child:
    """A process with a worker in it."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "benchmarks.cardinality", "--child"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def begin(self, function: Callable[..., Answer], **arguments: Any) -> None:
        """Call a function, without waiting for its answer."""
        assert self.process.stdin is not None
        line = json.dumps([f"{function.__module__}:{function.__qualname__}", arguments])
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def answered(self, seconds: float) -> bool:
        """Whether the answer comes within so many seconds."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def answer(self, seconds: float = WAIT_SECONDS) -> Answer:
        """The answer. Ends the benchmark if there is none in time."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline() if self.answered(seconds) else b""
        if not line:
            self.kill()
            raise SystemExit(f"process {self.process.pid} gave no answer within {seconds} s")
        answer: Answer = json.loads(line)
        return answer

    def call(self, function: Callable[..., Answer], **arguments: Any) -> Answer:
        """Call a function and wait for its answer."""
        self.begin(function, **arguments)
        return self.answer()

    def kill(self) -> None:
        """SIGKILL, unless it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def serve() -> None:
    """Be the child: answer calls until standard input ends."""
    worker = Worker()
    for line in sys.stdin:
        (target, arguments) = json.loads(line)
        module, _, name = target.partition(":")
        answer = getattr(importlib.import_module(module), name)(worker, **arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


# ---- functions that every row may call


def open_store(worker: Worker, *, path: str, options: dict[str, Any]) -> Answer:
    """Open a store, timed."""
    began, busy = time.perf_counter(), time.process_time()
    worker.opened = durable_log.open(path, options=Options(**options))
    seconds, busy = time.perf_counter() - began, time.process_time() - busy
    report = worker.store.report
    return {
        "seconds": seconds,
        "busy": busy,
        **worker.store.stats(),
        "records": report.records,
        "cut": report.cut,
    }


def close_store(worker: Worker) -> Answer:
    """Close it in good order."""
    began = time.perf_counter()
    worker.store.close()
    return {"seconds": time.perf_counter() - began}


def memory(_worker: Worker) -> Answer:
    """Resident bytes, without garbage."""
    gc.collect()
    return {"rss": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE}


def cluster(worker: Worker) -> Answer:
    """Cluster all that is in the log."""
    began = time.perf_counter()
    worker.store.engine.upkeep.cluster()
    return {"seconds": time.perf_counter() - began, **worker.store.stats()}


def compact(worker: Worker) -> Answer:
    """Give back all space that can be given back."""
    began = time.perf_counter()
    worker.store.engine.upkeep.compact()
    return {"seconds": time.perf_counter() - began, **worker.store.stats()}


def stats(worker: Worker) -> Answer:
    """Figures of the store."""
    return dict(worker.store.stats())
