"""Bugs to put into a process, each of which a torture has to find: else it would find none."""

from __future__ import annotations

import os
from typing import Any

from durable_log.engine import group
from durable_log.engine.files import DiskFile
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


ALL = {"lost commits": lose_commits, "stored duplicates": store_duplicates}
