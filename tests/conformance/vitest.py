"""Runs the test files of vitest that are here against a server and tells what became of each test."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

RUN_SECONDS = 400


class Result(NamedTuple):
    file: str
    name: str
    passed: bool
    message: str


def run(node_modules: Path, url: str, directory: Path, *only: str, **environment: str) -> list[Result]:
    """All tests beside ``node_modules``, or ``only`` those, run against the server at ``url``."""
    report = directory / "results.json"
    command = [str(node_modules / ".bin" / "vitest"), "run", "--reporter=json", f"--outputFile={report}", *only]
    done = subprocess.run(
        command,
        cwd=node_modules.parent,
        env=os.environ | {"DURABLE_LOG_URL": url} | environment,
        timeout=RUN_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    return [
        Result(
            Path(file["name"]).name, test["fullName"], test["status"] == "passed", "\n".join(test["failureMessages"])
        )
        for file in json.loads(report.read_text())["testResults"]
        for test in file["assertionResults"]
    ]
