"""What verifies and still can't be right: checksums that hold over what no engine writes are believed by nobody."""

from __future__ import annotations

import struct
import tracemalloc
from array import array
from pathlib import Path

import pytest
from cluster_files import UUID, directory_with, write_log
from cluster_files import Record as Written
from oracle import Frame, OracleBlock
from twins import SMALL, open_store

import durable_log
from durable_log.engine.ancestry import Fork
from durable_log.engine.backlog import Backlog
from durable_log.engine.cluster import ClusteredSegment
from durable_log.engine.files import DiskDirectory, MemoryDirectory
from durable_log.engine.format import (
    CREATE,
    FLAG_CLOSE,
    KIND_MANIFEST,
    PAGE,
    PRODUCER,
    TOUCH,
    Creation,
    FileHeader,
    crc32c,
    decode_create,
    decode_file_header,
    decode_producer,
    decode_touch,
    encode_create,
    encode_file_header,
    nonce_of,
)
from durable_log.engine.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest
from durable_log.engine.rows import decode_state, encode_state, lsn_of_row, needed_of, source_of
from durable_log.engine.run import Run
from durable_log.engine.run_format import Row, decode_name, decode_row, encode_row, encode_tail
from durable_log.engine.run_writer import write_run
from durable_log.engine.segment import LogSegment, read_rows, segment_name, survey
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption
from durable_log.model import Options, StreamConfig

NONCE = nonce_of(UUID, 0)
STATE, CLUSTERED = 16, 17


# --- the manifest


def manifest_of(block: bytes) -> MemoryDirectory:
    header = FileHeader(KIND_MANIFEST, 0, UUID, NONCE, 0, 5)
    return directory_with(MANIFEST_NAME, encode_file_header(header) + block)


def state_frame() -> Frame:
    directory = MemoryDirectory()
    save_manifest(directory, Manifest(UUID), 5)
    content = directory.files[MANIFEST_NAME].read(0, 2 * PAGE)
    length = struct.unpack_from("<I", content, PAGE + 40)[0]
    return Frame(STATE, 1, 0, content[PAGE + 64 + 24 : PAGE + 64 + length])


def test_a_manifest_is_what_its_frames_say():
    directory = manifest_of(OracleBlock(PAGE, [state_frame()]).encode(NONCE))
    assert load_manifest(directory, 5) == Manifest(UUID)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [Frame(CLUSTERED, 1, 100)],
        [Frame(CLUSTERED, 1, 100), state_frame()],
        [state_frame(), state_frame()],
        [Frame(STATE, 1, 0, b"short")],
    ],
    ids=["nothing", "no state", "a state that is not the first", "two states", "a short state"],
)
def test_a_manifest_without_one_state_at_its_beginning_is_corrupt(frames):
    with pytest.raises(Corruption, match="the one frame of its state") as caught:
        load_manifest(manifest_of(OracleBlock(PAGE, frames).encode(NONCE)), 5)
    assert (caught.value.file, caught.value.position) == (MANIFEST_NAME, PAGE)


def test_a_manifest_with_a_frame_that_fails_its_checksum_is_corrupt_though_its_block_holds():
    block = bytearray(OracleBlock(PAGE, [state_frame(), Frame(CLUSTERED, 1, 100)]).encode(NONCE))
    length = struct.unpack_from("<I", block, 40)[0]
    last = 64 + length - 24
    block[last + 16] ^= 1
    struct.pack_into("<I", block, 48, crc32c(NONCE, bytes(block[64 : 64 + length])))
    struct.pack_into("<I", block, 4, crc32c(NONCE, bytes(block[8:64])))
    with pytest.raises(Corruption, match="a frame of the manifest fails its checksum") as caught:
        load_manifest(manifest_of(bytes(block)), 5)
    assert caught.value.position == PAGE + last


# --- rows of the catalog


def row_of(**changes: object) -> bytes:
    state = StreamState(1, "a", StreamConfig("text/plain"), 5)
    for field, value in changes.items():
        setattr(state, field, value)
    return encode_state(state, 77)


def find(number: int) -> StreamState:
    raise AssertionError(number)


def test_a_row_is_read_as_it_was_written():
    assert decode_state("a", 1, row_of(durable=9), find).state.tail == 9
    assert lsn_of_row(row_of()) == 77


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (row_of() + b"!", "it takes"),
        (row_of()[:40], "unpack_from requires"),
        (row_of().replace(b"text", b"\xff\xff\xff\xff"), "utf-8"),
        (row_of(index=bytearray(16)), "an index of 16 bytes is not whole"),
    ],
    ids=["too long", "too short", "no text", "no index"],
)
def test_a_row_that_cannot_be_one_is_told_with_its_stream(payload, reason):
    with pytest.raises(Corruption, match=f"a row that holds can't be understood: .*({reason})") as caught:
        decode_state("a", 1, payload, find)
    assert caught.value.name == "a"


