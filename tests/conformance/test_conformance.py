"""The public conformance suite, against the server as its users start it and against servers of other makers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import vitest
from front_ends import FRONT_ENDS, running

TESTS_MIN = 330

EXPECTED_FAILURES = ("Reserved subscription APIs",)
"""Groups of what this server does not do yet; a group that passes has to leave this list."""

Suites = dict[str, Future[list[vitest.Result]]]


@pytest.fixture(scope="module")
def suites(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Suites]:
    """The suite on each front-end, as many at a time as there are processors: most of a run is waiting."""

    def run(front_end: str, directory: Path) -> list[vitest.Result]:
        with running(front_end, directory) as server:
            return vitest.run(node_modules, server.url, directory, "conformance.test.js")

    with ThreadPoolExecutor(os.cpu_count()) as lanes:
        yield {name: lanes.submit(run, name, tmp_path_factory.mktemp("suite")) for name in FRONT_ENDS}
        lanes.shutdown(cancel_futures=True)


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_the_suite_finds_nothing_wrong_outside_of_what_is_not_there_yet(suites: Suites, front_end: str):
    results = suites[front_end].result()
    failed = [result.name for result in results if not result.passed]
    unexpected = [name for name in failed if not name.startswith(EXPECTED_FAILURES)]
    assert unexpected == []
    assert len(results) > TESTS_MIN
    assert [group for group in EXPECTED_FAILURES if not any(name.startswith(group) for name in failed)] == []
