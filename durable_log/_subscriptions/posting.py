"""One POST to an address that was checked.

Law of this room: the only module that imports ``httpcore``, which is an extra. It connects to nothing but the addresses
that it is given, whatever a name stands for by then; certificates are verified for the name. It follows no redirect,
uses no proxy of the environment, and reads no more of an answer than could say that it is done. On the event loop.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterable, Iterable, Sequence
from functools import lru_cache
from typing import Final

import httpcore

from durable_log._subscriptions.webhooks import DeliveryFailed
from durable_log.protocol.webhook_url import WebhookUrl

ANSWER_BYTES_MAX: Final = 64 * 2**10
CONNECT_SECONDS: Final = 5.0

_FAILURES: Final = (OSError, httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)
_PORTS: Final = {"http": 80, "https": 443}


async def post(url: WebhookUrl, addresses: Sequence[str], body: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """The beginning of a successful answer. Raises :class:`DeliveryFailed`."""
    scheme, host, port, target, _local = url
    where = httpcore.URL(scheme=scheme, host=host.strip("[]"), port=port, target=target)
    named = host if port == _PORTS[scheme] else f"{host}:{port}"
    headers = [(b"host", named.encode()), (b"content-length", b"%d" % len(body)), *headers]
    context = _tls() if scheme == "https" else None
    connection = httpcore.AsyncHTTPConnection(where.origin, context, network_backend=_Pinned(addresses))
    timeouts = {"timeout": {"connect": CONNECT_SECONDS}}
    try:
        async with (
            connection,
            connection.stream("POST", where, headers=headers, content=body, extensions=timeouts) as answer,
        ):
            if not 200 <= answer.status < 300:
                raise DeliveryFailed(f"it answered {answer.status}")
            return await _beginning(answer.aiter_stream())
    except _FAILURES as error:
        raise DeliveryFailed(str(error) or type(error).__name__) from error


async def _beginning(stream: AsyncIterable[bytes]) -> bytes:
    parts, size = [], 0
    async for part in stream:
        parts.append(part)
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            break
    return b"".join(parts)


@lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    return httpcore.default_ssl_context()


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to one of these addresses instead of what a name stands for."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses, self._backend = addresses, httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,  # noqa: ARG002 - the point of this
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: httpcore.ConnectError | httpcore.ConnectTimeout | None = None
        for address in self._addresses:
            try:
                return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("there is no address")
