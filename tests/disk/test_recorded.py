"""The recorded disk and the real one see the same calls, so what is found on the one holds for the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from media import Created, DirectorySynced, Event, Linked, Note, Removed, Renamed, Synced, Written
from recorded import RecordedDirectory
from script import WatchedDirectory
from workloads import WORKLOADS, perform

from durable_log.engine import files
from durable_log.engine.files import LOCK_NAME, DiskDirectory
from durable_log.engine.format import position_of

Call = tuple[Any, ...]
"""What was done, to which file, and where."""


pytestmark = pytest.mark.usefixtures("quiet_engines")


class ScriptedDisk(DiskDirectory):
    """A directory on disk that a script works on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.failed_at = -1

    def note(self, what: object) -> None:
        """The calls tell all that is wanted."""


class Tracer:
    """The calls that change something in one directory, as the operating system gets them."""

    def __init__(self, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.calls, self._core = Path(root), list[Call](), files.lib
        tellers: dict[str, Callable[..., Call | None]] = {
            "open": self._opened,
            "pwrite": lambda fd, data, position: ("write", self._name(fd), position, len(data)),
            "fdatasync": lambda fd: ("sync", self._name(fd)),
            "fsync": lambda fd: ("sync directory",) if _path(fd) == self.root else None,
            "rename": lambda old, new: ("rename", self._name(old), self._name(new)),
            "unlink": lambda path: ("remove", self._name(path)),
            "link": lambda _, path: ("link", self._name(path)),
        }
        for name, teller in tellers.items():
            monkeypatch.setattr(files.os, name, self._telling(getattr(files.os, name), teller))
        monkeypatch.setattr(files, "lib", self)

    def __getattr__(self, name: str) -> Any:
        """Of the C core, all but the commit is what it was."""
        return getattr(self._core, name)

    def dl_commit(self, fd: int, block: Any, size: int, sync: bool, info: Any, stage: Any, sync_ns: Any) -> int:
        """What it does is known from the recorded disk, which looks at the file that it wrote."""
        self._tell("write", self._name(fd), position_of(info.lsn), size)
        if sync:
            self._tell("sync", self._name(fd))
        return int(self._core.dl_commit(fd, block, size, sync, info, stage, sync_ns))

    def _telling(self, proceed: Callable[..., Any], teller: Callable[..., Call | None]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._tell(*(teller(*arguments) or ()))
            return proceed(*arguments)

        return call

    def _tell(self, *call: Any) -> None:
        # What is written into LOCK is for people to read.
        if call and None not in call and call[:2] != ("write", LOCK_NAME):
            self.calls.append(call)

    def _name(self, file: int | str) -> str | None:
        path = _path(file)
        return path.name if path.parent == self.root else None

    def _opened(self, path: str, flags: int, *_mode: int) -> Call | None:
        new = flags & os.O_TRUNC or (flags & os.O_CREAT and not Path(path).exists())
        return ("create", self._name(path)) if new else None


def _path(file: int | str) -> Path:
    return Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else Path(file)


def calls_of(trace: list[Event]) -> Iterator[Call]:
    """The calls that a trace stands for."""
    names: dict[int, str] = {}
    inodes: dict[str, int] = {}
    for event in trace:
        match event:
            case Created(name, inode) | Linked(name, inode, _):
                inodes.setdefault(name, inode)
                names[inodes[name]] = name
                yield ("create" if isinstance(event, Created) else "link", name)
            case Written(inode, position, data):
                yield ("write", names[inode], position, len(data))
            case Synced(inode):
                yield ("sync", names[inode])
            case Renamed(old, new):
                inodes[new] = inodes.pop(old)
                names[inodes[new]] = new
                yield ("rename", old, new)
            case Removed(name):
                del inodes[name]
                yield ("remove", name)
            case DirectorySynced():
                yield ("sync directory",)
            case other:
                assert isinstance(other, Note)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_real_disk_gets_the_calls_that_are_recorded(workload, tmp_path, monkeypatch):
    disk = ScriptedDisk(tmp_path)
    tracer = Tracer(disk.path, monkeypatch)
    perform(workload, 0, disk)
    recorded = WatchedDirectory(grows_in_place=disk.grows_in_place)
    assert tracer.calls == list(calls_of(perform(workload, 0, recorded).directory.trace))


def test_a_backup_makes_the_calls_that_are_recorded(tmp_path, monkeypatch):
    recorded = RecordedDirectory()
    perform("checkpoints", 0).store.engine.upkeep.backups.fill(recorded, verify=True)
    disk, copy = ScriptedDisk(tmp_path / "store"), DiskDirectory(tmp_path / "copy")
    tracer = Tracer(copy.path, monkeypatch)
    perform("checkpoints", 0, disk).store.engine.upkeep.backups.fill(copy, verify=True)
    assert tracer.calls == list(calls_of(recorded.trace))
