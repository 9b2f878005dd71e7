"""All subscriptions of a store.

Law of this room: it knows which subscriptions there are and which streams are whose, and hands on what happens to them;
each subscription decides for itself. A commit costs it one look-up for each stream that moved, and one look at each
pattern for each stream that is new. It hears of commits only while there are subscriptions. There is one manager to a
store at a time, and it runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from durable_log._subscriptions import machine
from durable_log._subscriptions.active import DELIVERY, Active
from durable_log._subscriptions.journal import PREFIX, Journal
from durable_log._subscriptions.keys import KeyRing
from durable_log._subscriptions.options import Subscriptions
from durable_log._subscriptions.records import LINKS_PER_RECORD, Identity, Stored
from durable_log._subscriptions.webhooks import Resolve, Webhooks
from durable_log.aio import AsyncStore
from durable_log.errors import (
    Corruption,
    DurableLogError,
    InvalidData,
    StoreClosed,
    StoreUnreadable,
    StreamGone,
    StreamNotFound,
)
from durable_log.model import Change, StreamInfo
from durable_log.protocol import subscriptions
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.subscriptions import Config

LOOKED_UP_AT_ONCE: Final = 128
"""Together they take a few milliseconds of the event loop's time."""

Result = TypeVar("Result")

log: Final = logging.getLogger("durable_log")

_MANAGERS: Final[WeakValueDictionary[int, Manager]] = WeakValueDictionary()
"""By the identity of their engine, those that run: two would wake everybody twice."""


