"""The commit lock, and whose turn it is.

Law of this room: a lock with a door before it. Whoever wants to wait for the lock waits at the door, one at a time, and
who stands in the door is next: callers that lead commits by themselves only try, and never while somebody stands there,
and a holder that has much to do looks round between two groups. So background work gets its turn however many threads
append, and they theirs between its slices. Any thread.
"""

from __future__ import annotations

import threading
from types import TracebackType


class CommitLock:
    """``with`` it to wait for the lock; ``try_acquire`` to have it only if nobody else wants it."""

    def __init__(self) -> None:
        self._lock, self._door = threading.Lock(), threading.Lock()

    def __enter__(self) -> None:
        with self._door:
            self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._lock.release()

    def try_acquire(self) -> bool:
        """Take the lock if it is free and nobody waits for it."""
        return not self._door.locked() and self._lock.acquire(blocking=False)

    def release(self) -> None:
        """Let go of it."""
        self._lock.release()

    def locked(self) -> bool:
        """Whether somebody has it."""
        return self._lock.locked()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it."""
        return self._door.locked()
