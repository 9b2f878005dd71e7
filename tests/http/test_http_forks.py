"""Forks over HTTP: how they are asked for, what is refused, and what becomes of deleted sources."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serving import Clock, Served, serving, token, until

from durable_log import aio
from durable_log.model import Trim


def fork(served: Served, name: str, source: str, body: bytes = b"", **headers: str) -> httpx.Response:
    """PUT a fork of the stream ``source``; without a content type unless there is one among the headers."""
    dashed = {key.replace("_", "-"): value for key, value in headers.items()}
    return served.http.put(f"/{name}", content=body, headers={"stream-forked-from": f"/{source}", **dashed})


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.fixture
def source(served: Served, name: str) -> str:
    """A text stream of two appends, "hello" and "world"."""
    served.put(f"{name}/source", b"hello")
    served.post(f"{name}/source", b"world")
    return f"{name}/source"


@pytest.fixture
def messages(served: Served, name: str) -> str:
    """A JSON stream of two appends, of three messages and of one."""
    served.put(f"{name}/messages", b'[{"a":1},{"b":2},{"c":3}]', "application/json")
    served.post(f"{name}/messages", b"4", "application/json")
    return f"{name}/messages"


# What a fork is


def test_a_fork_is_created_at_the_tail_with_the_type_of_its_source(served: Served, name: str, source: str):
    created = fork(served, name, source)
    assert created.status_code == 201
    assert created.headers["stream-next-offset"] == token(10)
    assert created.headers["content-type"] == "text/plain"
    assert created.headers["location"] == f"{served.url}/{name}"
    assert "stream-closed" not in created.headers
    assert served.post(name, b"!").headers["stream-next-offset"] == token(11)
    assert served.post(source, b"?").headers["stream-next-offset"] == token(11)
    assert served.http.get(f"/{name}").content == b"helloworld!"
    assert served.http.get(f"/{source}").content == b"helloworld?"


def test_a_fork_of_octets_does_not_take_the_default_type_for_one_that_was_sent(served: Served, name: str):
    served.put(f"{name}/source", b"\0", "application/octet-stream")
    assert fork(served, name, f"{name}/source").headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize("at", [0, 3, 5, 10])
def test_a_fork_leaves_its_source_at_an_offset(served: Served, name: str, source: str, at: int):
    created = fork(served, name, source, stream_fork_offset=token(at))
    assert created.headers["stream-next-offset"] == token(at)
    page = served.http.get(f"/{name}")
    assert (page.content, page.headers["stream-up-to-date"]) == (b"helloworld"[:at], "true")


@pytest.mark.parametrize(("anchor", "past", "held"), [(0, 3, b"hel"), (0, 5, b"hello"), (5, 3, b"hellowor")])
def test_a_sub_offset_counts_bytes_of_one_append(
    served: Served, name: str, source: str, anchor: int, past: int, held: bytes
):
    created = fork(served, name, source, stream_fork_offset=token(anchor), stream_fork_sub_offset=str(past))
    assert (created.status_code, created.headers["stream-next-offset"]) == (201, token(len(held)))
    served.post(name, b"!")
    assert served.http.get(f"/{name}").content == held + b"!"


@pytest.mark.parametrize(("past", "held"), [(1, [{"a": 1}]), (3, [{"a": 1}, {"b": 2}, {"c": 3}])])
def test_a_sub_offset_counts_messages_of_json(
    served: Served, name: str, messages: str, past: int, held: list[dict[str, int]]
):
    at = {"stream_fork_offset": token(0), "stream_fork_sub_offset": str(past)}
    created = fork(served, name, messages, b'["own"]', **at)
    assert (created.status_code, created.headers["content-type"]) == (201, "application/json")
    assert served.http.get(f"/{name}").json() == [*held, "own"]
    point = int(created.headers["stream-next-offset"][17:]) - len(b'"own",')
    assert served.http.get(f"/{name}", params={"offset": token(point)}).json() == ["own"]


def test_a_fork_may_begin_with_data_of_its_own_and_end_with_it(served: Served, name: str, source: str):
    created = fork(served, name, source, b"!", stream_closed="true")
    assert (created.headers["stream-next-offset"], created.headers["stream-closed"]) == (token(11), "true")
    page = served.http.get(f"/{name}")
    assert (page.content, page.headers["stream-closed"]) == (b"helloworld!", "true")


def test_the_data_of_a_fork_is_checked_as_its_source_has_it(served: Served, name: str, messages: str):
    assert code(fork(served, name, messages, b"{")) == (400, "invalid_data")
    assert code(fork(served, name, messages, b"x", content_type="text/plain")) == (409, "content_type_mismatch")
    assert served.http.head(f"/{name}").status_code == 404


def test_a_fork_of_a_closed_stream_is_open(served: Served, name: str, source: str):
    served.close(source)
    assert "stream-closed" not in fork(served, name, source).headers
    assert served.post(name, b"!").status_code == 204


def test_forks_nest(served: Served, name: str):
    served.put(f"{name}/0", b"0")
    for level in range(1, 6):
        assert fork(served, f"{name}/{level}", f"{name}/{level - 1}", str(level).encode()).status_code == 201
    assert served.http.get(f"/{name}/5").content == b"012345"
    assert served.http.get(f"/{name}/5", params={"offset": token(3)}).content == b"345"


def test_a_source_is_named_by_its_percent_encoded_path(served: Served, name: str):
    served.put(f"{name}/a%2Fb%20%E2%82%AC", b"odd")
    assert fork(served, f"{name}/1", f"{name}/a/b%20%e2%82%ac").status_code == 201
    assert fork(served, f"{name}/2", f"{name}%2Fa%2Fb%20%E2%82%AC").status_code == 201
    assert code(fork(served, f"{name}/3", f"{name}/a%252Fb%20%E2%82%AC")) == (404, "stream_not_found")


def test_a_producer_begins_anew_on_a_fork(served: Served, name: str, source: str):
    claim = {"producer-id": "p", "producer-epoch": "4", "producer-seq": "0"}
    assert served.post(source, b"?", stream_seq="9", **claim).status_code == 200
    fork(served, name, source)
    assert served.post(name, b"!", stream_seq="1", **claim).status_code == 200
    assert served.http.get(f"/{name}").content == b"helloworld?!"


# What is found again


def test_creating_a_fork_again_is_200_with_its_own_tail(served: Served, name: str, source: str):
    at = {"stream_fork_offset": token(5), "stream_fork_sub_offset": "2"}
    assert fork(served, name, source, **at).status_code == 201
    served.post(name, b"!")
    again = fork(served, name, source, b"ignored", **at)
    assert (again.status_code, again.headers["stream-next-offset"]) == (200, token(8))
    assert again.headers["content-type"] == "text/plain"
    assert fork(served, name, source, stream_fork_offset=token(7)).status_code == 200
    assert fork(served, name, source, content_type="TEXT/plain").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"stream_fork_offset": token(5)},
        {"stream_fork_offset": token(5), "stream_fork_sub_offset": "3"},
        {"stream_ttl": "60"},
        {"stream_closed": "true"},
        {"content_type": "text/html"},
    ],
)
def test_creating_a_fork_again_otherwise_is_409(served: Served, name: str, source: str, headers: dict[str, str]):
    fork(served, name, source, stream_fork_offset=token(5), stream_fork_sub_offset="2")
    assert code(fork(served, name, source, **headers)) == (409, "stream_exists")


def test_a_name_that_is_taken_is_409(served: Served, name: str, source: str):
    served.put(name)
    assert code(fork(served, name, source)) == (409, "stream_exists")
    assert code(fork(served, source, source)) == (409, "stream_exists")
    fork(served, f"{name}/fork", source)
    assert code(served.put(f"{name}/fork")) == (409, "stream_exists")


def test_a_fork_is_found_again_though_its_source_is_deleted(served: Served, name: str, messages: str):
    at = {"stream_fork_offset": token(0), "stream_fork_sub_offset": "2"}
    assert fork(served, name, messages, b'["own"]', **at).status_code == 201
    served.http.delete(f"/{messages}")
    assert fork(served, name, messages, b'["own"]', **at).status_code == 200
    assert fork(served, name, messages).status_code == 200
    assert fork(served, name, messages, stream_fork_offset=token(0)).status_code == 409
    assert code(fork(served, f"{name}/other", messages, **at)) == (409, "stream_gone")


# What is refused


@pytest.mark.parametrize(
    ("anchor", "past", "refusal"),
    [
        (token(11), "0", "offset_out_of_range"),
        (token(11), "1", "offset_out_of_range"),
        ("9999999999999999_9999999999999999", "0", "offset_out_of_range"),
        (token(0), "6", "invalid_option"),
        (token(5), "6", "invalid_option"),
        (token(10), "1", "invalid_option"),
        (token(0), str(2**53 - 1), "invalid_option"),
    ],
)
def test_a_point_that_the_source_does_not_have_is_400(
    served: Served, name: str, source: str, anchor: str, past: str, refusal: str
):
    refused = fork(served, name, source, stream_fork_offset=anchor, stream_fork_sub_offset=past)
    assert code(refused) == (400, refusal)
    assert served.http.head(f"/{name}").status_code == 404


@pytest.mark.parametrize("past", ["0", "1"])
def test_a_point_inside_of_a_message_is_400(served: Served, name: str, messages: str, past: str):
    refused = fork(served, name, messages, stream_fork_offset=token(3), stream_fork_sub_offset=past)
    assert code(refused) == (400, "offset_out_of_range")


def test_a_sub_offset_of_an_empty_source_is_400(served: Served, name: str):
    served.put(f"{name}/source")
    at = {"stream_fork_offset": token(0), "stream_fork_sub_offset": "1"}
    assert code(fork(served, name, f"{name}/source", **at)) == (400, "invalid_option")
    assert fork(served, name, f"{name}/source").status_code == 201


@pytest.mark.parametrize("content_type", [{}, {"content_type": "text/plain"}])
@pytest.mark.parametrize("at", [{}, {"stream_fork_offset": token(0), "stream_fork_sub_offset": "1"}])
def test_a_source_that_is_not_there_is_404(served: Served, name: str, content_type: dict[str, str], at: dict[str, str]):
    assert code(fork(served, name, f"{name}/source", b"x", **content_type, **at)) == (404, "stream_not_found")
    assert code(fork(served, name, name, **content_type, **at)) == (404, "stream_not_found")
    assert served.http.head(f"/{name}").status_code == 404


def test_a_refused_fork_leaves_no_reference(served: Served, name: str, source: str):
    fork(served, name, source, content_type="application/json")
    fork(served, name, source, stream_fork_offset=token(99))
    fork(served, name, source, stream_fork_offset=token(0), stream_fork_sub_offset="99")
    served.http.delete(f"/{source}")
    assert served.http.head(f"/{source}").status_code == 404


# Deleted sources


def test_everything_on_a_source_that_is_kept_for_forks_is_410_and_a_put_409(served: Served, name: str, source: str):
    fork(served, name, source)
    assert served.http.delete(f"/{source}").status_code == 204
    path = f"/{source}"
    assert served.http.get(path).json()["error"]["code"] == "stream_gone"
    gone = [
        served.http.get(path),
        served.http.get(path, params={"offset": "now"}),
        served.http.get(path, params={"offset": "-1", "live": "long-poll"}),
        served.http.get(path, params={"offset": "-1", "live": "sse"}),
        served.http.head(path),
        served.post(source, b"x"),
        served.close(source),
        served.http.delete(path),
    ]
    assert {response.status_code for response in gone} == {410}
    assert code(served.put(source)) == (409, "stream_exists")
    assert code(fork(served, source, name)) == (409, "stream_exists")
    assert code(fork(served, f"{name}/other", source)) == (409, "stream_gone")
    assert served.http.get(f"/{name}").content == b"helloworld"


def test_the_last_fork_takes_three_levels_along(served: Served, name: str):
    served.put(f"{name}/0", b"0")
    for level in (1, 2, 3):
        fork(served, f"{name}/{level}", f"{name}/{level - 1}")
    for level in (0, 1, 2):
        served.http.delete(f"/{name}/{level}")
    assert [served.http.head(f"/{name}/{level}").status_code for level in range(4)] == [410, 410, 410, 200]
    served.http.delete(f"/{name}/3")
    assert [served.http.head(f"/{name}/{level}").status_code for level in range(4)] == [404] * 4
    assert served.put(f"{name}/0", b"new").status_code == 201


# Live


def test_what_a_source_appends_wakes_no_viewer_of_its_fork(patient: Served, name: str):
    patient.put(f"{name}/source", b"one ")
    fork(patient, name, f"{name}/source", b"two ")
    with patient.events(name) as viewer:
        assert viewer.pair()[0] == "one two "
        patient.post(f"{name}/source", b"elsewhere")
        patient.http.delete(f"/{name}/source")
        patient.post(name, b"three")
        data, control = viewer.pair()
        assert (data, control["streamNextOffset"]) == ("three", token(13))


def test_a_long_poll_has_what_is_inherited_at_once_and_waits_for_the_rest(served: Served, name: str, source: str):
    fork(served, name, source)
    poll = {"live": "long-poll", "offset": token(5)}
    assert served.http.get(f"/{name}", params=poll).content == b"world"
    served.post(source, b"elsewhere")
    assert served.http.get(f"/{name}", params=poll | {"offset": token(10)}).status_code == 204


@pytest.mark.parametrize(("kept", "status"), [(True, 410), (False, 404)])
def test_a_waiting_long_poll_learns_whether_its_stream_is_kept_for_forks(
    patient: Served, name: str, kept: bool, status: int
):
    patient.put(f"{name}/source", b"one")
    if kept:
        fork(patient, name, f"{name}/source")
    answers: list[int] = []

    def poll() -> None:
        with httpx.Client(base_url=patient.url, timeout=10) as http:
            parameters = {"offset": "now", "live": "long-poll"}
            answers.append(http.get(f"/{name}/source", params=parameters).status_code)

    before = patient.app.live_responses
    thread = threading.Thread(target=poll)
    thread.start()
    until(lambda: patient.app.live_responses > before, "the long-poll")
    patient.http.delete(f"/{name}/source")
    thread.join()
    assert answers == [status]


def test_an_event_stream_ends_when_its_stream_is_kept_for_forks_only(
    patient: Served, name: str, caplog: pytest.LogCaptureFixture
):
    patient.put(f"{name}/source", b"one")
    fork(patient, name, f"{name}/source")
    with patient.events(f"{name}/source") as viewer:
        assert viewer.pair()[0] == "one"
        patient.http.delete(f"/{name}/source")
        assert viewer.event() is None
    assert [record for record in caplog.records if record.name == "durable_log"] == []


# Expiry


def test_a_fork_has_the_expiry_of_its_source_unless_it_says_its_own():
    clock = Clock()
    with serving(clock=clock) as running:
        running.put("sliding", b"a", stream_ttl="100")
        running.put("dated", b"a", stream_expires_at="2030-06-01T00:00:00Z")
        for source in ("sliding", "dated"):
            fork(running, f"{source}/heir", source)
            fork(running, f"{source}/ttl", source, stream_ttl="500")
            fork(running, f"{source}/date", source, stream_expires_at="2031-01-01T00:00:00Z")
        assert _expiry(running, "sliding/heir") == ("100", None)
        assert _expiry(running, "dated/heir") == (None, "2030-06-01T00:00:00.000Z")
        for source in ("sliding", "dated"):
            assert _expiry(running, f"{source}/ttl") == ("500", None)
            assert _expiry(running, f"{source}/date") == (None, "2031-01-01T00:00:00.000Z")
        clock.now += 90
        assert running.http.get("/sliding/heir").status_code == 200
        clock.now += 90
        assert running.http.head("/sliding").status_code in (404, 410)
        assert running.http.get("/sliding/heir").content == b"a"


def _expiry(running: Served, name: str) -> tuple[str | None, str | None]:
    headers = running.http.head(f"/{name}").headers
    return headers.get("stream-ttl"), headers.get("stream-expires-at")


# Trimmed streams


@pytest.fixture
def trimmed() -> Iterator[Served]:
    """A stream "s" of "hello", of which "he" is trimmed."""
    stores: list[aio.AsyncStore] = []

    def keep(store: aio.AsyncStore) -> Any:
        stores.append(store)
        return store

    with serving(store=keep, long_poll_seconds=0.1) as running:
        running.put("s", b"hello")
        stores[0].engine.execute(Trim("s", 2))
        yield running


@pytest.mark.parametrize("query", [{}, {"offset": "-1"}, {"offset": token(2)}, {"offset": "-1", "live": "long-poll"}])
def test_a_trimmed_stream_is_read_from_its_oldest_byte(trimmed: Served, query: dict[str, str]):
    page = trimmed.http.get("/s", params=query)
    assert (page.status_code, page.content) == (200, b"llo")
    assert page.headers["stream-next-offset"] == token(5)


def test_an_event_stream_of_a_trimmed_stream_begins_with_its_oldest_byte(trimmed: Served):
    with trimmed.events("s") as viewer:
        assert viewer.pair()[0] == "llo"


@pytest.mark.parametrize("live", [{}, {"live": "long-poll"}, {"live": "sse"}])
def test_what_was_trimmed_is_410(trimmed: Served, live: dict[str, str]):
    assert code(trimmed.http.get("/s", params={"offset": token(1), **live})) == (410, "offset_out_of_range")


def test_a_fork_of_a_trimmed_stream_begins_with_its_oldest_byte(trimmed: Served):
    assert fork(trimmed, "fork", "s", b"!").status_code == 201
    assert trimmed.http.get("/fork").content == b"llo!"
    assert code(trimmed.http.get("/fork", params={"offset": token(1)})) == (410, "offset_out_of_range")
    assert code(fork(trimmed, "other", "s", stream_fork_offset=token(1))) == (400, "offset_out_of_range")
