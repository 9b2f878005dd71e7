"""Long-polls: what they wait for and when they end."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Served, token, until


def test_a_long_poll_returns_at_once_what_is_there(patient: Served, name: str):
    patient.put(name, b"abc")
    response = patient.http.get(f"/{name}?offset=-1&live=long-poll")
    assert (response.status_code, response.content) == (200, b"abc")
    assert response.headers["stream-cursor"].isdigit()
    assert response.headers["stream-up-to-date"] == "true"


@pytest.mark.parametrize("offset", ["now", token(3)])
def test_a_long_poll_waits_for_what_comes(patient: Served, name: str, offset: str):
    patient.put(name, b"old")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(patient.http.get, f"/{name}?offset={offset}&live=long-poll")
        until(lambda: patient.app.live_responses == 1, "the long-poll")
        patient.post(name, b"new")
        response = waiting.result()
    assert (response.status_code, response.content) == (200, b"new")
    assert response.headers["stream-next-offset"] == token(6)
    assert ("etag" in response.headers) == (offset != "now")


def test_a_long_poll_that_nothing_ends_is_204(served: Served, name: str):
    served.put(name, b"abc")
    response = served.http.get(f"/{name}?offset=now&live=long-poll")
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["stream-next-offset"] == token(3)
    assert response.headers["stream-up-to-date"] == "true"
    assert response.headers["stream-cursor"].isdigit()
    assert response.headers["cache-control"] == "no-store"


def test_a_long_poll_at_a_closed_tail_returns_at_once_and_without_a_cursor(patient: Served, name: str):
    patient.put(name, b"abc", stream_closed="true")
    for offset in ("now", token(3)):
        response = patient.http.get(f"/{name}?offset={offset}&live=long-poll")
        assert response.status_code == 204
        assert response.headers["stream-closed"] == "true"
        assert "stream-cursor" not in response.headers


def test_a_close_ends_a_long_poll(patient: Served, name: str):
    patient.put(name)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(patient.http.get, f"/{name}?offset=now&live=long-poll")
        until(lambda: patient.app.live_responses == 1, "the long-poll")
        patient.close(name)
        response = waiting.result()
    assert (response.status_code, response.headers["stream-closed"]) == (204, "true")


def test_a_delete_ends_a_long_poll(patient: Served, name: str):
    patient.put(name)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(patient.http.get, f"/{name}?offset=now&live=long-poll")
        until(lambda: patient.app.live_responses == 1, "the long-poll")
        patient.http.delete(f"/{name}")
        assert waiting.result().status_code == 404


@pytest.mark.parametrize("live", ["long-poll", "sse"])
def test_an_echoed_cursor_comes_back_larger(served: Served, name: str, live: str):
    served.put(name, b"abc")
    cursor = 0
    for _ in range(5):
        if live == "sse":
            with served.events(name, cursor=str(cursor)) as viewer:
                next_cursor = int(viewer.pair()[1]["streamCursor"])
        else:
            polled = served.http.get(f"/{name}?offset=-1&live=long-poll&cursor={cursor}")
            next_cursor = int(polled.headers["stream-cursor"])
        assert next_cursor > cursor
        cursor = next_cursor
