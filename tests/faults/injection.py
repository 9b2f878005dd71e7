"""One workload under one fault, and everything that has to hold afterwards; and which faults there are to try.

Law of this file: each run begins with a fresh copy of its base, in a directory of its own, and says nothing of another.
It runs in a process that was started with the shim.
"""

from __future__ import annotations

import faulthandler
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fault_workloads import BASES, WORKLOADS, Workload, by_itself_nothing_happens
from session import Clock, Ended, Session, Truth, checked, copied, open_files
from shim import APPLICABLE, CHANGING, FOREVER, FULL, HALF, Call, Fault, Shim

from durable_log.engine.format import PAGE
from durable_log.engine.manifest import MANIFEST_NAME

PATIENCE_SECONDS = 20.0
INVISIBLE = {"EINTR": 2, HALF: 1}
"""What nobody may notice, even if every second call is interrupted, or every one does half of what it was asked."""


NO_SPACE = ("ENOSPC", "EDQUOT", "EFBIG", FULL, "EMFILE")
"""What only refuses, unless a sync says it."""


class Watchdog:
    """Ends the process with the stacks of all threads when a run takes too long."""

    def __init__(self) -> None:
        self._what, self._deadline = "", float("inf")
        threading.Thread(target=self._watch, daemon=True).start()

    def expect(self, what: str) -> None:
        """This is to be done within the time that a run may take."""
        self._what, self._deadline = what, time.monotonic() + PATIENCE_SECONDS

    def _watch(self) -> None:
        while time.monotonic() < self._deadline:
            time.sleep(0.2)
        sys.stderr.write(f"no end after {PATIENCE_SECONDS} s\n{self._what}\n")
        faulthandler.dump_traceback(all_threads=True)
        os._exit(3)


class Base(NamedTuple):
    """A store's directory to be copied, and what is in it."""

    directory: Path
    truth: Truth
    now: float


