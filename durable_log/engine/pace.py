"""How fast the log may grow.

Law of this room: as fast as it can, unless the log is too far ahead of its clustering; then at a rate, by waits that
are bounded and taken with no lock held. The holder of the commit lock says what was written; whoever keeps the log's
house says the rate. Any thread waits.
"""

from __future__ import annotations

import time
from typing import Final

WAIT_SECONDS_MAX: Final = 1.0
RATE_MIN: Final = 16 * 2**20
"""In bytes a second: what is never gone below, however slow the clustering is."""


class Pace:
    """``rate`` is in bytes a second; None while there is no need for one."""

    def __init__(self) -> None:
        self.rate: float | None = None
        self._free_at = 0.0

    def spend(self, length: int) -> None:
        """So many bytes were written."""
        if self.rate is not None:
            now = time.monotonic()
            self._free_at = min(max(now, self._free_at) + length / self.rate, now + WAIT_SECONDS_MAX)

    def left(self) -> float:
        """How many seconds the next commit should wait."""
        return max(0.0, self._free_at - time.monotonic()) if self._free_at else 0.0

    def wait(self) -> None:
        """Wait for as long as the next commit should."""
        if self._free_at:
            time.sleep(self.left())
