"""Webhooks: which may be used, and sending them within limits.

Law of this room: a name is resolved when a webhook is set up and again for each delivery; all that it stands for is
checked, and nothing else is connected to. Deliveries have a limit of time and of number. Needs what the extra
``subscriptions`` brings, and says so. On the event loop; only names are looked up on threads, which are nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from durable_log._subscriptions.keys import MISSING
from durable_log._subscriptions.options import Subscriptions
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.subscriptions import is_done, url_rejected
from durable_log.protocol.webhook_url import WebhookUrl, is_loopback, is_public, parse_webhook_url

if TYPE_CHECKING:
    from types import ModuleType

RESOLVE_SECONDS: Final = 5.0
LOOKUPS_AT_ONCE: Final = 8
"""How many names are looked up at the same time; others wait for their turn within these seconds."""

log: Final = logging.getLogger("durable_log")

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_Found = list[Any] | Exception


class DeliveryFailed(Exception):
    """The webhook did not take it; says why, for the log."""


class Webhooks:
    """Webhooks as the options allow them. ``resolve`` gives the addresses that a name stands for."""

    def __init__(self, options: Subscriptions, resolve: Resolve | None = None) -> None:
        self._options, self._resolve = options, resolve or _Resolver()
        self._turns = asyncio.Semaphore(options.webhooks_at_once)
        self._turns_again = asyncio.Semaphore(max(1, options.webhooks_at_once // 2))
        """Those that may be had by what has failed before: receivers that hang would have them all in the end."""

    async def check(self, url: str) -> None:
        """Raise :class:`Refusal` if no webhook may have that URL, or none can be sent at all."""
        _posting()
        try:
            await self._addresses(self._parsed(url))
        except (OSError, ValueError) as error:
            raise url_rejected(url, str(error)) from error

    @contextlib.asynccontextmanager
    async def turn(self, *, again: bool) -> AsyncIterator[bool]:
        """One of the deliveries that may be under way at the same time; whether it had to be waited for. ``again``: it
        has failed before.
        """
        waited = self._turns.locked() or (again and self._turns_again.locked())
        async with self._turns_again if again else contextlib.nullcontext(), self._turns:
            yield waited

    async def send(self, url: str, body: bytes, sign: Callable[[bytes], bytes]) -> bool:
        """Deliver a body, within a :meth:`turn`; whether the answer says that it is done.

        Raises :class:`DeliveryFailed`.
        """
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
                # Whoever asks may not know the network that this machine is in: which address it is, is not for them.
                log.warning("webhook host %r stands for %s, which is no %s address", host, address, kind)
                raise ValueError(f"{host} stands for what is no {kind} address")
        return addresses


def _posting() -> ModuleType:
    try:
        from durable_log._subscriptions import posting  # noqa: PLC0415 - needs an extra
    except ImportError:
        raise Refusal(501, "WEBHOOKS_UNAVAILABLE", MISSING) from None
    return posting


class _Resolver:
    """Looks names up, a few at a time, each on a thread of its own: a look-up can't be stopped, and may take very long.
    The loop's threads are those of the store's reads, and a process that ends waits for them. Whoever asks for a name
    that is being looked up has the same answer: one that takes long keeps no other from its turn.
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        self._under_way: dict[tuple[str, int], asyncio.Future[_Found]] = {}

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        under_way = self._under_way
        if (host, port) not in under_way:
            await self._slots.acquire()
            if (host, port) in under_way:
                self._slots.release()
            else:
                under_way[host, port] = self._begin(host, port)
        found = await asyncio.shield(under_way[host, port])
        if isinstance(found, Exception):
            raise found
        return list(dict.fromkeys(str(each[4][0]) for each in found))

    def _begin(self, host: str, port: int) -> asyncio.Future[_Found]:
        """Look up on a thread; the slot is taken. A failure is a result, too: nobody may wait for it by then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_Found] = loop.create_future()

        def look_up() -> None:
            found: _Found = OSError("the look-up was broken off")
            try:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            except (OSError, ValueError) as error:
                found = error
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self._end, host, port, found)

        try:
            threading.Thread(target=look_up, name="durable_log webhook name", daemon=True).start()
        except BaseException:
            self._slots.release()
            raise
        return future

    def _end(self, host: str, port: int, found: _Found) -> None:
        self._slots.release()
        self._under_way.pop((host, port)).set_result(found)
