"""Where a repair puts what it takes out of a store, and what it has found.

Law of this room: one folder for each repair, ``quarantine/0001`` and so on. What goes in is a copy, or another name, of
a file as it was, durable before the store changes; nothing here is ever changed or removed again. A folder without a
report is that of a repair that was not finished, and the next one goes on with it, unless its notes can't be read: then
it has a folder of its own. The store never reads these files, but for what a report is called. The thread that repairs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from durable_log.engine.files import Directory, discard

QUARANTINE: Final = "quarantine"
REPORT_TEXT: Final = "report.txt"
REPORT_JSON: Final = "report.json"
FINDINGS: Final = "findings.tsv"
_TEMPORARY: Final = ".tmp"
_PIECE: Final = 2**20


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


def _decode(line: str) -> Finding:
    kind, file, position, reason, name, start, end = line.split("\t")
    return Finding(unquote(kind), unquote(file), int(position), unquote(reason), unquote(name), int(start), int(end))


class Quarantine:
    """The folder of one repair. ``findings`` are those that are durable.

    Until any are, the store is as it was. So it is not yet one to go on with, unless it ``is_begun``: without notes in
    it, somebody else may have made the folder.
    """

    def __init__(self, directory: Directory, number: int) -> None:
        self.number = number
        self._directory = directory
        self._folder = directory.folder(QUARANTINE).folder(f"{number:04}")
        self.findings: dict[Finding, None] = {}
        self.is_begun = FINDINGS in self._folder.names()
        if self.is_begun:
            text = _content(self._folder, FINDINGS).decode()
            self.findings = dict.fromkeys(map(_decode, text.splitlines()))

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


def numbers_of(directory: Directory) -> list[int]:
    """The numbers of all repairs, ascending."""
    if QUARANTINE not in directory.names():
        return []
    return sorted(int(name) for name in directory.folder(QUARANTINE).names() if name.isdecimal())


def unfinished(directory: Directory) -> Quarantine | None:
    """The last repair, if it was not finished and its notes can be read. Raises ``OSError``."""
    numbers = numbers_of(directory)
    if not numbers or REPORT_JSON in directory.folder(QUARANTINE).folder(f"{numbers[-1]:04}").names():
        return None
    try:
        return Quarantine(directory, numbers[-1])
    except ValueError:
        return None


def _content(folder: Directory, name: str) -> bytes:
    file = folder.open(name)
    try:
        return file.read(0, file.size())
    finally:
        file.close()
