"""What was committed since the store was opened, in figures.

Law of this room: plain counts, which only the holder of the commit lock changes and anybody may read. No I/O.
"""

from __future__ import annotations


class Counters:
    """What was committed since the store was opened. ``sync_ns``: the time of all syncs together."""

    __slots__ = ("bytes_appended", "bytes_written", "commits", "records", "sync_ns")

    def __init__(self) -> None:
        self.commits = self.records = self.bytes_appended = self.bytes_written = self.sync_ns = 0
