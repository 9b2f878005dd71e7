"""What an event loop has of a store: where its results come in, and the streams that its tasks wait for.

Law of this room: everything here belongs to one event loop and runs on it, but for ``deliver``. A look-up that needs
the disk never runs on the loop: names gather, and one job at a time brings all of them into memory, on a thread.
Whoever asks for a stream that others wait for already goes on behind them: what is asked in order is done in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from durable_log.engine.log import LogEngine
from durable_log.engine.state import StreamState
from durable_log.errors import DurableLogError, StreamGone, StreamNotFound
from durable_log.model import Change, Request

LOADED_AT_ONCE: Final = 1024
"""What one job brings into memory: the first of very many do not wait for the last."""

Answer = TypeVar("Answer")
Failures = Mapping[str, BaseException]


class LoopPort:
    """One event loop's side of a store."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: LogEngine) -> None:
        self.loop, self._engine = loop, engine
        self.waiting: dict[str, asyncio.Future[None] | None] = {}
        """The first who waits for a stream; None while those are woken up who did."""
        self._behind: dict[str, list[asyncio.Future[None]]] = {}
        """The others, in the order in which they came."""
        self._wanted: list[str] = []
        self._pending: set[str] = set()
        """What is wanted, or being loaded."""
        self._rings = False
        """Whether the committer will be called at the end of this round of the loop."""
        self._job: asyncio.Future[dict[str, DurableLogError]] | None = None

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        """Results of futures, which are the tokens: one wake-up. A loop that is closed has nobody who waits."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_settle, results)

    def submit(self, request: Request) -> asyncio.Future[Any]:
        """Commit a request, after those that were submitted before; awaits to what became of it."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self._engine.submit(request, self, future)
        return future

    def submit_together(self, request: Request) -> asyncio.Future[Any]:
        """The same, but all that this round of the loop brings is submitted before the committer is called."""
        future: asyncio.Future[Any] = self.loop.create_future()
        self._engine.stage(request, self, future)
        if not self._rings:
            self._rings = True
            self.loop.call_soon(self._ring)
        return future

    def _ring(self) -> None:
        self._rings = False
        self._engine.ring()

    def has(self, name: str) -> bool:
        """Whether a commit of something about that stream can begin at once: nothing has to be read, nobody waits."""
        if name in self.waiting:
            return False
        try:
            self._engine.check_loaded(name)
        except BlockingIOError:
            return False
        return True

    def content_type(self, name: str) -> str | None:
        """That of a stream; None if the stream, or others who ask for it, have to be waited for.

        Raises :class:`StreamNotFound`.
        """
        if name in self.waiting:
            return None
        try:
            return self._engine.content_type(name, wait=False)
        except BlockingIOError:
            return None

    async def content_type_later(self, name: str) -> str:
        """The same, after waiting. A coroutine whose frame is not kept where many wait for streams."""
        waits = self.turn(name) if name in self.waiting else self.arrival(name)
        while True:
            await waits
            try:
                return self._engine.content_type(name, wait=False)
            except BlockingIOError:
                waits = self.arrival(name)

    async def ask(self, name: str, question: Callable[[], Answer], number: int | None = None) -> Answer:
        """The answer to a ``question`` that raises ``BlockingIOError`` while the stream is not in memory.

        Raises what the question raises, and what keeps the stream from being there. With ``number``, that there is none
        is :class:`StreamGone`.
        """
        waits = self.turn(name) if name in self.waiting else None
        while True:
            try:
                if waits is not None:
                    await waits
            except StreamNotFound:
                if number is None:
                    raise
                raise StreamGone(name) from None
            try:
                return question()
            except BlockingIOError:
                waits = self.arrival(name)

    def arrival(self, name: str) -> asyncio.Future[None]:
        """For whoever has asked in vain: done when the stream has been brought into memory.

        By the time that he asks again it may have been let go. Fails with what keeps it from being there.
        """
        if name not in self._pending:
            self._pending.add(name)
            self._wanted.append(name)
            if self._job is None and len(self._wanted) == 1:
                self.loop.call_soon(self._begin)  # others may want something at this moment, too
        return self.turn(name)

    def turn(self, name: str) -> asyncio.Future[None]:
        """For whoever finds others ``waiting``: done when they have gone on. Fails with what has kept them from it."""
        future: asyncio.Future[None] = self.loop.create_future()
        if self.waiting.get(name) is None:
            self.waiting[name] = future
        else:
            self._behind.setdefault(name, []).append(future)
        return future

    def _begin(self) -> None:
        names, self._wanted = self._wanted[:LOADED_AT_ONCE], self._wanted[LOADED_AT_ONCE:]
        try:
            self._job = self.loop.run_in_executor(None, self._engine.load, names)
        except RuntimeError as error:  # the loop's executor is shut down
            names, self._wanted = names + self._wanted, []
            self._end(names, dict.fromkeys(names, error))
        else:
            self._job.add_done_callback(partial(self._loaded, names))

    def _loaded(self, names: list[str], job: asyncio.Future[dict[str, DurableLogError]]) -> None:
        self._job = None
        if self._wanted:
            self._begin()
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        self._end(names, job.result() if error is None else dict.fromkeys(names, error))

    def _end(self, names: list[str], failures: Failures) -> None:
        self._pending.difference_update(names)
        self._wake(names, failures)

    def _wake(self, names: Iterable[str], failures: Failures) -> None:
        """Let those go on who wait for these, and afterwards those who came in between."""
        woken = []
        for name in names:
            first = None if name in self._pending else self.waiting.pop(name, None)
            if first is not None:
                self.waiting[name] = None
                woken.append(name)
                error = failures.get(name)
                for future in (first, *self._behind.pop(name, ())):
                    if not future.done():
                        future.set_result(None) if error is None else future.set_exception(error)
        if woken:
            self.loop.call_soon(self._wake, woken, {})


class Feed:
    """What every commit changes, in order: ``heard`` is called on the event loop, once for all that has come."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, engine: LogEngine, heard: Callable[[list[Change]], None]
    ) -> None:
        self._loop, self._watermarks, self._heard = loop, engine.watermarks, heard
        self._queue: deque[tuple[Collection[StreamState], ...]] = deque()
        self._due = False
        """Whether the loop will look at the queue."""
        self._watermarks.listen(self)

    def changed(self, *states: Collection[StreamState]) -> None:
        """See :class:`Listener`. A loop that is closed hears nothing more."""
        self._queue.append(states)
        if not self._due:
            self._due = True
            try:
                self._loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                self.close()

    def close(self) -> None:
        """Hear nothing more."""
        self._watermarks.ignore(self)
        self._queue.clear()

    def _drain(self) -> None:
        self._due = False
        changes: list[Change] = []
        while self._queue:
            moved, created, removed = self._queue.popleft()
            new = set(created)
            # Lives of one name in their order: numbers grow.
            for state in sorted(new.union(moved, removed), key=lambda state: state.number):
                base = 0 if state.fork is None else state.fork.base
                changes.append(Change(state.name, state.number, base, state.durable, state in new, state.gone))
        if changes:
            self._heard(changes)


def _settle(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
