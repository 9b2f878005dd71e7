"""The fixtures of all benchmarks, and what is written of those that did not run.

Law of this room: plumbing of pytest; what it means is in ``contest``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bars import STREAMS
from benchmarks.contest import Contest, missing
from benchmarks.servers import Contestant, Server

ABSENT = pytest.StashKey[list[dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("contest", "benchmarks")
    group.addoption("--quick", action="store_true", help="so little that nothing is measured, only run")
    group.addoption("--where", type=Path, default=None, help="the directory that contestants write to")
    group.addoption("--streams", type=int, default=STREAMS, help="of how many streams cardinality is")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ABSENT] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    found = missing(item, report)
    if found is not None:
        item.config.stash[ABSENT].append(found)
    return report


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["absent"] = config.stash[ABSENT]


@pytest.fixture
def contest(request: pytest.FixtureRequest) -> Contest:
    return Contest(request, quick=request.config.getoption("--quick"))


@pytest.fixture
def folder(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory for one contestant, on the file system that is measured."""
    with tempfile.TemporaryDirectory(dir=pytestconfig.getoption("--where")) as path:
        yield Path(path)


@pytest.fixture
def server(contest: Contest, folder: Path, contestant: Contestant) -> Iterator[Server]:
    """A contestant over HTTP."""
    with contest.opened(lambda: Server(contestant, folder)) as server:
        yield server


@pytest.fixture(scope="module")
def shared_folder(pytestconfig: pytest.Config) -> Iterator[Path]:
    """A directory for what all tests of a file prepare once."""
    with tempfile.TemporaryDirectory(dir=pytestconfig.getoption("--where")) as path:
        yield Path(path)
