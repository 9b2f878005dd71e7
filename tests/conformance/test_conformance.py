"""The public conformance suite, against the server as its users start it and against servers of other makers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from front_ends import FRONT_ENDS, running

HERE = Path(__file__).parent
SUITE_SECONDS = 300
TESTS_MIN = 330

EXPECTED_FAILURES = ("Reserved subscription APIs",)
"""Groups of what this server does not do yet; a group that passes has to leave this list."""

Results = list[dict[str, Any]]


@pytest.fixture(scope="module")
def suites(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Results]]]:
    """The suite on each front-end, as many at a time as there are processors: most of a run is waiting."""
    with ThreadPoolExecutor(os.cpu_count()) as lanes:
        runs = {
            name: lanes.submit(_run_suite, node_modules, name, tmp_path_factory.mktemp("suite")) for name in FRONT_ENDS
        }
        yield runs
        lanes.shutdown(cancel_futures=True)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_suite_finds_nothing_wrong_outside_of_what_is_not_there_yet(
    suites: dict[str, Future[Results]], front_end: str
):
    results = suites[front_end].result()
    failed = [result["fullName"] for result in results if result["status"] != "passed"]
    unexpected = [name for name in failed if not name.startswith(EXPECTED_FAILURES)]
    assert unexpected == []
    assert len(results) > TESTS_MIN
    assert [group for group in EXPECTED_FAILURES if not any(name.startswith(group) for name in failed)] == []


def _run_suite(node_modules: Path, front_end: str, directory: Path) -> Results:
    report = directory / "results.json"
    command = [str(node_modules / ".bin" / "vitest"), "run", "--reporter=json", f"--outputFile={report}"]
    with running(front_end, directory) as server:
        done = subprocess.run(
            command,
            cwd=HERE,
            env=os.environ | {"DURABLE_LOG_URL": server.url},
            timeout=SUITE_SECONDS,
            capture_output=True,
            text=True,
            check=False,
        )
    assert report.exists(), done.stdout + done.stderr
    files = json.loads(report.read_text())["testResults"]
    return [result for file in files for result in file["assertionResults"]]
