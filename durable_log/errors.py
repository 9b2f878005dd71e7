"""Everything that can go wrong, by name.

Law of this room: every error that the package raises on purpose is a class of this tree. Its message says what
happened, where, with which numbers, and what to do next; the same numbers are attributes, and ``code`` is a stable
word for logs and for the wire. Nothing here imports another room, does I/O or formats tracebacks. Any thread.
"""

from __future__ import annotations

import errno
from typing import Final

COPY_AND_REPAIR: Final = (
    "the disk fails there: copy the store's directory to another disk, with a tool such as ddrescue that goes on "
    "behind what it can't read, and repair the copy"
)
"""What to do where a disk does not read."""

NAME_A_STORE: Final = "name the directory of a store"
"""What to do where nothing is made."""


class DurableLogError(Exception):
    """Base of every error of this package. ``code`` is stable across versions."""

    code = "error"


class StreamNotFound(DurableLogError):
    """No stream has that name: it was never created, was deleted, or has expired."""

    code = "stream_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} does not exist; create it first")
        self.name = name


class StreamExists(DurableLogError):
    """A stream of that name exists, with another configuration (PROTOCOL.md §5.1) or where a new one is wanted."""

    code = "stream_exists"

    def __init__(self, name: str, differs: str = "", existing: object = None, requested: object = None) -> None:
        unlike = f" with {differs} {existing!r}, not {requested!r}; ask for the same configuration"
        found = unlike if differs else "; read it"
        super().__init__(f"stream {name!r} already exists{found}, choose another name or delete the stream")
        self.name, self.differs, self.existing, self.requested = name, differs, existing, requested


class StreamClosed(DurableLogError):
    """The stream has ended: no append is possible any more. ``tail`` is its final offset in bytes."""

    code = "stream_closed"

    def __init__(self, name: str, tail: int) -> None:
        super().__init__(f"stream {name!r} is closed at offset {tail}; write to a new stream")
        self.name, self.tail = name, tail


class StreamGone(DurableLogError):
    """The stream was deleted while it was in use, or is kept only for its forks."""

    code = "stream_gone"

    def __init__(self, name: str) -> None:
        super().__init__(f"stream {name!r} was deleted; create it again under another name")
        self.name = name


class ContentTypeMismatch(DurableLogError):
    """The data has another content type than the stream."""

    code = "content_type_mismatch"

    def __init__(self, name: str, expected: str, received: str) -> None:
        super().__init__(f"stream {name!r} holds {expected!r}, not {received!r}; send {expected!r}")
        self.name, self.expected, self.received = name, expected, received


class SequenceConflict(DurableLogError):
    """A ``Stream-Seq`` that is not greater, byte by byte, than the last one (PROTOCOL.md §5.2)."""

    code = "sequence_conflict"

    def __init__(self, name: str, last: str, received: str) -> None:
        super().__init__(
            f"stream {name!r}: sequence {received!r} is not greater than the last one, {last!r} "
            "(compared byte by byte); read the stream before you append again"
        )
        self.name, self.last, self.received = name, last, received


class StaleEpoch(DurableLogError):
    """A newer epoch of this producer has taken over (PROTOCOL.md §5.2.1). ``current`` is that epoch."""

    code = "stale_epoch"

    def __init__(self, name: str, producer: str, current: int, received: int) -> None:
        super().__init__(
            f"stream {name!r}: producer {producer!r} is at epoch {current}, {received} is fenced off; "
            f"stop, or start again with epoch {current + 1} and sequence 0"
        )
        self.name, self.producer, self.current, self.received = name, producer, current, received


class SequenceGap(DurableLogError):
    """A producer's sequence number arrived before the one it follows."""

    code = "sequence_gap"

    def __init__(self, name: str, producer: str, expected: int, received: int) -> None:
        super().__init__(
            f"stream {name!r}: producer {producer!r} sent sequence {received} where {expected} is next; "
            f"send {expected} first"
        )
        self.name, self.producer, self.expected, self.received = name, producer, expected, received


class InvalidProducer(DurableLogError):
    """A producer's claim that no order of arrival can make valid."""

    code = "invalid_producer"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class InvalidName(DurableLogError, ValueError):
    """Not a stream name: names are 1 to 1,024 bytes of UTF-8."""

    code = "invalid_name"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; a stream name is 1 to 1024 bytes of UTF-8")


class InvalidData(DurableLogError, ValueError):
    """What was to be appended is not what the stream can hold: empty, not text, not JSON. Or, of ``Chunk.items``, what
    it holds is JSON that Python does not convert.

    ``position`` is the byte at which it stops being valid, where there is one; of ``Chunk.items`` the message's offset.
    """

    code = "invalid_data"

    def __init__(self, reason: str, position: int | None = None, advice: str = "") -> None:
        where = "" if position is None else f" at byte {position}"
        super().__init__(f"{reason}{where}; {advice}" if advice else f"{reason}{where}")
        self.position = position


