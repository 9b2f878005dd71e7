"""No argument breaks more than its own call: a store that latches because of a value would be everybody's loss."""

from __future__ import annotations

import math
import sys
from datetime import datetime, timezone

import pytest

from durable_log.errors import DurableLogError, InvalidData, InvalidOption, OffsetOutOfRange, RecordTooLarge
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
    with pytest.raises(InvalidData, match="data is bytes or str, not int"):
        stream.append_many(b"bytes")
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
        {"sweep_seconds": math.nan}, {"chunk_bytes_max": sys.maxsize},
    ],
)  # fmt: skip
def test_options_outside_of_what_they_may_be_are_refused(options):
    with pytest.raises(InvalidOption):
        Options(**options)
