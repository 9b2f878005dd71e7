"""The types of the compiled core, by hand; ``csrc/durable_log.h`` says what each function does.

Law of this room: the names and the parameters of the compiled module, no more; a test holds the two to each other.
``CData`` and ``Buffer`` are names for annotations only: the module has no such attributes.
"""

from collections.abc import Callable
from typing import Any, Final, overload

from typing_extensions import Buffer as _Readable
from typing_extensions import Self

class CData:
    """Memory that belongs to C's type system: an array, a pointer or a structure."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> CData: ...
    def __setitem__(self, index: int | slice, value: Any) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...
    def __add__(self, items: int) -> CData: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...

class Buffer:
    """A view of such memory as Python's bytes."""

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __setitem__(self, index: int | slice, value: _Readable) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class _FFI:
    NULL: Final[CData]
    error: type[Exception]
    def new(self, cdecl: str, init: Any = None) -> CData: ...
    def new_allocator(
        self, alloc: Any = None, free: Any = None, should_clear_after_alloc: bool = True
    ) -> Callable[..., CData]: ...
    @overload
    def from_buffer(self, python_buffer: _Readable) -> CData: ...
    @overload
    def from_buffer(self, cdecl: str, python_buffer: _Readable, require_writable: bool = False) -> CData: ...
    def buffer(self, cdata: CData, size: int = -1) -> Buffer: ...
    def memmove(self, dest: CData | _Readable, src: CData | _Readable, n: int) -> None: ...
    def unpack(self, cdata: CData, length: int) -> Any: ...
    def cast(self, cdecl: str, value: CData | int) -> CData: ...
    def addressof(self, cdata: CData, *fields_or_indexes: str | int) -> CData: ...
    def sizeof(self, cdecl: str | CData) -> int: ...
    def typeof(self, cdecl: Any) -> Any: ...

