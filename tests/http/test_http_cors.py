"""What pages of other origins are told, and which."""

from __future__ import annotations

from typing import Any

import pytest
from serving import Served, serving

from durable_log import asgi
from durable_log.access import Deny
from durable_log.errors import InvalidOption

ORIGINS = ("https://a.example", "http://localhost:3000")


def cors_of(response: Any) -> dict[str, str]:
    return {key: value for key, value in response.headers.items() if key.startswith("access-control-allow-")}


@pytest.fixture(scope="module")
def shared():
    with serving(cors=asgi.Cors(ORIGINS, credentials=True), long_poll_seconds=0.2) as running:
        running.put("s", b"text")
        yield running


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_page_of_a_named_origin_is_told_its_own(shared: Served, origin: str):
    for response in (
        shared.http.get("/s", headers={"origin": origin}),
        shared.http.get("/missing", headers={"origin": origin}),
        shared.http.get("/s?offset=now&live=long-poll", headers={"origin": origin}),
    ):
        allowed = {"access-control-allow-origin": origin, "access-control-allow-credentials": "true"}
        assert cors_of(response) == allowed
        assert response.headers["vary"] == "origin"


def test_an_event_stream_has_the_same_headers(shared: Served):
    with shared.http.stream("GET", "/s?offset=-1&live=sse", headers={"origin": ORIGINS[0]}) as response:
        assert response.headers["access-control-allow-origin"] == ORIGINS[0]
        assert response.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", ["https://a.example.evil", "http://a.example", "null", "https://A.example", "*", ""])
def test_a_page_of_another_origin_is_told_nothing(shared: Served, origin: str):
    response = shared.http.get("/s", headers={"origin": origin})
    assert cors_of(response) == {}
    assert response.headers["vary"] == "origin"


def test_a_preflight_of_a_named_origin_may_send_credentials_and_conditions(shared: Served):
    headers = {"origin": ORIGINS[1], "access-control-request-method": "PUT"}
    response = shared.http.options("/s", headers=headers)
    assert response.headers["access-control-allow-origin"] == ORIGINS[1]
    assert response.headers["access-control-allow-credentials"] == "true"
    assert {"Authorization", "If-None-Match"} <= set(response.headers["access-control-allow-headers"].split(", "))


def test_a_page_can_read_why_it_was_denied():
    with serving(authorize=lambda _request: Deny(401), cors=asgi.Cors((ORIGINS[0],))) as served:
        response = served.http.get("/s", headers={"origin": ORIGINS[0]})
    assert cors_of(response) == {"access-control-allow-origin": ORIGINS[0]}
    assert "WWW-Authenticate" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "cors",
    [
        asgi.Cors(()),
        asgi.Cors(("*",), credentials=True),
        asgi.Cors(("*", "https://a.example")),
        asgi.Cors(("https://a.example/",)),
        asgi.Cors(("a.example",)),
        asgi.Cors(("https://ä.example",)),
        asgi.Cors("https://a.example"),  # type: ignore[arg-type]
    ],
)
def test_origins_that_browsers_would_not_understand_are_refused(cors: asgi.Cors):
    with pytest.raises(InvalidOption):
        asgi.app(None, cors=cors)  # type: ignore[arg-type]
