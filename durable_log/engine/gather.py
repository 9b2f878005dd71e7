"""Gathering a stream's records out of a log segment, piece by piece.

Law of this room: pieces of the file are read where the index says, a quarter of a MiB at once; one call into C for each
of them, without the interpreter's lock, verifies the records and copies their bytes. Any thread.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, Final

from durable_log._core import ffi, lib
from durable_log.engine.index import ENTRY, entry_at
from durable_log.engine.storage import File

_PIECE: Final = 256 * 2**10


def gather(file: File, nonce: int, stream: int, index: bytearray, first: int, last: int) -> bytes:
    """The stream bytes ``first`` to ``last``, within ``index``, whose entries all lie in this file. They end before the
    first record that does not verify. Raises ``OSError``.
    """
    gathered = BytesIO(bytes(last - first))
    with gathered.getbuffer() as memory, ffi.from_buffer("uint8_t[]", memory, require_writable=True) as out:
        end = _copy(file, nonce, stream, index, first, last, out)
    whole = gathered.getvalue()  # which is no copy
    return whole if end >= last else whole[: max(0, end - first)]


def _copy(file: File, nonce: int, stream: int, index: bytearray, first: int, last: int, out: Any) -> int:
    """The offset up to which the records held."""
    view, count, at = ffi.from_buffer("uint8_t[]", index), len(index) // ENTRY, 0
    piece, done = ffi.new("uint64_t[2]"), ffi.new("size_t *")
    while at < count:
        entries = view + ENTRY * at
        ahead = lib.dl_frames_ahead(entries, count - at, _PIECE, piece)
        content = file.read(*piece)
        verdict = lib.dl_frames_gather(
            content, len(content), piece[0], nonce, stream, entries, ahead, first, last, out, done
        )
        at += done[0]
        if verdict != lib.DL_OK:
            return entry_at(index, at)[0]
    return last
