"""What directories and files the commands take: an empty name, two names, a tilde, and what is no store."""

from __future__ import annotations

import pytest

import durable_log
from durable_log.engine.manifest import UNFINISHED_NAME

OTHERS = ("ls", "verify", "repair", "stats", "compact")
"""Commands that need nothing but a store."""


@pytest.fixture
def filled(data):
    with durable_log.open(data) as store:
        store.create("notes", content_type="text/plain", data=b"hello")
    return data


def names_below(path):
    return sorted(str(each.relative_to(path)) for each in path.rglob("*"))


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", ""),
        ("repair", ""),
        ("repair", "--dry-run", ""),
        ("dump", ""),
        ("backup", ""),
        *((command, "--data", "") for command in OTHERS),
        ("append", "--create", "--data", "", "notes", "x"),
    ],
    ids=" ".join,
)
def test_an_empty_name_is_not_taken_for_the_default(run, tmp_path, filled, arguments):
    filled.rename(tmp_path / "durable-log-data")
    before = names_below(tmp_path)
    finished = run(*arguments)
    assert (finished.returncode, finished.stdout) == (2, b"")
    assert b"it is empty; is a variable not set?" in finished.stderr
    assert names_below(tmp_path) == before


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_a_store_is_named_once(run, tmp_path, filled, command):
    finished = run(command, "--data", "other", filled)
    assert (finished.returncode, finished.stdout) == (2, b"")
    assert b"two stores are named, other by --data and " in finished.stderr
    assert run(command, filled, DURABLE_LOG_DATA="other").returncode == 0


def test_a_tilde_is_the_home_directory_for_all_commands(run, tmp_path):
    home = {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    assert run("append", "--create", "--data=~/notes", "diary", "hello", **home).stdout == b"5\n"
    assert run("ls", "--data=~/notes", **home).stdout == b"diary\n"
    for command in ("verify", "repair", "dump"):
        assert run(command, "~/notes", **home).returncode == 0, command
    finished = run("backup", "--data=~/notes", "~/copy", **home)
    assert finished.stdout.startswith(f"{tmp_path}/home/copy: 1 streams; ".encode())
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["copy", "notes"]
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_nothing_is_appended_to_a_store_that_is_gone_with_the_command(run, tmp_path):
    for arguments in (("append", "--create", "--data", ":memory:", "a", "x"), ("ls", "--data", ":memory:")):
        finished = run(*arguments)
        assert (finished.returncode, finished.stdout) == (2, b"")
        assert b"a store in memory would be gone with this command; name a directory" in finished.stderr
    assert names_below(tmp_path) == []


@pytest.fixture
def foreign(tmp_path):
    """A folder that is no store, with a file that has the name of a log segment."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "20240101.log").write_bytes(b"started\n")
    return folder


@pytest.mark.parametrize("manifest", [None, b"include *.py\n"], ids=["without MANIFEST", "with another's MANIFEST"])
@pytest.mark.parametrize(
    "arguments",
    [("verify",), ("verify", "--deep"), ("repair",), ("repair", "--dry-run"), ("ls", "--data"), ("compact", "--data")],
    ids=" ".join,
)
def test_nothing_is_written_into_what_is_no_store(run, foreign, manifest, arguments):
    if manifest is not None:
        (foreign / "MANIFEST").write_bytes(manifest)
    before = names_below(foreign)
    finished = run(*arguments, foreign)
    assert (finished.returncode, finished.stdout) == (1 if "--data" in arguments else 2, b"")
    assert b"is not a durable_log store: no file in it has the header of a store's file" in finished.stderr
    assert b"name the directory of a store" in finished.stderr
    assert names_below(foreign) == before


@pytest.mark.parametrize("command", ["ls", "verify", "repair"])
def test_a_foreign_folder_with_a_lock_is_not_sent_to_a_repair(run, foreign, command):
    (foreign / "LOCK").touch()
    finished = run(command, "--data", foreign)
    assert b"no file in it has the header of a store's file; name the directory of a store" in finished.stderr


@pytest.mark.parametrize("command", ["ls", "verify", "repair"])
def test_a_file_is_no_store_and_nobody_is_told_to_make_a_directory(run, tmp_path, command):
    (tmp_path / "file").write_bytes(b"hi\n")
    finished = run(command, "--data", "file")
    assert finished.stderr == b"Error: file is not a durable_log store: it is a file; name the directory of a store\n"


def test_a_backup_that_was_not_finished_is_told_to_be_one(run, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / UNFINISHED_NAME).touch()
    for command in ("ls", "verify", "repair"):
        assert b"the backup into it was not finished" in run(command, "--data", "copy").stderr
    assert names_below(tmp_path / "copy") == [UNFINISHED_NAME]
