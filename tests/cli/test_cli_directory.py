"""ls, cat, tail, append, stat and rm on a store's own directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time

import pytest
from cli_processes import COMMAND, SECONDS_MAX, environment

import durable_log

NOTES = "é – ✨"  # noqa: RUF001 - text of one, two and three bytes a character


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "store"
    with durable_log.open(path) as store:
        notes = store.create("notes", content_type="text/plain")
        notes.append(NOTES)
        ideas = store.create("team/ideas", content_type="application/json", ttl=3600)
        ideas.append('[1, {"a":\n [2]}]')
        ideas.append('"three, four"')
        store.create("team/old", closed=True, data=b"\x00\xff")
    return path


@pytest.fixture
def filled(template, data):
    return shutil.copytree(template, data)


def output(finished):
    assert finished.stderr.decode() == ""
    assert finished.returncode == 0
    return finished.stdout


def test_ls_prints_one_name_a_line_in_order(run, filled):
    assert output(run("ls", "--data", filled)) == b"notes\nteam/ideas\nteam/old\n"
    assert output(run("ls", "--data", filled, "team/")) == b"team/ideas\nteam/old\n"
    assert output(run("ls", "--data", filled, "none")) == b""


def test_ls_long_adds_tail_state_and_content_type(run, filled):
    rows = [line.split() for line in output(run("ls", "-l", "--data", filled)).decode().splitlines()]
    assert rows == [
        [str(len(NOTES.encode())), "open", "text/plain", "notes"],
        ["28", "open", "application/json", "team/ideas"],
        ["2", "closed", "application/octet-stream", "team/old"],
    ]


def test_ls_json_is_one_object_a_line(run, filled):
    rows = [json.loads(line) for line in output(run("ls", "--json", "--data", filled, "team")).splitlines()]
    assert [(row["name"], row["tail"], row["closed"], row["ttl"]) for row in rows] == [
        ("team/ideas", 28, False, 3600),
        ("team/old", 2, True, None),
    ]


def test_a_name_with_control_characters_cannot_play_tricks_on_the_terminal(run, data):
    with durable_log.open(data) as store:
        store.create("a\x1b[2J\nb")
    assert output(run("ls", "--data", data)) == b"a\\x1b[2J\\nb\n"
    assert json.loads(output(run("ls", "--json", "--data", data)))["name"] == "a\x1b[2J\nb"


def test_cat_writes_the_bytes_as_they_are(run, filled):
    assert output(run("cat", "--data", filled, "notes")) == NOTES.encode()
    assert output(run("cat", "--data", filled, "team/old")) == b"\x00\xff"
    assert output(run("cat", "--data", filled, "--offset", 3, "notes")) == NOTES.encode()[3:]


def test_a_trimmed_stream_is_shown_from_its_oldest_byte_and_verifies(run, filled):
    with durable_log.open(filled) as store:
        store.stream("notes").trim(3)
    assert output(run("cat", "--data", filled, "notes")) == NOTES.encode()[3:]
    assert output(run("tail", "--data", filled, "-n", 100, "notes")) == NOTES.encode()[3:]
    assert json.loads(output(run("stat", "--json", "--data", filled, "notes")))["first"] == 3
    output(run("verify", "--deep", "--data", filled))
    refused = run("cat", "--data", filled, "--offset", 1, "notes")
    assert (refused.returncode, refused.stdout) == (1, b"")


def test_cat_shows_each_json_message_on_a_line(run, filled):
    assert output(run("cat", "--data", filled, "team/ideas")) == b'1\n{"a":  [2]}\n"three, four"\n'


def test_cat_writes_streams_that_are_longer_than_one_read(run, data):
    piece = bytes(range(256)) * 4096
    with durable_log.open(data) as store:
        store.create("long")
        for _ in range(9):
            store.stream("long").append(piece)
    assert output(run("cat", "--data", data, "long")) == piece * 9


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, ""), (1, ""), (3, "✨"), (4, " ✨"), (8, NOTES[1:]), (9, NOTES[1:]), (10, NOTES), (4096, NOTES)],
)
def test_tail_starts_at_a_whole_character(run, filled, count, shown):
    assert output(run("tail", "--data", filled, "-n", count, "notes")).decode() == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, b""), (1, b'"three, four"\n'), (14, b'"three, four"\n'), (15, b'{"a":  [2]}\n"three, four"\n')],
)
def test_tail_starts_at_a_whole_message(run, filled, count, shown):
    assert output(run("tail", "--data", filled, "-n", count, "team/ideas")) == shown


def test_append_prints_the_offset_after_it(run, filled):
    assert output(run("append", "--data", filled, "notes", "more")) == b"%d\n" % (len(NOTES.encode()) + 4)
    assert output(run("cat", "--data", filled, "notes")).decode() == NOTES + "more"


def test_append_takes_stdin(run, filled):
    assert output(run("append", "--data", filled, "team/ideas", "-", stdin=b"[5,6]")) == b"32\n"
    assert output(run("append", "--data", filled, "notes", stdin=b"\xffnot text\n")) == b"20\n"
    assert output(run("cat", "--data", filled, "notes")) == NOTES.encode() + b"\xffnot text\n"


def test_append_creates_stream_and_store_if_it_is_asked_to(run, data):
    assert output(run("append", "--data", data, "new", "--create", "hello")) == b"5\n"
    assert output(run("append", "--data", data, "new", "--create", " again", "--close")) == b"11\n"
    assert json.loads(output(run("stat", "--json", "--data", data, "new")))["closed"]
    bin_type = ("--create", "--content-type", "application/x-thing")
    assert output(run("append", "--data", data, "bin", *bin_type)) == b"0\n"
    known = json.loads(output(run("stat", "--json", "--data", data, "bin")))
    assert known["content_type"] == "application/x-thing"


def test_close_alone_ends_a_stream_and_doing_it_again_is_fine(run, filled):
    tail = b"%d\n" % len(NOTES.encode())
    assert output(run("append", "--data", filled, "notes", "--close")) == tail
    assert output(run("append", "--data", filled, "notes", "--close")) == tail


def test_what_arrives_on_stdin_is_on_disk_before_its_end(data):
    command = [*COMMAND, "append", "--data", str(data), "chat", "--create", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()) as process:
        process.stdin.write(b"first words")
        process.stdin.flush()
        segment = data / "00000001.log"
        deadline = time.monotonic() + SECONDS_MAX
        while not segment.exists() or b"first words" not in segment.read_bytes():
            assert time.monotonic() < deadline, "the first words did not reach the disk"
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=SECONDS_MAX)
    with durable_log.open(data) as store:
        assert store.stream("chat").read().data == b"first words"


def test_stat_shows_what_is_known(run, filled):
    lines = dict(
        line.split(None, 1) for line in output(run("stat", "--data", filled, "team/ideas")).decode().splitlines()
    )
    assert lines["name"] == "team/ideas"
    assert lines["tail"] == "28"
    assert lines["closed"] == "no"
    assert lines["content_type"] == "application/json"
    assert lines["ttl"] == "3600"
    assert lines["expires_at"] == "-"


def test_rm_deletes_what_is_there_and_tells_what_is_not(run, filled):
    finished = run("rm", "--data", filled, "notes", "nothing", "team/old")
    assert finished.returncode == 1
    assert finished.stderr == b"Error: stream 'nothing' does not exist\n"
    assert output(run("ls", "--data", filled)) == b"team/ideas\n"
    assert output(run("rm", "--data", filled, "team/ideas")) == b""


def test_the_directory_may_come_from_the_environment(run, filled):
    assert output(run("ls", DURABLE_LOG_DATA=str(filled))) == output(run("ls", "--data", filled))


def test_a_reader_that_has_seen_enough_is_no_error(data):
    with durable_log.open(data) as store:
        store.create("long", data=b"line\n" * 1_000_000)
    with subprocess.Popen(
        [*COMMAND, "cat", "--data", str(data), "long"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.wait(SECONDS_MAX) == 0
        assert process.stderr.read() == b""


def test_looking_creates_no_store(run, data):
    for command in (
        ("ls",),
        ("cat", "a"),
        ("tail", "a"),
        ("append", "a", "x"),
        ("stat", "a"),
        ("rm", "a"),
        ("verify",),
        ("repair",),
        ("stats",),
        ("compact",),
        ("backup", "target"),
    ):
        finished = run(*command, "--data", data)
        assert (finished.returncode, finished.stdout) == (2 if command[0] in ("verify", "repair") else 1, b"")
        assert finished.stderr.decode() == f"Error: there is no store in {data}; name its directory with --data\n"
    assert not data.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("cat", "nothing"), 1, "stream 'nothing' does not exist"),
        (("tail", "nothing"), 1, "stream 'nothing' does not exist"),
        (("stat", "nothing"), 1, "stream 'nothing' does not exist"),
        (("append", "nothing", "x"), 1, "stream 'nothing' does not exist; create it first"),
        (("cat", ""), 1, "a stream name is 1 to 1024 bytes"),
        (("cat", "notes", "--offset", "100"), 1, "stream 'notes' holds offsets 0 to 10, not 100"),
        (("append", "team/old", "x"), 1, "stream 'team/old' is closed at offset 2"),
        (("append", "team/ideas", "{"), 1, "not valid JSON"),
        (("append", "notes", ""), 1, "an append needs data"),
        (("append", "notes", "x", "--create", "--content-type", "a/b"), 1, "already exists with content type"),
        (("append", "notes", "x", "--content-type", "a/b"), 2, "--content-type goes with --create"),
        (("tail", "-f", "a b"), 2, "http://127.0.0.1:4437/v1/stream/a%20b"),
        (("rm",), 2, "Missing argument"),
        (("cat", "notes", "--offset", "-1"), 2, "--offset"),
        (("fly",), 2, "No such command 'fly'"),
    ],
)
def test_an_error_is_told_without_a_traceback(run, filled, arguments, code, said):
    finished = run(*arguments, DURABLE_LOG_DATA=str(filled))
    message = finished.stderr.decode()
    assert (finished.returncode, finished.stdout) == (code, b"")
    assert said in message
    assert "Traceback" not in message
    if code == 1:
        assert message.startswith("Error: ")
        assert message.count("\n") == 1


def test_a_store_that_is_in_use_is_said_to_be_and_where_to_ask_instead(run, filled):
    with durable_log.open(filled):
        for command in (("verify",), ("repair",)):
            finished = run(*command, "--data", filled)
            assert finished.returncode == 2
            assert f"is open in process {os.getpid()} on" in finished.stderr.decode()
        for command in (("ls",), ("cat", "notes"), ("rm", "notes")):
            finished = run(*command, "--data", filled)
            message = finished.stderr.decode()
            assert finished.returncode == 1
            assert f"is open in process {os.getpid()} on" in message
            assert "durable-log cat http://127.0.0.1:4437/v1/stream/NAME" in message
    with durable_log.open(filled) as store:
        assert store.stream("notes").read().data == NOTES.encode()


def test_help_and_version_are_there(run):
    assert output(run("--version")) == f"durable-log, version {durable_log.__version__}\n".encode()
    listed = output(run("--help")).decode()
    for command in (
        "serve",
        "demo",
        "ls",
        "cat",
        "tail",
        "append",
        "stat",
        "rm",
        "verify",
        "repair",
        "dump",
        "stats",
        "compact",
        "backup",
    ):
        assert f"  {command} " in listed
        assert output(run(command, "--help")).decode().startswith("Usage: durable-log " + command)
    assert "..." not in listed.partition("Commands:")[2]


def test_without_the_extra_packages_it_says_what_to_install(tmp_path):
    for package in ("click", "uvicorn"):
        hidden = f"import sys; sys.modules[{package!r}] = None; sys.argv[1:] = ['serve']"
        code = f"{hidden}; import durable_log.cli; durable_log.cli.main()"
        finished = subprocess.run(
            [COMMAND[0], "-c", code], capture_output=True, cwd=tmp_path, timeout=SECONDS_MAX, check=False
        )
        assert finished.returncode == 1
        message = finished.stderr.decode()
        assert message.startswith(
            f"durable-log: the package '{package}' is missing; run: pip install 'durable-log[server]'"
        )
        assert message.count("\n") == 1
