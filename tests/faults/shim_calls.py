"""Calls of each kind, to see that the shim stands before them: in a process with the shim in it.

shim_calls.py DIRECTORY
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from session import OPTIONS
from shim import FOREVER, HALF, KINDS, Fault, Shim
from twins import Clock

import durable_log
from durable_log._core import ffi
from durable_log.engine.files import DiskDirectory
from durable_log.engine.format import PAGE
from durable_log.engine.run_find import Search
from durable_log.engine.storage import SyncFailed, WriteFailed

Calls = dict[str, Callable[[], Any]]


def calls_of(root: Path, fd: int, directory_fd: int) -> Calls:
    """A call of each kind, in an order in which all of them succeed."""
    return {
        "open": lambda: os.open(root / "f", os.O_RDONLY),
        "create": lambda: os.open(root / "new", os.O_RDWR | os.O_CREAT),
        "read": lambda: os.pread(fd, 1, 0),
        "write": lambda: os.pwrite(fd, b"y", 0),
        "grow": lambda: os.pwrite(fd, b"y", 1 << 20),
        "sync": lambda: os.fdatasync(fd),
        "sync directory": lambda: os.fsync(directory_fd),
        "truncate": lambda: os.ftruncate(fd, 2 * PAGE),
        "allocate": lambda: os.posix_fallocate(fd, 0, PAGE),
        "rename": lambda: (root / "new").rename(root / "newer"),
        "link": lambda: (root / "link").hardlink_to(root / "newer"),
        "unlink": (root / "link").unlink,
        "mkdir": (root / "directory").mkdir,
        "rmdir": (root / "directory").rmdir,
        "list": lambda: list(root.iterdir()),
        "stat": lambda: os.fstat(fd),
        "lock": lambda: fcntl.flock(fd, fcntl.LOCK_EX),
        "advise": lambda: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED),
        "close": lambda: os.close(directory_fd),
    }


def error_of(call: Callable[[], Any]) -> int:
    """What the call fails with; 0 if it does not."""
    try:
        call()
    except OSError as error:
        return error.errno or 0
    return 0


def check_that_each_kind_fails_when_it_is_armed_and_only_then(shim: Shim, root: Path) -> None:
    shim.watch(root)
    fd = os.open(root / "f", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, b"xx", 0)
    calls = calls_of(root, fd, os.open(root, os.O_RDONLY))
    assert set(calls) == set(KINDS)
    for kind, call in calls.items():
        seen = len(shim.calls())
        assert error_of(call) == 0, kind
        assert [made.kind for made in shim.calls()[seen:]] == [kind]
    again = calls_of(root, fd, os.open(root, os.O_RDONLY))
    for kind, call in again.items():
        if kind != "close":
            shim.arm_kind(kind, errno.EIO)
            assert error_of(call) == errno.EIO, kind
            assert shim.hit == 1, kind
            shim.disarm()
            assert error_of(call) == 0, kind
    shim.arm_kind("close", errno.EIO)
    assert error_of(again["close"]) == errno.EIO
    shim.disarm()
    assert error_of(again["close"]) == errno.EBADF, "a descriptor whose close fails is gone all the same"


def check_that_faults_are_counted(shim: Shim, root: Path) -> None:
    shim.watch(root)
    fd = os.open(root / "f", os.O_RDWR)
    read = lambda: os.pread(fd, 4, 0)  # noqa: E731
    for fault, expected in (
        (Fault(2, "EIO"), [0, 5, 0, 0, 0]),
        (Fault(3, "EIO", FOREVER), [0, 0, 5, 5, 5]),
        (Fault(1, "EIO", FOREVER, 2), [5, 0, 5, 0, 5]),
        (Fault(2, "EIO", 2), [0, 5, 5, 0, 0]),
        (Fault(1, "ENOSPC", FOREVER), [0] * 5),
    ):
        shim.arm(fault)
        assert [error_of(read) for _ in expected] == expected, fault
    shim.arm(Fault(1, HALF, FOREVER))
    assert len(os.pread(fd, 100, 0)) == 50
    assert os.pwrite(fd, bytes(100), 0) == 50
    shim.disarm()


def check_that_a_call_can_fail_when_it_is_done(shim: Shim, root: Path) -> None:
    shim.watch(root)
    fd = os.open(root / "g", os.O_RDWR | os.O_CREAT)
    for kind, call, is_done in (
        ("mkdir", (root / "d").mkdir, (root / "d").is_dir),
        ("rename", lambda: (root / "d").rename(root / "e"), (root / "e").is_dir),
        ("rmdir", (root / "e").rmdir, lambda: not (root / "e").exists()),
        ("grow", lambda: os.pwrite(fd, b"z" * 5 * PAGE, 0), lambda: (root / "g").read_bytes() == b"z" * 2 * PAGE),
        ("unlink", (root / "g").unlink, lambda: not (root / "g").exists()),
    ):
        shim.arm(Fault(1, "EIO", manner="done"))
        assert error_of(call) == errno.EIO, kind
        shim.disarm()
        assert is_done(), kind


def check_that_calls_of_the_c_core_are_seen(shim: Shim, root: Path) -> None:
    shim.watch(root)
    file = DiskDirectory(root / "files").create("block")
    info = ffi.new("dl_block *", {"lsn": 0, "body_length": 0, "nonce": 7})
    file.commit(bytearray(PAGE), info, True)
    assert [call[:2] for call in shim.calls()[-2:]] == [("grow", "block"), ("sync", "block")]
    for kind, failed in (("write", WriteFailed), ("sync", SyncFailed)):
        shim.arm_kind(kind, errno.EIO)
        with pytest.raises(failed, match="Input/output"):
            file.commit(bytearray(PAGE), info, True)
        assert shim.hit == 1, kind
    shim.disarm()
    search = Search(["a"])
    with durable_log.open(root / "store", options=OPTIONS, clock=Clock()) as store:
        store.create("a", data=bytes(20_000))
        store.engine.upkeep.cluster()
        (run,) = store.engine._catalog.runs
        shim.arm_kind("read", errno.EIO)
        run.find_many(search)  # nothing of it reads but C
        assert shim.hit == 1
        shim.disarm()
    assert isinstance(search.found[0], OSError)


if __name__ == "__main__":
    for check in (
        check_that_each_kind_fails_when_it_is_armed_and_only_then,
        check_that_faults_are_counted,
        check_that_a_call_can_fail_when_it_is_done,
        check_that_calls_of_the_c_core_are_seen,
    ):
        check(Shim(), Path(sys.argv[1]))
