"""The process that is killed: asyncio writers on one store, and a line on stdout for every acknowledgement.

Run as ``python sigkill_writer.py DIRECTORY < progress.json``; the progress is the first sequence of each producer that
was not acknowledged, and the number of the next short-lived stream of each kind.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from durable_log import aio
from durable_log.errors import StreamExists, StreamNotFound
from durable_log.model import Options, Producer

OPTIONS = Options(segment_bytes=64 * 1024, record_bytes_max=32 * 1024)


def payload(producer: str, seq: int) -> bytes:
    """What producer ``producer`` appends as its ``seq``-th record: of many sizes, and recognisable."""
    return f"<{producer}/{seq}{'.' * (seq * 37 % 701)}>".encode()


def acknowledged(*words: Any) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def produce(store: aio.AsyncStore, stream: str, producer: str, first: int) -> None:
    durability = "written" if producer.endswith("w") else "sync"
    handle, seq = await store.create(stream), first
    while True:
        claim = Producer(producer, 0, seq)
        appended = await handle.append(payload(producer, seq), producer=claim, durability=durability)
        acknowledged("append", stream, producer, seq, -1 if appended.duplicate else appended.offset)
        seq += 1


async def live_and_close(store: aio.AsyncStore, first: int) -> None:
    number = first
    while True:
        try:
            stream = await store.create(f"closed/{number}")
            await stream.append(b"%d" % number, close=True)
        except StreamExists:  # it was closed, and only its acknowledgement was lost
            assert number == first
        acknowledged("close", number)
        number += 1


async def live_and_die(store: aio.AsyncStore, first: int) -> None:
    number = first
    while True:
        stream = await store.create(f"deleted/{number}", data=b"x")
        try:
            await stream.delete()
        except StreamNotFound:
            raise AssertionError("a stream vanished that nobody else deletes") from None
        acknowledged("delete", number)
        number += 1


async def main(path: str, progress: dict[str, Any]) -> None:
    store = await aio.open(path, options=OPTIONS)
    report = store.engine.report
    assert not report.damage, report
    assert not report.lost, report
    acknowledged("open")
    writers = [produce(store, stream, producer, seq) for stream, producer, seq in progress["producers"]]
    await asyncio.gather(*writers, live_and_close(store, progress["closed"]), live_and_die(store, progress["deleted"]))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.load(sys.stdin)))
