"""The process from which all servers are forked, and which kills them.

It has imported everything and opened nothing: no store, no thread, no event loop. So a server is there within
milliseconds of its fork, and what it does is what one does that was started by itself. Run as ``python zygote.py
LISTENER_FD``; on stdin, lines of JSON: a life (see ``torture_plans``) or a signal for the one that lives; on stdout,
what has happened to it. It waits for nothing but these and the kill, which is as punctual as the system allows.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import stress_writer
import torture_mutants as mutants
import uvicorn.loops.uvloop
import uvicorn.protocols.http.httptools_impl  # noqa: F401 - what uvicorn would import late

import durable_log
from durable_log._cli.serve import Settings, serve_store
from durable_log.engine.backup import Backups
from durable_log.engine.checkpoint import Checkpointer
from durable_log.engine.files import DiskDirectory, DiskFile
from durable_log.engine.log import LogEngine
from durable_log.engine.segment import LogSegment
from durable_log.engine.upkeep import Upkeep
from durable_log.model import Options

PATIENCE_SECONDS = 20.0
LAST_WORDS_SECONDS = 1.0
SIGNALS = {"stop": signal.SIGTERM, "backup": signal.SIGUSR1}

MOMENTS: dict[str, tuple[type, str, str]] = {
    "lock": (DiskDirectory, "lock", ""),
    "create": (DiskDirectory, "create", ""),
    "rename": (DiskDirectory, "rename", ""),
    "remove": (DiskDirectory, "remove", ""),
    "link": (DiskDirectory, "link_from", ""),
    "directory sync": (DiskDirectory, "sync", ""),
    "commit": (DiskFile, "commit", ""),
    "file sync": (DiskFile, "sync", ""),
    "fill": (DiskFile, "fill_with_zeroes", ""),
    "recycle": (LogSegment, "recycle", ""),
    "checkpoint": (Checkpointer, "run", ""),
    "clustered segment": (DiskDirectory, "create", ".seg"),
    "run": (DiskDirectory, "create", ".run"),
    "manifest": (DiskDirectory, "rename", "MANIFEST"),
    "backup": (Backups, "make", ""),
    "close": (LogEngine, "close", ""),
    "closing checkpoint": (Upkeep, "cluster_at_close", ""),
}
"""Calls at which a process can die, and of which file, if not of any."""


# --- in the child ---------------------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def say(words: str) -> None:
    os.write(1, f"{words}\n".encode())


def around(owner: type, method: str, file: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have something done before and after each call for such a file."""
    inner = getattr(owner, method)

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        if file and file not in arguments[0]:
            return inner(self, *arguments, **named)
        before()
        try:
            return inner(self, *arguments, **named)
        finally:
            after()

    setattr(owner, method, call)


def nothing() -> None:
    pass


class Appointment:
    """Where the process dies, or says that its kill is due."""

    def __init__(self, life: Any) -> None:
        self._life, self._left, self._armed = life, life.occurrence, not life.signal
        if life.signal:
            around(*MOMENTS["close" if life.signal == "stop" else "backup"], self._arm, nothing)
        if life.moment in MOMENTS:
            late = life.how == "after"
            around(*MOMENTS[life.moment], nothing if late else self._meet, self._meet if late else nothing)

    def _arm(self) -> None:
        self._armed = True

    def _meet(self) -> None:
        # Two threads may both count here; then it is met an occurrence early or late, and met all the same.
        if self._armed or self._life.moment in ("close", "backup"):
            self._left -= 1
            if self._left == 0:
                if self._life.how != "outside":
                    die()
                say("moment")


def check_report(report: Any) -> None:
    if (report.damage, report.lost, report.unreadable_segments) != ([], [], []):
        say(f"damaged {report}")


def serve(life: Any, listener: socket.socket) -> None:
    with durable_log.open(life.directory, options=Options(**life.options)) as store:
        check_report(store.report)
        serve_store(store, listener, Settings(backups=life.directory + ".backups"))


def stress(life: Any, _listener: socket.socket) -> None:
    with durable_log.open(life.directory, options=Options(**life.options)) as store:
        check_report(store.report)
        work = stress_writer.Stress(
            store, stress_writer.Ledger(Path(life.directory + ".ledger")), f"g{life.generation}"
        )
        say("ready")
        work.run(lambda: False)
        say(f"failed {work.failure!r}")


