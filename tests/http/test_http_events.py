"""Event streams: what arrives, with which offsets, and when it ends."""

from __future__ import annotations

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import Served, serving, token

from durable_log.model import Options


def test_history_then_what_is_written_then_the_close(patient: Served, name: str):
    patient.put(name, b"one ")
    with patient.events(name) as viewer:
        assert viewer.pair()[0] == "one "
        patient.post(name, b"two ")
        data, control = viewer.pair()
        assert (data, control["streamNextOffset"], control["upToDate"]) == ("two ", token(8), True)
        patient.post(name, b"three", stream_closed="true")
        data, control = viewer.pair()
        assert data == "three"
        assert control == {"streamNextOffset": token(13), "upToDate": True, "streamClosed": True}
        assert viewer.event() is None


def test_an_event_stream_has_the_headers_that_proxies_need(patient: Served, name: str):
    patient.put(name)
    with patient.events(name) as viewer:
        headers = viewer.response.headers
        assert headers["content-type"] == "text/event-stream"
        assert "no-cache" in headers["cache-control"]
        assert headers["x-accel-buffering"] == "no"
        assert headers["x-content-type-options"] == "nosniff"
        assert "content-length" not in headers


def test_an_empty_tail_is_announced_with_its_real_offset(patient: Served, name: str):
    patient.put(name)
    for offset in ("-1", "now", token(0)):
        with patient.events(name, offset) as viewer:
            control = viewer.control()
            assert (control["streamNextOffset"], control["upToDate"]) == (token(0), True)


def test_from_now_on_there_is_no_history(patient: Served, name: str):
    patient.put(name, b'["old"]', "application/json")
    with patient.events(name, "now") as viewer:
        assert viewer.control()["streamNextOffset"] == token(6)
        patient.post(name, b'["new"]', "application/json")
        assert json.loads(viewer.pair()[0]) == ["new"]


def test_a_closed_tail_is_one_control_event_and_the_end(patient: Served, name: str):
    patient.put(name, b"abc", stream_closed="true")
    for offset in ("now", token(3)):
        with patient.events(name, offset) as viewer:
            assert viewer.control() == {"streamNextOffset": token(3), "upToDate": True, "streamClosed": True}
            assert viewer.event() is None


def test_binary_streams_are_base64_event_by_event(patient: Served, name: str):
    parts = [b"\x00\xff", b"\r\n\n", b"abcd"]
    patient.put(name, content_type="application/octet-stream")
    with patient.events(name) as viewer:
        assert viewer.response.headers["stream-sse-data-encoding"] == "base64"
        viewer.control()
        for part in parts:
            patient.post(name, part, "application/octet-stream")
            assert base64.b64decode(viewer.pair()[0], validate=True) == part


def test_a_character_split_over_two_appends_arrives_whole(patient: Served, name: str):
    smile = "😀".encode()
    patient.put(name, b"a" + smile[:2])
    with patient.events(name) as viewer:
        data, control = viewer.pair()
        assert (data, control["streamNextOffset"]) == ("a", token(1))
        patient.post(name, smile[2:] + b"b")
        data, control = viewer.pair()
        assert (data, control["streamNextOffset"]) == ("😀b", token(6))


def test_an_emoji_split_over_two_json_messages_travels_as_it_was_written(patient: Served, name: str):
    patient.put(name, content_type="application/json")
    with patient.events(name) as viewer:
        viewer.control()
        for half in (r'"\ud83d"', r'"\ude00"'):
            patient.post(name, half.encode(), "application/json")
            assert viewer.pair()[0] == f"[{half}]"


def test_a_viewer_that_resumes_within_a_split_character_loses_nothing(patient: Served, name: str):
    smile = "😀".encode()
    patient.put(name, b"a" + smile[:3])
    with patient.events(name) as viewer:
        resume = viewer.pair()[1]["streamNextOffset"]
    patient.post(name, smile[3:])
    with patient.events(name, resume) as viewer:
        assert viewer.pair()[0] == "😀"


def test_a_carriage_return_and_its_line_feed_in_two_appends_are_one_line_end(patient: Served, name: str):
    patient.put(name, b"a\r")
    with patient.events(name) as viewer:
        text = viewer.pair()[0]
        patient.post(name, b"\nb", stream_closed="true")
        assert text + viewer.pair()[0] == "a\nb"


def test_half_a_character_at_the_close_is_shown_as_damaged(patient: Served, name: str):
    patient.put(name, b"\xf0\x9f")
    with patient.events(name) as viewer:
        assert viewer.control()["streamNextOffset"] == token(0)
        patient.close(name)
        data, control = viewer.pair()
        assert (data, control["streamNextOffset"], control["streamClosed"]) == ("�", token(2), True)


