"""The disk of the simulation: a recorded directory whose calls fail when the plan says so, and which loses its power.

Law of this room: it knows calls, never what they mean to the store. Calls that change something are counted, and so are
reads; a plan names them by count. After a crash every call raises it again, so that nobody goes on. Everything that it
decides comes from the chance that it was given, and every event goes into one digest: the trace.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from typing import Any, NamedTuple

from media import PAGE, SECTOR, Event, Written
from recorded import RecordedDirectory

from durable_log.engine.files import WriteFailed

READS = ("read", "open")
NEEDS_SPACE = frozenset({"write", "commit", "mark", "create"})
HOWS = {"short": ("write", "commit", "mark"), "lost": ("sync",)}
EVERYTHING = frozenset({"write", "commit", "mark", "sync", "create", "rename", "remove", "sync directory", "link"})


class Crash(BaseException):
    """The power is gone, or the process was killed."""


class Fault(NamedTuple):
    """Calls of these kinds fail from the ``first`` to before the ``end``-th call, counted in changes or in reads."""

    kinds: frozenset[str]
    first: int
    end: int
    error: int
    how: str
    """"fail": nothing happens. "short": a part of a write happens. "lost": a sync drops what it was to cover."""
    once: bool = False


class SimulatedDisk(RecordedDirectory):
    """One disk, as long as its power lasts."""

    def __init__(self, chance: random.Random, counts: Counter[str], trace: Any, files: dict[str, bytes] | None = None,
                 *, grows_in_place: bool = True) -> None:  # fmt: skip
        super().__init__(files, grows_in_place=grows_in_place)
        self.recording = False
        self._chance, self._counts, self._trace = chance, counts, trace
        self.faults = self._ask
        self.plan: list[Fault] = []
        self.crash_at = 0
        """Before which change the power goes; 0 if it does not."""
        self.changes = self.reads = self.fired = self.broken = 0
        """Calls that were counted, faults, and those of them that were neither of reads nor for want of space."""
        self.dead = self.quiet = False
        self.syncs_failed = False
        self._short = 0

    # --- what happens -------------------------------------------------------------------------------------------------

    def record(self, event: Event) -> None:
        if self._short and isinstance(event, Written):
            self._cut_short(event)
        for field in (type(event).__name__, *event):
            self._trace.update(field if isinstance(field, bytes) else repr(field).encode())
        super().record(event)

    def _cut_short(self, event: Written) -> None:
        failing, self._short = self._short, 0
        # Space is given out by the page: the last one is missing, and with it a part of any block.
        part = event.data[: PAGE * self._chance.randrange(-(-len(event.data) // PAGE))]
        super().record(Written(event.inode, event.position, part))
        file = next(file for file in self.files.values() if file.inode == event.inode)
        file._bytes[:] = self.media.inodes[event.inode].epochs[-1].whole()
        raise WriteFailed(failing, os.strerror(failing), file.name)

    def _ask(self, what: str, name: str) -> None:
        if self.dead:
            raise Crash
        if self.quiet:
            return
        reading = what in READS
        if reading:
            self.reads += 1
        else:
            self.changes += 1
            if self.changes == self.crash_at:
                self.die()
        count = self.reads if reading else self.changes
        for fault in self.plan:
            if fault.first <= count < fault.end and what in fault.kinds:
                self._fail(fault, what, name)
                return

    def die(self) -> None:
        """Now."""
        self.dead = True
        raise Crash

    def _fail(self, fault: Fault, what: str, name: str) -> None:
        if fault.once:
            self.plan.remove(fault)
        if fault.error == errno.ENOSPC and what in ("commit", "mark") and self.grows_in_place:
            return  # there is room where zeroes were written
        how = fault.how if what in HOWS.get(fault.how, ()) else "fail"
        self.fired += 1
        self.broken += what not in READS and fault.error != errno.ENOSPC
        self._counts[f"fault: {errno.errorcode[fault.error]} {what} {how}"] += 1
        if how == "short":
            self._short = fault.error
            return
        if what == "sync":
            self.syncs_failed = True
            if how == "lost":
                self._lose(name)
        kind = WriteFailed if what in ("commit", "mark") else OSError
        raise kind(fault.error, os.strerror(fault.error), name)

    def _lose(self, name: str) -> None:
        file = self.files[name]
        dirty, part = self.media.dirty_sectors(file.inode), self._chance.choice((0, 0, 0.5, 1))
        kept = frozenset(sector for sector in dirty if self._chance.random() < part)
        file.lose(kept, shown=self._chance.random() < 0.5)

    def demand_a_reason(self, error: Exception) -> None:
        """Raise ``AssertionError`` unless the disk has failed, which excuses ``error``."""
        if not self.fired:
            raise AssertionError(f"failed without a reason: {error!r}") from error

    # --- what is left -------------------------------------------------------------------------------------------------

    def contents(self) -> dict[str, bytes]:
        """The files as the page cache shows them: what a kill leaves."""
        return {name: bytes(file._bytes) for name, file in sorted(self.files.items())}

    def image(self) -> dict[str, bytes]:
        """What a loss of power leaves, this time."""
        chance = self._chance
        crash = self.media.crash(chance.choice((SECTOR, SECTOR, PAGE)), torn=chance.random() < 0.5)
        newest = chance.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        entries = chance.choice((0.0, 0.5, 1.0, newest))
        digits = []
        for turn, choice in enumerate(crash.choices):
            if chance.random() < (newest if turn < crash.entries_from else entries):
                digits.append(choice.radix - 1)
            else:
                digits.append(chance.randrange(choice.radix) if chance.random() < 0.3 else 0)
        return crash.image(digits)

    def revive(self) -> None:
        """The next process finds the disk as it is, page cache included."""
        self.dead, self.plan, self.crash_at, self._short = False, [], 0, 0
        self.changes = self.reads = self.fired = self.broken = 0
        for file in self.files.values():
            file._bytes = bytearray(file._bytes)  # somebody of the process that ended may hold the old one

    def close(self) -> None:
        """Whoever opened it has gone; it stays as it is."""

    def discard_all(self) -> None:
        """Nobody wants it any more."""
        super().close()