@pytest.mark.parametrize(
    ("payload", "reason"), [(b"short", "it has 5 bytes"), (row_of(index=bytearray(16)), "an index of 16 bytes")]
)
def test_what_a_row_needs_is_not_guessed(payload, reason):
    with pytest.raises(Corruption, match=reason):
        needed_of(payload)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [(b"short", "it has 5 bytes"), (b"\xff" * 90, "it has 90 bytes, 1048560 of them for ancestors")],
)
def test_a_row_that_cannot_hold_its_source_has_none(payload, reason):
    with pytest.raises(Corruption, match=reason):
        source_of(payload, 1)


@pytest.mark.parametrize("number", [1, 2])
def test_a_fork_is_of_an_older_stream_and_never_of_itself(number):
    """Else whoever looks for the end of a chain of forks would look for ever."""
    source = StreamState(2, "b", StreamConfig("text/plain"), 5)
    payload = row_of(fork=Fork(source, 0, ()))
    assert source_of(payload, 3) == 2
    with pytest.raises(Corruption, match=f"stream number {number} can't be a fork of number 2"):
        source_of(payload, number)


def test_a_row_too_short_for_its_lsn_is_corrupt():
    with pytest.raises(Corruption, match="it has 7 bytes"):
        lsn_of_row(b"1234567")


def test_a_name_that_is_no_text_is_corrupt_as_a_row_and_as_a_name():
    row = encode_row("name", 1, b"payload")
    assert decode_row(row, 0) == Row("name", 1, b"payload")
    with pytest.raises(Corruption, match="is no UTF-8"):
        decode_row(row.replace(b"name", b"\xff\xfe\xfd\xfc"), 0)
    with pytest.raises(Corruption, match="is no UTF-8"):
        decode_name(struct.pack("<QQH", 1, 0, 2) + b"\xff\xff", 0)


def test_a_run_whose_tables_lie_elsewhere_than_its_trailer_says_does_not_open():
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, [encode_row("a", 1, row_of())], pause=lambda: None)
    file = directory.files[run.file.name]
    elsewhere = run.trailer._replace(name_pages=run.trailer.name_pages + 1)
    tail = encode_tail(elsewhere, run.tables, run.nonce)
    assert Run.open(directory, run.file.name) is not None
    file.write(file.size() - len(tail), tail)
    assert Run.open(directory, run.file.name) is None


# --- records of the log


def backlog_of(records: list[Written]) -> tuple[Backlog, MemoryDirectory]:
    directory = MemoryDirectory()
    segment = write_log(directory, 3, records).segment
    backlog = Backlog({3: segment})
    backlog.take(segment, survey(segment))
    backlog.sort()
    return backlog, directory


@pytest.mark.parametrize(
    ("kind", "decode", "payload"),
    [
        (TOUCH, decode_touch, b"1234567"),
        (PRODUCER, decode_producer, b"\1\0"),
        (CREATE, decode_create, b"short"),
        (CREATE, decode_create, encode_create(Creation("a", StreamConfig("text/plain"), 5)) + b"!"),
        (CREATE, decode_create, encode_create(Creation("name", StreamConfig("t/p"), 5)).replace(b"name", b"\xff" * 4)),
    ],
)
def test_a_frame_that_holds_and_says_nothing_is_told_with_its_place(kind, decode, payload):
    backlog, _ = backlog_of([Written(1, 0, payload, kind)])
    record = next(iter(backlog.lives() if kind == CREATE else backlog.of(1)))
    with pytest.raises(Corruption, match="a frame that holds can't be understood") as caught:
        backlog.decoded(record, decode)
    assert (caught.value.file, caught.value.position) == (segment_name(3), PAGE + 64)


def test_a_frame_that_changes_after_it_was_found_is_not_believed():
    backlog, directory = backlog_of([Written(1, 0, b"first", flags=FLAG_CLOSE), Written(1, 5, b"second")])
    first, second = backlog.of(1)
    file = directory.files[segment_name(3)]
    file.write(PAGE + 64 + 24, b"F")
    with pytest.raises(Corruption, match="a frame fails its checksum that held when it was found") as caught:
        backlog.frame(first)
    assert caught.value.position == PAGE + 64
    assert backlog.frame(second)[1].endswith(b"second")


def test_a_block_that_changes_while_the_store_is_opened_is_not_believed():
    directory = MemoryDirectory()
    segment = write_log(directory, 3, [Written(1, 0, b"first"), Written(1, 5, b"second")]).segment
    blocks = survey(segment)
    directory.files[segment_name(3)].write(PAGE + 64 + 24 + 5 + 24, b"S")
    with pytest.raises(Corruption, match="a frame of a block that verifies fails its checksum") as caught:
        Backlog({3: segment}).take(segment, blocks)
    assert (caught.value.file, caught.value.position) == (segment_name(3), PAGE + 64 + 24 + 5)


def test_each_record_of_a_damaged_block_that_holds_is_found_between_those_that_do_not():
    directory = MemoryDirectory()
    words = [b"one", b"two", b"three", b"four", b"five"]
    segment = write_log(directory, 3, [Written(stream, 0, word) for stream, word in enumerate(words, 1)]).segment
    file = directory.files[segment_name(3)]
    for word in (b"one", b"three"):
        at = file.read(0, file.size()).find(word)
        file.write(at, b"?")
    (block,) = survey(segment)
    assert not block.whole
    assert [row[0] for row in read_rows(segment, block).rows] == [2, 4, 5]


