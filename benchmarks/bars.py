"""What has to be reached: each bar once, as data.

Law of this room: values alone. A bar names a case of ``durable_log`` and what it is held against: a peer in the same
run, by a factor, or a limit in the case's own unit.
"""

from __future__ import annotations

from typing import NamedTuple


class Bar(NamedTuple):
    """``case`` of ``subject`` is at least (or ``at_most``) ``limit`` times what ``peer`` has in the same case, or in
    ``peer_case``; without a peer, ``limit`` itself. Of bars with the same ``either``, one is enough. ``why``: which
    section of docs/benchmarks.md says what stops it.
    """

    subject: str
    case: str
    limit: float
    peer: str | None = None
    peer_case: str | None = None
    at_most: bool = False
    either: str = ""
    why: str = ""


WHY_ONE_WRITER = "one-writer"
WHY_TASKS = "many-tasks"
WHY_ONE_REQUEST = "one-request"
WHY_MANY_REQUESTS = "many-requests"

BARE = "bare pwrite + fdatasync"
PLAIN = "plain read()"
BARE_ASGI = "bare ASGI, no store"
LIMITS = {BARE, PLAIN, BARE_ASGI}
"""What the machine itself does: beside these, less than one is no loss."""
ONE_WRITER = "one writer, 100 B, synced"
BATCHES = "batches of 1000 x 100 B, synced"


def writers_case(count: int) -> str:
    """The case of so many writers at once."""
    return f"{count:,} writer{'s'[: count > 1]}, 100 B, synced"


APPEND = [
    Bar("append", ONE_WRITER, 0.9, BARE, why=WHY_ONE_WRITER),
    Bar("append", ONE_WRITER, 1, "SQLite", why=WHY_ONE_WRITER),
    Bar("append", ONE_WRITER, 1, "RocksDB", why=WHY_ONE_WRITER),
    Bar("append", ONE_WRITER, 1, "LMDB", why=WHY_ONE_WRITER),
    Bar("append_many", BATCHES, 3, "RocksDB", why=WHY_ONE_WRITER),
    Bar("concurrent", writers_case(64), 1.3, "Redis", why=WHY_TASKS),
    Bar("concurrent", writers_case(1024), 40, BARE, why=WHY_TASKS),
]

CLUSTERED = "clustered, read 4 MiB at a time"
ITERATE = "records of 100 B, one after the other"


RECOVERED = ("records of 64 KiB", "records of 100 B", "records of 100 B, new streams")


def recovery_case(megabytes: int, record: str, what: str) -> str:
    """The case of a log of so many records of one size, and what is counted a second."""
    return f"{megabytes} MB log, {record}: {what}"


READ = [
    Bar("read", CLUSTERED, 0.5, PLAIN),
    Bar("iterate", ITERATE, 1, "LMDB"),
    *(
        Bar("recovery", recovery_case(128, record, what), limit, either=record)
        for record in RECOVERED
        for what, limit in (("bytes", 1e9), ("records", 2e6))
    ),
]

STREAMS = 1_000_000
ACTIVE_RATIO_MIN = 0.7
ACTIVE_BYTES_MAX = 600
WAKING_RATIO_MIN = 0.35
IDLE_MB_MAX = 100
OPEN_SECONDS_MAX = 2
RECOVERY_SECONDS_MAX = 5
CARDINALITY = [
    Bar("cardinality", f"appends, {STREAMS:,} active : 1,000", ACTIVE_RATIO_MIN),
    Bar("cardinality", "memory a stream, recent_bytes_max=1 (2 records each)", ACTIVE_BYTES_MAX, at_most=True),
    Bar("cardinality", f"appends, each wakes one of {STREAMS:,} : 1,000 active", WAKING_RATIO_MIN),
    Bar("cardinality", f"memory with {STREAMS:,} idle streams, beyond an empty store", IDLE_MB_MAX, at_most=True),
    Bar("cardinality", f"open, {STREAMS:,} streams clustered and closed", OPEN_SECONDS_MAX, at_most=True),
    Bar("cardinality", f"open, killed during appends to all {STREAMS:,}", RECOVERY_SECONDS_MAX, at_most=True),
]

NODE_FILE = "Node reference, file"
NODE_MEMORY = "Node reference, memory"
RAKAIA_JSONL = "rakaia, JSONL"
RAKAIA_MEMORY = "rakaia, memory"
RUST_SERVER = "Rust server"

ONE = "a POST a token, 1 stream, 1 connection"
MANY = "a POST a token, 64 streams, 64 connections"
JSON_BATCHES = "a POST for 100 JSON messages, 16 connections"
CATCH_UP = "catch-up of 100 MB on one connection"
CROWD = "1 writer, 50 viewers"
PACED = "1 writer at 50 tokens/s, 1,000 viewers"
VIEWER = "memory of each of 1,000 viewers"


def percentile_case(case: str, percentile: str) -> str:
    """The case of how long requests or deliveries take."""
    return f"{case}: {percentile}"


HTTP = [
    Bar("http", ONE, 3, NODE_FILE, why=WHY_ONE_REQUEST),
    Bar("http", percentile_case(ONE, "p99"), 3, BARE, percentile_case(ONE, "p50"), at_most=True, why=WHY_ONE_REQUEST),
    Bar("http", MANY, 20, NODE_FILE, why=WHY_MANY_REQUESTS),
    Bar("http", MANY, 0.6, NODE_MEMORY, why=WHY_MANY_REQUESTS),
    Bar("http", MANY, 1.5, RAKAIA_MEMORY, why=WHY_MANY_REQUESTS),
    Bar("http", JSON_BATCHES, 1e6, why=WHY_MANY_REQUESTS),
    Bar("http", CATCH_UP, 1e9),
    Bar("fan_out", CROWD, 3, NODE_MEMORY),
    Bar("fan_out", percentile_case(CROWD, "p50"), 1, NODE_MEMORY, at_most=True),
    Bar("fan_out", percentile_case(PACED, "p99"), 50_000, at_most=True),
    Bar("fan_out", VIEWER, 20_000, at_most=True),
]

BARS: list[Bar] = [*APPEND, *READ, *CARDINALITY, *HTTP]
