"""What the store does in the background: threads that take steps, and empty segments ready before they are needed.

Law of this room: a thread of its own, which never holds the commit lock. Segments that it has made are handed over
whole. No trouble here stops a commit: a segment that could not be made ahead is made by the commit that needs it, and
fails there if it must.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final

from durable_log.engine.files import Directory
from durable_log.engine.segment import TEMPORARY, LogSegment, segment_name, size_of_segment
from durable_log.model import Options

SPARES: Final = 2
"""So many segments are made ahead,"""
RECYCLED_MAX: Final = 8
"""and so many are kept of those that were clustered: what a busy store needs until it clusters again."""
REST_SECONDS: Final = 300.0
"""A store that has begun no segment for so long is not busy."""

_log = logging.getLogger("durable_log")


class Litter:
    """Files that nobody needs any more, by name. What can't be removed is tried again with the next ones, and is
    removed when the store is opened. No name may be given to another file.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._mutex = threading.Lock()
        self._names: list[str] = []

    def drop(self, *names: str) -> None:
        """Remove these files, too, as far as that is possible now."""
        with self._mutex:
            self._names += names
        try:
            self.sweep()
        except OSError as error:
            _log.warning("%s: a file that nobody needs stays for now: %s", self._directory.path, error)

    def sweep(self) -> None:
        """Remove what is left. Raises ``OSError`` for what stays, after having tried all of it."""
        failures = []
        with self._mutex:
            names, self._names = self._names, []
            for name in names:
                try:
                    self._directory.remove(name)
                except FileNotFoundError:
                    pass
                except OSError as failure:
                    failures.append(failure)
                    self._names.append(name)
        if failures:
            raise failures[0]


class Spares:
    """Empty segments, made ahead in the order of their numbers."""

    def __init__(
        self, directory: Directory, uuid: bytes, options: Options, ready: list[LogSegment], last_number: int
    ) -> None:
        self._directory, self._uuid, self._options = directory, uuid, options
        self.litter = Litter(directory)
        self._making = threading.Lock()
        self._ready = deque(ready)
        self._wanted = False
        self._last_number = last_number
        self._grow_from = 0
        self._taken_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._ready)

    def take(self, number: int, size: int) -> LogSegment:
        """An empty segment numbered at least ``number`` in which appends may reach ``size``. Raises ``OSError``."""
        self._wanted = True
        self._taken_at = time.monotonic()
        with self._making:
            while self._ready:
                segment = self._ready.popleft()
                if segment.number >= number and segment.usable >= size and not segment.after_lsn:
                    return segment
                self._discard(segment)
            return self._make(max(number, self._last_number + 1), size)

    def want(self) -> None:
        """Have the spares made in the background, from now on."""
        self._wanted = True

    def refill(self) -> None:
        """Make what is missing, if anybody wanted it; give back what nobody has wanted for long."""
        if len(self._ready) > SPARES and time.monotonic() - self._taken_at > REST_SECONDS:
            self._shrink()
        if not self._wanted or not self._options.preallocate or not self._directory.grows_in_place:
            return
        while len(self._ready) < SPARES and self._make_spare():
            pass

    def give_back(self, segment: LogSegment, *, closing: bool = False) -> None:
        """A segment that nobody needs any more: another spare, or room on the disk.

        ``closing``: it was the last one, and is so again when the store is opened.
        """
        with self._making:
            ordinary = segment.size == self._options.segment_bytes and self._options.preallocate
            reusable = (closing or ordinary) and self._directory.grows_in_place
            if not (reusable and len(self._ready) < RECYCLED_MAX and self._recycled(segment)):
                self._discard(segment)

    def _recycled(self, segment: LogSegment) -> bool:
        """Make it a spare. False if that fails: nobody knows its name then, and it is not synced again."""
        old = segment.file.name
        number = self._last_number = self._last_number + 1
        try:
            self._ready.append(segment.recycle(self._directory, number, int(time.time() * 1000)))
        except OSError as error:
            _log.warning("%s: %s could not be used again: %s", self._directory.path, old, error)
            self.litter.drop(old, segment_name(number), segment_name(number) + TEMPORARY)
            return False
        return True

    def start_small(self) -> None:
        """Have segments grow anew from the next one on, as in a young store. Removes what is ready."""
        with self._making:
            self._grow_from = self._last_number
            self._remove_ready()

    def remove(self) -> None:
        """Give their room back, until somebody wants them again."""
        with self._making:
            self._wanted = False
            self._remove_ready()

    def close(self) -> None:
        """Close the files of unused spares; they are found again when the store is opened."""
        self._shrink()
        while self._ready:
            self._ready.popleft().close()

    def _make_spare(self) -> bool:
        try:
            with self._making:
                if self._wanted:
                    self._ready.append(self._make(self._last_number + 1, 0))
                return self._wanted
        except OSError:
            # On a full disk, trying again and again would only be a nuisance: the next roll asks anew.
            self._wanted = False
            raise

    def _make(self, number: int, size: int) -> LogSegment:
        size = size_of_segment(number - self._grow_from, self._options.segment_bytes, size)
        made = LogSegment.create(self._directory, number, size, self._uuid, int(time.time() * 1000))
        self._last_number = number
        return made

    def _shrink(self) -> None:
        with self._making:
            while len(self._ready) > SPARES:
                self._discard(self._ready.pop())

    def _remove_ready(self) -> None:
        while self._ready:
            self._discard(self._ready.popleft())

    def _discard(self, segment: LogSegment) -> None:
        segment.close()
        self.litter.drop(segment.file.name)


class Background:
    """A thread that takes its steps in turn, every ``seconds`` and whenever it is woken."""

    def __init__(self, name: str, seconds: float, *steps: Callable[[], object]) -> None:
        self._seconds, self._steps = seconds, steps
        self._bell: SimpleQueue[None] = SimpleQueue()  # all of it in C: no interrupt leaves it locked
        self._stopping = False
        self._failing: set[Callable[[], object]] = set()
        """The steps that did not go well last time, which has been said."""
        self._thread = threading.Thread(target=self._run, name=f"durable_log {name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        if self._bell.empty():
            self._bell.put(None)

    def stop(self) -> None:
        """Finish the step at hand and end."""
        self._stopping = True
        self._bell.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            with suppress(Empty):
                self._bell.get(timeout=self._seconds)
            for step in self._steps:
                if not self._stopping:
                    self._attempt(step)

    def _attempt(self, step: Callable[[], object]) -> None:
        try:
            step()
            self._failing.discard(step)
        except Exception as error:  # noqa: BLE001 - a thread that ends takes the store's housekeeping with it
            if step not in self._failing:
                _log.warning("background work failed and will be tried again: %s", error)
            self._failing.add(step)
