"""Doubles for tests: a clock that stands still, a directory whose every call can be watched, blocked or broken, and
calls that have to end in time, or are interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from durable_log.engine import commit, files
from durable_log.engine.files import Directory, File, MemoryDirectory, MemoryFile, SyncFailed, WriteFailed
from durable_log.engine.opening import open_in
from durable_log.engine.upkeep import Upkeep
from durable_log.model import Options
from durable_log.store import Store

if TYPE_CHECKING:
    import pytest

PATIENCE_SECONDS = 60.0
SMALL = Options(segment_bytes=64 * 1024, record_bytes_max=32 * 1024)
"""Segments that are full after a few appends."""


def only_asked_for(patch: pytest.MonkeyPatch) -> None:
    """Stores that are opened from here on sync what is written when a test asks for it: neither in time, nor as the
    background takes its turn at the commit lock.
    """
    patch.setattr(commit, "WRITTEN_SECONDS_MAX", 3600.0)
    patch.setattr(Upkeep, "start", lambda upkeep: None)


class Clock:
    """Seconds since the epoch; they pass when a test says so."""

    def __init__(self, now: float = 1_900_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class TwinFile:
    """A file whose calls go through its directory's hooks."""

    def __init__(self, twin: TwinDirectory, inner: File) -> None:
        self._twin, self._inner = twin, inner

    @property
    def name(self) -> str:
        return self._inner.name

    @name.setter
    def name(self, name: str) -> None:
        self._inner.name = name

    def size(self) -> int:
        return self._inner.size()

    def read(self, position: int, length: int) -> bytes:
        return self._twin.call("read", self.name, lambda: self._inner.read(position, length))

    def write(self, position: int, data: bytes) -> None:
        self._twin.call("write", self.name, lambda: self._inner.write(position, data))

    def sync(self) -> None:
        self._twin.call("sync", self.name, self._inner.sync)

    def fill_with_zeroes(self, size: int) -> None:
        self._twin.call("fill", self.name, lambda: self._inner.fill_with_zeroes(size))

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        proceed = lambda: self._inner.commit(block, info, sync)  # noqa: E731 - a hook takes or leaves it
        return self._twin.call("mark" if info.body_length == 0 else "commit", self.name, proceed)

    def source(self) -> Any:
        return self._twin.call("source", self.name, self._inner.source)

    def forget(self) -> None:
        self._inner.forget()

    def close(self) -> None:
        self._twin.call("close", self.name, self._inner.close)


class TwinDirectory:
    """A directory around another. ``hooks[what]`` is called in place of a call, with what would have been called."""

    def __init__(self, inner: Directory | None = None) -> None:
        self.inner = inner or MemoryDirectory()
        self.path, self.grows_in_place = self.inner.path, self.inner.grows_in_place
        self.hooks: dict[str, Callable[[Callable[[], Any]], Any]] = {}
        self.calls: list[tuple[str, str]] = []

    def call(self, what: str, name: str, proceed: Callable[[], Any]) -> Any:
        self.calls.append((what, name))
        hook = self.hooks.get(what)
        return proceed() if hook is None else hook(proceed)

    def lock(self) -> None:
        self.inner.lock()

    def names(self) -> list[str]:
        return self.inner.names()

    def sizes(self) -> dict[str, int]:
        return self.inner.sizes()

    def free(self) -> int | None:
        return self.inner.free()

    def open(self, name: str) -> TwinFile:
        return TwinFile(self, self.call("open", name, lambda: self.inner.open(name)))

    def create(self, name: str) -> TwinFile:
        return TwinFile(self, self.call("create", name, lambda: self.inner.create(name)))

    def rename(self, old: str, new: str) -> None:
        self.call("rename", old, lambda: self.inner.rename(old, new))

    def remove(self, name: str) -> None:
        self.call("remove", name, lambda: self.inner.remove(name))

    def link_from(self, source: Directory, name: str) -> bool:
        inner = source.inner if isinstance(source, TwinDirectory) else source
        return self.call("link", name, lambda: self.inner.link_from(inner, name))

    def folder(self, name: str) -> TwinDirectory:
        folder = TwinDirectory(self.call("folder", name, lambda: self.inner.folder(name)))
        folder.hooks, folder.calls = self.hooks, self.calls
        return folder

    def sync(self) -> None:
        self.call("sync directory", "", self.inner.sync)

    def discard(self) -> None:
        self.inner.discard()

    def close(self) -> None:
        self.inner.close()


