"""A manifest out of the files, where the one that is there is damaged, too old or none of this store's, or gone.

Law of this room: pure reading. The store's identity is in the headers of all its files. A file that the manifest does
not name is removed by the next opening, so what is there counts, but for what a crash had left that very moment: files
that say the same once more, or what nothing refers to. Runs were made in the order of their numbers, the newest last.
The thread that repairs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from durable_log.engine.check import OF_ANOTHER_STORE
from durable_log.engine.cluster import cluster_number
from durable_log.engine.files import Directory
from durable_log.engine.format import PAGE, FileHeader, decode_file_header
from durable_log.engine.manifest import MANIFEST_NAME, UNFINISHED_NAME, ClusteredFile, Manifest, load_manifest
from durable_log.engine.rows import lsn_of_row
from durable_log.engine.run import Run
from durable_log.engine.run_format import hash_of, run_number
from durable_log.engine.salvage_log import first_block
from durable_log.engine.segment import segment_number
from durable_log.errors import NAME_A_STORE, Corruption, NotAStore

NUMBERS_SKIPPED: Final = 2**20
"""No file may be left that names the newest streams, and no number is given twice."""


def expect_store(directory: Directory) -> None:
    """Raise :class:`NotAStore` if nothing there is a store's. Needs no lock. Raises :class:`UnsupportedFormat`,
    ``OSError``.
    """
    names = directory.names()
    if MANIFEST_NAME not in names and UNFINISHED_NAME in names:
        raise NotAStore(directory.path, "the backup into it was not finished, and nothing in it is needed")
    if next(_headers(directory), None) is None:
        raise NotAStore(directory.path, "no file in it has the header of a store's file", NAME_A_STORE)


def manifest_of(directory: Directory) -> tuple[Manifest, Corruption | None]:
    """The manifest of a store, and what is wrong with the one that is there, if it has to be made anew.

    Raises :class:`NotAStore` if this is none, ``OSError``.
    """
    expect_store(directory)
    names, uuids = directory.names(), _uuids(directory)
    try:
        if MANIFEST_NAME in names:
            manifest = load_manifest(directory, 0)
            if uuids[manifest.uuid] > 1 or len(uuids) == 1:
                return manifest, None
            del uuids[manifest.uuid]
            fault = Corruption(MANIFEST_NAME, 0, OF_ANOTHER_STORE)
        else:
            fault = Corruption(MANIFEST_NAME, 0, "it is not there")
    except Corruption as error:
        fault = error
    return reconstructed(directory, _most_common(uuids)), fault


def uuid_of(directory: Directory) -> bytes | None:
    """The identity of the store whose files are in a directory, if any of them says so. Raises ``OSError``."""
    uuids = _uuids(directory)
    return _most_common(uuids) if uuids else None


def _most_common(uuids: Counter[bytes]) -> bytes:
    return uuids.most_common(1)[0][0]


def _uuids(directory: Directory) -> Counter[bytes]:
    """How many files say that they are of which store. Raises :class:`UnsupportedFormat`, ``OSError``."""
    return Counter(header.uuid for header in _headers(directory))


def _headers(directory: Directory) -> Iterator[FileHeader]:
    """Those of all files that have the name of a store's, the manifest's first. Raises as above."""
    for name in sorted(directory.sizes(), key=lambda name: (name != MANIFEST_NAME, name)):  # no folders, say
        kinds = (segment_number(name), cluster_number(name), run_number(name))
        if name != MANIFEST_NAME and kinds == (None, None, None):
            continue
        file = directory.open(name)
        try:
            header = decode_file_header(name, file.read(0, PAGE))
        finally:
            file.close()
        if header is not None:
            yield header


class Census(NamedTuple):
    """What the rows of all runs come to: how many streams there are, the greatest LSN and the greatest number."""

    streams: int
    lsn: int
    number: int


def census(runs: list[Run]) -> Census:
    """Count the newest rows of ``runs``, which are newest first. O(rows). Raises :class:`Corruption`, ``OSError``."""
    streams = lsn = number = 0
    for depth, run in enumerate(runs):
        for row in run.rows():
            lsn, number = max(lsn, lsn_of_row(row.payload)), max(number, row.number)
            if not row.tombstone:
                streams += not any(newer.find(hash_of(row.name), row.name) for newer in runs[:depth])
    return Census(streams, lsn, number)


def reconstructed(directory: Directory, uuid: bytes) -> Manifest:
    """A manifest of all files that are there. Raises ``OSError``."""
    names = directory.sizes().keys()
    clustered = sorted(number for name in names if (number := cluster_number(name)) is not None)
    runs = sorted((number for name in names if (number := run_number(name)) is not None), reverse=True)
    log = sorted(number for name in names if (number := segment_number(name)) is not None)
    previous = first_block(directory, uuid, log[0]) if log else (0, 0)
    return Manifest(
        uuid,
        log_first=log[0] if log else 1,
        previous_lsn=previous[0],
        previous_crc=previous[1],
        next_stream=NUMBERS_SKIPPED,
        next_file=max([0, *clustered, *runs]) + 1,
        clean=0,
        clustered=tuple(ClusteredFile(number, 0) for number in clustered),
        runs=tuple(runs),
    )
