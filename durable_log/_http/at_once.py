"""Appends that wait for nothing but their commit, answered without a task of their own.

Law of this room: it does what the application does with a plain append, in fewer steps, for a server that has the whole
request and can write without waiting. Whatever is unusual it leaves to the application, which begins anew: a refusal,
an error, a producer's gap, a stream that is not in memory, a hook that has to be asked. By then nothing has happened,
for what has failed has changed nothing. Event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from durable_log._http.access_log import write as write_access_log
from durable_log._http.authorize import Gate
from durable_log._http.exchange import Exchange, Message
from durable_log._http.tally import Tally
from durable_log.aio import AsyncStore
from durable_log.model import Append
from durable_log.protocol.cors import Cors, Header
from durable_log.protocol.request import Parsed, Post, to_append
from durable_log.protocol.response import Responses

BYTES_MAX: Final = 64 * 2**10
"""Larger bodies are parsed on another thread: the event loop would stand still meanwhile."""

Respond = Callable[[int, list[Header], bytes], None]
Otherwise = Callable[[], object]


async def _unused(*_: Any) -> Any:
    raise AssertionError("nothing is received or sent this way")


class AtOnce:
    """The short way of one application. ``parse``: how that reads the head of a request."""

    def __init__(
        self, store: AsyncStore, gate: Gate, tally: Tally, parse: Callable[[Exchange], Parsed], responses: Responses,
        cors: Cors | None, *, logs: bool,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._tally = store, gate, tally
        self._parse, self._responses, self._cors, self._logs = parse, responses, cors, logs
        self._bytes_max = min(BYTES_MAX, store.options.record_bytes_max)

    def begin(self, scope: Message, body: bytes, respond: Respond, otherwise: Otherwise) -> bool:
        """Submit the append that a request with this body asks for; then ``respond`` is called with its answer, or
        ``otherwise`` without, if it could not be done. False if it cannot be begun here.
        """
        if scope["method"] != "POST" or len(body) > self._bytes_max or self._gate.asks:
            return False
        exchange = Exchange(scope, _unused, _unused, self._cors)
        try:
            post = self._parse(exchange)
            if not isinstance(post, Post):
                return False
            request = to_append(post, body)
            port = self._store.port()
            if not port.has(request.name):
                return False
            future = port.submit_together(request)
        except Exception:  # noqa: BLE001 - the application meets it, too, and knows what to say of it
            return False
        exchange.bytes_in = len(body)
        future.add_done_callback(partial(self._end, exchange, request, respond, otherwise))
        return True

    def _end(
        self, exchange: Exchange, request: Append, respond: Respond, otherwise: Otherwise, future: asyncio.Future[Any]
    ) -> None:
        if future.cancelled() or future.exception() is not None:
            otherwise()
            return
        respond(*exchange.answered(self._responses.appended(request, future.result())))
        self._tally.add(exchange)
        if self._logs:
            write_access_log(exchange)
