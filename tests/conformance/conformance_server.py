"""The server as its users start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_SECONDS, STOP_SECONDS = 20, 10


@contextmanager
def served(data: Path, *, kill: bool = False) -> Iterator[str]:
    """A server on a directory, ended by its own process id; with ``kill``, as nobody expects it."""
    command = [sys.executable, "-m", "durable_log.cli", "serve", "--port", "0", "--long-poll-timeout", "0.5"]
    command += ["--data", str(data)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        deadline = threading.Timer(START_SECONDS, process.kill)
        deadline.start()
        try:
            url = _announced(process)
            deadline.cancel()
            yield url
        finally:
            deadline.cancel()
            if kill:
                process.kill()
            else:
                process.terminate()
            process.wait(STOP_SECONDS)


def _announced(process: subprocess.Popen[str]) -> str:
    """The URL in the line that the server prints when it is ready."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://[0-9.]+:[0-9]+", line)
        if found:
            return found[0]
    raise AssertionError("the server ended before it was ready")
