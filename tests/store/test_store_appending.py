"""Appending and reading back, JSON, following, waiting: by both faces."""

from __future__ import annotations

import json
import random
import re
import threading
from functools import partial

import pytest
from twins import Task, until

from durable_log import _face
from durable_log.errors import (
    InvalidData,
    OffsetOutOfRange,
    SequenceConflict,
    StreamGone,
    StreamNotFound,
)
from durable_log.model import NOW, Chunk, Delete


def test_appends_come_back_in_order_from_every_offset(store):
    stream = store.create("a")
    assert stream.append(b"one") == (0, 3, False, False, None)
    assert stream.append(bytearray(b"two")) == (3, 6, False, False, None)
    assert stream.append(memoryview(b"three")) == (6, 11, False, False, None)
    for offset in range(12):
        assert stream.read(offset).data == b"onetwothree"[offset:]


def test_text_is_stored_as_utf8(store):
    stream = store.create("a", content_type="text/plain")
    stream.append("grüß")
    assert stream.read().data == "grüß".encode()
    assert stream.read().text == "grüß"


def test_append_many_is_one_record(store):
    stream = store.create("a")
    records = store.stats()["records"]
    assert stream.append_many([b"a", b"bb", b"ccc"]) == (0, 6, False, False, None)
    assert store.stats()["records"] == records + 1
    assert stream.read().data == b"abbccc"


def test_append_many_of_a_bad_item_stores_none(store):
    stream = store.create("a", content_type="application/json")
    with pytest.raises(InvalidData):
        stream.append_many(["1", "2", "{"])
    assert stream.info().tail == 0


def test_reads_page_through_a_stream_without_gaps(opened):
    stream = opened(segment_bytes=64 * 1024, record_bytes_max=32 * 1024, recent_bytes_max=1).create("a")
    chance, content = random.Random(7), b""
    for _ in range(60):
        data = chance.randbytes(chance.choice([1, 100, 5000, 32 * 1024]))
        stream.append(data)
        content += data
    for limit in (1000, 4096, 65_536, 10**6):
        offset, pieces = 0, []
        while True:
            chunk = stream.read(offset, limit=limit)
            assert chunk.offset == offset
            assert len(chunk.data) <= limit
            pieces.append(chunk.data)
            offset = chunk.next_offset
            if chunk.up_to_date:
                break
        assert b"".join(pieces) == content


def test_json_arrays_are_flattened_by_one_level(store):
    stream = store.create("a", content_type="application/json; charset=utf-8")
    stream.append('[1, [2, 3], {"a": [4]}]')
    stream.append("null")
    stream.append_json("text", {"k": 1.5}, [5])
    assert stream.read().items == [1, [2, 3], {"a": [4]}, None, "text", {"k": 1.5}, [5]]


def test_json_messages_keep_the_bytes_that_they_came_in(store):
    stream = store.create("a", content_type="application/json")
    stream.append(b'{"a" :  1.0e2}')
    assert stream.read().data == b'{"a" :  1.0e2},'


@pytest.mark.parametrize("body", ["", "   ", "{", "[1,]", "1 2", "nul", "[]", b"\xff", "NaN", '"\t"'])
def test_what_is_no_json_or_no_message_is_refused(store, body):
    stream = store.create("a", content_type="application/json")
    with pytest.raises(InvalidData):
        stream.append(body)
    assert stream.info().tail == 0


def test_values_without_a_json_form_are_refused(store):
    stream = store.create("a", content_type="application/json")
    for values in ([float("nan")], [object()], [b"bytes"], []):
        with pytest.raises(InvalidData):
            stream.append_json(*values)
    with pytest.raises(InvalidData):
        store.create("b").append_json(1)


def test_items_and_messages_are_for_json_streams_only(store):
    chunk = store.create("a", data=b"[1]").read()
    with pytest.raises(TypeError, match="items needs a JSON stream"):
        _ = chunk.items
    with pytest.raises(TypeError, match="messages needs a JSON stream"):
        _ = chunk.messages


