"""Catch-up reads: pages, tags, conditions and caches."""

from __future__ import annotations

import json

import httpx
import pytest
from serving import Served, serving, token

from durable_log.model import Options

PAGE = 1000


@pytest.fixture(scope="module")
def paged():
    with serving(options=Options(chunk_bytes_max=PAGE)) as running:
        yield running


def pages(served: Served, name: str) -> list[httpx.Response]:
    """All pages of a stream, by following the offsets."""
    found, offset = [], "-1"
    while True:
        page = served.http.get(f"/{name}", params={"offset": offset})
        assert page.status_code == 200
        found.append(page)
        offset = page.headers["stream-next-offset"]
        if "stream-up-to-date" in page.headers:
            return found


def test_a_large_stream_is_read_in_pages_and_only_the_last_is_up_to_date(paged: Served, name: str):
    data = bytes(range(256)) * 20
    paged.put(name, data, "application/octet-stream")
    found = pages(paged, name)
    assert [len(page.content) for page in found] == [PAGE] * 5 + [len(data) - 5 * PAGE]
    assert b"".join(page.content for page in found) == data


@pytest.mark.parametrize("pad", range(4))
def test_pages_of_text_end_with_whole_characters(paged: Served, name: str, pad: int):
    text = "x" * pad + "😀" * PAGE
    paged.put(name, text.encode())
    found = pages(paged, name)
    assert "".join(page.content.decode() for page in found) == text
    assert len(found) == (4 if pad == 0 else 5)


def test_pages_of_what_is_no_text_after_all_hold_every_byte(paged: Served, name: str):
    for data in (b"\x80" * 2 * PAGE + b"x", b"\xf0" * 2 * PAGE, bytes(range(256)) * 10):
        paged.put(name, data)
        assert b"".join(page.content for page in pages(paged, name)) == data
        paged.http.delete(f"/{name}")


@pytest.mark.parametrize("bytes_max", [4, 5])
def test_the_shortest_pages_hold_every_character(name: str, bytes_max: int):
    with serving(options=Options(chunk_bytes_max=bytes_max)) as running:
        running.put(name, "a😀ü".encode())
        assert b"".join(page.content for page in pages(running, name)) == "a😀ü".encode()


def test_only_the_page_at_the_tail_shows_the_close(paged: Served, name: str):
    paged.put(name, b"x" * (2 * PAGE + 1), stream_closed="true")
    assert [page.headers.get("stream-closed") for page in pages(paged, name)] == [None, None, "true"]


def test_a_page_that_ends_exactly_at_the_tail_is_the_last(paged: Served, name: str):
    paged.put(name, b"x" * (2 * PAGE))
    assert len(pages(paged, name)) == 2


def test_json_pages_are_whole_arrays_whatever_the_limit(paged: Served, name: str):
    messages = [{"n": n, "text": 'ü,[]{}"\\' * (n % 40)} for n in range(60)]
    paged.put(name, content_type="application/json")
    for at in range(0, 60, 7):
        paged.post(name, json.dumps(messages[at : at + 7]).encode(), "application/json")
    found = pages(paged, name)
    assert len(found) > 5
    assert [message for page in found for message in page.json()] == messages


def test_a_message_longer_than_a_page_is_a_page(paged: Served, name: str):
    long = ["x" * (3 * PAGE)]
    paged.put(name, content_type="application/json")
    for message in (1, long, 2):
        paged.post(name, json.dumps([message]).encode(), "application/json")
    assert [message for page in pages(paged, name) for message in page.json()] == [1, long, 2]


def test_json_is_read_from_message_boundaries_only(served: Served, name: str):
    served.put(name, b"[11,22]", "application/json")
    assert served.http.get(f"/{name}?offset={token(3)}").json() == [22]
    assert served.http.get(f"/{name}?offset={token(1)}").status_code == 400


def test_the_tail_is_empty_and_says_what_comes_next(served: Served, name: str):
    served.put(name, b"abc")
    response = served.http.get(f"/{name}?offset={token(3)}")
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["stream-next-offset"] == token(3)
    assert response.headers["stream-up-to-date"] == "true"
    assert "public" not in response.headers["cache-control"]


