"""No argument breaks more than its own call: a store that latches because of a value would be everybody's loss."""

from __future__ import annotations

import math
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

import durable_log
from durable_log import aio
from durable_log.errors import (
    DurableLogError,
    InvalidData,
    InvalidName,
    InvalidOption,
    InvalidProducer,
    OffsetOutOfRange,
    RecordTooLarge,
)
from durable_log.model import NOW, Options, Producer

ODD_TIMES = [math.inf, -math.inf, math.nan, 1e300, -1e300, 2.0**63, -(2.0**63)]


@pytest.mark.parametrize("expires_at", ODD_TIMES)
def test_a_time_that_no_clock_shows_is_refused_and_harms_nobody(store, expires_at):
    store.create("other")
    with pytest.raises(InvalidOption):
        store.create("a", expires_at=expires_at)
    assert store.stream("other").append(b"x").next_offset == 1


@pytest.mark.parametrize("ttl", [math.inf, -math.inf, math.nan])
def test_a_ttl_that_is_no_number_of_seconds_is_refused(store, ttl):
    with pytest.raises(InvalidOption):
        store.create("a", ttl=ttl)


@pytest.mark.parametrize("producer", [Producer("p", 0.0, 0), Producer("p", 0, 0.0), Producer("p", True, False)])
def test_a_claim_that_is_not_made_of_integers_harms_nobody(store, producer):
    stream = store.create("a")
    try:
        stream.append(b"x", producer=producer)
    except (DurableLogError, TypeError, ValueError):
        assert stream.info().tail == 0
    assert store.stats()["failure"] is None
    stream.append(b"y")
    assert stream.read().data.endswith(b"y")


@pytest.mark.parametrize("before", [-1.0, -0.0004, -86_400.0, 0.0])
def test_an_expiry_before_the_epoch_has_passed_and_stays_so(opened, tmp_path, before):
    store = opened(tmp_path)
    store.create("a", expires_at=before)
    assert list(store.names()) == []
    store.close()
    assert list(opened(tmp_path).names()) == []


@pytest.mark.parametrize("moment", [2_000_000_000.123456, 2_000_000_000.0005, 1_999_999_999.9999])
def test_a_create_with_an_expiry_is_idempotent_beyond_a_reopen(opened, tmp_path, moment):
    store = opened(tmp_path)
    store.create("a", expires_at=moment)
    store.create("a", expires_at=moment)
    store.close()
    opened(tmp_path).create("a", expires_at=moment)


def test_an_expiry_may_be_a_datetime(store):
    moment = datetime(2040, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    assert store.create("a", expires_at=moment).info().expires_at == moment.timestamp()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"segment_bytes": "64M"}, r"segment_bytes is an int, not '64M'; 64 MiB are 64 \* 2\*\*20"),
        ({"segment_bytes": 2.0**26}, "segment_bytes is an int, not 67108864.0"),
        ({"recent_bytes_max": None}, "recent_bytes_max is an int, not None"),
        ({"sweep_seconds": "1"}, "sweep_seconds is a number of seconds, not '1'"),
        ({"cluster_seconds": timedelta(1)}, "cluster_seconds is a number of seconds, not datetime.timedelta"),
        ({"cluster_seconds": -5}, "cluster_seconds is 0 or more, not -5"),
        ({"cluster_segments": 0}, "cluster_segments is 1 or more, not 0"),
    ],
)
def test_an_option_is_refused_by_its_name_and_with_what_it_may_be(options, said):
    with pytest.raises(InvalidOption, match=said):
        Options(**options)


def test_no_time_at_all_between_clusterings_is_one(opened):
    assert opened(cluster_seconds=0).create("a", data=b"x").read().data == b"x"


@pytest.mark.parametrize(
    ("offset", "said"),
    [
        ("0", "is an int, not '0'; use Chunk.next_offset"),
        (None, "is an int, not None; use Chunk.next_offset"),
        (1.0, "is an int, not 1.0; use Chunk.next_offset"),
        (b"0", "is an int, not b'0'; use Chunk.next_offset"),
        ("0000000000000000_0000000000000005", "of the HTTP protocol: in Python it is the last 16 digits, 5$"),
        ("-1", "of the HTTP protocol: in Python it is durable_log.EARLIEST$"),
        ("now", "of the HTTP protocol: in Python it is durable_log.NOW$"),
    ],
)
def test_an_offset_that_is_no_int_is_refused_and_says_where_to_get_one(store, offset, said):
    stream = store.create("a", data=b"x" * 9)
    for operation in (stream.read, lambda offset: next(stream.follow(offset)), lambda offset: stream.wait(offset, 1)):
        with pytest.raises(InvalidOption, match=f"^offset .*{said}"):
            operation(offset)
    with pytest.raises(InvalidOption, match=f"^before .*{said}"):
        stream.trim(offset)
    if offset is not None:
        with pytest.raises(InvalidOption, match=f"^fork_at .*{said}"):
            store.create("b", fork_of="a", fork_at=offset)
    assert (list(store.names()), stream.info().first) == (["a"], 0)


