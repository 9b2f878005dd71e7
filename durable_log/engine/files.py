"""Files and directories of the operating system.

Law of this room: the only module of the engine that touches the operating system, beside ``ownership``. It knows names,
positions and bytes, nothing of what they mean, except that the commit is a single call into C, with the interpreter's
lock released; for other loops in C a file says by what C can read it. What it is to others is written down in
``storage``, and ``memory`` is its twin. Any thread; nobody may write the same bytes from two threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import weakref
from contextlib import suppress
from typing import Any, Final

from durable_log._core import ffi, lib
from durable_log.engine.format import PAGE
from durable_log.engine.memory import MemoryDirectory, MemoryFile
from durable_log.engine.ownership import Ownership, adopt, make, ownership_in, ownership_of
from durable_log.engine.storage import UNSYNCED_BYTES_MAX, Directory, File, SyncFailed, WriteFailed
from durable_log.errors import NAME_A_STORE, NotAStore, StoreLocked

__all__ = ["Directory", "DiskDirectory", "File", "MemoryDirectory", "MemoryFile", "SyncFailed", "WriteFailed"]

LOCK_NAME: Final = "LOCK"
MODEL_NAME: Final = "MANIFEST"
"""The file whose owner, group and mode are those of all new files of a store."""

StorePath = str | os.PathLike[str]
_ZEROES: Final = bytes(UNSYNCED_BYTES_MAX)
_READ_MAX: Final = 2**26
"""So much is asked for at once: Python makes room for it before the system says how much there is."""

_POSITION_MAX: Final = 2**62
"""No file is as long; a damaged one may say that it is, and the system takes no number from 2^63 on."""

_NO_LINKS: Final = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What a file system answers that has no link to give where a copy may still do."""


class DiskFile:
    """A file of the operating system."""

    def __init__(self, path: str, flags: int, ownership: Ownership | None = None) -> None:
        self._folder, self.name = os.path.split(path)
        self._fd = os.open(path, flags | os.O_CLOEXEC) if ownership is None else make(path, flags, ownership)
        self._stage = ffi.new("int *")
        self._sync_ns = ffi.new("uint64_t *")

    def size(self) -> int:
        """Length of the file."""
        return os.fstat(self._fd).st_size

    def read(self, position: int, length: int) -> bytes:
        """``length`` bytes, fewer only where the file ends."""
        pieces = []
        while length > 0 and position < _POSITION_MAX:
            try:
                piece = os.pread(self._fd, min(length, _READ_MAX), position)
            except OSError as error:
                raise self._named(error) from None
            if not piece:
                break
            pieces.append(piece)
            position += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """All of ``data``."""
        view = memoryview(data)
        while view:
            try:
                written = os.pwrite(self._fd, view, position)
            except OSError as error:
                raise self._named(error) from None
            view, position = view[written:], position + written

    def sync(self) -> None:
        """Make the file's bytes and its length durable."""
        try:
            if hasattr(fcntl, "F_FULLFSYNC"):
                fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
            else:
                os.fdatasync(self._fd)
        except OSError as error:
            raise self._named(error) from None

    def fill_with_zeroes(self, size: int) -> None:
        """Write zeroes up to ``size``, so that a later write in them commits no metadata. They are synced piece by
        piece: whoever syncs another file meanwhile waits for one at most.
        """
        position = self.size()
        while position < size:
            step = min(size - position, len(_ZEROES))
            self.write(position, _ZEROES[:step])
            position += step
            self.sync()

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        """Seal ``block``, write it where its LSN says, sync if asked. Returns what the sync took, in ns."""
        result = lib.dl_commit(
            self._fd, ffi.from_buffer("uint8_t[]", block), len(block), sync, info, self._stage, self._sync_ns
        )
        if result == 0:
            return int(self._sync_ns[0])
        failed = SyncFailed if self._stage[0] == lib.DL_STAGE_SYNC else WriteFailed
        raise failed(-result, os.strerror(-result), self._path())

    def source(self) -> tuple[int, Any]:
        """What C reads the file by, as long as it is open: its descriptor."""
        return self._fd, None

    def forget(self) -> None:
        """Let go of what the system has cached of it and is synced, so that the next read comes from the disk."""
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close the descriptor. Closing twice is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _close(fd)

    def _named(self, error: OSError) -> OSError:
        """The same, with the name of the file, which the system does not say."""
        return OSError(error.errno, error.strerror, self._path())

    def _path(self) -> str:
        return os.path.join(self._folder, self.name)  # it may have been renamed