def test_an_empty_stream_has_an_offset_of_its_own(served: Served, name: str):
    served.put(name)
    for offset in ("-1", "now"):
        assert served.http.get(f"/{name}?offset={offset}").headers["stream-next-offset"] == token(0)


def test_reading_from_now_shows_nothing_and_is_not_stored(served: Served, name: str):
    served.put(name, b'"old"', "application/json")
    response = served.http.get(f"/{name}?offset=now", headers={"if-none-match": "*"})
    assert (response.status_code, response.content) == (200, b"[]")
    assert response.headers["stream-next-offset"] == token(6)
    assert response.headers["stream-up-to-date"] == "true"
    assert response.headers["cache-control"] == "no-store"
    assert "etag" not in response.headers


def test_catch_up_needs_no_cursor(served: Served, name: str):
    served.put(name, b"abc")
    assert "stream-cursor" not in served.http.get(f"/{name}").headers


# Tags


def tag(served: Served, name: str, offset: str = "-1") -> str:
    return served.http.get(f"/{name}?offset={offset}").headers["etag"]


def test_a_tag_differs_by_start(served: Served, name: str):
    served.put(name, b"abc")
    tags = {tag(served, name, offset) for offset in ("-1", token(0), token(1), token(2), token(3))}
    assert len(tags) == 4


def test_a_tag_changes_with_the_close_so_that_no_304_hides_it(served: Served, name: str):
    served.put(name, b"abc")
    before = {offset: tag(served, name, offset) for offset in ("-1", token(3))}
    served.close(name)
    for offset, old in before.items():
        response = served.http.get(f"/{name}?offset={offset}", headers={"if-none-match": old})
        assert (response.status_code, response.headers["stream-closed"]) == (200, "true")
        assert response.headers["etag"] != old


def test_a_tag_changes_when_the_page_is_no_longer_the_last(paged: Served, name: str):
    """Caches keep the headers of what they have, and a reader who believes to be up to date stops there."""
    paged.put(name, b"x" * PAGE)
    last = paged.http.get(f"/{name}?offset=-1")
    assert last.headers["stream-up-to-date"] == "true"
    paged.post(name, b"more")
    response = paged.http.get(f"/{name}?offset=-1", headers={"if-none-match": last.headers["etag"]})
    assert (response.status_code, len(response.content)) == (200, PAGE)
    assert "stream-up-to-date" not in response.headers


def test_a_tag_is_of_one_life_of_the_name(served: Served, name: str):
    served.put(name, b"abc")
    old = tag(served, name)
    served.http.delete(f"/{name}")
    served.put(name, b"xyz")
    assert served.http.get(f"/{name}", headers={"if-none-match": old}).content == b"xyz"


@pytest.mark.parametrize("condition", ["{}", "W/{}", '"a", {}', '"a",W/{} , "b"', "*"])
def test_a_page_that_the_client_has_is_not_sent_again(served: Served, name: str, condition: str):
    served.put(name, b"abc")
    current = tag(served, name)
    response = served.http.get(f"/{name}", headers={"if-none-match": condition.format(current)})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == current
    assert "content-length" not in response.headers


def test_conditions_in_two_headers_are_one_list(served: Served, name: str):
    served.put(name, b"abc")
    conditions = [("if-none-match", '"a"'), ("if-none-match", tag(served, name))]
    assert served.http.get(f"/{name}", headers=conditions).status_code == 304


@pytest.mark.parametrize("condition", ['"a"', '"a", "b"', "", "nonsense", '"', "W/"])
def test_other_conditions_get_the_page(served: Served, name: str, condition: str):
    served.put(name, b"abc")
    assert served.http.get(f"/{name}", headers={"if-none-match": condition}).content == b"abc"


def test_data_is_for_shared_caches_only_if_the_operator_says_so(served: Served, name: str):
    served.put(name, b"abc")
    assert served.http.get(f"/{name}").headers["cache-control"].startswith("public, max-age=60")
    with serving() as careful:
        careful.put(name, b"abc")
        assert careful.http.get(f"/{name}").headers["cache-control"].startswith("private, max-age=60")
