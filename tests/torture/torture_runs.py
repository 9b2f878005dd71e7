"""A torture: processes on one store after the other, each killed; beside them, in this process, all who know better."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torture_plans as plans
import uvloop
from stress_truth import StressTruth
from torture_crowd import Crowd
from torture_ledger import Ledger, Violation
from torture_plans import Life

import durable_log
from durable_log.engine.files import LOCK_NAME
from durable_log.engine.manifest import MANIFEST_NAME
from durable_log.model import Options
from durable_log.store import Store

CHECK_EVERY = 10
STORE_KILLS = {"server": (10, 30, 100, 300), "library": (10, 30)}
"""After so many kills a store is done with. Libraries delete little, so theirs would grow."""
SILENCE_SECONDS_MAX = 60.0
"""The zygote has less patience with its children."""
SERVED = 0.4
"""This part of the stores is served; the others are used by threads in the process that is killed."""
CHECK_OPTIONS = Options(**{**plans.TINY, "sweep_seconds": 3600.0, "cluster_seconds": 3600.0, "cluster_segments": 10**6})


@dataclass
class Figures:
    """What there was."""

    kills: int = 0
    checks: int = 0
    backups: int = 0
    open_seconds_max: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        return (
            f"{self.kills} kills, {self.checks} checks, {self.backups} backups, longest open "
            f"{self.open_seconds_max * 1000:.0f} ms; {counts}"
        )

    def at(self) -> str:
        """At which moments processes died, and how many of those planned did not come in time."""
        return ", ".join(
            f"{count} {moment}" + (f" ({missed} missed)" if (missed := self.missed[moment]) else "")
            for moment, count in sorted(self.moments.items())
        )


class Zygote:
    """The process that forks and kills (see ``zygote.py``), from the outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._orders, self._events = process.stdin, process.stdout

    @classmethod
    async def hatch(cls, listener: socket.socket) -> Zygote:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("zygote.py")), str(listener.fileno()),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=(listener.fileno(),),
        )  # fmt: skip
        zygote = cls(process)
        assert (await zygote.event())["event"] == "hatched"
        return zygote

    def order(self, order: str) -> None:
        self._orders.write(f"{order}\n".encode())

    async def event(self) -> dict[str, Any]:
        line = await asyncio.wait_for(self._events.readline(), SILENCE_SECONDS_MAX)
        assert line, "the zygote has died"
        event: dict[str, Any] = json.loads(line)
        return event

    async def leave(self) -> None:
        """With its stdin its child ends, too."""
        self._orders.close()
        await self._process.wait()


