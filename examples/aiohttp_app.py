"""A chat backend with aiohttp, which knows no ASGI: a handler of thirty lines translates. POST /chats/<id> starts an
answer, which goes on without its client; viewers read it at /v1/stream/chat/<id>.

python -m aiohttp.web aiohttp_app:main -H 127.0.0.1 -P 8000

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/chat/42?offset=-1&live=sse'
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

import durable_log.aio
import durable_log.asgi
from durable_log import InvalidData, StreamClosed, StreamExists

STORE = web.AppKey("store", durable_log.aio.AsyncStore)
STREAMS = web.AppKey("streams", durable_log.asgi.App)
TASKS = web.AppKey("tasks", set)

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
        with contextlib.suppress(StreamClosed, InvalidData):
            await store.stream(name).append(INTERRUPTED, close=True)


async def start(request: web.Request) -> web.Response:
    """One generation for each id: who asks again is sent to the answer that is there."""
    store, tasks, name = request.app[STORE], request.app[TASKS], f"chat/{request.match_info['id']}"
    prompt = await request.text()
    try:
        stream = await store.create(name, content_type="text/plain; charset=utf-8", exist_ok=False)
    except StreamExists:
        return web.json_response({"url": f"/v1/stream/{name}"})
    task = asyncio.create_task(answer(stream, prompt))
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return web.json_response({"url": f"/v1/stream/{name}"}, status=201)


async def serve(request: web.Request) -> web.StreamResponse:
    """One request in the terms of ASGI."""
    answered, more_body = web.StreamResponse(), True
    scope = {
        "type": "http",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": request.rel_url.raw_path.encode(),
        "query_string": request.rel_url.raw_query_string.encode(),
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
    }

    async def receive() -> dict[str, Any]:
        nonlocal more_body
        if not more_body:
            await asyncio.Event().wait()  # that a client left shows when something is sent to it
        body = await request.content.readany()
        more_body = not request.content.at_eof()
        return {"type": "http.request", "body": body, "more_body": more_body}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answered.set_status(message["status"])
            answered.headers.extend((name.decode(), value.decode()) for name, value in message["headers"])
            await answered.prepare(request)
        else:
            await answered.write(message["body"])

    await request.app[STREAMS](scope, receive, send)
    return answered


async def opened(app: web.Application) -> AsyncIterator[None]:
    async with durable_log.aio.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data")) as store:
        await close_unfinished(store)
        app[STORE], app[TASKS] = store, set()
        app[STREAMS] = durable_log.asgi.app(store, prefix="/v1/stream")
        yield
        for task in app[TASKS]:
            task.cancel()
        await asyncio.gather(*app[TASKS], return_exceptions=True)


async def end_viewers(app: web.Application) -> None:
    await app[STREAMS].shutdown()


def main(_arguments: list[str]) -> web.Application:
    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.on_shutdown.append(end_viewers)
    app.router.add_post("/chats/{id}", start)
    app.router.add_route("*", "/v1/stream/{name:.+}", serve)
    return app
