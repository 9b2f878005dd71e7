"""What Python decodes takes whatever comes, too: it is a value or a documented error, and never memory without bound.

Each decoder gets bytes as they are and bytes under a checksum that is right, as only somebody who forges them can make
them, or a version of this code that was wrong.
"""

from __future__ import annotations

import struct
import tracemalloc
from contextlib import contextmanager, suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durable_log._core import ffi, lib
from durable_log.engine import format as layout
from durable_log.engine.cluster import ClusteredSegment, decode_trailer
from durable_log.engine.files import MemoryDirectory, MemoryFile
from durable_log.engine.manifest import MANIFEST_NAME, Manifest, load_manifest, save_manifest
from durable_log.engine.opening import open_in
from durable_log.engine.rows import decode_state, encode_state, lsn_of_row, needed_of
from durable_log.engine.run import Run
from durable_log.engine.run_format import NEVER, decode_name, decode_row, decode_tables
from durable_log.engine.run_format import decode_trailer as decode_run_trailer
from durable_log.engine.state import StreamState
from durable_log.errors import Corruption, InvalidData, InvalidProducer, UnsupportedFormat
from durable_log.model import Chunk, Options, StreamConfig
from durable_log.protocol import json_mode, tokens
from durable_log.protocol.refusal import Refusal
from durable_log.protocol.request import parse
from durable_log.store import Store

PAGE = 4096
UUID = bytes(range(16))
NONCE = layout.nonce_of(UUID, 0)
MEMORY_MAX = 4 * 2**20
"""Nothing that is decoded here is longer than a few pages."""


@contextmanager
def bounded():
    """Hostile lengths ask for memory; none of them may get it."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY_MAX
    finally:
        tracemalloc.stop()


def directory_with(name: str, content: bytes) -> MemoryDirectory:
    directory = MemoryDirectory()
    file = MemoryFile(name)
    file.write(0, content)
    directory.files[name] = file
    return directory


# ---- file headers


HEADER = struct.Struct("<8sIIIIII16sIIQQQ")
WORD, LONG = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
SMALL_WORD = st.one_of(st.integers(0, 5), WORD)


@given(st.binary(max_size=200))
def test_a_page_that_is_no_file_header_is_none(page):
    assert layout.decode_file_header("file", page) is None


@given(
    st.tuples(
        SMALL_WORD, SMALL_WORD, SMALL_WORD, SMALL_WORD, SMALL_WORD, WORD, st.binary(min_size=16, max_size=16), WORD,
        WORD, LONG, LONG, LONG,
    )
)  # fmt: skip
def test_a_sealed_file_header_is_what_it_says_or_not_supported(fields):
    page = HEADER.pack(b"DURALOG\n", *fields)
    page = (page + struct.pack("<I", layout.crc32c(0, page))).ljust(PAGE, b"\0")
    kind, version, compat, ro_compat, incompat, number, uuid, nonce, zero, size, created, after = fields
    try:
        header = layout.decode_file_header("file", page)
    except UnsupportedFormat:
        assert version != 1 or ro_compat or incompat
        return
    assert header == (kind, number, uuid, nonce, size, created, after)
    if not compat and not zero:
        assert layout.encode_file_header(header) == page


# ---- the manifest


STATE = bytes(72)
"""Nine numbers."""

FRAMES = st.lists(
    st.tuples(st.integers(0, 2**48 - 1), LONG, st.one_of(st.sampled_from([16, 17, 18]), st.integers(0, 255)),
              st.sampled_from([0, 0, 0, 1, 2, 4, 255]), st.one_of(st.binary(max_size=60), st.just(STATE))),
    max_size=6,
)  # fmt: skip


def manifest_of(frames, records: int | None = None) -> bytes:
    """A whole file of those frames under good checksums; ``records`` is what the block's header says instead."""
    body = b"".join(
        layout.frame_head(kind, flags, stream, offset, len(payload)) + payload
        for stream, offset, kind, flags, payload in frames
    )
    block = bytearray((bytes(64) + body).ljust(layout.pages(64 + len(body)), b"\0"))
    info = ffi.new("dl_block *", {"lsn": PAGE, "body_length": len(body), "nonce": NONCE})
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), len(block), info) == lib.DL_OK
    if records is not None:
        struct.pack_into("<I", block, 44, records)
        struct.pack_into("<I", block, 4, layout.crc32c(NONCE, bytes(block[8:64])))
    header = layout.FileHeader(layout.KIND_MANIFEST, 0, UUID, NONCE, 0, 5)
    return layout.encode_file_header(header) + block


