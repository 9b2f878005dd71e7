"""What the demonstration shows while it runs: a few lines that change on a terminal, plain lines elsewhere.

Law of this room: only writing to stdout. Main thread only.
"""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Final

from durable_log._cli.output import put_now

_UP: Final = "\x1b[{}A\r\x1b[J"


class Screen:
    """Notes that stay, above lines that change. Without a terminal there are only the notes."""

    def __init__(self, live: bool | None = None) -> None:
        self.live = sys.stdout.isatty() if live is None else live
        self._lines: list[str] = []

    def note(self, text: str) -> None:
        """One line that stays."""
        lines = self._lines
        self._draw([])
        put_now(text + "\n")
        self._draw(lines)

    def show(self, lines: Sequence[str]) -> None:
        """The lines that change, instead of the ones before."""
        if self.live and list(lines) != self._lines:
            self._draw(lines)

    def _draw(self, lines: Sequence[str]) -> None:
        if not self.live:
            return
        width = shutil.get_terminal_size().columns - 1
        erase = _UP.format(len(self._lines)) if self._lines else ""
        put_now(erase + "".join(clipped(line, width) + "\n" for line in lines))
        self._lines = list(lines)


def last_words(text: bytes, width: int) -> str:
    """The end of a text on one line."""
    shown = " ".join(text[-4 * width :].decode("utf-8", "ignore").split())
    return shown if len(shown) <= width else "…" + shown[1 - width :]


def clipped(line: str, width: int) -> str:
    """What of a line fits into ``width`` columns: one that wraps would be two."""
    columns = 0
    for position, character in enumerate(line):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > width:
            return line[:position]
    return line
