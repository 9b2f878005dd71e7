"""The store's identity, and which of its files count.

Law of this room: the manifest is small and is replaced as a whole: written under another name, synced, renamed, the
directory synced. A file that it does not name does not exist, whatever the directory says; a file that it names is
complete and synced. Only the thread that opens and the background thread that clusters come here, never both.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.files import LOCK_NAME, MODEL_NAME, Directory, discard, random_bytes
from durable_log.engine.format import (
    BLOCK_HEADER,
    FRAME_HEADER,
    FRAME_ROW,
    KIND_MANIFEST,
    PAGE,
    FileHeader,
    decode_file_header,
    encode_file_header,
    frame_head,
    nonce_of,
    pages,
)
from durable_log.errors import Corruption, NotAStore

MANIFEST_NAME: Final = MODEL_NAME
UNFINISHED_NAME: Final = "BACKUP.tmp"
"""In a backup until its manifest is there. Left behind after that, it is a temporary file like any other."""

_OF_A_STORE: Final = re.compile(r"[0-9a-f]{8}\.(seg|run)")
_LOG: Final = re.compile(r"[0-9a-f]{8}\.log")
"""Others give such names, too, by the date; but beside a lock they are a store's."""
_TEMPORARY: Final = "MANIFEST.tmp"
_STATE, _CLUSTERED, _RUN = 16, 17, 18
_NUMBERS: Final = struct.Struct("<9Q")


class ClusteredFile(NamedTuple):
    """A clustered segment and how many bytes of its payload were live when the manifest was written."""

    number: int
    live_bytes: int


class Manifest(NamedTuple):
    """What counts. ``log_first`` is the oldest log segment, whose first block follows ``previous_lsn``; ``lsn`` was
    durable when the manifest was written, and ``streams`` how many there were then. ``clean``: the store was closed in
    good order, unless a block came after that. ``crashed_ms`` and ``crashed_lsn``: when the store was opened after its
    last crash, and where the log ended then; 0 if no rows are that old. ``runs`` are newest first.
    """

    uuid: bytes
    log_first: int = 1
    previous_lsn: int = 0
    previous_crc: int = 0
    lsn: int = 0
    streams: int = 0
    next_stream: int = 1
    next_file: int = 1
    clean: int = 1
    crashed_ms: int = 0
    crashed_lsn: int = 0
    clustered: tuple[ClusteredFile, ...] = ()
    runs: tuple[int, ...] = ()


def check_directory(directory: Directory) -> None:
    """Raise :class:`NotAStore` if the directory holds other things. Changes nothing."""
    names = set(directory.names())
    strange = names - {LOCK_NAME, _TEMPORARY}
    if MANIFEST_NAME not in names and UNFINISHED_NAME in names:
        raise NotAStore(directory.path, "the backup into it was not finished, and nothing in it is needed")
    pattern = re.compile(f"{_LOG.pattern}|{_OF_A_STORE.pattern}") if LOCK_NAME in names else _OF_A_STORE
    if MANIFEST_NAME not in names and (known := sorted(filter(pattern.fullmatch, names))):
        advice = f"put it back, or run durable-log repair {directory.path}, which makes a new one"
        raise NotAStore(directory.path, f"its {MANIFEST_NAME} is lost, but {known[0]!r} is there", advice)
    if MANIFEST_NAME not in names and strange:
        raise NotAStore(directory.path, f"it has no {MANIFEST_NAME} but {min(strange)!r}")


def load_manifest(directory: Directory, now_ms: int) -> Manifest:
    """The manifest of the store; a new one if the directory is empty. Needs the lock."""
    if MANIFEST_NAME not in directory.names():
        manifest = Manifest(random_bytes(16))
        save_manifest(directory, manifest, now_ms)
        return manifest
    try:
        return read_manifest(directory, MANIFEST_NAME)
    except Corruption as error:
        raise Corruption(error.file, error.position, error.reason, directory=directory.path) from None


