"""What the commands make of a store that nobody may write to: a disk that goes bad is remounted read-only."""

from __future__ import annotations

import errno
import logging

import pytest
from click.testing import CliRunner
from twins import forbid_writing

import durable_log
from durable_log._cli.commands import commands
from durable_log.engine.files import LOCK_NAME

LOOKING = (
    ("verify", "{data}"),
    ("verify", "--deep", "{data}"),
    ("repair", "--dry-run", "{data}"),
    ("dump", "{data}"),
    ("dump", "{data}/MANIFEST"),
    ("ls", "--data", "{data}"),
    ("stat", "--data", "{data}", "a"),
    ("stats", "--data", "{data}"),
    ("tail", "--data", "{data}", "a"),
)


@pytest.fixture
def filled(data):
    with durable_log.open(data) as store:
        store.create("a", data=b"first, ")
    with durable_log.open(data, options=durable_log.Options(cluster_at_close=False)) as store:
        store.stream("a").append(b"second")
    return data


@pytest.fixture
def call():
    """Runs a command in this process, where calls of the system can be refused."""
    logger = logging.getLogger("durable_log")
    level = logger.level
    yield lambda *arguments: CliRunner().invoke(commands, list(map(str, arguments)))
    logger.setLevel(level)


def contents(data):
    return {path.name: path.read_bytes() for path in data.iterdir()}


@pytest.mark.parametrize("arguments", LOOKING, ids=lambda arguments: " ".join(arguments[:2]))
@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_whoever_looks_needs_not_write(call, filled, monkeypatch, arguments, number):
    before = contents(filled)
    forbid_writing(monkeypatch, filled, number)
    result = call(*(argument.format(data=filled) for argument in arguments))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout
    assert contents(filled) == before


def test_streams_are_read_and_backed_up_from_there(call, filled, tmp_path, monkeypatch):
    forbid_writing(monkeypatch, filled)
    assert call("cat", "--data", filled, "a").stdout == "first, second"
    result = call("backup", "--data", filled, tmp_path / "copy")
    assert result.exit_code == 0, result.output
    assert "0 files linked" in result.stdout
    with durable_log.open(tmp_path / "copy") as store:
        assert store.stream("a").read().data == b"first, second"


def test_whoever_has_the_store_is_told(call, filled, monkeypatch):
    with durable_log.open(filled):
        forbid_writing(monkeypatch, filled)
        for arguments in (("verify", filled), ("repair", "--dry-run", filled), ("ls", "--data", filled)):
            result = call(*arguments)
            assert result.exit_code != 0
            assert "is open in this process already" in result.stderr


def test_who_looks_without_a_lock_is_warned(call, filled, monkeypatch):
    (filled / LOCK_NAME).unlink()
    forbid_writing(monkeypatch, filled)
    for arguments in (("verify", filled), ("repair", "--dry-run", filled), ("ls", "--data", filled)):
        result = call(*arguments)
        assert result.exit_code == 0
        assert result.stderr == (
            f"Warning: there is no LOCK in {filled}, and none can be made; see to it that nobody writes to the store "
            "meanwhile\n"
        )
    assert LOCK_NAME not in contents(filled)


@pytest.mark.parametrize("arguments", [("append", "--data", "{data}", "a", "x"), ("compact", "--data", "{data}")])
def test_whoever_has_to_write_is_told_that_he_can_not(call, filled, monkeypatch, arguments):
    forbid_writing(monkeypatch, filled)
    result = call(*(argument.format(data=filled) for argument in arguments))
    assert result.exit_code == 1
    assert "LOCK: Read-only file system" in result.stderr
