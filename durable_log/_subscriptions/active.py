"""One subscription at work.

Law of this room: what ``machine`` decides is written to the journal and durable before it is so, and before anybody is
told; one decision at a time. What has to be sent and when to look again is read off the state, after each decision.
Links change as their streams do, which needs no decision. On the event loop of the manager.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from itertools import islice
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import quote

from durable_log._subscriptions import machine
from durable_log._subscriptions.journal import Journal
from durable_log._subscriptions.keys import KeyRing
from durable_log._subscriptions.links import Link, Links
from durable_log._subscriptions.machine import Facts, State, Step
from durable_log._subscriptions.records import Stored, difference
from durable_log._subscriptions.webhooks import DeliveryFailed, Webhooks
from durable_log.aio import AsyncStore
from durable_log.errors import CommitFailed, DurableLogError, StoreClosed
from durable_log.model import Change, Producer, is_json
from durable_log.protocol import callback_tokens, subscriptions
from durable_log.protocol.callback_tokens import Grant
from durable_log.protocol.refusal import Refusal

TIMER_SECONDS_MAX: Final = 30.0
"""Wall clocks are set: nothing waits longer than that before it looks again."""

TROUBLE_SECONDS: Final = 5.0
"""When to look again after the store has refused something."""

IDLE_UP_TO: Final = 100
"""Streams without pending events are told of while a wake has no more than these."""

Result = TypeVar("Result")

DELIVERY: Final = "durable_log delivery"
"""The name of tasks that may be broken off: what they do is done again."""

_ENDS: Final = (Refusal, StoreClosed, CommitFailed)
"""The subscription was deleted, or the store takes no changes until somebody opens it again."""

log: Final = logging.getLogger("durable_log")


class Host(Protocol):
    """What a subscription needs of its manager."""

    store: AsyncStore
    keys: KeyRing
    webhooks: Webhooks
    jitter: Callable[[], float]

    def now(self) -> int:
        """Milliseconds since the epoch."""

    async def finish(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have it done even if whoever asked for it leaves."""

    def spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any] | None:
        """Have it done; None if the manager is stopping."""


