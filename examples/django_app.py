"""A chat backend with Django, in one file. POST /chats/<id> starts an answer, which goes on without its client;
everybody reads it at /v1/stream/chat/<id>, and nobody but this server writes there.

gunicorn django_app:application --bind 127.0.0.1:8000 --threads 100 --graceful-timeout 5

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
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import durable_log
import durable_log.wsgi
from durable_log import StreamClosed, StreamExists, access

INTERRUPTED = "\n[the answer was interrupted]"
"""How an answer ends whose generation did not: its viewers end with it, too."""

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(32).hex())


def authorize(request: access.Request) -> access.Allow | access.Deny:
    """Here is where an application says who may read what."""
    if request.action in ("read", "describe"):
        return access.Allow()
    return access.Deny(403, "streams are written by this server only")


store = durable_log.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data"))
atexit.register(store.close)
streams = durable_log.wsgi.app(store, authorize=authorize, prefix="/v1/stream")
stopping = threading.Event()

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


@csrf_exempt
@require_POST
def start(request: HttpRequest, number: str) -> JsonResponse:
    """One generation for each id: who asks again is sent to the answer that is there."""
    name = f"chat/{number}"
    url, prompt = f"/v1/stream/{name}", request.body.decode()
    try:
        stream = store.create(name, content_type="text/plain; charset=utf-8", exist_ok=False)
    except StreamExists:
        return JsonResponse({"url": url})
    threading.Thread(target=answer, args=(stream, prompt)).start()
    return JsonResponse({"url": url}, status=201)


urlpatterns = [path("chats/<str:number>", start)]
pages = get_wsgi_application()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Streams beside Django, so that none of its middleware holds events back."""
    below = environ["PATH_INFO"].startswith("/v1/stream/")
    return (streams if below else pages)(environ, start_response)
