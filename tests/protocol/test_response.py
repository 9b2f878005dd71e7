"""Results and errors as statuses, headers and bodies."""

from __future__ import annotations

import json

import pytest
from xxhash import xxh3_64_hexdigest

from durable_log import errors
from durable_log.engine.format import stored_time
from durable_log.model import (
    EXPIRES_AT_MAX,
    NOW,
    Append,
    Appended,
    Chunk,
    Create,
    Created,
    Producer,
    StreamConfig,
    StreamInfo,
)
from durable_log.protocol.cors import Cors
from durable_log.protocol.names import Mount, stream_name
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import Get
from durable_log.protocol.response import Response, Responses, entity_tag, location, matches
from durable_log.protocol.tokens import offset_token, timestamp

RESPONSES = Responses(cors=Cors(), cache="public")
NOW_SECONDS = 1_900_000_000.0
CLAIM = Producer("p", 3, 7)


def fields(response: Response) -> dict[str, str]:
    names = [key for key, _ in response.headers]
    assert len(names) == len(set(names)), "a header is sent twice"
    return {key.decode(): value.decode("latin-1") for key, value in response.headers}


def info(**changes: object) -> StreamInfo:
    return StreamInfo("s", 5, "text/plain", 10, False, None, None, 0.0)._replace(**changes)


def chunk(data: bytes = b"data", *, tail: bool = True, closed: bool = False, content_type: str = "text/plain") -> Chunk:
    return Chunk(data, 0, len(data), tail, closed, content_type)


def catch_up(**changes: object) -> Get:
    return Get("s", 0, None, None, None)._replace(**changes)


def page(request: Get, of: StreamInfo, part: Chunk) -> Response:
    return RESPONSES.page(request, of, part, "ab12", NOW_SECONDS, 99)


# Errors

CORRUPTION = errors.Corruption("/var/data/00000007.log", 8192, "checksum 0x1a2b", name="s")
TABLE = [
    (errors.InvalidName("a name of 0 bytes was given"), 400),
    (errors.InvalidData("the body is not valid JSON", 3), 400),
    (errors.InvalidProducer("a new epoch starts at sequence 0, not 5"), 400),
    (errors.OffsetOutOfRange("s", 11, 0, 10), 400),
    (errors.OffsetOutOfRange("s", 1, 4, 10), 410),
    (errors.StaleEpoch("s", "p", 5, 3), 403),
    (errors.StreamNotFound("s"), 404),
    (errors.StreamGone("s"), 410),
    (errors.StreamExists("s", "TTL", 60, 61), 409),
    (errors.StreamClosed("s", 10), 409),
    (errors.ContentTypeMismatch("s", "text/plain", "text/html"), 409),
    (errors.SequenceConflict("s", "2", "10"), 409),
    (errors.SequenceGap("s", "p", 4, 9), 409),
    (errors.RecordTooLarge(11, 10), 413),
    (CORRUPTION, 500),
    (errors.InvalidOption("no such thing"), 500),
    (errors.StoreUnreadable("/var/data/x", OSError(5, "Input/output error")), 500),
    (errors.CommitFailed("/var/data/00000007.log: fdatasync failed"), 503),
    (errors.StoreClosed("the store was closed"), 503),
    (errors.StoreFull("/var/data", 4096), 507),
]


@pytest.mark.parametrize(("error", "status"), TABLE, ids=lambda value: type(value).__name__)
def test_every_error_has_a_status_and_one_line_of_json(error: errors.DurableLogError, status: int):
    response = RESPONSES.failed(error, "GET")
    assert response.status == status
    assert response.body.count(b"\n") == 1
    body = json.loads(response.body)["error"]
    assert body["code"] == error.code
    assert fields(response)["content-length"] == str(len(response.body))
    assert fields(response)["cache-control"] == "no-store"
    assert (body["message"] == str(error)) == (status < 500)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.StreamGone("src"), 409),
        (errors.OffsetOutOfRange("src", 11, 0, 10), 400),
        (errors.OffsetOutOfRange("src", 1, 4, 10), 400),
        (errors.InvalidOption("5 past offset 0 is beyond the append there"), 400),
        (errors.StreamNotFound("src"), 404),
        (errors.ContentTypeMismatch("src", "text/plain", "text/html"), 409),
        (errors.StreamExists("s", "source", None, "src"), 409),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_wrong_with_the_source_of_a_fork_is_told_with_its_own_statuses(
    error: errors.DurableLogError, status: int
):
    assert RESPONSES.failed(error, "PUT").status == status


@pytest.mark.parametrize("error", [error for error, status in TABLE if status >= 500], ids=lambda e: type(e).__name__)
def test_errors_of_the_server_tell_nobody_its_paths(error: errors.DurableLogError):
    assert b"/var" not in RESPONSES.failed(error, "GET").body


