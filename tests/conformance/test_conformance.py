"""The public conformance suite and clients of npm, unmodified, against the server as its users start it and against
servers of other makers.
"""

from __future__ import annotations

from concurrent.futures import Future

import pytest
import vitest
from front_ends import FRONT_ENDS

SUITE = "conformance.test.js"
SUITE_TESTS = 338
CLIENTS = ["event_source.test.js", "npm_client.test.js", "tanstack_ai.test.js"]
CLIENT_TESTS_MIN = 68

WSGI_HAS_NOT = "Reserved subscription APIs"

Found = dict[str, Future[list[vitest.Result]]]


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_suite_finds_nothing_wrong(found: Found, front_end: str):
    results = [result for result in found[front_end].result() if result.file == SUITE]
    failed = [result.name for result in results if not result.passed]
    if "WSGI" in front_end:
        assert any(name.startswith(WSGI_HAS_NOT) for name in failed)
        failed = [name for name in failed if not name.startswith(WSGI_HAS_NOT)]
    assert failed == []
    assert len(results) == SUITE_TESTS


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_clients_of_npm_find_what_they_expect(found: Found, front_end: str):
    results = [result for result in found[front_end].result() if result.file != SUITE]
    assert [(result.name, result.message) for result in results if not result.passed] == []
    assert sorted({result.file for result in results}) == CLIENTS
    assert len(results) >= CLIENT_TESTS_MIN
