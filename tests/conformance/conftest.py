"""The server as its users start it, and the npm packages that judge it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from conformance_server import served

HERE = Path(__file__).parent
INSTALL_SECONDS = 300


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
    """The address of a server on a new directory."""
    with served(tmp_path_factory.mktemp("data")) as url:
        yield url
