"""Tokens in a file: the grammar, what a line allows, and a file that changes."""

from __future__ import annotations

import logging
import os
import threading

import pytest

from durable_log.access import Allow, BearerTokens, Deny, Request
from durable_log.access.grants import grant
from durable_log.access.watched import Watched
from durable_log.errors import InvalidOption


def request(action, name, authorization=None):
    return Request(action, name, "GET", headers={} if authorization is None else {"authorization": authorization})


def allowed(hook, token, action, name):
    return isinstance(hook(request(action, name, f"Bearer {token}")), Allow)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def hook(path):
    """Makes a hook of the text of a file."""

    def hook(text):
        path.write_text(text)
        path.chmod(0o600)
        return BearerTokens.from_file(path)

    return hook


def test_a_token_alone_is_good_for_everything(hook):
    tokens = hook("secret\n")
    for action in ("create", "append", "close", "read", "describe", "delete", "control", "metrics"):
        assert allowed(tokens, "secret", action, "any/name")


def test_a_token_is_good_for_what_its_line_says_and_nothing_else(hook):
    tokens = hook("# who\nworker read,append chat/** # the worker\n\nviewer read public/*\n")
    assert allowed(tokens, "worker", "append", "chat/1")
    assert allowed(tokens, "worker", "describe", "chat/1/2")
    assert not allowed(tokens, "worker", "delete", "chat/1")
    assert not allowed(tokens, "worker", "create", "chat/1")
    assert not allowed(tokens, "worker", "append", "chats/1")
    assert not allowed(tokens, "worker", "append", "chat")
    assert allowed(tokens, "viewer", "read", "public/a")
    assert not allowed(tokens, "viewer", "read", "public/a/b")
    assert not allowed(tokens, "viewer", "metrics", "")


def test_lines_of_one_token_add_up(hook):
    tokens = hook("t read a/**\nt append b\n")
    assert allowed(tokens, "t", "read", "a/1")
    assert allowed(tokens, "t", "append", "b")
    assert not allowed(tokens, "t", "append", "a/1")


