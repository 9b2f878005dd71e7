"""What is in a file of a store, thing by thing, whatever is left of it.

Law of this room: it reads one file and writes nothing, and takes no lock; so it works on a copy. What verifies is told
as it is; what does not is told as damaged, with the reason, and reading goes on behind it. The header says which kind
of file it is, of which number and store; if it is lost, the name says the first two, and the files beside it the third.
Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from durable_log._core import lib
from durable_log.engine.cluster import ClusteredSegment, Row, cluster_number, decode_trailer
from durable_log.engine.dump_log import dump_log, is_zero, place
from durable_log.engine.files import LOCK_NAME, Directory, File
from durable_log.engine.format import (
    KIND_CLUSTERED,
    KIND_LOG,
    KIND_MANIFEST,
    KIND_RUN,
    PAGE,
    FileHeader,
    decode_file_header,
    nonce_of,
)
from durable_log.engine.index import clustered_row, clustered_segment, is_clustered, is_lost, places_of
from durable_log.engine.manifest import MANIFEST_NAME, read_manifest
from durable_log.engine.reconstruct import uuid_of
from durable_log.engine.rows import decode_state, lsn_of_row
from durable_log.engine.run_format import NEVER, NameEntry, decode_row, run_number
from durable_log.engine.run_format import Row as CatalogRow
from durable_log.engine.run_format import decode_trailer as decode_run_trailer
from durable_log.engine.salvage import entry_at, open_damaged, pieces_of, rows_of
from durable_log.engine.salvage_run import names_on, numbers_on, pages_of, rows_on
from durable_log.engine.segment import LogSegment, segment_number
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption
from durable_log.model import StreamConfig

Thing = dict[str, Any]
"""What is told on one line. ``at``: its position; ``is``: what it is; ``damage``: the reason, if it does not verify."""

NO_HEADER: Final = "the file header fails its checksum"
_KINDS: Final = {KIND_MANIFEST: "manifest", KIND_LOG: "log", KIND_CLUSTERED: "clustered", KIND_RUN: "run"}


def dump(directory: Directory, name: str, *, payload: bool = False) -> Iterator[Thing]:
    """Everything in the file of that name. Raises :class:`UnsupportedFormat`, ``OSError``."""
    with closing(directory.open(name)) as file:
        header = decode_file_header(name, file.read(0, PAGE))
        if header is None and not _is_of_a_store(name):
            yield _foreign(name, file)
            return
        yield _told(header, file)
        guess = header or _guess(directory, file, name)
        if guess is None:
            return
        if guess.kind == KIND_MANIFEST:
            yield from _manifest(directory, name)
        elif guess.kind == KIND_LOG:
            yield from dump_log(LogSegment(file, guess), payload=payload)
        elif guess.kind == KIND_CLUSTERED:
            yield from _clustered(directory, file, name, guess, payload=payload)
        else:
            yield from _run(file, guess)


def _told(header: FileHeader | None, file: File) -> Thing:
    if header is None:
        return {"at": 0, "is": "header", "file_bytes": file.size(), "damage": NO_HEADER}
    told: Thing = {
        "at": 0, "is": "header", "kind": _KINDS.get(header.kind, header.kind), "number": header.number,
        "uuid": header.uuid.hex(), "nonce": f"{header.nonce:08x}", "size": header.size, "file_bytes": file.size(),
        "created_ms": header.created_ms,
    }  # fmt: skip
    if header.after_lsn:
        told["after"] = place(header.after_lsn)
    if header.kind in (KIND_CLUSTERED, KIND_RUN) and header.size != file.size():
        told["damage"] = "the file has another length than its header says"
    return told


def _is_of_a_store(name: str) -> bool:
    return name == MANIFEST_NAME or {segment_number(name), cluster_number(name), run_number(name)} != {None}


def _foreign(name: str, file: File) -> Thing:
    if name == LOCK_NAME:
        return {"at": 0, "is": "lock", "last_opened_by": file.read(0, PAGE).decode("utf-8", "replace").strip()}
    what = "no file of a store, or one that has lost its name and its header"
    return {"at": 0, "is": "foreign", "file_bytes": file.size(), "what": what}


def _guess(directory: Directory, file: File, name: str) -> FileHeader | None:
    """What the header must have been, by the file's name and the files beside it."""
    uuid = uuid_of(directory)
    numbers = {KIND_LOG: segment_number(name), KIND_CLUSTERED: cluster_number(name), KIND_RUN: run_number(name)}
    numbers[KIND_MANIFEST] = 0 if name == MANIFEST_NAME else None
    for kind, number in numbers.items():
        if number is not None and uuid is not None:
            return FileHeader(kind, number, uuid, nonce_of(uuid, number), file.size(), 0)
    return None


# --- the manifest -------------------------------------------------------------------------------------------------


def _manifest(directory: Directory, name: str) -> Iterator[Thing]:
    try:
        manifest = read_manifest(directory, name)
    except Corruption as error:
        yield {"at": error.position, "is": "manifest", "damage": error.reason}
        return
    yield {
        "at": PAGE, "is": "manifest", "log_first": manifest.log_first, "previous": place(manifest.previous_lsn),
        "previous_crc": f"{manifest.previous_crc:08x}", "durable": place(manifest.lsn), "streams": manifest.streams,
        "next_stream": manifest.next_stream, "next_file": manifest.next_file, "clean": bool(manifest.clean),
    }  # fmt: skip
    for clustered in manifest.clustered:
        yield {"at": PAGE, "is": "names clustered", "number": clustered.number, "live_bytes": clustered.live_bytes}
    for number in manifest.runs:
        yield {"at": PAGE, "is": "names run", "number": number}


