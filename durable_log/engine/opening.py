"""From a directory to an engine at work, or to nothing at all.

Law of this room: whoever opens has the lock first, and lets go of it last: an engine that did not begin as a whole is
ended before anybody else may have the directory. Errors of the system become those of this package here. Any thread.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from durable_log.engine.files import Directory, StorePath, directory_at, is_out_of_space
from durable_log.engine.format import PAGE
from durable_log.engine.log import Clock, LogEngine
from durable_log.engine.manifest import check_directory
from durable_log.errors import StoreFull, StoreUnreadable
from durable_log.model import Options


def open_engine(path: StorePath, options: Options, clock: Clock) -> LogEngine:
    """Open or create the store in a directory, or in memory if ``path`` is ``":memory:"``. Raises as below."""
    try:
        directory = directory_at(path)
    except OSError as error:
        raise _refusal(str(path), error) from error
    if path == ":memory:":
        options = replace(options, cluster_at_close=False)  # nobody will open it again
    return open_in(directory, options, clock)


def open_in(directory: Directory, options: Options, clock: Clock = time.time) -> LogEngine:
    """Open or create the store in ``directory``.

    Raises :class:`NotAStore`, :class:`StoreLocked`, :class:`UnsupportedFormat`, :class:`StoreFull`,
    :class:`StoreUnreadable`, :class:`Corruption`.
    """
    engine = LogEngine(directory, options, clock)
    try:
        check_directory(directory)
        directory.lock()
        engine.start()
    except OSError as error:
        engine.give_up()
        raise _refusal(directory.path, error) from error
    except BaseException:
        engine.give_up()
        raise
    return engine


class Handover:
    """What a thread opens for a task, which may be cancelled; the thread can't be. Whoever comes last closes it."""

    def __init__(self) -> None:
        self._mutex, self._left = threading.Lock(), False
        self._engine: LogEngine | None = None

    def open(self, path: StorePath, options: Options, clock: Clock) -> LogEngine:
        """On the thread. Raises as above."""
        engine = open_engine(path, options, clock)
        with self._mutex:
            self._engine, left = engine, self._left
        if left:
            engine.close()
        return engine

    def leave(self) -> None:
        """Nobody wants it any more. Does not wait."""
        with self._mutex:
            self._left, engine = True, self._engine
        if engine is not None:
            threading.Thread(target=engine.close, name="durable_log closer").start()


def _refusal(path: str, error: OSError) -> StoreFull | StoreUnreadable:
    """Why a store does not open."""
    return StoreFull(path, PAGE) if is_out_of_space(error) else StoreUnreadable(str(error.filename or path), error)
