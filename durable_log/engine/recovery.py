"""Everything that happens at open, in order.

Law of this room: it opens what the manifest names, reads the log, decides by ``chain`` what counts, has ``replay``
bring the catalog up to date, makes durable what it is going to show, and finds the place where writing goes on. It
never truncates; the only files that it removes are unfinished ones and those that the manifest has replaced, by the
names that this package gives them. The thread that opens, with the store's lock held.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import groupby
from typing import Final, NamedTuple

from durable_log._core import lib
from durable_log.engine.backlog import Backlog
from durable_log.engine.catalog import Catalog
from durable_log.engine.chain import Base, Chain, Damage, Found, falls_short, follow
from durable_log.engine.check import MISSING, NO_HEADER, OF_ANOTHER_STORE
from durable_log.engine.cluster import ClusteredSegment, cluster_name, cluster_number
from durable_log.engine.files import Directory
from durable_log.engine.format import PAGE, lsn_of, nonce_of, position_of, segment_of
from durable_log.engine.manifest import MANIFEST_NAME, Manifest
from durable_log.engine.replay import Lost, Replay
from durable_log.engine.rows import lsn_of_row
from durable_log.engine.run import Run
from durable_log.engine.run_format import decode_row, run_name, run_number
from durable_log.engine.segment import Block, LogSegment, segment_name, segment_number, survey
from durable_log.engine.state import StreamState
from durable_log.engine.writer import Tail
from durable_log.errors import Corruption, UnsupportedFormat

_log = logging.getLogger("durable_log")
_UNFINISHED: Final = re.compile(r"(MANIFEST|BACKUP|[0-9a-f]{8}\.(log|seg|run|run\.numbers))\.tmp")
"""The temporary names of this package. Whatever else ends so is somebody's."""


class Report(NamedTuple):
    """What recovery found. ``lost``: bytes of streams that can't be read any more; ``damage``: where in the log;
    ``unreadable_catalog``: why some of the log could not be applied, to streams that can't be looked up because of it.
    """

    records: int
    blocks: int
    cut: bool
    damage: list[Damage]
    lost: list[Lost]
    records_of_unknown_streams: int
    unreadable_segments: list[str]
    unreadable_catalog: list[Corruption]


