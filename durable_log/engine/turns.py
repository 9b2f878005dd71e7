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
    """``with`` it, or ``acquire``, to wait for the lock. Whoever only tries takes ``inner``, and looks at ``wanted``
    before: these are calls into C, in which no signal arrives.
    """

    def __init__(self) -> None:
        self.inner, self._door = threading.Lock(), threading.Lock()
        self.release = self.inner.release
        self.locked = self.inner.locked
        self.wanted = self._door.locked
        """Whether somebody waits for it."""

    def acquire(self, timeout: float = -1) -> bool:
        """Wait for the lock, ``timeout`` seconds if that is not negative. False if it was not to be had."""
        with self._door:
            return self.inner.acquire(timeout=timeout)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.release()
