"""A chat backend. POST /chats/<id> starts an answer, which goes on without its client; everybody reads it below
/v1/stream/<id>, and nobody but this server writes there. FastAPI takes the same code, as it is a Starlette.

uvicorn starlette_app:app --app-dir examples --timeout-graceful-shutdown 1

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/42?offset=-1&live=sse'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import durable_log.aio
import durable_log.asgi
from durable_log import StreamNotFound, access


async def generate(prompt: str) -> AsyncIterator[str]:
    """Stands for a model."""
    for word in f"You asked: {prompt} Because an answer should outlive its connection.".split(" "):
        await asyncio.sleep(0.01)
        yield word + " "


async def answer(stream: durable_log.aio.AsyncStream, prompt: str) -> None:
    async for token in generate(prompt):
        await stream.append(token)
    await stream.close()


async def start(request: Request) -> JSONResponse:
    """One generation for each id: who asks again is sent to the answer that is there."""
    store: durable_log.aio.AsyncStore = request.app.state.store
    name = request.path_params["id"]
    prompt = (await request.body()).decode()
    url = f"/v1/stream/{name}"
    try:
        await store.stream(name).info()
    except StreamNotFound:
        stream = await store.create(name, content_type="text/plain; charset=utf-8")
        tasks: set[asyncio.Task[None]] = request.app.state.tasks
        task = asyncio.create_task(answer(stream, prompt))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return JSONResponse({"url": url}, 201, {"Location": url})
    return JSONResponse({"url": url}, 200)


def authorize(request: access.Request) -> access.Allow | access.Deny:
    """Here is where an application says who may read what."""
    if request.action in ("read", "describe"):
        return access.Allow()
    return access.Deny(403, "streams are written by this server only")


@contextlib.asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    async with durable_log.aio.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data")) as store:
        app.state.store, app.state.tasks = store, set()
        app.mount("/v1/stream", durable_log.asgi.app(store, authorize=authorize))
        yield


app = Starlette(routes=[Route("/chats/{id}", start, methods=["POST"])], lifespan=lifespan)