def loaded(content: bytes) -> Manifest | None:
    try:
        return load_manifest(directory_with(MANIFEST_NAME, content), 5)
    except (Corruption, UnsupportedFormat):
        return None


@given(FRAMES)
@example([])
@example([(1, 0, 16, 0, b"short")])
@example([(1, 0, 16, 2, STATE)])
@example([(1, 0, 16, 2, b"")])
def test_a_manifest_of_any_frames_is_one_or_corrupt(frames):
    manifest = loaded(manifest_of(frames))
    if manifest is not None:
        directory = MemoryDirectory()
        save_manifest(directory, manifest, 5)
        assert load_manifest(directory, 5) == manifest


@given(st.binary(min_size=1, max_size=100), st.integers(0, 63 + 24 + len(STATE)))
def test_a_damaged_manifest_is_corrupt(junk, at):
    whole = manifest_of([(1, 0, 16, 0, STATE)])
    assert loaded(whole) is not None
    end = PAGE + 64 + 24 + len(STATE)
    changed = (whole[: PAGE + at] + junk + whole[PAGE + at + len(junk) :])[:end]
    assert (loaded(changed) is None) == (changed != whole[:end])
    assert loaded(whole[: PAGE + at]) is None


@pytest.mark.parametrize("records", [0, 2, 2**31, 2**32 - 1])
def test_a_manifest_that_says_how_many_frames_it_has_is_not_believed(records):
    with bounded():
        assert loaded(manifest_of([(1, 0, 16, 0, STATE)], records)) is None


# ---- payloads of frames


CREATE_HEAD = struct.Struct("<qqQHHH")
SHORT = st.one_of(st.integers(0, 20), st.integers(0, 2**16 - 1))


@st.composite
def creations(draw):
    head = CREATE_HEAD.pack(
        draw(st.integers(-(2**63), 2**63 - 1)), draw(st.integers(-(2**63), 2**63 - 1)), draw(LONG),
        draw(SHORT), draw(SHORT), draw(SHORT),
    )  # fmt: skip
    return head + draw(st.binary(max_size=80))


@given(st.one_of(st.binary(max_size=40), creations()))
@example(CREATE_HEAD.pack(-1, -(2**63), 0, 1, 1, 0) + b"\xff\xfe")
@example(CREATE_HEAD.pack(-1, -(2**63), 0, 10, 1, 0) + b"text")
@example(CREATE_HEAD.pack(-1, -(2**63), 0, 1, 1, 0) + b"abc")
@example(CREATE_HEAD.pack(5, 1000, 7, 1, 1, 2) + b"tn" + bytes(range(32)))
def test_a_creation_is_all_of_its_bytes_or_none(payload):
    try:
        creation = layout.decode_create(payload)
    except ValueError:
        return
    # What is negative and not the sign of "none" reads as none, and a fork without a source is none.
    ttl, expires, *_ = CREATE_HEAD.unpack_from(payload)
    if ttl >= -1 and abs(expires) < 2**50 and creation.source:
        assert layout.encode_create(creation) == payload


@given(st.binary(max_size=12))
def test_the_short_payloads_are_values_or_none(payload):
    for decode in (layout.decode_touch, layout.decode_producer):
        try:
            found = decode(payload)
        except ValueError:
            continue
        if decode is layout.decode_producer:
            assert layout.encode_producer(*found) == payload
        else:
            assert layout.encode_touch(found) == payload


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"short",
        CREATE_HEAD.pack(-1, -(2**63), 0, 1, 1, 0) + b"\xff\xfe",
        CREATE_HEAD.pack(-1, 0, 0, 9, 9, 9) + b"x",
    ],
    ids=["none", "short", "no text", "long"],
)
def test_a_creation_that_cannot_be_understood_is_told_and_keeps_no_store_from_opening(payload):
    directory = MemoryDirectory()
    options = Options(segment_bytes=65536, record_bytes_max=32768, preallocate=False)
    open_in(directory, options).close()
    log = directory.files["00000001.log"]
    nonce = layout.decode_file_header("00000001.log", log.read(0, PAGE)).nonce
    frame = layout.frame_head(layout.CREATE, 0, 1, 0, len(payload)) + payload
    block = bytearray((bytes(64) + frame).ljust(PAGE, b"\0"))
    lsn = layout.lsn_of(1, PAGE)
    info = ffi.new("dl_block *", {"lsn": lsn, "durable_lsn": lsn, "body_length": len(frame), "nonce": nonce})
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), PAGE, info) == lib.DL_OK
    log.write(PAGE, bytes(block))
    with Store(open_in(directory, options)) as store:
        assert [error.reason.partition(":")[0] for error in store.report.unreadable_catalog] == [
            "a frame that holds can't be understood"
        ]
        store.create("other").append(b"data")


