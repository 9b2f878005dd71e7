"""Forks as PUT requests: what names a source, what names a point of it, and what is refused."""

from __future__ import annotations

import pytest

from durable_log.errors import InvalidData
from durable_log.model import Create, StreamConfig
from durable_log.protocol.names import Mount
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import Fork, Put, needs_source, parse, resolve, to_create
from durable_log.protocol.tokens import offset_token

JSON = (b"content-type", b"application/json")
SOURCE = (b"stream-forked-from", b"/src")
AT_SEVEN = (b"stream-fork-offset", offset_token(7))


def put(*headers: tuple[bytes, bytes], root: str = "", prefix: str = "") -> Put:
    parsed = parse("PUT", f"{root}{prefix}/s".encode(), b"", headers, Mount(root, prefix))
    assert isinstance(parsed, Put)
    return parsed


def past(value: bytes) -> tuple[bytes, bytes]:
    return b"stream-fork-sub-offset", value


def refused(*headers: tuple[bytes, bytes], prefix: str = "") -> tuple[int, str]:
    with pytest.raises(Refusal) as caught:
        put(*headers, prefix=prefix)
    return caught.value.status, caught.value.code


def test_a_source_alone_is_forked_at_its_tail_and_gives_its_content_type():
    assert put(SOURCE) == Put("s", StreamConfig("", None, None), False, Fork("src", None, 0))


def test_a_fork_may_say_its_content_type_its_expiry_and_that_it_is_closed():
    parsed = put(SOURCE, JSON, (b"stream-ttl", b"60"), (b"stream-closed", b"true"))
    assert parsed == Put("s", StreamConfig("application/json", 60), True, Fork("src", None, 0))


def test_an_offset_and_a_sub_offset_say_where():
    assert put(SOURCE, AT_SEVEN).fork == Fork("src", 7, 0)
    assert put(SOURCE, AT_SEVEN, past(b"3")).fork == Fork("src", 7, 3)


def test_a_sub_offset_of_0_is_as_good_as_none():
    assert put(SOURCE, past(b"0")).fork == put(SOURCE).fork
    assert put(SOURCE, AT_SEVEN, past(b"0")).fork == put(SOURCE, AT_SEVEN).fork


@pytest.mark.parametrize(
    ("path", "root", "prefix", "name"),
    [
        (b"/a/b", "", "", "a/b"),
        (b"/a%2Fb", "", "", "a/b"),
        (b"/%E2%82%AC", "", "", "€"),
        ("/€".encode(), "", "", "€"),
        (b" /a\t", "", "", "a"),
        (b"/v1/stream/a", "", "/v1/stream", "a"),
        (b"/v1%2Fstream/a", "", "/v1/stream", "a"),
        (b"/mount/v1/stream/a", "/mount", "/v1/stream", "a"),
        (b"/v1/stream/a", "/mount", "/v1/stream", "a"),
        (b"/a%3Fb", "", "", "a?b"),
    ],
)
def test_a_source_is_a_path_like_that_of_a_request(path: bytes, root: str, prefix: str, name: str):
    fork = put((b"stream-forked-from", path), root=root, prefix=prefix).fork
    assert fork is not None
    assert fork.source == name


@pytest.mark.parametrize(
    ("path", "refusal"),
    [
        (b"", (400, "invalid_fork")),
        (b"src", (400, "invalid_fork")),
        (b"http://host/v1/stream/src", (400, "invalid_fork")),
        (b"/v1/stream/src?offset=-1", (400, "invalid_fork")),
        (b"/v1/stream/src#here", (400, "invalid_fork")),
        (b"/v1/stream/s%zz", (400, "invalid_name")),
        (b"/v1/stream/s%", (400, "invalid_name")),
        (b"/v1/stream/%FF", (400, "invalid_name")),
        (b"/v1/stream/" + b"n" * 1025, (400, "invalid_name")),
        (b"/src", (404, "not_found")),
        (b"/v1/stream/", (404, "not_found")),
        (b"/v1/stream/__ds/x", (404, "reserved")),
    ],
)
def test_a_source_that_can_be_no_stream_is_refused(path: bytes, refusal: tuple[int, str]):
    assert refused((b"stream-forked-from", path), prefix="/v1/stream") == refusal


@pytest.mark.parametrize("headers", [(AT_SEVEN,), (past(b"0"),), (past(b"1"),), (AT_SEVEN, past(b"0"))])
def test_fork_offsets_need_a_source(headers: tuple[tuple[bytes, bytes], ...]):
    assert refused(*headers) == (400, "invalid_fork")


@pytest.mark.parametrize("token", [b"", b"-1", b"now", b"7", b"0_7", offset_token(7) + b"0", b"\xff" * 33])
def test_a_fork_offset_is_one_that_the_server_gave_out(token: bytes):
    assert refused(SOURCE, (b"stream-fork-offset", token)) == (400, "invalid_offset")


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"05", b"00", b"1.5", b"1e3", b"abc", b"0x1", b"%d" % 2**53])
def test_a_sub_offset_that_is_nearly_an_integer_is_refused(value: bytes):
    assert refused(SOURCE, AT_SEVEN, past(value)) == (400, "invalid_integer")


def test_a_sub_offset_needs_an_offset_to_count_from():
    assert refused(SOURCE, past(b"1")) == (400, "invalid_fork")


@pytest.mark.parametrize("header", [SOURCE, AT_SEVEN, past(b"0")])
def test_a_fork_header_that_is_sent_twice_is_refused(header: tuple[bytes, bytes]):
    assert refused(SOURCE, AT_SEVEN, header, header) == (400, "repeated_header")


def test_only_json_and_sub_offsets_need_a_look_at_the_source():
    assert not needs_source(Fork("src", 7, 0), "text/plain")
    assert needs_source(Fork("src", 7, 1), "text/plain")
    assert needs_source(Fork("src", 7, 0), "application/json; charset=utf-8")


def test_a_resolved_fork_has_the_type_of_its_source_unless_it_says_one_itself():
    assert resolve(put(SOURCE), "Text/Plain", None).config.content_type == "Text/Plain"
    assert resolve(put(SOURCE, JSON), "text/plain", None).config.content_type == "application/json"


def test_a_resolved_fork_is_a_request_to_the_store():
    resolved = resolve(put(SOURCE, AT_SEVEN, past(b"3")), "text/plain", 10)
    assert to_create(resolved, b"x") == Create("s", StreamConfig("text/plain"), b"x", False, "src", 10)
    assert to_create(resolve(put(SOURCE), "text/plain", None), b"").fork_at is None


def test_the_body_of_a_fork_is_what_its_source_holds():
    assert to_create(resolve(put(SOURCE), "application/json", 0), b"[1,2]").data == b"1,2,"
    with pytest.raises(InvalidData):
        to_create(resolve(put(SOURCE), "application/json", 0), b"{")
