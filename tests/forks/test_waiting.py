"""Waiting for a stream in asyncio: how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durable_log import aio
from durable_log.errors import StreamGone
from durable_log.model import Append, Delete

PATIENCE_SECONDS = 10.0


def run(test: Callable[[aio.AsyncStore, aio.AsyncStream], Awaitable[None]]) -> None:
    async def main() -> None:
        async with aio.open(":memory:") as store:
            await test(store, await store.create("s", content_type="text/plain"))
            assert store.stats()["watched_streams"] == 0

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [PATIENCE_SECONDS, None])
def test_a_wait_ends_with_what_it_waited_for(timeout: float | None):
    async def test(_store: aio.AsyncStore, stream: aio.AsyncStream) -> None:
        waiting = asyncio.ensure_future(stream.wait(0, timeout))
        await asyncio.sleep(0)
        await stream.append("x")
        assert await waiting
        assert await stream.wait(0, 0)

    run(test)


@pytest.mark.parametrize("timeout", [0.01, 0, -1])
def test_a_wait_ends_with_its_time(timeout: float):
    async def test(_store: aio.AsyncStore, stream: aio.AsyncStream) -> None:
        assert not await stream.wait(0, timeout)

    run(test)


def test_a_wait_ends_with_its_stream():
    async def test(store: aio.AsyncStore, stream: aio.AsyncStream) -> None:
        waiting = asyncio.ensure_future(stream.wait(0, PATIENCE_SECONDS))
        await asyncio.sleep(0)
        store.engine.execute(Delete("s"))
        with pytest.raises(StreamGone):
            await waiting

    run(test)


@pytest.mark.parametrize("timeout", [PATIENCE_SECONDS, None])
def test_a_cancellation_that_meets_the_result_is_not_forgotten(timeout: float | None):
    async def test(store: aio.AsyncStore, stream: aio.AsyncStream) -> None:
        waiting = asyncio.ensure_future(stream.wait(0, timeout))
        await asyncio.sleep(0)
        store.engine.execute(Append("s", b"x"))
        # The result has been handed to the loop; it arrives just before the cancellation does.
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run(test)
