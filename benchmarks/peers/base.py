"""What a contestant that stores records has to do.

Law of this room: each contestant is used as its own documentation recommends for appends that are on disk when they
return; what that means is in its ``how``, which the tables show. All get the same bytes, in the same directory.
"""

from __future__ import annotations

import importlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar


class Absent(Exception):
    """A contestant that cannot run on this machine, and why."""


class Peer(ABC):
    """Logs of records, one for each writer, in one directory. Opening one that is not installed raises
    :class:`Absent`.
    """

    name: ClassVar[str]
    how: ClassVar[str]

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Which version of it is installed. Raises :class:`Absent`."""

    @abstractmethod
    def __init__(self, folder: Path, writers: int = 1) -> None:
        """Open it, empty, in an empty folder, for so many writers."""

    @abstractmethod
    def append(self, writer: int, data: bytes) -> None:
        """One record at the end of a writer's log, on disk when this returns. Any thread may call it."""

    @abstractmethod
    def append_many(self, items: Sequence[bytes]) -> None:
        """Records at the end of the first writer's log, all or none, on disk when this returns."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def appends(self, writers: int, count: int, data: bytes) -> float:
        """Seconds that ``count`` appends take, of so many writers at once, each of which waits for each of its own.

        A writer is a thread, unless the contestant has something better for that.
        """
        if writers == 1:
            started = time.perf_counter()
            for _ in range(count):
                self.append(0, data)
            return time.perf_counter() - started
        return self._threads(writers, count // writers, data)

    def batches(self, count: int, items: Sequence[bytes]) -> float:
        """Seconds that one writer takes to append ``items`` so many times, all or none each time."""
        started = time.perf_counter()
        for _ in range(count):
            self.append_many(items)
        return time.perf_counter() - started

    def _threads(self, writers: int, each: int, data: bytes) -> float:
        ready = threading.Barrier(writers + 1)
        failures: list[Exception] = []

        def write(writer: int) -> None:
            ready.wait()
            try:
                for _ in range(each):
                    self.append(writer, data)
            except Exception as failure:  # noqa: BLE001 - raised by whoever waits
                failures.append(failure)

        threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
        for thread in threads:
            thread.start()
        ready.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        for failure in failures:
            raise failure
        return time.perf_counter() - started


class RecordPeer(Peer):
    """One whose records are there one by one when they are read, too."""

    @abstractmethod
    def iterate(self) -> Iterable[bytes]:
        """The records of the first writer, in order."""


class Keys:
    """Of a log in a sorted map: the writer, then a number that grows. Each writer takes its own."""

    def __init__(self, writers: int) -> None:
        self._numbers = [0] * writers

    def next(self, writer: int) -> bytes:
        """The key of a writer's next record."""
        number = self._numbers[writer]
        self._numbers[writer] = number + 1
        return writer.to_bytes(2, "big") + number.to_bytes(8, "big")


def library(module: str, package: str | None = None) -> Any:
    """A module that may not be installed. Raises :class:`Absent`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Absent(f"{package or module} is not installed for this Python") from error


def package_version(package: str) -> str:
    """The version of an installed package. Raises :class:`Absent`."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError as error:
        raise Absent(f"{package} is not installed for this Python") from error


def paged(pages: Iterable[Sequence[bytes]]) -> Iterator[bytes]:
    """Records out of pages of them."""
    for page in pages:
        yield from page
