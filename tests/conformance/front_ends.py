"""Servers of several makers, each a process of its own on a free port of this machine, ended by its own number."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

HERE = Path(__file__).parent
START_SECONDS, STOP_SECONDS = 20, 10

FRONT_ENDS = {
    "durable-log serve": "durable_log.cli serve --port {port} --data {data} --long-poll-timeout 0.5",
    "uvicorn, mounted in Starlette": (
        "uvicorn applications:mounted --port {port} --http h11 --loop asyncio"
        " --timeout-keep-alive 75 --timeout-graceful-shutdown 1 --log-level warning"
    ),
    "granian": "granian applications:alone --interface asgi --port {port} --workers-kill-timeout 1 --log-level warning",
    "hypercorn": "hypercorn applications:alone --bind 127.0.0.1:{port} --keep-alive 75 --graceful-timeout 1",
    "gunicorn with threads, WSGI": (
        "gunicorn applications:threaded --bind 127.0.0.1:{port} --threads 100 --keep-alive 75 --graceful-timeout 1"
        " --log-level warning"
    ),
}
"""How each is started; clients keep connections for longer than the few seconds that some servers do."""
KILLED = "durable-log serve, killed before each group of tests"


class Server:
    """A front-end on a directory, at one port for all of its lives."""

    def __init__(self, command: str, directory: Path, applications: Path = HERE) -> None:
        self._directory, self._log = directory, directory / "server.log"
        self._applications = applications
        self.port, claim = _free_port()
        weakref.finalize(self, os.close, claim)
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [part.format(port=self.port, data=directory / "data") for part in command.split()]
        self._process: subprocess.Popen[bytes] | None = None
        self.lives = 0

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        environment = os.environ | {
            "DURABLE_LOG_DATA": str(self._directory / "data"),
            "PYTHONPATH": os.pathsep.join([str(self._applications), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._command],
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.lives += 1
        deadline = time.monotonic() + START_SECONDS
        while not self._accepts():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f"the server is not ready after {START_SECONDS} s"
            time.sleep(0.02)

    def _accepts(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), START_SECONDS).close()
        except ConnectionRefusedError:
            return False
        return True

    @property
    def pid(self) -> int:
        """Of the process that serves, or of the one that watches those that do."""
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        deadline = time.monotonic() + STOP_SECONDS
        while self._accepts():  # its children may take a moment longer
            assert time.monotonic() < deadline, "the port is still taken after the end of the process"
            time.sleep(0.02)

    def stop(self) -> float:
        """End it in order; how many seconds that took."""
        assert self._process is not None
        began = time.monotonic()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        return time.monotonic() - began


@contextmanager
def running(name: str, directory: Path) -> Iterator[Server]:
    """One of the front-ends, on a new directory."""
    server = Server(FRONT_ENDS[name], directory)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def restarts(server: Server) -> Iterator[str]:
    """Where a ``POST`` kills the server, and is answered once it accepts connections again."""

    class Restart(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            server.kill()
            server.start()
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Restart) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.server_port}"
        finally:
            listener.shutdown()
            thread.join()


def _free_port() -> tuple[int, int]:
    """A port that nobody listens at, and the descriptor of what keeps others who run tests here from choosing it, too,
    until it is closed: for a server that found it taken, the one that has it would be mistaken.
    """
    while True:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port: int = listener.getsockname()[1]
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0a server of durable_log's tests at {port}")
        except OSError:
            claim.close()
            continue
        return port, claim.detach()