# --- clustered segments -------------------------------------------------------------------------------------------


def _clustered(directory: Directory, file: File, name: str, header: FileHeader, *, payload: bool) -> Iterator[Thing]:
    segment = open_damaged(directory, name, header.uuid, header.number)
    if segment is None:
        yield {"at": max(0, file.size() - 64), "is": "trailer", "damage": "it fails its checksum, and so does row 0"}
        return
    with closing(segment):
        for number, row, is_whole in rows_of(segment):
            yield from _cluster_row(segment, number, row, is_whole=is_whole, payload=payload)
        trailer = segment.trailer
        told: Thing = {
            "at": trailer.size - 64, "is": "trailer", "rows": trailer.rows, "records": trailer.records,
            "payload_bytes": trailer.payload_bytes,
        }  # fmt: skip
        if decode_trailer(file.read(trailer.size - 64, 64), segment.nonce) is None:
            told = {**told, "damage": "it fails its checksum; this is worked out from row 0"}
        yield told


def _cluster_row(
    segment: ClusteredSegment, number: int, row: Row | None, *, is_whole: bool, payload: bool
) -> Iterator[Thing]:
    at = segment.trailer.rows_position + 48 * number
    if row is None:
        yield {"at": at, "is": "row", "row": number, "damage": "it fails its checksum, and so does its first entry"}
        return
    told: Thing = {
        "at": at, "is": "row", "row": number, "stream": row.stream, "start": row.start, "end": row.end,
        "payload_at": row.payload_position, "entries_at": row.entries_position, "records": row.records,
    }  # fmt: skip
    yield told if is_whole else {**told, "damage": "it fails its checksum; this is worked out from its entries"}
    position = row.entries_position
    while position < row.index_position:
        entry = entry_at(segment, position)
        if entry is None:
            yield {"at": position, "is": "entry", "damage": "it fails its checksum"}
            break
        yield {"at": position, "is": "entry", "stream": entry.stream, "start": entry.start, "end": entry.end}
        position += entry.size
    for piece in pieces_of(segment, row):
        at = row.payload_position + piece.start - row.start
        bytes_: Thing = {"at": at, "is": "bytes", "stream": row.stream, "start": piece.start, "end": piece.end}
        if piece.reason:
            yield {**bytes_, "damage": piece.reason}
        elif payload:
            yield {**bytes_, "payload": segment.read(row, piece.start, piece.end)}
        else:
            yield bytes_


# --- runs ---------------------------------------------------------------------------------------------------------


def _run(file: File, header: FileHeader) -> Iterator[Thing]:
    trailer = decode_run_trailer(file.read(max(0, file.size() - PAGE), PAGE), header.nonce)
    tables_at = file.size() if trailer is None else trailer[0].tables_position
    for page in pages_of(file, header.nonce):
        if page.kind == 0:
            if page.position < tables_at and not is_zero(page.data):
                yield {"at": page.position, "is": "page", "damage": page.reason}
            elif page.position < tables_at:
                yield {"at": page.position, "is": "page", "damage": "it is all zeroes"}
            continue
        if page.kind == lib.DL_RUN_ROWS:
            yield from (_catalog_row(page.position, decode_row(row, 0)) for _, _, row in rows_on(page.data))
        elif page.kind == lib.DL_RUN_NAMES:
            yield from (_name(page.position, entry) for entry in names_on(page.data))
        else:
            numbers = list(numbers_on(page.data))
            yield {"at": page.position, "is": "numbers", "count": len(numbers), "numbers": numbers}
    at = max(0, file.size() - PAGE)
    if trailer is None:
        yield {"at": at, "is": "trailer", "damage": "it fails its checksum"}
    else:
        yield {"at": at, "is": "trailer", **trailer[0]._asdict()}


def _catalog_row(at: int, row: CatalogRow) -> Thing:
    told: Thing = {"at": at, "is": "tombstone" if row.tombstone else "stream", "name": row.name, "stream": row.number}
    if row.tombstone:
        return {**told, "lsn": place(lsn_of_row(row.payload))}
    state, lsn = decode_state(row.name, row.number, row.payload, _unknown)
    told |= {
        "lsn": place(lsn), "first": state.first, "tail": state.tail, "closed": state.closed, "hidden": row.hidden,
        "forks": state.forks, **state.config._asdict(), "created_ms": state.created_ms,
        "deadline_ms": None if row.deadline == NEVER else row.deadline, "stream_seq": state.last_seq,
        "producers": [[key, one.number, one.epoch, one.seq] for key, one in (state.producers or {}).items()],
        "ranges": [[start, end, _where(where)] for start, end, where in places_of(state.index)],
    }  # fmt: skip
    if state.fork is not None:
        told |= {"source": state.fork.source.number, "base": state.fork.base}
        told["ancestors"] = [[owner.number, end] for owner, end in state.fork.ancestors]
    return told


def _where(where: int) -> str:
    if is_clustered(where):
        return f"{clustered_segment(where):08x}.seg row {clustered_row(where)}"
    return f"lost, repair {where}" if is_lost(where) and where else "lost" if is_lost(where) else place(where)


def _name(at: int, entry: NameEntry) -> Thing:
    told: Thing = {"at": at, "is": "name", "name": entry.name, "stream": entry.number}
    if entry.tombstone or entry.hidden:
        told["tombstone" if entry.tombstone else "hidden"] = True
    return told if entry.deadline == NEVER else {**told, "deadline_ms": entry.deadline}


def _unknown(number: int) -> StreamState:
    return StreamState(number, "", StreamConfig(), 0)
