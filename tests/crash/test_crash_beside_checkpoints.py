"""Everything happens while checkpoints run, and the process is killed afterwards, or before, or by and by.

A checkpoint looks at streams in slices. What happens to a stream between two of them, or before or after, must come to
the same, whatever of it a row knows and whatever only the log does.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field, replace

import pytest
from twins import SMALL, Clock, TwinDirectory, copy_of, open_store

from durable_log.engine import catalog, checkpoint, compaction, snapshot
from durable_log.engine.keeper import Background
from durable_log.store import Store

CALM = replace(
    SMALL, sweep_seconds=3600.0, cluster_segments=1000, cluster_seconds=1e9, preallocate=False, recent_bytes_max=1
)
SEEDS = int(os.environ.get("DURABLE_LOG_SEEDS", "60"))
NAMES = [f"s{number}" for number in range(7)]


@dataclass
class Life:
    content: bytes
    first: int = 0
    source: Life | None = None
    forks: int = 0
    deleted: bool = False


@dataclass
class Truth:
    """What was acknowledged. ``lives`` has deleted streams too, as long as forks need them."""

    lives: dict[str, Life] = field(default_factory=dict)

    def readable(self) -> dict[str, Life]:
        return {name: life for name, life in self.lives.items() if not life.deleted}

    def delete(self, name: str) -> None:
        self.lives[name].deleted = True
        life: Life | None = self.lives[name]
        while life is not None and life.deleted and not life.forks:
            self.lives = {name: other for name, other in self.lives.items() if other is not life}
            life = life.source
            if life is not None:
                life.forks -= 1

    def check(self, store: Store) -> None:
        readable = self.readable()
        assert list(store.names()) == sorted(readable)
        for name, life in readable.items():
            stream = store.stream(name)
            assert (stream.info().first, stream.info().tail) == (life.first, len(life.content)), name
            assert stream.read(life.first, limit=2**20).data == life.content[life.first :], name
        assert store.stats()["streams"] == len(self.lives)
        assert store.report.damage == store.report.lost == []
        store.engine.check()


class Play:
    """One random change after the other."""

    def __init__(self, seed: int, store: Store, truth: Truth) -> None:
        self.random, self.store, self.truth = random.Random(seed), store, truth

    def step(self) -> None:
        """Change something, in the store and in the truth."""
        name, lives = self.random.choice(NAMES), self.truth.lives
        life = lives.get(name)
        if life is None:
            self.create(name)
        elif not life.deleted:
            self.random.choice((self.append, self.append, self.trim, self.delete, self.delete))(name)

    def create(self, name: str) -> None:
        readable = self.truth.readable()
        if readable and self.random.random() < 0.7:
            of = self.random.choice(sorted(readable))
            source = readable[of]
            at = self.random.randint(source.first, len(source.content))
            self.store.create(name, fork_of=of, fork_at=at)
            self.truth.lives[name] = Life(source.content[:at], source.first, source)
            source.forks += 1
        else:
            data = self.random.randbytes(self.random.randint(0, 3000))
            self.store.create(name, data=data)
            self.truth.lives[name] = Life(data)

    def append(self, name: str) -> None:
        data = self.random.randbytes(self.random.randint(1, 5000))
        self.store.stream(name).append(data)
        self.truth.lives[name].content += data

    def trim(self, name: str) -> None:
        life = self.truth.lives[name]
        life.first = self.random.randint(life.first, len(life.content))
        self.store.stream(name).trim(life.first)

    def delete(self, name: str) -> None:
        self.store.delete(name)
        self.truth.delete(name)


def reopened(directory, truth: Truth) -> None:
    """What a kill left is whole, and stays so after another kill, and goes when it is deleted."""
    with open_store(directory, CALM, Clock()) as store:
        truth.check(store)
        again = copy_of(directory)
    with open_store(again, CALM, Clock()) as store:
        truth.check(store)
        store.engine.upkeep.compact()
        truth.check(store)
        for name in sorted(truth.readable()):
            store.delete(name)
        assert store.stats()["streams"] == 0
        store.engine.upkeep.compact()
        assert (store.stats()["clustered_segments"], store.stats()["resident_streams"]) == (0, 0)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_happens_between_the_slices_of_a_checkpoint_outlives_a_kill(seed, monkeypatch):
    monkeypatch.setattr(Background, "wake", lambda self: None)
    monkeypatch.setattr(catalog, "IDLE_MAX", 1)
    for module in (checkpoint, compaction, snapshot):
        monkeypatch.setattr(module, "SLICE_STATES", 1)
    for module in (checkpoint, compaction):
        monkeypatch.setattr(module, "pause", lambda: None)
    twin, truth, chance = TwinDirectory(), Truth(), random.Random(seed)
    with open_store(twin, CALM, Clock()) as store:
        play = Play(seed, store, truth)

        def pause() -> None:
            while chance.random() < 0.3:
                play.step()

        for _ in range(4):
            for _ in range(chance.randint(0, 12)):
                play.step()
            for module in (checkpoint, compaction):
                monkeypatch.setattr(module, "pause", pause)
            chance.choice((store.engine.upkeep.cluster, store.engine.upkeep.cluster, store.engine.upkeep.compact))()
            for module in (checkpoint, compaction):
                monkeypatch.setattr(module, "pause", lambda: None)
            truth.check(store)
            killed = copy_of(twin)
            reopened(killed, truth)
            if chance.random() < 0.3:
                store.engine.upkeep.sweep()
