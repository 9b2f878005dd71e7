"""The streams of one subscription: how they came to it, how far each was processed, which have more.

Law of this room: plain bookkeeping, each change in the time of a dictionary's. ``pending`` always holds exactly the
paths whose tail is beyond what was acknowledged, longest first in it first. No I/O; one event loop.
"""

from __future__ import annotations

from typing import NamedTuple


class Link(NamedTuple):
    """One stream: which life of it (0 as long as there is none), what was acknowledged, and why it is here."""

    number: int
    acked: int
    explicit: bool
    globbed: bool


class Links:
    """All streams of one subscription, by path."""

    def __init__(self) -> None:
        self.by_path: dict[str, Link] = {}
        self.pending: dict[str, int] = {}
        """The tails of those that have more than was acknowledged."""

    def put(self, path: str, link: Link, tail: int) -> None:
        """Add a stream, or replace what is known of it."""
        self.by_path[path] = link
        self._compare(path, link, tail)

    def drop(self, path: str) -> None:
        """Forget a stream; harmless if there is none."""
        self.by_path.pop(path, None)
        self.pending.pop(path, None)

    def moved(self, path: str, tail: int) -> None:
        """A stream of these has another tail."""
        self._compare(path, self.by_path[path], tail)

    def ack(self, path: str, offset: int) -> None:
        """A stream was processed up to there; harmless if it is gone, or was processed further."""
        link = self.by_path.get(path)
        if link is not None and offset > link.acked:
            tail = self.tail(path)
            self.by_path[path] = link._replace(acked=offset)
            self.pending.pop(path, None)  # what is still pending waits behind the others now
            self._compare(path, self.by_path[path], tail)

    def tail(self, path: str) -> int:
        """How far a stream of these reaches."""
        return self.pending.get(path, self.by_path[path].acked)

    def advances(self, path: str, number: int, offset: int) -> bool:
        """Whether that offset of that life of a stream is beyond what was acknowledged, and not beyond its tail."""
        link = self.by_path.get(path)
        return link is not None and link.number == number and link.acked < offset <= self.tail(path)

    def _compare(self, path: str, link: Link, tail: int) -> None:
        if tail > link.acked:
            self.pending[path] = tail
        else:
            self.pending.pop(path, None)
