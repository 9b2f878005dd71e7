"""One producer and three viewers on one event loop: from the start, from now on, and the whole once it is over.

python examples/async_viewers.py
"""

from __future__ import annotations

import asyncio

import durable_log
import durable_log.aio

IDEAS = [{"idea": number, "text": f"idea number {number}"} for number in range(10)]


async def produce(stream: durable_log.aio.AsyncStream) -> None:
    try:
        for idea in IDEAS:
            await stream.append_json(idea)
            await asyncio.sleep(0.01)
    finally:
        await stream.close()  # or who watches waits for ever


async def watch(stream: durable_log.aio.AsyncStream, name: str, offset: int) -> list[int]:
    """The ideas that arrive from ``offset`` on; ends when the stream is closed."""
    seen = []
    async for chunk in stream.follow(offset):
        seen += [idea["idea"] for idea in chunk.items]
        print(f"{name}: {seen}")
    return seen


async def main() -> None:
    async with durable_log.aio.open(":memory:") as store:
        stream = await store.create("team/brainstorm", content_type="application/json")
        first = asyncio.create_task(watch(stream, "from the start", durable_log.START))
        producer = asyncio.create_task(produce(stream))
        await stream.wait(100)  # until there is something beyond byte 100
        late = asyncio.create_task(watch(stream, "from now on", durable_log.NOW))
        await producer

        everything = await first
        assert everything == [idea["idea"] for idea in IDEAS]
        assert everything[-len(await late) :] == await late
        assert (await stream.read()).items == IDEAS


if __name__ == "__main__":
    asyncio.run(main())
