"""The contestants over HTTP: servers of this protocol, each a process of its own on a directory of its own.

Law of this room: what each is and how it is started, at its most durable where it can be durable at all, as its own
documentation says. One that cannot run here raises :class:`Absent` with the reason, and the tables show it. A process
is ended by its own number, and nothing here waits without a bound.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import pytest

from benchmarks.bars import BARE_ASGI, NODE_FILE, NODE_MEMORY, RAKAIA_JSONL, RAKAIA_MEMORY, RUST_SERVER
from benchmarks.contest import OURS, Contest
from benchmarks.generator import PATH, LoadFailed, load
from benchmarks.peers.base import Absent

ROOT: Final = Path(__file__).resolve().parent.parent
HERE: Final = ROOT / "benchmarks"
NODE_PACKAGE: Final = HERE / "node_modules" / "@durable-streams" / "server" / "package.json"
RUST_ROOT: Final = ROOT / "build" / "rust"
RUST_PROGRAM: Final = RUST_ROOT / "bin" / "durable-streams-server"
START_SECONDS: Final = 20
STOP_SECONDS: Final = 10

Command = Callable[[int, Path], list[str]]
Result = TypeVar("Result")


class Contestant(NamedTuple):
    """A server. ``how``: what an acknowledged append has gone through."""

    name: str
    how: str
    version: Callable[[], str]
    command: Command

    def __str__(self) -> str:
        return self.name


class Server:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, folder: Path) -> None:
        self.name, self.how, self.version = contestant.name, contestant.how, contestant.version
        self._log = folder / "server.log"
        self.port = free_port()
        command = contestant.command(self.port, folder / "data")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=HERE, env=os.environ | {"DATA": str(folder / "data"), "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            wait_until_it_accepts(self.port, self._process, self._log.read_text)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def load(self, subject: str, path: str = PATH, /, **options: float) -> dict[str, Any]:
        """Put load on it; see :func:`load`. Raises :class:`LoadFailed`."""
        return load(subject, self.port, path, **options)

    def measured(self, contest: Contest, work: Callable[[], Result], **rounds: Any) -> Result:
        """Rounds of load; see :meth:`Contest.run`. A peer that fails has no figure, and the tables say why."""
        try:
            return contest.run(work, **rounds)
        except LoadFailed as failure:
            if self.name == OURS:
                raise
            pytest.skip(f"it fails under this load: {failure}")

    def memory(self) -> int:
        """Resident bytes."""
        return self._status("VmRSS")

    def memory_max(self) -> int:
        """The most resident bytes since :meth:`forget_memory_max`."""
        return self._status("VmHWM")

    def forget_memory_max(self) -> None:
        """Begin to look for the most anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def _status(self, name: str) -> int:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def wait_until_it_accepts(port: int, process: subprocess.Popen[Any], said: Callable[[], str]) -> None:
    """Return once ``process`` accepts connections. Raises :class:`Absent` with what it ``said`` if it does not."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), START_SECONDS).close()
        except ConnectionRefusedError:
            if process.poll() is not None:
                raise Absent(f"it ends at its start: {said()[-400:]}") from None
            if time.monotonic() >= deadline:
                raise Absent(f"it does not accept connections after {START_SECONDS} s") from None
            time.sleep(0.02)
        else:
            return


def free_port() -> int:
    """One that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _python(*words: str) -> list[str]:
    return [sys.executable, "-m", *words]


def _ours(port: int, data: Path) -> list[str]:
    return _python("durable_log.cli", "serve", "--port", str(port), "--data", str(data))


def uvicorn(application: str, *more: str) -> Command:
    """One of ``benchmarks.applications``, on the server that ours is on."""

    def command(port: int, _data: Path) -> list[str]:
        options = ("--loop", "uvloop", "--http", "httptools", "--log-level", "warning", "--no-access-log", *more)
        return _python("uvicorn", f"benchmarks.applications:{application}", "--port", str(port), *options)

    return command


def _rakaia(application: str) -> Command:
    def command(port: int, data: Path) -> list[str]:
        _package("rakaia-streams")
        return uvicorn(application, "--factory")(port, data)

    return command


def _node(*, file: bool) -> Command:
    def command(port: int, data: Path) -> list[str]:
        _version_of_node()
        return [_program("node"), "node_server.js", str(port), *([str(data)] if file else [])]

    return command


def _rust(port: int, data: Path) -> list[str]:
    _version_of_rust()
    return [str(RUST_PROGRAM), "--port", str(port), "--data-dir", str(data), "--durability", "wal"]


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Absent(f"{name} is not installed")
    return found


def _package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError as error:
        raise Absent(f"{name} is not installed for this Python") from error


def _installed(path: Path, name: str) -> Path:
    if not path.exists():
        raise Absent(f"{name} is not installed (make bench installs it where it can)")
    return path


def _version_of_node() -> str:
    package = json.loads(_installed(NODE_PACKAGE, "@durable-streams/server").read_text())
    return f"{package['name']} {package['version']}"


def _version_of_rust() -> str:
    _installed(RUST_PROGRAM, "the Rust server")
    installs: dict[str, Any] = json.loads((RUST_ROOT / ".crates2.json").read_text())["installs"]
    return next(iter(installs)).partition(" (")[0]


CONTESTANTS: Final = (
    Contestant(OURS, "on disk: fdatasync of the log", lambda: _package("durable-log"), _ours),
    Contestant(NODE_FILE, "on disk: syncs of the stream's file and of LMDB", _version_of_node, _node(file=True)),
    Contestant(NODE_MEMORY, "memory only", _version_of_node, _node(file=False)),
    Contestant(RAKAIA_JSONL, "on disk: fsync", lambda: _package("rakaia-streams"), _rakaia("rakaia_jsonl")),
    Contestant(RAKAIA_MEMORY, "memory only", lambda: _package("rakaia-streams"), _rakaia("rakaia_memory")),
    Contestant(RUST_SERVER, "on disk: fdatasync of its log", _version_of_rust, _rust),
    Contestant(BARE_ASGI, "memory only: no store", lambda: _package("uvicorn"), uvicorn("bare")),
)
