"""Create, append, close, delete: what the protocol's traps are about."""

from __future__ import annotations

import pytest
from serving import Clock, Served, serving, token


def claim(epoch: int, seq: int, producer: str = "p") -> dict[str, str]:
    return {"producer-id": producer, "producer-epoch": str(epoch), "producer-seq": str(seq)}


# Create


def test_a_content_type_comes_back_as_it_was_set(served: Served, name: str):
    odd = "Text/Plain ;Charset=UTF-8"
    assert served.put(name, b"x", odd).headers["content-type"] == odd
    assert served.put(name, b"", "text/plain").headers["content-type"] == odd
    assert served.http.get(f"/{name}").headers["content-type"] == odd
    assert served.http.head(f"/{name}").headers["content-type"] == odd


def test_creating_again_needs_the_same_configuration_and_answers_the_tail(served: Served, name: str):
    assert served.put(name, b"abc", stream_ttl="60").status_code == 201
    again = served.put(name, b"ignored", "TEXT/plain", stream_ttl="60")
    assert (again.status_code, again.headers["stream-next-offset"]) == (200, token(3))
    assert served.put(name, b"", stream_ttl="61").status_code == 409
    assert served.put(name, b"").status_code == 409
    assert served.put(name, b"", "text/html", stream_ttl="60").status_code == 409
    assert served.put(name, b"", stream_ttl="60", stream_closed="true").status_code == 409
    assert served.http.get(f"/{name}").content == b"abc"


def test_a_json_stream_is_created_empty_by_an_empty_array(served: Served, name: str):
    assert served.put(name, b"[]", "application/json").headers["stream-next-offset"] == token(0)
    assert served.http.get(f"/{name}").content == b"[]"


def test_a_stream_that_is_created_again_shows_nothing_of_its_earlier_life(served: Served, name: str):
    served.put(name, b"old and long")
    served.post(name, b"x", stream_seq="9", **claim(5, 0))
    assert served.http.delete(f"/{name}").status_code == 204
    assert served.http.get(f"/{name}").status_code == 404
    assert served.put(name, b"new").status_code == 201
    assert served.http.get(f"/{name}").content == b"new"
    assert served.post(name, b"!", stream_seq="1", **claim(0, 0)).status_code == 200


# Append


def test_what_is_acknowledged_is_there_for_the_next_read(served: Served, name: str):
    served.put(name)
    for number in range(1, 30):
        assert served.post(name, b"x").headers["stream-next-offset"] == token(number)
        assert served.http.get(f"/{name}").content == b"x" * number


@pytest.mark.parametrize("content_type", ["TEXT/PLAIN", "text/plain; charset=utf-8", "Text/Plain ;x=y"])
def test_content_types_compare_without_case_and_parameters(served: Served, name: str, content_type: str):
    served.put(name)
    assert served.post(name, b"x", content_type).status_code == 204


def test_a_json_type_with_a_charset_is_json(served: Served, name: str):
    served.put(name, b"1", "application/json; charset=utf-8")
    assert served.post(name, b"[null, 2]", "application/json").status_code == 204
    assert served.http.get(f"/{name}").content == b"[1,null,2]"


def test_messages_keep_their_bytes_even_half_an_emoji(served: Served, name: str):
    served.put(name, content_type="application/json")
    for message in (rb'"\ud83d"', b'{ "a":  1.50 }', b"1e400", '"ü"'.encode()):
        assert served.post(name, message, "application/json").status_code == 204
    assert served.http.get(f"/{name}").content == rb'["\ud83d",{ "a":  1.50 },1e400,' + '"ü"]'.encode()


@pytest.mark.parametrize(
    ("first", "second", "status"), [("2", "10", 409), ("09", "10", 204), ("a", "B", 409), ("z", "ü", 204)]
)
def test_sequences_compare_byte_by_byte(served: Served, name: str, first: str, second: str, status: int):
    served.put(name)
    for value, expected in ((first, 204), (second, status), (first, 409)):
        headers = {"content-type": "text/plain", "stream-seq": value.encode()}
        assert served.http.post(f"/{name}", content=b"x", headers=headers).status_code == expected


# Producers


def test_new_data_is_200_a_duplicate_204_with_the_highest_sequence(served: Served, name: str):
    served.put(name)
    answers = [served.post(name, b"%d" % seq, **claim(0, seq)) for seq in (0, 1, 2, 1, 0)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 204, 204]
    assert [answer.headers["producer-seq"] for answer in answers] == ["0", "1", "2", "2", "2"]
    assert {answer.headers["stream-next-offset"] for answer in answers[2:]} == {token(3)}
    assert served.http.get(f"/{name}").content == b"012"


def test_a_duplicate_is_found_before_its_sequence_is_compared(served: Served, name: str):
    served.put(name)
    assert served.post(name, b"x", stream_seq="5", **claim(0, 0)).status_code == 200
    assert served.post(name, b"x", stream_seq="5", **claim(0, 0)).status_code == 204
    assert served.post(name, b"x", stream_seq="5", **claim(0, 1)).status_code == 409


def test_epochs_fence_and_gaps_are_named(served: Served, name: str):
    with serving(gap_seconds=0.0) as strict:
        strict.put(name)
        assert strict.post(name, b"a", **claim(1, 0)).status_code == 200
        stale = strict.post(name, b"b", **claim(0, 1))
        assert (stale.status_code, stale.headers["producer-epoch"]) == (403, "1")
        assert strict.post(name, b"b", **claim(2, 1)).status_code == 400
        gap = strict.post(name, b"b", **claim(1, 5))
        assert gap.status_code == 409
        assert (gap.headers["producer-expected-seq"], gap.headers["producer-received-seq"]) == ("1", "5")
        assert strict.post(name, b"b", **claim(1, 1)).status_code == 200
        assert strict.http.get(f"/{name}").content == b"ab"


