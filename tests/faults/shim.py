"""The shim that has system calls fail: compiled here, and driven from inside of the process that it is loaded into.

Law of this file: it knows calls, names of files and errors, nothing of stores. ``compiled`` belongs to whoever starts a
process, ``Shim`` to that process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

SOURCE: Final = Path(__file__).with_name("shim.c")
FLAGS: Final = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-shared", "-fPIC", "-fvisibility=hidden")

KINDS: Final = (
    "open", "create", "read", "write", "grow", "sync", "sync directory", "truncate", "allocate",
    "rename", "unlink", "link", "mkdir", "rmdir", "list", "stat", "lock", "advise", "close",
)  # fmt: skip
"""Kinds of calls; the order is that of the enum in ``shim.c``. To ``grow`` is to write beyond the end of the file."""

MANNERS: Final = ("nothing", "done", "half")
"""What an armed call does: nothing, and it fails; what it was asked to (a write: whole pages of a half), and it fails
nevertheless; half of it, and it succeeds.
"""

FOREVER: Final = 2**62
HALF: Final = "half"
FULL: Final = "full disk"
NUMBERS: Final = {HALF: 0, FULL: errno.ENOSPC}
"""What is no name of an error: reads and writes that do less than they were asked, and no room for new bytes."""

APPLICABLE: Final = {
    "EIO": frozenset(KINDS) - {"advise"},
    "ENOSPC": frozenset({"create", "write", "grow", "sync", "rename", "link", "mkdir"}),
    "EDQUOT": frozenset({"create", "grow", "mkdir"}),
    "EFBIG": frozenset({"grow"}),
    "EROFS": frozenset({"create", "write", "grow", "rename", "unlink", "link", "mkdir", "rmdir"}),
    "EMFILE": frozenset({"open", "create", "list"}),
    "EINTR": frozenset({"open", "create", "read", "write", "grow", "sync", "sync directory", "lock", "close"}),
    HALF: frozenset({"read", "write", "grow"}),
    FULL: frozenset({"create", "grow", "mkdir"}),
}
"""Which kinds of calls may say that."""


CHANGING: Final = frozenset(KINDS) - {"open", "read", "list", "stat", "lock", "advise", "close"}
"""Kinds of calls of which it makes a difference whether they fail before or after they have done something."""


class Fault(NamedTuple):
    """Which calls fail, and how: of those that ``error`` applies to, counted from 1, every ``step``-th from ``call``
    on, ``times`` of them.
    """

    call: int
    error: str
    times: int = 1
    step: int = 1
    manner: str = "nothing"


class Call(NamedTuple):
    """A call that was made, the name of its file, and what it was made to fail with."""

    kind: str
    name: str
    error: int


def compiled(directory: Path) -> Path:
    """The shim, built into ``directory`` unless it is there and newer than its source."""
    library = directory / "shim.so"
    if not library.exists() or library.stat().st_mtime < SOURCE.stat().st_mtime:
        directory.mkdir(parents=True, exist_ok=True)
        fresh = library.with_suffix(f".{os.getpid()}")
        subprocess.run([os.environ.get("CC", "cc"), *FLAGS, str(SOURCE), "-o", str(fresh), "-ldl"], check=True)
        fresh.replace(library)
    return library


class Shim:
    """The shim of this process. Raises ``OSError`` if it was not started with one."""

    def __init__(self) -> None:
        lib = self._lib = ctypes.CDLL(os.environ["LD_PRELOAD"])
        number = ctypes.c_ulong
        lib.faults_arm.argtypes = [number, number, number, number, ctypes.c_int, ctypes.c_int]
        lib.faults_calls.restype = lib.faults_hit.restype = number
        lib.faults_call_kind.argtypes = lib.faults_call_error.argtypes = lib.faults_call_name.argtypes = [number]
        lib.faults_call_name.restype = lib.faults_violation.restype = ctypes.c_char_p

    def watch(self, directory: Path) -> None:
        """Begin anew, with the calls on files at and below that directory."""
        self._lib.faults_watch(os.fsencode(directory.resolve()))

    def arm(self, fault: Fault) -> None:
        """Have calls fail, counted from now on."""
        mask = sum(1 << KINDS.index(kind) for kind in APPLICABLE[fault.error])
        number = NUMBERS[fault.error] if fault.error in NUMBERS else getattr(errno, fault.error)
        manner = HALF if fault.error == HALF else fault.manner
        self._lib.faults_arm(mask, fault.call, fault.times, fault.step, number, MANNERS.index(manner))

    def arm_kind(self, kind: str, error: int) -> None:
        """Have the next call of that kind fail."""
        self._lib.faults_arm(1 << KINDS.index(kind), 1, 1, 1, error, 0)

    def disarm(self) -> None:
        """Nothing fails any more."""
        self._lib.faults_arm(0, 1, 0, 1, 0, 0)

    @property
    def hit(self) -> int:
        """How many of the armed calls have come since they were armed."""
        return int(self._lib.faults_hit())

    @property
    def violation(self) -> str:
        """Which descriptor was used again after its sync had failed; empty if none was."""
        return self._lib.faults_violation().decode()

    def dirty(self, suffix: str) -> int:
        """How many open files of that ending were written and not synced, or synced in vain."""
        return int(self._lib.faults_dirty(suffix.encode()))

    def calls(self) -> list[Call]:
        """All calls since ``watch``, in order."""
        lib = self._lib
        return [
            Call(KINDS[lib.faults_call_kind(at)], lib.faults_call_name(at).decode(), lib.faults_call_error(at))
            for at in range(lib.faults_calls())
        ]
