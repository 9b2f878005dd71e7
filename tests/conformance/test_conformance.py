"""The public conformance suite, against the server as its users start it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from conformance_server import served

HERE = Path(__file__).parent
SUITE_SECONDS = 300
TESTS = 338
SUBSCRIPTIONS = "Reserved subscription APIs"


def test_the_suite_finds_nothing_wrong(node_modules: Path, server_url: str, tmp_path: Path):
    results = _run_suite(node_modules, server_url, tmp_path / "results.json")
    assert [result["fullName"] for result in results if result["status"] != "passed"] == []
    assert len(results) == TESTS


def test_the_group_of_subscriptions_passes_again_and_again_on_a_store_whose_server_is_killed_in_between(
    node_modules: Path, tmp_path: Path
):
    for _ in range(3):
        with served(tmp_path / "data", kill=True) as url:
            results = _run_suite(node_modules, url, tmp_path / "results.json", "-t", SUBSCRIPTIONS)
        states = [result["status"] for result in results if result["fullName"].startswith(SUBSCRIPTIONS)]
        assert states == ["passed"] * 6


def _run_suite(node_modules: Path, url: str, report: Path, *more: str) -> list[dict[str, Any]]:
    command = [str(node_modules / ".bin" / "vitest"), "run", "--reporter=json", f"--outputFile={report}", *more]
    done = subprocess.run(
        command,
        cwd=HERE,
        env=os.environ | {"DURABLE_LOG_URL": url},
        timeout=SUITE_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.exists(), done.stdout + done.stderr
    files = json.loads(report.read_text())["testResults"]
    return [result for file in files for result in file["assertionResults"]]