class _Lib:
    DL_PAGE: Final[int]
    DL_BLOCK_HEADER: Final[int]
    DL_FRAME_HEADER: Final[int]
    DL_PRODUCER_CLAIM: Final[int]
    DL_SEQ_MAX: Final[int]
    DL_TYPE_MAX: Final[int]
    DL_FLAG_CLOSE: Final[int]
    DL_FLAG_PRODUCER: Final[int]
    DL_FLAG_SEQ: Final[int]

    DL_OK: Final[int]
    DL_ABSENT: Final[int]
    DL_BAD_HEADER: Final[int]
    DL_BAD_LSN: Final[int]
    DL_BAD_LENGTH: Final[int]
    DL_BAD_BODY: Final[int]
    DL_BAD_FRAME: Final[int]
    DL_NO_ROOM: Final[int]

    DL_RUN_PAGE_HEADER: Final[int]
    DL_RUN_ROW_HEADER: Final[int]
    DL_RUN_NUMBER: Final[int]
    DL_RUN_NAME_HEADER: Final[int]
    DL_RUN_NAME_MAX: Final[int]
    DL_RUN_PAYLOAD_MAX: Final[int]
    DL_RUN_PAGE_MAX: Final[int]
    DL_RUN_SHARED_MAX: Final[int]
    DL_RUN_SLICE: Final[int]
    DL_RUN_ROWS: Final[int]
    DL_RUN_NUMBERS: Final[int]
    DL_RUN_NAMES: Final[int]
    DL_RUN_TOMBSTONE: Final[int]
    DL_RUN_HIDDEN: Final[int]
    DL_RUN_NEVER: Final[int]
    DL_RUN_MISSING: Final[int]

    DL_RUN_OK: Final[int]
    DL_RUN_ABSENT: Final[int]
    DL_RUN_BEFORE: Final[int]
    DL_RUN_AFTER: Final[int]
    DL_RUN_FULL: Final[int]
    DL_RUN_INPUT: Final[int]
    DL_RUN_BAD_LENGTH: Final[int]
    DL_RUN_BAD_CRC: Final[int]
    DL_RUN_BAD_PLACE: Final[int]
    DL_RUN_BAD_ITEM: Final[int]
    DL_RUN_BAD_ORDER: Final[int]
    DL_RUN_READ: Final[int]

    DL_JSON_OK: Final[int]
    DL_JSON_EMPTY: Final[int]
    DL_JSON_SYNTAX: Final[int]
    DL_JSON_UTF8: Final[int]
    DL_JSON_DEPTH: Final[int]
    DL_JSON_TRAILING: Final[int]
    DL_JSON_NO_ROOM: Final[int]
    DL_JSON_SEPARATOR: Final[int]
    DL_JSON_FORMAT: Final[int]

    DL_TYPE_DATA: Final[int]
    DL_CHUNK: Final[int]
    DL_ROW: Final[int]
    DL_ENTRY_HEADER: Final[int]
    DL_ENTRY_MAX: Final[int]
    DL_ROW_CHUNKS: Final[int]
    DL_RADIX: Final[int]
    DL_FLAGS: Final[int]
    DL_PRODUCERS_TOLD: Final[int]
    DL_RECORD_FLAGS: Final[int]
    DL_RECORD_PRODUCER: Final[int]
    DL_RECORD_TYPE: Final[int]
    DL_BY_STREAM: Final[int]
    DL_BY_OFFSET: Final[int]
    DL_BY_PLACE: Final[int]
    DL_KEYS: Final[int]
    DL_CLUSTER_OK: Final[int]
    DL_CLUSTER_MORE: Final[int]
    DL_CLUSTER_READ: Final[int]
    DL_CLUSTER_SHORT: Final[int]
    DL_CLUSTER_FRAME: Final[int]
    DL_CLUSTER_ROW: Final[int]
    DL_CLUSTER_ENTRY: Final[int]
    DL_CLUSTER_PAGE: Final[int]
    DL_CLUSTER_INDEX: Final[int]
    DL_CLUSTER_ORDER: Final[int]
    DL_CLUSTER_ROOM: Final[int]

    DL_STAGE_SEAL: Final[int]
    DL_STAGE_WRITE: Final[int]
    DL_STAGE_SYNC: Final[int]
    DL_STAGE_DONE: Final[int]

    def dl_crc32c(self, crc: int, data: CData | bytes, length: int, /) -> int: ...
    def dl_crc32c_portable(self, crc: int, data: CData | bytes, length: int, /) -> int: ...
    def dl_crc32c_hardware(self) -> int: ...
    def dl_crc32c_marks(self, data: CData | bytes, length: int, marks: CData, /) -> None: ...
    def dl_crc32c_range(self, crc: int, data: CData | bytes, marks: CData, from_: int, to: int, /) -> int: ...
    def dl_block_seal(self, block: CData, size: int, info: CData, /) -> int: ...
    def dl_block_check(self, block: CData | bytes, available: int, lsn: int, nonce: int, info: CData, /) -> int: ...
    def dl_frames_scan(
        self,
        body: CData | bytes,
        length: int,
        position: int,
        nonce: int,
        rows: CData,
        rows_max: int,
        rows_count: CData,
        bytes_read: CData,
        /,
    ) -> int: ...
    def dl_frame_find(
        self, body: CData | bytes, length: int, marks: CData, position: int, nonce: int, from_: int, /
    ) -> int: ...
    def dl_block_find(self, bytes_: CData | bytes, length: int, lsn: int, nonce: int, from_: int, /) -> int: ...
    def dl_frames_gather(
        self,
        bytes_: CData | bytes,
        length: int,
        position: int,
        nonce: int,
        stream: int,
        index: CData,
        count: int,
        from_: int,
        to: int,
        out: CData,
        done: CData,
        /,
    ) -> int: ...
    def dl_frames_ahead(self, index: CData, count: int, size: int, piece: CData, /) -> int: ...
    def dl_run_find(
        self,
        page: CData | bytes,
        length: int,
        place: int,
        nonce: int,
        hash_: int,
        name: CData | bytes,
        name_length: int,
        at: CData,
        /,
    ) -> int: ...
    def dl_run_find_many(self, run: CData, job: CData, /) -> int: ...
    def dl_run_survey(
        self, page: CData | bytes, length: int, place: int, nonce: int, kind: int, ordinal: int, info: CData, /
    ) -> int: ...
    def dl_run_numbers_find(
        self,
        page: CData | bytes,
        length: int,
        place: int,
        nonce: int,
        numbers: CData,
        count: int,
        found: CData,
        found_count: CData,
        /,
    ) -> int: ...
    def dl_run_rows_select(
        self, page: CData | bytes, length: int, place: int, nonce: int, wanted: CData, count: int, at: CData, /
    ) -> int: ...
    def dl_run_rows_scan(
        self,
        rows: CData | bytes,
        length: int,
        kind: int,
        pairs: CData,
        pairs_max: int,
        count: CData,
        bytes_read: CData,
        /,
    ) -> int: ...
    def dl_run_rows_sort(self, rows: CData | bytes, pairs: CData, scratch: CData, count: int, /) -> int: ...
    def dl_run_pairs_sort(self, pairs: CData, scratch: CData, count: int, /) -> None: ...
    def dl_run_pack_rows(
        self, rows: CData | bytes, length: int, pairs: CData, count: int, next_: CData, out: CData, /
    ) -> int: ...
    def dl_run_pack_pairs(self, pairs: CData, count: int, next_: CData, out: CData, /) -> int: ...
    def dl_run_merge(
        self, sources: CData, count: int, heap: CData, drop_tombstones: int, out: CData, which: CData, /
    ) -> int: ...
    def dl_run_seal(self, out: CData, /) -> None: ...
    def dl_run_emptied(self, out: CData, /) -> None: ...
    def dl_run_names_seek(self, page: CData | bytes, length: int, place: int, nonce: int, range_: CData, /) -> int: ...
    def dl_run_names_take(
        self, bytes_: CData | bytes, length: int, place: int, nonce: int, range_: CData, picked: CData, /
    ) -> int: ...
    def dl_run_names_due(
        self,
        bytes_: CData | bytes,
        length: int,
        place: int,
        nonce: int,
        from_ms: int,
        now_ms: int,
        next_ms: CData,
        picked: CData,
        /,
    ) -> int: ...
    def dl_records_scan(
        self,
        bytes_: CData | bytes,
        length: int,
        position: int,
        nonce: int,
        source: int,
        blocks: CData,
        blocks_count: int,
        records: CData,
        records_max: int,
        count: CData,
        largest: CData,
        bad_position: CData,
        /,
    ) -> int: ...
    def dl_records_scan_all(
        self,
        bytes_: CData | bytes,
        length: int,
        position: int,
        nonce: int,
        segment: int,
        blocks: CData,
        blocks_count: int,
        records: CData,
        records_max: int,
        count: CData,
        bad_position: CData,
        /,
    ) -> int: ...
    def dl_replay_data(
        self, records: CData, count: int, flags: int, end: int, end_max: int, pairs: CData, /
    ) -> int: ...
    def dl_replay_claims(self, records: CData, count: int, tail: int, found: CData, /) -> int: ...
    def dl_replay_time(self, records: CData, count: int, lsns: CData, times_ms: CData, blocks_count: int, /) -> int: ...
    def dl_index_run(self, index: CData, count: int, /) -> int: ...
    def dl_index_bounds(self, index: CData, length: int, below: int, bounds: CData, /) -> int: ...
    def dl_records_pick(self, records: CData, count: int, types: int, out: CData, /) -> int: ...
    def dl_records_find(self, records: CData, count: int, stream: int, /) -> int: ...
    def dl_records_streams(self, records: CData, count: int, streams: CData, /) -> int: ...
    def dl_records_of_rows(
        self,
        table: CData | bytes,
        rows_count: int,
        first: int,
        nonce: int,
        source: int,
        indexes: CData,
        indexes_count: int,
        records: CData,
        bad_row: CData,
        /,
    ) -> int: ...
    def dl_records_count(self, records: CData, count: int, key: int, shift: int, counts: CData, /) -> None: ...
    def dl_records_scatter(
        self, records: CData, count: int, key: int, shift: int, heads: CData, out: CData, out_count: int, /
    ) -> int: ...
    def dl_records_greatest(self, records: CData, count: int, keys: CData, /) -> None: ...
    def dl_records_select(self, selection: CData, records: CData, first: int, count: int, cuts: CData, /) -> int: ...
    def dl_records_plan(self, plan: CData, records: CData, count: int, bad: CData, /) -> int: ...
    def dl_stage_plan(
        self,
        sources: CData,
        sources_count: int,
        records: CData,
        count: int,
        stage_size: int,
        out: CData,
        out_max: int,
        out_count: CData,
        /,
    ) -> int: ...
    def dl_stage_fill(
        self,
        sources: CData,
        sources_count: int,
        records: CData,
        count: int,
        done: CData,
        window: CData,
        stage: CData,
        stage_size: int,
        fault: CData,
        /,
    ) -> int: ...
    def dl_forget(self, memory: CData, length: int, /) -> None: ...
    def dl_cluster_copy(self, job: CData, /) -> int: ...
    def dl_row_holds(self, row: CData | bytes, nonce: int, file_length: int, /) -> int: ...
    def dl_rows_unpack(
        self,
        table: CData | bytes,
        count: int,
        nonce: int,
        file_length: int,
        streams: CData,
        starts: CData,
        ends: CData,
        /,
    ) -> int: ...
    def dl_span_check(self, span: CData, entries: CData | bytes, length: int, good: CData, entry: CData, /) -> int: ...
    def dl_entry_find(
        self, entries: CData | bytes, length: int, nonce: int, stream: int, start: int, end: int, chunk: int, /
    ) -> int: ...
    def dl_entry_bounds(
        self,
        entry: CData | bytes,
        length: int,
        nonce: int,
        stream: int,
        chunk: int,
        row_start: int,
        row_end: int,
        offset: int,
        start: CData,
        end: CData,
        /,
    ) -> int: ...
    def dl_cluster_verify(self, walk: CData, faults: CData, faults_max: int, count: CData, /) -> int: ...
    def dl_commit(
        self, fd: int, block: CData, size: int, sync: int, info: CData, stage: CData, sync_ns: CData, /
    ) -> int: ...
    def dl_is_copy_on_write(self, fd: int, /) -> int: ...
    def dl_json_split(
        self,
        text: CData | bytes,
        length: int,
        texts: int,
        depth_max: int,
        out: CData,
        out_size: int,
        out_length: CData,
        count: CData,
        error_position: CData,
        /,
    ) -> int: ...
    def dl_json_split_brief(
        self,
        text: CData | bytes,
        length: int,
        texts: int,
        depth_max: int,
        out: CData,
        out_size: int,
        out_length: CData,
        count: CData,
        error_position: CData,
        /,
    ) -> int: ...
    def dl_json_page(self, stored: CData | bytes, length: int, limit: int, /) -> int: ...
    def dl_json_format(self, stored: CData, length: int, sizes_max: int, out: CData, end: CData, /) -> int: ...

ffi: _FFI
lib: _Lib