@pytest.mark.parametrize("offset", [-3, -(2**70)])
def test_waiting_beyond_what_is_no_offset_is_refused(store, offset):
    with pytest.raises(InvalidOption, match="an offset is an int from 0 on, NOW or EARLIEST, not -"):
        store.create("a", data=b"x").wait(offset, 0)


@pytest.mark.parametrize("limit", ["10", 1.5, b"x"])
def test_a_limit_that_is_no_int_is_refused(store, limit):
    stream = store.create("a", data=b"x")
    for operation in (stream.read, lambda *, limit: next(stream.follow(limit=limit))):
        with pytest.raises(InvalidOption, match=f"^limit is an int of bytes, not {limit!r}$"):
            operation(limit=limit)


@pytest.mark.parametrize("timeout", ["1", timedelta(seconds=1)])
def test_a_timeout_that_is_no_number_is_refused(store, timeout):
    with pytest.raises(InvalidOption, match="timeout is seconds, or None to wait for as long as it takes, not"):
        store.create("a").wait(0, timeout)


@pytest.mark.parametrize("name", [None, b"x", 5])
def test_a_name_that_is_no_text_is_refused_and_says_so(store, name):
    for operation in (store.create, store.stream, store.delete):
        with pytest.raises(InvalidName, match=f"a name is a str, not {name!r}; a stream name is 1 to 1024 bytes"):
            operation(name)
    if name is not None:
        with pytest.raises(InvalidName, match=f"a name is a str, not {name!r}"):
            store.create("a", fork_of=name)


@pytest.mark.parametrize("content_type", [5, b"text/plain"])
def test_a_content_type_that_is_no_text_is_refused(store, content_type):
    with pytest.raises(InvalidOption, match=f"content_type is a str such as 'text/plain', not {content_type!r}"):
        store.create("a", content_type=content_type)


@pytest.mark.parametrize("seq", [1, b"1", 1.5])
def test_a_sequence_that_is_no_text_is_refused(store, seq):
    stream = store.create("a")
    for operation in (stream.append, lambda _, seq: stream.close(seq=seq)):
        with pytest.raises(InvalidOption, match=f"seq is a str, as sequences compare byte by byte, not {seq!r}"):
            operation(b"x", seq=seq)
    assert stream.info().tail == 0


@pytest.mark.parametrize("producer", [("a", 0, 0), "a", 5])
def test_a_producer_that_is_something_else_is_refused_and_says_which_class_is_meant(store, producer):
    stream = store.create("a")
    with pytest.raises(InvalidProducer, match=r"producer is a durable_log.Producer\(id, epoch, seq\), not"):
        stream.append(b"x", producer=producer)


@pytest.mark.parametrize("identity", [None, 5, b"a"])
def test_a_producer_whose_id_is_no_text_is_refused(store, identity):
    with pytest.raises(InvalidProducer, match=f"a producer id is a str, not {identity!r}"):
        store.create("a").append(b"x", producer=Producer(identity, 0, 0))


@pytest.mark.parametrize(
    ("expiry", "said"),
    [
        ({"ttl": "60"}, "a ttl is whole seconds from 0 to 2^53, not '60'"),
        ({"ttl": 0.5}, "a ttl is whole seconds from 0 to 2^53, not 0.5"),
        (
            {"ttl": timedelta(minutes=1)},
            "a ttl is whole seconds from 0 to 2^53, not datetime.timedelta(seconds=60); use int(ttl.total_seconds())",
        ),
        (
            {"expires_at": "tomorrow"},
            "expires_at is seconds since the epoch or a datetime, in the years 1 to 9999 of UTC, not 'tomorrow'",
        ),
        (
            {"expires_at": range(2)},
            "expires_at is seconds since the epoch or a datetime, in the years 1 to 9999 of UTC, not range(0, 2)",
        ),
    ],
)
def test_an_expiry_that_is_no_time_is_refused_and_says_what_one_is(store, expiry, said):
    with pytest.raises(InvalidOption) as caught:
        store.create("a", **expiry)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("content_type", "data", "said"),
    [
        ("text/plain", "", "leave out what is empty, such as empty tokens"),
        ("text/plain", None, "data is bytes or str, not NoneType"),
        (None, "text", "takes bytes, not str; encode the text, or create the stream with content_type='text/plain'"),
        (None, {"a": 1}, "not dict; encode it, or create the stream with content_type='application/json' and use"),
        ("text/plain", [1], "not list; encode it, or create the stream with content_type='application/json' and use"),
        ("application/json", {"a": 1}, "data is bytes or str, not dict; append_json takes Python values"),
        ("application/json", None, "data is bytes or str, not NoneType; append_json takes Python values"),
        ("application/json", "hello", "the data is not valid JSON at byte 0; append_json takes Python values"),
        ("application/json", "1 2", "the data holds more than one JSON value, send an array instead; the second"),
    ],
)
def test_data_that_a_stream_does_not_take_is_refused_with_what_to_do_instead(store, content_type, data, said):
    stream = store.create("a", content_type=content_type)
    with pytest.raises(InvalidData) as caught:
        stream.append(data)
    assert said in str(caught.value)
    assert stream.info().tail == 0


