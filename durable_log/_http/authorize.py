"""Asks an application's hook whether a request may be carried out.

Law of this room: every kind of request is asked for but preflights and those of :data:`UNASKED`, by each thing that
it would do; all have to be allowed. Whatever goes wrong denies. What a hook raises may hold what it was given, so its
text is not logged, only its kind and where it came from. :class:`Gate` belongs to an event loop; all else is pure, but
for the log.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import parse_qsl

from durable_log.access.hook import Allow, Authorize, Deny, Headers, Request, ask
from durable_log.errors import StreamNotFound
from durable_log.model import Delete
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import Get, Head, Parsed, Post, Preflight, Put
from durable_log.protocol.subscriptions import Control

UNASKED: Final = frozenset(("jwks", "callback", "ack", "release"))
"""Public keys are for everybody, and those who call back have a token of the subscription's instead."""

log: Final = logging.getLogger("durable_log")


class Gate:
    """The hook of one application on an event loop, or that there is none."""

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
        if self._hook is None:
            return None
        return await self.ask(*questions(parsed, request_of(scope)))

    async def ask(self, *requests: Request) -> float | None:
        """The same for requests that were made already."""
        if self._hook is None:
            return None
        seconds = None
        for request in requests:
            try:
                answer = await ask(self._hook, request)
            except Exception as error:  # noqa: BLE001 - whatever it was, it denies
                raise failed(error) from None
            seconds = shorter(seconds, allowed(answer, request))
        return seconds


def request_of(scope: Any) -> Request:
    """A request in the terms of ASGI; what it would do is not said yet."""
    client = scope.get("client")
    return Request(
        "read", "", scope["method"], None, Headers(scope["headers"]), query_of(scope["query_string"]),
        client[0] if client else None, scope,
    )  # fmt: skip


def query_of(raw: bytes) -> dict[str, str]:
    """The parameters of a query; of a repeated one, the last counts."""
    return dict(parse_qsl(raw.decode("latin-1"), keep_blank_values=True))


def questions(parsed: Parsed, asked: Request) -> Iterator[Request]:
    """What the hook is asked about a request, one by one."""
    if isinstance(parsed, Preflight):
        return
    if isinstance(parsed, Control):
        if parsed.action not in UNASKED:
            yield replace(asked, action="control", name=parsed.id)
        return
    asked = replace(asked, name=parsed.name)
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
    version: str = request.scope.get("http_version") or request.scope.get("SERVER_PROTOCOL", "").removeprefix("HTTP/")
    return not version.startswith("1.")


def allowed(answer: Allow | Deny, request: Request) -> float | None:
    """For how many seconds an answer allows the request. Raises :class:`Refusal` or :class:`StreamNotFound` if it
    does not.
    """
    if isinstance(answer, Allow):
        return answer.seconds
    if answer.status == 404:
        raise StreamNotFound(request.name)
    if answer.status == 401:
        challenge = (b"www-authenticate", answer.challenge.encode("latin-1"))
        raise Refusal(401, "unauthorized", answer.message, (challenge,))
    raise Refusal(403, "forbidden", answer.message)


def failed(error: Exception) -> Refusal:
    """What the client is told of a hook that raised; the log is told where."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("authorize failed with %s, and so denies:\n%s", type(error).__name__, where)
    return Refusal(500, "internal_error", "the server could not find out whether this is allowed")


def shorter(seconds: float | None, other: float | None) -> float | None:
    """The shorter of two times; None is no limit."""
    return other if seconds is None else seconds if other is None else min(seconds, other)
