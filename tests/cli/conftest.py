"""Commands and servers for these tests, each ended by its own number."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_processes import COMMAND, SECONDS_MAX, Served, environment, first_line

sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))


@pytest.fixture
def run(tmp_path):
    """Runs a command to its end, in a directory of its own."""

    def run(*arguments, stdin=b"", **environ):
        return subprocess.run(
            [*COMMAND, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            timeout=SECONDS_MAX,
            cwd=tmp_path,
            env=environment(**environ),
            check=False,
        )

    return run


@pytest.fixture
def serve(tmp_path):
    """Starts servers, waits until they accept, and ends those that still run."""
    started = []

    def serve(data="store", port=0, *more):
        process = subprocess.Popen(
            [*COMMAND, "serve", "--data", str(data), "--port", str(port), *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(),
        )
        started.append(process)
        line = first_line(process)
        assert re.fullmatch(r"durable-log serves .* at http://127\.0\.0\.1:[0-9]+/v1/stream/\n", line), (
            line,
            process.stderr.read(),
        )
        return Served(process, line)

    yield serve
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=SECONDS_MAX)


@pytest.fixture
def data(tmp_path):
    return Path(tmp_path) / "store"
