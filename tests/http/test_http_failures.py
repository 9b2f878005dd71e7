"""The end of the server, and what goes wrong inside it."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import PATIENCE_SECONDS, Served, serving, token, until

from durable_log import aio, errors

# Shutdown


@pytest.mark.parametrize("lifespan", ["off", "on"])
def test_a_server_with_viewers_ends_within_two_seconds(lifespan: str):
    served = Served(lifespan=lifespan, long_poll_seconds=60, sse_seconds=60)
    served.put("s", b"abc")
    viewers = [served.events("s") for _ in range(5)]
    for viewer in viewers:
        viewer.pair()
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(served.http.get, "/s?offset=now&live=long-poll")
        until(lambda: served.app.live_responses == 6, "the viewers")
        began = time.monotonic()
        served.exit()
        assert served.join(2.0), "the server still runs"
        assert time.monotonic() - began < 2.0
        assert polling.result().status_code == 204
    for viewer in viewers:
        assert viewer.event() is None
        viewer.leave()
    served.stop()


def test_a_viewer_gets_what_was_written_before_the_end():
    served = Served(sse_seconds=60)
    served.put("s")
    with served.events("s") as viewer:
        viewer.control()
        served.post("s", b"last words")
        served.exit()
        assert viewer.pair()[0] == "last words"
        assert viewer.event() is None
    served.stop()


def test_after_the_beginning_of_the_end_nothing_waits():
    with serving(long_poll_seconds=60, sse_seconds=60) as served:
        served.put("s", b"abc")
        served.app.begin_shutdown()
        assert served.http.get("/s?offset=now&live=long-poll").status_code == 204
        with served.events("s") as viewer:
            assert viewer.pair()[0] == "abc"
            assert viewer.event() is None
        assert served.post("s", b"x").status_code == 204


def test_shutdown_may_begin_before_anything_was_served_and_twice():
    with serving() as served:
        served.app.begin_shutdown()
        served.app.begin_shutdown()
        assert served.put("s").status_code == 201


# Failures inside


class Faulty:
    """A store that fails where it is told to."""

    def __init__(self, store: aio.AsyncStore, faults: dict[str, Exception]) -> None:
        self._store, self._faults = store, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def submit(self, request: Any) -> Any:
        if "submit" in self._faults:
            raise self._faults["submit"]
        return await self._store.submit(request)

    async def commit(self, request: Any) -> Any:
        await self._store.load(request.name)
        return await self.submit(request)

    def stream(self, name: str) -> Any:
        return FaultyStream(self._store.stream(name), self._faults)


class FaultyStream:
    def __init__(self, stream: aio.AsyncStream, faults: dict[str, Exception]) -> None:
        self._stream, self._faults = stream, faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, *arguments: Any, **options: Any) -> Any:
        if "read" in self._faults:
            raise self._faults["read"]
        return await self._stream.read(*arguments, **options)


@pytest.fixture
def faults() -> dict[str, Exception]:
    return {}


@pytest.fixture
def faulty(faults: dict[str, Exception], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(aio.AsyncStore, "of", classmethod(lambda _, store: store))
    with serving(store=lambda store: Faulty(store, faults), sse_seconds=60) as running:
        yield running


INSIDE = [
    (errors.CommitFailed("/var/data/00000007.log: fdatasync failed"), 503, "commit_failed"),
    (errors.StoreFull("/var/data", 4096), 507, "store_full"),
    (errors.StoreClosed("the store was closed"), 503, "store_closed"),
    (errors.Corruption("/var/data/00000007.log", 8192, "checksum"), 500, "corruption"),
    (RuntimeError("secret /var/data detail"), 500, "internal_error"),
    (KeyError("secret"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), INSIDE, ids=lambda value: str(value)[:20])
@pytest.mark.parametrize("operation", ["submit", "read"])
def test_a_failure_is_logged_and_told_in_one_line_without_details(
    faulty: Served, faults: dict[str, Exception], caplog: pytest.LogCaptureFixture,
    operation: str, error: Exception, status: int, code: str,
):  # fmt: skip
    faulty.put("s", b"abc")
    faults[operation] = error
    response = faulty.post("s", b"x") if operation == "submit" else faulty.http.get("/s")
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.text.count("\n") == 1
    assert "/var" not in response.text
    assert "secret" not in response.text
    [record] = [record for record in caplog.records if record.name == "durable_log"]
    assert record.levelno == logging.ERROR
    faults.clear()
    assert faulty.http.get("/s").content == b"abc"


@pytest.mark.parametrize("error", [errors.Corruption("f", 1, "checksum"), RuntimeError("secret")], ids=repr)
def test_a_failure_within_an_event_stream_ends_it_after_a_whole_event(
    faulty: Served, faults: dict[str, Exception], caplog: pytest.LogCaptureFixture, error: Exception
):
    faulty.put("s", b"abc")
    with faulty.raw(b"GET /s?offset=-1&live=sse HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n") as viewer:
        viewer.response()
        until(lambda: faulty.app.live_responses == 1, "the viewer")
        faults["read"] = error
        faulty.post("s", b"x")
        body = viewer.rest()
    assert body.endswith(b"}\n\n\r\n0\r\n\r\n")
    assert token(3).encode() in body
    assert [record.levelno for record in caplog.records if record.name == "durable_log"] == [logging.ERROR]


def test_a_failure_within_a_long_poll_is_its_answer(faulty: Served, faults: dict[str, Exception]):
    faulty.put("s", b"abc")
    with ThreadPoolExecutor() as pool:
        polling = pool.submit(faulty.http.get, "/s?offset=now&live=long-poll")
        until(lambda: faulty.app.live_responses == 1, "the long-poll")
        faults["read"] = errors.Corruption("f", 1, "checksum")
        faulty.post("s", b"x")
        response = polling.result(PATIENCE_SECONDS)
    assert response.status_code == 500
    assert json.loads(response.content)["error"]["code"] == "corruption"
