"""How runs come to be: out of rows in memory, or out of older runs.

Law of this room: a run is made under a temporary name and renamed when all of it is durable, so a file named
``*.run`` is whole; what fails is removed. Rows, numbers and names are sorted, merged and packed in C, with the
interpreter's lock released, in slices of 1 MiB or of one row that is larger, ``pause`` called between them; memory does
not follow the run, but for eight bytes a page, the largest row and, where they were given in memory, the rows. One
thread a run; any thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol

from durable_log._core import ffi, lib
from durable_log.engine.files import Directory, File, discard
from durable_log.engine.format import KIND_RUN, PAGE, FileHeader, encode_file_header, nonce_of
from durable_log.engine.run import Run
from durable_log.engine.run_file import REASONS
from durable_log.engine.run_format import NEVER, Tables, Trailer, encode_tail, run_name
from durable_log.engine.segment import TEMPORARY
from durable_log.engine.storage import UNSYNCED_BYTES_MAX
from durable_log.errors import Corruption

PAIRS_MAX: Final = 2**17
"""How many numbers are sorted at once; more of them go through a temporary file."""

_INPUT_BYTES: Final = 2 * 2**20
_INPUT_BYTES_MIN: Final = 16 * 2**10
_INPUT_BYTES_MAX: Final = 256 * 2**10
_ROWS_BUFFER: Final = 2 * lib.DL_RUN_SLICE
_NUMBERS_BUFFER: Final = 64 * PAGE
_NAMES_BUFFER: Final = lib.DL_RUN_SLICE
_POSITION_MAX: Final = 2**32 * PAGE

Pause = Callable[[], None]


def write_run(
    directory: Directory, number: int, uuid: bytes, rows: Iterable[bytes] | bytes | bytearray | memoryview, pause: Pause
) -> Run:
    """A new, durable run of encoded rows, one by one or one after the other; of one name the last row counts.

    Raises ``ValueError`` if they are no rows, and ``OSError``; what it began is removed then.
    """
    blob = rows if isinstance(rows, bytes | bytearray | memoryview) else b"".join(rows)
    return _make(directory, number, uuid, _Given(blob), pause)


def merge_runs(
    directory: Directory, number: int, uuid: bytes, runs_newest_first: Iterable[Run], *, drop_tombstones: bool,
    pause: Pause,
) -> Run:  # fmt: skip
    """A new, durable run of what others say together; of one name the row of the newest run counts.

    ``drop_tombstones`` only if no older run is left out. Raises :class:`Corruption` of one of them, and ``OSError``;
    what it began is removed then.
    """
    return _make(directory, number, uuid, _Older(list(runs_newest_first), drop_tombstones), pause)


class _Content(Protocol):
    """What a run is made of."""

    def rows(self, output: _Output) -> None:
        """Pack the rows, by hash."""

    def names(self, output: _Output) -> None:
        """Pack the names of the same rows, in order."""


class _Given:
    """Rows in memory."""

    def __init__(self, blob: bytes | bytearray | memoryview) -> None:
        self._view, self._count, self._read = (
            ffi.from_buffer("uint8_t[]", blob),
            ffi.new("size_t *"),
            ffi.new("size_t *"),
        )
        if self._scan(lib.DL_RUN_ROWS, ffi.NULL, 0) != lib.DL_RUN_OK:
            reason = f"at byte {self._read[0]} of {len(self._view)} there is no row"
            raise ValueError(f"{reason}; pass what encode_row returned")
        self._pairs = ffi.new("dl_run_pair[]", self._count[0])
        self._scratch = ffi.new("dl_run_pair[]", self._count[0])

    def rows(self, output: _Output) -> None:
        self._pack(lib.DL_RUN_ROWS, output)

    def names(self, output: _Output) -> None:
        self._pack(lib.DL_RUN_NAMES, output)

    def _scan(self, kind: int, pairs: Any, pairs_max: int) -> int:
        return lib.dl_run_rows_scan(self._view, len(self._view), kind, pairs, pairs_max, self._count, self._read)

    def _pack(self, kind: int, output: _Output) -> None:
        view, following = self._view, ffi.new("size_t *")
        self._scan(kind, self._pairs, len(self._pairs))
        output.pause()
        left = lib.dl_run_rows_sort(view, self._pairs, self._scratch, self._count[0])
        while lib.dl_run_pack_rows(view, len(view), self._pairs, left, following, output.builder) == lib.DL_RUN_FULL:
            output.empty()
        assert following[0] == left


class _Older:
    """Runs, the newest first."""

    def __init__(self, runs: list[Run], drop_tombstones: bool) -> None:
        self._runs, self._drop_tombstones = runs, drop_tombstones
        self._span = _input_span(len(runs))

    def rows(self, output: _Output) -> None:
        self._pack([((at.position, at.length) for at in run.spans(self._span)) for run in self._runs], output)

    def names(self, output: _Output) -> None:
        trailers = [run.trailer for run in self._runs]
        self._pack([_cut(each.names_position, each.tables_position, self._span) for each in trailers], output)

    def _pack(self, extents: list[Iterator[tuple[int, int]]], output: _Output) -> None:
        origins = [_Origin(run.file, run.nonce, each) for run, each in zip(self._runs, extents, strict=True)]
        _merge(origins, output, self._drop_tombstones)


def _make(directory: Directory, number: int, uuid: bytes, content: _Content, pause: Pause) -> Run:
    name, nonce = run_name(number), nonce_of(uuid, number)
    file = directory.create(name + TEMPORARY)
    numbers = _Numbers(directory, name, nonce, pause)
    try:
        try:
            rows = _Rows(file, nonce, numbers, pause)
            content.rows(rows)
            trailer, tables = _finish(rows, numbers, content)
        finally:
            numbers.close()
        tail, position = encode_tail(trailer, tables, nonce), trailer.tables_position
        file.write(position, tail)
        header = FileHeader(KIND_RUN, number, uuid, nonce, position + len(tail), 0)
        file.write(0, encode_file_header(header))
        file.sync()
        directory.rename(name + TEMPORARY, name)
        directory.sync()
        file.name = name
        return Run(file, header, trailer, tables)
    except BaseException:
        file.close()
        discard(directory, name, name + TEMPORARY)
        raise


def _finish(rows: _Rows, numbers: _Numbers, content: _Content) -> tuple[Trailer, Tables]:
    """Write what is left of the rows, and the pages of numbers and of names after them."""
    rows.seal()
    numbers.take(rows.pairs, rows.builder.pairs_used, is_last=True)
    position, made = rows.position, rows.builder
    output = _Output(rows.file, lib.DL_RUN_NUMBERS, position, made.nonce, _NUMBERS_BUFFER, rows.pause)
    numbers.write(output)
    output.seal()
    names = _Output(
        rows.file, lib.DL_RUN_NAMES, output.position, made.nonce, _NAMES_BUFFER, rows.pause, has_table=False
    )
    begin = names.position
    content.names(names)
    names.seal()
    if (names.builder.count, names.builder.names_digest) != (made.count, made.names_digest):
        raise Corruption(
            rows.file.name, begin, "what was merged has other names than rows; verify the runs of the store"
        )
    uneven = position != (made.begun + 1) * PAGE
    rows.places.append(position // PAGE)
    trailer = Trailer(
        made.count, made.tombstones, made.number_min, made.number_max, made.deadline_min, made.begun,
        output.builder.begun, names.builder.begun, position,
    )  # fmt: skip
    return trailer, Tables(rows.fences, output.fences, rows.places if uneven else None)


class _Output:
    """Pages of one kind on their way into a file, from ``position`` on."""

    syncs = True

    def __init__(
        self, file: File, kind: int, position: int, nonce: int, size: int, pause: Pause, *, has_table: bool = True
    ) -> None:
        self.file, self.position, self.pause = file, position, pause
        self.fences, self.places = array("Q"), array("I")
        count = size // PAGE
        self._fences, self._places = ffi.new("uint64_t[]", count), ffi.new("uint32_t[]", count)
        self._unsynced = 0
        self.builder = ffi.new("dl_run_builder *")
        self._make_room(size)
        if has_table:
            self.builder.fences, self.builder.places, self.builder.fences_size = self._fences, self._places, count
        self.builder.deadline_min = NEVER
        self.builder.place, self.builder.nonce, self.builder.kind = position // PAGE, nonce, kind

    def empty(self) -> None:
        """Write the pages that are sealed."""
        used, begun = self.builder.pages_used, self.builder.fences_used
        assert self.position + used < _POSITION_MAX
        if used:
            self.file.write(self.position, memoryview(self._pages)[:used])
        self.position += used
        self.fences.frombytes(bytes(ffi.buffer(self._fences, begun * 8)))
        self.places.frombytes(bytes(ffi.buffer(self._places, begun * 4)))
        lib.dl_run_emptied(self.builder)
        if self.builder.pages_wanted > self.builder.pages_size:
            self._make_room(self.builder.pages_wanted)  # for a single row; no page is in the making
        self._sync(used)
        self.pause()

    def _make_room(self, size: int) -> None:
        self._pages = bytearray(size)
        self._view = ffi.from_buffer("uint8_t[]", self._pages)
        self.builder.pages, self.builder.pages_size = self._view, size

    def seal(self) -> None:
        """Write all of them, the one in the making too."""
        lib.dl_run_seal(self.builder)
        self.empty()

    def _sync(self, written: int) -> None:
        """Now and then, so that the last sync, and whoever else syncs, has little to wait for."""
        self._unsynced += written
        if self.syncs and self._unsynced >= UNSYNCED_BYTES_MAX:
            self.file.sync()
            self._unsynced = 0


class _Rows(_Output):
    """Pages of rows, whose numbers go where they are sorted."""

    def __init__(self, file: File, nonce: int, numbers: _Numbers, pause: Pause) -> None:
        super().__init__(file, lib.DL_RUN_ROWS, PAGE, nonce, _ROWS_BUFFER, pause)
        self._numbers = numbers
        self.pairs = ffi.new("dl_run_pair[]", PAIRS_MAX)
        self.builder.pairs, self.builder.pairs_size = self.pairs, PAIRS_MAX

    def empty(self) -> None:
        """Write the pages that are sealed, and have the numbers sorted when they are many."""
        super().empty()
        if self.builder.pairs_used == PAIRS_MAX:
            self._numbers.take(self.pairs, PAIRS_MAX)
            self.builder.pairs_used = 0


class _Spill(_Output):
    """Pages that are read once and thrown away."""

    syncs = False


class _Numbers:
    """(number, page) of every row, sorted: one piece in memory, or many in a temporary file that are merged."""

    def __init__(self, directory: Directory, name: str, nonce: int, pause: Pause) -> None:
        self._directory, self._name, self._nonce, self._pause = directory, f"{name}.numbers{TEMPORARY}", nonce, pause
        self._spill: _Spill | None = None
        self._pieces: list[tuple[int, int]] = []
        self._held: tuple[Any, int] = (ffi.NULL, 0)
        self._scratch = ffi.new("dl_run_pair[]", PAIRS_MAX)

    def take(self, pairs: Any, count: int, is_last: bool = False) -> None:
        """Sort a piece, and keep it: the only one where it is, others in the file."""
        lib.dl_run_pairs_sort(pairs, self._scratch, count)
        if is_last and self._spill is None:
            self._held = (pairs, count)
            return
        if self._spill is None:
            file = self._directory.create(self._name)
            self._spill = _Spill(file, lib.DL_RUN_NUMBERS, 0, self._nonce, _NUMBERS_BUFFER, self._pause)
        begin = self._spill.position
        _pack(pairs, count, self._spill)
        self._spill.seal()
        self._pieces.append((begin, self._spill.position))

    def write(self, output: _Output) -> None:
        """All of them, in order."""
        if self._spill is None:
            _pack(*self._held, output)
            return
        span = _input_span(len(self._pieces))
        file = self._spill.file
        _merge([_Origin(file, self._nonce, _cut(begin, end, span)) for begin, end in self._pieces], output)

    def close(self) -> None:
        """Remove the temporary file."""
        if self._spill is not None:
            self._spill.file.close()
            discard(self._directory, self._name)


def _pack(pairs: Any, count: int, output: _Output) -> None:
    following = ffi.new("size_t *")
    while lib.dl_run_pack_pairs(pairs, count, following, output.builder) == lib.DL_RUN_FULL:
        output.empty()


def _cut(begin: int, end: int, length: int) -> Iterator[tuple[int, int]]:
    return ((at, min(length, end - at)) for at in range(begin, end, length))


def _input_span(sources: int) -> int:
    """How much of each source is read at once, in bytes."""
    share = _INPUT_BYTES // max(1, sources)
    return max(_INPUT_BYTES_MIN, min(share, _INPUT_BYTES_MAX)) // PAGE * PAGE


class _Origin(NamedTuple):
    """Where the pages of a source lie: positions and lengths of whole pages in a file, in order."""

    file: File
    nonce: int
    extents: Iterator[tuple[int, int]]


def _merge(origins: list[_Origin], output: _Output, drop_tombstones: bool = False) -> None:
    sources = ffi.new("dl_run_source[]", len(origins))
    heap, which = ffi.new("uint32_t[]", len(origins)), ffi.new("uint32_t *")
    held: list[Any] = [None] * len(origins)
    for source, origin in zip(sources, origins, strict=True):
        source.nonce = origin.nonce
    while True:
        verdict = lib.dl_run_merge(sources, len(origins), heap, drop_tombstones, output.builder, which)
        if verdict == lib.DL_RUN_OK:
            return
        index = which[0]
        if verdict == lib.DL_RUN_FULL:
            output.empty()
        elif verdict == lib.DL_RUN_INPUT:
            held[index] = _bring(origins[index], sources[index])
            output.pause()
        else:
            at = sources[index].next if sources[index].left == 0 else sources[index].at
            raise Corruption(origins[index].file.name, sources[index].place * PAGE + at, REASONS[verdict])


def _bring(origin: _Origin, source: Any) -> Any:
    """The next bytes of a source, or word that it has ended. What is returned has to live as long as they are used."""
    position, length = next(origin.extents, (0, 0))
    data = origin.file.read(position, length)
    if len(data) != length:
        raise Corruption(origin.file.name, position, REASONS[lib.DL_RUN_BAD_LENGTH])
    view = ffi.from_buffer("uint8_t[]", data)
    source.bytes, source.length, source.next = view, length, 0
    source.place, source.last = position // PAGE, length == 0
    return view