def test_messages_are_the_bytes_that_each_was_appended_in(store):
    stream = store.create("a", content_type="application/json")
    assert stream.read().messages == []
    stream.append('[1, "a,b" ,{"c" : [2,"]"]} ]')
    stream.append_many([b" -0.50E+7 ", bytearray(b"[]"), '["\\\\", "\\""]', memoryview('"é"'.encode())])
    expected = [b"1", b'"a,b"', b'{"c" : [2,"]"]}', b"-0.50E+7", b'"\\\\"', b'"\\""', '"é"'.encode()]
    assert stream.read().messages == expected
    assert stream.read(2, limit=7).messages == expected[1:2]


def test_a_chunk_of_very_many_messages_has_all_of_them(store):
    stream = store.create("a", content_type="application/json")
    stream.append_json(*range(5000))
    chunk = stream.read()
    assert chunk.items == list(range(5000)) == list(map(int, chunk.messages))


def test_a_chunk_that_is_not_whole_messages_says_where_it_is_not():
    whole = Chunk(b'1,{"a":2},', 0, 10, True, False, "application/json")
    assert whole.messages == [b"1", b'{"a":2}']
    with pytest.raises(ValueError, match="the last one begins at byte 2"):
        _ = whole._replace(data=b'1,{"a":2').messages


def test_an_integer_that_python_does_not_convert_is_told_by_the_offset_of_its_message(store):
    stream = store.create("a", content_type="application/json")
    stream.append("1")
    long = "9" * 5000
    stream.append_many(['"a"', f'{{"n": [{long}]}}', "2"])
    with pytest.raises(InvalidData, match="in the message that begins at byte 6; parse each of") as caught:
        _ = stream.read(2).items
    assert caught.value.position == 6
    assert stream.read(2).messages == [b'"a"', f'{{"n": [{long}]}}'.encode(), b"2"]


def test_many_items_are_what_each_would_be_alone(store):
    for content_type, items in {
        "text/plain": ["one", "zwei €", ""],
        "text/markdown": ["text", b"bytes", bytearray(b"more")],
        "application/octet-stream": [b"one", bytearray(b"two"), memoryview(b"three")[::2]],
        "application/json": ["[1, 2]", "[]", "3"],
        "application/json; charset=utf-8": [b"[1]", memoryview(b"2"), "3"],
    }.items():
        one_by_one, many = (store.create(f"{content_type}/{how}", content_type=content_type) for how in ("one", "many"))
        many.append_many(iter(items))
        for item in items:
            if item not in ("", "[]"):
                one_by_one.append(item)
        assert many.read().data == one_by_one.read().data


@pytest.mark.parametrize("separator", ["\x1e", "\x00", "\n", ","])
def test_many_items_are_json_texts_each_and_not_together(store, separator):
    stream = store.create("a", content_type="application/json")
    for items in (
        ["1", f"2{separator}3"],
        ["[1", "2]"],
        ['"a', 'b"'],
        ["1", " "],
        ["1", "\ud800"],
        [b"1", "2", b"\xff"],
    ):
        with pytest.raises(InvalidData) as alone:
            list(map(partial(_face.stored, content_type="application/json"), items))
        with pytest.raises(InvalidData) as together:
            stream.append_many(items)
        assert re.sub(r"^item \d ", "the data ", str(together.value)) == str(alone.value)
    assert stream.info().tail == 0


@pytest.mark.parametrize("recent_bytes_max", [1, 2**20], ids=["from disk", "from memory"])
def test_json_reads_are_whole_messages_at_every_limit(opened, recent_bytes_max):
    stream = opened(recent_bytes_max=recent_bytes_max).create("a", content_type="application/json")
    values = [1, "two", [3, 3, 3], {"four": "x" * 50}, 5, "a,b", ["]", "}", '"'], 7, 8, "é€"]
    stream.append_json(*values[:6])
    stream.append_json(*values[6:])
    for limit in (*range(1, 90), 1000):
        offset, found = 0, []
        while True:
            chunk = stream.read(offset, limit=limit)
            items = chunk.items
            assert items or chunk.up_to_date
            assert len(chunk.data) <= limit or len(items) == 1, (limit, chunk)
            found += items
            offset = chunk.next_offset
            if chunk.up_to_date:
                break
        assert found == values


