"""Streams in every state, before and after their server was killed or stopped: clients are told the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from front_ends import FRONT_ENDS, Server

ROOT = "/v1/stream"
TEXT, JSON = {"content-type": "text/plain"}, {"content-type": "application/json"}
CLOSED = {"stream-closed": "true"}
Http = httpx.Client


def claim(epoch: int, seq: int) -> dict[str, str]:
    return {"producer-id": "p", "producer-epoch": str(epoch), "producer-seq": str(seq)}


def put(http: Http, path: str, headers: dict[str, str], body: bytes = b"") -> None:
    assert http.put(path, content=body, headers=headers).status_code == 201


def post(http: Http, path: str, *headers: dict[str, str], body: bytes = b"") -> httpx.Response:
    return http.post(path, content=body, headers={name: value for more in headers for name, value in more.items()})


class State(NamedTuple):
    """How a stream gets there; a request that shows what is still known of it, and its status."""

    reach: Callable[[Http, str], Any]
    ask: Callable[[Http, str], httpx.Response]
    status: int


def _producer(http: Http, path: str) -> None:
    put(http, path, TEXT)
    for seq in range(3):
        assert post(http, path, TEXT, claim(4, seq), body=b"x").status_code == 200


def _closed_by_producer(http: Http, path: str) -> None:
    _producer(http, path)
    assert post(http, path, TEXT, CLOSED, claim(4, 3), body=b"last").status_code == 200


def _sequence(http: Http, path: str) -> None:
    put(http, path, TEXT)
    assert post(http, path, TEXT, {"stream-seq": "7"}, body=b"x").status_code == 204


def _fork(http: Http, path: str) -> None:
    put(http, f"{path}/source", TEXT, b"shared")
    put(http, path, {**TEXT, "stream-forked-from": f"{path}/source"}, b" and own")
    assert post(http, f"{path}/source", TEXT, body=b" not seen").status_code == 204


def _source_kept_for_its_fork(http: Http, path: str) -> None:
    put(http, path, TEXT, b"shared")
    put(http, f"{path}/fork", {**TEXT, "stream-forked-from": path})
    assert http.delete(path).status_code == 204


def _deleted(http: Http, path: str) -> None:
    put(http, path, TEXT, b"gone")
    assert http.delete(path).status_code == 204


def _another_life(http: Http, path: str) -> None:
    _closed_by_producer(http, path)
    assert http.delete(path).status_code == 204
    put(http, path, JSON, b"[1,2]")


STATES = {
    "empty": State(lambda http, path: put(http, path, TEXT), lambda http, path: http.get(path), 200),
    "text": State(
        lambda http, path: put(http, path, TEXT, b"abc"), lambda http, path: http.put(path, headers=TEXT), 200
    ),
    "json": State(
        lambda http, path: put(http, path, JSON, b'[1,"\\ud83d",[2]]'),
        lambda http, path: post(http, path, TEXT, body=b"x"),
        409,
    ),
    "born closed": State(
        lambda http, path: put(http, path, {**TEXT, **CLOSED}, b"abc"),
        lambda http, path: post(http, path, TEXT, body=b"x"),
        409,
    ),
    "with a window": State(
        lambda http, path: put(http, path, {**TEXT, "stream-ttl": "3600"}, b"abc"),
        lambda http, path: http.put(path, headers={**TEXT, "stream-ttl": "3601"}),
        409,
    ),
    "with an end": State(
        lambda http, path: put(http, path, {**TEXT, "stream-expires-at": "2099-01-01T00:00:00.5+01:00"}),
        lambda http, path: http.put(path, headers={**TEXT, "stream-expires-at": "2098-12-31T23:00:00.500Z"}),
        200,
    ),
    "with a producer": State(_producer, lambda http, path: post(http, path, TEXT, claim(4, 1), body=b"again"), 204),
    "with a fenced producer": State(_producer, lambda http, path: post(http, path, TEXT, claim(3, 3), body=b"x"), 403),
    "closed by a producer": State(
        _closed_by_producer, lambda http, path: post(http, path, TEXT, CLOSED, claim(4, 3), body=b"last"), 204
    ),
    "with a sequence": State(
        _sequence, lambda http, path: post(http, path, TEXT, {"stream-seq": "10"}, body=b"x"), 409
    ),
    "a fork": State(_fork, lambda http, path: http.get(f"{path}/source"), 200),
    "kept for its fork": State(_source_kept_for_its_fork, lambda http, path: http.get(f"{path}/fork"), 200),
    "deleted": State(_deleted, lambda http, path: post(http, path, TEXT, body=b"x"), 404),
    "another life": State(_another_life, lambda http, path: post(http, path, JSON, claim(0, 0), body=b"3"), 200),
}


def told(http: Http, path: str) -> list[Any]:
    """All that reading says of a stream, tags included."""
    head = http.head(path)
    tail = head.headers.get("stream-next-offset", "-1")
    pages = [http.get(f"{path}?offset={offset}") for offset in ("-1", "now", tail)]
    answers = [head, *pages]
    for answer in answers:
        answer.headers.pop("date", None)
    return [(answer.status_code, dict(answer.headers), answer.content) for answer in answers]


class Restarted(NamedTuple):
    http: Http
    before: dict[str, list[Any]]


@pytest.fixture(scope="module", params=["kill", "stop"])
def restarted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restarted]:
    server = Server(FRONT_ENDS["durable-log serve"], tmp_path_factory.mktemp("served"))
    server.start()
    try:
        with Http(base_url=server.url, timeout=10) as http:
            for name, state in STATES.items():
                state.reach(http, f"{ROOT}/{name}")
            before = {name: told(http, f"{ROOT}/{name}") for name in STATES}
            getattr(server, request.param)()
            server.start()
            yield Restarted(http, before)
    finally:
        server.stop()


@pytest.mark.parametrize("name", STATES)
def test_a_stream_is_after_the_end_of_its_server_what_it_was_before(restarted: Restarted, name: str):
    assert told(restarted.http, f"{ROOT}/{name}") == restarted.before[name]


@pytest.mark.parametrize("name", STATES)
def test_what_was_known_of_a_stream_is_still_known(restarted: Restarted, name: str):
    assert STATES[name].ask(restarted.http, f"{ROOT}/{name}").status_code == STATES[name].status


def test_a_page_that_a_client_had_before_is_not_sent_again(restarted: Restarted):
    tag = restarted.before["json"][1][1]["etag"]
    assert restarted.http.get(f"{ROOT}/json?offset=-1", headers={"if-none-match": tag}).status_code == 304
