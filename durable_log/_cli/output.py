"""Writing to stdout, and what becomes of a command whose output can't be written.

Law of this room: all that a command prints goes through here, so an output that fails is told apart from a store that
does. Text is UTF-8 whatever the locale says. Once the output has failed it leads nowhere: the interpreter flushes it
once more on its way out. Main thread only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click

IMPOSSIBLE: Final = 2
"""The exit code where what was asked for could not be done or told; 1 is an answer of some commands."""


class OutputFailed(click.ClickException):
    """Stdout takes no more: its disk is full, say. ``cut_off``: because whoever read it is gone."""

    exit_code = IMPOSSIBLE

    def __init__(self, reason: str, *, done: str = "", cut_off: bool = False) -> None:
        super().__init__(f"stdout can't be written: {reason}{f'; {done}' if done else ''}")
        self.reason, self.cut_off = reason, cut_off


def put(data: bytes | str) -> None:
    """Write to stdout. Raises :class:`OutputFailed`."""
    with _output():
        sys.stdout.buffer.write(data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data)


def put_now(data: bytes | str) -> None:
    """Write to stdout and let it be seen. Raises :class:`OutputFailed`."""
    put(data)
    finish()


def finish() -> None:
    """Let all be seen that was written. Raises :class:`OutputFailed`."""
    with _output():
        sys.stdout.flush()


@contextmanager
def telling(done: str) -> Iterator[None]:
    """What is printed here is about what is ``done`` already: if it can't be told, the error says that."""
    try:
        yield
        finish()
    except OutputFailed as error:
        raise OutputFailed(error.reason, done=done, cut_off=error.cut_off) from error


@contextmanager
def _output() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):  # a stream in memory has no descriptor
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputFailed(error.strerror or str(error), cut_off=isinstance(error, BrokenPipeError)) from error