class Active:
    """A subscription that is open. It does nothing by itself until :meth:`begin`."""

    def __init__(self, host: Host, stored: Stored, journal: Journal) -> None:
        self.identity, self.state, self.links = stored.identity, stored.state, Links()
        for path, link in stored.links.items():
            self.links.put(path, link, link.acked)
        config = stored.identity.config
        self.config, self.glob, self._webhook = config, config.glob, config.kind == "webhook"
        self._host, self._journal = host, journal
        self._lock = asyncio.Lock()
        self._unsaved: set[str] = set()
        """Streams whose explicit links have changed since the last record. The next one tells of these links as they
        are by then: a cursor may have moved meanwhile."""
        self.gone = False
        """There is no such subscription any more."""
        self._ready = self._stirred = False
        self._worker: asyncio.Task[Any] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False
        """A delivery waits for its turn. There is one at most, whatever happens to wakes meanwhile."""
        self._sending = 0
        """The generation whose wake is being sent; 0 if none is."""
        self._sender: asyncio.Task[Any] | None = None

    # --- streams --------------------------------------------------------------------------------------------------

    def wants(self, path: str) -> bool:
        """Whether the pattern matches. The wake stream is never linked by it: each wake would cause another."""
        return self.glob is not None and path != self.config.wake_stream and self.glob.matches(path)

    def link_at_tail(self, path: str, number: int, tail: int, *, explicit: bool) -> None:
        """A stream that exists, from here on: what it holds by now is not pending."""
        known = self.links.by_path.get(path)
        if known is None:
            self.links.put(path, Link(number, tail, explicit, self.wants(path)), tail)
        elif explicit and not known.explicit:
            self.links.put(path, known._replace(explicit=True), self.links.tail(path))
        else:
            return
        if explicit:
            self._unsaved.add(path)

    def unlink(self, path: str) -> bool:
        """Take back an explicit link. True if the stream is not linked any more."""
        known = self.links.by_path.get(path)
        if known is None or not known.explicit:
            return known is None
        if known.globbed:
            self.links.put(path, known._replace(explicit=False), self.links.tail(path))
            self._unsaved.add(path)
            return False
        self._drop(path)
        return True

    def see(self, change: Change) -> bool:
        """A stream is there. True if it is one of this subscription, which may have become so just now: then all that
        was appended to it is pending.
        """
        path, number, base, tail = change.name, change.number, change.base, change.tail
        known = self.links.by_path.get(path)
        if known is not None and known.number in (0, number):
            if known.number == 0:
                known = Link(number, max(known.acked, base), known.explicit, self.wants(path))
                self._unsaved.add(path)
            self.links.put(path, known, tail)
        elif known is not None and known.number > number:
            return True
        elif self.wants(path):
            self._drop(path)
            self.links.put(path, Link(number, base, False, True), tail)
        else:
            self._drop(path)
            return False
        if self.state.wake_id is None and path in self.links.pending:
            self.stir()
        return True

    def lost(self, path: str, number: int) -> bool:
        """That life of a stream is over. True if it is none of this subscription any more."""
        known = self.links.by_path.get(path)
        if known is None or known.number != number:
            return known is None
        self._drop(path)
        self.stir()
        return True

    def _drop(self, path: str) -> None:
        known = self.links.by_path.get(path)
        self.links.drop(path)
        if known is not None and known.explicit:
            self._unsaved.add(path)

    # --- decisions ------------------------------------------------------------------------------------------------

    async def decide(self, decision: Callable[[State, Facts], Step]) -> State:
        """Make a decision come true; returns the state that it led to. Being cancelled does not break it off.

        Raises what the decision raises, and what the store does.
        """
        return await self._host.finish(self._decide(decision))

    async def _decide(self, decision: Callable[[State, Facts], Step]) -> State:
        async with self._lock:
            state = await self._make_so(decision)
        self.stir()
        return state

    async def _make_so(self, decision: Callable[[State, Facts], Step]) -> State:
        if self.gone:
            raise subscriptions.not_found(self.identity.id)
        host, wake_id = self._host, "w_" + secrets.token_hex(12)
        facts = Facts(
            host.now(), self._webhook, self.config.lease_ms, self.links, wake_id, host.jitter(), self._is_sending,
            self._waiting,
        )  # fmt: skip
        step = decision(self.state, facts)
        by_path = self.links.by_path
        acked = {path: by_path[path]._replace(acked=offset) for path, offset in step.acked.items()}
        unsaved, self._unsaved = self._unsaved, set()
        record = difference(self.state, step.state, {**{path: by_path.get(path) for path in unsaved}, **acked})
        grown = False
        try:
            if record:
                grown = await self._journal.append(record)
        except BaseException:
            self._unsaved |= unsaved
            raise
        self.state = step.state
        for path, link in acked.items():
            if path in by_path and by_path[path].number == link.number:
                self.links.ack(path, link.acked)
        if grown:
            await self._tell_anew()
        return step.state

    async def _tell_anew(self) -> None:
        try:
            await self._journal.tell(self._stored())
        except DurableLogError as error:
            log.warning("subscription %r: its stream can't be shortened: %s", self.identity.id, error)

    def _stored(self) -> Stored:
        links = {path: link for path, link in self.links.by_path.items() if link.explicit or link.acked}
        return Stored(self.identity, self.state, links)

    async def create(self) -> None:
        """Make it durable for the first time."""
        self._unsaved.clear()
        await self._journal.begin(self._stored())

    async def delete(self) -> None:
        """End this life of it, durably."""
        async with self._lock:
            if self.gone:
                return
            await self._journal.delete()
            self.end()

    def end(self) -> None:
        """There is no such subscription any more."""
        self.gone = True
        self.rest()

    def rest(self) -> None:
        """Do nothing by itself."""
        self._cancel_timer()

    # --- what goes on by itself -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin to wake workers."""
        self._ready = True
        self.stir()

    def stir(self) -> None:
        """Look at what there is to do, soon."""
        self._stirred = True
        if self._worker is None and self._ready and not self.gone:
            self._worker = self._host.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._stirred and not self.gone:
                self._stirred = False
                async with self._lock:
                    sent = self.state.wake_id if self._is_sending else None
                    await self._make_so(machine.look)
                    if sent not in (None, self.state.wake_id):
                        self._break_off()
                self._send()
                self._set_timer()
        except _ENDS:
            self._cancel_timer()
        except DurableLogError as error:
            log.warning("subscription %r: %s", self.identity.id, error)
            self._look_again(TROUBLE_SECONDS)
        finally:
            self._worker = None
        if self._stirred:
            self.stir()

    def _set_timer(self) -> None:
        due = machine.due_at(self.state, self.links, sending=self._is_sending, waiting=self._waiting)
        if due is None:
            self._cancel_timer()
        else:
            self._look_again((due - self._host.now()) / 1000)

    def _look_again(self, seconds: float) -> None:
        self._cancel_timer()
        delay = min(max(seconds, 0), TIMER_SECONDS_MAX)
        self._timer = asyncio.get_running_loop().call_later(delay, self.stir)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- sending --------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        if machine.unsent(self.state, self._host.now()) and not (self._is_sending or self._waiting):
            self._waiting = True
            self._host.spawn(self._deliver(), DELIVERY)

    @property
    def _is_sending(self) -> bool:
        return self._sending == self.state.generation != 0

    async def _deliver(self) -> None:
        """Send what there is to be sent once it is this subscription's turn, if there is anything by then."""
        generation = None
        try:
            async with self._turn() as waited:
                if waited:
                    async with self._lock:
                        await self._make_so(machine.issued)
                state, generation, self._waiting = self.state, self.state.generation, False
                if self.gone or not machine.unsent(state, self._host.now()):
                    self.stir()
                    return
                self._sending, self._sender = generation, asyncio.current_task()
                self._set_timer()
                decision = await self._attempt(state)
            async with self._lock:
                await self._make_so(decision)
        except _ENDS:
            return
        except DurableLogError as error:
            log.warning("subscription %r: %s", self.identity.id, error)
            await asyncio.sleep(TROUBLE_SECONDS)  # what can't be noted would be sent again at once
        finally:
            if generation is None:
                self._waiting = False
            elif self._sending == generation:
                self._sending, self._sender = 0, None
        self.stir()

    def _break_off(self) -> None:
        """The lease has run out while a webhook was asked: its answer would count for nothing, others have its turn."""
        if self._webhook and self._sender is not None:
            log.warning("subscription %r: wake %d was not answered within its lease", self.identity.id, self._sending)
            self._sender.cancel()

    def _turn(self) -> AbstractAsyncContextManager[bool]:
        """Receivers can be slow, the store is not. Tells whether the turn had to be waited for."""
        return self._host.webhooks.turn(again=self.state.attempts > 0) if self._webhook else nullcontext(False)

    async def _attempt(self, state: State) -> Callable[[State, Facts], Step]:
        """Send a wake; returns the decision that follows from what became of it."""
        try:
            done = await (self._call(state) if self._webhook else self._announce(state))
        except (Refusal, DurableLogError, DeliveryFailed) as error:
            log.warning("subscription %r: wake %d was not delivered: %s", self.identity.id, state.generation, error)
            return partial(machine.failed, generation=state.generation)
        return partial(machine.delivered, generation=state.generation, done=done)

    async def _call(self, state: State) -> bool:
        identity, keys = self.identity, self._host.keys
        await keys.ensure_signer()
        wake = {
            "subscription_id": identity.id,
            "wake_id": state.wake_id,
            "generation": state.generation,
            "streams": self.told(state),
            "callback_url": f"{identity.base}/subscriptions/{quote(identity.id, safe='')}/callback",
            "callback_token": self.token(state),
        }
        assert self.config.webhook is not None
        return await self._host.webhooks.send(self.config.webhook, json.dumps(wake).encode(), keys.sign)

    async def _announce(self, state: State) -> bool:
        """Append to the wake stream, once, even if that was done before and not noted."""
        assert self.config.wake_stream is not None
        identity, stream = self.identity, self._host.store.stream(self.config.wake_stream)
        event = subscriptions.wake_event(identity.id, next(iter(state.tails), ""), state.generation, self._host.now())
        if not is_json((await stream.info()).content_type):
            event += b"\n"
        await stream.append(event, producer=Producer(f"__ds/{identity.life}", state.generation, 0), durability="sync")
        return False

    def told(self, state: State) -> list[dict[str, object]]:
        """The streams of a wake: what it tells of, and others as long as there are not many."""
        links = self.links.by_path
        pending = [
            (path, links[path].explicit, links[path].acked, tail)
            for path, (number, tail) in state.tails.items()
            if path in links and links[path].number == number
        ]
        idle = (
            (path, link.explicit, link.acked, link.acked)
            for path, link in links.items()
            if path not in state.tails and path not in self.links.pending
        )
        return subscriptions.wake_info([*pending, *islice(idle, max(0, IDLE_UP_TO - len(pending)))])

    def token(self, state: State) -> str:
        """What allows to speak for the wake in flight."""
        identity = self.identity
        grant = Grant(identity.id, identity.life, state.generation)
        return callback_tokens.issue(self._host.keys.secret, grant, self._host.now())
