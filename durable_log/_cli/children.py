"""The processes that the demonstration starts: a server that can be killed and started again, and a producer.

Law of this room: every process that is started here is ended here, by its own number, whatever happens. They run in
process groups of their own, so that Ctrl-C reaches the demonstration alone, which then ends them in order. Main thread
only, but for the thread that reads the producer's lines.
"""

from __future__ import annotations

import json
import queue
import select
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from durable_log._cli.producer import Job

if TYPE_CHECKING:
    from typing_extensions import Self

READY_SECONDS_MAX: Final = 30.0
STOP_SECONDS_MAX: Final = 5.0


def _start(module: str, arguments: list[str], stdout: int | None, stderr: IO[bytes] | None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.Popen(  # noqa: S603 - this interpreter, with arguments that are made here
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class ServerProcess:
    """``durable-log serve`` on ``directory``, at one port for all of its lives. Use it in a ``with`` block."""

    def __init__(self, directory: Path, page: Path | None = None) -> None:
        self._data, self._log = str(directory / "store"), directory / "server.log"
        self._page = page
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def root(self) -> str:
        """The URL below which its streams are."""
        return f"http://127.0.0.1:{self.port}/v1/stream/"

    def start(self) -> None:
        """Start it and wait until it accepts connections. Raises :class:`click.ClickException`."""
        arguments = ["serve", "--data", self._data, "--port", str(self.port)]
        if self._page is not None:
            arguments += ["--page", str(self._page)]
        with self._log.open("ab") as log:
            process = self._process = _start("durable_log.cli", arguments, subprocess.PIPE, log)
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS_MAX)
        line = process.stdout.readline().decode() if readable else ""
        if not line:
            said = self._log.read_text("utf-8", "replace").strip().splitlines()
            raise click.ClickException(f"the server did not start: {said[-1] if said else 'it said nothing'}")
        self.port = urlsplit(line.split()[-1]).port or 0

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close()

    def stop(self) -> None:
        """End it in order. Stopping twice is harmless."""
        if self._process is not None:
            _end(self._process)
            self._close()

    def _close(self) -> None:
        assert self._process is not None
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None


class ProducerProcess:
    """A producer at work, and what it tells. Use it in a ``with`` block."""

    def __init__(self, job: Job) -> None:
        self._process = _start("durable_log._cli.producer", [json.dumps(job._asdict())], subprocess.PIPE, None)
        self._events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="producer's events", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _end(self._process)
        self._reader.join()

    def event(self, timeout_seconds: float) -> dict[str, Any] | None:
        """The next thing that it tells, or None if there is none in time. Raises :class:`click.ClickException`."""
        try:
            event = self._events.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if event is None or event["event"] == "failed":
            reason = "it ended" if event is None else event["reason"]
            raise click.ClickException(f"the producer could not finish the answer: {reason}")
        return event

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._events.put(json.loads(line))
        self._events.put(None)