def test_a_refused_request_moves_no_state(served: Served, name: str):
    served.put(name, content_type="application/json")
    for body, content_type in ((b"[]", "application/json"), (b"{", "application/json"), (b"1", "text/plain")):
        assert served.post(name, body, content_type, stream_seq="5", **claim(0, 0)).status_code in {400, 409}
    assert served.post(name, b"1", "application/json", stream_seq="1", **claim(0, 0)).status_code == 200


def test_requests_that_overtake_one_another_both_succeed(served: Served, name: str):
    served.put(name)
    later, earlier = (
        f"POST /{name} HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n"
        f"Producer-Id: p\r\nProducer-Epoch: 0\r\nProducer-Seq: {seq}\r\n\r\n{seq}".encode()
        for seq in (1, 0)
    )
    with served.raw(later) as second:
        served.tail(name)
        with served.raw(earlier) as first:
            assert first.response()[0] == 200
            assert second.response()[0] == 200
    assert served.http.get(f"/{name}").content == b"01"


def test_producers_do_not_know_of_one_another(served: Served, name: str):
    served.put(name)
    assert served.post(name, b"a", **claim(7, 0, "one")).status_code == 200
    assert served.post(name, b"b", **claim(0, 0, "two")).status_code == 200


# Close


def test_closing_ignores_the_content_type_and_may_be_repeated(served: Served, name: str):
    served.put(name, b"abc")
    for content_type in ("application/json", "nonsense", "text/plain"):
        answer = served.close(name, content_type=content_type)
        assert answer.status_code == 204
        assert (answer.headers["stream-closed"], answer.headers["stream-next-offset"]) == ("true", token(3))


@pytest.mark.parametrize("close", [{}, {"stream_closed": "true"}])
def test_an_append_to_a_closed_stream_learns_the_exact_tail(served: Served, name: str, close: dict[str, str]):
    served.put(name, b"abc")
    served.close(name)
    answer = served.post(name, b"x", "text/html", **close)
    assert answer.status_code == 409
    assert (answer.headers["stream-closed"], answer.headers["stream-next-offset"]) == ("true", token(3))


def test_the_closing_append_repeated_with_another_body_keeps_the_first(served: Served, name: str):
    served.put(name)
    first = served.post(name, b"first", stream_closed="true", **claim(0, 0))
    again = served.post(name, b"again", stream_closed="true", **claim(0, 0))
    assert [first.status_code, again.status_code] == [200, 204]
    assert again.headers["stream-closed"] == "true"
    assert served.http.get(f"/{name}").content == b"first"


def test_a_close_without_data_consumes_a_sequence_number(served: Served, name: str):
    served.put(name)
    assert served.post(name, b"x", **claim(0, 0)).status_code == 200
    closed = served.close(name, **claim(0, 1))
    assert (closed.status_code, closed.headers["producer-seq"]) == (204, "1")
    assert served.close(name, **claim(0, 1)).status_code == 204
    assert served.close(name, **claim(0, 2)).status_code == 409


@pytest.mark.parametrize("value", ["false", "yes", "1", ""])
def test_only_the_word_true_closes(served: Served, name: str, value: str):
    served.put(name)
    assert served.post(name, b"x", stream_closed=value).status_code == 204
    assert "stream-closed" not in served.http.head(f"/{name}").headers


# Time


def test_a_head_shows_the_window_and_not_what_is_left_of_it():
    clock = Clock()
    with serving(clock=clock) as running:
        running.put("s", stream_ttl="100")
        clock.now += 60
        assert running.http.head("/s").headers["stream-ttl"] == "100"


@pytest.mark.parametrize(
    ("method", "path", "headers", "renews"),
    [
        ("GET", "/s", {}, True),
        ("GET", "/s?offset=now", {}, True),
        ("GET", "/s?offset=-1&live=long-poll", {}, True),
        ("POST", "/s", {"content-type": "text/plain"}, True),
        ("POST", "/s", {"stream-closed": "true"}, True),
        ("HEAD", "/s", {}, False),
    ],
)
def test_reads_and_writes_renew_a_sliding_window_and_a_head_does_not(
    method: str, path: str, headers: dict[str, str], renews: bool
):
    clock = Clock()
    with serving(clock=clock, long_poll_seconds=0.05) as running:
        running.put("s", b"abc", stream_ttl="100")
        clock.now += 60
        body = b"x" if "content-type" in headers else b""
        assert running.http.request(method, path, headers=headers, content=body).is_success
        clock.now += 60
        assert running.http.head("/s").is_success is renews


def test_a_fixed_expiry_never_moves():
    clock = Clock()
    with serving(clock=clock) as running:
        running.put("s", b"abc", stream_expires_at="2030-03-17T17:48:20Z")
        shown = running.http.head("/s").headers["stream-expires-at"]
        assert shown == "2030-03-17T17:48:20.000Z"
        for _ in range(2):
            clock.now += 45
            assert running.post("s", b"x").is_success
            assert running.http.get("/s").is_success
            assert running.http.head("/s").headers["stream-expires-at"] == shown
        clock.now += 15
        assert running.http.get("/s").status_code == 404
