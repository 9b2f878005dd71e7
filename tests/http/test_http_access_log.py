"""A line of JSON for each request, and what never gets into a log."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from serving import serving

from durable_log import aio, asgi, errors
from durable_log.access import BearerTokens, ReadUrls, any_of


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "durable_log.access"]


def test_each_request_is_a_line_of_json_when_it_is_over(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "durable_log.access")
    with serving(access_log=True, long_poll_seconds=0.01) as served:
        served.put("a%0Ab/ä", b"first")
        served.post("a%0Ab/ä", b"more", Stream_Closed="true")
        served.http.get("/a%0Ab/ä?offset=-1")
        served.http.get("/missing?offset=wrong")
        served.http.options("/a")
    put, post, get, wrong, preflight = lines(caplog)
    assert list(put) == [
        "time", "method", "action", "stream", "live", "status", "bytes_in", "bytes_out", "ms", "client",
    ]  # fmt: skip
    assert (put["method"], put["action"], put["status"], put["bytes_in"]) == ("PUT", "create", 201, 5)
    assert {line["stream"] for line in (put, post, get)} == {"a%0Ab/%C3%A4"}
    assert (post["action"], post["bytes_in"], post["bytes_out"]) == ("close", 4, 0)
    assert (get["action"], get["live"], get["bytes_in"], get["bytes_out"]) == ("read", None, 0, 9)
    assert (wrong["action"], wrong["stream"], wrong["status"]) == (None, None, 400)
    assert (preflight["action"], preflight["status"]) == ("preflight", 204)
    for line in (put, post, get, wrong, preflight):
        assert line["client"] == "127.0.0.1"
        assert line["ms"] >= 0
        assert line["time"].endswith("Z")


def test_an_event_stream_is_one_line_at_its_end_with_what_it_sent(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "durable_log.access")
    with serving(access_log=True) as served:
        served.put("s", b"text")
        served.close("s")
        with served.http.stream("GET", "/s?offset=-1&live=sse") as response:
            body = response.read()
    events = lines(caplog)[-1]
    assert (events["action"], events["live"], events["status"], events["bytes_out"]) == ("read", "sse", 200, len(body))
    assert len(lines(caplog)) == 3


def test_without_the_option_there_are_no_lines(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with serving() as served:
        served.put("s", b"text")
    assert lines(caplog) == []


def test_no_secret_reaches_any_log(caplog: pytest.LogCaptureFixture, tmp_path):
    caplog.set_level(logging.DEBUG)
    (tmp_path / "tokens").write_text("s3cret-known read\n")
    urls = ReadUrls(b"s3cret" * 4)
    hook = any_of(BearerTokens.from_file(tmp_path / "tokens"), urls)
    signed = urls.sign("s", seconds=60)
    signature = signed.rpartition("=")[2]
    with serving(access_log=True, authorize=hook) as served:
        for token in ("s3cret-known", "s3cret-unknown"):
            served.put("s", b"text", Authorization=f"Bearer {token}")
            served.http.get("/s", headers={"authorization": f"Bearer {token}", "cookie": "s3cret=1"})
        served.http.get(f"/s?{signed}")
        served.http.get(f"/s?{signed}&offset=wrong")
        served.http.get(f"/other?{signed}")
        served.http.patch(f"/s?{signed}")
    # Of servers and clients that log for themselves, none is ours; durable-log serve tells its own to be silent.
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("durable_log"))
    assert len(lines(caplog)) == 8
    assert "s3cret" not in text
    assert signature not in text


def test_a_name_makes_no_line_of_its_own_in_the_log(caplog: pytest.LogCaptureFixture):
    def fails(_request: object) -> None:
        raise errors.CommitFailed("disk")

    class Broken:
        def __init__(self, store: aio.AsyncStore) -> None:
            self.store = store

        def __getattr__(self, name: str) -> Any:
            return fails if name == "submit" else getattr(self.store, name)

    async def main() -> None:
        scope = {
            "type": "http", "method": "PUT", "path": "/a\nERROR forged", "query_string": b"", "headers": [],
        }  # fmt: skip
        async with aio.open(":memory:") as store:
            streams = asgi.app(store)
            streams._store = Broken(store)  # type: ignore[assignment]

            async def receive() -> dict[str, Any]:
                return {"type": "http.request", "body": b""}

            async def send(_message: Any) -> None:
                pass

            await streams(scope, receive, send)

    asyncio.run(main())
    assert "/a%0AERROR%20forged" in caplog.text
    assert "\nERROR forged" not in caplog.text
