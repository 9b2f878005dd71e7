"""A real process under load, killed at random moments; every acknowledgement is written down outside of it."""

from __future__ import annotations

import http.client
import json
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from sigkill_writer import OPTIONS, payload
from twins import PATIENCE_SECONDS, Task

import durable_log
from durable_log.errors import StreamClosed
from durable_log.store import Store

RECORD = re.compile(rb"<([^/<>]+)/(\d+)\.*>")
KILLS, KILLS_OVER_HTTP = 24, 10


class Ledger:
    """What was acknowledged, kept by the process that survives."""

    def __init__(self, streams: int) -> None:
        self.next_seq = {(f"s{stream}", f"p{stream}{kind}"): 0 for stream in range(streams) for kind in ("a", "b", "w")}
        self.offsets: dict[tuple[str, str, int], int] = {}
        self.closed = self.deleted = self.acknowledged = 0

    def progress(self) -> bytes:
        producers = [[*key, seq] for key, seq in self.next_seq.items()]
        return json.dumps({"producers": producers, "closed": self.closed, "deleted": self.deleted}).encode()

    def note(self, words: list[str]) -> None:
        self.acknowledged += 1
        if words[0] == "append":
            stream, producer, seq, offset = words[1], words[2], int(words[3]), int(words[4])
            assert seq == self.next_seq[stream, producer], words
            self.next_seq[stream, producer] = seq + 1
            if offset >= 0:
                self.offsets[stream, producer, seq] = offset
        elif words[0] == "close":
            self.closed = int(words[1]) + 1
        elif words[0] == "delete":
            self.deleted = int(words[1]) + 1

    def check(self, store: Store) -> None:
        """Everything acknowledged is there exactly once, in order, at its offset; of the rest, whole or nothing."""
        report = store.report
        assert (report.damage, report.lost, report.unreadable_segments) == ([], [], [])
        contents = {stream: read_all(store, stream) for stream, _producer in self.next_seq}
        for (stream, producer), acknowledged in self.next_seq.items():
            content = contents[stream]
            found = [int(seq) for name, seq in RECORD.findall(content) if name.decode() == producer]
            assert found == list(range(len(found))), (stream, producer, "a gap, a double or a wrong order")
            assert acknowledged <= len(found) <= acknowledged + 1, (stream, producer, acknowledged, len(found))
        for stream, content in contents.items():
            assert RECORD.sub(b"", content) == b"", stream
        for (stream, producer, seq), offset in self.offsets.items():
            data = payload(producer, seq)
            assert contents[stream][offset : offset + len(data)] == data, (stream, producer, seq, offset)
        for number in range(self.closed):
            chunk = store.stream(f"closed/{number}").read()
            assert (chunk.data, chunk.closed) == (b"%d" % number, True)
        if self.closed:
            with pytest.raises(StreamClosed):
                store.stream("closed/0").append(b"x")
        assert set(store.names("deleted/")) <= {f"deleted/{self.deleted}"}


def read_all(store: Store, name: str) -> bytes:
    if name not in set(store.names(name)):
        return b""
    pieces, chunk = [], store.stream(name).read()
    while chunk.data:
        pieces.append(chunk.data)
        chunk = store.stream(name).read(chunk.next_offset)
    return b"".join(pieces)


def one_life(path: Path, ledger: Ledger, acknowledgements: int) -> None:
    """Start the writers where the ledger says, note what they acknowledge, kill them, note the rest."""
    command = [sys.executable, str(Path(__file__).with_name("sigkill_writer.py")), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        watchdog = threading.Timer(PATIENCE_SECONDS, process.kill)
        watchdog.start()
        process.stdin.write(ledger.progress())
        process.stdin.close()
        enough = ledger.acknowledged + acknowledgements
        for line in process.stdout:
            if line.endswith(b"\n"):
                ledger.note(line.decode().split())
            if ledger.acknowledged == enough:
                process.send_signal(signal.SIGKILL)
        errors = process.stderr.read().decode()
        process.wait()
        watchdog.cancel()
    assert process.returncode == -signal.SIGKILL, errors
    assert ledger.acknowledged >= enough, errors


def test_writers_that_are_killed_again_and_again_lose_nothing_and_store_nothing_twice(tmp_path):
    chance, ledger, path = random.Random(20), Ledger(4), tmp_path / "store"
    for kill in range(KILLS):
        one_life(path, ledger, chance.randrange(1, 700))
        if kill % 4 == 3:
            with durable_log.open(path, options=OPTIONS) as store:
                ledger.check(store)
                store.engine.check()
    with durable_log.open(path, options=OPTIONS) as store:
        ledger.check(store)
        store.engine.check()
    assert ledger.acknowledged > KILLS * 100


class Server:
    """``durable-log serve`` in a process of its own."""

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-m", "durable_log.cli", "serve", "--data", str(path), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        line = Task(self.process.stdout.readline).result().decode()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line or self.process.communicate()[1].decode()
        self.port = int(found[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def post(connection: http.client.HTTPConnection, stream: str, producer: str, seq: int) -> tuple[int, Any]:
    headers = {
        "Content-Type": "application/octet-stream",
        "Producer-Id": producer, "Producer-Epoch": "0", "Producer-Seq": str(seq),
    }  # fmt: skip
    connection.request("POST", f"/v1/stream/{stream}", payload(producer, seq), headers)
    response = connection.getresponse()
    response.read()
    return response.status, response.headers


def client(port: int, ledger: Ledger, lock: threading.Lock, stream: str, producer: str) -> None:
    """Append by one producer from where it was, until the server is gone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        while True:
            seq = ledger.next_seq[stream, producer]
            status, _headers = post(connection, stream, producer, seq)
            assert status in (200, 204), status
            with lock:
                ledger.note(["append", stream, producer, str(seq), "-1"])
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()


def test_a_server_that_is_killed_again_and_again_loses_nothing_and_stores_nothing_twice(tmp_path):
    chance, ledger, path, lock = random.Random(21), Ledger(2), tmp_path / "store", threading.Lock()
    with durable_log.open(path) as store:
        for stream in ("s0", "s1"):
            store.create(stream)
    for _ in range(KILLS_OVER_HTTP):
        server = Server(path)
        enough = ledger.acknowledged + chance.randrange(1, 500)
        clients = [Task(client, server.port, ledger, lock, *key) for key in ledger.next_seq]
        try:
            while ledger.acknowledged < enough:
                assert not all(task.done for task in clients), [task.error() for task in clients]
                clients[0]._thread.join(0.001)
        finally:
            server.kill()
        for task in clients:
            task.result()
    with durable_log.open(path) as store:
        ledger.check(store)
        store.engine.check()
    assert ledger.acknowledged > KILLS_OVER_HTTP * 50
