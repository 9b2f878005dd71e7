"""Creating, finding, closing and deleting streams, by both faces."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from durable_log.errors import (
    InvalidData,
    InvalidName,
    InvalidOption,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
)


def test_a_new_stream_is_empty_and_open(store):
    info = store.create("a", content_type="text/plain").info()
    assert (info.name, info.content_type, info.tail, info.closed, info.first) == ("a", "text/plain", 0, False, 0)


def test_creating_again_finds_the_stream_as_it_is(store):
    store.create("a", content_type="text/plain", data="one")
    again = store.create("a", content_type="text/plain", data="two")
    assert again.read().data == b"one"


def test_content_types_compare_without_case_and_parameters(store):
    store.create("a", content_type="Text/Plain; charset=utf-8")
    store.create("a", content_type="text/plain")
    assert store.stream("a").info().content_type == "Text/Plain; charset=utf-8"


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"content_type": "text/html"}, "content type"),
        ({"content_type": "text/plain", "ttl": 5}, "TTL"),
        ({"content_type": "text/plain", "expires_at": 2_000_000_000.0}, "expiry"),
        ({"content_type": "text/plain", "closed": True}, "closed"),
    ],
)
def test_creating_again_with_another_configuration_is_refused(store, other, differs):
    store.create("a", content_type="text/plain")
    with pytest.raises(StreamExists) as caught:
        store.create("a", **other)
    assert caught.value.differs == differs
    assert caught.value.name == "a"


def test_a_stream_that_has_to_be_new_is_refused_where_one_is_and_stays_as_it_is(store):
    store.create("a", data=b"old", exist_ok=False)
    with pytest.raises(StreamExists, match="'a' already exists; read it, choose another name"):
        store.create("a", data=b"new", exist_ok=False)
    assert store.stream("a").read().data == b"old"
    store.delete("a")
    store.create("a", data=b"new", exist_ok=False)


def test_of_many_who_create_one_stream_at_once_it_is_new_to_one(store):
    def is_new(_: int) -> bool:
        try:
            store.create("a", exist_ok=False)
        except StreamExists:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(is_new, range(100))) == 1


def test_a_stream_can_be_created_closed_and_with_data(store):
    stream = store.create("a", data=b"all", closed=True)
    chunk = stream.read()
    assert (chunk.data, chunk.closed, chunk.up_to_date) == (b"all", True, True)
    with pytest.raises(StreamClosed) as caught:
        stream.append(b"more")
    assert caught.value.tail == 3


def test_a_stream_created_closed_without_data_is_closed(store):
    assert store.create("a", closed=True).read() == (b"", 0, 0, True, True, "application/octet-stream")


@pytest.mark.parametrize("name", ["", "x" * 1025, "é" * 513, "\ud800"])
def test_names_of_no_or_too_many_bytes_or_no_unicode_are_refused(store, name):
    with pytest.raises(InvalidName):
        store.create(name)
    with pytest.raises(InvalidName):
        store.stream(name)


@pytest.mark.parametrize("name", ["x", "x" * 1024, "é" * 512, "a/b c\n", "\U0010ffff", "\0", ".."])
def test_every_other_text_is_a_name(store, name):
    store.create(name, data=b"1")
    assert list(store.names()) == [name]


@pytest.mark.parametrize(
    "arguments",
    [
        {"ttl": -1},
        {"ttl": 1.5},
        {"ttl": 2**53 + 2},
        {"ttl": 1, "expires_at": 1.0},
        {"content_type": ""},
        {"content_type": "text/plain; title=\u0142"},
        {"content_type": "x" * 257},
        {"content_type": "text/plain\r\nx: y"},
    ],
)
def test_invalid_configurations_are_refused(store, arguments):
    with pytest.raises(InvalidOption):
        store.create("a", **arguments)
    assert list(store.names()) == []


def test_invalid_first_data_is_refused_and_creates_nothing(store):
    with pytest.raises(InvalidData):
        store.create("a", content_type="application/json", data="{")
    with pytest.raises(StreamNotFound):
        store.stream("a").info()


def test_closing_is_idempotent_and_keeps_the_tail(store):
    stream = store.create("a", data=b"xyz")
    assert stream.close() == (3, 3, False, True, None)
    assert stream.close() == (3, 3, True, True, None)
    assert stream.read(3).closed


def test_closing_with_the_last_append_is_one_step(store):
    stream = store.create("a")
    appended = stream.append(b"end", close=True)
    assert appended == (0, 3, False, True, None)
    assert stream.read(1).closed


def test_a_deleted_stream_is_not_there_any_more(store):
    stream = store.create("a", data=b"x")
    store.delete("a")
    for operation in (stream.read, stream.info, stream.delete, stream.close, lambda: stream.append(b"y")):
        with pytest.raises(StreamNotFound):
            operation()


def test_a_name_can_be_created_anew_with_nothing_of_its_former_life(store):
    first = store.create("a", content_type="text/plain", data="old", closed=True).info()
    store.delete("a")
    stream = store.create("a", content_type="image/png")
    assert stream.read() == (b"", 0, 0, True, False, "image/png")
    assert stream.info().number != first.number


def test_a_follower_of_a_deleted_stream_is_told_although_the_name_lives_again(store):
    stream = store.create("a", data=b"x")
    following = stream.follow()
    assert next(following).data == b"x"
    store.delete("a")
    store.create("a", data=b"yyyy")
    with pytest.raises(StreamGone):
        next(following)


def test_operations_on_a_stream_that_was_never_created_say_so(store):
    stream = store.stream("nothing")
    operations = (
        stream.read, stream.info, stream.delete, stream.close, lambda: stream.append(b"x"), lambda: stream.wait(0),
        lambda: next(stream.follow()), lambda: stream.append_many([b"x"]), lambda: stream.append_json(1),
    )  # fmt: skip
    for operation in operations:
        with pytest.raises(StreamNotFound):
            operation()