class DiskDirectory:
    """A directory of the operating system, created if it is not there.

    With ``reads_only`` it has to be there, and its files are opened for reading: for those who only look, maybe where
    nobody may write. It, if it is made, and its new files belong to whom those of ``like`` do, or to its own owner.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, reads_only: bool = False, like: DiskDirectory | None = None
    ) -> None:
        self.path = os.fspath(path)
        self._root = os.path.abspath(self.path)  # the process may move
        self._reads_only = reads_only
        self._made = not reads_only and _make_directories(self._root)
        self._lock_fd = -1
        self._held: tuple[int, int] | None = None
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except NotADirectoryError:
            raise NotAStore(self.path, "it is a file", NAME_A_STORE) from None
        try:
            self.grows_in_place = not lib.dl_is_copy_on_write(fd)
            if like is not None and self._made:
                adopt(fd, ownership_of(like._root))
            self._ownership: Ownership = like._ownership if like else ownership_in(self._root, MODEL_NAME, LOCK_NAME)
        finally:
            _close(fd)

    def lock(self) -> None:
        """Become the one writer. Raises :class:`StoreLocked`, which says who is.

        With ``reads_only`` nobody writes meanwhile; except that nobody is kept from it where there is no lock and none
        can be made.
        """
        fd, kind = self._open_lock()
        if fd < 0:
            return
        self._lock_fd = fd
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except OSError as error:
            holder = ""
            with suppress(OSError):
                holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip()
            is_own = _identity(fd) in _locked
            self.close()
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreLocked(self.path, holder or "another process", is_own=is_own) from None
        self._held = _identity(fd)
        _locked.add(self._held)
        if kind == fcntl.LOCK_EX:
            with suppress(OSError):  # the lock is what counts; its text is a courtesy, and full disks are opened, too
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def _open_lock(self) -> tuple[int, int]:
        """A descriptor of the lock's file, and how it is to be locked; -1 if those who only look have to do without.
        Who can't write his name into it shares the lock with others who look: it keeps writers out, too.
        """
        path = os.path.join(self._root, LOCK_NAME)
        try:
            return self._open_or_make(path), fcntl.LOCK_EX
        except OSError as error:
            if not self._reads_only or not (is_forbidden(error) or is_out_of_space(error)):
                raise
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_SH
        return -1, fcntl.LOCK_UN

    def _open_or_make(self, path: str) -> int:
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        return make(path, os.O_RDWR, self._ownership)

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(os.listdir(self._root))

    def sizes(self) -> dict[str, int]:
        """What each file takes on disk, in bytes."""
        with os.scandir(self._root) as entries:
            return {entry.name: size for entry in entries if (size := _size_on_disk(entry)) is not None}

    def free(self) -> int:
        """How many bytes this process may still write there."""
        found = os.statvfs(self._root)
        return found.f_bavail * found.f_frsize

    def open(self, name: str) -> DiskFile:
        """An existing file, for reading and writing, or for reading only."""
        # Without O_NONBLOCK, a pipe of that name would be waited for until somebody writes to it.
        return DiskFile(os.path.join(self._root, name), os.O_RDONLY | os.O_NONBLOCK if self._reads_only else os.O_RDWR)

    def create(self, name: str) -> DiskFile:
        """A new file; one of that name is replaced."""
        return DiskFile(os.path.join(self._root, name), os.O_RDWR | os.O_TRUNC, self._ownership)

    def rename(self, old: str, new: str) -> None:
        """Rename a file; durable after :meth:`sync`."""
        os.rename(os.path.join(self._root, old), os.path.join(self._root, new))

    def remove(self, name: str) -> None:
        """Remove a file; durable after :meth:`sync`."""
        os.unlink(os.path.join(self._root, name))

    def link_from(self, source: Directory, name: str) -> bool:
        """Give a file of ``source`` a name here, too; durable after :meth:`sync`. False where it would take a copy."""
        if not isinstance(source, DiskDirectory) or os.path.islink(os.path.join(source._root, name)):
            return False  # another name of a symbolic link would be no name of its file
        try:
            os.link(os.path.join(source._root, name), os.path.join(self._root, name))
        except OSError as error:
            if error.errno in _NO_LINKS:
                return False
            raise
        return True

    def folder(self, name: str) -> DiskDirectory:
        """A folder in this directory, made durably if it is not there."""
        return DiskDirectory(os.path.join(self._root, name), reads_only=self._reads_only, like=self)

    def sync(self) -> None:
        """Make the directory's entries durable."""
        _sync_directory(self._root)

    def discard(self) -> None:
        """Remove the directory if it was made for this object and is empty."""
        if self._made and not os.listdir(self._root):
            os.rmdir(self._root)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock_fd >= 0:
            fd, self._lock_fd = self._lock_fd, -1
            _locked.discard(self._held)
            self._held = None
            _close(fd)


