"""Files and directories, on the operating system or in memory.

Law of this room: the only module of the engine that touches the operating system. It knows names, positions and
bytes, nothing of what they mean, except that the commit and the gathering of frames are single calls into C, with the
interpreter's lock released; for other loops in C a file says by what C can read it. Errors leave as ``OSError``;
:class:`WriteFailed` and :class:`SyncFailed` tell which step of a commit failed. Any thread; nobody may write the same
bytes from two threads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from durable_log._core import ffi, lib
from durable_log.engine.format import PAGE, position_of
from durable_log.engine.gather import Gather
from durable_log.errors import NotAStore, StoreLocked

LOCK_NAME: Final = "LOCK"
StorePath = str | os.PathLike[str]
_ZEROES: Final = bytes(2**20)
_GATHER_SPAN: Final = 256 * 2**10
_NOWAIT: Final = getattr(os, "RWF_NOWAIT", 0)


class WriteFailed(OSError):
    """The write of a commit failed: its bytes are not on disk, whole or not, and nobody was told of them."""


class SyncFailed(OSError):
    """The sync of a commit failed: what is on disk is unknown, and another sync would not tell."""


class File(Protocol):
    """One file of a store. Positions and lengths are bytes."""

    name: str

    def size(self) -> int: ...
    def read(self, position: int, length: int) -> bytes: ...
    def read_cached(self, position: int, length: int) -> bytes: ...
    def write(self, position: int, data: bytes | bytearray | memoryview) -> None: ...
    def sync(self) -> None: ...
    def fill_with_zeroes(self, size: int) -> None: ...
    def commit(self, block: bytearray, info: Any, sync: bool) -> int: ...
    def gather(self, nonce: int, stream: int, positions: Any, offsets: Any, span: tuple[int, int]) -> bytes | int: ...
    def source(self) -> tuple[int, Any]: ...
    def close(self) -> None: ...


class Directory(Protocol):
    """The files of one store."""

    path: str
    grows_in_place: bool

    def lock(self) -> None: ...
    def names(self) -> list[str]: ...
    def open(self, name: str) -> File: ...
    def create(self, name: str) -> File: ...
    def rename(self, old: str, new: str) -> None: ...
    def remove(self, name: str) -> None: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...


class DiskFile:
    """A file of the operating system."""

    def __init__(self, path: str, flags: int) -> None:
        self.name = os.path.basename(path)
        self._path = path
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o644)
        self._stage = ffi.new("int *")
        self._sync_ns = ffi.new("uint64_t *")

    def size(self) -> int:
        """Length of the file."""
        return os.fstat(self._fd).st_size

    def read(self, position: int, length: int) -> bytes:
        """``length`` bytes, fewer only where the file ends."""
        pieces = []
        while length > 0:
            piece = os.pread(self._fd, length, position)
            if not piece:
                break
            pieces.append(piece)
            position += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_cached(self, position: int, length: int) -> bytes:
        """Like ``read``, but raises ``BlockingIOError`` where it would have to wait for the disk."""
        data = bytearray(length)
        try:
            found = os.preadv(self._fd, [data], position, _NOWAIT)
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), self._path) from error
        if found < length:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), self._path)
        return bytes(data)

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """All of ``data``."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, position)
            view, position = view[written:], position + written

    def sync(self) -> None:
        """Make the file's bytes and its length durable."""
        if hasattr(fcntl, "F_FULLFSYNC"):
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(self._fd)

    def fill_with_zeroes(self, size: int) -> None:
        """Write zeroes up to ``size``, synced in pieces, so that a later write in them commits no metadata."""
        position = self.size()
        while position < size:
            step = min(size - position, len(_ZEROES))
            self.write(position, _ZEROES[:step])
            position += step
            if position % (8 * len(_ZEROES)) == 0:
                self.sync()

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        """Seal ``block``, write it where its LSN says, sync if asked. Returns what the sync took, in ns."""
        result = lib.dl_commit(
            self._fd, ffi.from_buffer("uint8_t[]", block), len(block), sync, info, self._stage, self._sync_ns
        )
        if result == 0:
            return int(self._sync_ns[0])
        failed = SyncFailed if self._stage[0] == lib.DL_STAGE_SYNC else WriteFailed
        raise failed(-result, os.strerror(-result), self._path)

    def gather(self, nonce: int, stream: int, positions: Any, offsets: Any, span: tuple[int, int]) -> bytes | int:
        """The stream bytes ``span`` out of consecutive records, verified; or the index of the first bad record."""
        gather = Gather(nonce, stream, positions, offsets, span)
        while gather.done < gather.count:
            first, last = gather.done, gather.done + 1
            start = positions[first]
            while last < gather.count and positions[last] > start and gather.end_of(last) - start <= _GATHER_SPAN:
                last += 1
            piece = self.read(start, gather.end_of(last - 1) - start)
            if not gather.feed(piece, start, last - first):
                return gather.done
        return bytes(gather.out)

    def source(self) -> tuple[int, Any]:
        """What C reads the file by, as long as it is open: its descriptor."""
        return self._fd, None

    def close(self) -> None:
        """Close the descriptor. Closing twice is harmless."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class DiskDirectory:
    """A directory of the operating system, created if it is not there."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._root = os.path.abspath(self.path)  # the process may move
        _make_directories(self._root)
        self._lock_fd = -1
        fd = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.grows_in_place = not lib.dl_is_copy_on_write(fd)
        finally:
            os.close(fd)

    def lock(self) -> None:
        """Become the one writer. Raises :class:`StoreLocked`, which says who is."""
        path = os.path.join(self._root, LOCK_NAME)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 200, 0).decode("utf-8", "replace").strip() or "another process"
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise StoreLocked(self.path, holder) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        self._lock_fd = fd

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return sorted(os.listdir(self._root))

    def open(self, name: str) -> DiskFile:
        """An existing file, for reading and writing."""
        return DiskFile(os.path.join(self._root, name), os.O_RDWR)

    def create(self, name: str) -> DiskFile:
        """A new file; one of that name is replaced."""
        return DiskFile(os.path.join(self._root, name), os.O_RDWR | os.O_CREAT | os.O_TRUNC)

    def rename(self, old: str, new: str) -> None:
        """Rename a file; durable after :meth:`sync`."""
        os.rename(os.path.join(self._root, old), os.path.join(self._root, new))

    def remove(self, name: str) -> None:
        """Remove a file; durable after :meth:`sync`."""
        os.unlink(os.path.join(self._root, name))

    def sync(self) -> None:
        """Make the directory's entries durable."""
        _sync_directory(self._root)

    def close(self) -> None:
        """Let go of the lock."""
        if self._lock_fd >= 0:
            fd, self._lock_fd = self._lock_fd, -1
            os.close(fd)


