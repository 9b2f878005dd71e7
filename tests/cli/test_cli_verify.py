"""durable-log verify: finds every damaged range, says where it is, and changes nothing."""

from __future__ import annotations

import json
import time

import pytest

import durable_log
from durable_log.model import Options

RECORDS = [b"the first record, ", b"the second record, ", b"the third record, ", b"the last record."]


@pytest.fixture
def filled(data):
    with durable_log.open(data, options=Options(cluster_at_close=False)) as store:
        chat = store.create("chat/1")
        for record in RECORDS:
            chat.append(record)
        store.create("other", data=b"something else")
    return data


def flip(data, needle):
    """Flip one bit of the stored bytes ``needle``. Returns the position of the byte."""
    path = data / "00000001.log"
    content = bytearray(path.read_bytes())
    position = content.index(needle)
    content[position] ^= 1
    path.write_bytes(content)
    return position


def test_a_sound_store_verifies(run, filled):
    finished = run("verify", "--deep", "--data", filled)
    size = sum(map(len, RECORDS)) + len(b"something else")
    assert finished.returncode == 0
    assert finished.stdout.decode() == f"2 streams, {size} bytes read: all verified\n"
    assert finished.stderr == b""


def test_an_empty_store_verifies(run, data):
    durable_log.open(data).close()
    finished = run("verify", "--deep", "--data", data)
    assert (finished.returncode, finished.stdout) == (0, b"0 streams, 0 bytes read: all verified\n")


def test_a_damaged_record_is_found_with_its_offsets_file_and_position(run, filled):
    position = flip(filled, b"second record")
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    assert finished.stderr == b""
    log, stream, total = finished.stdout.decode().splitlines()
    page = position // 4096 * 4096
    assert log == (
        f"00000001.log: position {page} to 00000001.log position {page + 4096}: a block's body fails its checksum"
    )
    start, end = len(RECORDS[0]), len(RECORDS[0] + RECORDS[1])
    assert stream.startswith(f"stream chat/1: offsets {start} to {end}: ")
    assert total == f"2 streams, {sum(map(len, RECORDS)) - len(RECORDS[1]) + 14} bytes read: 1 ranges damaged"


def test_json_tells_the_same_to_programs(run, filled):
    flip(filled, b"third record")
    finished = run("verify", "--deep", "--json", "--data", filled)
    assert finished.returncode == 1
    log, stream, total = map(json.loads, finished.stdout.splitlines())
    start = len(RECORDS[0] + RECORDS[1])
    assert (log["damage"], log["file"]) == ("log", "00000001.log")
    assert (stream["stream"], stream["start"], stream["end"]) == ("chat/1", start, start + len(RECORDS[2]))
    assert not total["sound"]


def test_what_is_left_of_a_damaged_stream_can_still_be_read(run, filled):
    flip(filled, b"third record")
    finished = run("cat", "--data", filled, "chat/1")
    assert finished.returncode == 1
    assert finished.stdout == RECORDS[0] + RECORDS[1]
    assert b"run durable-log verify" in finished.stderr
    rest = run("cat", "--data", filled, "--offset", len(b"".join(RECORDS[:3])), "chat/1")
    assert rest.stdout == RECORDS[3]


def test_a_file_without_a_header_is_reported(run, filled):
    (filled / "00000002.log").write_bytes(bytes(8192))
    finished = run("verify", "--deep", "--data", filled)
    assert finished.returncode == 1
    assert b"00000002.log: the file header fails its checksum" in finished.stdout


def test_verifying_neither_renews_nor_removes_a_stream(run, data):
    now = time.time()
    with durable_log.open(data, clock=lambda: now - 1000) as store:
        store.create("long gone", ttl=10, data=b"x")
        store.create("sliding", ttl=2000, data=b"x")
    assert run("verify", "--deep", "--data", data).stdout == b"2 streams, 2 bytes read: all verified\n"
    with durable_log.open(data, clock=lambda: now - 991) as store:
        assert list(store.names()) == ["long gone", "sliding"]
    with durable_log.open(data, clock=lambda: now + 999) as store:
        assert list(store.names()) == ["sliding"]
    with durable_log.open(data, clock=lambda: now + 1001) as store:
        assert list(store.names()) == []
