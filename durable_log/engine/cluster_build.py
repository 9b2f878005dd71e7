"""Building clustered segments: from log segments, from clustered ones, or from both.

Law of this room: what is built is written under a temporary name, synced, renamed and the directory synced, so a file
named ``*.seg`` is always whole; whatever goes wrong, what was begun is removed. Every frame and every page is verified
when it is copied, and a file that can't be built from verified bytes alone is not built. One thread a build, in slices
of about 1 MiB between which it lets its caller pause; the sources stay open, and are not written, until it returns.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from durable_log._core import ffi, lib
from durable_log.engine.cluster import (
    CHUNK,
    REASONS,
    ROW_SIZE,
    ClusteredSegment,
    Row,
    Trailer,
    cluster_name,
    new_reader,
    source_of,
)
from durable_log.engine.cluster_records import RECORDS_AT_ONCE, SLICE, Records, Stage, new_uncleared
from durable_log.engine.files import Directory, File, discard
from durable_log.engine.format import (
    KIND_CLUSTERED,
    PAGE,
    FileHeader,
    encode_file_header,
    nonce_of,
)
from durable_log.engine.segment import TEMPORARY, LogSegment
from durable_log.engine.storage import UNSYNCED_BYTES_MAX
from durable_log.errors import Corruption

ROW_MAX: Final = 2**31
"""A row ends before it grows longer than this, in bytes; its entries and index are then below 4 GiB, too."""

_ROWS_AT_ONCE: Final = 16384
_OUTPUTS: Final = {
    "payload": SLICE + CHUNK,
    "entries": SLICE,
    "rows": SLICE // 4,
}


class LogSource(NamedTuple):
    """Frames of a log segment: pairs of position and length of the blocks' bodies that count, ascending, in bytes."""

    segment: LogSegment
    blocks: Sequence[tuple[int, int]]


class RowSource(NamedTuple):
    """Rows of a clustered segment: their numbers, ascending."""

    segment: ClusteredSegment
    rows: array[int]


Source = LogSource | RowSource
Trims = Sequence[tuple[int, int]]


def write_clustered(
    directory: Directory,
    number: int,
    uuid: bytes,
    sources: Sequence[Source],
    *,
    pause: Callable[[], None],
    only: array[int] | None = None,
    trims: Trims = (),
    now_ms: int = 0,
    row_max: int = ROW_MAX,
) -> ClusteredSegment | None:
    """A new, durable clustered segment of all that ``sources`` hold, or None (and no file) if that is nothing.

    ``only``: the numbers of the streams to take, ascending; all, if it is None. ``trims``: pairs of a stream's number
    and the first offset of it that has to stay, ascending; whole records below it are left out. Log segments come in
    the order of their LSNs. ``number`` is new. Raises :class:`Corruption` at the first thing that does not verify, and
    ``OSError``.
    """
    name = cluster_name(number)
    if name in directory.names():
        raise ValueError(f"{name} exists; the number of a new segment was never used before")
    records, largest = _collect(sources, pause)
    in_order = all(isinstance(source, LogSource) for source in sources)
    keys = (lib.DL_BY_STREAM,) if in_order else (lib.DL_BY_STREAM, lib.DL_BY_OFFSET)
    memory, count = records.sort(keys, pause)
    count = _select(memory, count, sources, only, trims, pause)
    if count == 0:
        return None
    plan = _plan(memory, count, sources, row_max, pause)
    build = _Build(sources, memory, count, plan, nonce_of(uuid, number), largest)
    file = directory.create(name + TEMPORARY)
    try:
        trailer = build.write(file, pause)
        build.close()
        header = FileHeader(KIND_CLUSTERED, number, uuid, nonce_of(uuid, number), trailer.size, now_ms)
        file.write(trailer.size - len(trailer.encode(header.nonce)), trailer.encode(header.nonce))
        file.write(0, encode_file_header(header))
        file.sync()
        directory.rename(name + TEMPORARY, name)
        directory.sync()
        file.name = name
        return ClusteredSegment(file, header, trailer)
    except BaseException:
        file.close()
        discard(directory, name, name + TEMPORARY)
        raise