def test_an_empty_append_says_to_which_stream_it_was(store):
    with pytest.raises(InvalidData, match="stream 'chat/42': an append needs data, unless it closes the stream; leave"):
        store.create("chat/42").append(b"")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/octet-stream"])
@pytest.mark.parametrize("items", ["123", b"123", bytearray(b"123"), memoryview(b"123"), 5, None])
def test_one_item_in_place_of_many_is_refused_and_not_taken_apart(store, content_type, items):
    stream = store.create("a", content_type=content_type)
    with pytest.raises(InvalidData) as caught:
        stream.append_many(items)
    kind = type(items).__name__
    assert str(caught.value) == f"append_many takes a list of items, not {kind}; use append for one item"
    assert stream.info().tail == 0


def test_what_the_caller_s_own_items_raise_is_theirs(store):
    stream = store.create("a")
    with pytest.raises(TypeError, match="mine"):
        stream.append_many(iter(FailingItems()))
    assert stream.info().tail == 0


class FailingItems:
    def __iter__(self):
        yield b"x"
        raise TypeError("mine")


def test_of_many_items_the_one_that_is_no_json_is_named(store):
    stream = store.create("a", content_type="application/json")
    with pytest.raises(
        InvalidData, match="item 2 is not valid JSON at byte 1; append_json takes Python values"
    ) as caught:
        stream.append_many(["1", b"2", "[x"])
    assert caught.value.position == 1


@pytest.mark.parametrize("size", [1, 32 * 1024 - 1, 32 * 1024])
def test_an_append_as_large_as_the_limit_is_stored(opened, size):
    stream = opened(segment_bytes=64 * 1024, record_bytes_max=32 * 1024).create("a")
    stream.append(b"x" * size)
    assert stream.read().data == b"x" * size


def test_an_append_one_byte_over_the_limit_is_refused(opened):
    stream = opened(record_bytes_max=1000).create("a")
    with pytest.raises(RecordTooLarge) as caught:
        stream.append(b"x" * 1001)
    assert (caught.value.size, caught.value.limit) == (1001, 1000)
    with pytest.raises(RecordTooLarge):
        stream.append_many([b"x" * 600, b"y" * 401])
    assert stream.info().tail == 0


@pytest.mark.parametrize("data", [5, None, [1, 2], object()])
def test_what_is_neither_bytes_nor_text_is_refused_and_not_so_many_zeroes(store, data):
    stream = store.create("a")
    for append in (
        stream.append,
        lambda data: stream.append_many([data]),
        lambda data: stream.append_many([b"x", data]),
    ):
        with pytest.raises(InvalidData, match="data is bytes or str, not"):
            append(data)
    assert stream.info().tail == 0


def test_first_data_over_the_limit_is_refused_and_creates_nothing(opened):
    store = opened(record_bytes_max=1000)
    with pytest.raises(RecordTooLarge):
        store.create("a", data=b"x" * 1002)
    assert list(store.names()) == []


def test_a_json_message_as_large_as_the_limit_is_stored(opened):
    stream = opened(record_bytes_max=1000).create("a", content_type="application/json")
    stream.append(b'"' + b"x" * 998 + b'"')
    assert stream.read().items == ["x" * 998]


def test_a_read_returns_no_more_than_the_store_allows(opened):
    stream = opened(chunk_bytes_max=1000).create("a", data=b"x" * 5000)
    assert len(stream.read().data) == 1000
    assert len(stream.read(limit=10**12).data) == 1000