def no_space(_proceed: Callable[[], Any]) -> Any:
    """A hook: the disk is full."""
    raise WriteFailed(errno.ENOSPC, os.strerror(errno.ENOSPC), "00000001.log")


def write_error(_proceed: Callable[[], Any]) -> Any:
    """A hook: the write fails."""
    raise WriteFailed(errno.EIO, os.strerror(errno.EIO), "00000001.log")


def sync_error(proceed: Callable[[], Any]) -> Any:
    """A hook: everything is written, and its sync fails."""
    proceed()
    raise SyncFailed(errno.EIO, os.strerror(errno.EIO), "00000001.log")


class Barrier:
    """A hook that holds a call until ``let_go``; ``reached`` once a call is in it."""

    def __init__(self) -> None:
        self.reached, self._free = threading.Event(), threading.Event()

    def __call__(self, proceed: Callable[[], Any]) -> Any:
        self.reached.set()
        assert self._free.wait(PATIENCE_SECONDS), "nobody let go of the barrier"
        return proceed()

    def wait(self) -> None:
        assert self.reached.wait(PATIENCE_SECONDS), "nobody came to the barrier"

    def let_go(self) -> None:
        self._free.set()


class Task:
    """A call on a thread of its own, which has to end in time."""

    def __init__(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
        self._result: Any = None
        self._error: BaseException | None = None
        self._call = lambda: call(*arguments, **named)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self, seconds: float = PATIENCE_SECONDS) -> Any:
        self._thread.join(seconds)
        assert self.done, f"the call did not return within {seconds} s"
        if self._error is not None:
            raise self._error
        return self._result

    def error(self, seconds: float = PATIENCE_SECONDS) -> BaseException | None:
        self._thread.join(seconds)
        assert self.done, f"the call did not return within {seconds} s"
        return self._error


class Interrupt:
    """Raises ``KeyboardInterrupt`` at the ``moment``-th moment of a call on this thread at which one may arrive."""

    def __init__(self, moment: int) -> None:
        self.moment, self.left, self.where = moment, moment, ""

    def __call__(self, frame: Any, event: str, argument: Any) -> None:
        where = frame.f_code.co_filename
        if event not in ("call", "c_return") or "weakref" in where or "hypothesis" in where:
            return  # what is raised in a finalizer, or when the collector begins, comes to nobody
        self.left -= 1
        if self.left == -1:
            sys.setprofile(None)
            name = getattr(argument, "__qualname__", "") if event == "c_return" else "its beginning"
            self.where = f"moment {self.moment}: {frame.f_code.co_qualname}:{frame.f_lineno}, {name}"
            raise KeyboardInterrupt

    def during(self, work: Callable[[], object]) -> bool:
        """Whether the work was interrupted."""
        sys.setprofile(self)
        try:
            work()
        except KeyboardInterrupt:
            return True
        finally:
            sys.setprofile(None)
        return False


def forbid_writing(patch: pytest.MonkeyPatch, root: Path, number: int = errno.EROFS) -> None:
    """From here on nothing may be written below ``root``: as on a file system that is mounted read-only, or, with
    another ``number``, as by permissions.
    """
    proceed = files.os.open

    def refuse(path: str, flags: int, *mode: int) -> int:
        writes = flags & os.O_CREAT or (flags & os.O_ACCMODE != os.O_RDONLY and Path(path).exists())
        if writes and Path(path).is_relative_to(root):
            raise OSError(number, os.strerror(number), path)
        return proceed(path, flags, *mode)

    patch.setattr(files.os, "open", refuse)


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for something that has to happen."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE_SECONDS} s"
        time.sleep(0.001)


def open_files() -> int:
    """How many descriptors this process has."""
    return len(list(Path("/proc/self/fd").iterdir()))


def open_store(directory: Directory, options: Options | None = None, clock: Callable[[], float] = time.time) -> Store:
    return Store(open_in(directory, options or Options(), clock))


def copy_of(directory: Directory) -> MemoryDirectory:
    """The files of a directory in memory as they are now, without a word to the store that writes them: a kill."""
    inner = directory.inner if isinstance(directory, TwinDirectory) else directory
    assert isinstance(inner, MemoryDirectory)
    copied = MemoryDirectory()
    for name, file in list(inner.files.items()):
        copied.files[name] = MemoryFile(name)
        copied.files[name].write(0, file.read(0, file.size()))
    return copied