def rewrite_clustered(
    directory: Directory,
    number: int,
    uuid: bytes,
    selected: Sequence[tuple[ClusteredSegment, array[int]]],
    *,
    pause: Callable[[], None],
    trims: Trims = (),
    now_ms: int = 0,
) -> ClusteredSegment | None:
    """:func:`write_clustered` of the rows with those numbers (ascending): compaction, and the merging of files."""
    sources = [RowSource(segment, rows) for segment, rows in selected]
    return write_clustered(directory, number, uuid, sources, pause=pause, trims=trims, now_ms=now_ms)


def _corruption(source: Source, position: int, verdict: int) -> Corruption:
    return Corruption(source.segment.file.name, position, REASONS[verdict])


# ---- records: what there is


def _collect(sources: Sequence[Source], pause: Callable[[], None]) -> tuple[Records, int]:
    """A record for each frame with payload and for each row, and the size of the largest frame."""
    records, largest = Records(), ffi.new("uint64_t *")
    for number, source in enumerate(sources):
        if isinstance(source, LogSource):
            _collect_frames(number, source, records, largest, pause)
        else:
            _collect_rows(number, source, records, pause)
    return records, int(largest[0])


def _collect_frames(number: int, source: LogSource, records: Records, largest: Any, pause: Callable[[], None]) -> None:
    segment, blocks = source
    pairs = ffi.from_buffer("uint64_t[]", array("Q", chain.from_iterable(blocks)))
    count, bad = ffi.new("size_t *"), ffi.new("uint64_t *")
    first = 0
    while first < len(blocks):
        last, start = first + 1, blocks[first][0]
        while last < len(blocks) and sum(blocks[last]) - start <= SLICE:
            last += 1
        content = segment.file.read(start, sum(blocks[last - 1]) - start)
        part, count[0], room = records.room(len(content) // lib.DL_FRAME_HEADER + 1)
        verdict = lib.dl_records_scan(
            content, len(content), start, segment.nonce, number,
            pairs + 2 * first, last - first, part, room, count, largest, bad,
        )  # fmt: skip
        if verdict != lib.DL_CLUSTER_OK:
            raise _corruption(source, bad[0], verdict)
        records.use(count[0])
        first = last
        pause()


def _collect_rows(number: int, source: RowSource, records: Records, pause: Callable[[], None]) -> None:
    segment, rows = source
    if rows and rows[-1] >= segment.rows_count:
        raise IndexError(f"row {rows[-1]} of {segment.rows_count}")
    indexes, bad = ffi.from_buffer("uint64_t[]", rows), ffi.new("uint64_t *")
    begin = 0
    while begin < len(rows):
        first = rows[begin]
        end = bisect_left(rows, first + _ROWS_AT_ONCE, begin)
        expected = max(1, rows[end - 1] + 1 - first)
        table = segment.rows_bytes(first, expected)
        part, used, _ = records.room(end - begin)
        verdict = lib.dl_records_of_rows(
            table, len(table) // ROW_SIZE, first, segment.nonce, number,
            indexes + begin, end - begin, part + used, bad,
        )  # fmt: skip
        if verdict == lib.DL_CLUSTER_ORDER or (verdict == lib.DL_CLUSTER_SHORT and len(table) == expected * ROW_SIZE):
            raise ValueError(f"row number {bad[0]} does not follow the one before it: they have to ascend")
        if verdict != lib.DL_CLUSTER_OK:
            raise _corruption(source, segment.trailer.rows_position + bad[0] * ROW_SIZE, verdict)
        records.use(used + end - begin)
        begin = end
        pause()


# ---- choosing and counting: what goes into the file


def _select(
    memory: Any, count: int, sources: Sequence[Source], only: array[int] | None, trims: Trims, pause: Callable[[], None]
) -> int:
    """Moves what stays to the front, cuts rows that begin below a trim, and says how many stay."""
    numbers = ffi.NULL if only is None else ffi.from_buffer("uint64_t[]", only)
    pairs = ffi.from_buffer("uint64_t[]", array("Q", chain.from_iterable(trims)))
    cuts = new_uncleared("uint64_t[]", RECORDS_AT_ONCE)
    selection = ffi.new("dl_selection *", (numbers, 0 if only is None else len(only), 0, pairs, len(trims), 0, 0))
    for first in range(0, count, RECORDS_AT_ONCE):
        found = lib.dl_records_select(selection, memory, first, min(RECORDS_AT_ONCE, count - first), cuts)
        for index in ffi.unpack(cuts, found):
            _cut(memory[index], sources, trims)
        pause()
    return int(selection.kept)


def _cut(record: Any, sources: Sequence[Source], trims: Trims) -> None:
    """Let a row begin with the record that holds the first byte that has to stay; records themselves stay whole."""
    source = sources[record.place >> 32]
    if isinstance(source, RowSource):
        row: Row = source.segment.row(record.place & 0xFFFFFFFF)
        kept = trims[bisect_left(trims, (record.stream, 0))][1]
        begin = source.segment.record_bounds(row, kept)[0]
        record.skip = begin - row.start
        record.offset, record.length = begin, row.end - begin


def _plan(memory: Any, count: int, sources: Sequence[Source], row_max: int, pause: Callable[[], None]) -> Any:
    plan, bad = ffi.new("dl_plan *"), ffi.new("size_t *")
    plan.row_max = row_max
    for first in range(0, count, RECORDS_AT_ONCE):
        if lib.dl_records_plan(plan, memory + first, min(RECORDS_AT_ONCE, count - first), bad) != lib.DL_CLUSTER_OK:
            record = memory[first + bad[0]]
            source, position = sources[record.place >> 32], record.place & 0xFFFFFFFF
            if isinstance(source, RowSource):
                position = source.segment.trailer.rows_position + position * ROW_SIZE
            reason = f"bytes of stream {record.stream} from offset {record.offset} on are there twice"
            raise Corruption(source.segment.file.name, position, reason)
        pause()
    return plan


# ---- writing


class _Build:
    """One ``dl_cluster``: sorted records in, a file out. It holds all memory that C works on."""

    def __init__(self, sources: Sequence[Source], memory: Any, count: int, plan: Any, nonce: int, largest: int) -> None:
        self._sources, self._plan = sources, plan
        self._keep: list[Any] = [memory]
        job = self._job = ffi.new("dl_cluster *")
        fields = [source_of(source.segment, self._keep) for source in sources]
        job.sources = table = ffi.new("dl_source[]", fields)
        job.index = index = new_uncleared("uint32_t[]", lib.DL_ROW_CHUNKS)
        self._keep += [table, index]
        job.sources_count = len(sources)
        job.records, job.records_count = memory, count
        job.reader = new_reader(self._keep)
        job.nonce, job.plan.row_max = nonce, plan.row_max
        self._stage = Stage(job, largest)
        self._outputs = [self._output(name, size) for name, size in _OUTPUTS.items()]
        job.payload.position = PAGE
        job.rows.position = PAGE + plan.payload_bytes
        job.entries.position = job.rows.position + ROW_SIZE * plan.rows

    def _output(self, name: str, size: int) -> tuple[Any, memoryview]:
        memory = bytearray(size)
        view = ffi.from_buffer("uint8_t[]", memory)
        self._keep.append(view)
        output = getattr(self._job, name)
        output.bytes, output.size = view, size
        return output, memoryview(memory)

    def write(self, file: File, pause: Callable[[], None]) -> Trailer:
        """Everything between header and trailer. Raises :class:`Corruption` and ``OSError``."""
        job, plan = self._job, self._plan
        verdict, unsynced = lib.DL_CLUSTER_MORE, 0
        while verdict == lib.DL_CLUSTER_MORE:
            if self._stage.is_empty:
                verdict = self._stage.fill(pause)
            if verdict in (lib.DL_CLUSTER_OK, lib.DL_CLUSTER_MORE):
                verdict = lib.dl_cluster_copy(job)
            if verdict not in (lib.DL_CLUSTER_OK, lib.DL_CLUSTER_MORE):
                raise self._error(verdict)
            for output, memory in self._outputs:
                if output.used:
                    file.write(output.position, memory[: output.used])
                    unsynced += output.used
            if unsynced >= UNSYNCED_BYTES_MAX:
                file.sync()
                unsynced = 0
            pause()
        assert (job.plan.rows, job.plan.payload_bytes) == (plan.rows, plan.payload_bytes)
        entries_length = job.entries.position + job.entries.used - (PAGE + plan.payload_bytes + ROW_SIZE * plan.rows)
        return Trailer.of(plan.rows, job.records_taken, plan.payload_bytes, entries_length)

    def close(self) -> None:
        """Give back its memory."""
        self._stage.close()

    def _error(self, verdict: int) -> Exception:
        fault = self._job.fault
        source = self._sources[fault.source]
        if verdict == lib.DL_CLUSTER_READ:
            return OSError(fault.error, "read failed", source.segment.file.name)
        return _corruption(source, fault.position, verdict)
