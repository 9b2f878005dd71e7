"""The WSGI application, called as servers with threads call it.

That it speaks the protocol is for the conformance suite to say; here is what lies between it and such a server.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from calling import LIMIT, Called
from serving import token, until

import durable_log
from durable_log import errors, wsgi
from durable_log.errors import InvalidOption
from durable_log.protocol.cors import Cors


@pytest.fixture
def called() -> Iterator[Called]:
    made = Called(long_poll_seconds=30, heartbeat_seconds=0.02)
    yield made
    made.store.close()


def test_a_stream_is_written_and_read_where_the_application_is_mounted(called: Called):
    created = called("PUT", "/a/b c/\xe2\x82\xac", b"one", mount="/deep/streams")
    assert (created.status, created.body) == (201, b"")
    assert created.headers["location"] == "http://logs.example:81/deep/streams/a/b%20c/%E2%82%AC"
    assert called("POST", "/a/b c/\xe2\x82\xac", b"two", mount="/deep/streams").status == 204
    fork = called("PUT", "/fork", mount="/deep/streams", HTTP_STREAM_FORKED_FROM="/deep/streams/a%2Fb%20c/%E2%82%AC")
    assert fork.status == 201
    assert called("GET", "/fork", mount="/deep/streams").body == b"onetwo"
    assert called.store.stream("fork").read().data == b"onetwo"


def test_events_come_one_by_one_with_heartbeats_between(called: Called):
    called("PUT", "/s", b"one")
    viewer = called("GET", "/s", query="offset=-1&live=sse")
    assert viewer.headers["content-type"] == "text/event-stream"
    assert next(viewer.parts).startswith(b"event: data\ndata:one\n\nevent: control\n")
    assert next(viewer.parts) == next(viewer.parts) == b":\n\n"
    called("POST", "/s", b"two", HTTP_STREAM_CLOSED="true")
    rest = viewer.body
    assert b"data:two\n" in rest
    assert b'"streamClosed":true' in rest


def test_a_viewer_that_is_let_go_leaves_nothing_behind(called: Called):
    called("PUT", "/s")
    viewer = called("GET", "/s", query="offset=-1&live=sse")
    next(viewer.parts)
    assert next(viewer.parts) == b":\n\n"
    viewer.parts.close()
    assert called.store.stats()["watched_streams"] == 0


def test_after_the_beginning_of_the_end_nothing_waits(called: Called):
    called("PUT", "/s", b"abc")
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(called, "GET", "/s", query="offset=now&live=long-poll")
        watching = pool.submit(lambda: called("GET", "/s", query="offset=-1&live=sse").body)
        until(lambda: called.store.stats()["watched_streams"] == 1, "the viewers")
        called.app.begin_shutdown()
        assert polling.result().status == 204
        assert b"data:abc\n" in watching.result()
    assert called("GET", "/s", query="offset=now&live=long-poll").status == 204
    assert called("POST", "/s", b"x").status == 204


def test_a_viewer_keeps_a_stream_alive_and_a_delete_ends_it(called: Called):
    called("PUT", "/s", HTTP_STREAM_TTL="100")
    viewer = called("GET", "/s", query="offset=-1&live=sse")
    next(viewer.parts)
    for _ in range(5):
        called.clock.now += 60
        assert next(viewer.parts) == b":\n\n"
    assert called("DELETE", "/s").status == 204
    assert viewer.body == b""
    assert called("GET", "/s").status == 404


def test_an_event_stream_ends_after_its_time():
    called = Called(sse_seconds=0.2, heartbeat_seconds=30)
    called("PUT", "/s", b"abc")
    assert b"data:abc" in called("GET", "/s", query="offset=-1&live=sse").body
    called.store.close()


def test_requests_that_overtake_one_another_both_succeed(called: Called):
    called("PUT", "/s")
    claims = [{"HTTP_PRODUCER_ID": "p", "HTTP_PRODUCER_EPOCH": "0", "HTTP_PRODUCER_SEQ": str(seq)} for seq in (0, 1)]
    with ThreadPoolExecutor() as pool:
        later = pool.submit(lambda: called("POST", "/s", b"1", **claims[1]).status)
        until(lambda: called.store.stats()["watched_streams"] == 1, "the later one")
        assert called("POST", "/s", b"0", **claims[0]).status == 200
        assert later.result() == 200
    assert called("GET", "/s").body == b"01"


def test_a_request_that_waits_for_the_one_before_it_learns_that_the_stream_was_deleted(called: Called):
    called("PUT", "/s")
    claim = {"HTTP_PRODUCER_ID": "p", "HTTP_PRODUCER_EPOCH": "0", "HTTP_PRODUCER_SEQ": "1"}
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(lambda: called("POST", "/s", b"1", **claim).status)
        until(lambda: called.store.stats()["watched_streams"] == 1, "its wait")
        called("DELETE", "/s")
        assert waits.result() == 404


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"CONTENT_LENGTH": "9"}, 400),
        ({"CONTENT_LENGTH": str(LIMIT + 1)}, 413),
        ({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked"}, 411),
        ({"CONTENT_LENGTH": "", "HTTP_TRANSFER_ENCODING": "chunked", "HTTP_STREAM_CLOSED": "true"}, 411),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 411),
    ],
)
def test_a_body_that_is_not_whole_is_not_stored(called: Called, more: dict[str, str], status: int):
    called("PUT", "/s", b"abc")
    assert called("POST", "/s", b"half", **more).status == status
    chunk = called.store.stream("s").read()
    assert (chunk.data, chunk.closed) == (b"abc", False)


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 204), (LIMIT + 1, 413)])
def test_a_chunked_body_is_read_by_servers_that_say_where_it_ends(called: Called, size: int, status: int):
    called("PUT", "/s")
    more: dict[str, Any] = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    assert called("POST", "/s", b"x" * size, **more).status == status


def test_an_answer_to_a_head_request_has_no_body(called: Called):
    called("PUT", "/s", b"abc")
    head = called("HEAD", "/s")
    assert (head.status, head.headers["stream-next-offset"], head.body) == (200, token(3), b"")
    missing = called("HEAD", "/missing")
    assert (missing.status, missing.body) == (404, b"")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.Corruption("/var/data/00000007.log", 8192, "checksum"), 500, b"corruption"),
        (errors.CommitFailed("/var/data/00000007.log: fdatasync failed"), 503, b"commit_failed"),
        (RuntimeError("secret /var/data detail"), 500, b"internal_error"),
    ],
)
def test_a_failure_is_logged_and_told_without_details(
    called: Called, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    error: Exception, status: int, code: bytes,
):  # fmt: skip
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(called.store, "submit", fail)
    answer = called("PUT", "/s\nERROR forged")
    body = answer.body
    assert (answer.status, code in body, b"/var" in body) == (status, True, False)
    told = [record for record in caplog.records if record.name == "durable_log"]
    assert [record.levelno for record in told] == [logging.ERROR]
    assert told[0].getMessage().startswith("PUT /s%0AERROR%20forged"), "a path makes no line of its own"


def test_a_failure_within_an_event_stream_ends_it(called: Called, caplog: pytest.LogCaptureFixture, monkeypatch):
    called("PUT", "/s", b"abc")
    viewer = called("GET", "/s", query="offset=-1&live=sse")
    next(viewer.parts)

    def fail(*_: Any, **__: Any) -> None:
        raise errors.Corruption("/var/data/00000007.log", 8192, "checksum")

    monkeypatch.setattr(durable_log.Stream, "read", fail)
    called("POST", "/s", b"x")
    assert viewer.body == b""
    assert [record.levelno for record in caplog.records if record.name == "durable_log"] == [logging.ERROR]


def test_an_event_stream_whose_place_is_trimmed_away_ends(called: Called, caplog: pytest.LogCaptureFixture):
    stream = called.store.create("s", content_type="text/plain")
    for _ in range(3 * wsgi.EVENT_CHUNK_BYTES // LIMIT):
        stream.append(b"x" * LIMIT)
    viewer = called("GET", "/s", query="offset=-1&live=sse")
    next(viewer.parts)
    stream.trim(2 * wsgi.EVENT_CHUNK_BYTES)
    assert viewer.body == b""
    assert not caplog.records
    again = f"offset={token(wsgi.EVENT_CHUNK_BYTES)}&live=sse"
    assert called("GET", "/s", query=again).status == 410


def test_pages_of_the_origins_that_are_named_may_read():
    called = Called(cors=Cors(("https://a.example", "https://b.example")))
    called("PUT", "/s", b"abc")
    named, other = (called("GET", "/s", HTTP_ORIGIN=f"https://{host}.example") for host in ("b", "c"))
    assert named.headers["access-control-allow-origin"] == "https://b.example"
    assert "access-control-allow-origin" not in other.headers
    called.store.close()


def test_control_apis_are_not_found(called: Called):
    assert called("PUT", "/__ds/subscriptions/x", b"{}").status == 404


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix": "v1"},
        {"long_poll_seconds": 0},
        {"sse_seconds": -1},
        {"heartbeat_seconds": float("nan")},
        {"gap_seconds": -1},
        {"cache_control": "no-store"},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]):
    with pytest.raises(InvalidOption, match=next(iter(settings)).split("_", maxsplit=1)[0]):
        wsgi.app(None, **settings)  # type: ignore[arg-type]
