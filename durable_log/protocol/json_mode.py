"""JSON mode: between request bodies, stored messages and response bodies.

Law of this room: the only place outside the C core, but for ``model.Chunk``, that knows the stored form, which is every
message followed by a comma, in the bytes that it came in. Validation happens once, on the way in; on the way out
nothing is parsed (PROTOCOL.md §9.1). Pure; any thread; what takes longer runs without the interpreter's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from durable_log._core import ffi, lib
from durable_log.errors import InvalidData

DEPTH_MAX: Final = 512
"""How deeply arrays and objects may nest in one body."""

BRIEF_BYTES_MAX: Final = 32 * 2**10
"""What is split without letting go of the interpreter's lock: to hand that over takes longer."""

_SEPARATOR: Final = bytes([lib.DL_JSON_SEPARATOR])
_OUT_LENGTH, _COUNT, _POSITION = 0, 1, 2

_REASONS: Final = {
    lib.DL_JSON_EMPTY: "holds only white space where a JSON value should begin; it ends",
    lib.DL_JSON_SYNTAX: "is not valid JSON",
    lib.DL_JSON_UTF8: "is not valid UTF-8, as JSON has to be,",
    lib.DL_JSON_DEPTH: f"nests deeper than {DEPTH_MAX} arrays and objects",
    lib.DL_JSON_TRAILING: "holds more than one JSON value, send an array instead; the second begins",
}


def split(body: bytes, what: str = "the body", advice: str = "") -> tuple[bytes, int]:
    """The messages of a request body in stored form, and how many there are; one array level is flattened.

    ``[]`` has none (PROTOCOL.md §9.1.2). Raises :class:`InvalidData` with the reason and the byte where it shows;
    ``what`` it is that is no JSON, and an ``advice``, are for that.
    """
    return _split(body, 1, what, advice)


def split_many(bodies: Sequence[Any], advice: str = "") -> bytes:
    """The messages of several bodies together in stored form. Raises ``TypeError`` if they are not all bytes of some
    kind, and what :func:`split` raises of the first that is no JSON, by its place among them.
    """
    try:
        return _split(_SEPARATOR.join(bodies), len(bodies))[0]
    except InvalidData:
        return b"".join([split(bytes(body), f"item {place}", advice)[0] for place, body in enumerate(bodies)])


def _split(texts: bytes, count: int, what: str = "", advice: str = "") -> tuple[bytes, int]:
    # A lone value gains its comma; an array loses two brackets for at most one more comma: never above one byte more.
    room = len(texts) + 1
    out = bytearray(room)
    sizes = ffi.new("size_t[3]")
    dl_json_split = lib.dl_json_split_brief if room <= BRIEF_BYTES_MAX else lib.dl_json_split
    verdict = dl_json_split(
        ffi.from_buffer("uint8_t[]", texts),
        len(texts),
        count,
        DEPTH_MAX,
        ffi.from_buffer("uint8_t[]", out, require_writable=True),
        room,
        sizes + _OUT_LENGTH,
        sizes + _COUNT,
        sizes + _POSITION,
    )
    if verdict != lib.DL_JSON_OK:
        raise InvalidData(f"{what} {_REASONS[verdict]}", int(sizes[_POSITION]), advice)
    with memoryview(out) as stored:
        return bytes(stored[: sizes[_OUT_LENGTH]]), int(sizes[_COUNT])


def to_array(stored: bytes) -> bytes:
    """Stored messages as a JSON array (PROTOCOL.md §9.1.5); no messages are ``[]``."""
    return b"[" + stored[:-1] + b"]"


def page(stored: bytes, limit: int) -> int:
    """Where the last whole message that ends within ``limit`` bytes of ``stored`` ends.

    The end of the first message if that is longer; 0 if not even one is whole.
    """
    return int(lib.dl_json_page(ffi.from_buffer("uint8_t[]", stored), len(stored), limit))


def end_of_message(stored: bytes, count: int) -> int:
    """Where the message number ``count`` (from 1 on) of ``stored`` ends; 0 if there are fewer."""
    end, length, messages = 0, len(stored), ffi.from_buffer("uint8_t[]", stored)
    for _ in range(count):
        step = lib.dl_json_page(messages + end, length - end, 1)
        if not step:
            return 0
        end += step
    return int(end)