def test_a_record_of_a_log_segment_that_was_given_back_is_a_file_that_is_not_there():
    backlog, _ = backlog_of([Written(1, 0, b"data")])
    backlog._segments.clear()
    with pytest.raises(FileNotFoundError, match="given back") as caught:
        backlog.frame(backlog.of(1)[0])
    assert caught.value.filename == segment_name(3)


# --- directories of something else


def test_a_store_whose_file_of_another_store_verifies_does_not_open():
    """Everything in it holds by the other store's seed."""
    directory, other = MemoryDirectory(), MemoryDirectory()
    for each in (directory, other):
        with open_store(each, SMALL) as store:
            store.create("a", data=b"x" * 100)
    for suffix in (".seg", ".run"):
        mixed = MemoryDirectory()
        mixed.files = dict(directory.files)
        names = [name for name in mixed.names() if name.endswith(suffix)]
        mixed.files[names[0]] = other.files[names[0]]
        with pytest.raises(Corruption, match="another store") as caught:
            open_store(mixed, SMALL)
        assert caught.value.file == names[0]


# --- lengths and positions that no file has, on disk, where the system is asked for them


ROW_FIELDS = struct.Struct("<IIQQQQII")


def resealed(nonce: int, fields: bytes) -> bytes:
    return struct.pack("<I", crc32c(nonce, fields[4:])) + fields[4:]


def rewritten(path: Path, position: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


@pytest.fixture
def clustered(tmp_path) -> Path:
    """The clustered segment of a store on disk; its one row is stream "a"."""
    with durable_log.open(tmp_path, options=Options(preallocate=False)) as store:
        store.create("a", data=b"x" * 100_000)
    return tmp_path / "00000001.seg"


@pytest.mark.parametrize(
    "lies", [{4: 2**63}, {4: 2**62}, {5: 2**63}, {5: 2**64 - 1}, {6: 2**32 - 1}, {1: 2**32 - 1}], ids=str
)
def test_a_row_that_names_what_its_file_has_not_is_damage_to_all_who_read(clustered, lies):
    segment = ClusteredSegment.open(DiskDirectory(clustered.parent), clustered.name)
    position, nonce = segment.trailer.rows_position, segment.nonce
    fields = list(ROW_FIELDS.unpack(segment.rows_bytes(0, 1)))
    for index, value in lies.items():
        fields[index] = value
    rewritten(clustered, position, resealed(nonce, ROW_FIELDS.pack(*fields)))
    assert [list(column) for column in segment.streams()] == [[0], [0], [0]]
    assert segment.verify()[0].position == position
    segment.close()
    with durable_log.open(clustered.parent) as store, pytest.raises(Corruption):
        store.stream("a").read()


def test_a_header_that_says_a_size_that_no_file_has_is_none_of_a_segment(clustered):
    header = decode_file_header(clustered.name, clustered.read_bytes()[:PAGE])
    rewritten(clustered, 0, encode_file_header(header._replace(size=2**63 + 64)))
    assert ClusteredSegment.open(DiskDirectory(clustered.parent), clustered.name) is None


def test_a_block_that_says_that_it_is_as_long_as_no_file_asks_for_no_memory(tmp_path):
    with durable_log.open(tmp_path, options=Options(preallocate=False, cluster_at_close=False)) as store:
        store.create("a", data=b"x")
    path = tmp_path / segment_name(1)
    header = decode_file_header(path.name, path.read_bytes()[:PAGE])
    rewritten(path, 0, encode_file_header(header._replace(size=2**40)))
    block = bytearray(path.read_bytes()[PAGE : PAGE + 64])
    struct.pack_into("<I", block, 40, 2**32 - 16)
    struct.pack_into("<I", block, 4, crc32c(header.nonce, bytes(block[8:])))
    rewritten(path, PAGE, block)
    segment = LogSegment.open(DiskDirectory(tmp_path), path.name, header.uuid)
    tracemalloc.start()
    assert not survey(segment)[0].whole
    assert tracemalloc.get_traced_memory()[1] < 3 * 2**26
    tracemalloc.stop()
    segment.close()


def test_a_number_that_names_a_page_of_rows_that_is_not_there_is_corrupt():
    rows = [encode_row("a", 1, b"x" * 9000), encode_row("b", 2, b"y")]
    run = write_run(MemoryDirectory(), 1, UUID, rows, lambda: None)
    at = run.trailer.numbers_position
    page = bytearray(run.file.read(at, PAGE))
    struct.pack_into("<I", page, 16 + 8, run.pages)
    run.file.write(at, resealed(run.nonce, bytes(page)))
    with pytest.raises(Corruption, match="a page of rows that is not there") as caught:
        run.find_numbers(array("Q", [1]))
    assert caught.value.position == at
