"""A chat backend with Flask. POST /chats/<id> starts an answer, which goes on without its client; everybody reads it
at /v1/stream/chat/<id>, and nobody but this server writes there.

gunicorn flask_app:app --bind 127.0.0.1:8000 --threads 100 --graceful-timeout 5

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/chat/42?offset=-1&live=sse'

One process, and as many threads as there may be viewers at a time: each keeps one.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from flask import Flask, request
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import durable_log
import durable_log.wsgi
from durable_log import StreamClosed, StreamExists, access

INTERRUPTED = "\n[the answer was interrupted]"
"""How an answer ends whose generation did not: its viewers end with it, too."""


def authorize(request: access.Request) -> access.Allow | access.Deny:
    """Here is where an application says who may read what."""
    if request.action in ("read", "describe"):
        return access.Allow()
    return access.Deny(403, "streams are written by this server only")


store = durable_log.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data"))
atexit.register(store.close)
streams = durable_log.wsgi.app(store, authorize=authorize)
stopping = threading.Event()

app = Flask(__name__)
app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/v1/stream": streams})

for left in store.names("chat/"):  # at start, of the answers only those are open whose process was killed
    with contextlib.suppress(StreamClosed):
        store.stream(left).append(INTERRUPTED, close=True)


def end_in_order_at_a_signal() -> None:
    """Viewers and answers hear of the signal first: gunicorn waits for requests, and Python for threads."""
    gunicorns_own = signal.getsignal(signal.SIGTERM)
    if not callable(gunicorns_own):  # as in tests without a server
        return

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopping.set()
        streams.begin_shutdown()
        gunicorns_own(number, frame)

    signal.signal(signal.SIGTERM, on_signal)


end_in_order_at_a_signal()


def generate(prompt: str) -> Iterator[str]:
    """Stands for a model."""
    for word in f"You asked: {prompt} Because an answer should outlive its connection.".split(" "):
        time.sleep(0.01)
        yield word + " "


def answer(stream: durable_log.Stream, prompt: str) -> None:
    """However the generation ends, the stream does: by the model's error and by the end of the server, too."""
    last_words = INTERRUPTED
    try:
        for token in generate(prompt):
            if stopping.is_set():
                return
            if token:  # an empty append is refused
                stream.append(token)
        last_words = ""
    finally:
        stream.append(last_words, close=True)


@app.post("/chats/<number>")
def start(number: str) -> tuple[dict[str, str], int]:
    """One generation for each id: who asks again is sent to the answer that is there."""
    name = f"chat/{number}"
    url, prompt = f"/v1/stream/{name}", request.get_data(as_text=True)
    try:
        stream = store.create(name, content_type="text/plain; charset=utf-8", exist_ok=False)
    except StreamExists:
        return {"url": url}, 200
    threading.Thread(target=answer, args=(stream, prompt)).start()
    return {"url": url}, 201
