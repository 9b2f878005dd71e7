"""Reading everything that a store holds, to see whether it is all there.

Law of this room: it reports and never repairs. Once the store is open its clock stands at zero, so that looking at
streams neither renews nor expires them. Main thread only.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from durable_log._cli.directory import open_store
from durable_log._cli.text import printable, put
from durable_log.engine.format import position_of, segment_of
from durable_log.engine.segment import segment_name
from durable_log.errors import Corruption
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
    """What is damaged: places in the log, files without a header, ranges of streams; and how much was read."""

    log: list[dict[str, Any]]
    files: list[str]
    holes: list[Hole]
    streams: int
    bytes_read: int

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not (self.log or self.files or self.holes)


class _Clock:
    """The time, until it is stopped: nothing has expired at zero, and no use is later than those that are known."""

    stopped = False

    def __call__(self) -> float:
        return 0.0 if self.stopped else time.time()


def verify(data: str, *, as_json: bool) -> bool:
    """Read every stream of the store to its end and print what is damaged. False if anything is."""
    clock = _Clock()
    with open_store(data, clock=clock) as store:
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
    holes: list[Hole] = []
    streams = total = 0
    for name in store.names():
        found = list(holes_of(store, name))
        holes += found
        streams += 1
        info = store.stream(name).info()
        total += info.tail - info.first - sum(hole.end - hole.start for hole in found)
    return Findings(log, report.unreadable_segments, holes, streams, total)


def holes_of(store: Store, name: str) -> Iterator[Hole]:
    """The ranges of a stream that cannot be read, in order."""
    info = store.engine.info(name)
    offset, tail = info.first, info.tail
    while offset < tail:
        found = _read(store, name, offset)
        if isinstance(found, Hole):
            yield found
        offset = found.end if isinstance(found, Hole) else found


def _read(store: Store, name: str, offset: int) -> int | Hole:
    """How far one read from ``offset`` came, or the hole there."""
    try:
        return store.engine.read(name, offset, store.options.chunk_bytes_max).next_offset
    except Corruption as error:
        end = store.engine.record_bounds(name, offset)[1]
        return Hole(name, offset, end, error.file, error.position, error.reason)


def _lines(findings: Findings) -> Iterator[str]:
    for place in findings.log:
        end = f"{place['end_file']} position {place['end']}"
        yield f"{place['file']}: position {place['start']} to {end}: {place['reason']}"
    for file in findings.files:
        yield f"{file}: the file header fails its checksum; the file is left alone"
    for hole in findings.holes:
        where = f"{hole.file} position {hole.position}"
        yield f"stream {printable(hole.stream)}: offsets {hole.start} to {hole.end}: {where}: {hole.reason}"
    verdict = "all verified" if findings.sound else f"{len(findings.holes)} ranges damaged"
    yield f"{findings.streams} streams, {findings.bytes_read} bytes read: {verdict}"


def _json_lines(findings: Findings) -> Iterator[str]:
    for place in findings.log:
        yield json.dumps({"damage": "log", **place})
    for file in findings.files:
        yield json.dumps({"damage": "file", "file": file})
    for hole in findings.holes:
        yield json.dumps({"damage": "stream", **hole._asdict()}, ensure_ascii=False)
    yield json.dumps({"sound": findings.sound, "streams": findings.streams, "bytes_read": findings.bytes_read})
