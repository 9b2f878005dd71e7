"""Everything at once on a real directory: in this process, and in one that is killed again and again."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import stress_writer
from stress_writer import CONTENT_MAX, OPTIONS, Ledger, Life, Stress, content
from twins import until

import durable_log
from durable_log.engine import catalog, checkpoint, compaction, snapshot
from durable_log.engine.files import LOCK_NAME
from durable_log.engine.manifest import MANIFEST_NAME
from durable_log.store import Store

SECONDS = float(os.environ.get("DURABLE_LOG_STRESS_SECONDS", "4"))
KILLS = int(os.environ.get("DURABLE_LOG_STRESS_KILLS", "6"))


@dataclass
class Known:
    """What a ledger says of a stream: at least, and at most, so much may have happened to it."""

    life: Life
    tail: int
    first: int = 0
    first_at_most: int = 0
    deleted: bool = False
    may_be_deleted: bool = False


class Truth:
    """All that the ledger says."""

    def __init__(self, path: Path) -> None:
        self.known: dict[int, Known] = {}
        self.maybe: set[str] = set()
        self.failures: list[str] = []
        for line in path.read_text().splitlines():
            what, *words = line.split(" ")
            getattr(self, "_" + what.replace("?", "_begins"))(*words)
        self.lives = {number: known.life for number, known in self.known.items()}

    def _begin(self, generation: str) -> None:
        pass

    def _failure(self, *words: str) -> None:
        self.failures.append(" ".join(words))

    def _create_begins(self, name: str) -> None:
        self.maybe.add(name)

    def _create(self, name: str, number: str, source: str, base: str) -> None:
        life = Life(name, int(number), int(source), int(base))
        self.known[life.number] = Known(life, life.base, 0, CONTENT_MAX if life.source else 0)

    def _append(self, number: str, tail: str) -> None:
        self.known[int(number)].tail = int(tail)

    def _trim_begins(self, number: str, before: str) -> None:
        known = self.known[int(number)]
        known.first_at_most = max(known.first_at_most, int(before))

    def _trim(self, number: str, first: str) -> None:
        self.known[int(number)].first = int(first)

    def _delete_begins(self, number: str) -> None:
        self.known[int(number)].may_be_deleted = True

    def _delete(self, number: str) -> None:
        self.known[int(number)].deleted = True

    def check(self, store: Store) -> None:
        """All that was acknowledged is there, and nothing that was deleted."""
        report = store.report
        assert (report.damage, report.lost, report.unreadable_segments) == ([], [], [])
        listed = set(store.names())
        sure = {known.life.name for known in self.known.values() if not known.may_be_deleted}
        assert sure <= listed, sure - listed
        over = {known.life.name for known in self.known.values() if known.deleted}
        assert listed <= self.maybe - over, listed - (self.maybe - over)
        for number, known in self.known.items():
            if known.life.name in listed:
                stream = store.stream(known.life.name)
                info = stream.info()
                assert (info.number, info.fork_at or 0) == (number, known.life.base)
                assert info.tail >= known.tail, (number, info, known)
                assert known.first <= info.first <= max(known.first, known.first_at_most), (number, info, known)
                held = stream.read(info.first, limit=CONTENT_MAX).data
                assert held == content(self.lives, number, info.tail)[info.first :], number
        store.engine.check()


def reopened(directory: Path, truth: Truth) -> None:
    with durable_log.open(directory, options=replace(OPTIONS, sweep_seconds=3600.0)) as store:
        truth.check(store)
        manifest = store.engine.upkeep.checkpointer.manifest
        named = {f"{file.number:08x}.seg" for file in manifest.clustered} | {f"{run:08x}.run" for run in manifest.runs}
        files = {path.name for path in directory.iterdir() if path.suffix != ".log"}
        assert files - {LOCK_NAME, MANIFEST_NAME} == named


def test_readers_and_writers_meet_no_difference_while_everything_moves(tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "IDLE_MAX", 3)
    for module in (checkpoint, compaction, snapshot):
        monkeypatch.setattr(module, "SLICE_STATES", 3)
    with durable_log.open(tmp_path / "store", options=OPTIONS) as store:
        stress = Stress(store, Ledger(tmp_path / "ledger"), "one")
        end = time.monotonic() + SECONDS
        stress.run(lambda: time.monotonic() > end)
        assert stress.failure is None, stress.failure
        assert min(stress.counts.values()) > 0, stress.counts
        assert store.stats()["failure"] is None
    reopened(tmp_path / "store", Truth(tmp_path / "ledger"))


def test_a_store_that_is_killed_while_everything_moves_keeps_what_it_promised(tmp_path):
    chance, ledger = random.Random(KILLS), tmp_path / "ledger"
    ledger.touch()
    for generation in range(KILLS):
        arguments = [sys.executable, stress_writer.__file__, str(tmp_path / "store"), str(ledger), f"g{generation}"]
        writer = subprocess.Popen(arguments)
        try:
            if generation % 3:
                until(lambda line=f"begin g{generation}\n": line in ledger.read_text(), "the beginning")
            else:
                time.sleep(chance.uniform(0.1, 0.4))  # maybe while it is opened
            time.sleep(chance.uniform(0.02, 0.8))
        finally:
            writer.kill()
            writer.wait()
        truth = Truth(ledger)
        assert truth.failures == []
        reopened(tmp_path / "store", truth)
