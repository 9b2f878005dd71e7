"""The npm client, unmodified, does all that it can do, on every front-end."""

from __future__ import annotations

from pathlib import Path

import pytest
import vitest
from front_ends import FRONT_ENDS, running

TESTS_MIN = 60


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_npm_client_finds_what_it_expects(node_modules: Path, tmp_path: Path, front_end: str):
    with running(front_end, tmp_path) as server:
        results = vitest.run(node_modules, "npm_client.test.js", server.url, tmp_path / "results.json")
    assert [(result.name, result.message) for result in results if not result.passed] == []
    assert len(results) > TESTS_MIN
