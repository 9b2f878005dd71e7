"""Reading everything that a store holds, to see whether it is all there.

Law of this room: it reports and never repairs. Once the store is open its clock stands at zero, so that looking at
streams neither renews nor expires them, and its background work rests. Files are judged by the engine's own rules; what
can be said of streams is said of them by name. Main thread only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

from durable_log._cli.directory import open_store
from durable_log._cli.text import printable, put
from durable_log.engine.check import FileFault, check_tables
from durable_log.engine.files import directory_at
from durable_log.engine.format import position_of, segment_of
from durable_log.engine.manifest import load_manifest
from durable_log.engine.segment import segment_name
from durable_log.errors import Corruption, StoreUnreadable
from durable_log.store import Store


class Hole(NamedTuple):
    """Bytes ``start`` to ``end`` of a stream that were acknowledged and do not verify."""

    stream: str
    start: int
    end: int
    file: str
    position: int
    reason: str


class Findings(NamedTuple):
    """What is damaged: places in the log, files without a header, places in other files and the names of the streams
    that they held, ranges of streams; and how much was read. ``closed``: the store could not be opened.
    """

    log: list[dict[str, Any]]
    files: list[str]
    tables: list[tuple[FileFault, str | None]]
    holes: list[Hole]
    streams: int
    bytes_read: int
    closed: bool = False

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.log or self.files or self.tables or self.holes)


class _Clock:
    """The time, until it is stopped: nothing has expired at zero, and no use is later than those that are known."""

    stopped = False

    def __call__(self) -> float:
        return 0.0 if self.stopped else time.time()


def verify(data: str, *, as_json: bool) -> bool:
    """Read every stream of the store to its end and print what is damaged. False if anything is."""
    clock = _Clock()
    try:
        store = open_store(data, calm=True, clock=clock)
    except (Corruption, StoreUnreadable) as error:
        if isinstance(error, StoreUnreadable) and not isinstance(error.cause, FileNotFoundError):
            raise
        findings = examine_closed(data, error)
    else:
        with store:
            clock.stopped = True
            findings = examine(store)
    for line in _json_lines(findings) if as_json else _lines(findings):
        put(line + "\n")
    return findings.sound


def examine(store: Store) -> Findings:
    """All that is damaged in an open store."""
    report = store.report
    log = [
        {
            "file": segment_name(segment_of(damage.start)),
            "start": position_of(damage.start),
            "end_file": segment_name(segment_of(damage.end)),
            "end": position_of(damage.end),
            "reason": damage.reason,
        }
        for damage in report.damage
    ]
    faults = store.engine.upkeep.check_files()
    holes: list[Hole] = []
    streams = total = 0
    try:
        for name in store.names():
            found = list(holes_of(store, name, faults))
            holes += found
            streams += 1
            info = store.stream(name).info()
            total += info.tail - info.first - sum(hole.end - hole.start for hole in found)
    except Corruption as error:
        faults = _with(faults, error)  # without its catalog nobody can say which streams there are
    tables = [(fault, store.engine.name_of(fault.stream)) for fault in faults]
    return Findings(log, report.unreadable_segments, tables, holes, streams, total)


def examine_closed(data: str, error: Corruption | StoreUnreadable) -> Findings:
    """All that is damaged in the files of a store that can't be opened because of ``error``."""
    with closing(directory_at(data)) as directory:
        directory.lock()
        try:
            faults = list(check_tables(directory, load_manifest(directory, 0)))
        except Corruption:
            faults = []
    if isinstance(error, Corruption):
        faults = _with(faults, error)
    elif not faults:
        raise error
    return Findings([], [], [(fault, None) for fault in faults], [], 0, 0, closed=True)


def _with(faults: list[FileFault], error: Corruption) -> list[FileFault]:
    known = any((fault.file, fault.position) == (error.file, error.position) for fault in faults)
    return faults if known else [FileFault(error.file, error.position, error.reason), *faults]


def holes_of(store: Store, name: str, faults: list[FileFault]) -> Iterator[Hole]:
    """The ranges of a stream that cannot be read, in order."""
    info = store.engine.info(name)
    offset, tail = info.first, info.tail
    while offset < tail:
        found = _read(store, name, offset, faults)
        if isinstance(found, Hole):
            yield found
        offset = found.end if isinstance(found, Hole) else found


def _read(store: Store, name: str, offset: int, faults: list[FileFault]) -> int | Hole:
    """How far one read from ``offset`` came, or the hole there."""
    try:
        return store.engine.read(name, offset, store.options.chunk_bytes_max).next_offset
    except Corruption as error:
        end = min(_hole_end(store, name, offset, error, faults), store.engine.info(name).tail)
        return Hole(name, offset, end, error.file, error.position, error.reason)


def _hole_end(store: Store, name: str, offset: int, error: Corruption, faults: list[FileFault]) -> int:
    """Where reading may go on: behind what a file says is damaged, or the record, or all that lies in that place."""
    ends = [fault.end for fault in faults if fault.file == error.file and fault.start <= offset < fault.end]
    if ends:
        return min(ends)
    try:
        return store.engine.record_bounds(name, offset)[1]
    except Corruption:
        return store.engine.place_end(name, offset)


def _lines(findings: Findings) -> Iterator[str]:
    for place in findings.log:
        end = f"{place['end_file']} position {place['end']}"
        yield f"{place['file']}: position {place['start']} to {end}: {place['reason']}"
    for file in findings.files:
        yield f"{file}: the file header fails its checksum; the file is left alone"
    for fault, name in findings.tables:
        yield f"{fault.file}: position {fault.position}: {fault.reason}{_of_whom(fault, name)}"
    for hole in findings.holes:
        where = f"{hole.file} position {hole.position}"
        yield f"stream {printable(hole.stream)}: offsets {hole.start} to {hole.end}: {where}: {hole.reason}"
    verdict = "all verified" if findings.sound else f"{len(findings.holes)} ranges damaged"
    verdict = "the store can't be opened" if findings.closed else verdict
    yield f"{findings.streams} streams, {findings.bytes_read} bytes read: {verdict}"


def _of_whom(fault: FileFault, name: str | None) -> str:
    if not fault.stream:
        return ""
    stream = f"stream number {fault.stream}" if name is None else f"stream {printable(name)}"
    return f" ({stream}, offsets {fault.start} to {fault.end})"


def _json_lines(findings: Findings) -> Iterator[str]:
    for place in findings.log:
        yield json.dumps({"damage": "log", **place})
    for file in findings.files:
        yield json.dumps({"damage": "file", "file": file})
    for fault, name in findings.tables:
        yield json.dumps({"damage": "file", **fault._asdict(), "stream": name}, ensure_ascii=False)
    for hole in findings.holes:
        yield json.dumps({"damage": "stream", **hole._asdict()}, ensure_ascii=False)
    yield json.dumps({"sound": findings.sound, "streams": findings.streams, "bytes_read": findings.bytes_read})
