"""durable-log verify, on the files that the log becomes: clustered segments, runs, the manifest."""

from __future__ import annotations

import json
import re

import pytest

import durable_log
from durable_log.engine.cluster import ROW_SIZE, ClusteredSegment
from durable_log.engine.files import DiskDirectory

SIZE = 20_000
CLOSED = "the store can't be opened; durable-log repair mends what can be mended"
NAMES = ("alpha", "beta", "gone")


def content_of(name):
    return b"".join(b"%s:%06d " % (name.encode(), number) for number in range(SIZE))[:SIZE]


@pytest.fixture
def filled(data):
    """Three streams in a clustered segment, of which one was deleted since; one stream in the log."""
    with durable_log.open(data) as store:
        for name in NAMES:
            content = content_of(name)
            store.create(name, data=content[:15_000])
            store.stream(name).append(content[15_000:])
        store.engine.upkeep.cluster()
        store.create("young", data=b"in the log")
        store.delete("gone")
    return data


@pytest.fixture
def segment(filled):
    return next(filled.glob("*.seg"))


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def position_of(path, needle):
    return path.read_bytes().index(needle)


def test_all_of_it_verifies(run, filled):
    finished = run("verify", "--deep", "--data", filled)
    assert finished.stdout.decode() == f"3 streams, {2 * SIZE + 10} bytes read: all verified\n"
    assert finished.returncode == 0


def test_a_damaged_page_of_a_segment_is_told_by_stream_and_offsets(run, filled, segment):
    position = position_of(segment, b"beta:000500")
    flip(segment, position)
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    assert finished.stderr == b""
    file, hole, total = finished.stdout.decode().splitlines()
    reason = "a page of stream bytes fails its checksum"
    start = 500 * 12 // 4096 * 4096
    page = 4096 + 20_000 + start
    assert file == f"{segment.name}: position {page}: {reason} (stream beta, offsets {start} to {start + 4096})"
    assert hole == f"stream beta: offsets {start} to {start + 4096}: {segment.name} position {page}: {reason}"
    assert total == f"3 streams, {2 * SIZE + 10 - 4096} bytes read: 1 ranges damaged"


def test_programs_are_told_the_same(run, filled, segment):
    flip(segment, position_of(segment, b"beta:000500"))
    file, hole, total = map(json.loads, run("verify", "--deep", "--json", "--data", filled).stdout.splitlines())
    assert (file["damage"], file["file"], file["stream"]) == ("file", segment.name, "beta")
    assert (file["start"], file["end"]) == (hole["start"], hole["end"])
    assert (hole["damage"], hole["stream"], total["sound"]) == ("stream", "beta", False)


def test_damage_in_bytes_that_nobody_needs_is_found_and_is_nobodys(run, filled, segment):
    flip(segment, position_of(segment, b"gone:000001"))
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    file, total = finished.stdout.decode().splitlines()
    assert file.startswith(f"{segment.name}: position ")
    assert file.endswith("(stream number 3, offsets 0 to 4096)")
    assert total == f"3 streams, {2 * SIZE + 10} bytes read: 0 ranges damaged"


def test_a_damaged_row_costs_its_stream_only(run, filled, segment):
    directory = DiskDirectory(filled)
    opened = ClusteredSegment.open(directory, segment.name)
    position = opened.trailer.rows_position + ROW_SIZE  # that of beta
    opened.close()
    directory.close()
    flip(segment, position + 20)
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    lines = finished.stdout.decode().splitlines()
    assert any(line.startswith(f"{segment.name}: position {position}: a row fails its checksum") for line in lines)
    assert any(
        line.startswith(f"stream beta: offsets 0 to {SIZE}: {segment.name} position {position}: ") for line in lines
    )
    assert lines[-1] == f"3 streams, {SIZE + 10} bytes read: 1 ranges damaged"


def test_a_damaged_entry_costs_its_chunk_only(run, filled, segment):
    directory = DiskDirectory(filled)
    opened = ClusteredSegment.open(directory, segment.name)
    position = opened.row(1).entries_position
    opened.close()
    directory.close()
    flip(segment, position + 9)
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    lines = finished.stdout.decode().splitlines()
    assert any(line.startswith(f"stream beta: offsets 0 to {SIZE}: ") for line in lines)
    assert lines[-1] == f"3 streams, {SIZE + 10} bytes read: 1 ranges damaged"


def test_a_damaged_run_is_told_even_if_nobody_can_say_which_streams_there_are(run, filled):
    path = next(filled.glob("*.run"))
    flip(path, 4096 + 40)
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    assert finished.stderr == b""
    first, *_ = finished.stdout.decode().splitlines()
    assert first.startswith(f"{path.name}: position 4096: ")


@pytest.mark.parametrize("position", [20, 4096 + 70])
def test_a_damaged_manifest_is_told(run, filled, position):
    flip(filled / "MANIFEST", position)
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    assert finished.stderr == b""
    first, total = finished.stdout.decode().splitlines()
    assert first.startswith("MANIFEST: position ")
    assert first.endswith("fails its checksum")
    assert total == CLOSED


@pytest.mark.parametrize("suffix", [".seg", ".run"])
def test_a_file_that_lost_its_header_and_one_that_is_missing_are_told(run, filled, suffix):
    path = next(filled.glob(f"*{suffix}"))
    flip(path, 20)
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    assert finished.stdout.decode().splitlines() == [
        f"{path.name}: position 0: the file header or the trailer fails its checksum",
        CLOSED,
    ]
    path.unlink()
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    first, *lost, total = finished.stdout.decode().splitlines()
    assert (first, total) == (f"{path.name}: position 0: the manifest names it, and it is not there", CLOSED)
    hit = {re.match("stream (.*): offsets 0 to 20000: ", line)[1] for line in lost}
    assert hit == ({"alpha", "beta"} if suffix == ".seg" else set())


@pytest.mark.parametrize("deep", [(), ("--deep",)])
@pytest.mark.parametrize("damage", ["none", "MANIFEST", "*.seg", "*.run"])
def test_verifying_changes_no_byte_of_a_sound_or_a_damaged_store(run, filled, damage, deep):
    for path in filled.glob(damage):
        flip(path, 4096 + 70)
    (filled / "0000ffff.seg.tmp").write_bytes(b"unfinished")
    before = contents_of(filled)
    finished = run("verify", *deep, "--data", filled)
    assert finished.returncode == (damage != "none" and (damage != "*.seg" or bool(deep)))
    assert contents_of(filled) == before


def contents_of(data):
    return {path.name: path.read_bytes() for path in data.iterdir() if path.name != "LOCK"}
