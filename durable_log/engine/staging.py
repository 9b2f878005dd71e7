"""Requests on their way to a commit.

Law of this room: any thread stages; only the holder of the commit lock takes. One small lock guards the count of
staged bytes, the queue's order and the moment from which nothing is accepted any more, so that no request can slip in
behind the last look. Nothing here blocks while it holds that lock, and no I/O.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Final

from durable_log.engine.watermark import Deliveries, Port
from durable_log.errors import DurableLogError
from durable_log.model import Append, Create, Request

GROUP_RECORDS_MAX: Final = 4096
GROUP_BYTES_MAX: Final = 8 * 2**20
REQUEST_OVERHEAD: Final = 64
"""What a request counts for beside its data, in bytes."""

PENDING: Final = object()


class Submission:
    """A request on its way. ``result`` is what became of it; an exception if it was refused."""

    __slots__ = ("port", "request", "result", "size", "token")

    def __init__(self, request: Request, port: Port | None, token: Any) -> None:
        self.request, self.port, self.token = request, port, token
        self.size = REQUEST_OVERHEAD + (len(request.data) if isinstance(request, Append | Create) else 0)
        self.result: Any = PENDING


class Staging:
    """A queue of submissions that holds ``bytes_max`` bytes, or one submission that is larger."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._queue: deque[Submission] = deque()
        self._mutex = threading.Lock()
        self._room = threading.Condition(self._mutex)
        self._staged = 0
        self._starved: list[tuple[Port, Any]] = []
        self.refusal: DurableLogError | None = None
        """What every new submission is refused with."""

    def __bool__(self) -> bool:
        return bool(self._queue)

    def offer(self, submission: Submission) -> bool:
        """Stage it. False if there is no room: its token is delivered, with None, when there is."""
        self._check()
        with self._mutex:
            self._check()
            if self._is_full(submission) and submission.port is not None:
                self._starved.append((submission.port, submission.token))
                return False
            self._put(submission)
        return True

    def put(self, submission: Submission) -> None:
        """Stage it, waiting for room."""
        self._check()
        with self._mutex:
            self._check()
            while self._is_full(submission):
                self._room.wait()
                self._check()
            self._put(submission)

    def take(self) -> list[Submission]:
        """The submissions of the next group, in order."""
        batch: list[Submission] = []
        queue, size = self._queue, 0
        while queue and len(batch) < GROUP_RECORDS_MAX:
            size += queue[0].size
            if batch and size > GROUP_BYTES_MAX:
                break
            batch.append(queue.popleft())
        return batch

    def release(self, batch: list[Submission], deliveries: Deliveries) -> None:
        """The batch is done with: tell those who wait for room."""
        with self._mutex:
            self._staged -= sum([submission.size for submission in batch])
            for port, token in self._starved:
                deliveries.add(port, token, None)
            self._starved.clear()
            self._room.notify_all()

    def refuse(self, reason: DurableLogError) -> None:
        """Accept nothing from now on. What is staged stays."""
        with self._mutex:
            self.refusal = reason
            self._room.notify_all()

    def _put(self, submission: Submission) -> None:
        self._staged += submission.size
        self._queue.append(submission)

    def _check(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _is_full(self, submission: Submission) -> bool:
        return bool(self._staged) and self._staged + submission.size > self._bytes_max
