"""Repairing a store, and the reports of it: as text and as JSON.

Law of this room: what is done is the engine's; here it is told. A dry run repairs an overlay of the store, of which
nothing reaches the disk. The reports have no times and no paths in them, so that a repair that was interrupted writes
the same. Main thread only.
"""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import Any, Final

from durable_log._cli.directory import find_store, tell_if_unlocked
from durable_log._cli.output import put, telling
from durable_log._cli.text import printable
from durable_log.engine.files import Directory, directory_at, directory_to_look_at
from durable_log.engine.manifest import MANIFEST_NAME
from durable_log.engine.overlay import OverlayDirectory
from durable_log.engine.quarantine import REPORT_TEXT, Finding, folder_name
from durable_log.engine.repair import Outcome, repair

_LOSSES: Final = ("unknown", "closed", "revived")
"""Findings by which something is lost, or may be."""

_NEXT = """\
What to do next:
- Reading a lost range raises an error that names this report; reading from its end on works.
- If there is a backup, or another copy, that holds what is lost: create a new stream from it.
- Streams that are closed, or in lost+found/, can be read and deleted, and take no appends. A stream in lost+found/ may
  have been deleted before: delete it again if so.
- The files here are copies of what was damaged. Keep them as long as you hope to get more out of them; the store does
  not need them.
- Have the disk looked after, and run durable-log verify --deep now and then.
"""


def repair_store(data: str, *, dry_run: bool, as_json: bool) -> bool:
    """Repair the store in directory ``data``, and say what was done. False if something is lost."""
    find_store(data)
    directory: Directory = OverlayDirectory(directory_to_look_at(data)) if dry_run else directory_at(data)
    with closing(directory) as opened:
        opened.lock()
        tell_if_unlocked(opened)
        outcome = repair(opened, time.time, rendered)
    lines = map(json.dumps, _as_objects(outcome)) if as_json else _as_lines(outcome, dry_run=dry_run)
    with telling(_done(outcome, data, dry_run=dry_run)):
        for line in lines:
            put(line + "\n")
    return not outcome.lost and not any(finding.kind in _LOSSES for finding in outcome.findings)


def _done(outcome: Outcome, data: str, *, dry_run: bool) -> str:
    if dry_run or not outcome.number:
        return "nothing was changed"
    return f"the store is repaired, and the report is {data}/{folder_name(outcome.number)}/{REPORT_TEXT}"


def losses_of(outcome: Outcome) -> list[tuple[str, int, int, str, int, str]]:
    """Name, start and end of what is lost; and by which file, where in it, and why."""
    return [(*lost, *_cause(outcome, *lost)) for lost in outcome.lost]


def rendered(outcome: Outcome) -> tuple[bytes, bytes]:
    """The two reports."""
    text = "\n".join([*_as_lines(outcome, dry_run=False), "", _NEXT])
    return text.encode(), (json.dumps(_as_objects(outcome), indent=1, ensure_ascii=False) + "\n").encode()


def _as_objects(outcome: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [finding._asdict() for finding in outcome.findings if finding.kind != "lost"]
    keys = ("name", "start", "end", "file", "position", "reason")
    found += [{"kind": "lost", **dict(zip(keys, lost, strict=True))} for lost in losses_of(outcome)]
    return [*found, {"kind": "total", "number": outcome.number, "lost": len(outcome.lost)}]


def _as_lines(outcome: Outcome, *, dry_run: bool) -> list[str]:
    if not outcome.number:
        return ["nothing is damaged; nothing was changed"]
    lines = [f"{_where(one)}: {one.reason}" for one in outcome.findings if one.kind in ("damage", "unknown")]
    folder = folder_name(outcome.number)
    moved = [one.file for one in outcome.findings if one.kind == "moved"]
    lines += [f"{name}: {'would be' if dry_run else 'is'} kept as {folder}/{name}" for name in moved]
    lines += [
        f"stream {printable(name)}: offsets {start} to {end} are lost: {file} position {position}: {reason}"
        for name, start, end, file, position, reason in losses_of(outcome)
    ]
    lines += [
        f"stream {printable(one.name)}: {one.reason}" for one in outcome.findings if one.kind in ("closed", "revived")
    ]
    lost = sum(end - start for _, start, end in outcome.lost)
    streams = len({name for name, _, _ in outcome.lost})
    done = "nothing was changed" if dry_run else f"the report is {folder}/{REPORT_TEXT}"
    unknown = sum(one.kind == "unknown" for one in outcome.findings)
    besides = (
        f"; places of the log that may have held records of which nothing else tells: {unknown}" if unknown else ""
    )
    return [*lines, f"{lost} bytes of {streams} streams are lost, all else is kept{besides}; {done}"]


def _where(finding: Finding) -> str:
    where = f"{finding.file}: position {finding.position}"
    return f"{where}: offsets {finding.start} to {finding.end}" if finding.end else where


def _cause(outcome: Outcome, name: str, start: int, end: int) -> tuple[str, int, str]:
    """Of what is known to be damaged, what lost these bytes."""
    for one in outcome.findings:
        if one.kind == "lost" and one.name == name and one.start < end and start < one.end:
            return one.file, one.position, one.reason
    return MANIFEST_NAME, 0, "nothing that is left holds them"
