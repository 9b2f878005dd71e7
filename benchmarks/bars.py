"""What has to be reached: each bar once, as data.

Law of this room: values alone. A bar names a case of ``durable_log`` and what it is held against: a peer in the same
run, by a factor, or a limit in the case's own unit.
"""

from __future__ import annotations

from typing import NamedTuple


class Bar(NamedTuple):
    """``case`` of ``subject`` is at least (or ``at_most``) ``limit`` times what ``peer`` has in the same case, or in
    ``peer_case``; without a peer, ``limit`` itself. Of bars with the same ``either``, one is enough.
    """

    subject: str
    case: str
    limit: float
    peer: str | None = None
    peer_case: str | None = None
    at_most: bool = False
    either: str = ""

    def text(self) -> str:
        """As the tables show it."""
        sign = "≤" if self.at_most else "≥"
        beside = "" if self.peer is None else f" × {self.peer_case or self.peer}"
        return f"{sign} {self.limit:,g}{beside}" + (" or the other" if self.either else "")


BARE = "bare pwrite + fdatasync"
ONE_WRITER = "one writer, 100 B, synced"
BATCHES = "batches of 1000 x 100 B, synced"


def writers(count: int) -> str:
    """The case of so many writers at once."""
    return f"{count:,} writer{'s'[: count > 1]}, 100 B, synced"


APPEND = [
    Bar("append", ONE_WRITER, 0.9, BARE),
    Bar("append", ONE_WRITER, 1, "SQLite"),
    Bar("append", ONE_WRITER, 1, "RocksDB"),
    Bar("append", ONE_WRITER, 1, "LMDB"),
    Bar("append_many", BATCHES, 3, "RocksDB"),
    Bar("concurrent", writers(64), 1.3, "Redis"),
    Bar("concurrent", writers(1024), 40, BARE, writers(1)),
]

CLUSTERED = "clustered, read 4 MiB at a time"
ITERATE = "records of 100 B, one after the other"
RECOVERED_BYTES = "log of 64 KiB records, bytes"
RECOVERED_RECORDS = "log of 100 B records, records"
READ = [
    Bar("read", CLUSTERED, 0.5, "plain read()"),
    Bar("iterate", ITERATE, 1, "LMDB"),
    Bar("recovery", RECOVERED_BYTES, 1e9, either="recovery"),
    Bar("recovery", RECOVERED_RECORDS, 2e6, either="recovery"),
]

BARS: list[Bar] = [*APPEND, *READ]
