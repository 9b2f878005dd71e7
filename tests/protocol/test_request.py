"""Heads and bodies of requests: what is understood and what is refused."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.errors import InvalidData, InvalidProducer
from durable_log.model import EARLIEST, NOW, Append, Create, Delete, Producer, StreamConfig
from durable_log.protocol.body import declared_length
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import (
    Get,
    Head,
    Post,
    Preflight,
    Put,
    parse,
    to_append,
    to_create,
)

TEXT = (b"content-type", b"text/plain")
JSON = (b"content-type", b"application/json")
CLOSE = (b"stream-closed", b"true")
CLAIM = ((b"producer-id", b"p"), (b"producer-epoch", b"1"), (b"producer-seq", b"2"))


def refused(method: str, *headers: tuple[bytes, bytes], path: bytes = b"/s", query: bytes = b"") -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        parse(method, path, query, headers)
    return caught.value.status, caught.value.code


def put(*headers: tuple[bytes, bytes]) -> Put:
    parsed = parse("PUT", b"/s", b"", headers)
    assert isinstance(parsed, Put)
    return parsed


def post(*headers: tuple[bytes, bytes]) -> Post:
    parsed = parse("POST", b"/s", b"", headers)
    assert isinstance(parsed, Post)
    return parsed


def get(query: bytes, *headers: tuple[bytes, bytes]) -> Get:
    parsed = parse("GET", b"/s", query, headers)
    assert isinstance(parsed, Get)
    return parsed


# Methods


def test_methods_without_a_body_are_their_requests():
    assert parse("HEAD", b"/s", b"", ()) == Head("s")
    assert parse("DELETE", b"/s", b"", ()) == Delete("s")
    assert parse("OPTIONS", b"*", b"", ()) == Preflight()


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "CONNECT", "get", "", "QUERY"])
def test_other_methods_are_answered_with_those_that_there_are(method: str):
    with pytest.raises(Refusal) as caught:
        parse(method, b"/s", b"", ())
    assert caught.value.status == 405
    assert caught.value.headers == ((b"allow", b"GET, HEAD, OPTIONS, PUT, POST, DELETE"),)


# PUT


def test_a_put_without_headers_creates_an_open_stream_of_bytes():
    assert put() == Put("s", StreamConfig("application/octet-stream", None, None), False)


def test_a_content_type_is_kept_as_it_was_set():
    assert put((b"content-type", b"Text/Plain ; charset=UTF-8")).config.content_type == "Text/Plain ; charset=UTF-8"


@pytest.mark.parametrize(
    "value", [b"", b"text", b"text/", b"/plain", b"text/plain,x", b"t\xe9xt/plain", b"a/b;" + b"x" * 256]
)
def test_a_content_type_that_is_none_is_refused(value: bytes):
    assert refused("PUT", (b"content-type", value)) == (400, "invalid_content_type")


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"0", 0), (b"60", 60), (b" 60\t", 60), (b"999999999999999", 10**15 - 1)]
)
def test_a_ttl_is_seconds(value: bytes, seconds: int):
    assert put((b"stream-ttl", value)).config.ttl == seconds


@pytest.mark.parametrize(
    "value",
    [b"", b"00060", b"060", b"+60", b"-1", b"60.5", b"60.0", b"1e3", b"0x3c", b"6 0", b"abc", b"%d" % 2**53, b"\xb2"],
)
def test_a_ttl_that_is_nearly_an_integer_is_refused(value: bytes):
    assert refused("PUT", (b"stream-ttl", value)) == (400, "invalid_integer")


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (b"2030-01-31T12:00:00Z", datetime(2030, 1, 31, 12, tzinfo=timezone.utc)),
        (b"2030-01-31t12:00:00z", datetime(2030, 1, 31, 12, tzinfo=timezone.utc)),
        (b"2030-01-31T12:00:00.250+00:00", datetime(2030, 1, 31, 12, 0, 0, 250_000, timezone.utc)),
        (b"2030-01-31T12:00:00.5Z", datetime(2030, 1, 31, 12, 0, 0, 500_000, timezone.utc)),
        (b"2030-01-31T12:00:00.123956789Z", datetime(2030, 1, 31, 12, 0, 0, 123_000, timezone.utc)),
        (b"9999-12-31T23:59:59.9999999Z", datetime(9999, 12, 31, 23, 59, 59, 999_000, timezone.utc)),
        (b"0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=timezone.utc)),
        (b"2030-01-31T12:00:00-05:30", datetime(2030, 1, 31, 17, 30, tzinfo=timezone.utc)),
        (b"2030-01-31T12:00:00+05:30", datetime(2030, 1, 31, 6, 30, tzinfo=timezone.utc)),
    ],
)
def test_an_expiry_is_an_rfc_3339_timestamp(value: bytes, moment: datetime):
    assert put((b"stream-expires-at", value)).config.expires_at == moment.timestamp()


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"tomorrow",
        b"2030-01-31",
        b"2030-01-31T12:00:00",
        b"2030-01-31 12:00:00Z",
        b"2030-02-30T12:00:00Z",
        b"2030-01-31T25:00:00Z",
        b"2030-01-31T12:00:00+25:00",
        b"2030-01-31T12:00:00+01:60",
        b"2030-01-31T12:00:00.Z",
        b"0000-01-31T12:00:00Z",
        b"9999-12-31T23:59:59-00:01",
        b"0001-01-01T00:00:00+00:01",
        b"1893499200",
        b"20300131T120000Z",
        b"\xff",
    ],
)
def test_an_expiry_that_is_no_timestamp_is_refused(value: bytes):
    assert refused("PUT", (b"stream-expires-at", value)) == (400, "invalid_timestamp")


def test_ttl_and_expiry_exclude_each_other():
    both = ((b"stream-ttl", b"60"), (b"stream-expires-at", b"2030-01-31T12:00:00Z"))
    assert refused("PUT", *both) == (400, "invalid_expiry")


@pytest.mark.parametrize(
    ("value", "closed"), [(b"true", True), (b"TRUE", True), (b"false", False), (b"1", False), (b"", False)]
)
def test_only_true_closes(value: bytes, closed: bool):
    assert put((b"stream-closed", value)).closed is closed
    assert post((b"stream-closed", value)).close is closed


def test_the_body_of_a_put_is_its_first_record():
    assert to_create(put(TEXT), b"hello") == Create("s", StreamConfig("text/plain"), b"hello")
    assert to_create(put(JSON, CLOSE), b"[1,2]") == Create("s", StreamConfig("application/json"), b"1,2,", True)
    assert to_create(put(JSON), b"[]").data == to_create(put(JSON), b"").data == b""


def test_the_body_of_a_json_put_is_json():
    with pytest.raises(InvalidData):
        to_create(put(JSON), b"{")


# POST


def test_a_post_carries_data_claim_sequence_and_close():
    request = to_append(post(TEXT, CLOSE, (b"stream-seq", b"007"), *CLAIM), b"x")
    assert request == Append("s", b"x", Producer("p", 1, 2), "007", True, content_type="text/plain")


def test_a_json_post_becomes_stored_messages():
    assert (
        to_append(post((b"content-type", b"application/JSON; charset=utf-8")), b'[{"a":1},null]').data
        == b'{"a":1},null,'
    )


def test_a_post_that_only_closes_needs_no_content_type_and_ignores_any():
    only = Append("s", b"", None, None, True)
    assert to_append(post(CLOSE), b"") == to_append(post(CLOSE, TEXT), b"") == only
    assert to_append(post(CLOSE, (b"content-type", b"nonsense")), b"") == only


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ((TEXT,), b"", "empty_body"),
        ((TEXT, (b"stream-closed", b"yes")), b"", "empty_body"),
        ((), b"x", "missing_content_type"),
        ((CLOSE,), b"x", "missing_content_type"),
        (((b"content-type", b""),), b"x", "invalid_content_type"),
        (((b"content-type", b"nonsense"), CLOSE), b"x", "invalid_content_type"),
        ((JSON,), b"[]", "empty_array"),
        ((JSON,), b" [ ] ", "empty_array"),
        ((JSON, *CLAIM), b"[]", "empty_array"),
    ],
)
def test_a_post_that_appends_nothing_is_refused(headers: tuple[tuple[bytes, bytes], ...], body: bytes, code: str):
    with pytest.raises(Refusal) as caught:
        to_append(post(*headers), body)
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize("present", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)])
def test_producer_headers_go_together(present: tuple[int, ...]):
    assert refused("POST", TEXT, *(CLAIM[index] for index in present)) == (400, "invalid_producer")


@pytest.mark.parametrize(
    "value", [b"", b"1abc", b"0xyz", b"1e3", b"-1", b"+1", b"1.0", b"01", b" ", b"1_0", b"%d" % 2**53]
)
@pytest.mark.parametrize("header", [1, 2])
def test_producer_integers_are_strict(header: int, value: bytes):
    claim = list(CLAIM)
    claim[header] = (claim[header][0], value)
    assert refused("POST", TEXT, *claim) == (400, "invalid_integer")


@pytest.mark.parametrize(
    "claim",
    [
        ((b"producer-id", b""), *CLAIM[1:]),
        ((b"producer-id", b" "), *CLAIM[1:]),
        ((b"producer-id", b"p" * 1025), *CLAIM[1:]),
    ],
)
def test_a_claim_out_of_bounds_is_invalid(claim: tuple[tuple[bytes, bytes], ...]):
    with pytest.raises(InvalidProducer):
        post(TEXT, *claim)


def test_the_largest_claim_is_that_of_javascript():
    largest = 2**53 - 1
    claim = (CLAIM[0], (b"producer-epoch", b"%d" % largest), (b"producer-seq", b"%d" % largest))
    assert post(*claim).producer == Producer("p", largest, largest)


@pytest.mark.parametrize("value", [b"", b"x" * 1025])
def test_a_sequence_has_a_length(value: bytes):
    assert refused("POST", (b"stream-seq", value)) == (400, "invalid_seq")


@pytest.mark.parametrize("header", [b"stream-seq", b"producer-id"])
def test_text_headers_are_utf_8(header: bytes):
    assert refused("POST", (header, b"\xff"), *(pair for pair in CLAIM if pair[0] != header)) == (400, "invalid_header")
    assert post((b"stream-seq", "ü".encode())).seq == "ü"


@pytest.mark.parametrize("header", [b"content-type", b"stream-closed", b"stream-seq", b"producer-seq"])
def test_a_header_that_is_sent_twice_is_refused(header: bytes):
    assert refused("POST", (header, b"1"), (header, b"1")) == (400, "repeated_header")


# GET


def test_a_read_without_parameters_is_a_catch_up_from_the_oldest_byte():
    assert get(b"") == Get("s", EARLIEST, None, None, None)


@pytest.mark.parametrize(
    ("query", "parsed"),
    [
        (b"offset=-1", Get("s", EARLIEST, None, None, None)),
        (b"offset=now", Get("s", NOW, None, None, None)),
        (b"offset=0000000000000000_0000000000000007", Get("s", 7, None, None, None)),
        (b"offset=now&live=long-poll&cursor=12", Get("s", NOW, "long-poll", 12, None)),
        (b"cursor=&live=sse&offset=%2D1", Get("s", EARLIEST, "sse", None, None)),
        (b"cursor=junk&live=sse&offset=-1", Get("s", EARLIEST, "sse", None, None)),
        (b"foo=bar&foo=baz&offset=-1&x", Get("s", EARLIEST, None, None, None)),
    ],
)
def test_parameters_say_where_and_how_to_read(query: bytes, parsed: Get):
    assert get(query) == parsed


@pytest.mark.parametrize(
    ("query", "code"),
    [
        (b"offset=", "invalid_offset"),
        (b"offset", "invalid_offset"),
        (b"offset=0,1", "invalid_offset"),
        (b"offset=0%201", "invalid_offset"),
        (b"offset=-1+", "invalid_offset"),
        (b"offset=-1%00", "invalid_offset"),
        (b"offset=-1%0A", "invalid_offset"),
        (b"offset=..%2F-1", "invalid_offset"),
        (b"offset=\xff", "invalid_offset"),
        (b"offset=%FF", "invalid_offset"),
        (b"offset=-1&offset=-1", "repeated_parameter"),
        (b"offset=-1&live=sse&live=sse", "repeated_parameter"),
        (b"offset=-1&cursor=1&cursor=2", "repeated_parameter"),
        (b"live=sse", "missing_offset"),
        (b"live=long-poll", "missing_offset"),
        (b"offset=-1&live=", "invalid_live"),
        (b"offset=-1&live=true", "invalid_live"),
        (b"offset=-1&live=SSE", "invalid_live"),
    ],
)
def test_parameters_that_are_nearly_right_are_refused(query: bytes, code: str):
    assert refused("GET", query=query) == (400, code)


def test_conditions_join_into_one_list():
    conditions = ((b"if-none-match", b'"a"'), (b"if-none-match", b'W/"b"'))
    assert get(b"", *conditions).if_none_match == b'"a", W/"b"'


# Anything


@pytest.mark.parametrize(("value", "length"), [(b"0", 0), (b"16777216", 16777216), (b"-1", 0), (b"x", 0), (b"", 0)])
def test_a_declared_length_is_a_number(value: bytes, length: int):
    assert declared_length(((b"host", b"x"), (b"content-length", value))) == length
    assert declared_length(()) == 0


def test_a_declared_length_of_more_digits_than_python_reads_is_refused():
    with pytest.raises(Refusal) as refusal:
        declared_length(((b"content-length", b"0" * 5000 + b"5"),))
    assert (refusal.value.status, refusal.value.code) == (400, "invalid_header")


@pytest.mark.parametrize("method", ["PUT", "POST"])
@pytest.mark.parametrize("coding", [b"gzip", b"br", b"identity, gzip", b"GZIP", b"none", b"\xff"])
def test_a_body_that_was_encoded_is_refused_before_it_is_read(method: str, coding: bytes):
    assert refused(method, (b"content-encoding", coding)) == (415, "unsupported_encoding")


@pytest.mark.parametrize("coding", [b"", b"identity", b" Identity "])
def test_a_body_that_says_that_it_was_not_encoded_is_taken(coding: bytes):
    put((b"content-encoding", coding))


@given(
    st.sampled_from(["GET", "PUT", "POST", "HEAD", "DELETE", "OPTIONS", "BREW"]),
    st.binary(max_size=40),
    st.binary(max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"stream-ttl", b"stream-expires-at", b"stream-seq", b"producer-id",
                             b"producer-epoch", b"producer-seq", b"stream-forked-from", b"stream-fork-offset",
                             b"stream-fork-sub-offset", b"if-none-match", b"x-other"]),
            st.binary(max_size=30),
        ),
        max_size=6,
    ),
)  # fmt: skip
def test_any_head_is_parsed_or_refused_with_a_client_error(
    method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
):
    refusal = _refusal(method, b"/" + path, query, headers)
    assert refusal is None or 400 <= refusal.status < 500
    assert refusal is None or "\n" not in refusal.message


def _refusal(method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
    try:
        parse(method, path, query, headers)
    except Refusal as refusal:
        return refusal
    except InvalidProducer as error:
        return Refusal(400, error.code, str(error))
    return None
