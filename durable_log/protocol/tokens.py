"""Offsets, cursors and times as the text that clients see.

Law of this room: the only place that knows what an offset token or a cursor looks like on the wire. Tokens of one
stream sort as text the way their offsets sort as numbers, and ``parse_offset`` reads back what ``offset_token`` wrote.
Pure; any thread.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from typing import Final

from durable_log.model import EARLIEST, EXPIRES_AT_MAX, EXPIRES_AT_MIN, NOW

CURSOR_EPOCH: Final = 1728432000
"""2024-10-09T00:00:00Z in seconds: where cursor intervals are counted from (PROTOCOL.md §10.1)."""

CURSOR_INTERVAL_SECONDS: Final = 20
JITTER_SECONDS_MAX: Final = 3600

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_OFFSET: Final = re.compile(r"([0-9]{16})_([0-9]{16})")
_CURSOR: Final = re.compile(r"[0-9]{1,18}")
_FIELD: Final = 10**16
_SENTINELS: Final = {"-1": EARLIEST, "now": NOW}


def offset_token(offset: int) -> bytes:
    """The token of a byte offset: two fields of 16 digits, the second of them the offset (PROTOCOL.md §8)."""
    return b"0000000000000000_%016d" % offset


def parse_offset(text: str) -> int | None:
    """The offset that a token names, ``EARLIEST`` for ``-1``, ``NOW`` for ``now``; None for anything else.

    A token whose first field is not zero was never given out; it counts as an offset beyond every tail.
    """
    sentinel = _SENTINELS.get(text)
    if sentinel is not None:
        return sentinel
    match = _OFFSET.fullmatch(text)
    if match is None:
        return None
    return min(int(match[1]) * _FIELD + int(match[2]), 2**63 - 1)


def parse_cursor(text: str) -> int | None:
    """The interval that a cursor names; None for text that no server of this protocol gave out, which is ignored."""
    return int(text) if _CURSOR.fullmatch(text) else None


def cursor(now: float, echoed: int | None, jitter_seconds: int) -> int:
    """The cursor of a live response at ``now`` (seconds since the epoch); always more than the one echoed.

    ``jitter_seconds`` is a random number of 1 to 3600; it counts only when the client's cursor has caught up with the
    clock, and keeps caches from answering such clients with one another's empty responses (PROTOCOL.md §10.1).
    """
    current = max(0, int(now) - CURSOR_EPOCH) // CURSOR_INTERVAL_SECONDS
    if echoed is None or echoed < current:
        return current
    return echoed + max(1, -(-jitter_seconds // CURSOR_INTERVAL_SECONDS))


def timestamp(seconds: float) -> bytes:
    """An RFC 3339 timestamp in UTC, to the millisecond; for what lies outside of the years 1 to 9999, their end."""
    millis = round(min(max(seconds, EXPIRES_AT_MIN), EXPIRES_AT_MAX) * 1000)
    moment = _EPOCH + timedelta(milliseconds=millis)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
