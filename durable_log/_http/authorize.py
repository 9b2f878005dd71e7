"""Asks an application's hook whether a request may be carried out.

Law of this room: every kind of request is asked for but preflights and those of :data:`UNASKED`, by each thing that
it would do; all have to be allowed. Whatever goes wrong denies. What a hook raises may hold what it was given, so its
text is not logged, only its kind and where it came from. Event loop.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl

from durable_log.access.hook import Action, Allow, Authorize, Headers, Request, ask
from durable_log.errors import StreamNotFound
from durable_log.model import Delete
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import Get, Head, Parsed, Post, Preflight, Put
from durable_log.protocol.subscriptions import Control

UNASKED: Final = frozenset(("jwks", "callback", "ack", "release"))
"""Public keys are for everybody, and those who call back have a token of the subscription's instead."""

log: Final = logging.getLogger("durable_log")


class Gate:
    """The hook of one application, or that there is none."""

    def __init__(self, hook: Authorize | None) -> None:
        self._hook = hook

    @property
    def asks(self) -> bool:
        """Whether anything is asked at all."""
        return self._hook is not None

    async def check(self, parsed: Parsed, scope: Any) -> float | None:
        """For how many seconds the request is allowed, None for as long as it takes.

        Raises :class:`Refusal` if it is not, or :class:`StreamNotFound` if that is what the client is to be told.
        """
        if self._hook is None or isinstance(parsed, Preflight):
            return None
        return await self.ask(*_asked(parsed, scope))

    async def ask(self, *requests: Request) -> float | None:
        """The same for requests that were made already."""
        if self._hook is None:
            return None
        seconds = None
        for request in requests:
            allowed = await self._allowed(self._hook, request)
            if allowed is not None:
                seconds = allowed if seconds is None else min(seconds, allowed)
        return seconds

    async def _allowed(self, hook: Authorize, request: Request) -> float | None:
        try:
            answer = await ask(hook, request)
        except Exception as error:  # noqa: BLE001 - whatever it was, it denies
            _log_failure(error)
            raise Refusal(500, "internal_error", "the server could not find out whether this is allowed") from None
        if isinstance(answer, Allow):
            return answer.seconds
        if answer.status == 404:
            raise StreamNotFound(request.name)
        if answer.status == 401:
            challenge = (b"www-authenticate", answer.challenge.encode("latin-1"))
            raise Refusal(401, "unauthorized", answer.message, (challenge,))
        raise Refusal(403, "forbidden", answer.message)


def _log_failure(error: Exception) -> None:
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("authorize failed with %s, and so denies:\n%s", type(error).__name__, where)


def request_of(action: Action, name: str, scope: Any) -> Request:
    """The question about a request in the terms of ASGI."""
    client = scope.get("client")
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return Request(
        action, name, scope["method"], None, Headers(scope["headers"]), query, client[0] if client else None, scope
    )


def _asked(parsed: Put | Post | Get | Head | Delete | Control, scope: Any) -> Iterator[Request]:
    """What the hook is asked, one by one."""
    if isinstance(parsed, Control):
        if parsed.action not in UNASKED:
            yield request_of("control", parsed.id, scope)
        return
    asked = request_of("read", parsed.name, scope)
    if isinstance(parsed, Get):
        yield asked
    elif isinstance(parsed, Head):
        yield replace(asked, action="describe")
    elif isinstance(parsed, Put):
        source = None if parsed.fork is None else parsed.fork.source
        yield replace(asked, action="create", fork_source=source)
        if source is not None:
            yield replace(asked, name=source)
    elif isinstance(parsed, Post):
        if not parsed.close or _may_have_body(asked):
            yield replace(asked, action="append")
        if parsed.close:
            yield replace(asked, action="close")
    else:
        assert isinstance(parsed, Delete)
        yield replace(asked, action="delete")


def _may_have_body(request: Request) -> bool:
    """Whether something can follow the head: to close with last words is to append, too."""
    if "transfer-encoding" in request.headers:
        return True  # it counts for more than a length beside it (RFC 9112 §6.3)
    length = request.headers.get("content-length")
    if length is not None:
        return length != "0"
    return not request.scope.get("http_version", "").startswith("1.")
