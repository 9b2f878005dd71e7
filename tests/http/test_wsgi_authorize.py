"""The hook that says who may do what, below servers with threads.

What its answers become is that of ASGI (``test_http_authorize.py``); here is what it is asked from a WSGI environ, and
which thread asks it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from asked import Book
from calling import Called

from durable_log import wsgi
from durable_log.access import Allow, BearerTokens, Deny, ReadUrls, Request, any_of
from durable_log.errors import InvalidOption


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def guarded() -> Iterator[Callable[..., Called]]:
    made: list[Called] = []

    def guarded(hook: Any, **settings: Any) -> Called:
        made.append(Called(authorize=hook, **settings))
        return made[-1]

    yield guarded
    for called in made:
        called.store.close()


@pytest.fixture
def called(guarded: Callable[..., Called], book: Book) -> Called:
    return guarded(book, long_poll_seconds=0.05)


def test_each_request_is_asked_for_by_what_it_would_do(called: Called, book: Book):
    called("PUT", "/a b/c", b"first")
    called("POST", "/a b/c", b"more")
    called("POST", "/a b/c", b"last", HTTP_STREAM_CLOSED="true")
    called("GET", "/a b/c")
    called("GET", "/a b/c", query="offset=now&live=long-poll")
    called("HEAD", "/a b/c")
    called("PUT", "/fork", HTTP_STREAM_FORKED_FROM="/a%20b/c")
    called("DELETE", "/a b/c")
    called("PUT", "/__ds/subscriptions/sub", b"{}")
    called("OPTIONS", "/a b/c", HTTP_ORIGIN="https://a.example")
    actions = ("create", "append", "append", "close", "read", "read", "describe")
    assert book.asked() == [
        *((action, "a b/c") for action in actions),
        ("create", "fork"),
        ("read", "a b/c"),
        ("delete", "a b/c"),
        ("control", "sub"),
    ]


def test_the_request_says_who_asks_for_what(called: Called, book: Book):
    called(
        "GET", "/s", query="offset=-1&k=v%20w&empty=", mount="/streams", HTTP_X_WHO="me", HTTP_AUTHORIZATION="Bearer t",
        REMOTE_ADDR="192.0.2.7", who="a middleware's",
    )  # fmt: skip
    (asked,) = book.requests
    assert (asked.action, asked.name, asked.method, asked.client) == ("read", "s", "GET", "192.0.2.7")
    assert asked.query == {"offset": "-1", "k": "v w", "empty": ""}
    assert (asked.headers["x-who"], asked.headers["AUTHORIZATION"]) == ("me", "Bearer t")
    assert asked.scope["who"] == "a middleware's"


@pytest.mark.parametrize(
    ("environ", "status"),
    [
        ({"SERVER_PROTOCOL": "HTTP/1.1"}, 204),
        ({"SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": "0"}, 204),
        ({"SERVER_PROTOCOL": "HTTP/1.1", "CONTENT_LENGTH": "0", "HTTP_TRANSFER_ENCODING": "chunked"}, 403),
        ({"SERVER_PROTOCOL": "HTTP/2"}, 403),
        ({"SERVER_PROTOCOL": ""}, 403),
    ],
)
def test_a_close_is_an_append_too_unless_its_head_says_that_nothing_follows(
    called: Called, book: Book, environ: dict[str, str], status: int
):
    called("PUT", "/s")
    book.denied["append"] = Deny()
    assert called("POST", "/s", HTTP_STREAM_CLOSED="true", **environ).status == status
    assert called.store.stream("s").info().closed == (status == 204)


@pytest.mark.parametrize(
    ("denial", "code"),
    [
        (Deny(401, "who are you", 'Bearer realm="x"'), b"unauthorized"),
        (Deny(403, "not you"), b"forbidden"),
        (Deny(404), b"stream_not_found"),
    ],
)
def test_what_is_denied_is_not_done_and_none_of_its_body_is_read(called: Called, book: Book, denial: Deny, code: bytes):
    class Unread(io.BytesIO):
        def read(self, _size: int | None = -1) -> bytes:
            raise AssertionError("the body was read")

    called("PUT", "/s", b"text")
    book.denied = dict.fromkeys(("create", "append", "read", "describe", "delete"), denial)
    for method, path in (("PUT", "/new"), ("POST", "/s"), ("GET", "/s"), ("HEAD", "/s"), ("DELETE", "/s")):
        body: dict[str, Any] = {"wsgi.input": Unread(b"more"), "CONTENT_LENGTH": "4"}
        answer = called(method, path, **body)
        assert (answer.status, answer.headers["cache-control"]) == (denial.status, "no-store")
        assert answer.headers.get("www-authenticate") == ('Bearer realm="x"' if denial.status == 401 else None)
        assert code in answer.body or method == "HEAD"
    assert list(called.store.names()) == ["s"]
    assert called.store.stream("s").read().data == b"text"


def test_a_hook_runs_on_the_thread_of_the_request(guarded: Callable[..., Called]):
    threads = []

    def hook(_request: Request) -> Allow:
        threads.append(threading.get_ident())
        return Allow()

    called = guarded(hook)
    other = threading.Thread(target=called, args=("PUT", "/s"))
    other.start()
    other.join()
    called("GET", "/s")
    assert threads == [other.ident, threading.get_ident()]


def test_asynchronous_hooks_share_one_event_loop_that_no_request_has_to_itself(guarded: Callable[..., Called]):
    loops, gate = [], asyncio.Event()

    async def hook(request: Request) -> Allow | Deny:
        loops.append(asyncio.get_running_loop())
        if request.name == "slow":
            await gate.wait()
        else:
            gate.set()
        return Allow()

    called = guarded(hook)
    answers: dict[str, int] = {}

    def put(name: str) -> None:
        answers[name] = called("PUT", f"/{name}").status

    slow = threading.Thread(target=put, args=("slow",))
    slow.start()
    put("fast")
    slow.join()
    assert answers == {"slow": 201, "fast": 201}
    assert loops[0] is loops[1]


@pytest.mark.parametrize("later", [True, False])
def test_a_hook_that_fails_denies_and_tells_the_log_where_but_not_what(
    guarded: Callable[..., Called], caplog: pytest.LogCaptureFixture, *, later: bool
):
    raised = KeyError("s3cret")

    def fails(_request: Request) -> Allow:
        raise raised

    async def fails_later(_request: Request) -> Allow:
        raise raised

    called = guarded(fails_later if later else fails)
    answer = called("PUT", "/s", b"text")
    body = answer.body
    assert (answer.status, b"internal_error" in body, b"s3cret" in body) == (500, True, False)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    assert "KeyError" in told[0]
    assert "test_wsgi_authorize.py" in told[0]
    assert "s3cret" not in caplog.text
    assert list(called.store.names()) == []


async def _yes(_request: Request) -> bool:
    return True


@pytest.mark.parametrize("hook", [lambda _request: True, _yes], ids=["at once", "later"])
def test_an_answer_that_is_none_denies(guarded: Callable[..., Called], caplog: pytest.LogCaptureFixture, hook: Any):
    assert guarded(hook)("PUT", "/s", b"text").status == 500
    assert "authorize failed with TypeError" in caplog.text


def test_live_responses_end_when_what_allowed_them_does(guarded: Callable[..., Called]):
    called = guarded(lambda _request: Allow(0.2), sse_seconds=60, long_poll_seconds=60, heartbeat_seconds=30)
    called("PUT", "/s", b"text")
    began = time.monotonic()
    assert called("GET", "/s", query="offset=now&live=long-poll").status == 204
    assert b"data:text" in called("GET", "/s", query="offset=-1&live=sse").body
    assert time.monotonic() - began < 20


def test_pages_are_never_used_again_unasked(called: Called, book: Book):
    called("PUT", "/s", b"text")
    page = called("GET", "/s", query="offset=-1")
    assert page.headers["cache-control"] == "private, no-cache"
    assert called("GET", "/s", query="offset=-1", HTTP_IF_NONE_MATCH=page.headers["etag"]).status == 304
    book.denied["read"] = Deny(401)
    assert called("GET", "/s", query="offset=-1", HTTP_IF_NONE_MATCH=page.headers["etag"]).status == 401


def test_caches_for_everybody_are_refused_beside_a_hook():
    with pytest.raises(InvalidOption, match="to all what authorize allows to some"):
        wsgi.app(None, authorize=lambda _request: Allow(), cache_control="public")  # type: ignore[arg-type]


def test_tokens_and_signed_urls_work_below_servers_with_threads(guarded: Callable[..., Called], tmp_path):
    (tmp_path / "tokens").write_text("writer write\n")
    (tmp_path / "tokens").chmod(0o600)
    urls = ReadUrls(b"s" * 16)
    called = guarded(any_of(BearerTokens.from_file(tmp_path / "tokens"), urls))
    assert called("PUT", "/a/b", b"text", HTTP_AUTHORIZATION="Bearer writer").status == 201
    assert called("GET", "/a/b", HTTP_AUTHORIZATION="Bearer writer").status == 403
    assert called("GET", "/a/b", query=urls.sign("a/b", seconds=60)).body == b"text"
    assert called("GET", "/a/b", query=urls.sign("a/c", seconds=60)).status == 403
    assert called("GET", "/a/b").status == 401