def directory_at(path: StorePath, *, like: Directory | None = None) -> Directory:
    """The directory that ``path`` names; ``":memory:"`` names a new one in memory. What is made on disk belongs to whom
    the files of ``like`` do, if that is there.
    """
    if path == ":memory:":
        return MemoryDirectory()
    return DiskDirectory(os.path.expanduser(path), like=like if isinstance(like, DiskDirectory) else None)


def directory_to_look_at(path: StorePath) -> Directory:
    """A directory on disk, to which nothing is written but the lock. Raises :class:`NotAStore`, ``OSError``, also if it
    is not there.
    """
    return DiskDirectory(os.path.expanduser(path), reads_only=True)


def holds(directory: Directory, path: StorePath) -> bool:
    """Whether ``path`` lies inside of a directory on disk."""
    if not isinstance(directory, DiskDirectory):
        return False
    root, inside = os.path.realpath(directory._root), os.path.realpath(os.path.expanduser(path))
    return inside != root and os.path.commonpath([root, inside]) == root


def is_out_of_space(error: OSError) -> bool:
    """Whether the disk, the quota or what the process may write of a file is exhausted."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_forbidden(error: OSError) -> bool:
    """Whether this process may not write there, or nobody may."""
    return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)


def is_out_of_files(error: OSError) -> bool:
    """Whether the process, or the system, has as many files open as it may."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def discard(directory: Directory, *names: str) -> None:
    """Remove what was begun and came to nothing. What can't be removed now is when the store is opened."""
    for name in names:
        with suppress(OSError):
            directory.remove(name)


def random_bytes(count: int) -> bytes:
    """Unguessable bytes."""
    return os.urandom(count)


def process_id() -> int:
    """The number of this process."""
    return os.getpid()


def _identity(fd: int) -> tuple[int, int]:
    """What tells a file from all others, by whatever path it was opened."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


_locked: Final[set[tuple[int, int] | None]] = set()
"""The locks that this process holds."""
_forked: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def call_after_fork(owner: Any) -> None:
    """Have ``owner.forked()`` called in every child that ``os.fork()`` makes of this process."""
    _forked.add(owner)


def _tell_forked() -> None:
    for owner in list(_forked):
        owner.forked()


os.register_at_fork(after_in_child=_tell_forked)


def _make_directories(path: str) -> bool:
    """Make a directory and those above it, each durable in its parent. False if it was there."""
    if os.path.isdir(path):
        if not os.listdir(path):
            # Whoever made it may have been stopped before it was durable.
            with suppress(PermissionError):
                _sync_directory(os.path.dirname(path))
        return False
    _make_directories(os.path.dirname(path))
    made = True
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotAStore(path, "it is a file") from None
        made = False
    _sync_directory(os.path.dirname(path))
    return made


def _size_on_disk(entry: os.DirEntry[str]) -> int | None:
    try:
        return entry.stat().st_blocks * 512 if entry.is_file() else None
    except FileNotFoundError:
        return None  # it went while the directory was read


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        _close(fd)


def _close(fd: int) -> None:
    """Whatever the system says to it, the descriptor is gone, and what has to last was synced."""
    with suppress(OSError):
        os.close(fd)


assert PAGE == lib.DL_PAGE
