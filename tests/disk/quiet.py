"""Engines that do only what a test asks for: no threads, no pauses, no chance, no clock but the test's.

Law of this room: what the engine does is not changed, only when and by whom. What its threads would do in time, a test
does by calling it: ``refill``, ``keep_time``. Asynchronous requests are committed when they are submitted, unless
somebody holds the commit lock; then when somebody asks for it. One thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from durable_log.engine import checkpoint, compaction, keeper, log, manifest, reclaim
from durable_log.engine.commit import Committer
from durable_log.engine.staging import Submission
from durable_log.engine.upkeep import Upkeep
from durable_log.model import Request
from durable_log.store import Store

MADE_AT = 1_900_000_000.0
"""What the headers of log segments say."""


def _commit_now(committer: Committer) -> None:
    if not committer._lock.is_mine() and not committer._stopping:
        with committer._lock:
            committer._commit_waiting()


def _nothing(*_arguments: Any) -> None:
    pass


_DOUBLES: Sequence[tuple[Any, str, Any]] = (
    (Committer, "start", _nothing),
    (Committer, "ring", _commit_now),
    (Upkeep, "start", _nothing),
    (checkpoint, "pause", _nothing),
    (compaction, "pause", _nothing),
    (reclaim, "pause", _nothing),
    (keeper, "time", SimpleNamespace(time=lambda: MADE_AT, monotonic=time.monotonic)),
    (log, "atexit", SimpleNamespace(register=_nothing, unregister=_nothing)),
    (log, "call_after_fork", _nothing),
    (manifest, "random_bytes", lambda count: bytes(range(count))),
)


@contextmanager
def quiet() -> Iterator[None]:
    """All engines are quiet inside of this."""
    with ExitStack() as stack:
        for owner, name, double in _DOUBLES:
            stack.enter_context(patch.object(owner, name, double))
        yield


class _Port:
    """Results by token."""

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}

    def deliver(self, results: list[tuple[int, Any]]) -> None:
        self.results.update(results)


def commit_together(store: Store, requests: Sequence[Request]) -> list[Any]:
    """Commit these in one group. Returns what each was told; refusals are returned, too."""
    committer, port = store.engine._committer, _Port()
    with committer._lock:
        for token, request in enumerate(requests):
            committer._staging.put(Submission(request, port, token))
        committer._commit_waiting()
    return [port.results[token] for token in range(len(requests))]


def refill(store: Store) -> None:
    """What the keeper does when it comes by: make the spare segments that are wanted."""
    store.engine._spares.refill()


def keep_time(store: Store) -> None:
    """What the committer thread does when it is time: sync what was only written, and mark the log's end."""
    committer = store.engine._committer
    with committer._lock:
        if committer.failure is None:
            committer._guard(committer._mark_end)
