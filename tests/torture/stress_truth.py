"""What the ledger of a stress says of a store, and whether the store holds it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from stress_writer import CONTENT_MAX, SHARED, Life, content, produced
from torture_ledger import read_all

from durable_log.store import Store

RECORD = re.compile(rb"<([^/<>]+)/([0-9]+)\.*>")


@dataclass
class Known:
    """What a ledger says of a stream: at least, and at most, so much may have happened to it."""

    life: Life
    tail: int
    first: int = 0
    first_at_most: int = 0
    deleted: bool = False
    may_be_deleted: bool = False


class StressTruth:
    """All that the ledger says."""

    def __init__(self, path: Path) -> None:
        self.known: dict[int, Known] = {}
        self.maybe = {SHARED}
        self.counts: Counter[str] = Counter()
        self._produced_up_to: dict[str, int] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        for line in path.read_text().splitlines():
            what, *words = line.split(" ")
            getattr(self, "_" + what.replace("?", "_begins"))(*words)
            self.counts[what] += not what.endswith("?")
        self.lives = {number: known.life for number, known in self.known.items()}

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

    def _produced(self, producer: str, seq: str, offset: str) -> None:
        assert int(seq) == self._produced_up_to.get(producer, 0), (producer, seq)
        self._produced_up_to[producer] = int(seq) + 1
        if offset != "-1":
            self._offsets[producer, int(seq)] = int(offset)
        else:
            self.counts["duplicates"] += 1

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
        if SHARED in listed:
            self._check_produced(read_all(store, SHARED))

    def _check_produced(self, content: bytes) -> None:
        """What producers appended is there exactly once, in order, at its offset, and nothing else."""
        at, found = 0, dict.fromkeys(self._produced_up_to, 0)
        while at < len(content):
            match = RECORD.match(content, at)
            assert match is not None, (at, content[at : at + 100])
            producer, seq = match[1].decode(), int(match[2])
            assert (seq, match[0]) == (found.get(producer, 0), produced(producer, seq)), (producer, found, at)
            assert self._offsets.get((producer, seq), at) == at, (producer, seq, at)
            found[producer], at = seq + 1, match.end()
        for producer, acknowledged in self._produced_up_to.items():
            assert acknowledged <= found[producer] <= acknowledged + 1, (producer, acknowledged, found)
