"""Requests on their way to a commit.

Law of this room: any thread stages; only the holder of the commit lock takes. Requests are taken in the order in which
they came. What is beyond the bound of staged bytes stands in line behind it and moves up when there is room; nobody
overtakes. One small lock guards order, count and the moment from which nothing is accepted any more, so that no request
slips in behind the last look. Nothing here blocks while it holds that lock, and no I/O.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

from durable_log.engine.watermark import Port
from durable_log.errors import CommitFailed, StoreClosed
from durable_log.model import Request

GROUP_RECORDS_MAX: Final = 4096
GROUP_BYTES_MAX: Final = 8 * 2**20
REQUEST_OVERHEAD: Final = 64
"""What a request counts for beside its data, in bytes."""

PENDING: Final = object()

Refusal = CommitFailed | StoreClosed


class Submission:
    """A request on its way. ``result`` is what became of it; an exception if it was refused."""

    __slots__ = ("port", "request", "result", "size", "token")

    def __init__(self, request: Request, port: Port, token: Any) -> None:
        self.request, self.port, self.token = request, port, token
        self.size = REQUEST_OVERHEAD + len(getattr(request, "data", b""))
        self.result: Any = PENDING


class Batch(list[Submission]):
    """Submissions of one group; ``size`` is what they count for until they are released."""

    size = 0


class Staging:
    """A queue of submissions that holds ``bytes_max`` bytes, or one submission that is larger, and a line behind it."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._queue: deque[Submission] = deque()
        self._line: deque[Submission] = deque()
        self._mutex = threading.Lock()
        self.staged = 0
        self.refusal: Refusal | None = None
        """What every new submission is refused with."""

    def __bool__(self) -> bool:
        return bool(self._queue)

    def put(self, submission: Submission) -> None:
        """Stage it, or have it wait its turn. Raises the refusal."""
        with self._mutex:
            if self.refusal is not None:
                raise self.refusal.again()
            staged = self.staged + submission.size
            if self._line or (staged > self._bytes_max and self.staged):
                self._line.append(submission)
            else:
                self.staged = staged
                self._queue.append(submission)

    def take(self, batch: Batch) -> None:
        """Move the submissions of the next group into ``batch``, which is empty, in order. The one before is released.

        Whatever is moved is in the batch first: an interrupt may come behind any call, and none may be lost.
        """
        queue = self._queue
        with self._mutex:
            if len(queue) <= GROUP_RECORDS_MAX and self.staged <= GROUP_BYTES_MAX:
                batch.size = self.staged
                batch.extend(queue)
                queue.clear()
                return
        for _ in range(min(len(queue), GROUP_RECORDS_MAX)):
            submission = queue[0]
            if batch.size + submission.size > GROUP_BYTES_MAX and batch:
                break
            batch.size += submission.size
            batch.append(submission)
            queue.popleft()

    def release(self, batch: Batch) -> None:
        """The batch is done with: those who wait for room move up."""
        with self._mutex:
            self.staged -= batch.size
            batch.size = 0
            while self._line and (not self.staged or self.staged + self._line[0].size <= self._bytes_max):
                submission = self._line.popleft()
                self.staged += submission.size
                self._queue.append(submission)

    def refuse(self, reason: Refusal) -> None:
        """Accept nothing from now on. What is staged stays."""
        with self._mutex:
            self.refusal = reason
