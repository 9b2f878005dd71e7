"""The figures of an open store: what ``stats`` tells.

Law of this room: it reads what others keep, at one moment or nearly so, and changes nothing. Its keys are documented at
``Store.stats``. Any thread, no lock.
"""

from __future__ import annotations

from durable_log.engine.catalog import Catalog
from durable_log.engine.checkpoint import Checkpointer
from durable_log.engine.commit import Committer
from durable_log.engine.counters import SYNC_NS
from durable_log.engine.files import Directory
from durable_log.engine.keeper import Spares
from durable_log.engine.live import LiveBytes
from durable_log.engine.reader import Reader
from durable_log.engine.recovery import Report
from durable_log.errors import StoreUnreadable

Figures = dict[str, int | float | str | None]


def figures_of(
    directory: Directory, catalog: Catalog, reader: Reader, committer: Committer, checkpointer: Checkpointer,
    live: LiveBytes, spares: Spares, report: Report,
) -> Figures:  # fmt: skip
    """Figures of this moment; bytes and counts of commits since the store was opened. Raises
    :class:`StoreUnreadable` if the directory cannot be listed.
    """
    counters, failure = committer.counters, committer.failure
    clustered, runs = list(reader.clustered.values()), catalog.runs
    log, syncs = list(reader.segments.values()), tuple(counters.syncs)
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
        "syncs": sum(syncs),
        **{f"syncs_within_{ns // 1000}_us": sum(syncs[: n + 1]) for n, ns in enumerate(SYNC_NS)},
        "damaged_places": len(report.damage) + len(report.unreadable_segments),
        "failure": None if failure is None else str(failure),
    }


def _bytes_on_disk(directory: Directory) -> tuple[int, int | None]:
    """What the store takes, and what is left."""
    try:
        return sum(directory.sizes().values()), directory.free()
    except OSError as error:
        raise StoreUnreadable(str(error.filename or directory.path), error) from error
