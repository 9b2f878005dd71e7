"""Everything that happens at open, in order.

Law of this room: it opens what the manifest names, reads the log, decides by ``chain`` what counts, has ``replay``
bring the catalog up to date, makes durable what it is going to show, and finds the place where writing goes on. It
never truncates; the only files that it removes are unfinished ones and those that the manifest has replaced. The thread
that opens, with the store's lock held.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple

from durable_log.engine.backlog import Backlog
from durable_log.engine.catalog import Catalog
from durable_log.engine.chain import Base, Chain, Damage, Found, follow
from durable_log.engine.cluster import ClusteredSegment, cluster_name
from durable_log.engine.files import Directory
from durable_log.engine.format import BLOCK_HEADER, PAGE, lsn_of, position_of, segment_of
from durable_log.engine.manifest import Manifest
from durable_log.engine.replay import Lost, Replay
from durable_log.engine.run import Run
from durable_log.engine.run_format import run_name
from durable_log.engine.segment import TEMPORARY, Block, LogSegment, segment_name, segment_number, survey
from durable_log.engine.state import StreamState
from durable_log.engine.writer import Tail
from durable_log.errors import Corruption

_log = logging.getLogger("durable_log")
_TABLES = (".seg", ".run")


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
    """An opened store. ``tail`` is None if writing has to go on in a new segment, after the block that is named.
    ``last_used`` is the newest segment with blocks, ``last_number`` the newest of all, ``unreadable`` the oldest whose
    header does not verify. ``surplus``: log segments that the manifest no longer needs. ``removed``: streams whose
    bytes it counts as live.
    """

    segments: dict[int, LogSegment]
    clustered: dict[int, ClusteredSegment]
    spares: list[LogSegment]
    surplus: list[str]
    tail: Tail | None
    last_used: int
    last_number: int
    previous_lsn: int
    previous_crc: int
    unreadable: int | None
    removed: list[StreamState]
    report: Report


class _Opened(NamedTuple):
    segments: dict[int, LogSegment]
    clustered: dict[int, ClusteredSegment]
    runs: list[Run]

    def close(self) -> None:
        opened: list[LogSegment | ClusteredSegment | Run] = [
            *self.segments.values(),
            *self.clustered.values(),
            *self.runs,
        ]
        for file in opened:
            file.close()


def recover(directory: Directory, manifest: Manifest, catalog: Catalog, clock: Callable[[], float]) -> Recovered:
    """Open the files of a locked store and bring ``catalog`` up to date.

    Raises ``OSError``, :class:`Corruption` if a file that the manifest names is missing or has no valid header.
    """
    _remove_leftovers(directory, manifest)
    opened = _Opened({}, {}, [])
    try:
        _open_tables(directory, manifest, opened)
        catalog.runs = tuple(opened.runs)
        catalog.count, catalog.next_number = manifest.streams, manifest.next_stream
        return _replay_log(directory, manifest, opened, catalog, clock)
    except BaseException:
        opened.close()
        raise


def _remove_leftovers(directory: Directory, manifest: Manifest) -> None:
    named = {cluster_name(file.number) for file in manifest.clustered} | {run_name(number) for number in manifest.runs}
    for name in directory.names():
        if name.endswith(TEMPORARY) or (name.endswith(_TABLES) and name not in named):
            directory.remove(name)


def _open_tables(directory: Directory, manifest: Manifest, opened: _Opened) -> None:
    for file in manifest.clustered:
        segment = ClusteredSegment.open(directory, cluster_name(file.number))
        if segment is None:
            raise Corruption(cluster_name(file.number), 0, "the file header or the trailer fails its checksum")
        opened.clustered[file.number] = segment
    for number in manifest.runs:
        run = Run.open(directory, run_name(number))
        if run is None:
            raise Corruption(run_name(number), 0, "the file header or the trailer fails its checksum")
        opened.runs.append(run)


def _replay_log(
    directory: Directory, manifest: Manifest, opened: _Opened, catalog: Catalog, clock: Callable[[], float]
) -> Recovered:
    segments = opened.segments
    surplus, unreadable = _open_segments(directory, manifest, segments)
    found = {number: survey(segments[number]) for number in sorted(segments)}
    listed = (Found(segments[number].after_lsn, blocks) for number, blocks in found.items())
    base = Base(manifest.previous_lsn, manifest.previous_crc, manifest.lsn)
    chain = follow(listed, lsn_of(manifest.log_first, PAGE), base)
    _harden(segments, chain)
    clean = chain.blocks[-1].clean if chain.blocks else bool(manifest.clean)
    catalog.crashed_at = None if clean else clock()
    catalog.crashed_lsn = max(chain.blocks[-1].end if chain.blocks else 0, manifest.lsn)
    backlog = _backlog_of(segments, chain)
    replay = Replay(catalog, backlog, manifest.lsn, damaged=bool(chain.damage or unreadable))
    replay.run()
    if chain.damage:
        replay.look_up_all()
    for damage in chain.damage:
        # If that segment has no file, what is left of the damage is in the one that follows.
        number = min((number for number in segments if number >= segment_of(damage.start)), default=0)
        if number:
            segments[number].damaged = True
    report = Report(
        backlog.count, len(chain.blocks), chain.cut, chain.damage, replay.lost, replay.records_of_unknown_streams,
        unreadable,
    )  # fmt: skip
    _tell(directory.path, report)
    return _arrange(directory, manifest, opened, found, chain, surplus, replay.removed, report)


def _backlog_of(segments: dict[int, LogSegment], chain: Chain) -> Backlog:
    backlog = Backlog(segments)
    for number, blocks in groupby(chain.blocks, lambda block: segment_of(block.lsn)):
        counting, segment = list(blocks), segments[number]
        segment.end, segment.last = position_of(counting[-1].end), (counting[-1].lsn, counting[-1].header_crc)
        for block in counting:
            if block.body_length:
                segment.bodies.extend((position_of(block.lsn) + BLOCK_HEADER, block.body_length))
        backlog.take(segment, counting)
    backlog.sort()
    return backlog


def _open_segments(
    directory: Directory, manifest: Manifest, segments: dict[int, LogSegment]
) -> tuple[list[str], list[str]]:
    # A kill may have come between the rename of a new segment and the sync of its name.
    directory.sync()
    surplus, unreadable = [], []
    for name in directory.names():
        number = segment_number(name)
        if number is None:
            continue
        segment = None if number < manifest.log_first else LogSegment.open(directory, name, manifest.uuid)
        if segment is not None:
            segments[segment.number] = segment
        elif number < manifest.log_first:
            surplus.append(name)
        else:
            unreadable.append(name)
    return surplus, unreadable


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
    directory: Directory, manifest: Manifest, opened: _Opened, found: dict[int, list[Block]], chain: Chain,
    surplus: list[str], removed: list[StreamState], report: Report,
) -> Recovered:  # fmt: skip
    segments = opened.segments
    last = chain.blocks[-1] if chain.blocks else None
    previous = (last.lsn, last.header_crc) if last else (manifest.previous_lsn, manifest.previous_crc)
    used = max((number for number, blocks in found.items() if blocks), default=manifest.log_first - 1)
    if chain.lost_end is not None:
        # It is left alone, and what is written from now on follows a block that is not there, which tells of it.
        previous, last = (chain.lost_end.end - PAGE, 0), None
        used = max(used, segment_of(chain.lost_end.end))
    numbers = [number for name in directory.names() if (number := segment_number(name)) is not None]
    # Whatever an unreadable segment holds comes before all that is written from now on.
    unreadable = [number for number in numbers if number >= manifest.log_first and number not in segments]
    spares = [segments.pop(number) for number in sorted(segments) if number > used]
    tail = None
    if last is not None and not chain.cut and segment_of(last.lsn) == used > max(unreadable, default=0):
        # No block follows the last one; so whatever stands behind it never verifies, and may be written over.
        unmarked = last.lsn >= chain.durable_lsn and last.body_length > 0
        tail = Tail(segments[used], position_of(last.end), *previous, last.clean, unmarked)
    last_number = max(numbers, default=0)
    return Recovered(
        segments, opened.clustered, spares, surplus, tail, max(used, *unreadable, 0), last_number, *previous,
        min(unreadable, default=None), removed, report,
    )  # fmt: skip
