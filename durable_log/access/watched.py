"""A file that is read again when it changes.

Law of this room: what was read last and made sense counts. A file that is gone, half-written or wrong is told once to
the log, by its name and the reason, and changes nothing. Asking costs one ``stat``. Any thread; one at a time reads.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from durable_log.errors import InvalidOption

SETTLED_NS: Final = 100_000_000
"""A file that changed less than this ago may change again without its times moving, so it is read again."""

T = TypeVar("T")
Signature = tuple[int, int, int, int]

log: Final = logging.getLogger("durable_log")


class Watched(Generic[T]):
    """What ``parse`` makes of the text of the file at ``path``; it raises ``ValueError`` for what makes no sense.

    ``secret``: the log gets a warning if everybody on the machine may read it. Raises :class:`InvalidOption` if there
    is nothing to begin with.
    """

    def __init__(self, path: str | os.PathLike[str], parse: Callable[[str], T], *, secret: bool) -> None:
        self._path, self._parse, self._secret = Path(path), parse, secret
        self._signature: Signature | None = None
        self._reading = threading.Lock()
        self._trouble: str | None = None
        self._warned = False
        try:
            self._value = self._read()
        except (OSError, ValueError) as error:
            raise InvalidOption(self._told(error)) from None

    def value(self) -> T:
        """What the file says by now."""
        try:
            if _signature(self._path.stat()) != self._signature:
                with self._reading:  # else what was read first could be kept last
                    self._value = self._read()
                self._trouble = None
        except (OSError, ValueError) as error:
            self._tell(self._told(error))
        return self._value

    def _read(self) -> T:
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            settled = time.time_ns() - found.st_mtime_ns > SETTLED_NS
            text = file.read().decode("utf-8", "strict")
        self._signature = _signature(found) if settled else None
        if self._secret and found.st_mode & stat.S_IROTH and not self._warned:
            self._warned = True
            log.warning("%s can be read by everybody on this machine; chmod 600 it", self._path)
        return self._parse(text)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            log.error("%s; what it said before goes on to count", trouble)

    def _told(self, error: OSError | ValueError) -> str:
        if isinstance(error, UnicodeDecodeError):
            return f"{self._path} is not valid UTF-8 at byte {error.start}"
        if isinstance(error, OSError):
            return f"{self._path} cannot be read: {error.strerror or type(error).__name__}"
        return f"{self._path}: {error}"


def _signature(found: os.stat_result) -> Signature:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino
