"""Reading what a store holds, to see whether it is all there.

Law of this room: it reports and never repairs, and nothing that it does reaches the disk: the store is opened in an
overlay, which keeps in memory what the engine would write. Its clock stands at zero once it is open, so that looking at
streams neither renews nor expires them, and its background work rests. Files are judged by the engine's own rules; what
can be said of streams is said of them by name. Main thread only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple

from durable_log._cli.directory import CALM, find_store, tell_if_unlocked
from durable_log._cli.output import put
from durable_log._cli.repair import losses_of, rendered
from durable_log._cli.text import printable
from durable_log.engine.audit import Discord
from durable_log.engine.check import FileFault, check_shape, check_tables
from durable_log.engine.files import Directory, directory_to_look_at
from durable_log.engine.format import position_of, segment_of
from durable_log.engine.opening import open_in
from durable_log.engine.overlay import OverlayDirectory
from durable_log.engine.quarantine import QUARANTINE, report_name
from durable_log.engine.reconstruct import manifest_of
from durable_log.engine.repair import repair
from durable_log.engine.salvage_log import salvage_log
from durable_log.engine.segment import segment_name
from durable_log.errors import Corruption, NotAStore, StoreUnreadable
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
    that they held, ranges of streams, what contradicts itself. ``known``: ranges that a repair has found lost; they are
    no damage any more. How much was read; ``closed`` says why the store could not be opened; ``unknown`` is how many
    records the log has of streams that nobody knows.
    """

    log: list[dict[str, Any]]
    files: list[str]
    tables: list[tuple[FileFault, str | None]]
    holes: list[Hole]
    discords: list[Discord]
    known: list[Hole]
    streams: int
    bytes_read: int
    closed: str = ""
    unknown: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.log or self.files or self.tables or self.holes or self.discords or self.closed or self.unknown)


class _Clock:
    """The time, until it is stopped: nothing has expired at zero, and no use is later than those that are known."""

    stopped = False

    def __call__(self) -> float:
        return 0.0 if self.stopped else time.time()


def verify(data: str, *, deep: bool, as_json: bool) -> bool:
    """Look at the store, or read all of it, and print what is damaged. False if anything is."""
    find_store(data)
    with closing(OverlayDirectory(directory_to_look_at(data))) as directory:
        findings = examined(directory, deep=deep)
        tell_if_unlocked(directory)
    for line in _json_lines(findings) if as_json else _lines(findings, deep=deep):
        put(line + "\n")
    return findings.sound


def examined(directory: Directory, *, deep: bool) -> Findings:
    """All that is damaged in the store in that directory, whether it can be opened or not."""
    clock = _Clock()
    try:
        store = Store(open_in(directory, CALM, clock))
    except (Corruption, NotAStore, StoreUnreadable) as error:
        if isinstance(error, StoreUnreadable) and not isinstance(error.cause, FileNotFoundError):
            raise
        directory.lock()
        return _examined_closed(directory, error, deep=deep)
    with store:
        clock.stopped = True
        return _examined_open(store, deep=deep)


def _examined_open(store: Store, *, deep: bool) -> Findings:
    report, upkeep = store.report, store.engine.upkeep
    log = [_place(damage.start, damage.end, damage.reason) for damage in report.damage]
    faults = upkeep.check_files(deep=deep)
    found: list[Hole] = []
    discords: list[Discord] = []
    streams = total = 0
    try:
        if deep:
            for name in store.names():
                of_this = list(_holes_of(store, name, faults))
                info = store.stream(name).info()
                found += of_this
                streams += 1
                total += info.tail - info.first - sum(hole.end - hole.start for hole in of_this)
            discords = list(upkeep.audit())
        else:
            streams = len(store.engine)
            found = [Hole(lost.name, lost.start, lost.end, "the log", 0, "lost") for lost in report.lost]
            found += [
                Hole(name, start, end, report_name(number) if number else "the log", 0, "lost")
                for name, start, end, number in upkeep.losses()
            ]
    except Corruption as error:
        faults = _with(faults, error)  # without its catalog nobody can say which streams there are
    known = [hole for hole in found if hole.file.startswith(QUARANTINE)]
    holes = [hole for hole in found if hole not in known]
    tables = [(fault, store.engine.name_of(fault.stream)) for fault in faults]
    unknown = report.records_of_unknown_streams
    return Findings(log, report.unreadable_segments, tables, holes, discords, known, streams, total, unknown=unknown)


