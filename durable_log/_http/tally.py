"""What requests came to, in counts.

Law of this room: plain numbers, by actions and statuses, of which there are a few; never by names. Adding one costs
about a microsecond; whoever wants them reads them. One event loop adds, any thread may read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from durable_log._http.exchange import Exchange

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""The upper ends of the classes of durations; one more class is for what took longer."""


class Durations:
    """How long requests took, in classes; ``seconds`` is the sum."""

    __slots__ = ("classes", "seconds")

    def __init__(self) -> None:
        self.classes, self.seconds = [0] * (len(SECONDS) + 1), 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.classes[bisect_left(SECONDS, seconds)] += 1
        self.seconds += seconds


class Tally:
    """The requests of one application. ``durations`` are of those that are not live, as those take as long as it takes.

    Status 0 is of requests whose clients left before there was a response.
    """

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, int], int] = defaultdict(int)
        self.durations: defaultdict[str, Durations] = defaultdict(Durations)
        self.bytes_in = self.bytes_out = 0

    def add(self, exchange: Exchange) -> None:
        """Count one that is over."""
        action = exchange.action or "none"
        self.requests[action, exchange.status or 0] += 1
        self.bytes_in += exchange.bytes_in
        self.bytes_out += exchange.bytes_out
        if exchange.live is None:
            self.durations[action].add(exchange.elapsed())
