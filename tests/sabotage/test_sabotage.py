"""Can the tests see? Old bugs of other engines are put into a copy of this one, and the suite has to find each.

A bug that breaks everything would prove nothing, so each copy first passes what every engine has to pass; and whoever
finds a bug has to find nothing in a copy without any.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from bugs import BUGS, Bug

ROOT = Path(__file__).resolve().parent.parent.parent
SECONDS_MAX = 900.0
EVERY_ROOM = os.environ.get("DURABLE_LOG_SABOTAGE") == "all"
"""Whether to ask all that are said to find a bug, not the quickest alone."""
NOT_COPIED = (".git", ".venv", "build", "node_modules", "__pycache__", ".*_cache", ".hypothesis", "sabotage")
ORDINARY = ("tests/store/test_store_appending.py", "tests/store/test_store_creating.py")


def copied(copy: Path, bug: Bug | None = None) -> dict[str, str]:
    """A copy of all that is here, with the bug in it; the environment in which it is the package that is imported."""
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*NOT_COPIED))
    for edit in bug.edits if bug else ():
        file = copy / edit.file
        text = file.read_text()
        assert text.count(edit.old) == 1, f"{edit.file} has changed, so this bug has to be put in anew: {edit.old!r}"
        file.write_text(text.replace(edit.old, edit.new))
    environment = os.environ | {"PYTHONPATH": str(copy)}
    if bug and bug.builds:
        build = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--force"]
        subprocess.run(build, cwd=copy, env=environment, check=True, timeout=SECONDS_MAX)
    asked = [sys.executable, "-c", "import durable_log; print(durable_log.__file__)"]
    imported = subprocess.run(asked, cwd=copy, env=environment, check=True, capture_output=True, text=True).stdout
    assert imported.startswith(str(copy)), imported
    return environment


def run(copy: Path, environment: dict[str, str], tests: Sequence[str]) -> tuple[int, str]:
    """What those tests of that copy say, up to the first that fails."""
    assert tests, "no tests would be all tests"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    ended = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False
    )
    return ended.returncode, ended.stdout + ended.stderr


def failed_in(output: str) -> list[str]:
    """The tests that failed. Their lines may be followed by pages of what they say, above all where CI is set."""
    return [line.split(" ")[1] for line in output.splitlines() if line.startswith("FAILED ")]


def finders(bug: Bug) -> Sequence[str]:
    return bug.found_by if EVERY_ROOM else bug.found_by[:1]


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_the_suite_finds(bug, tmp_path):
    environment = copied(tmp_path / "copy", bug)
    for finder in finders(bug):
        failed, output = run(tmp_path / "copy", environment, [*ORDINARY, finder])
        found = failed_in(output)
        assert failed == 1, f"{finder} does not find it: {bug.story}\n{output}"
        assert all(test.startswith(finder) for test in found), f"this breaks so much that anybody sees it:\n{output}"
        print(f"{bug.name}: {found}")


def test_whoever_finds_a_bug_finds_nothing_where_there_is_none(tmp_path):
    asked = sorted({finder for bug in BUGS for finder in finders(bug)})
    passes, output = run(tmp_path / "copy", copied(tmp_path / "copy"), asked)
    assert passes == 0, output


def test_there_are_thirteen():
    assert len({bug.name for bug in BUGS}) == 13
