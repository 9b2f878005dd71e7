"""A consistent copy of an open store, while its writers go on.

Law of this room: a backup is what a loss of power at one moment would leave behind, without the torn end: that it opens
and holds all that was acknowledged is what opening after a crash promises. The moment is taken with the commit lock
held; nothing is copied under that lock. The clustering lock keeps files from being removed, and log segments from being
recycled, until all are linked or copied. Files that are never written again get a second name, others are copied up to
the durable end. The manifest comes last, so until everything is there, durable and read again, there is no store. What
goes wrong is cleaned up. Any thread; nothing of the store itself is changed.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, NamedTuple

from durable_log.engine.catalog import Catalog
from durable_log.engine.check import FileFault, check_log, check_tables
from durable_log.engine.cluster import cluster_name
from durable_log.engine.commit import Committer
from durable_log.engine.files import LOCK_NAME, Directory, StorePath, directory_at, holds, is_out_of_space
from durable_log.engine.manifest import MANIFEST_NAME, UNFINISHED_NAME, Manifest, load_manifest, save_manifest
from durable_log.engine.reader import Reader
from durable_log.engine.run_format import run_name
from durable_log.engine.segment import segment_name
from durable_log.engine.storage import UNSYNCED_BYTES_MAX
from durable_log.engine.writer import LogWriter
from durable_log.errors import COPY_AND_REPAIR, BackupFailed, NotAStore
from durable_log.model import Backup

_PIECE: Final = UNSYNCED_BYTES_MAX


class Image(NamedTuple):
    """The store at one moment: its manifest, how far each log segment is durable, and the last block of the log."""

    manifest: Manifest
    log: list[tuple[str, int]]
    last_lsn: int


class Backups:
    """Makes backups of one open store. ``check_open`` raises if the store is closed; asked between any two pieces."""

    def __init__(
        self, directory: Directory, catalog: Catalog, committer: Committer, writer: LogWriter, reader: Reader,
        unreadable: list[str], clustering: threading.Lock, check_open: Callable[[], None], clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._directory, self._catalog, self._committer, self._writer = directory, catalog, committer, writer
        self._reader, self._unreadable, self._clustering = reader, unreadable, clustering
        self._check_open, self._clock = check_open, clock

    def make(self, path: StorePath, *, verify: bool) -> Backup:
        """A backup in a new or empty directory. Raises :class:`BackupFailed`, :class:`CommitFailed`,
        :class:`StoreClosed`.
        """
        self._check_open()
        if holds(self._directory, path):
            raise BackupFailed(str(path), f"it lies inside of the store {self._directory.path}", "name one outside")
        target = _target_at(path, self._directory)
        try:
            _claim(target)
            return self.fill(target, verify=verify)
        finally:
            target.close()

    def fill(self, target: Directory, *, verify: bool) -> Backup:
        """Fill a directory that is empty, and locked. What was begun is removed if it fails."""
        try:
            return self._fill(target, verify=verify)
        except BaseException as error:
            _clear(target)
            if isinstance(error, OSError):
                raise _failure(target, error) from error
            raise

    def _fill(self, target: Directory, *, verify: bool) -> Backup:
        target.create(UNFINISHED_NAME).close()
        target.sync()
        with self._clustering:
            self._check_open()
            image = self._image()
            made = self._transfer(image, target)
        target.sync()
        if verify:
            manifest = image.manifest
            _check(target, check_tables(target, manifest, self._check_open))
            _check(target, check_log(target, manifest, image.last_lsn))
        save_manifest(target, image.manifest, int(self._clock() * 1000))
        if verify and load_manifest(target, 0) != image.manifest:
            _check(target, [FileFault(MANIFEST_NAME, 0, "it reads otherwise than it was written")])
        target.remove(UNFINISHED_NAME)
        target.sync()
        return made

    def _image(self) -> Image:
        with self._committer.exclusive():
            lsn, last_lsn, streams = self._writer.end_lsn, self._writer.last_lsn, len(self._catalog)
            segments = [(number, segment.end) for number, segment in sorted(self._reader.segments.items())]
        # The one on disk, whatever the next will be: it and the log belong together at any moment.
        manifest = load_manifest(self._directory, 0)._replace(lsn=lsn, streams=streams)
        log = [(segment_name(number), end) for number, end in segments if number >= manifest.log_first]
        return Image(manifest, log, last_lsn)

    def _transfer(self, image: Image, target: Directory) -> Backup:
        linked = copied = bytes_copied = 0
        whole = [cluster_name(file.number) for file in image.manifest.clustered]
        whole += map(run_name, image.manifest.runs)
        for name in whole:
            self._check_open()
            if target.link_from(self._directory, name):
                linked += 1
            else:
                copied += 1
                bytes_copied += self._copy(name, None, target)
        there = set(self._directory.names())
        damaged = [(name, None) for name in self._unreadable if name in there - dict(image.log).keys()]
        for name, end in [*image.log, *damaged]:
            copied += 1
            bytes_copied += self._copy(name, end, target)
        return Backup(linked, copied, bytes_copied, image.manifest.streams)

    def _copy(self, name: str, end: int | None, target: Directory) -> int:
        """Copy a file, up to ``end`` if that is given, or as far as it goes: a loss of power may take the padding of
        its last block, and damage takes more. Returns how many bytes were copied.
        """
        source = self._directory.open(name)
        try:
            copy = target.create(name)
            try:
                size = source.size()
                length, position = size if end is None else min(size, end), 0
                while position < length:
                    self._check_open()
                    piece = source.read(position, min(_PIECE, length - position))
                    if not piece:
                        raise OSError(0, f"the file ends at {position}, before {length}", name)
                    copy.write(position, piece)
                    position += len(piece)
                    copy.sync()
                copy.sync()  # that of an empty file, too
                copy.forget()
            finally:
                copy.close()
        finally:
            source.close()
        return length


def _target_at(path: StorePath, source: Directory) -> Directory:
    if path == ":memory:":
        raise BackupFailed(":memory:", "a copy in memory would be gone with this call", "name a directory")
    try:
        return directory_at(path, like=source)
    except NotAStore:
        raise BackupFailed(str(path), "it is a file", "name a new or an empty directory") from None
    except OSError as error:
        raise BackupFailed(str(path), str(error.strerror), "check its permissions and its disk") from error


def _claim(target: Directory) -> None:
    """Become the one that writes to the directory. Raises :class:`BackupFailed` if it holds anything."""
    try:
        _check_empty(target)
        target.lock()
        _check_empty(target)
    except OSError as error:
        raise _failure(target, error) from error


def _check_empty(target: Directory) -> None:
    names = set(target.names()) - {LOCK_NAME}
    if UNFINISHED_NAME in names:
        raise BackupFailed(target.path, "it holds a backup that was not finished", "remove it, or name a new directory")
    if names:
        raise BackupFailed(target.path, f"it holds {min(names)!r} already", "name a new or an empty directory")


def _check(target: Directory, faults: Iterable[FileFault]) -> None:
    """Raise :class:`BackupFailed` for the first of them."""
    for fault in faults:
        where = f"{fault.file}: position {fault.position}: {fault.reason}"
        advice = "run durable-log verify on the store; without verification it is copied as it is"
        raise BackupFailed(target.path, f"what was copied does not verify: {where}", advice)


def _failure(target: Directory, error: OSError) -> BackupFailed:
    if is_out_of_space(error):
        advice = "free some there or name a directory on another disk; the store itself is as it was"
        return BackupFailed(target.path, "its disk has no space left", advice)
    where = f"{error.filename}: " if error.filename else ""
    advice = "the store itself is as it was; try again"
    if error.errno == errno.EIO:
        advice = f"try another disk for the backup; if the file is the store's, {COPY_AND_REPAIR}"
    return BackupFailed(target.path, f"{where}{error.strerror or error}", advice)


def _clear(target: Directory) -> None:
    """Leave nothing of a backup that failed, and at no moment anything that opens."""
    with suppress(OSError):
        if MANIFEST_NAME in target.names():
            target.remove(MANIFEST_NAME)
            target.sync()
        for name in sorted(target.names(), key=lambda name: name == UNFINISHED_NAME):
            target.remove(name)
        target.sync()
        target.discard()
