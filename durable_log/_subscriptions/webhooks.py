"""Webhooks: which may be used, and sending them within limits.

Law of this room: a name is resolved when a webhook is set up and again for each delivery; all that it stands for is
checked, and nothing else is connected to. Deliveries have a limit of time and of number. Needs what the extra
``subscriptions`` brings, and says so. On the event loop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from durable_log._subscriptions.keys import MISSING
from durable_log._subscriptions.options import Subscriptions
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.subscriptions import is_done, url_rejected
from durable_log.protocol.webhook_url import WebhookUrl, is_loopback, is_public, parse_webhook_url

if TYPE_CHECKING:
    from types import ModuleType

RESOLVE_SECONDS: Final = 5.0

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


class DeliveryFailed(Exception):
    """The webhook did not take it; says why, for the log."""


class Webhooks:
    """Webhooks as the options allow them. ``resolve`` gives the addresses that a name stands for."""

    def __init__(self, options: Subscriptions, resolve: Resolve | None = None) -> None:
        self._options, self._resolve = options, resolve or _resolved
        self._slots = asyncio.Semaphore(options.webhooks_at_once)

    async def check(self, url: str) -> None:
        """Raise :class:`Refusal` if no webhook may have that URL, or none can be sent at all."""
        _posting()
        try:
            await self._addresses(self._parsed(url))
        except (OSError, ValueError) as error:
            raise url_rejected(url, str(error)) from error

    async def send(self, url: str, body: bytes, sign: Callable[[bytes], bytes]) -> bool:
        """Deliver a body; whether the answer says that it is done. Raises :class:`DeliveryFailed`."""
        async with self._slots:
            delivery = asyncio.ensure_future(self._post(url, body, sign(body)))
            try:
                await asyncio.wait((delivery,), timeout=self._options.webhook_seconds)
                if not delivery.done():
                    raise DeliveryFailed(f"no answer within {self._options.webhook_seconds:g} s")
                return is_done(await delivery)
            except (OSError, ValueError) as error:
                raise DeliveryFailed(str(error)) from error
            finally:
                delivery.cancel()

    async def _post(self, url: str, body: bytes, signature: bytes) -> bytes:
        parsed = self._parsed(url)
        headers = [
            (b"content-type", b"application/json"),
            (b"webhook-signature", signature),
            (b"user-agent", b"durable-log"),
        ]
        answer: bytes = await _posting().post(parsed, await self._addresses(parsed), body, headers)
        return answer

    def _parsed(self, url: str) -> WebhookUrl:
        options = self._options
        return parse_webhook_url(url, development=options.webhook_development, hosts=options.webhook_hosts)

    async def _addresses(self, url: WebhookUrl) -> Sequence[str]:
        """The addresses that may be connected to. Raises ``ValueError``, ``OSError``."""
        host = url.host.strip("[]")
        lookup = asyncio.ensure_future(self._resolve(host, url.port))
        await asyncio.wait((lookup,), timeout=RESOLVE_SECONDS)
        if not lookup.done():
            lookup.cancel()
            raise OSError(f"no address of {host} was found within {RESOLVE_SECONDS:g} s")
        try:
            addresses = await lookup
        except OSError as error:
            raise OSError(f"no address of {host} was found: {error.strerror or error}") from error
        if not addresses:
            raise OSError(f"{host} has no address")
        allowed, kind = (is_loopback, "loopback") if url.local else (is_public, "public")
        for address in addresses:
            if not allowed(address):
                raise ValueError(f"{host} stands for {address}, which is no {kind} address")
        return addresses


def _posting() -> ModuleType:
    try:
        from durable_log._subscriptions import posting  # noqa: PLC0415 - needs an extra
    except ImportError:
        raise Refusal(501, "WEBHOOKS_UNAVAILABLE", MISSING) from None
    return posting


async def _resolved(host: str, port: int) -> Sequence[str]:
    found: list[Any] = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))
