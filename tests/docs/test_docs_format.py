"""The page on the format says what is on disk: its example is decoded by the page alone, and encoded by the code."""

from __future__ import annotations

import re
import struct
from itertools import accumulate
from typing import NamedTuple

import xxhash
from documents import text_of

from durable_log._core import ffi, lib
from durable_log.engine import format as codec
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.manifest import Manifest, save_manifest
from durable_log.engine.opening import open_in
from durable_log.model import Options, Producer, StreamConfig
from durable_log.store import Store

PAGE = text_of("docs/format.md")
UUID = bytes(range(16))
CREATED_MS = 1893456000000
QUIET = Options(sweep_seconds=3600.0, cluster_seconds=1e9)
"""Nothing happens by itself."""


def crc(seed, data):
    """As the page has it: CRC32C, reflected, continuing from a seed."""
    register = seed ^ 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def shown(name):
    """The bytes that the example shows of a file, by their positions."""
    between = PAGE.partition(f"<!-- example: {name} -->")[2].partition("<!-- end -->")[0]
    lines = re.findall(r"^([0-9a-f]{6})  ([0-9a-f]{2}(?: [0-9a-f]{2}){0,15})(?= {3}|$)", between, re.MULTILINE)
    assert len(lines) == len(re.findall(r"^[0-9a-f]{6}  ", between, re.MULTILINE))
    return [(int(position, 16), bytes.fromhex(data)) for position, data in lines]


def example(name):
    """A file of the example, zeroes in between; as long as its header says, or to the end of the last page shown."""
    lines = shown(name)
    end = max(position + len(data) for position, data in lines)
    image = bytearray(-(-end // 4096) * 4096)
    for position, data in lines:
        image[position : position + len(data)] = data
    size = struct.unpack_from("<Q", image, 56)[0]
    return bytes(image[: size or None])


def segment():
    """The header and the block of the log segment."""
    image = example("00000001.log")
    return image[:4096], image[4096:]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    offset: int
    rest: bytes


def frames(body, position, nonce):
    """The frames of a body that stands at ``position``, each with a checksum that holds."""
    at = 0
    while at < len(body):
        checksum, length, kind, flags, high, low, offset = struct.unpack_from("<IIBBHIQ", body, at)
        end = at + 24 + length
        assert checksum == crc(nonce ^ (position + at), body[at + 4 : end])
        yield Frame(kind, flags, high << 32 | low, offset, body[at + 24 : end])
        at = end


def test_the_checksum_is_the_one_that_the_page_names():
    assert crc(0, b"123456789") == 0xE3069283
    assert crc(crc(7, b"1234"), b"56789") == crc(7, b"123456789")
    assert codec.crc32c(7, b"123456789") == crc(7, b"123456789")


def header_of(image, kind, number):
    """Size and time in a file header that is that of the example's store, with a checksum that holds; and the nonce."""
    magic, is_kind, version, *features, is_number, uuid, nonce, zero, size, created, after_lsn = struct.unpack_from(
        "<8sIIIIII16sIIQQQ", image
    )
    assert (magic, is_kind, version, features, is_number) == (b"DURALOG\n", kind, 1, [0, 0, 0], number)
    assert (uuid, zero, after_lsn) == (UUID, 0, 0)
    assert nonce == (crc(0, uuid) + number * 0x9E3779B1) % 2**32
    assert struct.unpack_from("<I", image, 80)[0] == crc(0, image[:80])
    assert not any(image[84:4096])
    return size, created, nonce


def test_the_header_of_the_segment_says_what_the_page_says():
    size, created, _ = header_of(segment()[0], 2, 1)
    assert (size, created) == (4 * 2**20, CREATED_MS)


def test_the_block_of_the_example_says_what_the_page_says():
    header, block = segment()
    nonce = struct.unpack_from("<I", header, 48)[0]
    magic, checksum, lsn, durable, previous, time_ms, length, records, body_crc, previous_crc, flags, zero = (
        struct.unpack_from("<4sIQQQQIIIIII", block)
    )
    assert (magic, lsn, durable, previous, previous_crc) == (b"DBLK", 1 << 32 | 4096, 1 << 32 | 4096, 0, 0)
    assert (time_ms, length, records, flags, zero) == (CREATED_MS, 143, 3, 0, 0)
    assert checksum == crc(nonce, block[8:64])
    assert body_crc == crc(nonce, block[64 : 64 + length])
    assert not any(block[64 + length :])
    create, producer, data = frames(block[64 : 64 + length], 4096 + 64, nonce)
    assert {frame[2:4] for frame in (create, producer, data)} == {(1, 0)}
    assert create[:2] == (2, 0)
    ttl, expires, created, *lengths = struct.unpack_from("<qqQHHH", create.rest)
    assert (ttl, expires, created, lengths) == (-1, -(2**63), CREATED_MS, [10, 1, 0])
    assert create.rest[30:] == b"text/plaina"
    assert (producer[:2], producer.rest) == ((5, 0), struct.pack("<I", 0) + b"p")
    assert (data[:2], data.rest) == ((1, 1 | 2), struct.pack("<IQQ", 0, 0, 0) + b"hello")


def test_the_creation_of_a_fork_says_with_which_byte_it_begins():
    directory = MemoryDirectory()
    with Store(open_in(directory, QUIET, lambda: CREATED_MS / 1000)) as store:
        store.create("source", data=b"hello")
        store.stream("source").trim(2)
        store.create("fork", fork_of="source", fork_at=4)
        image = whole(directory, "00000001.log")
    nonce = struct.unpack_from("<I", image, 48)[0]
    lengths = {at: struct.unpack_from("<I", image, at + 40)[0] for at in range(4096, len(image), 4096)}
    found = [frame for at, size in lengths.items() for frame in frames(image[at + 64 : at + 64 + size], at + 64, nonce)]
    assert [(frame.kind, frame.stream, frame.offset) for frame in found] == [(2, 1, 0), (1, 1, 0), (6, 1, 2), (2, 2, 2)]
    assert struct.unpack("<4Q", found[-1].rest[-32:]) == (1, 4, 1, 4)


def test_the_manifest_of_the_example_says_what_the_page_says():
    image, block = example("MANIFEST"), example("00000001.log")[4096:]
    size, created, nonce = header_of(image, 1, 0)
    assert (size, created) == (0, CREATED_MS)
    magic, checksum, lsn, *nothing, length, records, body_crc, previous_crc, flags, zero = struct.unpack_from(
        "<4sIQQQQIIIIII", image, 4096
    )
    assert (magic, lsn, nothing, records) == (b"DBLK", 4096, [0, 0, 0], 3)
    assert (previous_crc, flags, zero) == (0, 0, 0)
    assert checksum == crc(nonce, image[4096 + 8 : 4096 + 64])
    body = image[4096 + 64 : 4096 + 64 + length]
    assert body_crc == crc(nonce, body)
    state, clustered, run = frames(body, 4096 + 64, nonce)
    assert state[:4] == (16, 0, 2, 0)
    previous = struct.unpack_from("<I", block, 4)[0]
    assert struct.unpack("<9Q", state.rest) == (1 << 32 | 4096, previous, 2 << 32 | 4096, 1, 2, 3, 0, 0, 0)
    assert clustered == (17, 0, 1, 5, b"")
    assert run == (18, 0, 2, 0, b"")


def varints(data):
    """The numbers that bytes hold, seven bits a byte, the lowest first."""
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
    assert shift == 0


def sealed(nonce, unit):
    """What stands behind the checksum of a unit, which holds."""
    assert struct.unpack_from("<I", unit)[0] == crc(nonce, unit[4:])
    return unit[4:]


def clustered_trailer(image, nonce):
    """Rows, records, bytes of payload, and where rows and entries are, of a clustered segment."""
    magic, *counts, size, zero = struct.unpack("<4sQQQQQQQ", sealed(nonce, image[-64:]))
    assert (magic, size, zero) == (b"CLST", len(image), 0)
    return counts


def decode_row(image, position, nonce):
    """Stream, start, bytes and ends of the records of a row; and where its payload and its entries end."""
    row = struct.unpack("<IQQQQII", sealed(nonce, image[position : position + 48]))
    length, stream, start, payload, at, entries_length, records = row
    entries, begins, ends = at, [], []
    for chunk in range(0, length, 65536):
        chunk_length = min(65536, length - chunk)
        sums = -(-chunk_length // 4096) * 4
        before, ends_length = struct.unpack_from("<II", image, at + 24)
        entry = sealed(nonce, image[at : at + 32 + sums + ends_length])
        assert struct.unpack_from("<IQQ", entry) == (chunk_length, stream, start + chunk)
        content = image[payload + chunk : payload + chunk + chunk_length]
        pages = [crc(nonce, content[page : page + 4096]) for page in range(0, chunk_length, 4096)]
        assert entry[28 : 28 + sums] == struct.pack(f"<{len(pages)}I", *pages)
        end = start + chunk
        assert before == end - max([last for last in ends if last <= end], default=start)
        for distance in varints(entry[28 + sums :]):
            end += distance
            ends += [end] if end not in ends else []
        begins.append(at - entries)
        at += 32 + sums + ends_length
    assert at == entries + entries_length
    assert len(ends) == records
    index = struct.pack(f"<{len(begins) - 1}I", *begins[1:])
    assert image[at : at + len(index)] == index
    return stream, start, image[payload : payload + length], ends, payload + length, at + len(index)


def decode_clustered(image, number):
    """Stream, start, bytes and ends of records of each row, of a file in which there is nothing else."""
    size, created, nonce = header_of(image, 3, number)
    assert (size, created) == (len(image), 0)
    rows, records, payload, rows_position, entries_position = clustered_trailer(image, nonce)
    assert (rows_position, entries_position) == (4096 + payload, 4096 + payload + 48 * rows)
    found = [decode_row(image, rows_position + 48 * row, nonce) for row in range(rows)]
    assert [row[4] for row in found[-1:]] == [rows_position]
    assert [row[5] for row in found[-1:]] == [len(image) - 64]
    assert sum(len(row[3]) for row in found) == records
    return [row[:4] for row in found]


def test_the_clustered_segment_of_the_example_says_what_the_page_says():
    assert decode_clustered(example("00000001.seg"), 1) == [(1, 0, b"hello", [5])]


def test_long_rows_of_many_chunks_are_what_the_page_says():
    lengths = [3, 70_000, 130, 65_536 * 2, 4096, 1]
    payloads = [bytes([65 + number]) * length for number, length in enumerate(lengths)]
    directory = MemoryDirectory()
    with Store(open_in(directory, QUIET, lambda: CREATED_MS / 1000)) as store:
        for name in ("a", "b"):
            store.create(name, data=b"first")
            for payload in payloads:
                store.stream(name).append(payload)
        uuid = struct.unpack_from("16s", whole(directory, "MANIFEST"), 32)[0]
        store.engine.upkeep.cluster()
        image = bytearray(whole(directory, "00000001.seg"))
    nonce = (crc(0, uuid) + 0x9E3779B1) % 2**32
    ends = list(accumulate([5, *lengths]))
    expected = [(stream, 0, b"first" + b"".join(payloads), ends) for stream in (1, 2)]
    rows_position = clustered_trailer(image, nonce)[3]
    assert [decode_row(image, rows_position + 48 * row, nonce)[:4] for row in range(2)] == expected


def run_page(image, position, nonce, kind):
    """The items of a page of a run, as bytes, and how many there are."""
    checksum, length, place, items, is_kind, zero = struct.unpack_from("<IIIHBB", image, position)
    assert (place, is_kind, zero) == (position // 4096, kind, 0)
    assert checksum == crc(nonce, image[position + 4 : position + 4096])
    assert not any(image[position + length : position + 4096])
    return image[position + 16 : position + length], items


def test_the_run_of_the_example_says_what_the_page_says():
    image = example("00000002.run")
    size, created, nonce = header_of(image, 4, 2)
    assert (size, created) == (len(image), 0)
    trailer = image[-4096:]
    assert struct.unpack_from("<I", trailer, 4092)[0] == crc(nonce, trailer[:4092])
    assert not any(trailer[84:4092])
    magic, *counts, numbers_position, tables_crc = struct.unpack_from("<8s9QI", trailer)
    assert (magic, counts, numbers_position) == (b"RUNTAIL\n", [1, 0, 1, 1, 2**64 - 1, 1, 1, 1], 8192)
    (rows, rows_count), (numbers, numbers_count), (names, names_count) = (
        run_page(image, 4096 * kind, nonce, kind) for kind in (1, 2, 3)
    )
    assert rows_count == numbers_count == names_count == 1
    digest, payload_length = struct.unpack_from("<QI", rows)
    assert digest == xxhash.xxh64_intdigest(b"a")
    stream_low, stream_high, flags, deadline, text_length = struct.unpack_from("<IHHQH", names)
    assert (stream_low, stream_high, flags, deadline, text_length) == (1, 0, 0, 2**64 - 1, 1)
    assert names[18:] == b"a"
    assert rows[12 : 12 + 19] == names
    assert len(rows) == 12 + 19 + payload_length
    assert struct.unpack("<QI", numbers) == (1, 0)
    tables = image[16384:20480]
    assert tables_crc == crc(nonce, tables)
    assert struct.unpack_from("<QQ", tables) == (digest, 1)
    assert not any(tables[16:])
    check_state(rows[31:])


def check_state(payload):
    """The payload of the example's row."""
    lsn, *times_and_offsets = struct.unpack_from("<QQQQqqQ", payload)
    assert lsn == 2 << 32 | 4096
    assert times_and_offsets == [CREATED_MS, 5, 0, -1, -(2**63), 0]
    forks, index_length, producers, pairs, seq_length, type_length, flags = struct.unpack_from("<IIIHHHB", payload, 56)
    assert (forks, index_length, producers, pairs, seq_length, type_length, flags) == (0, 24, 1, 0, 0xFFFF, 10, 1)
    assert payload[75:85] == b"text/plain"
    assert struct.unpack_from("<QQQ", payload, 85) == (0, 2**63 + 1 * 2**32 + 0, 5)
    assert struct.unpack_from("<IQQH", payload, 109) == (0, 0, 0, 1)
    assert payload[131:] == b"p"


def whole(directory, name):
    """A file."""
    file = directory.files[name]
    return file.read(0, file.size())


def test_the_code_makes_the_other_files_of_the_example_out_of_the_segment(monkeypatch):
    monkeypatch.setattr("durable_log.engine.commit.IDLE_SECONDS", 3600.0)  # or the log may end later, with a mark
    directory = MemoryDirectory()
    save_manifest(directory, Manifest(UUID), CREATED_MS)
    directory.create("00000001.log").write(0, example("00000001.log"))
    with Store(open_in(directory, QUIET, lambda: CREATED_MS / 1000)) as store:
        store.engine.upkeep.cluster()
        assert "00000001.log" not in directory.names()
        for name in ("00000001.seg", "00000002.run", "MANIFEST"):
            assert whole(directory, name) == example(name), name
        assert store.stream("a").read() == (b"hello", 0, 5, True, True, "text/plain")


def test_what_a_recycled_segment_keeps_never_verifies():
    class InPlace(MemoryDirectory):
        grows_in_place = True

    directory = InPlace()
    with Store(open_in(directory, QUIET, lambda: CREATED_MS / 1000)) as store:
        store.create("a", data=b"hello")
        before = whole(directory, "00000001.log")
    (name,) = [name for name in directory.names() if name.endswith(".log")]
    after = whole(directory, name)
    number, nonce = int(name[:8], 16), struct.unpack_from("<I", after, 48)[0]
    assert number > 1
    assert struct.unpack_from("<I", after, 28)[0] == number
    old, kept = before[4096:8192], after[4096:8192]
    assert kept == old
    assert kept[:4] == b"DBLK"
    assert struct.unpack_from("<I", kept, 4)[0] != crc(nonce, kept[8:64])
    assert struct.unpack_from("<Q", kept, 8)[0] >> 32 == 1


def test_the_code_writes_the_bytes_of_the_segment():
    header, block = segment()
    nonce = codec.nonce_of(UUID, 1)
    made = codec.encode_file_header(codec.FileHeader(codec.KIND_LOG, 1, UUID, nonce, 4 * 2**20, CREATED_MS))
    assert made == header
    create = codec.encode_create(codec.Creation("a", StreamConfig("text/plain"), CREATED_MS))
    producer = codec.encode_producer(0, "p")
    data = codec.encode_claim(0, Producer("p", 0, 0)) + b"hello"
    flags = codec.FLAG_CLOSE | codec.FLAG_PRODUCER
    body = b"".join(
        (
            codec.frame_head(codec.CREATE, 0, 1, 0, len(create)) + create,
            codec.frame_head(codec.PRODUCER, 0, 1, 0, len(producer)) + producer,
            codec.frame_head(codec.DATA, flags, 1, 0, len(data)) + data,
        )
    )
    sealed = bytearray(bytes(64) + body).ljust(4096, b"\0")
    info = ffi.new("dl_block *")
    info.lsn = info.durable_lsn = codec.lsn_of(1, 4096)
    info.time_ms, info.body_length, info.nonce = CREATED_MS, len(body), nonce
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", sealed), len(sealed), info) == lib.DL_OK
    assert sealed == block


def test_the_sizes_that_pages_name_are_those_of_the_code():
    options, mib = Options(), 2**20
    limits = text_of("docs/protocol.md")
    assert f"{options.record_bytes_max // mib} MiB (`Options.record_bytes_max`)" in limits
    assert f"{options.chunk_bytes_max // mib} MiB (`Options.chunk_bytes_max`)" in limits
    assert f"all others {options.segment_bytes // mib} (`Options.segment_bytes`)" in PAGE
    bounded = text_of("docs/ARCHITECTURE.md").partition("## What is bounded")[2]
    assert f"Staged bytes ({options.staged_bytes_max // mib} MiB" in bounded
    assert f"recent bytes ({options.recent_bytes_max // mib} MiB in all" in bounded
