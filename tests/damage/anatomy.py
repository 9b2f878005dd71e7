"""What stands at every byte of a store's files, and what its damage may cost.

Taken from the page on the format, with the oracle's codec and not with the engine's. ``docs/durability.md`` has the
same as a table.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import oracle
from stores import Files, Shape

PAGE = 4096
LARGEST_HEADER = 84


class Region(NamedTuple):
    """Bytes of one kind. ``fields``: where each field of it begins, so that a sample can hit all of them."""

    file: str
    start: int
    end: int
    kind: str
    what: object = None


@dataclass
class Cost:
    """What some damage may cost, by the numbers of streams. ``refuses``: the store does not open. ``silent``: nothing
    need be said of it, as it looks like a crash before anybody was told. ``said``: something has to be said.
    """

    lost: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """Ranges of bytes."""
    shaken: set[int] = field(default_factory=set)
    """The state may be an older one, or not to be had."""
    may_miss: set[int] = field(default_factory=set)
    may_return: set[int] = field(default_factory=set)
    """Deleted streams that may be there again."""
    refuses: bool = False
    may_refuse: bool = False
    listing: bool = False
    """A listing may fail."""
    said: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.lost or self.shaken or self.refuses or self.may_refuse or self.listing)


@dataclass
class Anatomy:
    shape: Shape
    regions: dict[str, list[Region]]
    blocks: list[LogBlock]
    durable_lsn: int
    starts: dict[str, list[int]] = field(default_factory=dict)

    def at(self, file: str, position: int) -> Region:
        starts = self.starts.setdefault(file, [region.start for region in self.regions[file]])
        return self.regions[file][bisect_right(starts, position) - 1]

    def hit(self, files: Files) -> list[Region]:
        """The regions that are not what they were."""
        return [
            region
            for name, regions in self.regions.items()
            if files.get(name) != self.shape.files[name]
            for region in regions
            if files.get(name, b"")[region.start : region.end] != self.shape.files[name][region.start : region.end]
        ]

    def everything(self) -> Cost:
        """All may be lost, or older."""
        numbers = {life.number for life in self.shape.lives}
        lost = {number: [(0, 2**62)] for number in numbers}
        return Cost(lost, numbers, numbers, numbers, may_refuse=True, said=True)

    def cost(self, hit: list[Region]) -> Cost:
        """What damage in these regions may cost."""
        cost = Cost()
        blocks: dict[int, set[int]] = {}
        for region in hit:
            cost.said |= region.kind not in {*UNUSED, *IN_THE_LOG}
            if region.kind in VITAL:
                cost.refuses = True
            elif region.kind in ("stream bytes", "row", "entry"):
                stream, start, end = region.what
                cost.lost.setdefault(stream, []).append((start, end))
            elif region.kind == "page of rows":
                cost.shaken |= region.what | self._heirs(region.what)
                cost.may_refuse = True
            elif region.kind == "page of numbers":
                cost.shaken |= {life.number for life in self.shape.lives if life.inherited}
                cost.shaken |= {number for number in self._deleted_in_the_log() if number in region.what}
                cost.may_refuse = True
            elif region.kind == "page of names":
                cost.listing = True
            elif region.kind == "frame":
                index, order = region.what
                blocks.setdefault(index, set()).add(order)
            elif region.kind == "block header":
                blocks[region.what] = set(range(len(self.blocks[region.what].frames)))
        rows, names = ({one.file for one in hit if one.kind == f"page of {what}"} for what in ("rows", "names"))
        if rows & names:  # nobody can say what the page does not have
            cost.shaken |= {life.number for life in self.shape.lives}
        if blocks:
            self._cost_in_the_log(cost, blocks)
        return cost

    def _cost_in_the_log(self, cost: Cost, hit: dict[int, set[int]]) -> None:
        """The recovery rule: a bad place before all that is known to be durable is damage, one after it is the end."""
        known = [block.durable_lsn for index, block in enumerate(self.blocks) if index not in hit]
        durable = max([self.durable_lsn, *known])
        for index in sorted(hit):
            if self.blocks[index].lsn >= durable:
                for later in range(index, len(self.blocks)):
                    self._spend(cost, self.blocks[later].frames)
                break
            self._spend(cost, [self.blocks[index].frames[order] for order in hit[index]])
            cost.said = True

    def _spend(self, cost: Cost, frames: Iterable[oracle.Frame]) -> None:
        for frame in frames:
            cost.shaken.add(frame.stream)
            if frame.kind == oracle.DATA:
                cost.lost.setdefault(frame.stream, []).append((frame.offset, frame.offset + len(frame.payload)))
            elif frame.kind == oracle.CREATE:
                cost.lost.setdefault(frame.stream, []).append((0, 2**62))
                cost.may_miss.add(frame.stream)
                for heir in self._heirs({frame.stream}):
                    cost.lost.setdefault(heir, []).append((0, self._base(heir)))
                    cost.shaken.add(heir)
            elif frame.kind == oracle.DELETE:
                cost.may_return.add(frame.stream)

    def _deleted_in_the_log(self) -> Iterator[int]:
        return (frame.stream for block in self.blocks for frame in block.frames if frame.kind == oracle.DELETE)

    def _base(self, number: int) -> int:
        return next(life.base for life in self.shape.lives if life.number == number)

    def _heirs(self, numbers: Iterable[int]) -> set[int]:
        return {life.number for life in self.shape.lives for one in life.inherited if one.owner in set(numbers)}


class LogBlock(NamedTuple):
    lsn: int
    durable_lsn: int
    frames: list[oracle.Frame]


UNUSED = {"unused", "spare"}
"""Nothing is there and nothing is missed."""
VITAL = {"manifest", "file header", "trailer", "tables"}
"""Without it the store does not open."""
IN_THE_LOG = {"block header", "frame"}


def anatomy(shape: Shape) -> Anatomy:
    files = shape.files
    manifest = read_manifest(files["MANIFEST"])
    regions: dict[str, list[Region]] = {}
    blocks: list[LogBlock] = []
    for name in sorted(files):
        if name == "MANIFEST":
            regions[name] = list(_manifest(files[name]))
        elif name.endswith(".log"):
            regions[name] = list(_log(name, files[name], blocks))
        elif name.endswith(".seg"):
            regions[name] = list(_clustered(name, files[name]))
        else:
            regions[name] = list(_run(name, files[name]))
    for name, found in regions.items():
        assert found[0].start == 0
        assert found[-1].end == len(files[name]), (name, found[-1])
        assert all(one.end == following.start for one, following in pairwise(found)), name
    return Anatomy(shape, regions, blocks, manifest.durable_lsn)


class OracleManifest(NamedTuple):
    log_first: int
    durable_lsn: int
    size: int


def read_manifest(raw: bytes) -> OracleManifest:
    length = struct.unpack_from("<I", raw, PAGE + 40)[0]
    log_first = struct.unpack_from("<I", raw, PAGE + 64 + 12)[0]
    durable = struct.unpack_from("<Q", raw, PAGE + 64 + 24 + 16)[0]
    return OracleManifest(log_first, durable, PAGE + 64 + length)


def _manifest(raw: bytes) -> Iterator[Region]:
    end = read_manifest(raw).size
    yield Region("MANIFEST", 0, LARGEST_HEADER, "manifest")
    yield Region("MANIFEST", LARGEST_HEADER, PAGE, "unused")
    yield Region("MANIFEST", PAGE, end, "manifest")
    if end < len(raw):
        yield Region("MANIFEST", end, len(raw), "unused")


def _log(name: str, raw: bytes, blocks: list[LogBlock]) -> Iterator[Region]:
    number = int(name[:8], 16)
    nonce = oracle.nonce_in(raw)
    found = oracle.decode_segment(raw, number, nonce)
    first = len(blocks)
    blocks += [LogBlock(block.lsn, block.durable_lsn, block.frames) for block in found]
    yield Region(name, 0, LARGEST_HEADER, "log header" if found else "spare header")
    yield Region(name, LARGEST_HEADER, PAGE, "unused")
    at = PAGE
    for index, block in enumerate(found, first):
        yield Region(name, at, at + 64, "block header", index)
        end, at = at + oracle.size_of(block), at + 64
        for order, frame in enumerate(block.frames):
            size = len(frame.encode(nonce, at))
            yield Region(name, at, at + size, "frame", (index, order))
            at += size
        if at < end:
            yield Region(name, at, end, "unused")
        at = end
    if at < len(raw):
        yield Region(name, at, len(raw), "spare")


def _clustered(name: str, raw: bytes) -> Iterator[Region]:
    rows, _, _, rows_position = struct.unpack_from("<QQQQ", raw, len(raw) - 56)
    yield Region(name, 0, LARGEST_HEADER, "file header")
    yield Region(name, LARGEST_HEADER, PAGE, "header padding")
    table = [struct.unpack_from("<IQQQQII", raw, rows_position + 48 * row + 4) for row in range(rows)]
    for length, stream, start, at, *_ in table:
        for page in range(0, length, PAGE):
            size = min(PAGE, length - page)
            yield Region(name, at + page, at + page + size, "stream bytes", (stream, start + page, start + page + size))
    for row, (length, stream, start, *_) in enumerate(table):
        at = rows_position + 48 * row
        yield Region(name, at, at + 48, "row", (stream, start, start + length))
    for length, stream, start, _, entries, entries_length, _ in table:
        at = entries
        for chunk in range(0, length, 65536):
            size = min(65536, length - chunk)
            ends = struct.unpack_from("<I", raw, at + 28)[0]
            whole = 32 + 4 * -(-size // PAGE) + ends
            yield Region(name, at, at + whole, "entry", (stream, start + chunk, start + chunk + size))
            at += whole
        assert at == entries + entries_length
        if length > 65536:
            yield Region(name, at, at + 4 * ((length - 1) // 65536), "index")
    yield Region(name, len(raw) - 64, len(raw), "trailer")


def _run(name: str, raw: bytes) -> Iterator[Region]:
    pages, number_pages, name_pages, numbers_position = struct.unpack_from("<4Q", raw, len(raw) - PAGE + 48)
    yield Region(name, 0, LARGEST_HEADER, "file header")
    yield Region(name, LARGEST_HEADER, PAGE, "header padding")
    assert numbers_position == PAGE * (1 + pages), "this reads runs whose pages of rows are all of one length"
    for page in range(1, 1 + pages):
        yield Region(name, PAGE * page, PAGE * (page + 1), "page of rows", frozenset(_numbers(raw, PAGE * page)))
    at = numbers_position
    firsts = [struct.unpack_from("<Q", raw, at + PAGE * page + 16)[0] for page in range(number_pages)]
    for first, following in pairwise([*firsts, 2**64]):
        yield Region(name, at, at + PAGE, "page of numbers", range(first, following))  # what belongs on it
        at += PAGE
    for _ in range(name_pages):
        yield Region(name, at, at + PAGE, "page of names")
        at += PAGE
    yield Region(name, at, len(raw) - PAGE, "tables")
    yield Region(name, len(raw) - PAGE, len(raw), "trailer")


def _numbers(raw: bytes, page: int) -> Iterator[int]:
    items = struct.unpack_from("<H", raw, page + 12)[0]
    at = page + 16
    for _ in range(items):
        payload, number, length = struct.unpack_from("<8xIQ8xH", raw, at)
        yield number & 2**48 - 1
        at += 30 + length + payload
