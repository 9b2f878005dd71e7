"""Redis: a list for each writer, its append-only file synced before anybody is answered.

Law of this room: the server is a process of its own on a socket of its own; load comes from Redis' own client in C, so
that no Python is held against it.
"""

from __future__ import annotations

import contextlib
import csv
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.peers.base import Absent, RecordPeer, library, paged

START_SECONDS = 10.0
PAGE = 1000
CLOCK_SECONDS = 0.001
"""What redis-benchmark counts in: less looks like nothing."""


def program(name: str) -> str:
    """Where a program of Redis is. Raises :class:`Absent`."""
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not installed (Debian: apt-get install redis-server)")
    return found


class Redis(RecordPeer):
    """RPUSH, which is less work for it than XADD."""

    name = "Redis"
    how = "redis-server, appendfsync always, unix socket, RPUSH by redis-benchmark; reading by redis-py with hiredis"

    @classmethod
    def version(cls) -> str:
        told = subprocess.run([program("redis-server"), "--version"], capture_output=True, text=True, check=True)
        return "Redis " + told.stdout.partition("v=")[2].split()[0]

    def __init__(self, folder: Path, writers: int = 1) -> None:
        self._load = program("redis-benchmark")
        self._socket = folder / "redis.sock"
        arguments = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--port", "0"]
        self._client = library("redis").Redis(unix_socket_path=str(self._socket))
        self._server = subprocess.Popen(
            [program("redis-server"), *arguments, "--dir", str(folder), "--unixsocket", str(self._socket),
             "--maxclients", "4096"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self._await()

    def _await(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._socket.exists():
            if self._server.poll() is not None or time.monotonic() > deadline:
                self._stop()
                raise RuntimeError("redis-server did not start")
            time.sleep(0.01)

    def append(self, writer: int, data: bytes) -> None:
        self._client.rpush(f"log:{writer:012}", data)

    def append_many(self, items: Sequence[bytes]) -> None:
        self._client.rpush(f"log:{0:012}", *items)

    def appends(self, writers: int, count: int, data: bytes) -> float:
        return self._run(count, ["-c", str(writers), "-r", str(writers)], [b"log:__rand_int__", data])

    def batches(self, count: int, items: Sequence[bytes]) -> float:
        return self._run(count, ["-c", "1"], [b"batches", *items])

    def _run(self, count: int, options: list[str], arguments: list[bytes]) -> float:
        options = ["-s", str(self._socket), "--csv", "-n", str(count), *options, "RPUSH"]
        command: list[str | bytes] = [self._load, *options, *arguments]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        row = next(csv.DictReader(told.stdout.splitlines()))
        return max(count / float(row["rps"]), CLOCK_SECONDS)

    def iterate(self) -> Iterable[bytes]:
        key = f"log:{0:012}"
        starts = range(0, self._client.llen(key), PAGE)
        return paged(self._client.lrange(key, start, start + PAGE - 1) for start in starts)

    def close(self) -> None:
        self._client.close()
        self._stop()

    def _stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._server.kill()
        self._server.wait()
