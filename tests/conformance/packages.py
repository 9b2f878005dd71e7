"""The npm packages of a folder of tests: those of its package-lock.json, from wherever this machine's npm gets them."""

from __future__ import annotations

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
    modules, lock = folder / "node_modules", (folder / "package-lock.json").read_bytes()
    stamp = modules / ".durable-log-lock"
    digest = hashlib.sha256(lock).hexdigest()
    if not stamp.exists() or stamp.read_text() != digest:
        command = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, check=False, timeout=INSTALL_SECONDS, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(digest)
    return modules
