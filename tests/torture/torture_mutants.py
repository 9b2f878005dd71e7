"""Bugs to put into a process, each of which a torture has to find: else it would find none."""

from __future__ import annotations

import os
from typing import Any

from durable_log.engine import group
from durable_log.engine.files import DiskFile
from durable_log.engine.format import DELETE, FLAG_CLOSE
from durable_log.engine.state import StreamState
from durable_log.model import Append, Appended


def lose_commits() -> None:
    """Every tenth commit is acknowledged, and written to nowhere."""
    inner, count = DiskFile.commit, iter(range(10**9))

    def commit(self: DiskFile, block: bytearray, info: Any, sync: bool) -> int:
        if next(count) % 10 < 9:
            return inner(self, block, info, sync)
        with open(os.devnull, "r+b") as nowhere:
            kept, self._fd = self._fd, nowhere.fileno()
            try:
                return inner(self, block, info, False)
            finally:
                self._fd = kept

    DiskFile.commit = commit  # type: ignore[method-assign]


def store_duplicates() -> None:
    """What a producer sends again is stored again."""
    inner = group.admit_append

    def admit_append(state: Any, request: Append) -> Appended | None:
        appended = inner(state, request)
        return None if appended is not None and request.data and not state.closed else appended

    group.admit_append = admit_append


def forget_deletions() -> None:
    """Streams are deleted in memory; no record says so."""
    inner = group.Group._frame

    def frame(self: group.Group, kind: int, flags: int, state: StreamState, payload: bytes) -> None:
        if kind != DELETE:
            inner(self, kind, flags, state, payload)

    group.Group._frame = frame  # type: ignore[method-assign]


def forget_closes() -> None:
    """Streams are closed in memory; no record says so."""
    inner = group.frame_head

    def frame_head(kind: int, flags: int, *more: int) -> bytes:
        return inner(kind, flags & ~FLAG_CLOSE, *more)

    group.frame_head = frame_head


ALL = {
    "lost commits": lose_commits,
    "stored duplicates": store_duplicates,
    "forgotten deletions": forget_deletions,
    "forgotten closes": forget_closes,
}