# ---- rows


ROW_HEAD = struct.Struct("<QQQQqqQIIIHHHB")


@st.composite
def row_payloads(draw):
    index = b"".join(struct.pack("<Q", draw(LONG)) for _ in range(draw(st.integers(0, 5))))
    tail = draw(st.binary(max_size=120))
    head = ROW_HEAD.pack(
        draw(LONG), draw(LONG), draw(LONG), draw(LONG), draw(st.integers(-2, 100)), draw(st.integers(-(2**63), 2**40)),
        draw(st.integers(0, 2**50)), draw(SMALL_WORD), draw(st.sampled_from([8, 24, len(index), 2**32 - 1])),
        draw(SMALL_WORD), draw(SHORT), draw(st.one_of(st.just(0xFFFF), SHORT)), draw(st.integers(0, 12)),
        draw(st.integers(0, 3)),
    )  # fmt: skip
    return head + index + tail


def lost(number: int) -> StreamState:
    return StreamState(number, "", StreamConfig(), 0)


@given(st.one_of(st.binary(max_size=100), row_payloads()))
@example(ROW_HEAD.pack(1, 1, 0, 0, -1, -(2**63), 0, 0, 8, 0, 0, 0xFFFF, 4, 0) + b"text" + bytes(8))
@example(ROW_HEAD.pack(1, 1, 0, 0, -1, -(2**63), 0, 0, 8, 2**32 - 1, 0, 0xFFFF, 4, 0) + b"text" + bytes(8))
@example(ROW_HEAD.pack(1, 1, 0, 0, -1, -(2**63), 0, 0, 8, 0, 0xFFFF, 0xFFFF, 4, 0) + b"text" + bytes(8))
@example(ROW_HEAD.pack(1, 1, 0, 0, -1, -(2**63), 0, 0, 8, 0, 0, 0xFFFF, 4, 0) + b"\xff\xfe\xfd\xfc" + bytes(8))
@example(ROW_HEAD.pack(1, 1, 0, 0, -1, -(2**63), 0, 0, 8, 0, 0, 0xFFFF, 4, 0) + b"text" + bytes(9))
def test_a_state_is_all_of_its_row_or_none(payload):
    for decode in (needed_of, lsn_of_row):
        with suppress(Corruption):
            decode(payload)
    try:
        state, lsn = decode_state("name", 7, payload, lost)
    except Corruption:
        return
    again, lsn_again = decode_state("name", 7, encode_state(state, lsn), lost)
    assert lsn_again == lsn
    assert encode_state(again, lsn) == encode_state(state, lsn)


@pytest.mark.parametrize("counts", [(2**32 - 1, 0), (0, 2**16 - 1)], ids=["producers", "ancestors"])
def test_a_row_that_says_how_much_it_has_is_not_believed(counts):
    producers, ancestors = counts
    head = ROW_HEAD.pack(1, 1, 0, 0, -1, -(2**63), 0, 0, 8, producers, ancestors, 0xFFFF, 4, 0)
    with bounded(), pytest.raises(Corruption):
        decode_state("name", 7, head + b"text" + bytes(8), lost)


@given(st.binary(min_size=1, max_size=20))
def test_a_name_that_is_no_text_is_corrupt(name):
    entry = struct.pack("<QQH", 5, NEVER, len(name)) + name
    for decode, item in ((decode_name, entry), (decode_row, struct.pack("<QI", 9, 0) + entry)):
        try:
            assert decode(item, 0).name.encode() == name
        except Corruption:
            assert "\ufffd" in name.decode(errors="replace")


# ---- trailers and tables


CLUSTER_TRAILER = struct.Struct("<I4s7Q")


@given(st.lists(st.one_of(st.integers(0, 5000), LONG), min_size=7, max_size=7))
@example([2**50, 0, 0, PAGE, PAGE + 48 * 2**50, PAGE + 48 * 2**50 + 64, 0])
def test_a_sealed_trailer_is_believed_only_if_its_file_is_that_long(fields):
    data = CLUSTER_TRAILER.pack(0, b"CLST", *fields)
    data = struct.pack("<I", layout.crc32c(9, data[4:])) + data[4:]
    trailer = decode_trailer(data, 9)
    assert trailer is None or trailer.encode(9) == data
    size = fields[5]
    header = layout.FileHeader(layout.KIND_CLUSTERED, 1, UUID, 9, size, 0)
    content = layout.encode_file_header(header) + data
    segment = ClusteredSegment.open(directory_with("00000001.seg", content), "00000001.seg")
    if segment is not None:
        assert size == len(content)
        assert all(len(column) == segment.rows_count for column in segment.streams())


