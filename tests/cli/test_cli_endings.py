"""How commands end when the system says no: one line on stderr, and an exit code that is no answer."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys

import pytest
from cli_processes import COMMAND, SECONDS_MAX, environment
from click.testing import CliRunner

import durable_log
from durable_log._cli import directory
from durable_log._cli.commands import commands

PRINTING = (
    ("ls",),
    ("cat", "notes"),
    ("stat", "notes"),
    ("stats",),
    ("compact",),
    ("verify",),
    ("repair",),
)

NO_READER = ""
"""No redirection: stdout is a pipe that nobody reads."""


@pytest.fixture
def filled(data):
    with durable_log.open(data) as store:
        store.create("notes", content_type="text/plain", data=b"hello")
    return data


@pytest.fixture
def without_reader():
    read, write = os.pipe()
    os.close(read)
    yield write
    os.close(write)


@pytest.fixture
def ended(filled, without_reader):
    """Runs a command below a shell's redirection, to its end."""

    def ended(redirection, *arguments):
        return subprocess.run(
            ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if redirection else without_reader,
            stderr=subprocess.PIPE,
            timeout=SECONDS_MAX,
            env=environment(DURABLE_LOG_DATA=str(filled)),
            check=False,
        )

    return ended


def damage(data):
    path = next(data.glob("*.seg"))
    content = bytearray(path.read_bytes())
    content[content.index(b"hello")] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_disk_below_the_output_is_told_and_is_no_answer(ended, arguments):
    finished = ended(">/dev/full", *arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith(b"Error: stdout can't be written: No space left on device")
    assert finished.stderr.count(b"\n") == 1


def test_a_record_that_could_not_be_told_is_said_to_be_stored(ended, filled):
    finished = ended(">/dev/full", "append", "notes", ", world")
    assert finished.returncode == 2
    assert b"No space left on device; the stream is stored up to offset 12\n" in finished.stderr
    with durable_log.open(filled) as store:
        assert store.stream("notes").read().data == b"hello, world"


@pytest.mark.parametrize("arguments", [*PRINTING, ("append", "notes", "x")], ids=" ".join)
def test_with_stdout_closed_nothing_is_done(ended, filled, arguments):
    before = {path.name: path.read_bytes() for path in filled.iterdir()}
    finished = ended(">&-", *arguments)
    assert finished.returncode == 2
    assert finished.stderr == b"Error: stdout is closed; nothing was done: lead it to /dev/null to have none\n"
    assert {path.name: path.read_bytes() for path in filled.iterdir()} == before


def test_with_stdin_closed_nothing_is_appended(ended, filled):
    finished = ended("<&-", "append", "--create", "new", "-")
    assert (finished.returncode, finished.stdout) == (1, b"")
    assert finished.stderr == b"Error: stdin is closed; nothing was appended: give TEXT, or something to read\n"
    with durable_log.open(filled) as store:
        assert list(store.names()) == ["notes"]


@pytest.mark.parametrize("cut", ["reader", "disk"])
def test_a_repair_that_could_not_be_told_is_said_to_be_done(ended, filled, cut):
    damage(filled)
    finished = ended(">/dev/full", "repair") if cut == "disk" else ended(NO_READER, "repair")
    assert finished.returncode == 2
    done = f"; the store is repaired, and the report is {filled}/quarantine/0001/report.txt\n"
    assert finished.stderr.endswith(done.encode())
    assert (filled / "quarantine" / "0001" / "report.json").exists()


def test_a_prefix_that_no_name_can_have_is_told(run, filled):
    finished = run("ls", "--data", filled, os.fsdecode(b"\xff"))
    assert finished.returncode == 1
    assert b"is not valid Unicode; a stream name is 1 to 1024 bytes of UTF-8\n" in finished.stderr


@pytest.mark.parametrize("arguments", [("ls",), ("compact",), ("append", "notes", "x")], ids=" ".join)
def test_a_directory_that_can_not_be_looked_at_is_told(filled, monkeypatch, arguments):
    def refuse(data):
        raise PermissionError(errno.EACCES, "Permission denied", data)

    monkeypatch.setattr(directory, "directory_to_look_at", refuse)
    result = CliRunner().invoke(commands, arguments, env={"DURABLE_LOG_DATA": str(filled)})
    assert result.exit_code == 1
    assert result.stderr == (
        f"Error: {filled}: Permission denied; check the permissions, the disk and the limit of open files\n"
    )


@pytest.mark.parametrize("command", ["ls", "compact", "verify", "repair"])
def test_a_name_that_is_too_long_for_the_system_is_that_of_no_store(run, command):
    finished = run(command, "--data", "a" * 5000)
    assert finished.returncode == (2 if command in ("verify", "repair") else 1)
    assert finished.stderr.endswith(b"a; name its directory with --data\n")


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_an_error_of_this_package_is_not_taken_for_damage(filled, monkeypatch, capfd, command):
    def fail(_):
        raise AssertionError("made for this test")

    monkeypatch.setattr(f"durable_log._cli.{command}.find_store", fail)
    level = logging.getLogger("durable_log").level
    result = CliRunner().invoke(commands, [command, str(filled)])
    assert logging.getLogger("durable_log").level == level, "whoever comes after it in this process logs as before"
    assert result.exit_code == 2
    assert "AssertionError: made for this test" in result.stderr


def test_an_interrupt_while_it_starts_is_no_traceback():
    program = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'durable_log._cli.commands':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from durable_log.cli import main\n"
        "main()\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=SECONDS_MAX, env=environment(), check=False
    )
    assert (finished.returncode, finished.stderr) == (130, b"")


@pytest.mark.parametrize(
    "arguments", [("verify", "--deep"), ("repair",), ("repair", "--dry-run"), ("dump",), ("backup",)], ids=" ".join
)
def test_what_to_do_about_a_disk_that_does_not_read_is_told(filled, tmp_path, monkeypatch, arguments):
    with durable_log.open(filled, options=durable_log.Options(cluster_at_close=False)) as store:
        store.stream("notes").append(b", world")
    log = max(filled.glob("*.log")).stat().st_ino
    read = os.pread

    def fail(fd, length, position):
        if os.fstat(fd).st_ino == log and position + length > 4096:
            raise OSError(errno.EIO, "Input/output error")
        return read(fd, length, position)

    monkeypatch.setattr(os, "pread", fail)
    where = [str(tmp_path / "copy")] if arguments == ("backup",) else [str(filled)]
    result = CliRunner().invoke(commands, [*arguments, *where], env={"DURABLE_LOG_DATA": str(filled)})
    assert result.exit_code == (1 if arguments == ("backup",) else 2)
    assert ".log: Input/output error; " in result.stderr
    assert "copy the store's directory to another disk, with a tool such as ddrescue" in result.stderr
