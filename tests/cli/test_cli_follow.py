"""cat and tail of a stream that a running server holds."""

from __future__ import annotations

import subprocess

import pytest
from cli_processes import COMMAND, SECONDS_MAX, environment

IDEAS = b'[{"idea": 1}, "two, three", 4]'


@pytest.fixture
def server(serve):
    server = serve("store", 0, "--long-poll-timeout", "0.5")
    server.put("notes", "é and ✨".encode())
    server.put("ideas", IDEAS, "application/json")
    return server


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("cat", "notes"), "é and ✨"),
        (("cat", "--offset", "3", "notes"), "and ✨"),
        (("cat", "ideas"), '{"idea": 1}\n"two, three"\n4\n'),
        (("tail", "notes"), "é and ✨"),
        (("tail", "-n", "9", "notes"), " and ✨"),
        (("tail", "-n", "2", "notes"), ""),
        (("tail", "-n", "3", "ideas"), '"two, three"\n4\n'),
        (("tail", "-n", "0", "ideas"), ""),
    ],
)
def test_a_stream_is_read_by_its_url(run, server, arguments, shown):
    finished = run(*arguments[:-1], server.url + arguments[-1])
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert finished.stdout.decode() == shown


def test_streams_longer_than_one_page_are_read_whole(run, server):
    piece = b"0123456789abcdef" * 2**16
    server.put("long")
    for _ in range(6):
        server.post("long", piece)
    assert run("cat", server.url + "long").stdout == piece * 6
    assert run("tail", "-n", 5 * len(piece), server.url + "long").stdout == piece * 5


def test_a_follower_sees_what_is_appended_until_the_close(server):
    command = [*COMMAND, "tail", "-f", "-n", "0", server.url + "notes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as follower:
        server.post("notes", b", more")
        server.post("notes", b" and the end", **{"Stream-Closed": "true"})
        shown = follower.communicate(timeout=SECONDS_MAX)[0]
    assert b", more and the end".endswith(shown)
    assert follower.returncode == 0


def test_a_follower_outlives_the_server(serve, server):
    command = [*COMMAND, "tail", "-f", server.url + "notes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as follower:
        begun = "é and ✨".encode()
        assert follower.stdout.read(len(begun)) == begun
        server.process.kill()
        server.process.wait()
        assert follower.stderr.readline().endswith(b"waiting for the server\n")
        again = serve("store", server.port)
        again.post("notes", b", again", **{"Stream-Closed": "true"})
        shown, complaints = follower.communicate(timeout=SECONDS_MAX)
    assert (shown, complaints, follower.returncode) == (b", again", b"", 0)


@pytest.mark.parametrize("command", [["cat"], ["tail"], ["tail", "-f"]])
def test_errors_are_told_in_one_line(run, server, command):
    finished = run(*command, server.url + "nothing")
    assert finished.returncode == 1
    assert "stream 'nothing' does not exist" in finished.stderr.decode() or b"HTTP 404" in finished.stderr
    server.stop()
    finished = run(*command, server.url + "notes")
    assert finished.returncode == 1
    assert finished.stderr.decode() == f"Error: {server.url}notes: Connection refused; is the server running?\n"