def read_manifest(directory: Directory, name: str) -> Manifest:
    """The manifest in the file of that name. Raises :class:`Corruption`, ``OSError``."""
    file = directory.open(name)
    try:
        content = file.read(0, file.size())
    finally:
        file.close()
    header = decode_file_header(name, content[:PAGE])
    if header is None or header.kind != KIND_MANIFEST:
        raise Corruption(name, 0, "the file header fails its checksum")
    return _decode(header, content[PAGE:])


def save_manifest(directory: Directory, manifest: Manifest, now_ms: int) -> None:
    """Replace the manifest, durably. Raises ``OSError``."""
    write_manifest(directory, manifest, now_ms)
    install_manifest(directory)


def write_manifest(directory: Directory, manifest: Manifest, now_ms: int) -> None:
    """The manifest under its temporary name, durably. Raises ``OSError``; nothing has happened then."""
    header = FileHeader(KIND_MANIFEST, 0, manifest.uuid, nonce_of(manifest.uuid, 0), 0, now_ms)
    file = directory.create(_TEMPORARY)
    try:
        file.write(0, encode_file_header(header) + _encode(manifest, header.nonce))
        file.sync()
    except BaseException:
        file.close()
        discard(directory, _TEMPORARY)
        raise
    file.close()


def install_manifest(directory: Directory) -> None:
    """Put what was written in force. Raises ``OSError``; nobody knows then which one is."""
    directory.rename(_TEMPORARY, MANIFEST_NAME)
    directory.sync()


def _encode(manifest: Manifest, nonce: int) -> bytearray:
    numbers = _NUMBERS.pack(
        manifest.previous_lsn, manifest.previous_crc, manifest.lsn, manifest.streams, manifest.next_stream,
        manifest.next_file, manifest.clean, manifest.crashed_ms, manifest.crashed_lsn,
    )  # fmt: skip
    parts = [bytes(BLOCK_HEADER), frame_head(_STATE, 0, manifest.log_first, 0, len(numbers)), numbers]
    parts += [frame_head(_CLUSTERED, 0, file.number, file.live_bytes, 0) for file in manifest.clustered]
    parts += [frame_head(_RUN, 0, number, 0, 0) for number in manifest.runs]
    length = sum(map(len, parts)) - BLOCK_HEADER
    parts.append(bytes(pages(BLOCK_HEADER + length) - BLOCK_HEADER - length))
    block = bytearray().join(parts)
    info = ffi.new("dl_block *", {"lsn": PAGE, "body_length": length, "nonce": nonce})
    sealed = lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), len(block), info)
    assert sealed == lib.DL_OK, "the manifest's frames fit their block"
    return block


def _decode(header: FileHeader, block: bytes) -> Manifest:
    info = ffi.new("dl_block *")
    view = ffi.from_buffer("uint8_t[]", block)
    if lib.dl_block_check(view, len(block), PAGE, header.nonce, info) != lib.DL_OK:
        raise Corruption(MANIFEST_NAME, PAGE, "the block of the manifest fails its checksum")
    room = info.body_length // FRAME_HEADER  # the number of records is only what the block says of itself
    rows, count, done = ffi.new("dl_frame[]", room), ffi.new("size_t *"), ffi.new("size_t *")
    verdict = lib.dl_frames_scan(
        view + BLOCK_HEADER, info.body_length, PAGE + BLOCK_HEADER, header.nonce, rows, room, count, done
    )
    found = list(FRAME_ROW.iter_unpack(ffi.buffer(rows, count[0] * FRAME_ROW.size)))
    if verdict != lib.DL_OK or len(found) != info.records:
        raise Corruption(MANIFEST_NAME, PAGE + BLOCK_HEADER + done[0], "a frame of the manifest fails its checksum")
    states = [row for row in found if row[9] == _STATE]
    if len(states) != 1 or states != found[:1] or states[0][7] != _NUMBERS.size:
        raise Corruption(MANIFEST_NAME, PAGE, "the manifest does not begin with the one frame of its state")
    clustered = tuple(ClusteredFile(row[0], row[1]) for row in found if row[9] == _CLUSTERED)
    runs = tuple(row[0] for row in found if row[9] == _RUN)
    state = states[0]
    fields = (header.uuid, state[0], *_NUMBERS.unpack_from(block, state[2] - PAGE + state[6]), clustered, runs)
    return Manifest._make(fields)