@pytest.mark.parametrize(
    ("pattern", "matches", "not_these"),
    [
        ("**", ["a", "a/b", "a\nb", "/"], []),
        ("*", ["a", "a\nb"], ["a/b"]),
        ("chat/*", ["chat/1", "chat/"], ["chat", "chat/1/2", "xchat/1"]),
        ("chat/**", ["chat/1", "chat/1/2", "chat//"], ["chat", "chats/1"]),
        ("**/log", ["log", "a/log", "a/b/log"], ["xlog", "a/log/b", "log\n"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/b"]),
        ("user-*/in*x", ["user-1/inbox", "user-/inx"], ["user-1/in/x"]),
        ("a.b[c]", ["a.b[c]"], ["axb[c]", "a.bc"]),
    ],
)
def test_stars_stay_within_a_segment_and_two_go_beyond(pattern, matches, not_these):
    given = grant(["read", pattern])
    assert [name for name in matches if not given.allows("read", name)] == []
    assert [name for name in not_these if given.allows("read", name)] == []


def test_a_hash_within_a_token_is_part_of_it(hook):
    """Were it cut off there, the rest would be a token that is good for everything."""
    tokens = hook("abc#def read chat/1\n")
    assert allowed(tokens, "abc#def", "read", "chat/1")
    assert isinstance(tokens(request("read", "chat/1", "Bearer abc")), Deny)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic secret", "secret", "Bearer secret, Bearer x"])
def test_what_is_no_known_token_is_asked_for_one(hook, header):
    answer = hook("secret\n")(request("read", "a", header))
    assert answer.status == 401
    assert answer.challenge.startswith("Bearer")


def test_the_scheme_is_of_any_case(hook):
    assert hook("secret\n")(request("read", "a", "bEARER secret")) == Allow()


def test_a_token_that_is_not_good_for_this_is_403(hook):
    assert hook("secret read\n")(request("append", "a", "Bearer secret")).status == 403


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("read,append s3cret-token\n", "line 1: there is something that is no action"),
        ("fine\nt read s3cret-token/x**\n", "line 2: in a pattern, ** stands alone"),
        ("fine\nt read,,s3cret-token\n", "line 2: there is something that is no action"),
        ("s3cret-token read", "the last line has no end"),
        ("# s3cret-token\n", "there is no token in it"),
        ("", "the last line has no end"),
        ("s3cret-token \udcff\n", "is not valid UTF-8 at byte 13"),
        ("fine\ns3cret-tok\u00e9n read\n", "line 2: the token is not all printable ASCII"),
        ("s3cret-token\x7f\n", "line 1: the token is not all printable ASCII"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_without_a_word_of_it(path, text, said):
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(InvalidOption) as caught:
        BearerTokens.from_file(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there_is_refused(path):
    with pytest.raises(InvalidOption, match="cannot be read: No such file"):
        BearerTokens.from_file(path)


def test_a_file_that_changed_counts_from_the_next_request_on(hook, path):
    tokens = hook("old1\n")
    assert allowed(tokens, "old1", "read", "a")
    path.write_text("new1\n")
    assert allowed(tokens, "new1", "read", "a")
    assert not allowed(tokens, "old1", "read", "a")


def test_a_file_that_changed_within_one_tick_of_its_clock_counts_too(hook, path, monkeypatch):
    monkeypatch.setattr("durable_log.access.watched._signature", lambda _found: (0, 0, 0, 0))
    path.write_text("old1\n")
    os.utime(path, (4e9, 4e9))  # it changed just now, however slow this test is
    tokens = BearerTokens.from_file(path)
    assert allowed(tokens, "old1", "read", "a")
    path.write_text("new1\n")
    assert allowed(tokens, "new1", "read", "a")
    assert not allowed(tokens, "old1", "read", "a")


def test_a_settled_file_is_not_read_again_until_it_changes(hook, path, monkeypatch):
    tokens = hook("secret\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert allowed(tokens, "secret", "read", "a")
    reads = []
    monkeypatch.setattr("durable_log.access.bearer.grant", lambda words: reads.append(words) or grant(words))
    for _ in range(3):
        assert allowed(tokens, "secret", "read", "a")
    assert not reads
    os.utime(path, (1_000_000_001, 1_000_000_001))
    assert allowed(tokens, "secret", "read", "a")
    assert len(reads) == 1


@pytest.mark.parametrize("broken", ["secret reed\n", "half", None])
def test_a_broken_new_file_keeps_the_old_tokens_and_is_told_once(hook, path, caplog, broken):
    tokens = hook("secret read\n")
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert allowed(tokens, "secret", "read", "a")
            assert not allowed(tokens, "secret", "append", "a")
            assert not allowed(tokens, "half", "read", "a")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "what it said before goes on to count" in caplog.text
    path.write_text("other\n")
    assert allowed(tokens, "other", "read", "a")


def test_a_file_that_everybody_can_read_gets_a_warning_once(hook, path, caplog):
    tokens = hook("secret\n")
    assert not caplog.records
    path.chmod(0o644)
    for _ in range(3):
        allowed(tokens, "secret", "read", "a")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "chmod 600" in caplog.text


def test_neither_hook_nor_request_shows_a_token(hook):
    tokens = hook("hunter2\n")
    assert "hunter2" not in repr(vars(tokens)) + repr(vars(vars(tokens)["_file"]))
    assert "hunter2" not in repr(request("read", "a", "Bearer hunter2"))


def test_of_two_threads_that_see_a_change_none_keeps_what_the_file_said_before(path):
    reading, go_on = threading.Event(), threading.Event()

    def parse(text):
        if text == "old\n":
            reading.set()
            assert go_on.wait(10)
        return text

    def write(text, changed_ns):
        path.write_text(text)
        os.utime(path, ns=(changed_ns, changed_ns))

    write("first\n", 1)
    watched = Watched(path, parse, secret=False)
    write("old\n", 2)
    slow = threading.Thread(target=watched.value)
    slow.start()
    assert reading.wait(10)
    write("new\n", 3)
    fast = threading.Thread(target=watched.value)
    fast.start()
    fast.join(0.2)  # without the lock, it is done by now, and what the slow one read is kept for ever
    go_on.set()
    slow.join()
    fast.join()
    assert watched.value() == "new\n"
