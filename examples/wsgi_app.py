"""A chat backend without a framework: what WSGI has is enough. POST /chats/<id> starts an answer, which goes on without
its client; viewers read it below /v1/stream/<id>. Who may read and write there is the application's to say.

gunicorn wsgi_app:application --bind 127.0.0.1:8000 --threads 100 --graceful-timeout 1

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/42?offset=-1&live=sse'
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import durable_log
import durable_log.wsgi

store = durable_log.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data"))
atexit.register(store.close)
streams = durable_log.wsgi.app(store, prefix="/v1/stream")
one_at_a_time = threading.Lock()


def generate(prompt: str) -> Iterator[str]:
    """Stands for a model."""
    for word in f"You asked: {prompt} Because an answer should outlive its connection.".split(" "):
        time.sleep(0.01)
        yield word + " "


def answer(stream: durable_log.Stream, prompt: str) -> None:
    for token in generate(prompt):
        stream.append(token)
    stream.close()


def start(name: str, prompt: str) -> str:
    """One generation for each name: who asks again is sent to the answer that is there."""
    with one_at_a_time:
        try:
            store.stream(name).info()
            return "200 OK"
        except durable_log.StreamNotFound:
            stream = store.create(name, content_type="text/plain; charset=utf-8")
    threading.Thread(target=answer, args=(stream, prompt)).start()
    return "201 Created"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    room, _, name = environ["PATH_INFO"].removeprefix("/").partition("/")
    if room != "chats" or environ["REQUEST_METHOD"] != "POST":
        return streams(environ, start_response)
    prompt = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
    start_response(start(name, prompt), [("Content-Type", "text/plain")])
    return [f"/v1/stream/{name}\n".encode()]