class Torture:
    """All stores of one torture, in ``root``, which keeps what there is when something fails."""

    def __init__(
        self, root: Path, seed: int, kills: int, *, kind: str = "", mutant: str = "",
        progress: Callable[[str], None] = lambda _words: None,
    ) -> None:  # fmt: skip
        self.root, self.seed, self.kills, self._kind, self._mutant = root, seed, kills, kind, mutant
        self.figures = Figures()
        self.generation = 0
        self.life: Life | None = None
        self._progress = progress

    def run(self) -> Figures:
        uvloop.run(self._run())
        return self.figures

    async def _run(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            zygote = await Zygote.hatch(listener)
            try:
                number = 0
                while self.figures.kills < self.kills:
                    await self._one_store(number, zygote, listener.getsockname()[1])
                    hang_up(listener)
                    number += 1
            finally:
                await zygote.leave()

    async def _one_store(self, number: int, zygote: Zygote, port: int) -> None:
        chance = random.Random(f"{self.seed}/store {number}")
        kind = self._kind or ("server" if chance.random() < SERVED else "library")
        directory = self.root / f"store{number}"
        subject = Served(directory, port, f"{self.seed}/{number}") if kind == "server" else Used(directory)
        enough = min(self.kills, self.figures.kills + chance.choice(STORE_KILLS[kind]))
        try:
            subject.start()
            while self.figures.kills < enough:
                self.life = plans.plan(self.seed, self.generation, kind, str(directory), self._mutant)
                self.generation += 1
                await self._one_life(self.life, zygote, subject)
                if chance.random() < 1 / CHECK_EVERY:
                    self._check(subject)
        except BaseException:
            subject.write_down()
            raise
        finally:
            await subject.stop()
            self.figures.counts += subject.counts
        self._check(subject)
        subject.remove()

    async def _one_life(self, life: Life, zygote: Zygote, subject: Subject) -> None:
        figures, promised, event, signalling = self.figures, {}, "", None
        zygote.order(json.dumps(life.as_dict()))
        while event != "ended":
            facts = await zygote.event()
            event = facts["event"]
            if event == "ready":
                figures.open_seconds_max = max(figures.open_seconds_max, facts["seconds"])
                if life.signal:
                    signalling = asyncio.ensure_future(self._signal(life, zygote, subject, promised))
            elif event == "backed up":
                promised["whole"] = True
            elif event != "ended":
                raise Violation(f"{event}: {facts.get('line')}; see {subject.log}")
        if signalling is not None:
            signalling.cancel()
        subject.stopping(False)
        killed = facts["code"] == -9
        if not killed and not (facts["code"] == 0 and life.signal == "stop"):
            raise Violation(f"the process ended by itself with {facts['code']}; see {subject.log}")
        figures.kills += killed
        figures.kinds[life.kind] += killed
        figures.missed[life.moment] += killed and not facts["met"]
        figures.moments[life.moment or "stop"] += facts["met"] or not killed
        subject.look()
        if "streams" in promised:
            figures.backups += subject.check_backup(promised)
        if figures.kills % 100 == 0 and killed:
            counts = figures.counts + subject.counts
            self._progress(f"generation {self.generation}: {replace(figures, counts=counts)}")

    async def _signal(self, life: Life, zygote: Zygote, subject: Subject, promised: dict[str, Any]) -> None:
        await asyncio.sleep(life.signal_after_ms / 1000)
        if life.signal == "backup":
            promised["streams"] = subject.promised()
        else:
            subject.stopping(True)
        zygote.order(life.signal)

    def _check(self, subject: Subject) -> None:
        """What the last kill left, in a copy: so the next process opens what no one has opened since."""
        copy = self.root / "copy"
        if subject.directory.exists():  # else nothing has lived long enough
            shutil.copytree(subject.directory, copy)
        now = time.time()
        for _ in range(2):  # the second time, after an orderly end
            with durable_log.open(copy, options=CHECK_OPTIONS, clock=lambda: now) as store:
                subject.check(store, now)
                check_files(store, copy)
        shutil.rmtree(copy)
        self.figures.checks += 1


def hang_up(listener: socket.socket) -> None:
    """On everybody whom no server has accepted: what they ask was meant for the store that is gone."""
    listener.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()


def check_files(store: Store, directory: Path) -> None:
    """The store's own invariants, its files' checksums, and no file that nothing names."""
    store.engine.check()
    faults = store.engine.upkeep.check_files()
    if faults:
        raise Violation(f"files are as they were written: {faults}")
    manifest = store.engine.upkeep.checkpointer.manifest
    named = {f"{file.number:08x}.seg" for file in manifest.clustered} | {f"{run:08x}.run" for run in manifest.runs}
    files = {path.name for path in directory.iterdir() if path.suffix != ".log"} - {LOCK_NAME, MANIFEST_NAME}
    if files != named:
        raise Violation(f"only files that the manifest names: {sorted(files ^ named)}")


class Subject:
    """One store, and all that is known of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = Path(f"{directory}.log")
        self.counts = Counter[str]()

    def start(self) -> None:
        """Begin to work on it."""

    async def stop(self) -> None:
        """Work on it no more."""

    def stopping(self, is_so: bool) -> None:
        """The server was asked to end, and may refuse requests."""

    def look(self) -> None:
        """Whether anything was met so far that should not be."""
        if self.log.exists() and self.log.stat().st_size:
            raise Violation(f"a server has nothing to complain of: {self.log.read_text()[-3000:]}")

    def promised(self) -> dict[str, Any]:
        """What a backup that begins now has to hold."""
        return {}

    def check_backup(self, _promised: dict[str, Any]) -> int:
        """How many whole backups were found."""
        return 0

    def check(self, store: Store, now: float) -> None:
        """Compare the store with what is known."""

    def write_down(self) -> None:
        """What is known, beside the store."""

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in self.directory.parent.glob(f"{self.directory.name}.*"):
            path.unlink() if path.is_file() else shutil.rmtree(path)


class Served(Subject):
    """A store behind a server."""

    def __init__(self, directory: Path, port: int, seed: str) -> None:
        super().__init__(directory)
        self._ledger = Ledger()
        self._crowd = Crowd(port, self._ledger, seed)
        self.counts = self._crowd.counts
        self._backups = Path(f"{directory}.backups")

    def start(self) -> None:
        self._crowd.start()

    async def stop(self) -> None:
        await self._crowd.stop()

    def stopping(self, is_so: bool) -> None:
        self._crowd.stopping = is_so

    def look(self) -> None:
        super().look()
        if self._crowd.failure is not None:
            raise self._crowd.failure

    def promised(self) -> dict[str, Any]:
        shutil.rmtree(self._backups, ignore_errors=True)
        return self._ledger.promised()

    def check_backup(self, promised: dict[str, Any]) -> int:
        """It is whole, or it is none; the server said which."""
        made = list(self._backups.iterdir()) if self._backups.exists() else []
        whole, now = 0, time.time()
        for path in made:
            if not (path / MANIFEST_NAME).exists():
                continue  # and with no manifest but files, it does not open
            with durable_log.open(path, options=CHECK_OPTIONS, clock=lambda: now) as store:
                self._ledger.check_backup(store, promised["streams"], now)
                check_files(store, path)
                whole += 1
        if promised.get("whole") and whole != 1:
            raise Violation(f"a backup that is told of is there: {made}")
        shutil.rmtree(self._backups, ignore_errors=True)
        return whole

    def check(self, store: Store, now: float) -> None:
        self._ledger.check(store, now)

    def write_down(self) -> None:
        Path(f"{self.directory}.ledger").write_text(json.dumps(self._ledger.as_list(), indent=1))


class Used(Subject):
    """A store in the process that is killed, whose threads write a ledger of their own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._ledger = Path(f"{directory}.ledger")
        self._ledger.touch()

    def check(self, store: Store, now: float) -> None:
        truth = StressTruth(self._ledger)
        truth.check(store)
        self.counts = Counter(truth.counts)
