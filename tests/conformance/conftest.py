"""The server as its users start it, and the npm packages that judge it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INSTALL_SECONDS, START_SECONDS, STOP_SECONDS = 300, 20, 10


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The packages of package-lock.json, installed if they are not there or are not those any more."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    modules, lock = HERE / "node_modules", (HERE / "package-lock.json").read_bytes()
    stamp = modules / ".durable-log-lock"
    digest = hashlib.sha256(lock).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        subprocess.run(command, cwd=HERE, check=True, timeout=INSTALL_SECONDS, capture_output=True)
        stamp.write_text(digest)
    return modules


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server on a new directory, ended by its own process id."""
    command = [sys.executable, "-m", "durable_log.cli", "serve", "--port", "0", "--long-poll-timeout", "0.5"]
    command += ["--data", str(tmp_path_factory.mktemp("data"))]
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
