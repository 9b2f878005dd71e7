"""To whom new files of a store belong, and who else may read or write them.

Law of this room: a store stays its owner's, whoever works on it. What root makes in it, repairing it say, is the
owner's as well, and nobody may read it who could not read what was there. Who may not give a file away keeps it, and
that is no error. Beside ``files`` the only module that calls the operating system. Any thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple


class Ownership(NamedTuple):
    """User, group and mode. If it ``is_exact`` the process's umask does not take away from the mode."""

    user: int
    group: int
    mode: int
    is_exact: bool = True


def ownership_in(root: str, *names: str) -> Ownership:
    """That of new files in a directory: the same as of the first of these that is there. If none is, the directory's
    own, and a mode that lets nobody write but the owner. Raises ``OSError``.
    """
    for name in names:
        with suppress(OSError):
            found = (Path(root) / name).stat()
            return Ownership(found.st_uid, found.st_gid, found.st_mode & 0o666)
    found = Path(root).stat()
    return Ownership(found.st_uid, found.st_gid, found.st_mode & 0o644 | 0o600, is_exact=False)


def ownership_of(path: str) -> Ownership:
    """That of a directory. Raises ``OSError``."""
    found = Path(path).stat()
    return Ownership(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))


def make(path: str, flags: int, like: Ownership) -> int:
    """A descriptor of a new file, or of one that is there. What a symbolic link leads to is not the store's, and so it
    is neither written nor given away. Raises ``OSError``.
    """
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, like.mode)
    adopt(fd, like)
    return fd


def adopt(fd: int, like: Ownership) -> None:
    """Have what was just made belong to whom it should, as far as this process may see to it. Raises nothing."""
    with suppress(OSError):
        found = os.fstat(fd)
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            return  # it has another name, by which it may be somebody else's
        if found.st_gid != like.group:
            _attempt(os.fchown, fd, -1, like.group)
        if found.st_uid != like.user:
            _attempt(os.fchown, fd, like.user, -1)
        if like.is_exact and stat.S_IMODE(found.st_mode) != like.mode:
            _attempt(os.fchmod, fd, like.mode)


def _attempt(call: Callable[..., Any], *arguments: int) -> None:
    with suppress(OSError):
        call(*arguments)
