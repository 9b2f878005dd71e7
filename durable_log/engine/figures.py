"""The figures of an open store: what ``stats`` tells.

Law of this room: it reads what others keep, at one moment or nearly so, and changes nothing. Any thread, no lock.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TypedDict

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import Checkpointer
from durable_log.engine.commit import Committer
from durable_log.engine.files import Directory
from durable_log.engine.keeper import Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.reader import Reader
from durable_log.engine.recovery import Report
from durable_log.errors import StoreUnreadable


class Stats(TypedDict):
    """The figures of an open store; bytes and counts of commits since it was opened.

    =========================  =====================================================================================
    ``streams``                streams that exist, and deleted ones that are kept for their forks
    ``resident_streams``       those of them whose state is in memory
    ``watched_streams``        those that somebody waits for
    ``log_segments``           segments of the log that are in use, the one that is written included
    ``log_bytes``              their sizes, whether they are full or not
    ``spare_segments``         empty segments that are ready for the log
    ``clustering_debt_bytes``  sizes of the log segments that wait to be clustered
    ``held_streams``           streams that can't be clustered, for whose sake the log is kept: the log says why
    ``append_rate_max``        bytes a second to which appends are slowed down, as clustering can't keep up, or None
    ``clustered_segments``     immutable segments, grouped by stream
    ``clustered_live_bytes``   stream bytes in them that are needed; of a segment that was not counted lately, at
                               most some more or less
    ``clustered_dead_bytes``   stream bytes in them that nobody needs any more
    ``catalog_runs``           immutable files of the catalog
    ``catalog_rows``           rows in them, older ones of the same stream included
    ``catalog_tombstones``     those of the rows that say that a stream was deleted
    ``catalog_bytes``          sizes of these files
    ``disk_bytes``             what all files of the store take on disk, spares included
    ``disk_free_bytes``        what the file system has left for this process; None in memory
    ``recent_bytes``           stream bytes that are kept in memory
    ``commits``                group commits since the store was opened; and of these:
    ``records``                records with data
    ``bytes_appended``         their bytes
    ``bytes_written``          bytes that went into the log for them, without padding
    ``sync_seconds``           time that syncs of commits took
    ``syncs``                  how many there were
    ``syncs_within_250_us``    how many of them took no longer than that
    ``syncs_within_1000_us``   and so on; the rest took longer than the last
    ``syncs_within_4000_us``
    ``syncs_within_16000_us``
    ``syncs_within_64000_us``
    ``syncs_within_250000_us``
    ``syncs_within_1000000_us``
    ``damaged_places``         places in the log that opening found damaged
    ``failure``                why the store takes no changes any more, or None
    =========================  =====================================================================================
    """

    streams: int
    resident_streams: int
    watched_streams: int
    log_segments: int
    log_bytes: int
    spare_segments: int
    clustering_debt_bytes: int
    held_streams: int
    append_rate_max: float | None
    clustered_segments: int
    clustered_live_bytes: int
    clustered_dead_bytes: int
    catalog_runs: int
    catalog_rows: int
    catalog_tombstones: int
    catalog_bytes: int
    disk_bytes: int
    disk_free_bytes: int | None
    recent_bytes: int
    commits: int
    records: int
    bytes_appended: int
    bytes_written: int
    sync_seconds: float
    syncs: int
    syncs_within_250_us: int
    syncs_within_1000_us: int
    syncs_within_4000_us: int
    syncs_within_16000_us: int
    syncs_within_64000_us: int
    syncs_within_250000_us: int
    syncs_within_1000000_us: int
    damaged_places: int
    failure: str | None


def figures_of(
    directory: Directory, catalog: Catalog, reader: Reader, committer: Committer, checkpointer: Checkpointer,
    live: LiveBytes, spares: Spares, report: Report,
) -> Stats:  # fmt: skip
    """Figures of this moment. Raises :class:`StoreUnreadable` if the directory cannot be listed."""
    counters, failure = committer.counters, committer.failure
    clustered, runs = list(reader.clustered.values()), catalog.runs
    log, within = list(reader.segments.values()), tuple(accumulate(counters.syncs))
    payload = sum(segment.payload_bytes for segment in clustered)
    used, free = _bytes_on_disk(directory)
    needed = sum(max(0, live[segment.number]) for segment in clustered)
    return {
        "streams": len(catalog),
        "resident_streams": catalog.resident,
        "watched_streams": len(committer.watermarks),
        "log_segments": len(log),
        "log_bytes": sum(segment.size for segment in log),
        "spare_segments": len(spares),
        "clustering_debt_bytes": checkpointer.debt(),
        "held_streams": checkpointer.held(),
        "append_rate_max": committer.pace.rate,
        "clustered_segments": len(clustered),
        "clustered_live_bytes": needed,
        "clustered_dead_bytes": payload - needed,
        "catalog_runs": len(runs),
        "catalog_rows": sum(run.count for run in runs),
        "catalog_tombstones": sum(run.tombstones for run in runs),
        "catalog_bytes": sum(run.size for run in runs),
        "disk_bytes": used,
        "disk_free_bytes": free,
        "recent_bytes": committer.recent.total,
        "commits": counters.commits,
        "records": counters.records,
        "bytes_appended": counters.bytes_appended,
        "bytes_written": counters.bytes_written,
        "sync_seconds": counters.sync_ns / 1e9,
        "syncs": within[-1],
        "syncs_within_250_us": within[0],
        "syncs_within_1000_us": within[1],
        "syncs_within_4000_us": within[2],
        "syncs_within_16000_us": within[3],
        "syncs_within_64000_us": within[4],
        "syncs_within_250000_us": within[5],
        "syncs_within_1000000_us": within[6],
        "damaged_places": len(report.damage) + len(report.unreadable_segments),
        "failure": None if failure is None else str(failure),
    }


def _bytes_on_disk(directory: Directory) -> tuple[int, int | None]:
    """What the store takes, and what is left."""
    try:
        return sum(directory.sizes().values()), directory.free()
    except OSError as error:
        raise StoreUnreadable(str(error.filename or directory.path), error) from error