class MemoryFile:
    """A file that lives as long as its directory. Syncing it does nothing, as nothing survives the process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._bytes = bytearray()
        self._mutex = threading.Lock()

    def size(self) -> int:
        """Length of the file."""
        return len(self._bytes)

    def read(self, position: int, length: int) -> bytes:
        """``length`` bytes, fewer only where the file ends."""
        with self._mutex:
            return bytes(self._bytes[position : position + length])

    def read_cached(self, position: int, length: int) -> bytes:
        """As ``read``."""
        return self.read(position, length)

    def write(self, position: int, data: bytes | bytearray | memoryview) -> None:
        """All of ``data``; a hole before it reads as zeroes."""
        with self._mutex:
            if position > len(self._bytes):
                self._bytes.extend(bytes(position - len(self._bytes)))
            self._bytes[position : position + len(data)] = data

    def sync(self) -> None:
        """Nothing to do."""

    def fill_with_zeroes(self, size: int) -> None:
        """Nothing to do: memory grows in place."""

    def commit(self, block: bytearray, info: Any, sync: bool) -> int:
        """As on disk: seal and write."""
        if lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), len(block), info) != lib.DL_OK:
            raise WriteFailed(errno.EINVAL, "block does not hold its frames", self.name)
        self.write(position_of(info.lsn), block)
        return 0

    def gather(self, nonce: int, stream: int, positions: Any, offsets: Any, span: tuple[int, int]) -> bytes | int:
        """As on disk."""
        gather = Gather(nonce, stream, positions, offsets, span)
        start = positions[0]
        piece = self.read(start, gather.end_of(gather.count - 1) - start)
        return bytes(gather.out) if gather.feed(piece, start, gather.count) else gather.done

    def source(self) -> tuple[int, Any]:
        """What C reads the file by: its memory, which can't grow as long as somebody holds it."""
        return -1, self._bytes

    def close(self) -> None:
        """Nothing to do."""


class MemoryDirectory:
    """A store's files in memory: ``open(":memory:")``, and the disk of fast tests."""

    grows_in_place = False

    def __init__(self, path: str = ":memory:") -> None:
        self.path = path
        self.files: dict[str, MemoryFile] = {}

    def lock(self) -> None:
        """Nothing to do: nobody else can see it."""

    def names(self) -> list[str]:
        """Names of all files, sorted."""
        return sorted(self.files)

    def open(self, name: str) -> MemoryFile:
        """An existing file."""
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.files[name]

    def create(self, name: str) -> MemoryFile:
        """A new file; one of that name is replaced."""
        self.files[name] = MemoryFile(name)
        return self.files[name]

    def rename(self, old: str, new: str) -> None:
        """Rename a file."""
        file = self.files.pop(old)
        file.name = new
        self.files[new] = file

    def remove(self, name: str) -> None:
        """Remove a file."""
        del self.files[name]

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def directory_at(path: StorePath) -> Directory:
    """The directory that ``path`` names; ``":memory:"`` names a new one in memory."""
    return MemoryDirectory() if path == ":memory:" else DiskDirectory(os.path.expanduser(path))


def is_out_of_space(error: OSError) -> bool:
    """Whether the disk or the quota is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def random_bytes(count: int) -> bytes:
    """Unguessable bytes."""
    return os.urandom(count)


def process_id() -> int:
    """The number of this process."""
    return os.getpid()


_forked: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def call_after_fork(owner: Any) -> None:
    """Have ``owner.forked()`` called in every child that ``os.fork()`` makes of this process."""
    _forked.add(owner)


def _tell_forked() -> None:
    for owner in list(_forked):
        owner.forked()


_register: Callable[..., None] | None = getattr(os, "register_at_fork", None)
if _register is not None:
    _register(after_in_child=_tell_forked)


def _make_directories(path: str) -> None:
    """Make a directory and those above it, each durable in its parent."""
    if os.path.isdir(path):
        return
    _make_directories(os.path.dirname(path))
    try:
        os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise NotAStore(path, "it is a file") from None
    _sync_directory(os.path.dirname(path))


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


assert PAGE == lib.DL_PAGE