def test_errors_carry_their_numbers_as_headers():
    closed = fields(RESPONSES.failed(errors.StreamClosed("s", 10), "GET"))
    assert (closed["stream-closed"], closed["stream-next-offset"]) == ("true", offset_token(10).decode())
    assert fields(RESPONSES.failed(errors.StaleEpoch("s", "p", 5, 3), "GET"))["producer-epoch"] == "5"
    gap = fields(RESPONSES.failed(errors.SequenceGap("s", "p", 4, 9), "GET"))
    assert (gap["producer-expected-seq"], gap["producer-received-seq"]) == ("4", "9")


def test_a_refusal_keeps_its_headers():
    response = RESPONSES.refused(Refusal(405, "method_not_allowed", "no", ((b"allow", b"GET"),)))
    assert (response.status, fields(response)["allow"]) == (405, "GET")


def test_what_nobody_foresaw_is_told_without_details():
    response = RESPONSES.broken()
    assert response.status == 500
    assert json.loads(response.body)["error"]["code"] == "internal_error"


# Writing


@pytest.mark.parametrize(
    ("request_", "result", "status", "seq"),
    [
        (Append("s", b"x"), Appended(0, 1), 204, None),
        (Append("s", b"x", CLAIM), Appended(0, 1, producer_seq=7), 200, "7"),
        (Append("s", b"x", CLAIM), Appended(1, 1, True, producer_seq=9), 204, "9"),
        (Append("s", b"", CLAIM, close=True), Appended(1, 1, closed=True, producer_seq=7), 204, "7"),
        (Append("s", b"x", CLAIM, close=True), Appended(0, 1, closed=True, producer_seq=7), 200, "7"),
        (Append("s", b"", close=True), Appended(1, 1, True, True), 204, None),
    ],
)
def test_an_append_says_what_became_of_it(request_: Append, result: Appended, status: int, seq: str | None):
    response = RESPONSES.appended(request_, result)
    headers = fields(response)
    assert response.status == status
    assert headers["stream-next-offset"] == offset_token(1).decode()
    assert headers.get("producer-seq") == seq
    assert headers.get("producer-epoch") == (None if seq is None else "3")
    assert headers.get("stream-closed") == ("true" if result.closed else None)
    assert ("content-length" in headers) == (status == 200)


def test_a_new_stream_is_201_and_one_that_is_there_200():
    request = Create("s", StreamConfig("text/plain", 60), b"", True)
    new = RESPONSES.created(request, Created(False, 4, True, "text/plain"), b"http://h/s")
    old = RESPONSES.created(request, Created(True, 4, True, "Text/Plain"), b"http://h/s")
    assert (new.status, old.status) == (201, 200)
    assert fields(old)["content-type"] == "Text/Plain"
    assert fields(new)["location"] == "http://h/s"
    for response in (new, old):
        assert fields(response)["stream-next-offset"] == offset_token(4).decode()
        assert fields(response)["stream-closed"] == "true"
        assert fields(response)["stream-ttl"] == "60"


@pytest.mark.parametrize(
    ("path", "root", "prefix", "url"),
    [
        (b"/a%2Fb", "", "", b"https://h:1/a%2Fb"),
        (b"/%761/a%2Fb", "", "/v1", b"https://h:1/%761/a%2Fb"),
        (b"/ds/a%2Fb", "/ds", "", b"https://h:1/ds/a%2Fb"),
        (b"/d%20s/a%2Fb", "/d s/", "", b"https://h:1/d%20s/a%2Fb"),
    ],
)
def test_a_location_is_the_url_that_the_client_used(path: bytes, root: str, prefix: str, url: bytes):
    assert location("https", b"h:1", path, Mount(root, prefix), "a/b") == url


@pytest.mark.parametrize(
    ("path", "root", "url"),
    [
        (b"/a%2fb%3f%C3%A9", "/ds/", b"https://h:1/ds/a/b%3F%C3%A9"),
        (b"/%64s/a/b%3f%c3%a9", "/ds", b"https://h:1/ds/a/b%3F%C3%A9"),
        (b"/ds%2Fa/b%3F%C3%A9", "/ds", b"https://h:1/ds/a/b%3F%C3%A9"),
        (b"/caf%c3%a9/a/b%3f%c3%a9", "/caf\u00e9", b"https://h:1/caf%C3%A9/a/b%3F%C3%A9"),
    ],
)
def test_a_location_has_the_name_of_the_stream_where_the_path_does_not_tell_the_url(path: bytes, root: str, url: bytes):
    assert location("https", b"h:1", path, Mount(root), stream_name(path, Mount(root))) == url


