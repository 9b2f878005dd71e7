"""A chat backend with Flask. POST /chats/<id> starts an answer, which goes on without its client; viewers read it below
/v1/stream/<id>. Who may read and write there is the application's to say: see starlette_app.py.

gunicorn flask_app:app --bind 127.0.0.1:8000 --threads 100 --graceful-timeout 1

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/42?offset=-1&live=sse'

One process, and as many threads as there may be viewers at a time: each keeps one.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator

from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import durable_log
import durable_log.wsgi

store = durable_log.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data"))
atexit.register(store.close)
one_at_a_time = threading.Lock()

app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/v1/stream": durable_log.wsgi.app(store)})


def generate(prompt: str) -> Iterator[str]:
    """Stands for a model."""
    for word in f"You asked: {prompt} Because an answer should outlive its connection.".split(" "):
        time.sleep(0.01)
        yield word + " "


def answer(stream: durable_log.Stream, prompt: str) -> None:
    for token in generate(prompt):
        stream.append(token)
    stream.close()


@app.post("/chats/<name>")
def start(name: str) -> tuple[dict[str, str], int]:
    """One generation for each name: who asks again is sent to the answer that is there."""
    url = f"/v1/stream/{name}"
    with one_at_a_time:
        try:
            store.stream(name).info()
            return {"url": url}, 200
        except durable_log.StreamNotFound:
            stream = store.create(name, content_type="text/plain; charset=utf-8")
    threading.Thread(target=answer, args=(stream, request.get_data(as_text=True))).start()
    return {"url": url}, 201