@pytest.mark.parametrize("recent", [1, 2, 5, 8])
def test_fewer_recent_bytes_than_their_head_takes_break_no_commit(opened, recent):
    store = opened(stream_recent_bytes_max=recent)
    stream = store.create("a")
    for data in (b"x", b"yy", b"z" * 9, b"x"):
        stream.append(data)
    assert (stream.read().data, store.stats()["failure"]) == (b"xyyzzzzzzzzzx", None)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_byte_is_refused(store, limit):
    stream = store.create("a", data=b"x")
    with pytest.raises(InvalidOption):
        stream.read(limit=limit)


def test_an_offset_below_the_start_is_refused(store):
    stream = store.create("a", data=b"x")
    with pytest.raises(InvalidOption):
        stream.read(-3)


@pytest.mark.parametrize("offset", [2, 10**9, 2**64, 2**70])
def test_an_offset_beyond_the_tail_is_refused_with_the_numbers(store, offset):
    stream = store.create("a", data=b"x")
    with pytest.raises(OffsetOutOfRange) as caught:
        stream.read(offset)
    assert (caught.value.offset, caught.value.first, caught.value.tail) == (offset, 0, 1)


def test_reading_from_now_is_empty_and_tells_the_tail(store):
    stream = store.create("a", data=b"xyz")
    assert stream.read(NOW) == (b"", 3, 3, True, False, "application/octet-stream")


@pytest.mark.parametrize("data", [b"", bytearray(), "", memoryview(b"")])
def test_an_append_of_nothing_is_refused(store, data):
    stream = store.create("a", content_type="text/plain")
    with pytest.raises(InvalidData):
        stream.append(data)
    with pytest.raises(InvalidData):
        stream.append_many([])
    with pytest.raises(InvalidData):
        stream.append_many([data, data])


def test_text_that_is_no_unicode_is_refused(store):
    stream = store.create("a", content_type="text/plain")
    with pytest.raises(InvalidData):
        stream.append("\ud800")


def test_text_is_for_text_streams_only(store):
    stream = store.create("a", content_type="image/png")
    with pytest.raises(InvalidData):
        stream.append("text")


def test_a_sequence_longer_than_a_frame_takes_is_refused(store):
    stream = store.create("a")
    with pytest.raises(InvalidOption):
        stream.append(b"x", seq="é" * 513)
    stream.append(b"x", seq="é" * 512)


def test_an_unknown_durability_is_refused(store):
    stream = store.create("a")
    with pytest.raises(InvalidOption):
        stream.append(b"x", durability="maybe")


@pytest.mark.parametrize(
    "options",
    [
        {"segment_bytes": 4096}, {"segment_bytes": 64 * 1024 + 1}, {"segment_bytes": 2**31},
        {"segment_bytes": 64 * 1024}, {"record_bytes_max": 0}, {"chunk_bytes_max": 3}, {"staged_bytes_max": 0},
        {"recent_bytes_max": 0}, {"stream_recent_bytes_max": 0}, {"durability": "none"}, {"sweep_seconds": 0},
        {"sweep_seconds": math.nan}, {"chunk_bytes_max": sys.maxsize}, {"cluster_segments": 0},
        {"cluster_segments": -1}, {"cluster_seconds": -5}, {"cluster_seconds": math.nan},
    ],
)  # fmt: skip
def test_options_outside_of_what_they_may_be_are_refused(options):
    with pytest.raises(InvalidOption):
        Options(**options)


@pytest.mark.parametrize("opening", [durable_log.open, aio.open])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        (b"dir", r"path is a str or a pathlib.Path, not b'dir'; use os.fsdecode\(path\)"),
        (None, "path is a str or a pathlib.Path, not None"),
        (5, "path is a str or a pathlib.Path, not 5"),
        ("", "the path is empty; name the directory of the store"),
    ],
)
def test_a_path_that_is_none_is_refused_before_anything_is_made(tmp_path, monkeypatch, opening, path, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match=said):
        opening(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opening", [durable_log.open, aio.open])
@pytest.mark.parametrize("path", [":memory:", "dir"])
@pytest.mark.parametrize("options", [{"a": 1}, {}, "durability", 5])
def test_options_that_are_no_options_are_refused_before_anything_is_made(tmp_path, monkeypatch, opening, path, options):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidOption, match=r"options is a durable_log\.Options, not "):
        opening(path, options=options)
    assert list(tmp_path.iterdir()) == []


def test_a_path_object_is_a_directory_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    durable_log.open(Path(":memory:")).close()
    assert [entry.name for entry in tmp_path.iterdir()] == [":memory:"]


@pytest.mark.parametrize("name", ["Data", "Durability", "Report"])
def test_what_signatures_name_can_be_imported_from_the_package(name):
    assert name in durable_log.__all__
    assert hasattr(durable_log, name)