def _examined_closed(directory: Directory, error: Corruption | NotAStore | StoreUnreadable, *, deep: bool) -> Findings:
    """All that is damaged in the files of a store that can't be opened because of ``error``."""
    manifest, fault = manifest_of(directory)
    faults = list((check_tables if deep else check_shape)(directory, manifest))
    for wrong in (fault, error if isinstance(error, Corruption) else None):
        faults = faults if wrong is None else _with(faults, wrong)
    with closing(salvage_log(directory, manifest)) as found:
        log = [_place(damage.start, damage.end, damage.reason) for damage in found.chain.damage]
        headless = sorted(found.headless)
    if not faults and not log and not headless:
        raise error
    # The directory is an overlay: what a repair would find lost is lost, and nothing is repaired.
    holes = [Hole(*lost) for lost in losses_of(repair(directory, time.time, rendered))] if deep else []
    return Findings(log, headless, [(one, None) for one in faults], holes, [], [], 0, 0, closed=str(error))


def _place(start: int, end: int, reason: str) -> dict[str, Any]:
    return {
        "file": segment_name(segment_of(start)),
        "start": position_of(start),
        "end_file": segment_name(segment_of(end)),
        "end": position_of(end),
        "reason": reason,
    }


def _with(faults: list[FileFault], error: Corruption) -> list[FileFault]:
    known = any((fault.file, fault.position) == (error.file, error.position) for fault in faults)
    return faults if known else [FileFault(error.file, error.position, error.reason), *faults]


def _holes_of(store: Store, name: str, faults: list[FileFault]) -> Iterator[Hole]:
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


def _lines(findings: Findings, *, deep: bool) -> Iterator[str]:
    for place in findings.log:
        end = f"{place['end_file']} position {place['end']}"
        yield f"{place['file']}: position {place['start']} to {end}: {place['reason']}"
    for file in findings.files:
        yield f"{file}: the file header fails its checksum; the file is left alone"
    for fault, name in findings.tables:
        yield f"{fault.file}: position {fault.position}: {fault.reason}{_of_whom(fault, name)}"
    for discord in findings.discords:
        whose = f"stream {printable(discord.name)}: " if discord.name else ""
        yield f"{discord.file or 'the catalog'}: {whose}{discord.reason}"
    for hole in findings.holes:
        where = f"{hole.file} position {hole.position}"
        yield f"stream {printable(hole.stream)}: offsets {hole.start} to {hole.end}: {where}: {hole.reason}"
    for hole in findings.known:
        yield f"stream {printable(hole.stream)}: offsets {hole.start} to {hole.end}: known to be lost, see {hole.file}"
    if findings.unknown:
        yield f"the log has {findings.unknown} records of streams whose creation is lost; a repair brings them back"
    yield _verdict(findings, deep=deep)


def _verdict(findings: Findings, *, deep: bool) -> str:
    if findings.closed:
        return "the store can't be opened; durable-log repair mends what can be mended"
    known = f"; {len(findings.known)} ranges are known to be lost" if findings.known else ""
    if deep:
        verdict = "all verified" if findings.sound else f"{len(findings.holes)} ranges damaged"
        return f"{findings.streams} streams, {findings.bytes_read} bytes read: {verdict}{known}"
    verdict = "no damage found, stream bytes were not read" if findings.sound else "damaged; --deep says all of it"
    return f"{findings.streams} streams: {verdict}{known}"


def _of_whom(fault: FileFault, name: str | None) -> str:
    if not fault.stream:
        return ""
    stream = f"stream number {fault.stream}" if name is None else f"stream {printable(name)}"
    return f" ({stream}, offsets {fault.start} to {fault.end})"


def _json_lines(findings: Findings) -> Iterator[str]:
    rows: list[Iterable[dict[str, Any]]] = [
        ({"damage": "log", **place} for place in findings.log),
        ({"damage": "file", "file": file} for file in findings.files),
        ({"damage": "file", **fault._asdict(), "stream": name} for fault, name in findings.tables),
        ({"damage": "discord", **discord._asdict()} for discord in findings.discords),
        ({"damage": "stream", **hole._asdict()} for hole in findings.holes),
        ({"known": "stream", **hole._asdict()} for hole in findings.known),
    ]
    yield from (as_line(row) for group in rows for row in group)
    total = {"sound": findings.sound, "streams": findings.streams, "bytes_read": findings.bytes_read}
    total |= {"unknown_records": findings.unknown, "known_lost": len(findings.known)}
    yield as_line({**total, "closed": findings.closed or None})


as_line: Callable[[dict[str, Any]], str] = json.JSONEncoder(ensure_ascii=False).encode
"""One JSON object, on a line."""
