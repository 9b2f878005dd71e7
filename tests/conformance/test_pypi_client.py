"""The client of PyPI, ``durable-streams``, unmodified, sync and async.

Iterating over a *closed* stream by long-poll never ends in its version 0.1.0, and it knows no closing: its viewers here
stop by themselves once they have seen what was written last.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import takewhile
from typing import Any

import httpx
import pytest
from durable_streams import AsyncDurableStream, DurableStream, astream, stream
from durable_streams import _errors as errors
from front_ends import running

TOKENS = ["Once ", "upon ", "a ", "time", ",\n", "ünïcödé 😀 ", "\n\nand: ", "the ", "end."]
IDEAS: list[Any] = [{"idea": 1}, {"idea": "zwei\r\n"}, None, [3, [4]], 5.5]
LIVE = ["long-poll", "sse"]
LAST = "."


@pytest.fixture(scope="module", params=["durable-log serve", "gunicorn with threads, WSGI"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(request.param, tmp_path_factory.mktemp("served")) as server:
        yield f"{server.url}/v1/stream/pypi-client"


@pytest.fixture
def url(root: str, request: pytest.FixtureRequest) -> str:
    return f"{root}/{request.node.name.partition('[')[0]}/{id(request.node)}"


@contextmanager
def created(url: str, content_type: str = "text/plain", **options: Any) -> Iterator[DurableStream]:
    with closing(DurableStream.create(url, content_type=content_type, **options)) as made:
        yield made


def write(url: str, parts: list[Any], content_type: str = "text/plain") -> None:
    with created(url, content_type) as made:
        for part in parts:
            made.append(part)


def until_the_last(texts: Iterator[str]) -> str:
    seen = ""
    for text in texts:
        seen += text
        if seen.endswith(LAST):
            break
    return seen


def test_a_stream_is_created_described_and_deleted(url: str):
    with created(url, ttl_seconds=3600, body="abc") as made:
        head = made.head()
        assert (head.content_type, head.offset) == ("text/plain", f"{0:016}_{3:016}")
        with closing(DurableStream.connect(url)) as found:
            assert found.content_type == "text/plain"
        with pytest.raises(errors.StreamExistsError), created(url, "application/json"):
            pass
        made.delete()
        with pytest.raises(errors.StreamNotFoundError):
            made.head()
    with pytest.raises(errors.StreamNotFoundError):
        stream(url, live=False)


def test_what_is_written_reads_back_as_text_bytes_and_json(url: str):
    text, binary, ideas = (f"{url}/{kind}" for kind in ("text", "binary", "json"))
    write(text, TOKENS)
    with stream(text, live=False) as response:
        assert response.read_text() == "".join(TOKENS)
        assert response.up_to_date
    write(binary, [bytes(range(256)), b"\r\n"], "application/octet-stream")
    with stream(binary, live=False) as response:
        assert response.read_bytes() == bytes(range(256)) + b"\r\n"
    write(ideas, IDEAS, "application/json")
    with stream(ideas, live=False) as response:
        assert response.read_json() == IDEAS


def test_a_viewer_resumes_from_every_offset(url: str):
    with created(url) as made:
        offsets = [made.append(token).next_offset for token in TOKENS]
    for number, offset in enumerate(offsets, 1):
        with stream(url, offset=offset, live=False) as response:
            assert response.read_text() == "".join(TOKENS[number:])


@pytest.mark.parametrize("live", LIVE)
def test_text_is_followed_while_it_is_written(url: str, live: Any):
    write(url, TOKENS[:4])
    with (
        ThreadPoolExecutor() as pool,
        stream(url, offset="-1", live=live) as first,
        stream(url, offset="now", live="sse") as late,
    ):
        everything, rest = (pool.submit(until_the_last, viewer.iter_text()) for viewer in (first, late))
        with closing(DurableStream(url, content_type="text/plain")) as made:
            for token in TOKENS[4:]:
                made.append(token)
        assert everything.result() == "".join(TOKENS)
        assert rest.result() == "".join(TOKENS[4:])


@pytest.mark.parametrize("live", LIVE)
def test_json_is_followed_while_it_is_written(url: str, live: Any):
    with (
        created(url, "application/json") as made,
        ThreadPoolExecutor() as pool,
        stream(url, offset="-1", live=live) as response,
    ):
        items = pool.submit(lambda: list(takewhile(lambda idea: idea != "end", response.iter_json())))
        for idea in [*IDEAS, "end"]:
            made.append(idea)
        assert items.result() == IDEAS


def test_events_tell_the_offset_to_resume_from(url: str):
    write(url, IDEAS, "application/json")
    with stream(url, live=False) as response:
        events = list(response.iter_events("json_batches"))
    assert [idea for event in events for idea in event.data] == IDEAS
    assert (events[-1].next_offset, events[-1].up_to_date) == (DurableStream.head_static(url).offset, True)


def test_a_closed_stream_is_read_to_its_end_by_events(url: str):
    write(url, TOKENS)
    httpx.post(url, headers={"Stream-Closed": "true"}).raise_for_status()
    with stream(url, offset="-1", live="sse") as response:
        assert until_the_last(response.iter_text()) == "".join(TOKENS)


def test_a_sequence_that_does_not_grow_is_a_conflict(url: str):
    with created(url, batching=False) as made:
        made.append("a", seq="2")
        with pytest.raises(errors.SeqConflictError):
            made.append("b", seq="10")


@pytest.mark.parametrize("offset", ["nonsense", "1,2", f"{0:016}_{9:016}"])
def test_an_offset_that_no_server_gave_is_refused(url: str, offset: str):
    write(url, ["abc"])
    with pytest.raises(errors.DurableStreamError) as caught:
        stream(url, offset=offset, live=False)
    assert caught.value.status == 400


@pytest.mark.parametrize("live", LIVE)
def test_asyncio_writes_at_once_and_follows(url: str, live: Any):
    async def follow() -> list[int]:
        async with astream(url, offset="-1", live=live) as response:
            seen: list[int] = []
            async for number in response.iter_json():
                seen.append(number)
                if len(seen) == 100:
                    break
            return seen

    async def main() -> None:
        made = await AsyncDurableStream.create(url, content_type="application/json")
        following = asyncio.create_task(follow())
        await asyncio.gather(*(made.append(number) for number in range(100)))
        assert await asyncio.wait_for(following, 20) == list(range(100))
        await made.aclose()

    asyncio.run(main())
    assert json.loads(httpx.get(url).content) == list(range(100))
