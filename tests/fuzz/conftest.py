"""Fuzzing goes on beside all other tests, on what processors they leave, and is asked for its results at the end.

Law of this room: a process is begun only if the test that asks for it was chosen; it ends when this one does, however
that comes about, because it watches its standard input.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import fuzzing
import pytest

LAST = "test_no_target_broke_while_the_other_tests_ran"
BACKGROUND: pytest.StashKey[tuple[subprocess.Popen[bytes], Path]] = pytest.StashKey()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """That test comes last, wherever its file is."""
    items.sort(key=lambda item: item.name == LAST)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin, if somebody is going to ask."""
    if session.config.option.collectonly or not any(item.name == LAST for item in session.items):
        return
    fuzzing.BUILD.mkdir(parents=True, exist_ok=True)
    log = fuzzing.BUILD / "background.jsonl"
    log.write_text("")
    command = [sys.executable, fuzzing.__file__, "--background", str(log)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    session.config.stash[BACKGROUND] = process, log


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nobody may have asked, after all."""
    if BACKGROUND in session.config.stash:
        process, _ = session.config.stash[BACKGROUND]
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def background(request: pytest.FixtureRequest) -> tuple[subprocess.Popen[bytes], Path]:
    """The process that fuzzes, and where its results are."""
    return request.config.stash[BACKGROUND]
