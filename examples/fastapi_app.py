"""A chat backend with FastAPI. POST /chats/<id> starts an answer, which goes on without its client; viewers read it
below /v1/stream/<id>. Who may read and write there is the application's to say: see starlette_app.py.

uvicorn fastapi_app:app --port 8000 --timeout-graceful-shutdown 1

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/42?offset=-1&live=sse'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response

import durable_log.aio
import durable_log.asgi
from durable_log import StreamNotFound


async def generate(prompt: str) -> AsyncIterator[str]:
    """Stands for a model."""
    for word in f"You asked: {prompt} Because an answer should outlive its connection.".split(" "):
        await asyncio.sleep(0.01)
        yield word + " "


async def answer(stream: durable_log.aio.AsyncStream, prompt: str) -> None:
    async for token in generate(prompt):
        await stream.append(token)
    await stream.close()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with durable_log.aio.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data")) as store:
        app.state.store, app.state.tasks = store, set()
        app.mount("/v1/stream", durable_log.asgi.app(store))
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/chats/{name}", status_code=201)
async def start(name: str, request: Request, response: Response) -> dict[str, str]:
    """One generation for each name: who asks again is sent to the answer that is there."""
    store, tasks = app.state.store, app.state.tasks
    prompt = (await request.body()).decode()
    try:
        await store.stream(name).info()
        response.status_code = 200
    except StreamNotFound:
        stream = await store.create(name, content_type="text/plain; charset=utf-8")
        task = asyncio.create_task(answer(stream, prompt))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    return {"url": f"/v1/stream/{name}"}
