"""Gathering a stream's records out of a log segment, piece by piece.

Law of this room: the arguments of one ``dl_frames_gather``, kept between its calls; the caller reads the pieces. No
I/O, and the interpreter's lock is not held in C. One thread a gathering.
"""

from __future__ import annotations

from typing import Any

from durable_log._core import ffi, lib
from durable_log.engine.format import FRAME_EXTENSIONS_MAX, FRAME_HEADER


class Gather:
    """Arguments of one ``dl_frames_gather`` over consecutive records, which the caller feeds piece by piece."""

    def __init__(self, nonce: int, stream: int, positions: Any, offsets: Any, span: tuple[int, int]) -> None:
        self.nonce, self.stream, self.span = nonce, stream, span
        self.positions, self.offsets = positions, offsets
        self.count = len(positions)
        self.out = bytearray(span[1] - span[0])
        self.done = 0
        self._positions = ffi.from_buffer("uint64_t[]", positions)
        self._offsets = ffi.from_buffer("uint64_t[]", offsets)
        self._out = ffi.from_buffer("uint8_t[]", self.out)
        self._done = ffi.new("size_t *")

    def end_of(self, record: int) -> int:
        """An upper bound of where the frame of a record ends in the file."""
        length: int = self.offsets[record + 1] - self.offsets[record]
        return int(self.positions[record]) + FRAME_HEADER + FRAME_EXTENSIONS_MAX + length

    def feed(self, piece: Any, position: int, count: int) -> bool:
        """Take ``count`` further records out of ``piece``. False at the first that does not hold."""
        verdict = lib.dl_frames_gather(
            ffi.from_buffer(piece), len(piece), position, self.nonce, self.stream,
            self._positions + self.done, self._offsets + self.done, count, *self.span, self._out, self._done,
        )  # fmt: skip
        self.done += self._done[0]
        return bool(verdict == lib.DL_OK)