KINDS = {"server": serve, "library": stress}


def be(life: Any, listener: socket.socket, pipe: int) -> None:
    """What the child does until its end."""
    os.dup2(pipe, 1)
    os.close(pipe)
    log = os.open(life.directory + ".log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 2)
    os.close(log)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gc.enable()
    faulthandler.register(signal.SIGUSR2)
    if life.crowded:
        stress_writer.small()
    if life.mutant:
        mutants.ALL[life.mutant]()
    Appointment(life)
    logging.basicConfig(format="durable-log: %(levelname)s: %(message)s", level=logging.WARNING)
    KINDS[life.kind](life, listener)


# --- in the zygote --------------------------------------------------------------------------------------------------


class Lines:
    """Whole lines of a descriptor, as they come."""

    def __init__(self, fd: int) -> None:
        self.fd, self._rest, self.ended = fd, b"", False

    def read(self) -> list[str]:
        piece = os.read(self.fd, 65536)
        self.ended = not piece
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [line.decode() for line in lines]


def tell(event: str, **facts: Any) -> None:
    os.write(1, (json.dumps({"event": event, **facts}) + "\n").encode())


class Watch:
    """One child, from its fork to its end."""

    def __init__(self, life: Any, pid: int, lines: Lines, orders: Lines) -> None:
        self._life, self._pid, self._lines, self._orders = life, pid, lines, orders
        self._born = time.monotonic()
        self._deadline = self._born + PATIENCE_SECONDS
        self._kill_at = self._born + life.delay_ms / 1000 if life.moment == "begin" else None
        self._give_up_at: float | None = None

    def run(self) -> None:
        met = self._life.how != "outside"  # by the process itself, unless it has to be killed all the same
        while not self._lines.ended:
            now, ends = time.monotonic(), (self._kill_at, self._give_up_at, self._deadline)
            due = min(end for end in ends if end is not None)
            if now >= due:
                met = due == self._kill_at
                if due == self._deadline:
                    self._complain()
                os.kill(self._pid, signal.SIGKILL)
                break
            readable, _, _ = select.select([self._lines.fd, self._orders.fd], [], [], due - now)
            if self._orders.fd in readable:
                self._obey()
            if self._lines.fd in readable:
                for line in self._lines.read():
                    self._note(line)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._lines.fd)
        tell("ended", code=os.waitstatus_to_exitcode(status), met=met)

    def _obey(self) -> None:
        for order in self._orders.read():
            os.kill(self._pid, SIGNALS[order])
        if self._orders.ended:
            os.kill(self._pid, signal.SIGKILL)

    def _note(self, line: str) -> None:
        now = time.monotonic()
        if line == "moment":
            self._meet(now)
        elif line == "ready" or line.startswith("durable-log serves"):
            tell("ready", seconds=now - self._born)
            self._deadline = now + PATIENCE_SECONDS
            if self._life.moment == "ready":
                self._meet(now)
            elif self._life.moment:
                self._give_up_at = now + self._life.patience_ms / 1000
        elif line.startswith("durable-log made a backup"):
            tell("backed up")
        else:
            tell("said", line=line)

    def _meet(self, now: float) -> None:
        if self._kill_at is None:
            self._kill_at = now + self._life.delay_ms / 1000

    def _complain(self) -> None:
        """It neither came up nor ended in time: have it write down where it is."""
        tell("stuck")
        os.kill(self._pid, signal.SIGUSR2)
        time.sleep(LAST_WORDS_SECONDS)


def fork(life: Any, listener: socket.socket, orders: Lines) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reading)
            be(life, listener, writing)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is belongs into the log, and the child must not go on here
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(writing)
    Watch(life, pid, Lines(reading), orders).run()


def main(listener_fd: int) -> None:
    listener, orders = socket.socket(fileno=listener_fd), Lines(0)
    for owner, method, _ in MOMENTS.values():
        assert hasattr(owner, method), f"{owner} has no {method} any more: say what is to be met instead"
    gc.collect()
    gc.disable()
    gc.freeze()
    tell("hatched")
    while not orders.ended:
        for order in orders.read():
            if order not in SIGNALS:  # one for a child that has just died
                fork(SimpleNamespace(**json.loads(order)), listener, orders)


if __name__ == "__main__":
    main(int(sys.argv[1]))