def test_a_location_tells_a_name_that_begins_as_the_mount_point_does():
    assert location("https", b"h:1", b"/dsx", Mount("/ds"), "dsx") == b"https://h:1/ds/dsx"


def test_metadata_is_never_stored_by_caches():
    headers = fields(RESPONSES.described(info(ttl=60, closed=True)))
    assert headers["cache-control"] == "no-store"
    assert (headers["stream-ttl"], headers["stream-closed"]) == ("60", "true")
    assert "stream-expires-at" not in headers
    assert (
        fields(RESPONSES.described(info(expires_at=1893499200.25)))["stream-expires-at"] == "2030-01-01T12:00:00.250Z"
    )


def test_a_timestamp_has_milliseconds_and_a_zone():
    assert timestamp(0) == b"1970-01-01T00:00:00.000Z"


def test_a_timestamp_is_rounded_as_the_log_does():
    for seconds in (1_900_000_000.1239, 1_900_000_000.9996, EXPIRES_AT_MAX, EXPIRES_AT_MAX - 0.0004, -0.0004):
        assert timestamp(seconds) == timestamp(stored_time(seconds))
    assert timestamp(EXPIRES_AT_MAX) == b"9999-12-31T23:59:59.999Z"


@pytest.mark.parametrize(("seconds", "year"), [(-1e12, b"0001-"), (1e12, b"9999-")])
def test_a_timestamp_that_no_calendar_has_is_the_end_of_the_calendar(seconds: float, year: bytes):
    assert timestamp(seconds).startswith(year)


# Reading


def test_the_page_at_the_tail_is_up_to_date_and_earlier_ones_are_not():
    last, earlier = fields(page(catch_up(), info(), chunk())), fields(page(catch_up(), info(), chunk(tail=False)))
    assert last["stream-up-to-date"] == "true"
    assert "stream-up-to-date" not in earlier


def test_a_tag_differs_by_life_start_end_bytes_and_what_is_said_of_the_tail():
    here = chunk()
    tags = {
        entity_tag("ab12", 5, here),
        entity_tag("ab12", 6, here),
        entity_tag("cd34", 5, here),
        entity_tag("ab12", 5, here._replace(offset=1)),
        entity_tag("ab12", 5, here._replace(next_offset=5)),
        entity_tag("ab12", 5, here._replace(closed=True)),
        entity_tag("ab12", 5, here._replace(up_to_date=False)),
        entity_tag("ab12", 5, here._replace(data=b"TEXT")),
    }
    assert len(tags) == 8
    assert (
        entity_tag("ab12", 5, here._replace(closed=True))
        == b'"ab12-5:0:4:%b:c"' % xxh3_64_hexdigest(here.data).encode()
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (b'"t"', True),
        (b'W/"t"', True),
        (b'"a", "t"', True),
        (b'"a",W/"t" , "b"', True),
        (b'"a,b", "t"', True),
        (b"*", True),
        (b" * ", True),
        (b'"a"', False),
        (b"t", False),
        (b"", False),
        (b'"a, "t', False),
        (b'"*"', False),
    ],
)
def test_conditions_are_lists_of_weak_and_strong_tags(condition: bytes, expected: bool):
    assert matches(condition, b'"t"') is expected


def test_a_page_that_the_client_has_is_304_without_a_body():
    tag = fields(page(catch_up(), info(), chunk()))["etag"].encode()
    response = page(catch_up(if_none_match=b'"x", W/' + tag), info(), chunk())
    assert (response.status, response.body) == (304, b"")
    assert fields(response)["etag"] == tag.decode()
    assert "content-type" not in fields(response)
    assert page(catch_up(if_none_match=tag), info(), chunk(closed=True)).status == 200


def test_reading_from_now_is_neither_tagged_nor_stored():
    response = page(catch_up(offset=NOW, if_none_match=b"*"), info(), chunk(b""))
    assert (response.status, response.body) == (200, b"")
    assert "etag" not in fields(response)
    assert fields(response)["cache-control"] == "no-store"


def test_no_messages_are_an_empty_array():
    response = page(catch_up(), info(content_type="application/json"), chunk(b""))
    assert (response.body, fields(response)["content-length"]) == (b"[]", "2")


