"""What servers of other makers import and serve: streams at /v1/stream, by a prefix or mounted below another app; and
at /live how many live responses there are.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import durable_log
import durable_log.asgi
import durable_log.wsgi

store = durable_log.open(os.environ["DURABLE_LOG_DATA"])
atexit.register(store.close)

SETTINGS: dict[str, Any] = {
    "long_poll_seconds": 0.5,
    "stall_seconds": 1.0,
    "subscriptions": durable_log.asgi.Subscriptions(webhook_development=True),
}
bare = durable_log.asgi.app(store, prefix="/v1/stream", **SETTINGS)
inner = durable_log.asgi.app(store, **SETTINGS)


async def alone(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http" and scope["path"] == "/live":
        await PlainTextResponse(str(bare.live_responses))(scope, receive, send)
    else:
        await bare(scope, receive, send)


async def live(_request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(inner.live_responses))


mounted = Starlette(routes=[Route("/live", live), Mount("/v1/stream", app=inner)])

threaded = durable_log.wsgi.app(store, prefix="/v1/stream", long_poll_seconds=0.5)
