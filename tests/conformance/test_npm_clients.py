"""Clients of npm, unmodified, do all that they can do, on every front-end."""

from __future__ import annotations

from pathlib import Path

import pytest
import vitest
from front_ends import FRONT_ENDS, running

FILES = ["npm_client.test.js", "event_source.test.js", "tanstack_ai.test.js"]
TESTS_MIN = 68


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_clients_of_npm_find_what_they_expect(node_modules: Path, tmp_path: Path, front_end: str):
    with running(front_end, tmp_path) as server:
        results = vitest.run(node_modules, server.url, tmp_path, *FILES)
    assert [(result.name, result.message) for result in results if not result.passed] == []
    assert len(results) >= TESTS_MIN
