"""What a disk holds while a program writes to it: what is on stable storage, and what a crash may or may not leave.

Law of this room: changes go in, in the order in which a program made them; images of crashes come out. It knows the
assumptions of docs/durability.md and nothing of what the files mean: a sync makes a file's bytes and length durable, a
sync of the directory its entries. Until then any subset of the written sectors may be there, in any version that was
written, whole or torn; the file has any length that it ever had or one between; and any subset of the changes of the
directory counts, each as a whole. No I/O, no chance: whoever asks for an image makes all the choices, as digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


class Linked(NamedTuple):
    """A name for a file that is on stable storage already, as it has another name elsewhere."""

    name: str
    inode: int
    content: bytes


class Synced(NamedTuple):
    inode: int


class SyncLost(NamedTuple):
    """A sync failed. What was written since the last one is no longer dirty: of its sectors, those in ``kept`` have
    reached the disk, and no other ever will. ``length``: what became of the file's length; None if it is durable.
    """

    inode: int
    kept: frozenset[int]
    length: int | None = None


class Renamed(NamedTuple):
    old: str
    new: str


class Removed(NamedTuple):
    name: str


class DirectorySynced(NamedTuple):
    pass


class DirectorySyncLost(NamedTuple):
    """A sync of the directory failed. Of the changes since the last one, those in ``kept`` have reached the disk, by
    their turn, and no other ever will, whatever the directory goes on showing.
    """

    kept: frozenset[int]


class Note(NamedTuple):
    """Something that the program did or learned at this moment."""

    what: object


Event = Created | Written | Linked | Synced | SyncLost | Renamed | Removed | DirectorySynced | DirectorySyncLost | Note


class _Epoch:
    """A file's life between two truncations: the sectors that were changed, all versions of each, and the lengths.

    A version comes with the number of the write that made it. Writing what is there already makes none.
    """

    def __init__(self, base: bytes) -> None:
        self.base = base
        self.sectors: dict[int, list[tuple[int, bytes]]] = {}
        self.lengths: list[int] = []
        self._writes = 0

    @property
    def length(self) -> int:
        return self.lengths[-1] if self.lengths else len(self.base)

    def newest(self, sector: int) -> bytes:
        versions = self.sectors.get(sector)
        return versions[-1][1] if versions else self.durable(sector)

    def durable(self, sector: int) -> bytes:
        return self.base[sector * SECTOR : (sector + 1) * SECTOR].ljust(SECTOR, b"\0")

    def write(self, position: int, data: bytes) -> None:
        end = position + len(data)
        self._writes += 1
        for sector in range(position // SECTOR, -(-end // SECTOR)):
            start = sector * SECTOR
            old = self.newest(sector)
            low, high = max(position, start), min(end, start + SECTOR)
            new = old[: low - start] + data[low - position : high - position] + old[high - start :]
            if new != old:
                self.sectors.setdefault(sector, []).append((self._writes, new))
        if end > self.length:
            self.lengths.append(end)

    def content(self, length: int, chosen: Iterable[tuple[int, bytes]]) -> bytes:
        held = bytearray(self.base[:length].ljust(length, b"\0"))
        for sector, data in chosen:
            start = sector * SECTOR
            if start < length:
                held[start : start + SECTOR] = data[: length - start]
        return bytes(held)

    def whole(self) -> bytes:
        return self.content(self.length, ((sector, versions[-1][1]) for sector, versions in self.sectors.items()))

    def copy(self) -> _Epoch:
        twin = _Epoch(self.base)
        twin.sectors = {sector: list(versions) for sector, versions in self.sectors.items()}
        twin.lengths, twin._writes = list(self.lengths), self._writes
        return twin

    def units(self, grain: int, *, torn: bool) -> dict[int, list[_Version]]:
        """What may have arrived of each unit of so many bytes, besides nothing: each state that it was in, and with
        ``torn``, first, a part of the newest.
        """
        sectors: dict[int, list[int]] = {}
        for sector in sorted(self.sectors):
            sectors.setdefault(sector * SECTOR // grain, []).append(sector)
        return {unit: self._versions(within, torn=torn) for unit, within in sectors.items()}

    def _versions(self, sectors: list[int], *, torn: bool) -> list[_Version]:
        found: list[_Version] = []
        for write in sorted({write for sector in sectors for write, _ in self.sectors[sector]}):
            states = [(sector, [data for made, data in self.sectors[sector] if made <= write]) for sector in sectors]
            found.append([(sector, versions[-1]) for sector, versions in states if versions])
        if torn:
            found.insert(0, [(sector, data[:TORN] + self.durable(sector)[TORN:]) for sector, data in found[-1]])
        return found


_Version = list[tuple[int, bytes]]
"""Sectors as they stand in one state of a unit."""


class _Inode:
    """One file: its durable bytes, and what was done to it since. Nothing is pending in one epoch without changes."""

    def __init__(self, epochs: list[_Epoch]) -> None:
        self.epochs = epochs

    @classmethod
    def holding(cls, content: bytes) -> _Inode:
        return cls([_Epoch(content)])

    def settle(self, content: bytes) -> None:
        self.epochs = [_Epoch(content)]

    def copy(self) -> _Inode:
        return _Inode([epoch.copy() for epoch in self.epochs])

    @property
    def dirty(self) -> bool:
        return len(self.epochs) > 1 or bool(self.epochs[0].sectors or self.epochs[0].lengths)


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
            self.inodes[-1 - number] = _Inode.holding(content)
            self.entries[name] = self.durable_entries[name] = -1 - number

    def copy(self) -> Media:
        """The same files, which go their own way from here on."""
        twin = Media()
        twin.inodes = {number: inode.copy() for number, inode in self.inodes.items()}
        twin.entries, twin.durable_entries = dict(self.entries), dict(self.durable_entries)
        twin.changes = list(self.changes)
        return twin

    def shown(self) -> dict[str, bytes]:
        """The files as a program sees them, as long as no sync has failed: all that was done to them."""
        return {name: self.inodes[number].epochs[-1].whole() for name, number in self.entries.items()}

    # --- what the program does -------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        match event:
            case Created(name, inode) if name not in self.entries:
                self._begin(name, inode, b"")
            case Created(name):
                self.inodes[self.entries[name]].epochs.append(_Epoch(b""))
            case Linked(name, inode, content):
                self._begin(name, inode, content)
            case Written(inode, position, data):
                self.inodes[inode].epochs[-1].write(position, data)
            case Synced(inode):
                self.inodes[inode].settle(self.inodes[inode].epochs[-1].whole())
            case SyncLost(inode, kept, length):
                self._lose(self.inodes[inode], kept, length)
            case Renamed(old, new):
                self._change({old: None, new: self.entries[old]})
            case Removed(name):
                self._change({name: None})
            case DirectorySynced():
                self._settle_entries(range(len(self.changes)))
            case DirectorySyncLost(kept):
                self._settle_entries(sorted(kept))

    def _begin(self, name: str, inode: int, content: bytes) -> None:
        self.inodes[inode] = _Inode.holding(content)
        self._change({name: inode})

    def _settle_entries(self, turns: Iterable[int]) -> None:
        for turn in turns:
            _amend(self.durable_entries, self.changes[turn])
        self.changes = []

    def _change(self, change: dict[str, int | None]) -> None:
        self.changes.append(change)
        _amend(self.entries, change)

    def _lose(self, inode: _Inode, kept: frozenset[int], length: int | None) -> None:
        epoch = inode.epochs[-1]
        arrived = [(sector, epoch.newest(sector)) for sector in kept]
        inode.settle(epoch.content(epoch.length if length is None else length, arrived))

    def dirty_sectors(self, inode: int) -> list[int]:
        """Sectors that were changed since the last sync."""
        return sorted(self.inodes[inode].epochs[-1].sectors)

    def durable(self, inode: int) -> bytes:
        """The bytes that are sure."""
        return self.inodes[inode].epochs[0].base

    def crash(self, grain: int = SECTOR, *, torn: bool = False) -> Crash:
        """What a crash now would decide. ``grain``: written bytes arrive in units of so many, :data:`SECTOR` or
        :data:`PAGE`. ``torn``: or only in part."""
        return Crash(self, grain, torn=torn)


class _Pending(NamedTuple):
    """One epoch of a file that is dirty, and which digits decide it. ``lengths``: those that the file may have."""

    epoch: _Epoch
    lengths: list[int]
    length_digit: int
    units: list[tuple[int, list[_Version]]]

    def content(self, digits: Sequence[int]) -> bytes:
        length = self.lengths[digits[self.length_digit]] if len(self.lengths) > 1 else self.lengths[0]
        arrived = [sector for digit, versions in self.units if digits[digit] for sector in versions[digits[digit] - 1]]
        return self.epoch.content(length, arrived)


class Crash:
    """All images of a crash at one moment; it holds until the next event. ``choices``: what it decides, file by file
    and then entry by entry; an image takes one digit for each. ``entries_from``: the first that is about an entry."""

    def __init__(self, media: Media, grain: int, *, torn: bool) -> None:
        self._media, self._grain, self._torn = media, grain, torn
        self.choices: list[Choice] = []
        self._dirty: dict[int, tuple[int, list[_Pending]]] = {}
        """Of files that are not as they are on disk: which digit says which of their epochs counts, and these."""
        for number in sorted(self._reachable()):
            if media.inodes[number].dirty:
                self._dirty[number] = self._ask_about(number, media.inodes[number])
        self.entries_from = len(self.choices)
        for change in media.changes:
            self._ask(2, f"the change of the entries {sorted(change)}")

    def image(self, digits: Sequence[int]) -> dict[str, bytes]:
        """The files that the crash leaves if it decides so."""
        assert len(digits) == len(self.choices), (len(digits), len(self.choices))
        entries = dict(self._media.durable_entries)
        for digit, change in zip(digits[self.entries_from :], self._media.changes, strict=True):
            if digit:
                _amend(entries, change)
        contents = {number: self._content(number, digits) for number in set(entries.values())}
        return {name: contents[number] for name, number in sorted(entries.items())}

    def told(self, digits: Sequence[int]) -> list[str]:
        """What the crash decides, in words."""
        return [
            f"{what}: {'old' if not digit else 'new' if digit == radix - 1 else f'{digit} of {radix - 1}'}"
            for (radix, what), digit in zip(self.choices, digits, strict=True)
        ]

    def _reachable(self) -> set[int]:
        named = set(self._media.durable_entries.values())
        for change in self._media.changes:
            named |= {inode for inode in change.values() if inode is not None}
        return named

    def _ask(self, radix: int, what: str) -> int:
        self.choices.append(Choice(radix, what))
        return len(self.choices) - 1

    def _ask_about(self, number: int, inode: _Inode) -> tuple[int, list[_Pending]]:
        names = [name for name, found in self._media.entries.items() if found == number]
        file, which = f"file {number} ({', '.join(names) or 'without a name'})", -1
        if len(inode.epochs) > 1:
            which = self._ask(len(inode.epochs), f"{file}, truncations")
        pending = []
        for turn, epoch in enumerate(inode.epochs):
            what, lengths = f"{file} after {turn} truncations" if turn else file, self._lengths(epoch)
            length_digit = self._ask(len(lengths), f"{what}, length") if len(lengths) > 1 else -1
            units = [
                (self._ask(1 + len(versions), f"{what}, bytes from {unit * self._grain} on"), versions)
                for unit, versions in epoch.units(self._grain, torn=self._torn).items()
            ]
            pending.append(_Pending(epoch, lengths, length_digit, units))
        return which, pending

    def _content(self, number: int, digits: Sequence[int]) -> bytes:
        if number not in self._dirty:
            return self._media.inodes[number].epochs[0].base
        which, pending = self._dirty[number]
        return pending[digits[which] if which >= 0 else 0].content(digits)

    def _lengths(self, epoch: _Epoch) -> list[int]:
        """Those that the file may have: the durable one, all that it had since, and those at the ends of units."""
        if not epoch.lengths:
            return [len(epoch.base)]
        longest, grain = max(epoch.lengths), self._grain
        first = len(epoch.base) // grain * grain + grain
        return sorted({len(epoch.base), *epoch.lengths, *range(first, longest, grain)})


def _amend(entries: dict[str, int], change: dict[str, int | None]) -> None:
    for name, inode in change.items():
        if inode is None:
            entries.pop(name, None)
        else:
            entries[name] = inode
