"""What an event loop has of a store: where its results come in, and the streams that its tasks wait for.

Law of this room: everything here belongs to one event loop and runs on it, but for ``deliver``. A look-up that needs
the disk never runs on the loop: names gather, and one job at a time brings all of them into memory, on a thread.
Whoever asks for a stream that others wait for already goes on behind them: what is asked in order is done in order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from durable_log.engine.log import LogEngine
from durable_log.errors import DurableLogError, StreamGone, StreamNotFound

LOADED_AT_ONCE: Final = 1024
"""What one job brings into memory: the first of very many do not wait for the last."""

Answer = TypeVar("Answer")
Failures = Mapping[str, BaseException]


class LoopPort:
    """One event loop's side of a store."""

    def __init__(self, loop: asyncio.AbstractEventLoop, engine: LogEngine) -> None:
        self.loop, self._engine = loop, engine
        self.waiting: dict[str, list[asyncio.Future[None]]] = {}
        """Who waits for a stream, or came while such were woken up; in the order of their calls."""
        self._wanted: list[str] = []
        self._pending: set[str] = set()
        """What is wanted, or being loaded."""
        self._job: asyncio.Future[dict[str, DurableLogError]] | None = None

    def deliver(self, results: list[tuple[Any, Any]]) -> None:
        """Results of futures, which are the tokens: one wake-up. A loop that is closed has nobody who waits."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(_settle, results)

    async def ask(self, name: str, question: Callable[[], Answer], number: int | None = None) -> Answer:
        """The answer to a ``question`` that raises ``BlockingIOError`` while the stream is not in memory.

        Raises what the question raises, and what keeps the stream from being there. With ``number``, that there is none
        is :class:`StreamGone`.
        """
        if name in self.waiting:
            await self._turn(name)
        while True:
            try:
                return question()
            except BlockingIOError:
                self._want(name)
            try:
                await self._turn(name)
            except StreamNotFound:
                if number is None:
                    raise
                raise StreamGone(name) from None

    def _turn(self, name: str) -> asyncio.Future[None]:
        future: asyncio.Future[None] = self.loop.create_future()
        self.waiting.setdefault(name, []).append(future)
        return future

    def _want(self, name: str) -> None:
        if name in self._pending:
            return
        self._pending.add(name)
        self._wanted.append(name)
        if self._job is None and len(self._wanted) == 1:
            self.loop.call_soon(self._begin)  # others may want something at this moment, too

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
            if name in self._pending:
                continue
            waiting = self.waiting.pop(name, None)
            if waiting:
                self.waiting[name] = []
                woken.append(name)
                error = failures.get(name)
                _settle([(future, error) for future in waiting])
        if woken:
            self.loop.call_soon(self._wake, woken, {})


def _settle(results: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
