"""Streams, their forks, deletions, trimming and fixed expiry as a plain-Python model: what PROTOCOL.md §4.2 says.

A life that is deleted stays as long as forks need it, and goes with the last of them. One that has expired can't be
seen any more; it is deleted when somebody sweeps, or creates its name anew.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Life:
    content: bytes
    first: int = 0
    source: Life | None = None
    expires_at: float = math.inf
    forks: int = 0
    closed: bool = False
    deleted: bool = False


@dataclass
class ForkModel:
    """All lives by name. A refusal is given by the name of its class."""

    lives: dict[str, Life] = field(default_factory=dict)

    def readable(self, now: float) -> dict[str, Life]:
        return {name: life for name, life in self.lives.items() if not life.deleted and now < life.expires_at}

    def refusal(self, name: str, now: float) -> str | None:
        """What whoever asks for the stream is told."""
        life = self.lives.get(name)
        if life is not None and life.deleted:
            return "StreamGone"
        return "StreamNotFound" if life is None or now >= life.expires_at else None

    def create(self, name: str, now: float, life: Life) -> str | None:
        """A new stream of that name, which is not readable."""
        source = life.source
        if name in self.lives and not self.lives[name].deleted:
            self.delete(name)  # it has expired
        if name in self.lives:
            return "StreamExists"
        if source is not None:
            source.forks += 1
        self.lives[name] = life
        return None

    def delete(self, name: str) -> None:
        life: Life | None = self.lives[name]
        assert life is not None
        life.deleted = True
        while life is not None and life.deleted and not life.forks:
            self.lives = {other: kept for other, kept in self.lives.items() if kept is not life}
            life = life.source
            if life is not None:
                life.forks -= 1

    def sweep(self, now: float) -> None:
        for name in list(self.lives):
            if name in self.lives and not self.lives[name].deleted and now >= self.lives[name].expires_at:
                self.delete(name)
