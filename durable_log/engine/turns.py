"""The commit lock, and whose turn it is.

Law of this room: a lock with a door before it. Whoever wants to wait for the lock waits at the door, one at a time, and
who stands in the door is next: callers that lead commits by themselves only try, and never while somebody stands there,
and a holder that has much to do looks round between two groups. So background work gets its turn however many threads
append, and they theirs between its slices. Any thread.

A signal may arrive behind any call, so also between the one that took the lock and whatever was to let go of it. The
lock knows which thread has it. Whoever may be interrupted lets go twice, the second time around everything that the
first one was meant for: one of them is not interrupted. Nobody takes it twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final

_new_lock: Final[Any] = threading.RLock


class CommitLock:
    """``with`` it, or ``acquire``, to wait for the lock; ``attempt`` is to have it only if it is free."""

    def __init__(self) -> None:
        self._inner = _new_lock()
        self._door = threading.Lock()
        self.wanted = self._door.locked
        """Whether somebody waits for it."""
        self.is_mine = self._inner._is_owned
        """Whether this thread has it."""

    def attempt(self) -> bool:
        """Take it if it is free. Whoever has it already looks at ``is_mine`` before, and does not call this."""
        return bool(self._inner.acquire(blocking=False))

    def acquire(self) -> None:
        """Wait for the lock."""
        assert not self.is_mine(), "a call from within a commit, as a signal handler may make, can't be served"
        try:
            with self._door:
                self._inner.acquire()
        except BaseException:
            self.let_go()
            raise

    def let_go(self) -> None:
        """Let go of it, if this thread has it."""
        if self.is_mine():
            self._inner.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.let_go()


class Bell:
    """Calls the committer thread. To ring twice before it comes is to ring once; made in C, as a signal may come."""

    def __init__(self) -> None:
        self._rung: SimpleQueue[None] = SimpleQueue()

    def ring(self) -> None:
        """There is something to do."""
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, until: float | None) -> None:
        """Return once it was rung, or at that moment in monotonic seconds."""
        with suppress(Empty):
            self._rung.get(timeout=None if until is None else max(0.0, until - time.monotonic()))


class Turn:
    """``with`` it to have the lock; ``begin`` is called then, and ``end`` when it was let go."""

    __slots__ = ("_begin", "_end", "_lock")

    def __init__(self, lock: CommitLock, begin: Callable[[], None], end: Callable[[], None]) -> None:
        self._lock, self._begin, self._end = lock, begin, end

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            self._begin()
        except BaseException:
            self._lock.let_go()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.let_go()
        self._end()


class Attended:
    """``with`` it around all that has turns and may be interrupted: afterwards, the lock is not held."""

    __slots__ = ("_lock",)

    def __init__(self, lock: CommitLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        assert not self._lock.is_mine(), "a call from within a commit, as a signal handler may make, can't be served"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.let_go()
