"""The public conformance suite and clients of npm, unmodified, against the server as its users start it and against
servers of other makers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
import vitest
from front_ends import FRONT_ENDS, KILLED, Server

SUITE = "conformance.test.js"
SUITE_TESTS = 338
CLIENTS = ["event_source.test.js", "npm_client.test.js", "tanstack_ai.test.js"]
CLIENT_TESTS_MIN = 68

SUBSCRIPTIONS = "Reserved subscription APIs"

Found = dict[str, Future[list[vitest.Result]]]
Record = Callable[[str, str], None]


def passed_of(results: list[vitest.Result]) -> str:
    return f"{sum(result.passed for result in results)} of {len(results)}"


@pytest.mark.parametrize("front_end", [KILLED, *FRONT_ENDS])
def test_the_suite_finds_nothing_wrong(found: Found, front_end: str, record_property: Record):
    results = [result for result in found[front_end].result() if result.file == SUITE]
    record_property(f"public suite, {front_end}", passed_of(results))
    failed = [result.name for result in results if not result.passed]
    if "WSGI" in front_end:
        assert any(name.startswith(SUBSCRIPTIONS) for name in failed)
        failed = [name for name in failed if not name.startswith(SUBSCRIPTIONS)]
    assert failed == []
    assert len(results) == SUITE_TESTS


@pytest.mark.parametrize("front_end", [KILLED, *FRONT_ENDS])
def test_the_clients_of_npm_find_what_they_expect(found: Found, front_end: str, record_property: Record):
    results = [result for result in found[front_end].result() if result.file != SUITE]
    for file in CLIENTS:
        record_property(f"{file}, {front_end}", passed_of([result for result in results if result.file == file]))
    assert [(result.name, result.message) for result in results if not result.passed] == []
    assert sorted({result.file for result in results}) == CLIENTS
    assert len(results) >= CLIENT_TESTS_MIN


def test_the_group_of_subscriptions_passes_again_and_again_on_a_store_whose_server_is_killed_in_between(
    node_modules: Path, tmp_path: Path
):
    server = Server(FRONT_ENDS["durable-log serve"], tmp_path)
    for _ in range(3):
        server.start()
        try:
            results = vitest.run(node_modules, server.url, tmp_path, SUITE, "-t", SUBSCRIPTIONS)
        finally:
            server.kill()
        assert [result.passed for result in results if result.name.startswith(SUBSCRIPTIONS)] == [True] * 6
