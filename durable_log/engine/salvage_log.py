"""What can still be read of a damaged log.

Law of this room: it reads and changes nothing, but for headers that it is asked to write anew. Which blocks count is
decided by ``chain``, as when the store is opened; a segment whose header is lost is read by the nonce that follows from
the store and the file's name. The thread that repairs.
"""

from __future__ import annotations

from typing import NamedTuple

from durable_log.engine.backlog import Backlog
from durable_log.engine.chain import Base, Chain, Found, follow
from durable_log.engine.files import Directory
from durable_log.engine.format import (
    CREATE,
    KIND_LOG,
    PAGE,
    FileHeader,
    decode_create,
    encode_file_header,
    lsn_of,
    nonce_of,
    segment_of,
)
from durable_log.engine.manifest import Manifest
from durable_log.engine.segment import Block, LogSegment, segment_name, segment_number, survey


class SalvagedLog(NamedTuple):
    """The segments from the manifest's first one on; those of them whose headers are lost, and whether anything of them
    counts; the blocks that count. ``created``: streams that it creates, by number; ``deleted``: those
    that it deletes; ``logged``: all that it names.
    """

    segments: dict[int, LogSegment]
    headless: dict[str, bool]
    chain: Chain
    created: dict[int, str]
    deleted: set[int]
    logged: set[int]

    @property
    def damaged(self) -> list[str]:
        """The names of the files that hold something damaged, and are there."""
        names = {segment_name(segment_of(damage.start)) for damage in self.chain.damage}
        names |= {segment_name(segment_of(damage.end - 1)) for damage in self.chain.damage}
        there = {segment_name(number) for number in self.segments}
        return sorted((names & there) | self.headless.keys())

    def close(self) -> None:
        """Close the files."""
        for segment in self.segments.values():
            segment.close()


def salvage_log(directory: Directory, manifest: Manifest) -> SalvagedLog:
    """Read the log as it is. Raises ``OSError``."""
    segments: dict[int, LogSegment] = {}
    try:
        return _salvaged(directory, manifest, segments)
    except BaseException:
        for segment in segments.values():
            segment.close()
        raise


def _salvaged(directory: Directory, manifest: Manifest, segments: dict[int, LogSegment]) -> SalvagedLog:
    headless: dict[str, bool] = {}
    found: dict[int, list[Block]] = {}
    for name in directory.names():
        number = segment_number(name)
        if number is None or number < manifest.log_first:
            continue
        segment = LogSegment.open(directory, name, manifest.uuid)
        if segment is None:
            segment = LogSegment.open_by_name(directory, name, manifest.uuid)
            headless[name] = False
        segments[number] = segment
        found[number] = survey(segment)
        if name in headless:
            headless[name] = bool(found[number])
    base = Base(manifest.previous_lsn, manifest.previous_crc, manifest.lsn)
    chain = follow(
        (Found(segments[number].after_lsn, found[number]) for number in sorted(found)),
        lsn_of(manifest.log_first, PAGE),
        base,
    )
    return SalvagedLog(segments, headless, chain, *_streams_of(segments, chain))


def _streams_of(segments: dict[int, LogSegment], chain: Chain) -> tuple[dict[int, str], set[int], set[int]]:
    backlog = Backlog(segments)
    for number in sorted(segments):
        backlog.take(segments[number], [block for block in chain.blocks if segment_of(block.lsn) == number])
    created, deleted = dict[int, str](), set[int]()
    for record in backlog.lives():
        if record.kind == CREATE:
            created[record.stream] = backlog.decoded(record, decode_create).name
        else:
            deleted.add(record.stream)
    backlog.sort()
    return created, deleted, set(backlog.streams())


def write_header(directory: Directory, name: str, uuid: bytes) -> None:
    """Give a log segment a header again. Raises ``OSError``."""
    number = segment_number(name) or 0
    file = directory.open(name)
    try:
        size = max(file.size() // PAGE * PAGE, 2 * PAGE)
        file.write(0, encode_file_header(FileHeader(KIND_LOG, number, uuid, nonce_of(uuid, number), size, 0)))
        file.sync()
    finally:
        file.close()


def first_block(directory: Directory, uuid: bytes, number: int) -> tuple[int, int]:
    """LSN and checksum of the block before a segment's first one, as that one has them; 0 and 0 if it is lost."""
    segment = LogSegment.open_by_name(directory, segment_name(number), uuid)
    try:
        blocks = survey(segment)
        if blocks and blocks[0].lsn == lsn_of(number, PAGE):
            return blocks[0].previous_lsn, blocks[0].previous_crc
        return 0, 0
    finally:
        segment.close()
