"""What servers of other makers import and serve: streams at /v1/stream, by a prefix or mounted below another app."""

from __future__ import annotations

import atexit
import os

from starlette.applications import Starlette
from starlette.routing import Mount

import durable_log
import durable_log.asgi

store = durable_log.open(os.environ["DURABLE_LOG_DATA"])
atexit.register(store.close)

alone = durable_log.asgi.app(store, prefix="/v1/stream", long_poll_seconds=0.5)
mounted = Starlette(routes=[Mount("/v1/stream", app=durable_log.asgi.app(store, long_poll_seconds=0.5))])