class Recovered(NamedTuple):
    """An opened store. ``tail`` is None if writing has to go on in a new segment, after the block that is named.
    ``last_used`` is the newest segment with blocks, ``last_number`` the newest of all. ``held_from`` is the first log
    segment that is not clustered, nor is any behind it, until the store is repaired; None if all is well. ``surplus``:
    log segments that the manifest no longer needs. ``removed``: streams whose bytes it counts as live.
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
    held_from: int | None
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
    # A kill may have come between a rename and its sync. As long as an older manifest may come back, what only it names
    # is needed; and nothing goes into a log segment whose name may be lost.
    directory.sync()
    opened = _Opened({}, {}, [])
    try:
        _open_tables(directory, manifest, opened)
        catalog.runs = tuple(opened.runs)
        catalog.count, catalog.next_number = manifest.streams, manifest.next_stream
        return _replay_log(directory, manifest, opened, catalog, clock)
    except BaseException:
        opened.close()
        raise


def remove_leftovers(directory: Directory, manifest: Manifest, *, tables: bool = True) -> None:
    """Remove what is unfinished, and ``tables`` that the manifest does not name: the log has all of it, unless
    something is missing there. Folders, and what else is no file, are left alone. Raises ``OSError``.
    """
    unnamed = _unnamed(directory, manifest) if tables else []
    for name in sorted(directory.sizes()):
        if _UNFINISHED.fullmatch(name) or name in unnamed:
            directory.remove(name)


def _named(manifest: Manifest) -> set[str]:
    return {cluster_name(file.number) for file in manifest.clustered} | {run_name(number) for number in manifest.runs}


def _unnamed(directory: Directory, manifest: Manifest) -> list[str]:
    named = _named(manifest)
    numbers = {name: (cluster_number(name), run_number(name)) for name in directory.names()}
    return [name for name, number in numbers.items() if number != (None, None) and name not in named]


def expect_newest(directory: Directory, manifest: Manifest, chain: Chain) -> None:
    """Raises :class:`Corruption` if a run that the manifest does not name is newer, and may have what is missing
    elsewhere: then a newer manifest has been there, and the files that it named may be all that there is.
    """
    there = directory.names()
    file_is_gone = not _named(manifest) <= set(there)
    end = max(chain.blocks[-1].end if chain.blocks else 0, manifest.lsn)
    beginning_is_gone = bool(chain.damage) and segment_name(manifest.log_first) not in there
    for name in _unnamed(directory, manifest):
        number = run_number(name)
        if number is None or number < manifest.next_file:
            continue
        known = _known_by(directory, name, manifest)
        if chain.damage:
            is_missing = beginning_is_gone and known >= chain.damage[0].end
        else:
            # Only the last segment of a log may be empty.
            is_empty = not chain.blocks and segment_of(known) > max(segment_of(end), manifest.log_first)
            is_missing = is_empty or falls_short(end, known)
        if is_missing or (file_is_gone and known):
            place = f"{segment_name(segment_of(known))} position {position_of(known)}"
            reason = f"it is older than {name}, which knows the log up to {place}; put the newest manifest back"
            raise Corruption(MANIFEST_NAME, 0, reason, directory=directory.path)


def _known_by(directory: Directory, name: str, manifest: Manifest) -> int:
    """How far a run that nobody names knows the log, at least; 0 if it says nothing that verifies."""
    with suppress(Corruption, UnsupportedFormat, OSError):
        run = Run.open(directory, name)
        if run is not None:
            try:
                if run.pages and run.nonce == nonce_of(manifest.uuid, run.number):
                    page = run.page(0)
                    return lsn_of_row(decode_row(page, lib.DL_RUN_PAGE_HEADER).payload)
            finally:
                run.close()
    return 0


def next_file(directory: Directory, manifest: Manifest) -> int:
    """The next number of a clustered segment or run; files that nobody names may have been kept."""
    numbers = [cluster_number(name) or run_number(name) or 0 for name in directory.names()]
    return max(manifest.next_file, 1 + max(numbers, default=0))


def _open_tables(directory: Directory, manifest: Manifest, opened: _Opened) -> None:
    there = set(directory.names())
    for file in manifest.clustered:
        name = cluster_name(file.number)
        segment = ClusteredSegment.open(directory, name) if name in there else None
        if segment is None:
            raise _cannot_open(name, NO_HEADER if name in there else MISSING)
        opened.clustered[file.number] = segment
        _expect_ours(segment, manifest)
    for number in manifest.runs:
        name = run_name(number)
        run = Run.open(directory, name) if name in there else None
        if run is None:
            raise _cannot_open(name, NO_HEADER if name in there else MISSING)
        opened.runs.append(run)
        _expect_ours(run, manifest)


def _expect_ours(table: ClusteredSegment | Run, manifest: Manifest) -> None:
    """A file of another store has its own nonce, by which everything in it verifies."""
    if table.nonce != nonce_of(manifest.uuid, table.number):
        raise _cannot_open(table.file.name, OF_ANOTHER_STORE)


def _cannot_open(name: str, reason: str) -> Corruption:
    return Corruption(name, 0, f"{reason}; nothing was changed; durable-log repair mends what can be mended")


def _replay_log(
    directory: Directory, manifest: Manifest, opened: _Opened, catalog: Catalog, clock: Callable[[], float]
) -> Recovered:
    segments = opened.segments
    surplus, unreadable = _open_segments(directory, manifest, segments)
    found = {number: survey(segments[number]) for number in sorted(segments)}
    found.update(_found_by_name(directory, manifest, segments, unreadable))
    listed = (Found(segments[number].after_lsn, found[number]) for number in sorted(found))
    base = Base(manifest.previous_lsn, manifest.previous_crc, manifest.lsn)
    chain = follow(listed, lsn_of(manifest.log_first, PAGE), base)
    expect_newest(directory, manifest, chain)
    _harden(segments, chain)
    clean = chain.blocks[-1].clean if chain.blocks else bool(manifest.clean)
    end_lsn = max(chain.blocks[-1].end if chain.blocks else 0, manifest.lsn)
    if not clean:
        catalog.crashed_at, catalog.forgets_crash, catalog.crashed_lsn = clock(), bool(catalog.runs), end_lsn
    elif manifest.crashed_ms:
        catalog.crashed_at, catalog.crashed_lsn = manifest.crashed_ms / 1000, manifest.crashed_lsn
    backlog = _backlog_of(segments, chain)
    replay = Replay(catalog, backlog, manifest.lsn, damaged=bool(chain.damage or unreadable))
    replay.run()
    if chain.damage:
        replay.look_up_all()
    report = Report(
        backlog.count, len(chain.blocks), chain.cut, chain.damage, replay.lost, replay.records_of_unknown_streams,
        unreadable, [error for _, error in replay.held],
    )  # fmt: skip
    for lsn, _ in replay.held:
        segments[segment_of(lsn)].damaged = True  # it stays until it can be applied
    _tell(directory.path, report)
    remove_leftovers(directory, manifest, tables=not (report.damage or report.unreadable_segments))
    return _arrange(directory, manifest, opened, found, chain, surplus, replay.removed, report)


def _backlog_of(segments: dict[int, LogSegment], chain: Chain) -> Backlog:
    backlog = Backlog(segments)
    for number, blocks in groupby(chain.blocks, lambda block: segment_of(block.lsn)):
        counting, segment = list(blocks), segments[number]
        segment.end, segment.last = position_of(counting[-1].end), (counting[-1].lsn, counting[-1].header_crc)
        backlog.take(segment, counting)
    backlog.sort()
    return backlog


def _open_segments(
    directory: Directory, manifest: Manifest, segments: dict[int, LogSegment]
) -> tuple[list[str], list[str]]:
    surplus, unreadable, files = [], [], directory.sizes()
    for name in directory.names():
        number = segment_number(name)
        if number is None:
            continue
        if number < manifest.log_first:
            surplus += [name] if name in files else []
            continue
        segment = LogSegment.open(directory, name, manifest.uuid)
        if segment is not None:
            segments[segment.number] = segment
        else:
            unreadable.append(name)
    return surplus, unreadable


def _found_by_name(
    directory: Directory, manifest: Manifest, segments: dict[int, LogSegment], unreadable: list[str]
) -> Iterator[tuple[int, list[Block]]]:
    """The blocks of segments whose header is damaged; nothing is written to these."""
    for name in unreadable:
        segment = LogSegment.open_by_name(directory, name, manifest.uuid)
        segments[segment.number] = segment  # closed with all others, should this fail
        blocks = survey(segment)
        if blocks:
            segment.damaged = True
            yield segment.number, blocks
        else:
            segments.pop(segment.number).close()


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
        start, end = (f"{segment_name(segment_of(lsn))} position {position_of(lsn)}" for lsn in damage[:2])
        _log.error("%s: %s between %s and %s; run durable-log verify", path, damage.reason, start, end)
    for error in report.unreadable_catalog:
        _log.error("%s: what the log has of some streams can't be applied: %s", path, error)
    for name in report.unreadable_segments:
        _log.error("%s: %s has no valid header and is never written to; run durable-log verify", path, name)


def _arrange(
    directory: Directory, manifest: Manifest, opened: _Opened, found: dict[int, list[Block]], chain: Chain,
    surplus: list[str], removed: list[StreamState], report: Report,
) -> Recovered:  # fmt: skip
    segments = opened.segments
    last = chain.blocks[-1] if chain.blocks else None
    previous = (last.lsn, last.header_crc) if last else (manifest.previous_lsn, manifest.previous_crc)
    # Rows know the log up to the manifest's LSN, which may lie in a segment that has no block yet. What is written from
    # now on has to come behind that, or it would be taken for known.
    known = max(manifest.log_first, segment_of(manifest.lsn)) - 1
    used = max([known, *(number for number, blocks in found.items() if blocks)])
    missing_until = chain.damage[-1].end if chain.damage else 0
    ends_early = missing_until > (last.end if last else 0)
    if ends_early:
        used = max(used, segment_of(missing_until))  # what is left there is kept,
        previous = previous if chain.cut else (missing_until, 0)  # and the next block names what is not there
    numbers = [number for name in directory.names() if (number := segment_number(name)) is not None]
    # Whatever an unreadable segment holds comes before all that is written from now on.
    unreadable = [segment_number(name) or 0 for name in report.unreadable_segments]
    spares = [segments.pop(number) for number in sorted(segments) if number > used]
    tail = None
    ends_here = last is not None and last.end >= manifest.lsn and segment_of(last.lsn) == used and not ends_early
    if last is not None and ends_here and not chain.cut and used > max(unreadable, default=0):
        # No block follows the last one; so whatever stands behind it never verifies, and may be written over.
        unmarked = last.lsn >= chain.durable_lsn and last.body_length > 0
        tail = Tail(segments[used], position_of(last.end), *previous, last.clean, unmarked)
    last_number = max(numbers, default=0)
    # What is damaged may be a segment that is not there, so it is no segment's own.
    held = [*unreadable, *(segment_of(damage.start) for damage in chain.damage)]
    return Recovered(
        segments, opened.clustered, spares, surplus, tail, max([used, *unreadable]), last_number, *previous,
        min(held, default=None), removed, report,
    )  # fmt: skip
