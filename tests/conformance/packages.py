"""The npm packages of a folder of tests: those of its package-lock.json, from wherever this machine's npm gets them."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL_SECONDS = 300


def installed(folder: Path) -> Path:
    """``node_modules`` of the folder, installed if it is not there or is not that of the lock any more."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    modules = folder / "node_modules"
    stamp = modules / ".durable-log-lock"
    with (folder / "package-lock.json").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run side by side
        digest = hashlib.sha256(lock.read()).hexdigest()
        if not stamp.exists() or stamp.read_text() != digest:
            _install(npm, folder)
            stamp.write_text(digest)
    return modules


def _install(npm: str, folder: Path) -> None:
    command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=folder, check=False, timeout=INSTALL_SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
