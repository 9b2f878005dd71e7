"""The npm client, unmodified, writes and reads a conversation."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CLIENT_SECONDS = 60


@pytest.fixture(scope="module")
def saw(node_modules: Path, server_url: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "npm_client.mjs"],
        cwd=HERE,
        env=os.environ | {"DURABLE_LOG_URL": server_url},
        timeout=CLIENT_SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("mode", ["catchUp", "live", "sse", "longPoll"])
def test_a_finished_generation_reads_back_from_its_beginning(saw: dict[str, Any], mode: str):
    assert saw[mode] == saw["tokens"]


def test_a_viewer_resumes_from_its_saved_offset_and_sees_the_rest_as_it_is_written(saw: dict[str, Any]):
    assert saw["resumed"].replace("|", "") == saw["tokens"]
    assert saw["resumed"].startswith("Once upon a time|")


def test_a_viewer_that_joins_now_sees_what_comes_and_nothing_that_was(saw: dict[str, Any]):
    assert saw["seen"] == saw["ideas"]


def test_a_pipelining_producer_stores_everything_once_and_in_order(saw: dict[str, Any]):
    assert saw["pipelined"] == {"text": "".join(f"{number};" for number in range(100)), "failures": []}
