"""What each process of a torture will be, and when it dies. A seed fixes all of it; when things happen, it can't."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

TINY = {
    "segment_bytes": 64 * 1024, "record_bytes_max": 32 * 1024, "recent_bytes_max": 40_000,
    "stream_recent_bytes_max": 5000, "sweep_seconds": 0.02, "cluster_segments": 2, "cluster_seconds": 0.05,
}  # fmt: skip
LONG_LOG = "a long log"
PROFILES: dict[str, dict[str, Any]] = {
    "clustering all the time": TINY,
    LONG_LOG: {**TINY, "cluster_segments": 1000, "cluster_seconds": 3600.0},
    "quick to close": {**TINY, "cluster_at_close": False, "preallocate": False},
    "larger": {**TINY, "segment_bytes": 1024 * 1024, "record_bytes_max": 512 * 1024, "cluster_seconds": 0.2},
}
"""Options of processes; one store gets all of them in turn. Only the first has hardly a stream in memory."""

BEGIN, READY = "begin", "ready"
OPENING = ("lock", "directory sync", "remove", "create", "file sync")
RUNNING = {
    "commit": 15, "file sync": 15, "create": 6, "rename": 6, "directory sync": 6, "fill": 3,
    "remove": 4, "recycle": 3, "checkpoint": 2, "manifest": 3, "clustered segment": 3, "run": 3,
}  # fmt: skip
"""Of which calls how many are to be expected; those that come with clustering are the last six."""
WITHOUT_CLUSTERING = tuple(RUNNING)[:6]
CLOSING = ("close", "closing checkpoint", "rename", "directory sync", "remove", "recycle", "manifest", "commit")
BACKING_UP = ("backup", "link", "rename", "directory sync", "remove", "file sync")
DELAY_MS_MAX = 150.0


@dataclass
class Life:
    """One process: what it serves, which signal it gets once it is ready, and its kill.

    The kill is due at the ``occurrence``-th time of ``moment``, counted from the beginning or, with a signal, from what
    the signal begins: by the process itself, before or after that call, or from outside ``delay_ms`` later. What has
    not come ``patience_ms`` after the store is ready is not waited for. A ``moment`` of "" leaves the process alone: it
    is stopped in order.
    """

    generation: int
    kind: str
    directory: str
    profile: str
    moment: str
    occurrence: int = 1
    how: str = "outside"
    delay_ms: float = 0.0
    signal: str = ""
    signal_after_ms: float = 0.0
    patience_ms: float = 250.0
    mutant: str = ""

    @property
    def options(self) -> dict[str, Any]:
        return PROFILES[self.profile]

    @property
    def crowded(self) -> bool:
        """Whether hardly a stream may stay in memory."""
        return self.profile == next(iter(PROFILES))

    def __str__(self) -> str:
        if not self.moment:
            return f"generation {self.generation} ({self.profile}) was stopped in order"
        when = f"{self.delay_ms:.1f} ms after" if self.how == "outside" else self.how
        after = f", {self.signal} before" if self.signal else ""
        return (
            f"generation {self.generation} ({self.profile}) was to die {when} {self.moment!r} {self.occurrence}{after}"
        )

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "options": self.options, "crowded": self.crowded}


def delay(chance: random.Random) -> float:
    """From 10 µs to 150 ms, short ones as likely as long ones: a step of a commit takes µs, one of a checkpoint ms."""
    return float(10 ** chance.uniform(-2, 2.18))


def plan(seed: int, generation: int, kind: str, directory: str, mutant: str = "") -> Life:
    """The life of one process."""
    chance = random.Random(f"{seed}/{generation}")
    crowded, *others = PROFILES
    life = Life(generation, kind, directory, chance.choice((crowded, crowded, *others)), READY, mutant=mutant)
    what = chance.random()
    if what < 0.1:
        life.moment, life.delay_ms = BEGIN, chance.uniform(0, 30)
        return life
    if what < 0.2:
        life.moment, life.occurrence = chance.choice(OPENING), chance.randint(1, 3)
    elif what < 0.4:
        life.delay_ms = chance.uniform(0, DELAY_MS_MAX)
        return life
    elif what < 0.75:
        life.moment = chance.choice(WITHOUT_CLUSTERING if life.profile == LONG_LOG else tuple(RUNNING))
        life.occurrence = chance.randint(1, RUNNING[life.moment])
    elif kind != "server":  # its threads take a while to get anywhere, and it knows no signals
        life.delay_ms = chance.uniform(0, 5 * DELAY_MS_MAX)
        return life
    elif what < 0.79:
        life.moment, life.signal, life.signal_after_ms = "", "stop", delay(chance)
        return life
    else:
        life.signal = "stop" if what < 0.91 else "backup"
        life.moment = chance.choice(CLOSING if life.signal == "stop" else BACKING_UP)
        life.occurrence = 1 if life.moment in ("close", "closing checkpoint", "backup") else chance.randint(1, 3)
        life.signal_after_ms, life.patience_ms = delay(chance), 350.0
    life.how = chance.choice(("before", "after", "outside", "outside"))
    life.delay_ms = delay(chance) if life.how == "outside" else 0.0
    return life