class Manager:
    """The subscriptions of one store. Open it with :meth:`start`."""

    def __init__(
        self, store: AsyncStore, options: Subscriptions, *, resolve: Resolve | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:  # fmt: skip
        self.store, self.jitter = store, jitter
        self.keys = KeyRing(store, options.signing_key)
        self.webhooks = Webhooks(options, resolve)
        self.loop = asyncio.get_running_loop()
        self._by_id: dict[str, Active] = {}
        self._unreadable: dict[str, DurableLogError] = {}
        """Those that can't be read, and why. They can be deleted."""
        self._linked: dict[str, list[Active]] = {}
        """Whose a stream is."""
        self._patterns: dict[Active, None] = {}
        self._announcing: dict[str, dict[Active, None]] = {}
        """By wake stream."""
        self._deafen: Callable[[], None] | None = None
        """Ends that it hears of commits; None if it does not."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False

    # --- its life -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Go on with all subscriptions where they were. Raises :class:`Refusal` if another manager does."""
        other = _MANAGERS.get(id(self.store.engine))
        if other is not None and not other.loop.is_closed():
            message = "another application of this process runs the subscriptions of this store; ask that one"
            raise Refusal(503, "SUBSCRIPTIONS_ELSEWHERE", message)
        _MANAGERS[id(self.store.engine)] = self
        try:
            names = await self.store.names(PREFIX)
            if names:
                await self.keys.load()
            for name in names:
                await self._resume(name.removeprefix(PREFIX))
        except BaseException:
            self._let_go()
            raise
        for active in self._by_id.values():
            active.begin()

    async def _resume(self, name: str) -> None:
        journal = Journal(self.store, name)
        try:
            stored = await journal.load()
        except (Corruption, InvalidData, StoreUnreadable) as error:
            self._unreadable[name] = error
            log.error("subscription %r does not run: %s", name, error)  # noqa: TRY400 - it is one that is known
            return
        if stored is not None:
            active = Active(self, stored, journal)
            self._register(active)
            self._by_id[name] = active
            await self._discover(active, new=False)

    async def stop(self, seconds: float) -> None:
        """Stop waking. What is being written is written; what is under way to a webhook is sent again another time."""
        self._stopping = True
        for active in self._by_id.values():
            active.rest()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in self._tasks:
            if task.get_name() == DELIVERY:
                task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
        self._let_go()

    def _let_go(self) -> None:
        if self._deafen is not None:
            self._deafen()
            self._deafen = None
        if _MANAGERS.get(id(self.store.engine)) is self:
            del _MANAGERS[id(self.store.engine)]

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return int(self.store.clock() * 1000)

    async def finish(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have it done even if whoever asked for it leaves."""
        task = self.spawn(work)
        if task is None:
            raise StoreClosed("the server is stopping; retry later")
        result: Result = await asyncio.shield(task)
        return result

    def spawn(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any] | None:
        """Have it done; None if the manager is stopping."""
        if self._stopping:
            work.close()
            return None
        task = self.loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, Refusal | DurableLogError):
            log.error("subscriptions", exc_info=error)

    # --- which there are ------------------------------------------------------------------------------------------

    def get(self, name: str) -> Active:
        """The subscription of that id. Raises :class:`Refusal`."""
        if name in self._unreadable:
            raise self._unreadable[name]
        active = self._by_id.get(name)
        if active is None:
            raise subscriptions.not_found(name)
        return active

    async def put(self, name: str, config: Config, base: str) -> tuple[Active, bool]:
        """Create a subscription, or find it as it was asked for; whether it is new. Raises :class:`Refusal`."""
        async with self._one_at_a_time(name):
            if name in self._by_id or name in self._unreadable:
                active = self.get(name)
                if active.config.hash != config.hash:
                    raise subscriptions.exists(name)
                return active, False
            if config.webhook is not None:
                await self.webhooks.check(config.webhook)
            await self.keys.load()
            if config.webhook is not None:
                await self.keys.ensure_signer()
            identity = Identity(name, secrets.token_hex(16), self.now(), base, config)
            return await self._create(identity), True

    async def _create(self, identity: Identity) -> Active:
        active = Active(self, Stored(identity, machine.State(), {}), Journal(self.store, identity.id))
        self._register(active)
        try:
            await self._discover(active, new=True)
            await active.create()
        except BaseException:
            self._forget(active)
            raise
        self._by_id[identity.id] = active
        active.begin()
        return active

    async def delete(self, name: str) -> None:
        """Delete a subscription; harmless if there is none."""
        async with self._one_at_a_time(name):
            if name in self._unreadable:
                await Journal(self.store, name).delete()
                del self._unreadable[name]
            active = self._by_id.get(name)
            if active is not None:
                await active.delete()
                del self._by_id[name]
                self._forget(active)

    async def add(self, active: Active, paths: Sequence[str]) -> None:
        """Link streams by name, at their tails."""
        for start in range(0, len(paths), LINKS_PER_RECORD):
            some = paths[start : start + LINKS_PER_RECORD]
            await self._a_few_at_a_time(lambda path: self._link(active, path, explicit=True), some)
            await active.decide(machine.look)

    async def remove(self, active: Active, path: str) -> None:
        """Take back what :meth:`add` did. Slashes before the path may be there for nothing, or be part of a name."""
        if path not in active.links.by_path:
            path = path.lstrip("/")
        if active.unlink(path):
            self._unlink(active, path)
        await active.decide(machine.look)

    @contextlib.asynccontextmanager
    async def _one_at_a_time(self, name: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault(name, asyncio.Lock())
        async with lock:
            yield

    # --- which streams are whose ----------------------------------------------------------------------------------

    def _register(self, active: Active) -> None:
        """Have it hear of what happens from now on."""
        if self._deafen is None:
            self._deafen = self.store.listen(self._heard)
        for path in active.links.by_path:
            self._linked.setdefault(path, []).append(active)
        if active.glob is not None:
            self._patterns[active] = None
        if active.config.wake_stream is not None:
            self._announcing.setdefault(active.config.wake_stream, {})[active] = None

    def _forget(self, active: Active) -> None:
        active.end()
        for path in active.links.by_path:
            self._unlink(active, path)
        self._patterns.pop(active, None)
        wake_stream = active.config.wake_stream or ""
        announcing = self._announcing.get(wake_stream, {})
        announcing.pop(active, None)
        if not announcing:
            self._announcing.pop(wake_stream, None)
        if not self._by_id and self._deafen is not None and not self._linked and not self._patterns:
            self._deafen()
            self._deafen = None

    def _unlink(self, active: Active, path: str) -> None:
        linked = self._linked.get(path, [])
        if active in linked:
            linked.remove(active)
            if not linked:
                del self._linked[path]

    async def _discover(self, active: Active, *, new: bool) -> None:
        """Find the streams of a subscription. For a ``new`` one they are at their tails; for one that was there before,
        streams that it does not know were created since.
        """
        paths = dict.fromkeys(active.links.by_path)
        paths.update(dict.fromkeys(active.config.streams if new else ()))
        if active.glob is not None:
            names = await self.store.names(active.glob.prefix)
            paths.update(dict.fromkeys(await asyncio.to_thread(list, filter(active.wants, names))))
        explicit = set(active.config.streams) if new else ()
        if new:
            await self._a_few_at_a_time(lambda path: self._link(active, path, explicit=path in explicit), list(paths))
        else:
            await self._a_few_at_a_time(lambda path: self._catch_up(active, path), list(paths))

    async def _a_few_at_a_time(self, work: Callable[[str], Awaitable[None]], paths: Sequence[str]) -> None:
        for start in range(0, len(paths), LOOKED_UP_AT_ONCE):
            await asyncio.gather(*map(work, paths[start : start + LOOKED_UP_AT_ONCE]))
            await asyncio.sleep(0)  # others have turns, too

    async def _link(self, active: Active, path: str, *, explicit: bool) -> None:
        info = await self._info(path)
        if (info is not None or explicit) and not active.gone:
            number, tail = (0, 0) if info is None else (info.number, info.tail)
            self._note(active, path)
            active.link_at_tail(path, number, tail, explicit=explicit)

    async def _catch_up(self, active: Active, path: str) -> None:
        info = await self._info(path)
        if info is None:
            known = active.links.by_path.get(path)
            if known is not None and known.number and active.lost(path, known.number):
                self._unlink(active, path)
        elif active.see(Change(path, info.number, info.fork_at or 0, info.tail, False, False)):
            self._note(active, path)
        else:
            self._unlink(active, path)

    def _note(self, active: Active, path: str) -> None:
        linked = self._linked.setdefault(path, [])
        if active not in linked:
            linked.append(active)

    async def _info(self, path: str) -> StreamInfo | None:
        with contextlib.suppress(StreamNotFound, StreamGone):
            return await self.store.stream(path).info()
        return None

    def _heard(self, changes: list[Change]) -> None:
        """What commits have changed, in their order."""
        for change in changes:
            path = change.name
            if change.gone:
                for active in tuple(self._linked.get(path, ())):
                    if active.lost(path, change.number):
                        self._unlink(active, path)
                continue
            for active in tuple(self._linked.get(path, ())):
                if not active.see(change):
                    self._unlink(active, path)
            if change.created:
                for active in self._patterns:
                    if active.wants(path) and active.see(change):
                        self._note(active, path)
                for active in self._announcing.get(path, ()):
                    self.spawn(active.decide(machine.hurried))
