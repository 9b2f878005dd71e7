"""What was committed since the store was opened, in figures.

Law of this room: plain counts, which only the holder of the commit lock changes and anybody may read. No I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

SYNC_NS: Final = (250_000, 1_000_000, 4_000_000, 16_000_000, 64_000_000, 250_000_000, 1_000_000_000)
"""The upper ends of the classes of syncs by duration; one more class is for what took longer."""


class Counters:
    """What was committed since the store was opened. ``sync_ns``: the time of all syncs of commits together; ``syncs``:
    how many there were of each class of :data:`SYNC_NS`.
    """

    __slots__ = ("bytes_appended", "bytes_written", "commits", "records", "sync_ns", "syncs")

    def __init__(self) -> None:
        self.commits = self.records = self.bytes_appended = self.bytes_written = self.sync_ns = 0
        self.syncs = [0] * (len(SYNC_NS) + 1)

    def committed(self, records: int, appended: int, written: int, sync_ns: int) -> None:
        """One group: how many records with data, their bytes, what the log took, how long its sync did, 0 for none."""
        self.commits += 1
        self.records += records
        self.bytes_appended += appended
        self.bytes_written += written
        if sync_ns:
            self.synced(sync_ns)

    def synced(self, ns: int) -> None:
        """A commit's sync took ``ns``."""
        self.sync_ns += ns
        self.syncs[bisect_left(SYNC_NS, ns)] += 1
