"""The commands that look after a whole store: stats, compact, backup.

Law of this room: each function opens the store, does one thing, and closes it; ``_cli.serve`` does the same to a store
that it serves. Plain output is for people, ``--json`` for programs. Main thread only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from durable_log._cli.directory import open_store
from durable_log._cli.output import put, telling
from durable_log._cli.text import printable
from durable_log.errors import StoreLocked
from durable_log.model import Backup

_SHOWN: Final = (
    "streams", "resident_streams", "log_segments", "log_bytes", "spare_segments", "clustering_debt_bytes",
    "clustered_segments", "clustered_live_bytes", "clustered_dead_bytes", "catalog_runs", "catalog_rows",
    "catalog_tombstones", "catalog_bytes", "disk_bytes", "damaged_places",
)  # fmt: skip
"""What a store says that nobody uses at the moment; the other figures count from when it was opened."""


def show_stats(data: str, *, as_json: bool) -> None:
    """The figures of a store; see ``Store.stats``."""
    with open_store(data, calm=True) as store:
        figures: Mapping[str, Any] = store.stats()
    if as_json:
        put(json.dumps(figures) + "\n")
        return
    for key in _SHOWN:
        value = figures[key]
        size = f"  {_size(value)}" if key.endswith("_bytes") and value >= 1024 else ""
        put(f"{key.replace('_', ' '):<22} {value:>18,}{size}\n")


def compact(data: str, *, as_json: bool) -> None:
    """Give back all the space that can be given back, and say how much that was."""
    with open_store(data) as store:
        before = store.stats()["disk_bytes"]
        store.compact()
        after = store.stats()["disk_bytes"]
    with telling("the store is compacted"):
        if as_json:
            put(json.dumps({"bytes_before": before, "bytes_after": after}) + "\n")
        else:
            put(f"{before:,} bytes on disk before, {after:,} after: {before - after:,} given back\n")


def backup(data: str, target: str, *, verify: bool, as_json: bool) -> None:
    """Copy the store in directory ``data`` into ``target``."""
    try:
        with open_store(data, calm=True) as store:
            made = store.backup(target, verify=verify)
    except StoreLocked as error:
        if error.path != data:
            raise
        raise click.ClickException(
            f"{data} is open in {error.holder}, which has to make the backup itself: a server that was started with "
            "--backups DIR makes one at SIGUSR1 (kill -USR1 PID), a program by store.backup(TARGET)"
        ) from error
    with telling(f"the backup in {printable(target)} is complete"):
        put(json.dumps(made._asdict()) + "\n" if as_json else summary(target, made) + "\n")


def summary(target: str, made: Backup) -> str:
    """What became of a backup, in one line."""
    return (
        f"{printable(target)}: {made.streams:,} streams; {made.files_linked:,} files linked, {made.files_copied:,} "
        f"copied ({made.bytes_copied:,} bytes)"
    )


def _size(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:,.1f} {unit}"
        value /= 1024
    return f"{value:,.1f} TiB"
