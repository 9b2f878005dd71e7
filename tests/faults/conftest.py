"""Where the tests here find each other and the twins; and processes with the shim in them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "engine"))

from run import HERE, environment

SECONDS_MAX = 4 * 3600.0

Started = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Started]:
    """Runs a file of this directory with the shim in its process."""
    shimmed = environment(tmp_path_factory.mktemp("build"))

    def starting(script: str, *arguments: str) -> Started:
        command = [sys.executable, str(HERE / script), *arguments]
        return subprocess.run(command, env=shimmed, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)

    return starting
