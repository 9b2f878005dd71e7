"""The store's identity: the file that makes a directory a store.

Law of this room: it decides whether a directory is a store, a new one, or something else, and creates the manifest
of a new one. So far the manifest is its header; the edits that name clustered segments will follow it. Called at open
only, by the thread that opens.
"""

from __future__ import annotations

from typing import Final

from durable_log.engine.files import LOCK_NAME, Directory, random_bytes
from durable_log.engine.format import KIND_MANIFEST, PAGE, FileHeader, decode_file_header, encode_file_header
from durable_log.errors import Corruption, NotAStore

MANIFEST_NAME: Final = "MANIFEST"
_TEMPORARY: Final = "MANIFEST.tmp"


def check_directory(directory: Directory) -> None:
    """Raise :class:`NotAStore` if the directory holds other things. Changes nothing."""
    names = set(directory.names())
    strange = names - {LOCK_NAME, _TEMPORARY}
    if MANIFEST_NAME not in names and strange:
        raise NotAStore(directory.path, f"it has no {MANIFEST_NAME} but {min(strange)!r}")


def open_manifest(directory: Directory, now_ms: int) -> bytes:
    """The UUID of the store; a new one if the directory is empty. Needs the lock."""
    if MANIFEST_NAME not in directory.names():
        return _create(directory, now_ms)
    file = directory.open(MANIFEST_NAME)
    try:
        page = file.read(0, PAGE)
    finally:
        file.close()
    header = decode_file_header(MANIFEST_NAME, page)
    if header is None or header.kind != KIND_MANIFEST:
        raise Corruption(MANIFEST_NAME, 0, "the file header fails its checksum")
    return header.uuid


def _create(directory: Directory, now_ms: int) -> bytes:
    uuid = random_bytes(16)
    file = directory.create(_TEMPORARY)
    try:
        file.write(0, encode_file_header(FileHeader(KIND_MANIFEST, 0, uuid, 0, 0, now_ms)))
        file.sync()
    finally:
        file.close()
    directory.rename(_TEMPORARY, MANIFEST_NAME)
    directory.sync()
    return uuid
