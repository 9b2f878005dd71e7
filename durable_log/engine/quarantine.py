"""Where a repair puts what it takes out of a store, and what it has found.

Law of this room: one folder for each repair, ``quarantine/0001`` and so on. What goes in is a copy, or another name, of
a file as it was, durable before the store changes; nothing here is ever changed or removed again. A repair's folder is
known by its findings, which are there before anything else; without a report it is that of a repair that was not
finished, and the next one goes on with it. What else lies here is somebody's, and stays as it is. The store never reads
these files, but for what a report is called. The thread that repairs.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from durable_log.engine.files import Directory, discard
from durable_log.errors import NotAStore

QUARANTINE: Final = "quarantine"
REPORT_TEXT: Final = "report.txt"
REPORT_JSON: Final = "report.json"
FINDINGS: Final = "findings.tsv"
_TEMPORARY: Final = ".tmp"
_PIECE: Final = 2**20
_NUMBER: Final = re.compile("[0-9]{4}|[1-9][0-9]{4,8}")
"""A number is a place in a stream's index, of 32 bits."""


def folder_name(number: int) -> str:
    """The folder of a repair, from the store's directory on."""
    return f"{QUARANTINE}/{number:04}"


def report_name(number: int) -> str:
    """The report of a repair, from the store's directory on."""
    return f"{folder_name(number)}/{REPORT_TEXT}"


class Finding(NamedTuple):
    """What a repair has found or done. ``kind``: damage, unknown (a place of the log whose records are lost, whoever's
    they were), lost (bytes of a stream), closed (a stream whose state was lost), revived (one whose name was lost),
    moved (a file). ``name`` is a stream's, if it is known; ``start`` and ``end`` are offsets of it, ``position`` one in
    the file.
    """

    kind: str
    file: str
    position: int
    reason: str
    name: str = ""
    start: int = 0
    end: int = 0

    def encode(self) -> str:
        """On one line."""
        return "\t".join(quote(field, safe=" /:,;()'") if isinstance(field, str) else str(field) for field in self)


def _decode(line: bytes) -> Finding | None:
    """What is on a line; None if it is damaged."""
    try:
        kind, file, position, reason, name, start, end = line.decode("ascii").split("\t")
        return Finding(
            unquote(kind), unquote(file), int(position), unquote(reason), unquote(name), int(start), int(end)
        )
    except ValueError:
        return None


class Quarantine:
    """The folder of one repair. ``findings`` are those that are durable."""

    def __init__(self, directory: Directory, number: int) -> None:
        self.number = number
        self._directory = directory
        self._folder = _quarantine(directory).folder(f"{number:04}")
        self.findings: dict[Finding, None] = {}
        if FINDINGS in self._folder.names():
            noted = list(map(_decode, _content(self._folder, FINDINGS).splitlines()))
            self.findings = {finding: None for finding in noted if finding is not None}
            if None in noted:
                file, reason = f"{folder_name(number)}/{FINDINGS}", "what an interrupted repair noted can't all be read"
                self.findings[Finding("damage", file, 0, reason)] = None

    def keep(self, name: str, *, changes: bool) -> None:
        """A file of the store, as it is now, unless an earlier attempt has it; a copy, if the store still ``changes``
        it. Raises ``OSError``.
        """
        if name in self._folder.names():
            return
        if changes or not self._folder.link_from(self._directory, name):
            self._copy(name)
        self._folder.sync()

    def add(self, findings: Iterable[Finding]) -> None:
        """Note durably what was found. Raises ``OSError``."""
        known = self.findings | dict.fromkeys(findings)
        self._replace(FINDINGS, "".join(f"{finding.encode()}\n" for finding in known).encode())
        self.findings = known

    def finish(self, text: bytes, as_json: bytes) -> None:
        """The reports. Raises ``OSError``."""
        self._replace(REPORT_TEXT, text)
        self._replace(REPORT_JSON, as_json)

    def _copy(self, name: str) -> None:
        source = self._directory.open(name)
        try:
            self._make(name, (source.read(position, _PIECE) for position in range(0, source.size(), _PIECE)))
        finally:
            source.close()

    def _replace(self, name: str, content: bytes) -> None:
        self._make(name, [content])
        self._folder.sync()

    def _make(self, name: str, pieces: Iterable[bytes]) -> None:
        """A whole file, synced under its temporary name first; nothing of it if that fails: the disk may be full."""
        file, position = self._folder.create(name + _TEMPORARY), 0
        try:
            for piece in pieces:
                file.write(position, piece)
                position += len(piece)
            file.sync()
        except OSError:
            discard(self._folder, name + _TEMPORARY)
            raise
        finally:
            file.close()
        self._folder.rename(name + _TEMPORARY, name)


def unfinished(directory: Directory) -> Quarantine | None:
    """The last repair, if it was not finished."""
    for number in reversed(_numbers_in(directory)):
        names = _names_in(directory, number)
        if FINDINGS in names:
            return None if REPORT_JSON in names else Quarantine(directory, number)
    return None


def begun(directory: Directory, reports: Iterable[int]) -> Quarantine:
    """A folder for a new repair. Its number is none of ``reports``, those that holes in rows name: of a copy of a store
    that was repaired, the quarantine may be gone. Raises ``OSError``.
    """
    number = max(_numbers_in(directory), default=0)
    if number == 0 or set(_names_in(directory, number)) - {FINDINGS + _TEMPORARY}:
        number += 1
    quarantine = Quarantine(directory, max(number, 1 + max(reports, default=0)))
    quarantine.add(())
    return quarantine


def _quarantine(directory: Directory) -> Directory:
    try:
        return directory.folder(QUARANTINE)
    except NotAStore as error:
        raise NotADirectoryError(
            errno.ENOTDIR, "it is a file, and a repair needs a folder of that name; move the file elsewhere", error.path
        ) from None


def _numbers_in(directory: Directory) -> list[int]:
    """The numbers that folders of repairs have, or may have, ascending."""
    if QUARANTINE not in directory.names():
        return []
    try:
        names = directory.folder(QUARANTINE).names()
    except NotAStore:
        return []  # whoever needs the folder is told that it is a file
    return sorted(number for name in names if _NUMBER.fullmatch(name) and (number := int(name)) > 0)


def _names_in(directory: Directory, number: int) -> list[str]:
    """What is in the folder of that number; if it is a file, its own name."""
    try:
        return directory.folder(QUARANTINE).folder(f"{number:04}").names()
    except NotAStore:
        return [f"{number:04}"]


def _content(folder: Directory, name: str) -> bytes:
    file = folder.open(name)
    try:
        return file.read(0, file.size())
    finally:
        file.close()