class InvalidOption(DurableLogError, ValueError):
    """An argument or an option is outside what it may be."""

    code = "invalid_option"


class OffsetOutOfRange(DurableLogError):
    """The stream holds offsets ``first`` to ``tail``; the one asked for is not among them."""

    code = "offset_out_of_range"

    def __init__(self, name: str, offset: int, first: int, tail: int) -> None:
        super().__init__(
            f"stream {name!r} holds offsets {first} to {tail}, not {offset}; use an offset that the store gave you"
        )
        self.name, self.offset, self.first, self.tail = name, offset, first, tail


class RecordTooLarge(DurableLogError):
    """One append is larger than the store takes (bytes)."""

    code = "record_too_large"

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"an append of {size} bytes is over the limit of {limit}; split it, or open with a larger limit"
        )
        self.size, self.limit = size, limit


class Corruption(DurableLogError):
    """Acknowledged bytes fail their checksum. They are kept as they are and never guessed at.

    ``directory`` is that of the store, where it is known.
    """

    code = "corruption"

    def __init__(
        self, file: str, position: int, reason: str, *, name: str | None = None, directory: str | None = None
    ) -> None:
        stream = "" if name is None else f" (stream {name!r})"
        where = "" if directory is None else f" {directory}"
        super().__init__(f"{file}: position {position}: {reason}{stream}; run durable-log verify{where}")
        self.file, self.position, self.reason, self.name, self.directory = file, position, reason, name, directory

    def again(self) -> Corruption:
        """The same, to be raised once more."""
        return Corruption(self.file, self.position, self.reason, name=self.name, directory=self.directory)


class CommitFailed(DurableLogError):
    """A write or a sync failed: whether the append is on disk is unknown, and the store takes no more of them.

    So it is when an exception breaks off a commit of the sync face: Ctrl-C, or a signal handler that raises. Reads go
    on, and nothing that was acknowledged is lost. Close the store and open it again: opening decides what survived.
    Retry with a producer id.
    """

    code = "commit_failed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; the store refuses further changes until it is closed and opened again")
        self.reason = reason

    def again(self) -> CommitFailed:
        """The same, to be raised once more: an exception that is raised twice keeps the frames of both times."""
        copy = CommitFailed(self.reason)
        copy.__cause__ = self.__cause__
        return copy


class StoreFull(DurableLogError):
    """The disk has no room for the append. Nothing was written; deletes still work."""

    code = "store_full"

    def __init__(self, path: str, needed: int, advice: str = "free disk space or delete streams, then retry") -> None:
        super().__init__(f"no space left for {needed} bytes in {path}; {advice}")
        self.path, self.needed = path, needed


class StoreLocked(DurableLogError):
    """Another process writes to this directory, or this one has it open already. ``holder`` says which."""

    code = "store_locked"

    def __init__(self, path: str, holder: str, *, is_own: bool = False) -> None:
        if is_own:
            super().__init__(f"{path} is open in this process already; use that Store, or close it first")
        else:
            super().__init__(f"{path} is open in {holder}; one process may write to a store: stop that one first")
        self.path, self.holder, self.is_own = path, holder, is_own


class BackupFailed(DurableLogError):
    """There is no backup in ``target``. The store itself is as it was."""

    code = "backup_failed"

    def __init__(self, target: str, reason: str, advice: str) -> None:
        super().__init__(f"no backup was made in {target}: {reason}; {advice}")
        self.target, self.reason = target, reason


class StoreClosed(DurableLogError):
    """The store was closed, or belongs to the parent of this process."""

    code = "store_closed"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def again(self) -> StoreClosed:
        """The same, to be raised once more."""
        return StoreClosed(self.reason)


class NotAStore(DurableLogError):
    """The directory holds something else."""

    code = "not_a_store"

    def __init__(self, path: str, reason: str, advice: str = "name an empty or a new directory") -> None:
        super().__init__(f"{path} is not a durable_log store: {reason}; {advice}")
        self.path = path


class UnsupportedFormat(DurableLogError):
    """A newer version of this package wrote the file."""

    code = "unsupported_format"

    def __init__(self, file: str, found: str, supported: str) -> None:
        super().__init__(f"{file} has format {found}, this version reads {supported}; upgrade durable_log")
        self.file, self.found, self.supported = file, found, supported


class StoreUnreadable(DurableLogError):
    """The operating system refuses to read or to open a file of the store."""

    code = "store_unreadable"

    def __init__(self, file: str, cause: OSError) -> None:
        advice = "check the permissions, the disk and the limit of open files"
        if isinstance(cause, IsADirectoryError):
            advice = "move it away, and put back the file of the store, if you can"
        elif cause.errno == errno.EIO:
            advice = COPY_AND_REPAIR
        super().__init__(f"{file}: {cause.strerror or cause}; {advice}")
        self.file, self.cause = file, cause
