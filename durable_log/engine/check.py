"""Reading the files of a store to see whether they are as they were written.

Law of this room: it reads and reports; nothing is repaired, changed or guessed at. Files are opened by name, so no open
engine is needed, but somebody who keeps them from being removed or recycled meanwhile. What one room wrote is judged by
the rule of that room: clustered segments and runs by their own, the log by the rule of recovery. Any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from durable_log._core import lib
from durable_log.engine.chain import Base, Found, follow
from durable_log.engine.cluster import REASONS, ROW_SIZE, ClusteredSegment, Fault, cluster_name
from durable_log.engine.files import Directory
from durable_log.engine.format import PAGE, lsn_of, nonce_of, position_of, segment_of
from durable_log.engine.manifest import Manifest
from durable_log.engine.run import Run
from durable_log.engine.run_format import run_name
from durable_log.engine.segment import LogSegment, segment_name, segment_number, survey

MISSING: Final = "the manifest names it, and it is not there"
NO_HEADER: Final = "the file header or the trailer fails its checksum"
OF_ANOTHER_STORE: Final = "the file is one of another store"


class FileFault(NamedTuple):
    """Something in a file that is not as it was written; and the stream bytes that can't be read for it: ``start`` to
    ``end`` of the stream of that number, or of stream 0 if that is unknown or they are nobody's.
    """

    file: str
    position: int
    reason: str
    stream: int = 0
    start: int = 0
    end: int = 0


def check_tables(
    directory: Directory, manifest: Manifest, pause: Callable[[], None] = lambda: None
) -> Iterator[FileFault]:
    """Read every clustered segment and every run that the manifest names; ``pause`` is called now and then.

    Raises ``OSError``.
    """
    for file in manifest.clustered:
        yield from _check_clustered(directory, manifest.uuid, file.number, pause)
    for number in manifest.runs:
        pause()
        yield from _check_run(directory, manifest.uuid, number)


def check_shape(directory: Directory, manifest: Manifest) -> Iterator[FileFault]:
    """The same, without reading stream bytes: headers, trailers, tables, rows, pages of runs. Raises ``OSError``."""
    for file in manifest.clustered:
        yield from _check_clustered(directory, manifest.uuid, file.number, None)
    for number in manifest.runs:
        yield from _check_run(directory, manifest.uuid, number)


def check_log(directory: Directory, manifest: Manifest, last_lsn: int) -> Iterator[FileFault]:
    """Read the log, which has to end with the block at ``last_lsn``, without a gap. Raises ``OSError``."""
    found = []
    for name in directory.names():
        number = segment_number(name)
        if number is None or number < manifest.log_first:
            continue
        segment = LogSegment.open(directory, name, manifest.uuid)
        if segment is None:
            yield FileFault(name, 0, "the file header fails its checksum")
            continue
        try:
            found.append(Found(segment.after_lsn, survey(segment)))
        finally:
            segment.close()
    base = Base(manifest.previous_lsn, manifest.previous_crc, manifest.lsn)
    chain = follow(found, lsn_of(manifest.log_first, PAGE), base)
    for damage in chain.damage:
        yield _in_log(damage.start, damage.reason)
    last = chain.blocks[-1].lsn if chain.blocks else manifest.previous_lsn
    if chain.cut or last != last_lsn:
        expected = f"{segment_name(segment_of(last_lsn))} position {position_of(last_lsn)}"
        yield _in_log(last, f"the log ends with this block, not with that of {expected}")


def _check_clustered(
    directory: Directory, uuid: bytes, number: int, pause: Callable[[], None] | None
) -> Iterator[FileFault]:
    """All of it, or, if there is no ``pause``, its rows."""
    name = cluster_name(number)
    if name not in directory.names():
        yield FileFault(name, 0, MISSING)
        return
    segment = ClusteredSegment.open(directory, name)
    if segment is None:
        yield FileFault(name, 0, NO_HEADER)
        return
    try:
        if segment.nonce != nonce_of(uuid, number):
            yield FileFault(name, 0, OF_ANOTHER_STORE)
            return
        for fault in _bad_rows(segment) if pause is None else segment.verify(pause):
            yield FileFault(name, fault.position, fault.reason, fault.stream, fault.start, fault.end)
    finally:
        segment.close()


def _bad_rows(segment: ClusteredSegment) -> Iterator[Fault]:
    position, reason = segment.trailer.rows_position, REASONS[lib.DL_CLUSTER_ROW]
    for row, end in enumerate(segment.streams()[2]):
        if not end:
            yield Fault(0, 0, 0, position + row * ROW_SIZE, reason)


def _check_run(directory: Directory, uuid: bytes, number: int) -> Iterator[FileFault]:
    name = run_name(number)
    if name not in directory.names():
        yield FileFault(name, 0, MISSING)
        return
    run = Run.open(directory, name)
    if run is None:
        yield FileFault(name, 0, NO_HEADER)
        return
    try:
        if run.nonce != nonce_of(uuid, number):
            yield FileFault(name, 0, OF_ANOTHER_STORE)
            return
        for position, reason in run.verify():
            yield FileFault(name, position, reason)
    finally:
        run.close()


def _in_log(lsn: int, reason: str) -> FileFault:
    return FileFault(segment_name(segment_of(lsn)), position_of(lsn), reason)
