"""Chunks as server-sent events, read back by the rules of the HTML standard."""

from __future__ import annotations

import base64
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_log.protocol import sse
from durable_log.protocol.tokens import offset_token


def received(stream: bytes) -> list[tuple[str, str]]:
    """What an event source hands over: (event, data) pairs, by https://html.spec.whatwg.org §9.2.6."""
    events, name, data = [], "message", []
    text = stream.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    for line in text.split("\n"):
        if not line:
            if data:
                events.append((name, "\n".join(data)))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return events


def text_of(event: bytes) -> str:
    [(name, data)] = received(event)
    assert name == "data"
    return data


def joined(kind: sse.Encoding, pieces: list[bytes]) -> str:
    """The text that a viewer sees of a stream that grew piece by piece and was closed."""
    seen, held = "", b""
    for index, piece in enumerate(pieces):
        event, taken = sse.data_event(kind, held + piece, index == len(pieces) - 1)
        seen += text_of(event) if event else ""
        held = (held + piece)[taken:]
    assert held == b""
    return seen


def normal(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def test_lines_of_data_have_no_space_after_the_colon():
    assert sse.data_event("text", b"one\ntwo", False) == (b"event: data\ndata:one\ndata:two\n\n", 7)


def test_a_line_that_begins_with_a_space_keeps_it():
    event, _ = sse.data_event("text", b" one\n  two\nthree ", False)
    assert text_of(event) == " one\n  two\nthree "


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_every_line_end_becomes_a_data_line_and_nothing_is_injected(end: bytes):
    attack = end.join([b"safe", b"", b"event: control", b'data:{"streamClosed":true}', b"", b"x"])
    event, _ = sse.data_event("text", attack, False)
    assert text_of(event) == normal(attack.decode())


def test_half_a_character_waits_for_its_other_half():
    euro = "€".encode()
    assert sse.data_event("text", b"a" + euro[:2], False) == (b"event: data\ndata:a\n\n", 1)
    assert sse.data_event("text", euro[:1], False) == (b"", 0)
    assert joined("text", [b"a" + euro[:1], euro[1:2], euro[2:] + b"b"]) == "a€b"


def test_half_a_character_at_the_end_of_a_closed_stream_is_shown_as_damaged():
    event, taken = sse.data_event("text", b"a\xe2\x82", True)
    assert (text_of(event), taken) == ("a�", 3)


def test_a_carriage_return_waits_for_its_line_feed():
    assert sse.data_event("text", b"a\r", False) == (b"event: data\ndata:a\n\n", 1)
    assert joined("text", [b"a\r", b"\nb"]) == "a\nb"
    assert joined("text", [b"a\r", b"b\r"]) == "a\nb\n"


def test_bytes_that_are_no_text_are_replaced_and_do_not_hold_anything_up():
    event, taken = sse.data_event("text", b"a\xff\xfeb", False)
    assert (text_of(event), taken) == ("a��b", 4)


@given(st.text(), st.lists(st.integers(0, 60), max_size=6))
def test_text_cut_anywhere_arrives_as_one(text: str, cuts: list[int]):
    data = text.encode("utf-8")
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(bounds)]
    assert joined("text", pieces) == normal(text)


@given(st.binary())
def test_arbitrary_bytes_in_a_text_stream_stay_inside_one_data_event(data: bytes):
    event, taken = sse.data_event("text", data, True)
    assert taken == len(data)
    assert text_of(event) == normal(data.decode("utf-8", "replace")) if data else event == b""


def test_json_events_are_whole_arrays_even_of_text_with_line_ends():
    event, taken = sse.data_event("json", b'{"a":\r\n 1},[\r2],', False)
    assert taken == 16
    assert json.loads(text_of(event)) == [{"a": 1}, [2]]


@given(st.binary(min_size=1))
def test_binary_events_decode_by_themselves(data: bytes):
    event, taken = sse.data_event("base64", data, False)
    assert taken == len(data)
    assert base64.b64decode(text_of(event), validate=True) == data


@pytest.mark.parametrize("kind", ["text", "json", "base64"])
def test_no_data_is_no_event(kind: sse.Encoding):
    assert sse.data_event(kind, b"", True) == (b"", 0)


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", "json"),
        ("Application/JSON; charset=utf-8", "json"),
        ("text/plain;charset=utf-8", "text"),
        ("TEXT/markdown", "text"),
        ("application/octet-stream", "base64"),
        ("application/x-ndjson", "base64"),
        ("image/png", "base64"),
    ],
)
def test_only_text_and_json_travel_as_they_are(content_type: str, kind: str):
    assert sse.encoding(content_type) == kind


def control(event: bytes) -> dict[str, object]:
    assert event.startswith(b"event: control\ndata:{")
    [(_, data)] = received(event)
    parsed: dict[str, object] = json.loads(data)
    return parsed


def test_a_control_event_names_offset_and_cursor():
    assert control(sse.control_event(7, 42, False, False)) == {
        "streamNextOffset": offset_token(7).decode(),
        "streamCursor": "42",
    }


def test_a_control_event_at_the_tail_says_so():
    assert control(sse.control_event(7, 42, True, False))["upToDate"] is True


def test_a_control_event_at_the_close_has_no_cursor():
    assert control(sse.control_event(7, 42, True, True)) == {
        "streamNextOffset": offset_token(7).decode(),
        "upToDate": True,
        "streamClosed": True,
    }


def test_a_heartbeat_is_a_comment_that_no_client_sees():
    assert received(sse.HEARTBEAT) == []
