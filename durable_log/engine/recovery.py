"""Everything that happens at open, in order.

Law of this room: it reads the log, decides by ``chain`` what counts, has ``replay`` rebuild the states, makes durable
what it is going to show, and finds the place where writing goes on. It never truncates, and never removes a file but
unfinished ones under temporary names. The thread that opens, with the store's lock held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from durable_log.engine.catalog import Catalog
from durable_log.engine.chain import Chain, Damage, Found, follow
from durable_log.engine.files import Directory
from durable_log.engine.format import PAGE, lsn_of, position_of, segment_of
from durable_log.engine.replay import Lost, Replay
from durable_log.engine.segment import (
    TEMPORARY,
    Block,
    LogSegment,
    read_rows,
    segment_name,
    segment_number,
    survey,
)
from durable_log.engine.writer import Tail

_log = logging.getLogger("durable_log")


class Report(NamedTuple):
    """What recovery found. ``lost``: bytes of streams that can't be read any more; ``damage``: where in the log."""

    records: int
    blocks: int
    cut: bool
    damage: list[Damage]
    lost: list[Lost]
    records_of_unknown_streams: int
    unreadable_segments: list[str]


class Recovered(NamedTuple):
    """An opened log. ``tail`` is None if writing has to go on in a new segment, after the block that is named.
    ``last_used`` is the newest segment with blocks, ``last_number`` the newest of all.
    """

    segments: dict[int, LogSegment]
    spares: list[LogSegment]
    tail: Tail | None
    last_used: int
    last_number: int
    previous_lsn: int
    previous_crc: int
    report: Report


def recover(directory: Directory, uuid: bytes, catalog: Catalog, clock: Callable[[], float]) -> Recovered:
    """Open all log segments of a locked store and bring ``catalog`` up to date. Raises ``OSError``."""
    _remove_unfinished(directory)
    segments: dict[int, LogSegment] = {}
    try:
        return _recover(directory, uuid, segments, catalog, clock)
    except BaseException:
        for segment in segments.values():
            segment.close()
        raise


def _recover(
    directory: Directory, uuid: bytes, segments: dict[int, LogSegment], catalog: Catalog, clock: Callable[[], float]
) -> Recovered:
    # A kill may have come between the rename of a new segment and the sync of its name.
    directory.sync()
    unreadable = _open_segments(directory, uuid, segments)
    found = {number: survey(segments[number]) for number in sorted(segments)}
    chain = follow((Found(segments[number].after_lsn, blocks) for number, blocks in found.items()), lsn_of(1, PAGE))
    _harden(segments, chain)
    replay = Replay(catalog)
    for block in chain.blocks:
        replay.apply(segment_of(block.lsn), block.time_ms, read_rows(segments[segment_of(block.lsn)], block))
    replay.finish(clock(), clean=bool(chain.blocks) and chain.blocks[-1].clean)
    report = Report(
        replay.records,
        len(chain.blocks),
        chain.cut,
        chain.damage,
        replay.lost,
        replay.records_of_unknown_streams,
        unreadable,
    )
    _tell(directory.path, report)
    return _arrange(directory, segments, found, chain, report)


def _remove_unfinished(directory: Directory) -> None:
    unfinished = [name for name in directory.names() if name.endswith(TEMPORARY)]
    for name in unfinished:
        directory.remove(name)


def _open_segments(directory: Directory, uuid: bytes, segments: dict[int, LogSegment]) -> list[str]:
    unreadable = []
    for name in directory.names():
        if segment_number(name) is None:
            continue
        segment = LogSegment.open(directory, name, uuid)
        if segment is None:
            unreadable.append(name)
        else:
            segments[segment.number] = segment
    return unreadable


def _harden(segments: dict[int, LogSegment], chain: Chain) -> None:
    """Write and sync again what no block knows to be durable, before anybody sees it.

    It may be in the page cache only: after a kill, or, marked clean, after a sync that failed. The bytes stay the same.
    """
    dirty = set()
    for block in reversed(chain.blocks):
        if block.lsn < chain.durable_lsn:
            break
        file = segments[segment_of(block.lsn)].file
        file.write(position_of(block.lsn), file.read(position_of(block.lsn), block.end - block.lsn))
        dirty.add(segment_of(block.lsn))
    for number in dirty:
        segments[number].file.sync()


def _tell(path: str, report: Report) -> None:
    for damage in report.damage:
        file, start, end = segment_name(segment_of(damage.start)), position_of(damage.start), position_of(damage.end)
        _log.error(
            "%s: %s: %s between positions %d and %d; run durable-log verify", path, file, damage.reason, start, end
        )
    for name in report.unreadable_segments:
        _log.error("%s: %s has no valid header and is left alone; run durable-log verify", path, name)


def _arrange(
    directory: Directory, segments: dict[int, LogSegment], found: dict[int, list[Block]], chain: Chain, report: Report
) -> Recovered:
    last = chain.blocks[-1] if chain.blocks else None
    previous = (last.lsn, last.header_crc) if last else (0, 0)
    used = max((number for number, blocks in found.items() if blocks), default=0)
    numbers = [number for name in directory.names() if (number := segment_number(name)) is not None]
    # Whatever an unreadable segment holds comes before all that is written from now on.
    unreadable = max((number for number in numbers if number not in segments), default=0)
    spares = [segments.pop(number) for number in sorted(segments) if number > used]
    tail = None
    if last is not None and not chain.cut and segment_of(last.lsn) == used > unreadable:
        # No block follows the last one; so whatever stands behind it never verifies, and may be written over.
        tail = Tail(segments[used], position_of(last.end), *previous, last.clean)
    return Recovered(segments, spares, tail, max(used, unreadable), max(numbers, default=0), *previous, report)
