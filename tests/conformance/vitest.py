"""Runs test files of vitest against a server and tells what became of each test."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

RUN_SECONDS = 300


class Result(NamedTuple):
    name: str
    passed: bool
    message: str


def run(node_modules: Path, file: str, url: str, report: Path) -> list[Result]:
    """All tests of ``file``, beside ``node_modules``, run against the server at ``url``."""
    command = [str(node_modules / ".bin" / "vitest"), "run", file, "--reporter=json", f"--outputFile={report}"]
    done = subprocess.run(
        command,
        cwd=node_modules.parent,
        env=os.environ | {"DURABLE_LOG_URL": url},
        timeout=RUN_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    tests = [test for file in json.loads(report.read_text())["testResults"] for test in file["assertionResults"]]
    assert tests, done.stdout + done.stderr
    return [Result(test["fullName"], test["status"] == "passed", "\n".join(test["failureMessages"])) for test in tests]
