"""The hook that says who may do what: what it is asked, when, and what its answers become."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any
from urllib.parse import quote

import pytest
from asked import Book
from serving import Clock, Served, serving

from durable_log import aio, asgi, errors
from durable_log.access import Allow, BearerTokens, Deny, ReadUrls, Request, any_of
from durable_log.errors import InvalidOption


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def served(book: Book):
    with serving(authorize=book, long_poll_seconds=0.2) as running:
        yield running


def error(response: Any) -> str:
    code: str = response.json()["error"]["code"]
    return code


def test_each_request_is_asked_for_by_what_it_would_do(served: Served, book: Book):
    served.put("a%2Fb", b"first")
    served.post("a/b", b"more")
    served.close("a/b")
    served.http.get("/a/b")
    served.http.get("/a/b?offset=-1&live=long-poll")
    served.http.head("/a/b")
    served.http.delete("/a/b")
    expected = ["create", "append", "close", "read", "read", "describe", "delete"]
    assert book.asked() == [(action, "a/b") for action in expected]


def test_a_fork_is_asked_for_and_then_the_reading_of_its_source(served: Served, book: Book):
    served.put("source", b"text")
    book.asked()
    assert served.put("fork", Stream_Forked_From="/source").status_code == 201
    assert [request.fork_source for request in book.requests] == ["source", None]
    assert book.asked() == [("create", "fork"), ("read", "source")]
    book.denied["read"] = Deny()
    assert served.put("other", Stream_Forked_From="/source").status_code == 403
    assert served.http.head("/other").status_code == 404


def test_to_close_with_last_words_is_to_append_too(served: Served, book: Book):
    served.put("s")
    book.asked()
    book.denied["append"] = Deny()
    assert served.post("s", b"last words", Stream_Closed="true").status_code == 403
    chunked = b"POST /s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nStream-Closed: true\r\n"
    with served.raw(chunked + b"Transfer-Encoding: chunked\r\n\r\n4\r\nlast\r\n0\r\n\r\n") as client:
        assert client.response()[0] == 403
    assert served.tail("s") == 0
    book.asked()
    assert served.close("s").status_code == 204
    assert book.asked() == [("close", "s")]


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("2", [], 403),
        ("1.1", [], 404),
        ("1.1", [(b"content-length", b"0")], 404),
        ("1.1", [(b"content-length", b"0"), (b"transfer-encoding", b"chunked")], 403),
    ],
)
def test_a_close_is_an_append_too_unless_its_head_says_that_nothing_follows(
    book: Book, version: str, headers: list[tuple[bytes, bytes]], status: int
):
    """Only HTTP/1 says so by saying nothing, and servers believe an encoding before a length (RFC 9112 §6.3)."""
    book.denied["append"] = Deny()
    scope = {
        "type": "http", "method": "POST", "path": "/s", "query_string": b"", "http_version": version,
        "headers": [(b"stream-closed", b"true"), *headers],
    }  # fmt: skip
    assert asyncio.run(call(book, scope))[0]["status"] == status


async def call(hook: Any, scope: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async with aio.open(":memory:") as store:
        await asgi.app(store, authorize=hook, **settings)(scope, receive, send)
    return sent


def test_the_request_says_who_asks_for_what(served: Served, book: Book):
    served.put("s", X_Who="me", Authorization="Bearer t")
    served.http.get("/s?offset=-1&k=v%20w&empty=")
    put, get = book.requests
    assert (put.method, put.headers["x-who"], put.headers["AUTHORIZATION"]) == ("PUT", "me", "Bearer t")
    assert (get.method, get.query) == ("GET", {"offset": "-1", "k": "v w", "empty": ""})
    assert put.client == "127.0.0.1"
    assert put.scope["type"] == "http"


def test_subscriptions_are_asked_for_by_their_ids_unless_they_have_their_own_tokens(served: Served, book: Book):
    root = "/__ds/subscriptions/sub"
    created = {"type": "pull-wake", "pattern": "chat/*", "wake_stream": "wake"}
    served.put("wake", content_type="application/json")
    book.asked()
    assert served.http.put(root, json=created).status_code == 201
    assert served.http.get(root).status_code == 200
    served.http.post(f"{root}/claim", json={"worker": "me"})
    assert book.asked() == [("control", "sub")] * 3
    for action in ("callback", "ack", "release"):
        assert served.http.post(f"{root}/{action}", json={}).status_code == 401
        refused = served.http.post(f"{root}/{action}", json={}, headers={"authorization": "Bearer x"})
        assert refused.status_code in (400, 401)
    served.http.get("/__ds/jwks.json")
    assert book.asked() == []
    book.denied["control"] = Deny()
    assert served.http.delete(root).status_code == 403
    book.denied.clear()
    assert served.http.get(root).status_code == 200


def test_a_preflight_is_never_asked_for(served: Served, book: Book):
    book.denied = dict.fromkeys(("create", "append", "close", "read", "describe", "delete"), Deny(401))
    assert served.http.options("/s", headers={"origin": "https://a.example"}).status_code == 204
    assert book.asked() == []


def test_what_is_malformed_is_refused_before_anybody_is_asked(served: Served, book: Book):
    assert served.http.get("/s?offset=wrong").status_code == 400
    assert served.http.patch("/s").status_code == 405
    assert book.asked() == []


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("denial", [Deny(401, "who are you", 'Bearer realm="x"'), Deny(403, "not you"), Deny(404)])
def test_a_denial_says_the_same_whether_there_is_a_stream_or_not(
    served: Served, book: Book, denial: Deny, *, exists: bool
):
    if exists:
        served.put("s", b"text")
    book.denied = dict.fromkeys(("create", "append", "close", "read", "describe", "delete"), denial)
    for method, headers in (("GET", {}), ("PUT", {}), ("DELETE", {}), ("POST", {"content-type": "text/plain"})):
        response = served.http.request(method, "/s", headers=headers, content=b"" if method != "POST" else b"x")
        assert response.status_code == denial.status
        assert error(response) == {401: "unauthorized", 403: "forbidden", 404: "stream_not_found"}[denial.status]
        assert response.headers.get("www-authenticate") == ('Bearer realm="x"' if denial.status == 401 else None)
        assert response.headers["cache-control"] == "no-store"
        assert (denial.message in response.text) == (denial.status != 404)
    assert served.http.head("/s").content == b""


def test_a_404_of_a_hook_is_the_one_of_a_stream_that_is_not_there(served: Served, book: Book):
    honest = served.http.get("/s")
    served.put("s", b"text")
    book.denied["read"] = Deny(404, "hidden")
    hidden = served.http.get("/s")
    assert (hidden.status_code, hidden.content) == (honest.status_code, honest.content)
    assert {**hidden.headers, "date": ""} == {**honest.headers, "date": ""}


def test_the_hook_is_asked_before_any_of_the_body_is_read(served: Served, book: Book):
    book.denied["append"] = Deny(401)
    head = b"POST /s HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n\r\n"
    with served.raw(head) as client:
        status, headers, _ = client.response()
    assert (status, headers["www-authenticate"]) == (401, "Bearer")


def test_a_hook_that_waits_holds_up_nobody_else():
    gate = asyncio.Event()

    async def hook(request: Request) -> Allow | Deny:
        if request.name == "slow":
            await gate.wait()
        else:
            gate.set()
        return Allow()

    async def both() -> list[int]:
        import httpx

        async with aio.open(":memory:") as store:
            transport = httpx.ASGITransport(asgi.app(store, authorize=hook))
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                slow = asyncio.create_task(client.put("/slow"))
                await asyncio.sleep(0)
                fast = await client.put("/fast")
                return [fast.status_code, (await slow).status_code]

    assert asyncio.run(both()) == [201, 201]


class Secretive(Exception):
    pass


@pytest.mark.parametrize("later", [True, False])
@pytest.mark.parametrize(
    "raised", [Secretive("s3cret"), KeyError("s3cret"), errors.StreamNotFound("s3cret"), ValueError("s3cret")]
)
def test_a_hook_that_fails_denies_and_tells_the_log_where_but_not_what(
    caplog: pytest.LogCaptureFixture, raised: Exception, *, later: bool
):
    def fails(_request: Request) -> Allow:
        raise raised

    async def fails_later(_request: Request) -> Allow:
        raise raised

    with serving(authorize=fails_later if later else fails) as served, caplog.at_level(logging.DEBUG):
        response = served.put("s", b"text")
    assert (response.status_code, error(response)) == (500, "internal_error")
    assert "s3cret" not in response.text
    assert "Traceback" not in response.text
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(told) == 1
    assert type(raised).__name__ in told[0]
    assert "test_http_authorize.py" in told[0]
    assert "s3cret" not in caplog.text


def test_an_answer_that_is_none_denies(caplog: pytest.LogCaptureFixture):
    with serving(authorize=lambda _request: True) as served:
        assert served.put("s", b"text").status_code == 500
    assert "authorize failed with TypeError" in caplog.text


def test_pages_are_never_used_again_unasked(served: Served, book: Book):
    served.put("s", b"text")
    page = served.http.get("/s?offset=-1")
    assert page.headers["cache-control"] == "private, no-cache"
    assert served.http.get("/s", headers={"if-none-match": page.headers["etag"]}).status_code == 304
    book.denied["read"] = Deny(401)
    assert served.http.get("/s", headers={"if-none-match": page.headers["etag"]}).status_code == 401


def test_caches_for_everybody_are_refused_beside_a_hook():
    with pytest.raises(InvalidOption, match="to all what authorize allows to some"):
        asgi.app(None, authorize=lambda _request: Allow(), cache_control="public")  # type: ignore[arg-type]


# Live responses and signed URLs


def test_an_event_stream_ends_when_what_allowed_it_does():
    with serving(authorize=lambda _request: Allow(0.3), sse_seconds=60, heartbeat_seconds=30) as served:
        served.put("s", b"text")
        began = time.monotonic()
        with served.events("s") as viewer:
            assert viewer.pair()[0] == "text"
            assert viewer.event() is None
        assert 0.2 < time.monotonic() - began < 5


def test_a_long_poll_ends_when_what_allowed_it_does():
    with serving(authorize=lambda _request: Allow(0.2), long_poll_seconds=60) as served:
        served.put("s", b"text")
        assert served.http.get("/s?offset=now&live=long-poll").status_code == 204


def test_what_allows_longer_than_that_changes_nothing():
    with serving(authorize=lambda _request: Allow(1e9), long_poll_seconds=0.05) as served:
        served.put("s", b"text")
        assert served.http.get("/s?offset=now&live=long-poll").status_code == 204


def test_an_event_source_reads_by_a_signed_url_until_that_expires(tmp_path):
    clock = Clock()
    urls = ReadUrls(b"s" * 16, clock=clock)
    (tmp_path / "tokens").write_text("writer write\n")
    hook = any_of(BearerTokens.from_file(tmp_path / "tokens"), urls)
    name = "chat/ä b"
    with serving(authorize=hook, long_poll_seconds=0.2) as served:
        assert served.put(quote(name), b"text", Authorization="Bearer writer").status_code == 201
        signed = dict(part.split("=") for part in urls.sign(name, seconds=60).split("&"))
        with served.events(quote(name), **signed) as viewer:
            assert viewer.pair()[0] == "text"
        path = f"/{quote(name, safe='')}?{urls.sign(name, seconds=60)}"
        assert served.http.get(path + "&offset=-1").text == "text"
        assert served.http.get(path + "&offset=now&live=long-poll&cursor=1").status_code == 204
        assert served.http.head(path).status_code == 200
        assert served.http.get(path.replace("chat", "chit")).status_code == 403
        assert served.http.delete(path).status_code == 403
        source, _, query = path.partition("?")
        assert served.http.put(f"/fork?{query}", headers={"stream-forked-from": source}).status_code == 403
        assert served.http.get(f"/{quote(name)}").status_code == 401
        clock.now += 60
        expired = served.http.get(path)
        assert (expired.status_code, error(expired)) == (403, "forbidden")
        assert "expired" in expired.text
