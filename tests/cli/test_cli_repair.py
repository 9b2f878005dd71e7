"""durable-log repair and dump: what people see of them, and what they leave on disk."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from cli_processes import COMMAND, SECONDS_MAX, environment

import durable_log
from durable_log.errors import Corruption
from durable_log.model import Options

SIZE = 20_000


def content_of(name):
    return b"".join(b"%s:%06d " % (name.encode(), number) for number in range(SIZE))[:SIZE]


@pytest.fixture
def damaged(data):
    """Two streams in a clustered segment, of which one has lost a page, and records in the log, one of them damaged."""
    with durable_log.open(data) as store:
        for name in ("alpha", "beta"):
            store.create(name, data=content_of(name))
    with durable_log.open(data, options=Options(cluster_at_close=False)) as store:
        for record in (b"one, ", b"two, ", b"three."):
            store.stream("alpha").append(record)
    flip(next(data.glob("*.seg")), b"beta:000500")
    flip(max(data.glob("*.log")), b"two, ")
    return data


def flip(path, needle):
    content = bytearray(path.read_bytes())
    content[content.index(needle)] ^= 1
    path.write_bytes(content)


def contents(data):
    return {path.name: path.read_bytes() for path in data.rglob("*") if path.is_file() and path.name != "LOCK"}


def test_a_dry_run_says_what_is_lost_and_changes_nothing(run, damaged):
    before = contents(damaged)
    finished = run("repair", "--dry-run", damaged)
    assert finished.returncode == 1
    assert finished.stderr == b""
    lines = finished.stdout.decode().splitlines()
    assert any(line.startswith(f"stream alpha: offsets {SIZE + 5} to {SIZE + 10} are lost: ") for line in lines)
    assert any(line.startswith("stream beta: offsets 4096 to 8192 are lost: ") for line in lines)
    assert lines[-1] == (
        "4101 bytes of 2 streams are lost, all else is kept; "
        "places of the log that may have held records of which nothing else tells: 1; nothing was changed"
    )
    assert contents(damaged) == before


def test_a_repair_keeps_what_is_damaged_and_reports_what_is_lost(run, damaged):
    before = contents(damaged)
    finished = run("repair", damaged)
    assert finished.returncode == 1
    folder = damaged / "quarantine" / "0001"
    text = (folder / "report.txt").read_text("utf-8")
    assert text.startswith(finished.stdout.decode().rsplit("\n", 2)[0])
    assert "What to do next:" in text
    kept = {path.name for path in folder.iterdir()} - {"report.txt", "report.json", "findings.tsv"}
    assert {name: (folder / name).read_bytes() for name in kept} == {name: before[name] for name in kept}
    assert {name.rpartition(".")[2] for name in kept} == {"seg", "log"}
    report = json.loads((folder / "report.json").read_text("utf-8"))
    lost = {(one["name"], one["start"], one["end"]) for one in report if one["kind"] == "lost"}
    assert lost == {("alpha", SIZE + 5, SIZE + 10), ("beta", 4096, 8192)}
    assert {one["file"] for one in report if one["kind"] == "lost"} == kept
    again = run("repair", damaged)
    assert (again.returncode, again.stdout) == (0, b"nothing is damaged; nothing was changed\n")


def test_afterwards_only_what_is_lost_can_not_be_read(run, damaged):
    run("repair", damaged)
    verified = run("verify", "--deep", damaged)
    assert verified.returncode == 0
    lines = verified.stdout.decode().splitlines()
    known = "known to be lost, see quarantine/0001/report.txt"
    assert sorted(lines[:-1]) == [
        f"stream alpha: offsets {SIZE + 5} to {SIZE + 10}: {known}",
        f"stream beta: offsets 4096 to 8192: {known}",
    ]
    read = 2 * SIZE + 16 - 4101
    assert lines[-1] == f"2 streams, {read} bytes read: all verified; 2 ranges are known to be lost"
    quick = run("verify", "--json", damaged)
    assert quick.returncode == 0
    assert json.loads(quick.stdout.splitlines()[-1])["known_lost"] == 2
    with durable_log.open(damaged) as store:
        beta = store.stream("beta")
        assert beta.read().data == content_of("beta")[:4096]
        with pytest.raises(Corruption, match=r"quarantine/0001/report.txt.*4096 to 8192 were"):
            beta.read(4096)
        assert beta.read(8192).data == content_of("beta")[8192:]
        assert store.stream("alpha").append(b"four").offset == SIZE + 16
        store.compact()


def test_programs_are_told_the_same(run, damaged):
    lines = [json.loads(line) for line in run("repair", "--json", damaged).stdout.splitlines()]
    assert {line["kind"] for line in lines} == {"damage", "unknown", "moved", "lost", "total"}
    assert lines[-1] == {"kind": "total", "number": 1, "lost": 2}


def test_a_loss_of_which_nothing_else_tells_is_told_all_the_same(run, data):
    """The newest record of a stream: after it, the stream ends before it, and only the place is known."""
    with durable_log.open(data, options=Options(cluster_at_close=False)) as store:
        store.create("alpha", data=b"first")
        store.stream("alpha").append(b"the newest")
        store.create("beta", data=b"b")
        store.stream("beta").append(b"c")
    flip(max(data.glob("*.log")), b"the newest")
    finished = run("repair", data)
    told = finished.stdout.decode()
    assert finished.returncode == 1
    assert "it may have held records of which nothing else tells" in told
    assert "0 bytes of 0 streams are lost" in told
    assert run("repair", data).returncode == 0


def test_records_of_streams_whose_creation_is_damaged_are_told_before_a_repair_and_come_back(run, data):
    with durable_log.open(data, options=Options(cluster_at_close=False)) as store:
        store.create("whose-creation-is-damaged")
        store.stream("whose-creation-is-damaged").append(b"bytes of it")
        store.create("other", data=b"x")
    flip(max(data.glob("*.log")), b"whose-creation")
    finished = run("verify", data)
    assert finished.returncode == 1
    told = b"the log has 1 records of streams whose creation is lost; a repair brings them back"
    assert told in finished.stdout
    total = json.loads(run("verify", "--json", data).stdout.splitlines()[-1])
    assert (total["sound"], total["unknown_records"]) == (False, 1)
    assert run("repair", data).returncode == 1
    assert run("cat", "--data", data, "lost+found/1").stdout == b"bytes of it"
    assert run("verify", "--deep", data).returncode == 0


def test_a_store_that_cannot_be_opened_is_verified_and_repaired(run, damaged):
    (damaged / "MANIFEST").unlink()
    verified = run("verify", "--deep", damaged)
    assert verified.returncode == 1
    lines = verified.stdout.decode().splitlines()
    assert any(line.startswith("stream beta: offsets 4096 to 8192: ") for line in lines)
    assert any(line.startswith(f"stream alpha: offsets {SIZE + 5} to {SIZE + 10}: ") for line in lines)
    assert run("ls", "--data", damaged).returncode == 1
    assert run("repair", damaged).returncode == 1
    assert run("ls", "--data", damaged).stdout == b"alpha\nbeta\n"


def test_dump_shows_a_store_in_use_and_a_copied_file(run, damaged, tmp_path):
    with durable_log.open(damaged):
        shown = run("dump", damaged)
    assert shown.returncode == 0
    text = shown.stdout.decode()
    assert "DAMAGED: a page of stream bytes fails its checksum" in text
    assert "DAMAGED: no frame verifies here" in text
    segment = next(damaged.glob("*.seg"))
    copy = tmp_path / segment.name
    copy.write_bytes(segment.read_bytes())
    lines = [json.loads(line) for line in run("dump", "--json", "--payload", copy).stdout.splitlines()]
    assert lines[0]["kind"] == "clustered"
    assert sum("damage" in line for line in lines) == 1
    assert any("payload" in line for line in lines)
    assert run("dump", tmp_path / "nothing").returncode == 2


def test_dump_shows_the_reports_of_repairs(run, damaged):
    run("repair", damaged)
    text = run("dump", damaged).stdout.decode()
    assert "quarantine/0001/report.txt: stream beta: offsets 4096 to 8192 are lost" in text


def test_a_reader_that_has_seen_enough_ends_a_dump_quietly(data):
    with durable_log.open(data) as store:
        for number in range(1000):
            store.create(f"stream {number}", data=b"x")
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "dump", data]
    ended = subprocess.run(
        command, stdout=writing, stderr=subprocess.PIPE, env=environment(), timeout=SECONDS_MAX, check=False
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, b"")
