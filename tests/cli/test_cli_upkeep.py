"""durable-log stats, compact and backup; and the backups of a server."""

from __future__ import annotations

import json
import os
import signal

import pytest
from cli_processes import first_line

import durable_log
from durable_log.model import Options


@pytest.fixture
def filled(data):
    """A store with clustered segments, runs and a log."""
    with durable_log.open(data, options=Options(cluster_at_close=False)) as store:
        for number in range(20):
            store.create(f"s{number:02}", data=bytes([65 + number]) * 200_000)
        store.engine.upkeep.cluster()
        store.create("young", data=b"in the log")
    return data


def output(finished):
    assert finished.stderr.decode() == ""
    assert finished.returncode == 0
    return finished.stdout


def disk_bytes(directory):
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


def test_stats_tells_programs_every_figure(run, filled):
    figures = json.loads(output(run("stats", "--json", "--data", filled)))
    with durable_log.open(filled, options=Options(cluster_at_close=False)) as store:
        assert list(figures) == list(store.stats())
    assert (figures["streams"], figures["clustered_live_bytes"], figures["catalog_rows"]) == (21, 4_000_000, 20)
    assert figures["disk_bytes"] == disk_bytes(filled)


def test_stats_shows_people_a_table(run, filled):
    rows = dict(line.rsplit(None, 1) for line in output(run("stats", "--data", filled)).decode().splitlines())
    assert rows["streams"] == "21"
    table = output(run("stats", "--data", filled)).decode()
    assert "\nclustered live bytes            4,000,000  3.8 MiB\n" in table
    assert "\nlog bytes                      16,777,216  16.0 MiB\n" in table


def test_stats_changes_nothing(run, filled):
    before = sorted((path.name, path.read_bytes()) for path in filled.iterdir() if path.suffix in (".seg", ".run"))
    output(run("stats", "--data", filled))
    after = sorted((path.name, path.read_bytes()) for path in filled.iterdir() if path.suffix in (".seg", ".run"))
    assert before == after


def test_compact_says_how_much_it_gave_back(run, filled):
    output(run("rm", "--data", filled, *[f"s{number:02}" for number in range(18)]))
    before = disk_bytes(filled)
    said = output(run("compact", "--data", filled)).decode()
    after = disk_bytes(filled)
    assert said.startswith(f"{before:,} bytes on disk before, ")
    assert said.endswith(" given back\n")
    assert after < 400_000 + 4 * 2**20 + 100_000
    told = json.loads(output(run("compact", "--json", "--data", filled)))
    assert abs(told["bytes_after"] - after) <= 16_384
    assert output(run("cat", "--data", filled, "s19")) == bytes([65 + 19]) * 200_000
    assert output(run("cat", "--data", filled, "young")) == b"in the log"


def test_a_backup_is_a_store_like_any_other(run, filled, tmp_path):
    said = output(run("backup", "--data", filled, tmp_path / "monday")).decode()
    assert said.startswith(f"{tmp_path / 'monday'}: 21 streams; 2 files linked, 1 copied (")
    assert output(run("cat", "--data", tmp_path / "monday", "young")) == b"in the log"
    assert (
        output(run("verify", "--deep", "--data", tmp_path / "monday"))
        == b"21 streams, 4000010 bytes read: all verified\n"
    )
    output(run("append", "--data", tmp_path / "monday", "young", " of the copy"))
    assert output(run("cat", "--data", filled, "young")) == b"in the log"
    told = json.loads(output(run("backup", "--json", "--no-verify", "--data", filled, tmp_path / "tuesday")))
    assert (told["files_linked"], told["files_copied"], told["streams"]) == (2, 1, 21)


def test_a_backup_into_something_else_is_refused_in_one_line(run, filled, tmp_path):
    finished = run("backup", "--data", filled, tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.decode() == (
        f"Error: no backup was made in {tmp_path}: it holds 'store' already; name a new or an empty directory\n"
    )


def test_a_damaged_store_is_backed_up_only_on_demand(run, filled, tmp_path):
    segment = next(filled.glob("*.seg"))
    content = bytearray(segment.read_bytes())
    content[5000] ^= 1
    segment.write_bytes(content)
    finished = run("backup", "--data", filled, tmp_path / "copy")
    assert finished.returncode == 1
    assert f"what was copied does not verify: {segment.name}: position 4096: ".encode() in finished.stderr
    assert not (tmp_path / "copy").exists()
    output(run("backup", "--no-verify", "--data", filled, tmp_path / "copy"))
    assert run("verify", "--deep", "--data", tmp_path / "copy").returncode == 1


def test_a_store_that_is_in_use_says_who_can_make_a_backup(run, filled, tmp_path):
    with durable_log.open(filled):
        finished = run("backup", "--data", filled, tmp_path / "copy")
    message = finished.stderr.decode()
    assert finished.returncode == 1
    assert f"is open in process {os.getpid()} on" in message
    assert "--backups DIR" in message
    assert "store.backup(TARGET)" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "copy").exists()


def test_a_server_makes_a_backup_when_a_signal_asks_for_one(serve, run, tmp_path):
    server = serve("store", 0, "--backups", "backups")
    server.put("chat/1", b"before")
    server.process.send_signal(signal.SIGUSR1)
    said = first_line(server.process)
    (made,) = (tmp_path / "backups").iterdir()
    assert said.startswith(f"durable-log made a backup: backups/{made.name}: 1 streams; ")
    server.post("chat/1", b" and after")
    assert output(run("cat", "--data", made, "chat/1")) == b"before"
    assert server.get("chat/1", "?offset=-1") == b"before and after"
    assert server.stop() == 0
    assert server.process.stderr.read() == b""


def test_a_server_without_a_place_for_backups_says_so_and_lives_on(serve):
    server = serve()
    server.process.send_signal(signal.SIGUSR1)
    server.put("a", b"x")
    assert server.get("a", "?offset=-1") == b"x"
    assert server.stop() == 0
    assert b"no backup was made: start the server with --backups DIR" in server.process.stderr.read()
