"""A chat backend with Django, in one file. POST /chats/<id> starts an answer, which goes on without its client; viewers
read it below /v1/stream/<id>. Who may read and write there is the application's to say: see starlette_app.py.

gunicorn django_app:application --bind 127.0.0.1:8000 --threads 100 --graceful-timeout 1

    curl -X POST http://127.0.0.1:8000/chats/42 -d 'Why streams?'
    curl -N 'http://127.0.0.1:8000/v1/stream/42?offset=-1&live=sse'

One process, and as many threads as there may be viewers at a time: each keeps one.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import durable_log
import durable_log.wsgi

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY=os.urandom(32).hex())

store = durable_log.open(os.environ.get("DURABLE_LOG_DATA", "durable-log-data"))
atexit.register(store.close)
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


@csrf_exempt
@require_POST
def start(request: HttpRequest, name: str) -> JsonResponse:
    """One generation for each name: who asks again is sent to the answer that is there."""
    url = f"/v1/stream/{name}"
    with one_at_a_time:
        try:
            store.stream(name).info()
            return JsonResponse({"url": url})
        except durable_log.StreamNotFound:
            stream = store.create(name, content_type="text/plain; charset=utf-8")
    threading.Thread(target=answer, args=(stream, request.body.decode())).start()
    return JsonResponse({"url": url}, status=201)


urlpatterns = [path("chats/<str:name>", start)]
pages = get_wsgi_application()
streams = durable_log.wsgi.app(store, prefix="/v1/stream")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Streams beside Django, so that none of its middleware holds events back."""
    below = environ["PATH_INFO"].startswith("/v1/stream/")
    return (streams if below else pages)(environ, start_response)
