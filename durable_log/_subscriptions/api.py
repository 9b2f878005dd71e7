"""The subscription API: requests to the manager, and answers to clients.

Law of this room: it decides nothing: ``protocol`` says what a request means and what an answer looks like, the manager
and its subscriptions what happens. The manager starts with the first request or the first event of the lifespan,
whichever comes first, and requests to it wait until it has. On the server's event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from durable_log._subscriptions import machine
from durable_log._subscriptions.active import Active
from durable_log._subscriptions.manager import Manager
from durable_log._subscriptions.options import Subscriptions
from durable_log.aio import AsyncStore
from durable_log.errors import StoreClosed
from durable_log.protocol import callback_tokens
from durable_log.protocol import subscriptions as parsing
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.response import Response, Responses
from durable_log.protocol.subscriptions import Ack, Action, Control

JWKS_SECONDS: Final = 300

log: Final = logging.getLogger("durable_log")

Answer = Callable[["Call"], Awaitable[Response]]


class Call:
    """One request, once the manager is there."""

    def __init__(self, manager: Manager, control: Control, body: bytes, base: str) -> None:
        self.manager, self.control, self.body, self.base = manager, control, body, base

    def active(self) -> Active:
        """The subscription that it is about. Raises :class:`Refusal`."""
        return self.manager.get(self.control.id)


class SubscriptionApi:
    """The subscriptions of one application."""

    def __init__(self, store: AsyncStore, options: Subscriptions, responses: Responses) -> None:
        self._store, self._options, self._responses = store, options, responses
        self._manager: asyncio.Task[Manager] | None = None
        self._stopped = False
        self._answers: Mapping[Action, Answer] = {
            "jwks": self._jwks,
            "base": self._base,
            "streams": self._streams,
            "stream": self._stream,
            "callback": self._callback,
            "claim": self._claim,
            "ack": self._ack,
            "release": self._release,
        }

    def start(self) -> None:
        """Begin to wake workers, if that has not begun yet. Returns at once."""
        task = self._manager
        if (task is None or task.get_loop().is_closed()) and not self._stopped:
            self._manager = asyncio.get_running_loop().create_task(self._started())
            self._manager.add_done_callback(_tell_of_failure)

    async def _started(self) -> Manager:
        manager = Manager(self._store, self._options)
        await manager.start()
        return manager

    async def stop(self, seconds: float) -> None:
        """Stop waking; what comes later is refused."""
        self._stopped, task = True, self._manager
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return
        await asyncio.wait((task,), timeout=seconds)
        if not task.done():
            task.cancel()
        elif not _has_failed(task):
            await task.result().stop(seconds)

    def restart(self) -> None:
        """Allow it to start after a stop: the application has another life."""
        if self._stopped:
            self._stopped, self._manager = False, None

    async def manager(self) -> Manager:
        """The manager, once all subscriptions are there. Raises what keeps it from starting."""
        if self._manager is not None and _has_failed(self._manager):
            self._manager = None
        self.start()
        task = self._manager
        if self._stopped or task is None:
            raise StoreClosed("the server is stopping; retry later")
        if task.get_loop() is not asyncio.get_running_loop():
            raise StoreClosed("another event loop runs the subscriptions of this application")
        return await asyncio.shield(task)

    async def answer(self, control: Control, body: bytes, base: str) -> Response:
        """The answer to a request. ``base`` is the address of the control API as the client wrote it."""
        if self._options.public_url is not None:
            base = self._options.public_url.rstrip("/") + "/__ds"
        return await self._answers[control.action](Call(await self.manager(), control, body, base))

    async def rotate_signing_key(self) -> str:
        """Sign webhooks with a new key from now on; returns its id."""
        manager = await self.manager()
        await manager.keys.load()
        return await manager.keys.rotate()

    # --- answers --------------------------------------------------------------------------------------------------

    async def _jwks(self, call: Call) -> Response:
        keys = call.manager.keys
        await keys.load()
        await keys.ensure_signer()
        caching = [(b"cache-control", b"public, max-age=%d" % JWKS_SECONDS)]
        return self._responses.json(200, keys.published(), caching, b"application/jwk-set+json")

    async def _base(self, call: Call) -> Response:
        method, manager, name = call.control.method, call.manager, call.control.id
        if method == "DELETE":
            await manager.finish(manager.delete(name))
            return self._responses.deleted()
        if method == "PUT":
            active, new = await manager.finish(manager.put(name, parsing.to_config(call.body), call.base))
            return self._json(201 if new else 200, await self._described(manager, active))
        return self._json(200, await self._described(manager, call.active()))

    async def _described(self, manager: Manager, active: Active) -> dict[str, object]:
        signing = None
        if active.config.webhook is not None:
            await manager.keys.ensure_signer()
            jwks_url = f"{active.identity.base}/jwks.json"
            signing = {"alg": "ed25519", "kid": manager.keys.kid, "jwks_url": jwks_url}
        links, identity = active.links.by_path, active.identity
        streams = [parsing.link_info(path, link.explicit, link.acked) for path, link in links.items()]
        return parsing.described(
            identity.id, identity.config, streams, identity.created_ms, signing, active.state.next_attempt_at
        )

    async def _streams(self, call: Call) -> Response:
        manager, active, streams = call.manager, call.active(), parsing.to_streams(call.body)
        wake_stream = active.config.wake_stream
        if wake_stream is not None and wake_stream in streams:
            raise parsing.wakes_itself(wake_stream)
        await manager.finish(manager.add(active, streams))
        return self._responses.deleted()

    async def _stream(self, call: Call) -> Response:
        manager = call.manager
        await manager.finish(manager.remove(call.active(), call.control.path))
        return self._responses.deleted()

    async def _claim(self, call: Call) -> Response:
        active, worker = _of_kind(call.active(), "pull-wake"), parsing.to_worker(call.body)
        state = await active.decide(partial(machine.claim, worker=worker))
        claim = {
            "wake_id": state.wake_id,
            "generation": state.generation,
            "token": active.token(state),
            "streams": active.told(state),
            "lease_ttl_ms": active.config.lease_ms,
        }
        return self._json(200, claim)

    async def _callback(self, call: Call) -> Response:
        return await self._acked(call, "webhook")

    async def _ack(self, call: Call) -> Response:
        return await self._acked(call, "pull-wake")

    async def _acked(self, call: Call, kind: str) -> Response:
        active, generation, request = _granted(call, kind)
        state = await active.decide(partial(machine.ack, generation=generation, request=request))
        return self._json(200, {"ok": True, "next_wake": request.done and state.wake_id is not None})

    async def _release(self, call: Call) -> Response:
        active, generation, request = _granted(call, "pull-wake")
        await active.decide(partial(machine.release, generation=generation, request=request))
        return self._responses.deleted()

    def _json(self, status: int, value: object) -> Response:
        return self._responses.json(status, value, [])


def _of_kind(active: Active, kind: str) -> Active:
    if active.config.kind != kind:
        raise parsing.invalid(f"subscription {active.identity.id!r} is {active.config.kind}; this is for {kind} only")
    return active


def _granted(call: Call, kind: str) -> tuple[Active, int, Ack]:
    """The subscription, of that kind; the generation that the token is good for; the request. Raises :class:`Refusal`.

    The token comes first: who has none that is genuine does not learn which subscriptions there are.
    """
    grant = callback_tokens.verify(call.manager.keys.secret, call.control.token, call.control.id, call.manager.now())
    active = _of_kind(call.active(), kind)
    if grant.life != active.identity.life:
        raise parsing.fenced(active.state.generation)
    return active, grant.generation, parsing.to_ack(call.body)


def _tell_of_failure(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, Refusal | StoreClosed):
        log.error("subscriptions do not run, until somebody asks for one: %s", error, exc_info=error)


def _has_failed(task: asyncio.Task[Any]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
