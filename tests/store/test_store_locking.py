"""One process writes a store: locks, forks, reopens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from twins import Task, until

import durable_log
from durable_log import aio
from durable_log.engine.log import LogEngine
from durable_log.engine.opening import Handover
from durable_log.errors import StoreClosed, StoreLocked


def in_child(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a forked child, through a pipe."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is the very case
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    return json.loads(raw)


def outcome(work: Callable[[], Any]) -> str:
    try:
        work()
    except Exception as error:  # noqa: BLE001 - its name is compared
        return type(error).__name__
    return "fine"


@pytest.mark.parametrize("when", ["while it opens", "twice while it opens", "when it is open"])
def test_an_opening_that_is_cancelled_leaves_no_store_open(tmp_path, monkeypatch, when):
    begun, gate, ended = threading.Event(), threading.Event(), threading.Event()
    handed_over = Handover.open

    def gated(handover: Handover, *arguments: Any) -> LogEngine:
        begun.set()
        assert gate.wait(10)
        try:
            return handed_over(handover, *arguments)
        finally:
            ended.set()

    async def opened() -> aio.AsyncStore:
        return await aio.open(tmp_path)

    async def run() -> None:
        opening = asyncio.create_task(opened())
        await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
        if when == "when it is open":
            gate.set()
            assert ended.wait(10)  # and the loop has not looked yet
        for _ in range(2 if when.startswith("twice") else 1):
            opening.cancel()
            await asyncio.sleep(0)
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await opening

    with monkeypatch.context() as patched:
        patched.setattr(Handover, "open", gated)
        asyncio.run(run())
    for thread in threading.enumerate():
        if thread.name == "durable_log closer":
            thread.join()
    durable_log.open(tmp_path).close()


def test_a_lock_of_another_process_is_not_told_as_ones_own_though_it_has_the_same_number(tmp_path):
    """Containers may share a directory, a host name and process ids."""
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "os.write(fd, sys.argv[2].encode())\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    said = f"process {os.getpid()} on {socket.gethostname()}\n"
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "LOCK", said], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        with pytest.raises(StoreLocked, match="stop that one first"):
            durable_log.open(tmp_path)
        other.stdin.close()
    with durable_log.open(tmp_path), pytest.raises(StoreLocked, match="open in this process already"):
        durable_log.open(tmp_path)


def test_a_second_open_is_refused_and_says_who_holds_the_store(tmp_path):
    with durable_log.open(tmp_path):
        with pytest.raises(StoreLocked) as caught:
            durable_log.open(tmp_path)
        assert f"process {os.getpid()}" in caught.value.holder
        code = (
            "import sys, durable_log\n"
            "try: durable_log.open(sys.argv[1])\n"
            "except durable_log.StoreLocked as error: print(error.holder)\n"
        )
        other = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
        assert f"process {os.getpid()}" in other.stdout
    durable_log.open(tmp_path).close()


def test_a_refused_open_does_not_disturb_the_holder(tmp_path):
    with durable_log.open(tmp_path) as store:
        stream = store.create("a")
        for _ in range(3):
            with pytest.raises(StoreLocked):
                durable_log.open(tmp_path)
            stream.append(b"x")
        assert stream.read().data == b"xxx"


def test_a_store_refuses_to_work_in_the_child_of_a_fork(tmp_path):
    with durable_log.open(tmp_path) as store:
        stream = store.create("a", data=b"parent")
        following = stream.follow()
        next(following)

        def child() -> list[str]:
            operations = (
                stream.read, stream.info, stream.close, stream.delete, lambda: stream.append(b"x"),
                lambda: store.create("b"), lambda: list(store.names()), lambda: stream.wait(0, 1),
                lambda: next(following),
            )  # fmt: skip
            return [outcome(operation) for operation in operations] + [outcome(store.close)]

        assert in_child(child) == ["StoreClosed"] * 9 + ["fine"]
        stream.append(b" goes on")
        assert stream.read().data == b"parent goes on"
        with pytest.raises(StoreLocked):
            durable_log.open(tmp_path)
    with durable_log.open(tmp_path) as store:
        assert store.stream("a").read().data == b"parent goes on"


def test_the_child_says_in_its_refusal_who_it_is(tmp_path):
    with durable_log.open(tmp_path) as store:
        store.create("a")

        def child() -> str:
            try:
                store.stream("a").append(b"x")
            except StoreClosed as error:
                return str(error)
            return ""

        message = in_child(child)
        assert f"process {os.getpid()}" in message
        assert "child" in message


def test_a_child_that_lives_on_does_not_keep_the_lock_of_its_parent(tmp_path):
    store = durable_log.open(tmp_path)
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.write(writing, b".")
        signal.pause()
        os._exit(0)
    try:
        os.read(reading, 1)
        store.close()
        durable_log.open(tmp_path).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def test_a_child_can_open_the_store_once_the_parent_has_closed_it(tmp_path):
    store = durable_log.open(tmp_path)
    store.create("a", data=b"x")
    store.close()

    def child() -> str:
        with durable_log.open(tmp_path) as own:
            own.stream("a").append(b"y")
            return own.stream("a").read().text

    assert in_child(child) == "xy"
    with durable_log.open(tmp_path) as store:
        assert store.stream("a").read().data == b"xy"


def test_a_child_of_the_store_in_memory_refuses_as_well():
    with durable_log.open(":memory:") as store:
        store.create("a")
        assert in_child(lambda: outcome(lambda: store.stream("a").append(b"x"))) == "StoreClosed"


def test_a_process_that_ends_without_closing_leaves_a_store_that_opens(tmp_path):
    code = (
        "import sys, durable_log\n"
        "store = durable_log.open(sys.argv[1])\n"
        "store.create('a').append(b'x', durability='written')\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, tmp_path], check=True, timeout=20)
    with durable_log.open(tmp_path) as store:
        assert store.stream("a").read().data == b"x"
        assert not store.report.cut


def test_closing_twice_is_harmless_and_everything_afterwards_is_refused(opened):
    store = opened()
    stream = store.create("a", data=b"x")
    store.close()
    store.close()
    operations = (
        stream.read, stream.info, stream.close, stream.delete, lambda: stream.append(b"x"), lambda: store.create("b"),
        lambda: list(store.names()), lambda: stream.wait(0), lambda: stream.wait(1, 1), lambda: next(stream.follow()),
    )  # fmt: skip
    for operation in operations:
        with pytest.raises(StoreClosed):
            operation()


def test_who_waits_when_the_store_closes_is_told(opened):
    store = opened()
    stream = store.create("a")
    waiting = [Task(stream.wait, 0), Task(list, stream.follow())]
    until(lambda: len(store.engine._catalog.get("a").watchers or []) == 2, "the wait of both")
    store.close()
    assert [type(task.error()) for task in waiting] == [StoreClosed] * 2


def test_a_reopened_store_has_everything(opened, tmp_path):
    store = opened(tmp_path, segment_bytes=64 * 1024, record_bytes_max=32 * 1024)
    for number in range(200):
        store.create(
            f"{number:03}", content_type=f"text/x-{number}", data=f"data {number} " * number, closed=number % 3 == 0
        )
    infos = [store.stream(name).info() for name in store.names()]
    store.close()
    for _ in range(2):
        store = opened(tmp_path, segment_bytes=64 * 1024, record_bytes_max=32 * 1024)
        assert [store.stream(name).info() for name in store.names()] == infos
        for number in range(200):
            assert store.stream(f"{number:03}").read().text == f"data {number} " * number
        store.engine.check()
        store.close()
