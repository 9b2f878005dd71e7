"""The layout of a run: its rows, its names and what follows its last page.

Law of this room: pure functions from values to bytes and back. No I/O, no state. Pages are ``csrc/run_page.h``; the
picture of a run is in ``csrc/durable_log.h``. Any thread.
"""

from __future__ import annotations

import re
import struct
import sys
from array import array
from itertools import islice
from operator import lt
from typing import Final, NamedTuple

from xxhash import xxh64_intdigest

from durable_log._core import lib
from durable_log.engine.format import PAGE, crc32c, pages
from durable_log.errors import Corruption

NAME_BYTES_MAX: Final = 1024
PAYLOAD_BYTES_MAX: Final = 2**30
NUMBER_MAX: Final = 2**48 - 1
NEVER: Final = 2**64 - 1
"""The deadline of what does not expire."""

TOMBSTONE: Final = 1
HIDDEN: Final = 2

_FILE_NAME: Final = re.compile(r"([0-9a-f]{8})\.run")
_ROW: Final = struct.Struct("<QIQQH")
_NAME: Final = struct.Struct("<QQH")
_TRAILER: Final = struct.Struct("<8sQQQQQQQQQI")
_CRC: Final = struct.Struct("<I")
_TRAILER_MAGIC: Final = b"RUNTAIL\n"


class Row(NamedTuple):
    """What a run says of a name. ``payload`` is opaque here; a ``tombstone`` says that the name is deleted, ``hidden``
    that it is so for readers. At ``deadline``, in milliseconds since 1970, the stream may expire.
    """

    name: str
    number: int
    payload: bytes
    tombstone: bool = False
    hidden: bool = False
    deadline: int = NEVER


class NameEntry(NamedTuple):
    """A row without its payload: what a listing needs."""

    name: str
    number: int
    tombstone: bool
    hidden: bool
    deadline: int


class Trailer(NamedTuple):
    """The counts in a run's last page. ``numbers_position`` is where the pages of rows end, in bytes; ``min_deadline``
    is of rows that are neither tombstones nor hidden.
    """

    rows: int
    tombstones: int
    min_number: int
    max_number: int
    min_deadline: int
    pages: int
    number_pages: int
    name_pages: int
    numbers_position: int

    @property
    def names_position(self) -> int:
        """Where the pages of numbers end, in bytes."""
        return self.numbers_position + self.number_pages * PAGE

    @property
    def tables_position(self) -> int:
        """Where the pages of names end, in bytes."""
        return self.names_position + self.name_pages * PAGE


class Tables(NamedTuple):
    """The first hash of each page of rows, the first number of each page of numbers, and where pages of rows begin:
    one position / 4096 each and one for their end, or None if all of them are one page long.
    """

    fences: array[int]
    number_fences: array[int]
    places: array[int] | None


def run_name(number: int) -> str:
    """The file name of a run."""
    return f"{number:08x}.run"


def run_number(name: str) -> int | None:
    """The number in a run's file name, or None if it is no such name."""
    match = _FILE_NAME.fullmatch(name)
    return None if match is None else int(match[1], 16)


def hash_of(name: str) -> int:
    """What rows are sorted by: XXH64 of the UTF-8 name."""
    return xxh64_intdigest(name.encode())


def encode_row(
    name: str, number: int, payload: bytes, *, tombstone: bool = False, hidden: bool = False, deadline: int = NEVER
) -> bytes:
    """One row. Raises ``ValueError`` beyond the limits of name, number, payload or deadline."""
    key = name.encode()
    return encode_hashed_row(
        xxh64_intdigest(key), key, number, payload, tombstone=tombstone, hidden=hidden, deadline=deadline
    )


def encode_hashed_row(
    hash_: int, name: bytes, number: int, payload: bytes, *, tombstone: bool = False, hidden: bool = False,
    deadline: int = NEVER,
) -> bytes:  # fmt: skip
    """The same, if the name's hash and its UTF-8 bytes are at hand."""
    if not 0 < len(name) <= NAME_BYTES_MAX or len(payload) > PAYLOAD_BYTES_MAX or not 0 <= number <= NUMBER_MAX:
        raise ValueError(f"a row of {len(name)} bytes of name, number {number} and {len(payload)} bytes of payload")
    if not 0 <= deadline <= NEVER:
        raise ValueError(f"a row whose deadline is {deadline} ms; the latest is NEVER")
    flags = TOMBSTONE * tombstone | HIDDEN * hidden
    return _ROW.pack(hash_, len(payload), number | flags << 48, deadline, len(name)) + name + payload


def key_of_row(data: bytes, at: int) -> tuple[int, bytes]:
    """Hash and name of the row that begins at ``at`` in bytes that were verified: what rows are sorted by."""
    hash_, _, _, _, name_length = _ROW.unpack_from(data, at)
    return hash_, data[at + _ROW.size : at + _ROW.size + name_length]