@pytest.mark.parametrize(
    ("of", "part", "policy"),
    [
        (info(), chunk(), "public, max-age=60, stale-while-revalidate=300"),
        (info(ttl=3600), chunk(), "public, max-age=60, stale-while-revalidate=300"),
        (info(ttl=360), chunk(), "public, max-age=60, stale-while-revalidate=300"),
        (info(ttl=61), chunk(), "public, max-age=60, stale-while-revalidate=1"),
        (info(ttl=60), chunk(), "public, max-age=60"),
        (info(ttl=10), chunk(), "public, max-age=10"),
        (info(expires_at=NOW_SECONDS + 99.9), chunk(), "public, max-age=60, stale-while-revalidate=39"),
        (info(expires_at=NOW_SECONDS + 30.9), chunk(), "public, max-age=30"),
        (info(expires_at=NOW_SECONDS + 0.5), chunk(), "no-store"),
        (info(expires_at=NOW_SECONDS - 5), chunk(), "no-store"),
        (info(), chunk(b""), "private, no-cache"),
        (info(), chunk(b"", closed=True), "private, no-cache"),
    ],
)
def test_caches_store_data_for_no_longer_than_it_lives_and_never_an_empty_tail(
    of: StreamInfo, part: Chunk, policy: str
):
    assert fields(page(catch_up(), of, part))["cache-control"] == policy


def test_private_streams_are_for_private_caches():
    private = Responses(cors=None, cache="private")
    headers = fields(private.page(catch_up(), info(), chunk(), "ab12", NOW_SECONDS, 0))
    assert headers["cache-control"] == "private, max-age=60, stale-while-revalidate=300"


def test_a_long_poll_that_ends_at_the_tail_is_204_with_a_cursor():
    response = page(catch_up(live="long-poll"), info(), chunk(b""))
    headers = fields(response)
    assert (response.status, response.body) == (204, b"")
    assert (headers["stream-cursor"], headers["stream-up-to-date"]) == ("99", "true")
    assert headers["cache-control"] == "no-store"
    assert "content-type" not in headers


def test_a_closed_long_poll_has_no_cursor():
    headers = fields(page(catch_up(live="long-poll"), info(), chunk(b"", closed=True)))
    assert headers["stream-closed"] == "true"
    assert "stream-cursor" not in headers
    assert "stream-cursor" not in fields(page(catch_up(live="long-poll"), info(), chunk(closed=True)))


def test_a_long_poll_with_data_is_a_page_with_a_cursor():
    response = page(catch_up(live="long-poll"), info(), chunk())
    assert (response.status, response.body, fields(response)["stream-cursor"]) == (200, b"data", "99")


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [("text/plain", None), ("application/json", None), ("application/octet-stream", "base64"), ("image/png", "base64")],
)
def test_an_event_stream_is_not_held_back_and_says_how_it_is_encoded(content_type: str, encoding: str | None):
    headers = fields(RESPONSES.events(content_type))
    assert headers["content-type"] == "text/event-stream"
    assert "no-cache" in headers["cache-control"]
    assert headers["x-accel-buffering"] == "no"
    assert headers.get("stream-sse-data-encoding") == encoding
    assert "content-length" not in headers


# Browsers

EVERY = [
    RESPONSES.preflight(),
    RESPONSES.broken(),
    RESPONSES.failed(errors.StreamNotFound("s"), "GET"),
    RESPONSES.refused(Refusal(404, "reserved", "no")),
    RESPONSES.deleted(),
    RESPONSES.described(info()),
    RESPONSES.events("text/plain"),
    page(catch_up(), info(), chunk()),
    RESPONSES.appended(Append("s", b"x"), Appended(0, 1)),
]


@pytest.mark.parametrize("response", EVERY, ids=lambda response: str(response.status))
def test_every_response_is_safe_and_readable_in_browsers(response: Response):
    headers = fields(response)
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["access-control-allow-origin"] == "*"
    exposed = {name.strip().lower() for name in headers["access-control-expose-headers"].split(",")}
    assert {"etag", "location", "stream-next-offset", "stream-closed", "stream-cursor", "producer-epoch"} <= exposed


def test_every_header_of_the_protocol_is_exposed():
    exposed = fields(RESPONSES.deleted())["access-control-expose-headers"].lower()
    for response in [
        *EVERY,
        RESPONSES.failed(errors.SequenceGap("s", "p", 1, 2), "GET"),
        RESPONSES.events("image/png"),
    ]:
        for name in fields(response):
            assert not name.startswith(("stream-", "producer-")) or name in exposed


def test_a_preflight_allows_what_clients_send():
    headers = fields(RESPONSES.preflight())
    allowed = {name.strip().lower() for name in headers["access-control-allow-headers"].split(",")}
    assert {"if-none-match", "authorization", "content-type", "stream-seq", "producer-id", "stream-ttl"} <= allowed
    assert "DELETE" in headers["access-control-allow-methods"]


def test_named_origins_make_responses_vary_and_none_is_in_all_of_them():
    headers = fields(Responses(cors=Cors(("https://a.example",)), cache="public").deleted())
    assert headers["vary"] == "origin"
    assert "access-control-allow-origin" not in headers


def test_without_an_origin_only_the_server_itself_reads():
    headers = fields(Responses(cors=None, cache="public").preflight())
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert not [name for name in headers if name.startswith("access-control")]