def test_a_viewer_waits_quietly_while_half_a_character_is_held_back(name: str):
    with serving(heartbeat_seconds=0.02) as running:
        running.put(name, b"\xf0\x9f")
        with running.events(name) as viewer:
            viewer.control()
            assert [viewer.block() for _ in range(3)] == [[":"]] * 3


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_text_cannot_forge_events(patient: Served, name: str, end: str):
    attack = end.join(["x", "", "event: control", 'data:{"streamClosed":true}', "", " y"])
    patient.put(name, attack.encode())
    with patient.events(name) as viewer:
        data, control = viewer.pair()
    assert data == attack.replace(end, "\n")
    assert "streamClosed" not in control


def test_a_large_stream_comes_in_many_events_each_with_its_offset(name: str):
    text = "".join(f"{n} ünïcödé 😀\r\n" for n in range(400))
    with serving(options=Options(chunk_bytes_max=997)) as running:
        running.put(name, text.encode(), stream_closed="true")
        seen, controls = "", []
        with running.events(name) as viewer:
            while event := viewer.event():
                if event.name == "data":
                    seen += event.data
                else:
                    controls.append(event.control)
    assert seen == text.replace("\r\n", "\n")
    offsets = [control["streamNextOffset"] for control in controls]
    assert offsets == sorted(set(offsets))
    assert [("upToDate" in control, "streamClosed" in control) for control in controls[:-1]] == [(False, False)] * (
        len(controls) - 1
    )
    assert controls[-1]["streamClosed"] is True


@pytest.mark.parametrize("bytes_max", [4, 5])
def test_the_smallest_chunks_still_carry_every_character(name: str, bytes_max: int):
    with serving(options=Options(chunk_bytes_max=bytes_max)) as running:
        running.put(name, "a😀\r\nü".encode(), stream_closed="true")
        seen = ""
        with running.events(name) as viewer:
            while event := viewer.event():
                seen += event.data if event.name == "data" else ""
    assert seen == "a😀\nü"


def test_an_event_stream_ends_after_its_time_and_the_next_moves_the_cursor(name: str):
    with serving(sse_seconds=0.2) as running:
        running.put(name, b"abc")
        with running.events(name) as viewer:
            control = viewer.pair()[1]
            assert viewer.event() is None
        with running.events(name, control["streamNextOffset"], cursor=control["streamCursor"]) as viewer:
            assert int(viewer.control()["streamCursor"]) > int(control["streamCursor"])


def test_an_event_stream_ends_after_its_time_even_when_data_never_stops(name: str):
    with serving(sse_seconds=0.3) as running:
        running.put(name)
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                running.post(name, b"x")

        with ThreadPoolExecutor() as pool:
            writing = pool.submit(write)
            with running.events(name) as viewer:
                while viewer.event() is not None:
                    pass
            stop.set()
            writing.result()


def test_an_event_stream_ends_after_its_time_even_when_there_is_more_history(name: str):
    with serving(sse_seconds=0.05, options=Options(chunk_bytes_max=16)) as running:
        running.put(name, b"x" * 2**21)
        with running.events(name) as viewer:
            controls = []
            while event := viewer.event():
                controls += [event.control] if event.name == "control" else []
    assert "upToDate" not in controls[-1]
    assert controls[-1]["streamNextOffset"] < token(2**21)


def test_an_idle_event_stream_beats(name: str):
    with serving(heartbeat_seconds=0.02) as running:
        running.put(name)
        with running.events(name) as viewer:
            viewer.control()
            for _ in range(3):
                viewer.heartbeat()


def test_a_delete_ends_an_event_stream(patient: Served, name: str):
    patient.put(name, b"abc")
    with patient.events(name) as viewer:
        viewer.pair()
        patient.http.delete(f"/{name}")
        assert viewer.event() is None


def test_a_viewer_never_sees_the_next_life_of_a_name(patient: Served, name: str):
    patient.put(name, b"old")
    with patient.events(name) as viewer:
        viewer.pair()
        patient.http.delete(f"/{name}")
        patient.put(name, b"new and longer than before")
        assert viewer.event() is None


@pytest.mark.parametrize("live", ["sse", "long-poll"])
@pytest.mark.parametrize("offset", ["-1", "now", token(0)])
def test_a_live_read_of_nothing_is_not_found(patient: Served, name: str, live: str, offset: str):
    assert patient.http.get(f"/{name}?offset={offset}&live={live}").status_code == 404