class Injection:
    """Runs of one workload. ``scratch`` is a directory for its stores, on a file system that is fast."""

    def __init__(self, name: str, scratch: Path) -> None:
        self.name, self._scratch = name, scratch
        self._workload: Workload = WORKLOADS[name]
        self._shim = Shim()
        self._twice = True
        with by_itself_nothing_happens(**dict(self._workload.tuned)):
            self._base = self._made(self._workload.base)

    def calls(self) -> list[Call]:
        """What the workload calls when nothing fails."""
        self.run(None)
        return self.made

    def run(self, fault: Fault | None, *, killed: bool = False, twice: bool = True) -> int:
        """The workload under that fault, and the checks; ``killed``: of what a kill at its end would leave, too;
        ``twice``: of what the checks themselves leave, too.

        Returns how many calls failed. Raises ``AssertionError``, and whatever a store must not raise.
        """
        self._twice = twice
        try:
            with by_itself_nothing_happens(**dict(self._workload.tuned)):
                return self._run(fault, killed=killed)
        finally:
            self._shim.disarm()

    def _run(self, fault: Fault | None, *, killed: bool) -> int:
        root = self._scratch / "run"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        if self._base.directory.exists():
            shutil.copytree(self._base.directory, root / "store")
        files = open_files()
        session = Session(root / "store", self._shim, self._base.truth, Clock(self._base.now))
        self._shim.watch(root)
        if fault is not None:
            self._shim.arm(fault)
        try:
            with suppress(Ended):
                self._workload.work(session)
        finally:
            self.made, hit = self._shim.calls(), self._shim.hit
        self._finish(session, killed=killed)
        assert open_files() == files, "the store left files open"
        assert not self._shim.violation, self._shim.violation
        if fault is not None and fault.error in INVISIBLE:
            assert not session.refused, f"{fault.error} was noticed"
            assert not session.latched.is_set(), f"{fault.error} was noticed"
        if fault is not None and fault.error in NO_SPACE:
            latches = any(call.error and call.kind == "sync" for call in self.made)
            assert latches or not session.latched.is_set(), f"the store latched for {fault.error}"
        self._check(session, session.path, session.truth)
        for target, truth in session.backups:
            if (target / MANIFEST_NAME).exists():
                self._check(session, target, truth)
        return hit

    def _finish(self, session: Session, *, killed: bool) -> None:
        """Nothing fails any more: the store that is still open goes on as if nothing had, unless it has latched."""
        session.is_alone = False
        if session.store is None:
            self._shim.disarm()
            return
        hit = self._shim.hit
        self._shim.disarm()
        if session.store.stats()["failure"]:
            assert hit, "the store latched without a cause"
            session.latched.set()
        session.check_latch()
        if not session.latched.is_set():
            session.check_works("in the same process")
        if killed:
            image = self._scratch / "run" / "killed"
            shutil.copytree(session.path, image)
            session.close()
            self._check(session, image, session.truth)
        else:
            session.close()

    def _check(self, session: Session, path: Path, truth: Truth) -> None:
        """The store opens, is complete, works, and is so again after that."""
        again = Session(path, self._shim, truth, session.clock)
        with checked(again):
            again.check_works("after opening")
        if self._twice:
            with checked(Session(path, self._shim, again.truth, session.clock)):
                pass

    # ---- bases

    def _made(self, name: str) -> Base:
        """The base of that name: the files of a store that is still open, as a kill leaves them; or closed ones."""
        directory, image = self._scratch / "base", self._scratch / "image"
        for each in (directory, image):
            shutil.rmtree(each, ignore_errors=True)
        session = Session(directory, self._shim)
        if name == "nothing":
            return Base(image, {}, session.clock.now)
        session.open()
        BASES[name](session)
        if name in ("young", "expiring"):
            session.close()
            directory.rename(image)
        else:
            truth = copied(session.truth)
            if name == "torn":
                session.append("b", b"nobody was told of this" * 600)
                session.truth = truth
            shutil.copytree(directory, image)
            session.close()
            if name == "torn":
                _tear(image)
        return Base(image, session.truth, session.clock.now)


def _tear(directory: Path) -> None:
    """Only the first page of the last block has arrived."""
    newest = max(path for path in directory.glob("*.log") if any(path.read_bytes()[PAGE:]))
    content = bytearray(newest.read_bytes())
    at = content.index(b"nobody was told") + PAGE
    content[at:] = bytes(len(content) - at)
    newest.write_bytes(content)


# ---- which faults there are


def faults_in_ci(calls: list[Call]) -> Iterator[Fault]:
    """Every call fails once, every one that takes room or opens a file fails for ever, and all of them are interrupted
    or do half of what they are asked.
    """
    for error, step in INVISIBLE.items():
        yield Fault(1, error, FOREVER, step)
    for call, _ in _applicable(calls, "EIO"):
        yield Fault(call, "EIO", 1, manner=("nothing", "done")[call % 2])
    for error in (FULL, "EMFILE"):
        for call, _ in _applicable(calls, error):
            yield Fault(call, error, FOREVER)


def all_faults(calls: list[Call]) -> Iterator[Fault]:
    """Every call with everything that it may say, once and for ever, with and without having done what it was asked."""
    for error, step in INVISIBLE.items():
        yield Fault(1, error, FOREVER, step)
        yield from (Fault(call, error) for call, _ in _applicable(calls, error))
    for error in sorted(APPLICABLE.keys() - INVISIBLE.keys()):
        for call, kind in _applicable(calls, error):
            for manner in ("nothing", "done") if kind in CHANGING else ("nothing",):
                yield Fault(call, error, 1, manner=manner)
                yield Fault(call, error, FOREVER, manner=manner)


def _applicable(calls: list[Call], error: str) -> Iterator[tuple[int, str]]:
    """The calls that may say that, as they are counted, and of which kind each is."""
    return enumerate((call.kind for call in calls if call.kind in APPLICABLE[error]), 1)
