"""Asks a hook from the threads of a WSGI server.

Law of this room: what is asked, and what answers become, is ``authorize``'s to say. A hook is called on the thread of
the request, so it may wait there, and use what belongs to that thread. What it returns to be awaited is awaited on one
event loop on a thread of its own, which all requests share, as asynchronous hooks keep tasks from one request to the
next. That thread begins when it is needed first, and is a daemon, as nobody tells a WSGI application of its end.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Mapping
from typing import Any

from durable_log._http.authorize import allowed, failed, query_of, questions, shorter
from durable_log.access.hook import Allow, Authorize, Deny, Headers, Request, checked
from durable_log.protocol.request import Parsed


class BlockingGate:
    """The hook of one application on threads, or that there is none."""

    def __init__(self, hook: Authorize | None) -> None:
        self._hook, self._lock = hook, threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self, parsed: Parsed, environ: Mapping[str, Any], headers: list[tuple[bytes, bytes]]) -> float | None:
        """For how many seconds the request is allowed, None for as long as it takes.

        Raises :class:`Refusal` if it is not, or :class:`StreamNotFound` if that is what the client is to be told.
        """
        if self._hook is None:
            return None
        seconds = None
        for request in questions(parsed, _request_of(environ, headers)):
            try:
                answer = self._answer(self._hook, request)
            except Exception as error:  # noqa: BLE001 - whatever it was, it denies
                raise failed(error) from None
            seconds = shorter(seconds, allowed(answer, request))
        return seconds

    def _answer(self, hook: Authorize, request: Request) -> Allow | Deny:
        answer = hook(request)
        if inspect.isawaitable(answer):
            return checked(asyncio.run_coroutine_threadsafe(_awaited(answer), self._running()).result())
        return checked(answer)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="durable_log authorize", daemon=True).start()
            return self._loop


async def _awaited(answer: Awaitable[Allow | Deny]) -> Allow | Deny:
    return await answer


def _request_of(environ: Mapping[str, Any], headers: list[tuple[bytes, bytes]]) -> Request:
    query = query_of(environ.get("QUERY_STRING", "").encode("latin-1"))
    return Request(
        "read", "", environ["REQUEST_METHOD"], None, Headers(headers), query, environ.get("REMOTE_ADDR"), environ
    )
