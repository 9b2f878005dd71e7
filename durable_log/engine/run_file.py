"""What the readers of a run share: its header, trailer and tables, and what is wrong with a page that does not hold.

Law of this room: it reads a file of which nothing is believed yet. ``csrc/run_page.h`` judges the pages; here a verdict
becomes an error. No state. Any thread.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from durable_log._core import lib
from durable_log.engine.files import File
from durable_log.engine.format import KIND_RUN, PAGE, FileHeader, decode_file_header
from durable_log.engine.run_format import Tables, Trailer, decode_tables, decode_trailer, run_number, tables_length
from durable_log.errors import Corruption

SCAN_BYTES: Final = 2**20
"""How much is read at once of what is read whole."""

REASONS: Final = {
    lib.DL_RUN_BAD_LENGTH: "the page is longer than what is there",
    lib.DL_RUN_BAD_CRC: "the page fails its checksum",
    lib.DL_RUN_BAD_PLACE: "the page belongs to another place",
    lib.DL_RUN_BAD_ITEM: "an item does not fit into its page",
    lib.DL_RUN_BAD_ORDER: "the items of the page are out of order",
}


class Loaded(NamedTuple):
    """All of a run but its pages."""

    header: FileHeader
    trailer: Trailer
    tables: Tables


def load(file: File, name: str) -> Loaded | None:
    """What a file of that name has, or None if it does not verify. Raises :class:`UnsupportedFormat`."""
    header = decode_file_header(name, file.read(0, PAGE))
    if header is None or header.kind != KIND_RUN or header.number != run_number(name) or header.size != file.size():
        return None
    trailer_and_crc = decode_trailer(file.read(header.size - PAGE, PAGE), header.nonce)
    if trailer_and_crc is None:
        return None
    trailer, crc = trailer_and_crc
    position, length = trailer.tables_position, tables_length(trailer)
    if position + length != header.size - PAGE:
        return None
    tables = decode_tables(file.read(position, length), trailer, header.nonce, crc)
    return None if tables is None else Loaded(header, trailer, tables)


def arguments(position: int, data: bytes, nonce: int) -> tuple[bytes, int, int, int]:
    """Those by which C verifies the pages that ``data`` is, read from ``position`` on."""
    return data, len(data), position // PAGE, nonce


def expect(file: File, position: int, verdict: int) -> None:
    """Raise :class:`Corruption` if the verdict says that the page at ``position`` does not hold."""
    if verdict in REASONS:
        raise corruption(file, position, verdict)


def corruption(file: File, position: int, verdict: int) -> Corruption:
    """The error that says what is wrong with the page at ``position``."""
    return Corruption(file.name, position, REASONS[verdict])