RUN_TRAILER = struct.Struct("<8sQQQQQQQQQI")


@given(
    st.lists(st.one_of(st.integers(0, 3), st.integers(0, 5000), LONG), min_size=9, max_size=9), st.binary(max_size=50)
)
@example([0, 0, 0, 0, 2**64 - 1, 2**52 - 1, 0, 0, PAGE * 2**52 - PAGE], b"")
def test_a_sealed_trailer_of_a_run_is_believed_only_if_its_tables_are_there(fields, tables):
    body = tables.ljust(layout.pages(len(tables)), b"\0")
    page = RUN_TRAILER.pack(b"RUNTAIL\n", *fields, layout.crc32c(9, body)).ljust(PAGE - 4, b"\0")
    page += struct.pack("<I", layout.crc32c(9, page))
    trailer, crc = decode_run_trailer(page, 9)
    assert list(trailer) == fields
    found = decode_tables(body, trailer, 9, crc)
    assert found is None or (len(found.fences), len(found.number_fences)) == (trailer.pages, trailer.number_pages)
    size = PAGE + len(body) + PAGE
    header = layout.FileHeader(layout.KIND_RUN, 1, UUID, 9, size, 0)
    content = layout.encode_file_header(header) + body + page
    run = Run.open(directory_with("00000001.run", content), "00000001.run")
    if run is not None:
        assert run.trailer.tables_position == PAGE
        for read in (run.verify, lambda: list(run.rows()), lambda: run.names_from(b"", b"", 3)):
            with suppress(Corruption):
                read()


# ---- what clients send


HEADERS = st.sampled_from([
    b"content-type", b"producer-id", b"producer-epoch", b"producer-seq", b"stream-seq", b"stream-closed", b"stream-ttl",
    b"stream-expires-at", b"stream-forked-from", b"stream-fork-offset", b"stream-fork-sub-offset", b"if-none-match",
    b"content-length",
])  # fmt: skip
LIKE_VALUES = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([
        b"0", b"1", b"-1", b"9007199254740991", b"9" * 40, b"true", b"now", b"text/plain", b"a/b; charset=utf-8",
        b"0000000000000000_0000000000000005", b"2030-01-01T00:00:00Z", b"2030-13-45T99:99:99.5+99:59", b"\xff", b"",
        b"0000-00-00T00:00:00Z", b"9999-12-31T23:59:60Z", b"/stream/a%2Fb", b"%zz",
    ]),
)  # fmt: skip


@given(
    st.sampled_from(["PUT", "POST", "GET", "HEAD", "DELETE", "OPTIONS", "PATCH", ""]),
    st.one_of(st.binary(max_size=30), st.sampled_from([b"/a", b"/a/%c3%a4", b"/%ff", b"/" + b"x" * 2000, b"/../a"])),
    st.one_of(st.binary(max_size=40), st.sampled_from([b"offset=-1&live=sse", b"offset=now&live=long-poll&cursor=5"])),
    st.lists(st.tuples(HEADERS, LIKE_VALUES), max_size=8),
)
def test_any_request_is_understood_or_refused(method, path, query, headers):
    with suppress(Refusal, InvalidProducer):
        parse(method, path, query, headers)


@given(st.one_of(st.text(max_size=40), st.from_regex(r"[0-9]{16}_[0-9]{16}"), st.from_regex(r"[0-9]{1,30}")))
def test_any_token_is_an_offset_or_none(text):
    offset, cursor = tokens.parse_offset(text), tokens.parse_cursor(text)
    assert offset is None or -2 <= offset < 2**63
    assert cursor is None or 0 <= cursor < 10**18
    if offset is not None and 0 <= offset < 10**16:
        assert tokens.offset_token(offset).decode() == text


@given(st.one_of(st.binary(max_size=200), st.text(alphabet='[]{}",:0123456789.eE+-truefalsn \\u', max_size=60)))
def test_any_body_is_messages_or_refused(body):
    raw = body.encode() if isinstance(body, str) else body
    try:
        stored, count = json_mode.split(raw)
    except InvalidData:
        return
    assert json_mode.split(json_mode.to_array(stored) if count else b"[]") == (stored, count)
    assert json_mode.end_of_message(stored, count) == len(stored)
    found = Chunk(stored, 0, len(stored), True, False, "application/json").messages
    assert (len(found), b"".join([message + b"," for message in found])) == (count, stored)