def test_a_json_read_from_inside_a_message_is_refused_and_from_any_boundary_served(store):
    stream = store.create("a", content_type="application/json")
    stream.append_json(*range(8, 13))
    stream.append_json("a,b")
    stored = stream.read().data
    boundaries = {0, 2, 4, 7, 10, 13, 19}
    for offset in range(len(stored) + 1):
        if offset in boundaries:
            assert stream.read(offset).items == json.loads(b"[" + stored[offset:-1] + b"]")
        else:
            with pytest.raises(OffsetOutOfRange):
                stream.read(offset)


def test_following_ends_at_the_close(store):
    stream = store.create("a", data=b"one")
    following = stream.follow()
    assert next(following).data == b"one"
    late = Task(next, following)
    until(lambda: store.stats()["watched_streams"], "the wait")
    stream.append(b"two")
    assert late.result().data == b"two"
    rest = Task(list, following)
    stream.append(b"three", close=True)
    assert b"".join(chunk.data for chunk in rest.result()) == b"three"


def test_following_a_stream_that_is_closed_without_more_data_just_ends(store):
    stream = store.create("a", data=b"one")
    rest = Task(lambda: [chunk.data for chunk in stream.follow()])
    until(lambda: store.stats()["watched_streams"], "the wait")
    stream.close()
    assert rest.result() == [b"one"]


def test_following_from_now_shows_only_what_comes(store):
    stream = store.create("a", data=b"past")
    rest = Task(lambda: [chunk.data for chunk in stream.follow(NOW)])
    until(lambda: store.stats()["watched_streams"], "the wait")
    stream.append(b"future", close=True)
    assert rest.result() == [b"future"]


def test_followers_of_a_deleted_stream_are_told(store):
    stream = store.create("a")
    followers = [Task(list, stream.follow()) for _ in range(5)]
    until(lambda: len(store.engine._catalog.get("a").watchers or []) == 5, "the wait of all")
    stream.delete()
    assert [type(follower.error()) for follower in followers] == [StreamGone] * 5
    assert store.stats()["watched_streams"] == 0


def test_waiting_ends_with_data_with_the_close_or_with_the_time(store):
    stream = store.create("a", data=b"x")
    assert stream.wait(0)
    assert not stream.wait(1, 0)
    assert not stream.wait(1, 0.01)
    assert not stream.wait(NOW, 0.01)
    waiting = Task(stream.wait, 1, 10)
    until(lambda: store.stats()["watched_streams"], "the wait")
    stream.append(b"y")
    assert waiting.result()
    stream.close()
    assert stream.wait(2)
    assert store.stats()["watched_streams"] == 0


def test_waiting_for_a_deleted_stream_says_that_it_is_gone(store):
    stream = store.create("a")
    waiting = Task(stream.wait, 0)
    until(lambda: store.stats()["watched_streams"], "the wait")
    stream.delete()
    assert isinstance(waiting.error(), StreamGone)
    with pytest.raises(StreamNotFound):
        stream.wait(0)


def test_a_json_follower_of_a_stream_that_is_deleted_amid_a_read_is_told_that_it_is_gone(store, monkeypatch):
    stream = store.create("a", content_type="application/json", data="[1,2]")
    engine, read = store.engine, store.engine.read

    def read_and_delete(*arguments):
        chunk = read(*arguments)
        engine.execute(Delete("a"))
        return chunk

    following = stream.follow()
    monkeypatch.setattr(engine, "read", read_and_delete)
    monkeypatch.setattr(engine, "read_from_memory", read_and_delete)
    with pytest.raises(StreamGone):
        list(following)


def test_a_sequence_has_to_grow_byte_by_byte(store):
    stream = store.create("a")
    stream.append(b"1", seq="2")
    for seq in ("2", "10", "1", ""):
        with pytest.raises(SequenceConflict) as caught:
            stream.append(b"x", seq=seq)
        assert (caught.value.last, caught.value.received) == ("2", seq)
    stream.append(b"2", seq="20")
    stream.append(b"3")
    stream.append(b"4", seq="é")
    assert stream.read().data == b"1234"


def test_readers_never_see_what_is_not_whole(store):
    stream = store.create("a")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            assert len(stream.read().data) % 10 == 0

    looking = Task(look)
    for _ in range(200):
        stream.append(b"0123456789")
    stop.set()
    looking.result()
