"""Signed URLs: for one stream, for reading, for some time."""

from __future__ import annotations

from urllib.parse import parse_qs

import pytest

from durable_log.access import Allow, ReadUrls, Request
from durable_log.errors import InvalidName, InvalidOption

SECRET, OTHER = b"s" * 16, b"t" * 32


class Clock:
    now = 1_900_000_000.0

    def __call__(self):
        return self.now


def query_of(text):
    return {key: values[-1] for key, values in parse_qs(text, keep_blank_values=True).items()}


def ask(hook, query, name="chat/1", action="read", method="GET"):
    return hook(Request(action, name, method, query=query if isinstance(query, dict) else query_of(query)))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def urls(clock):
    return ReadUrls(SECRET, clock=clock)


def test_a_signed_url_allows_to_read_its_stream_from_anywhere_until_it_expires(urls, clock):
    query = urls.sign("chat/1", seconds=60)
    for more in ("", "&offset=-1", "&offset=now&live=sse", "&cursor=7&live=long-poll"):
        assert ask(urls, query + more) == Allow(60.0)
    assert ask(urls, query, action="describe", method="HEAD") == Allow(60.0)
    clock.now += 59.5
    assert ask(urls, query) == Allow(0.5)
    clock.now += 0.5
    assert ask(urls, query).status == 403


@pytest.mark.parametrize("name", ["chat/2", "chat", "chat/1/", "Chat/1", "chat/1\n", "chat%2F1"])
def test_it_is_good_for_no_other_stream(urls, name):
    assert ask(urls, urls.sign("chat/1", seconds=60), name).status == 403


@pytest.mark.parametrize(
    ("action", "method"),
    [
        ("append", "POST"),
        ("create", "PUT"),
        ("delete", "DELETE"),
        ("close", "POST"),
        ("metrics", "GET"),
        ("read", "PUT"),
    ],
)
def test_it_is_good_for_reading_alone(urls, action, method):
    assert ask(urls, urls.sign("chat/1", seconds=60), action=action, method=method).status == 403


def test_neither_the_time_nor_the_signature_can_be_made_up(urls):
    query = query_of(urls.sign("chat/1", seconds=60))
    for changed in (
        {"expires": str(int(query["expires"]) + 1)},
        {"expires": "9" * 12},
        {"expires": query["expires"] + " "},
        {"expires": "\u0661\u0669\u0660\u0660\u0660\u0660\u0660\u0660\u0666\u0660"},
        {"expires": ""},
        {"signature": query["signature"][:-1]},
        {"signature": ""},
        {"signature": "ä"},
    ):
        assert ask(urls, query | changed).status == 403, changed


def test_a_line_end_moves_nothing_from_the_time_to_the_name(urls):
    """What is signed is text of several lines: a name that has some must not be taken for another."""
    query = query_of(urls.sign("x\nchat/1", seconds=60))
    assert ask(urls, query, "x\nchat/1") == Allow(60.0)
    assert ask(urls, query | {"expires": query["expires"] + "\nx"}, "chat/1").status == 403


def test_without_a_signature_it_is_asked_for(urls):
    assert ask(urls, {}).status == 401
    assert ask(urls, {"expires": "1900000060"}).status == 401


def test_older_secrets_are_accepted_and_the_first_one_signs(clock):
    before, between, after = (
        ReadUrls(OTHER, clock=clock),
        ReadUrls(SECRET, OTHER, clock=clock),
        ReadUrls(SECRET, clock=clock),
    )
    old, new = before.sign("a", seconds=60), between.sign("a", seconds=60)
    assert ask(between, old, "a") == ask(between, new, "a") == ask(after, new, "a") == Allow(60.0)
    assert ask(after, old, "a").status == ask(before, new, "a").status == 403


def test_secrets_in_a_file_count_as_it_changes(tmp_path, clock, caplog):
    path = tmp_path / "secrets"
    path.write_bytes(b"\n" + OTHER + b" \n")
    path.chmod(0o600)
    urls, before = ReadUrls.from_file(path, clock=clock), ReadUrls(OTHER, clock=clock)
    old = urls.sign("a", seconds=60)
    assert old == before.sign("a", seconds=60)
    path.write_bytes(SECRET + b"\n" + OTHER)
    new = urls.sign("a", seconds=60)
    assert new == ReadUrls(SECRET, clock=clock).sign("a", seconds=60)
    assert ask(urls, old, "a") == ask(urls, new, "a") == Allow(60.0)
    path.write_bytes(SECRET + b"\nshort\n")
    assert ask(urls, old, "a") == Allow(60.0)
    assert "secrets are 16 bytes at least, not 5; what it said before goes on to count" in caplog.text
    assert SECRET.decode() not in caplog.text
    path.write_bytes(SECRET)
    assert (ask(urls, old, "a").status, ask(urls, new, "a")) == (403, Allow(60.0))


@pytest.mark.parametrize(("text", "told"), [("", "there is no secret in it"), ("short\n", "16 bytes at least, not 5")])
def test_a_file_without_good_secrets_is_refused(tmp_path, text, told):
    (tmp_path / "secrets").write_text(text)
    with pytest.raises(InvalidOption, match=told):
        ReadUrls.from_file(tmp_path / "secrets")


@pytest.mark.parametrize("secrets", [(b"",), (b"s" * 15,), (SECRET, b"short")])
def test_a_short_secret_is_refused(secrets):
    with pytest.raises(InvalidOption, match="16 bytes at least"):
        ReadUrls(*secrets)


def test_a_name_that_no_stream_can_have_is_not_signed(urls):
    with pytest.raises(InvalidName):
        urls.sign("", seconds=1)
