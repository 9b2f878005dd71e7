"""What a disk holds while a program writes to it: what is on stable storage, and what a crash may or may not leave.

Law of this room: changes go in, in the order in which a program made them; images of crashes come out. It knows the
assumptions of docs/durability.md and nothing of what the files mean: a sync makes a file's bytes and length durable, a
sync of the directory its entries. Until then any subset of the written sectors may be there, in any version that was
written, whole or torn; the file has any length that it ever had or one between; and any subset of the changes of the
directory counts, each as a whole. No I/O, no chance: whoever asks for an image makes all the choices, as digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

SECTOR: Final = 512
PAGE: Final = 4096
TORN: Final = 200
"""Where a torn sector tears: bytes of the new version before, of the old one from here on."""


class Created(NamedTuple):
    """A name for a new, empty file; or, if the name is there, its file is cut to nothing."""

    name: str
    inode: int


class Written(NamedTuple):
    inode: int
    position: int
    data: bytes


class Synced(NamedTuple):
    inode: int


class SyncLost(NamedTuple):
    """A sync failed. What was written since the last one is no longer dirty: of its sectors, those in ``kept`` have
    reached the disk, and no other ever will."""

    inode: int
    kept: frozenset[int]


class Renamed(NamedTuple):
    old: str
    new: str


class Removed(NamedTuple):
    name: str


class DirectorySynced(NamedTuple):
    pass


class Note(NamedTuple):
    """Something that the program did or learned at this moment."""

    what: object


Event = Created | Written | Synced | SyncLost | Renamed | Removed | DirectorySynced | Note


class _Epoch:
    """A file's life between two truncations: the sectors that were written, all versions of each, and the lengths."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.sectors: dict[int, list[bytes]] = {}
        self.lengths: list[int] = []

    @property
    def length(self) -> int:
        return self.lengths[-1] if self.lengths else len(self.base)

    def newest(self, sector: int) -> bytes:
        versions = self.sectors.get(sector)
        return versions[-1] if versions else self.durable(sector)

    def durable(self, sector: int) -> bytes:
        return self.base[sector * SECTOR : (sector + 1) * SECTOR].ljust(SECTOR, b"\0")

    def write(self, position: int, data: bytes) -> None:
        end = position + len(data)
        for sector in range(position // SECTOR, -(-end // SECTOR)):
            start = sector * SECTOR
            new = bytearray(self.newest(sector))
            low, high = max(position, start), min(end, start + SECTOR)
            new[low - start : high - start] = data[low - position : high - position]
            self.sectors.setdefault(sector, []).append(bytes(new))
        if end > self.length:
            self.lengths.append(end)

    def content(self, length: int, chosen: dict[int, bytes]) -> bytes:
        held = bytearray(self.base[:length].ljust(length, b"\0"))
        for sector, data in chosen.items():
            start = sector * SECTOR
            if start < length:
                held[start : start + SECTOR] = data[: length - start]
        return bytes(held)

    def whole(self) -> bytes:
        return self.content(self.length, {sector: versions[-1] for sector, versions in self.sectors.items()})


class _Inode:
    """One file: its durable bytes, and what was done to it since. Nothing is pending in one epoch without writes."""

    def __init__(self) -> None:
        self.epochs = [_Epoch(b"")]

    def settle(self, content: bytes) -> None:
        self.epochs = [_Epoch(content)]

    @property
    def dirty(self) -> bool:
        return len(self.epochs) > 1 or bool(self.epochs[0].sectors)


class Choice(NamedTuple):
    """One thing that a crash decides: a digit below ``radix``; 0 is what was durable, the last digit what is newest."""

    radix: int
    what: str


class Media:
    """The files of one directory. ``apply`` events in order; then ask what a crash could leave."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.inodes: dict[int, _Inode] = {}
        self.entries: dict[str, int] = {}
        self.durable_entries: dict[str, int] = {}
        self.changes: list[dict[str, int | None]] = []
        """What was done to the directory since its last sync: new inodes of names, or None where they went."""
        for number, (name, content) in enumerate((files or {}).items()):
            self.inodes[-1 - number] = inode = _Inode()
            inode.settle(content)
            self.entries[name] = self.durable_entries[name] = -1 - number

    # --- what the program does -------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        match event:
            case Created(name, inode):
                if name in self.entries:
                    self.inodes[self.entries[name]].epochs.append(_Epoch(b""))
                else:
                    self.inodes[inode] = _Inode()
                    self._change({name: inode})
            case Written(inode, position, data):
                self.inodes[inode].epochs[-1].write(position, data)
            case Synced(inode):
                self.inodes[inode].settle(self.inodes[inode].epochs[-1].whole())
            case SyncLost(inode, kept):
                self._lose(self.inodes[inode], kept)
            case Renamed(old, new):
                self._change({old: None, new: self.entries[old]})
            case Removed(name):
                self._change({name: None})
            case DirectorySynced():
                self.durable_entries, self.changes = dict(self.entries), []
            case Note():
                pass

    def _change(self, change: dict[str, int | None]) -> None:
        self.changes.append(change)
        _amend(self.entries, change)

    def _lose(self, inode: _Inode, kept: frozenset[int]) -> None:
        epoch = inode.epochs[-1]
        inode.settle(epoch.content(epoch.length, {sector: epoch.sectors[sector][-1] for sector in kept}))

    def dirty_sectors(self, inode: int) -> list[int]:
        """Sectors that were written since the last sync."""
        return sorted(self.inodes[inode].epochs[-1].sectors)

    def durable(self, inode: int) -> bytes:
        """The bytes that are sure."""
        return self.inodes[inode].epochs[0].base

    def crash(self, grain: int = SECTOR, *, torn: bool = False) -> Crash:
        """What a crash now would decide. ``grain``: written bytes arrive in units of so many, :data:`SECTOR` or
        :data:`PAGE`. ``torn``: or only in part."""
        return Crash(self, grain, torn=torn)


class Crash:
    """All images of a crash at one moment; it holds until the next event. ``choices``: what it decides, file by file
    and then entry by entry; an image takes one digit for each. ``entries_from``: the first that is about an entry."""

    def __init__(self, media: Media, grain: int, *, torn: bool) -> None:
        self._media, self._grain, self._torn = media, grain, torn
        self._keys: list[tuple[object, ...]] = []
        self.choices: list[Choice] = []
        self._files = self._reachable()
        for number in self._files:
            if media.inodes[number].dirty:
                self._ask_about(number, media.inodes[number])
        self.entries_from = len(self.choices)
        for turn, change in enumerate(media.changes):
            self._ask(2, f"entries {sorted(change)}", "entry", turn)

    def image(self, digits: Sequence[int]) -> dict[str, bytes]:
        """The files that the crash leaves if it decides so."""
        decided = dict(zip(self._keys, digits, strict=True))
        entries = dict(self._media.durable_entries)
        for turn, change in enumerate(self._media.changes):
            if decided["entry", turn]:
                _amend(entries, change)
        contents = {number: self._content(number, decided) for number in set(entries.values())}
        return {name: contents[number] for name, number in entries.items()}

    def _reachable(self) -> list[int]:
        named = set(self._media.durable_entries.values())
        for change in self._media.changes:
            named |= {inode for inode in change.values() if inode is not None}
        return sorted(named)

    def _ask(self, radix: int, what: str, *key: object) -> None:
        self._keys.append(key)
        self.choices.append(Choice(radix, what))

    def _ask_about(self, number: int, inode: _Inode) -> None:
        if len(inode.epochs) > 1:
            self._ask(len(inode.epochs), f"truncations of file {number}", "epoch", number)
        for turn, epoch in enumerate(inode.epochs):
            if epoch.lengths:
                self._ask(len(self._lengths(epoch)), f"length of file {number}", "length", number, turn)
            for unit, versions in self._units(epoch).items():
                what = f"file {number}, bytes from {unit * self._grain} on"
                self._ask(1 + self._torn + versions, what, "unit", number, turn, unit)

    def _content(self, number: int, decided: dict[tuple[object, ...], int]) -> bytes:
        inode = self._media.inodes[number]
        if not inode.dirty:
            return inode.epochs[0].base
        turn = decided.get(("epoch", number), 0)
        epoch, chosen = inode.epochs[turn], {}
        for unit in self._units(epoch):
            digit = decided["unit", number, turn, unit]
            if digit:
                chosen |= self._arrived(epoch, unit, digit)
        length = self._lengths(epoch)[decided["length", number, turn]] if epoch.lengths else len(epoch.base)
        return epoch.content(length, chosen)

    def _arrived(self, epoch: _Epoch, unit: int, digit: int) -> dict[int, bytes]:
        """The sectors of a unit: with torn ones, digit 1 is a part of the newest version; the versions follow."""
        chosen = {}
        for sector in range(unit * self._grain // SECTOR, (unit + 1) * self._grain // SECTOR):
            versions = epoch.sectors.get(sector)
            if versions is None:
                continue
            if self._torn and digit == 1:
                chosen[sector] = versions[-1][:TORN] + epoch.durable(sector)[TORN:]
            else:
                chosen[sector] = versions[min(digit - self._torn, len(versions)) - 1]
        return chosen

    def _units(self, epoch: _Epoch) -> dict[int, int]:
        """Units of the written bytes, and how many versions of each there are."""
        units: dict[int, int] = {}
        for sector in sorted(epoch.sectors):
            unit = sector * SECTOR // self._grain
            units[unit] = max(units.get(unit, 0), len(epoch.sectors[sector]))
        return units

    def _lengths(self, epoch: _Epoch) -> list[int]:
        """Those that the file may have: the durable one, all that it had since, and those at the ends of units."""
        longest, grain = max(epoch.lengths), self._grain
        first = len(epoch.base) // grain * grain + grain
        return sorted({len(epoch.base), *epoch.lengths, *range(first, longest, grain)})


def _amend(entries: dict[str, int], change: dict[str, int | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode
