"""The first inputs of every target, made by the engine itself: files of a small store, taken apart.

Run it after the format has changed: ``python tests/fuzz/make_corpus.py``. The same code makes the same bytes.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import durable_log.engine.manifest
from durable_log import Options, Producer
from durable_log._core import ffi, lib
from durable_log.engine.cluster_build import LogSource, write_clustered
from durable_log.engine.files import MemoryDirectory
from durable_log.engine.format import crc32c, frame_head, lsn_of, pages
from durable_log.engine.opening import open_in
from durable_log.engine.run_format import NEVER, encode_row
from durable_log.engine.run_writer import write_run
from durable_log.engine.segment import LogSegment
from durable_log.store import Store

CORPUS = Path(__file__).parent / "corpus"
FOUND = "found-"
"""Inputs that came of fuzzing, and take branches that no other one does, are left alone."""

UUID = bytes(range(16))
PAGE = 4096
NONCE_AT = 48

PAYLOAD = bytes((index * 2654435761 >> 24 & 0xFF) | 1 for index in range(1, 3 * 65536 + 5001))
"""The stream bytes of targets to which only their checksums matter: those of ``fuzz_payload`` in ``harness.h``."""


def main() -> None:
    for target, inputs in (
        ("block", block_inputs()), ("json", json_inputs()), ("records", record_inputs()),
        ("entries", cluster_inputs("entries")), ("cluster", cluster_inputs("cluster")), ("stage", stage_inputs()),
        ("run_pages", page_inputs()), ("run_merge", merge_inputs()), ("run_pack", pack_inputs()),
        ("run_find", find_inputs()),
    ):  # fmt: skip
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith(FOUND):
                old.unlink()
        for name, data in inputs:
            (folder / name).write_bytes(data)


def content(directory: MemoryDirectory, name: str) -> bytes:
    file = directory.files[name]
    return file.read(0, file.size())


def nonce_in(raw: bytes) -> int:
    return int(struct.unpack_from("<I", raw, NONCE_AT)[0])


# ---- blocks and frames


def a_store(directory: MemoryDirectory) -> None:
    """One of everything that a log may hold."""
    durable_log.engine.manifest.random_bytes = lambda size: UUID[:size]
    options = Options(segment_bytes=65536, record_bytes_max=32768, preallocate=False, cluster_at_close=False)
    store = Store(open_in(directory, options, clock=lambda: 1_893_456_000.0))
    one = store.create("one", content_type="text/plain", ttl=3600)
    one.append(b"hello", producer=Producer("somebody", 0, 0), seq="a")
    one.append_many([b"more", b"and more", b""])
    one.append(b"x" * 5000, close=True)
    two = store.create("two", content_type="application/json")
    two.append_json({"a": [1, 2.5e3, None, True]}, "text")
    store.create("three", fork_of="one", fork_at=5).append(b"forked", producer=Producer("p", 1, 0))
    one.trim(3)
    two.delete()
    store.close()


def blocks_of(raw: bytes, lsn: int, nonce: int) -> Iterator[bytes]:
    info, at = ffi.new("dl_block *"), PAGE
    while lib.dl_block_check(raw[at:], len(raw) - at, lsn + at - PAGE, nonce, info) == lib.DL_OK:
        yield raw[at : at + 64 + info.body_length]
        at += pages(64 + info.body_length)


def block_inputs() -> Iterator[tuple[str, bytes]]:
    directory = MemoryDirectory()
    a_store(directory)
    log, manifest = content(directory, "00000001.log"), content(directory, "MANIFEST")
    blocks = list(blocks_of(log, lsn_of(1, PAGE), nonce_in(log)))
    head = struct.pack("<II", nonce_in(log), 1)
    yield "first", head + struct.pack("<II", 0, 0x40000) + blocks[0]
    end = PAGE + sum(pages(len(block)) for block in blocks[:3])
    yield "three", head + struct.pack("<II", 4096, 0) + log[PAGE : end - pages(len(blocks[2])) + len(blocks[2])]
    block = next(blocks_of(manifest, PAGE, nonce_in(manifest)))
    yield "manifest", struct.pack("<IIII", nonce_in(manifest), 0, 1, 1) + block
    yield "all", head + struct.pack("<II", 100, 0x200001) + one_block(b"".join(block[64:] for block in blocks), log)


def one_block(body: bytes, log: bytes) -> bytes:
    """The frames of many blocks in one."""
    block = bytearray((bytes(64) + body).ljust(pages(64 + len(body)), b"\0"))
    info = ffi.new("dl_block *", {"lsn": lsn_of(1, PAGE), "body_length": len(body), "nonce": nonce_in(log)})
    assert lib.dl_block_seal(ffi.from_buffer("uint8_t[]", block), len(block), info) == lib.DL_OK
    return bytes(block[: 64 + len(body)])


# ---- JSON


def json_inputs() -> Iterator[tuple[str, bytes]]:
    values = {
        "scalars": '[null, true, false, 0, -1.5e-10, "text", 12E+3]',
        "objects": '{"a": {"b": [{}, [], {"c": "d"}]}, "": -0}',
        "strings": r'"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00 é€😀"',
        "nested": "[[[[[[[[1],2],3]]]]],{}]",
        "spaces": " \t\r\n[ 1 , 2 ]\n",
        "empty": "[]",
        "cut": '[1, "tex',
        "twice": "1 2",
        "texts": '{"a": 1}\x1e[2, "3"] \x1e []\x1e4',
        "texts cut": "1\x1e\x1e2",
        "dump": json.dumps([{"id": index, "name": "x" * index} for index in range(9)]),
    }
    for name, text in values.items():
        yield name, struct.pack("<h", 3 if name == "nested" else 512) + text.encode()


# ---- clustered segments


def frames_of(records: list[tuple[int, int, bytes]], nonce: int, position: int) -> bytes:
    body = b""
    for stream, offset, data in records:
        covered = frame_head(1, 0, stream, offset, len(data))[4:] + data
        body += struct.pack("<I", crc32c(nonce ^ position + len(body), covered)) + covered
    return body


def clustered(records: list[tuple[int, int, bytes]]) -> tuple[bytes, int, int, int]:
    """A clustered segment, its nonce, the position of its rows, and their number."""
    directory = MemoryDirectory()
    body = frames_of(records, 0, 0)
    segment = LogSegment.create(directory, 1, PAGE + pages(64 + len(body)), UUID, 1)
    info = ffi.new("dl_block *", {"lsn": lsn_of(1, PAGE), "body_length": len(body), "nonce": segment.nonce})
    segment.file.commit(bytearray((bytes(64) + body).ljust(pages(64 + len(body)), b"\0")), info, False)
    built = write_clustered(
        directory, 1, UUID, [LogSource(segment, [(PAGE + 64, len(body))])], pause=lambda: None, row_max=200_000
    )
    assert built is not None
    return content(directory, "00000001.seg"), built.nonce, built.trailer.rows_position, built.trailer.rows


def records_of(sizes: list[tuple[int, int]]) -> list[tuple[int, int, bytes]]:
    """Records (stream, length) whose bytes, grouped by stream, are those of the payload."""
    order = sorted(range(len(sizes)), key=lambda index: sizes[index][0])
    starts = dict(zip(order, accumulate((sizes[index][1] for index in order), initial=0), strict=False))
    tails: dict[int, int] = {}
    records = []
    for index, (stream, length) in enumerate(sizes):
        offset = tails.get(stream, 100 * stream)
        records.append((stream, offset, PAYLOAD[starts[index] : starts[index] + length]))
        tails[stream] = offset + length
    return records


SHAPES = {
    "small": [(1, 10), (2, 300), (1, 20), (3, 1), (2, 5)],
    "pages": [(5, 4096), (5, 1), (6, 8191), (5, 4000)],
    "chunks": [(1, 65000), (1, 5000), (1, 70000), (2, 40), (1, 100)],
    "many": [(7, 9)] * 200 + [(8, 130)] * 3,
}


def cluster_inputs(target: str) -> Iterator[tuple[str, bytes]]:
    for name, sizes in SHAPES.items():
        raw, nonce, rows_position, rows = clustered(records_of(sizes))
        table = raw[rows_position:-64]
        if target == "cluster":
            head = struct.pack("<8I", nonce, rows_position - PAGE, rows, 2**31, 2**32 - 1, 1000, 0, 0)
            yield name, head + table
            continue
        _, length, stream, start, _, entries, size, _ = struct.unpack_from("<IIQQQQII", table)
        head = struct.pack("<IQQI", nonce, stream, start, length - 1)
        for_row = raw[entries : entries + size]
        yield name, head + struct.pack("<6I", 0, 3, 100, 200, 50, 2**32 - 1) + for_row


def stage_inputs() -> Iterator[tuple[str, bytes]]:
    for name, sizes in SHAPES.items():
        records = records_of([(stream, min(length, 700)) for stream, length in sizes[:40]])
        half = len(records) // 2
        logs = [frames_of(records[:half], 77, 0), frames_of(records[half:], 78, 0)]
        yield name, struct.pack("<7I", 77, len(logs[0]), 1500, 900, 2**31, 0, 0) + b"".join(logs)


def record_inputs() -> Iterator[tuple[str, bytes]]:
    index = struct.pack("<9Q", 0, 1 << 63 | 5, 10, 3, 20, 1 << 32 | 4096, 30, 1 << 32 | 8192, 40)
    records = [
        struct.pack("<QQQII", stream, offset, position << 8, 1 + stream % 6 << 24 | 24, len(data))
        for position, (stream, offset, data) in enumerate(records_of(SHAPES["small"]))
    ]
    yield "small", struct.pack("<4I", 0, 1, len(index), 2) + index + b"".join(records)
    yield "many", struct.pack("<4I", 8, 0, 0, 4) + b"".join(records * 8)


# ---- runs


def rows_of(count: int, size: int) -> list[bytes]:
    return [
        encode_row(
            f"{'name' if index % 2 else 'n'}/{index}", index, PAYLOAD[: index * size], tombstone=index % 5 == 4,
            hidden=index % 7 == 6, deadline=1000 * index if index % 3 else NEVER,
        )
        for index in range(count)
    ]  # fmt: skip


def units_of(rows: list[bytes], source: int = 0) -> dict[int, list[bytes]]:
    """The pages of a run of these rows in short form, by their kind."""
    directory = MemoryDirectory()
    run = write_run(directory, 1, UUID, rows, lambda: None)
    raw, at = content(directory, "00000001.run"), PAGE
    units: dict[int, list[bytes]] = {kind: [] for kind in (1, 2, 3)}
    while at < run.trailer.tables_position:
        length, _, items, kind = struct.unpack_from("<IIHB", raw, at + 4)
        head = struct.pack("<BBHIH", kind - 1, source << 6, items, 0, length - 16)
        units[kind].append(head + raw[at + 16 : at + length])
        at += pages(length)
    return units


def page_inputs() -> Iterator[tuple[str, bytes]]:
    rows = rows_of(12, 11)
    for kind, units in units_of(rows).items():
        head = struct.pack("<IIQQQBB", 5, 1, struct.unpack_from("<Q", rows[3])[0], 3, 5000, 4, 6)
        yield f"kind{kind}", head + b"name" + b"name/3" + units[0]


def merge_inputs() -> Iterator[tuple[str, bytes]]:
    sources = [rows_of(9, 5), rows_of(5, 900), rows_of(12, 0)[3:]]
    for kind in (1, 2, 3):
        units = [unit for source, rows in enumerate(sources) for unit in units_of(rows, source)[kind]]
        yield f"kind{kind}", struct.pack("<IBBBB", 5, kind - 1, 3, kind % 2, 3) + b"".join(units)


def pack_inputs() -> Iterator[tuple[str, bytes]]:
    for kind in (0, 1):
        yield f"kind{kind}", struct.pack("<IBB", 5, kind, 2 + kind) + b"".join(rows_of(9, 40) + rows_of(3, 10))
    yield "large", struct.pack("<IBB", 5, 0, 0) + encode_row("x", 1, PAYLOAD[:5000]) + rows_of(2, 3)[1]


def find_inputs() -> Iterator[tuple[str, bytes]]:
    yield "sound", struct.pack("<IBIB", 5, 0, 0xFFFFFF, 0) + b"".join(units_of(rows_of(12, 90))[1])
    yield "even", struct.pack("<IBIB", 5, 16, 0x10000, 1) + b"".join(units_of(rows_of(20, 30))[1])
    yield "lying", struct.pack("<IBIB", 5, 3, 0x11001, 1) + b"".join(units_of(rows_of(9, 100))[1])


if __name__ == "__main__":
    main()
