"""A chat backend with FastAPI. POST /chats/<id> starts an answer, which goes on without its client; everybody reads it
at /v1/stream/chat/<id>, and nobody but this server writes there.

uvicorn fastapi_app:app --port 8000 --timeout-graceful-shutdown 1

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/chat/42?offset=-1&live=sse'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from types import FrameType

from fastapi import FastAPI, Request, Response

import durable_log.aio
import durable_log.asgi
from durable_log import StreamClosed, StreamExists, access

INTERRUPTED = "\n[the answer was interrupted]"
"""How an answer ends whose generation did not: its viewers end with it, too."""


async def generate(prompt: str) -> AsyncIterator[str]:
    """Stands for a model."""
    for word in f"You asked: {prompt} Because an answer should outlive its connection.".split(" "):
        await asyncio.sleep(0.01)
        yield word + " "


async def answer(stream: durable_log.aio.AsyncStream, prompt: str) -> None:
    """However the generation ends, the stream does: by the model's error and by the end of the server, too."""
    last_words = INTERRUPTED
    try:
        async for token in generate(prompt):
            if token:  # an empty append is refused
                await stream.append(token)
        last_words = ""
    finally:
        await stream.append(last_words, close=True)


async def close_unfinished(store: durable_log.aio.AsyncStore) -> None:
    """At start: of the answers, only those are open whose process was killed."""
    for name in await store.names("chat/"):
        with contextlib.suppress(StreamClosed):
            await store.stream(name).append(INTERRUPTED, close=True)


def authorize(request: access.Request) -> access.Allow | access.Deny:
    """Here is where an application says who may read what."""
    if request.action in ("read", "describe"):
        return access.Allow()
    return access.Deny(403, "streams are written by this server only")


def end_viewers_at_signals(streams: durable_log.asgi.App) -> None:
    """Viewers hear of the signal first: uvicorn waits for them before it ends the lifespan."""
    uvicorns_own = signal.getsignal(signal.SIGTERM)
    if not callable(uvicorns_own):  # as in tests without a server
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        streams.begin_shutdown()
        uvicorns_own(number, frame)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with durable_log.aio.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data")) as store:
        await close_unfinished(store)
        streams = durable_log.asgi.app(store, authorize=authorize)
        end_viewers_at_signals(streams)
        app.mount("/v1/stream", streams)
        app.state.store, app.state.tasks = store, set()
        yield
        for task in app.state.tasks:
            task.cancel()
        await asyncio.gather(*app.state.tasks, return_exceptions=True)
        app.routes.pop()  # the mount, whose store closes: another lifespan, as in tests, makes its own


app = FastAPI(lifespan=lifespan)


@app.post("/chats/{number}", status_code=201)
async def start(number: str, request: Request, response: Response) -> dict[str, str]:
    """One generation for each id: who asks again is sent to the answer that is there."""
    name, tasks = f"chat/{number}", app.state.tasks
    prompt = (await request.body()).decode()
    try:
        stream = await app.state.store.create(name, content_type="text/plain; charset=utf-8", exist_ok=False)
    except StreamExists:
        response.status_code = 200
    else:
        task = asyncio.create_task(answer(stream, prompt))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return {"url": f"/v1/stream/{name}"}