def size_of_row(data: bytes, at: int) -> int:
    """The length of the row that begins at ``at``, in bytes."""
    _, payload_length, _, _, name_length = _ROW.unpack_from(data, at)
    return int(_ROW.size + payload_length + name_length)


def head_of_row(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Number and flags of the row that begins at ``at`` in verified bytes; where its payload begins and ends."""
    _, payload_length, number, _, name_length = _ROW.unpack_from(data, at)
    start = at + _ROW.size + name_length
    return number & NUMBER_MAX, number >> 48, start, start + payload_length


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise Corruption("a run of the catalog", 0, f"the name {name!r} holds, but is no UTF-8") from error


def decode_row(data: bytes, at: int) -> Row:
    """The row that begins at ``at`` in bytes that were verified. Raises :class:`Corruption` if its name is no text."""
    _, payload_length, number, deadline, name_length = _ROW.unpack_from(data, at)
    start = at + _ROW.size
    middle, flags = start + name_length, number >> 48
    return Row(
        _text(data[start:middle]), number & NUMBER_MAX, data[middle : middle + payload_length],
        flags & TOMBSTONE != 0, flags & HIDDEN != 0, deadline,
    )  # fmt: skip


def decode_name(data: bytes, at: int) -> NameEntry:
    """The name that begins at ``at`` in bytes that were verified. Raises :class:`Corruption` if it is no text."""
    number, deadline, length = _NAME.unpack_from(data, at)
    start, flags = at + _NAME.size, number >> 48
    return NameEntry(
        _text(data[start : start + length]), number & NUMBER_MAX, flags & TOMBSTONE != 0, flags & HIDDEN != 0,
        deadline,
    )  # fmt: skip


def encode_tail(trailer: Trailer, tables: Tables, nonce: int) -> bytes:
    """What follows the last page of a run: its tables, in whole pages, and the trailer's page."""
    body = b"".join(_to_bytes(table) for table in tables if table is not None)
    body = body.ljust(pages(len(body)), b"\0")
    page = _TRAILER.pack(_TRAILER_MAGIC, *trailer, crc32c(nonce, body)).ljust(PAGE - _CRC.size, b"\0")
    return body + page + _CRC.pack(crc32c(nonce, page))


def _to_bytes(table: array[int]) -> bytes:
    if sys.byteorder == "big":
        table = table[:]
        table.byteswap()
    return table.tobytes()


def _from_bytes(kind: str, data: bytes) -> array[int]:
    table = array(kind, data)
    if sys.byteorder == "big":
        table.byteswap()
    return table


def decode_trailer(page: bytes, nonce: int) -> tuple[Trailer, int] | None:
    """The counts in a run's last page and the checksum of its tables, or None if it does not verify."""
    body = page[: -_CRC.size]
    if len(page) != PAGE or crc32c(nonce, body) != _CRC.unpack_from(page, len(body))[0]:
        return None
    magic, *counts, tables_crc = _TRAILER.unpack_from(page)
    return (Trailer(*counts), tables_crc) if magic == _TRAILER_MAGIC else None


def tables_length(trailer: Trailer) -> int:
    """What the tables take in the file, in whole pages, in bytes."""
    return pages(_table_ends(trailer)[-1])


def decode_tables(body: bytes, trailer: Trailer, nonce: int, crc: int) -> Tables | None:
    """The tables, or None if they do not verify."""
    if len(body) != tables_length(trailer) or crc32c(nonce, body) != crc:
        return None
    fences, numbers, end = _table_ends(trailer)
    places = _from_bytes("I", body[numbers:end]) if end > numbers else None
    if places is not None and not _divide(places, trailer.numbers_position // PAGE):
        return None
    return Tables(_from_bytes("Q", body[:fences]), _from_bytes("Q", body[fences:numbers]), places)


def _divide(places: array[int], end: int) -> bool:
    """Whether pages that begin there are all that lies between the header and ``end``, so that none is longer."""
    return places[0] == 1 and places[-1] == end and all(map(lt, places, islice(places, 1, None)))


def _table_ends(trailer: Trailer) -> tuple[int, int, int]:
    uneven = trailer.numbers_position != (trailer.pages + 1) * PAGE
    fences = trailer.pages * 8
    numbers = fences + trailer.number_pages * 8
    return fences, numbers, numbers + (trailer.pages + 1) * 4 * uneven


assert (NAME_BYTES_MAX, PAYLOAD_BYTES_MAX) == (lib.DL_RUN_NAME_MAX, lib.DL_RUN_PAYLOAD_MAX)
assert (_ROW.size, _NAME.size) == (lib.DL_RUN_ROW_HEADER, lib.DL_RUN_NAME_HEADER)
assert (TOMBSTONE, HIDDEN, NEVER) == (lib.DL_RUN_TOMBSTONE, lib.DL_RUN_HIDDEN, lib.DL_RUN_NEVER)
